import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit.adaptive_limit import CALM, CUT, DEEP_CUT, FORGOTTEN, AdaptiveLimit

LENGTH = 60.0


def found(tokens: float, *, step: int = 0) -> AdaptiveLimit:
    limit = AdaptiveLimit(LENGTH)
    if step:
        limit.accepted(step)
    limit.find(tokens, 0.0, is_guess=False)
    return limit


def test_no_limit_before_it_is_found_and_after_it_is_forgotten() -> None:
    limit = AdaptiveLimit(LENGTH)
    assert (limit.exists, limit.tokens, limit.is_guess) == (False, math.inf, False)
    limit.find(100.0, 0.0, is_guess=True)
    assert (limit.exists, limit.tokens, limit.is_guess) == (True, 100.0, True)
    limit.forget()
    assert (limit.exists, limit.tokens, limit.is_guess) == (False, math.inf, False)


@given(st.floats(1, 1e9), st.floats(0, 1e9))
def test_a_cut_is_at_most_by_half(tokens: float, got: float) -> None:
    limit = found(tokens)
    limit.cut(tokens, got, 0.0, 1.0)
    assert tokens / 2 <= limit.tokens <= CUT * tokens


def test_a_cut_does_not_go_below_the_lower_bound() -> None:
    limit = found(100.0)
    limit.cut(100.0, 0.0, 70.0, 1.0)
    assert limit.tokens == 70


@given(st.floats(1, 1e9), st.lists(st.floats(0, 10 * LENGTH), max_size=50), st.integers(0, 100_000))
def test_it_grows_while_work_waits_and_stays_finite(tokens: float, waits: list[float], step: int) -> None:
    limit = found(tokens, step=step)
    before = limit.tokens
    for seconds in waits:
        limit.grow(seconds)
        assert before <= limit.tokens < math.inf
        before = limit.tokens


def test_it_grows_by_requests_so_that_small_shares_catch_up() -> None:
    small, large = found(1000.0, step=100), found(100_000.0, step=100)
    for limit in (small, large):
        limit.grow(LENGTH)
    assert small.tokens / 1000 > large.tokens / 100_000


def test_after_calm_windows_it_grows_exponentially_until_outgrown() -> None:
    limit, sizes = found(1000.0), list[float]()
    for _ in range(CALM + 8):
        sizes.append(limit.tokens)
        limit.grow(LENGTH)
    growth = [right - left for left, right in pairwise(sizes)]
    assert growth[-1] > 50 * growth[0]
    for _ in range(10):
        limit.grow(LENGTH)
    assert limit.is_outgrown
    assert limit.tokens > FORGOTTEN * 1000


@pytest.mark.parametrize(
    ("is_even", "windows", "tokens"),
    [(False, 5, 1000 * (1 + 0.02 * (5 + 1 - 1 / 32))), (True, 2, 1000 * (1 + 0.06 * (2 + 1 - 1 / 4)))],
)
def test_growth_per_window_doubles_after_five_windows_or_two_if_it_refills_evenly(
    is_even: bool, windows: int, tokens: float
) -> None:
    limit = AdaptiveLimit(LENGTH)
    limit.find(1000.0, 0.0, is_guess=False, is_even=is_even)
    limit.grow(windows * LENGTH)
    assert limit.tokens == pytest.approx(tokens)


def test_a_limit_that_has_grown_to_more_than_64_times_its_value_is_outgrown() -> None:
    limit = AdaptiveLimit(LENGTH)
    assert not limit.is_outgrown
    limit.find(1000.0, 0.0, is_guess=False)
    limit.grow(16.6 * LENGTH)
    assert (limit.tokens < 64_000, limit.is_outgrown) == (True, False)
    limit.grow(0.025 * LENGTH)
    assert (limit.tokens < 65_000, limit.is_outgrown) == (True, True)


def test_a_forgotten_limit_is_neither_even_nor_a_guess_even_when_a_known_one_is_cut() -> None:
    limit = AdaptiveLimit(LENGTH)
    limit.find(1000.0, 0.0, is_guess=True, is_even=True)
    limit.forget()
    limit.cut(2000.0, 1500.0, 0.0, LENGTH)
    assert (limit.tokens, limit.is_even, limit.is_guess) == (1500.0, False, False)
    limit.find(1000.0, 0.0, is_guess=False)
    assert not limit.is_even


def test_a_deep_cut_is_recovered_up_to_the_largest_value_that_may_have_held_which_fades() -> None:
    limit = found(1000.0)
    limit.cut(1000.0, 0.0, 0.0, LENGTH)
    limit.grow(LENGTH / 2)
    assert limit.tokens == pytest.approx(500 * (1 + 0.02 * (math.sqrt(40) - 1)))
    limit.grow(4.5 * LENGTH)
    assert limit.tokens == pytest.approx(920)
    limit.cut(500.0, 0.0, 0.0, 2 * LENGTH)
    limit.grow(5 * LENGTH)
    assert limit.tokens == pytest.approx(920 * 0.98)


def test_a_cut_to_four_fifths_of_what_may_have_held_is_not_deep() -> None:
    limit = found(1000.0)
    limit.cut(1000.0, 736.0, 0.0, 1.0)
    limit.grow(LENGTH)
    assert limit.tokens < 800


def test_a_deep_cut_is_recovered_sooner() -> None:
    once, deep = found(1000.0), found(1000.0)
    once.cut(1000.0, 900.0, 0.0, 1.0)
    deep.cut(1000.0, 0.0, 0.0, 1.0)
    assert deep.tokens < DEEP_CUT * 1000
    share = deep.tokens / once.tokens
    for limit in (once, deep):
        limit.grow(2 * LENGTH)
    assert deep.tokens / once.tokens > share


def test_a_guess_may_be_raised() -> None:
    limit = AdaptiveLimit(LENGTH)
    limit.hold_at_least(5.0)
    assert not limit.exists
    limit.find(100.0, 0.0, is_guess=True)
    limit.hold_at_least(150.0)
    limit.hold_at_least(120.0)
    assert limit.tokens == 150


def test_the_average_request_follows_the_last_ones() -> None:
    limit = AdaptiveLimit(LENGTH)
    limit.accepted(2000)
    assert limit.step == 2000
    limit.accepted(1000)
    assert limit.step == 1900
    for tokens in 100 * (200,):
        limit.accepted(tokens)
    limit.find(100.0, 0.0, is_guess=False)
    limit.grow(LENGTH)
    assert limit.tokens == pytest.approx(100 + 1.4 * 200, rel=0.02)
