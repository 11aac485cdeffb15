import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._planning import Learned, LearnedLimits, Load, RequestLimits, estimate_tokens, utf8_length
from pinecone_embed_async._planning.learned import MOST_SPREAD, TokenEstimator
from pinecone_embed_async._planning.load import BYTES_PER_TOKEN, FEWEST_BYTES_PER_TOKEN, SPECIAL_TOKENS

LENGTH = 100


def learn(estimator: TokenEstimator, texts: list[str], billed: int) -> int:
    limits = LearnedLimits(RequestLimits(inputs=96, sequence_length=LENGTH), Learned())
    limits.learned.estimator = estimator
    return limits.billed(Load.of(texts, limits.current), billed)


def bill(texts: list[str], bytes_per_token: float) -> int:
    return sum(min(LENGTH, int(utf8_length(text) / bytes_per_token) + SPECIAL_TOKENS) for text in texts)


@given(st.text(st.characters(codec="utf-8"), max_size=100))
def test_utf8_length_equals_the_encoded_length(text: str) -> None:
    assert utf8_length(text) == len(text.encode())


@given(st.integers(0, 10**9), st.integers(1, 100_000), st.floats(0.5, 10))
def test_an_estimate_is_clipped_at_the_models_length(size: int, length: int, bytes_per_token: float) -> None:
    tokens = estimate_tokens(size, length, bytes_per_token)
    assert 1 <= tokens <= length
    assert tokens == min(length, int(size / bytes_per_token) + SPECIAL_TOKENS)


def test_the_first_estimates_err_high() -> None:
    estimator = TokenEstimator()
    assert estimator.bytes_per_token == FEWEST_BYTES_PER_TOKEN < BYTES_PER_TOKEN == estimator.expected


@pytest.mark.parametrize("true", [1.0, 2.5, 4.0, 5.9])
def test_estimates_converge_to_bills(true: float) -> None:
    estimator, draw = TokenEstimator(), random.Random(0)
    for _ in range(60):
        texts = ["x" * draw.randint(20, 300) for _ in range(96)]
        learn(estimator, texts, bill(texts, true))
    # Not exact, because a started token is billed whole.
    assert estimator.expected == pytest.approx(true, rel=0.05)
    assert estimator.bytes_per_token == pytest.approx(true, rel=0.12)


def test_estimates_exceed_nearly_all_bills_that_vary() -> None:
    estimator, draw = TokenEstimator(), random.Random(0)
    too_low = 0
    for step in range(400):
        texts = ["x" * 200] * 20
        true = draw.choice([3.0, 5.0])
        limits = RequestLimits(inputs=96, sequence_length=LENGTH, bytes_per_token=estimator.bytes_per_token)
        billed = bill(texts, true)
        too_low += step >= 50 and Load.of(texts, limits).tokens < billed
        learn(estimator, texts, billed)
    assert too_low <= 0.05 * 350


def test_the_margin_of_estimates_is_two_standard_deviations_of_the_bills_each_of_which_fades() -> None:
    estimator = TokenEstimator()
    for size, tokens, expected, margin in (
        (4000, 1000, 4.0, 0.05),
        # A tenth more tokens than expected.
        (4000, 1100, 7800 / 2050, 2 * 0.1),
        # Fewer than the 946 expected, and of a weight of 0.8 beside the earlier 0.95.
        (3600, 800, 11010 / 2747.5, 2 * math.sqrt(0.01 + ((800 / (3600 / (7800 / 2050)) - 1) ** 2 - 0.01) * 0.8 / 1.75)),
    ):
        estimator.learn(size, tokens)
        assert estimator.expected == pytest.approx(expected)
        assert estimator.bytes_per_token == pytest.approx(expected / (1 + margin))


def test_a_bill_of_few_tokens_has_little_weight() -> None:
    estimator = TokenEstimator()
    for size, tokens in ((4000, 1000), (4000, 1100), (400, 50)):
        estimator.learn(size, tokens)
    # Half as many tokens as expected, of a weight of 0.05 beside the earlier 0.95, which were off by a tenth.
    margin = 2 * math.sqrt(0.95 * 0.1**2 + 0.05 * (50 / (400 / (7800 / 2050)) - 1) ** 2)
    assert estimator.bytes_per_token == pytest.approx(estimator.expected / (1 + margin), rel=0.015)


@pytest.mark.parametrize(("text", "billed"), [("x", 2), ("", 3)])
def test_a_bill_of_no_tokens_or_of_no_text_teaches_nothing(text: str, billed: int) -> None:
    estimator = TokenEstimator()
    learn(estimator, [text], billed)
    assert (estimator.expected, estimator.bytes_per_token) == (BYTES_PER_TOKEN, FEWEST_BYTES_PER_TOKEN)


def test_a_request_can_cost_a_token_a_byte_up_to_the_models_length_and_eighteen_around_each_input() -> None:
    for texts, most in ((["x" * 40], 40 + 18), (["x" * 300, "y" * 1000], 100 + 100 + 2 * 18)):
        for billed, is_learned in ((most, True), (most + 1, False)):
            estimator = TokenEstimator()
            estimator.bytes_per_token = 4.0
            assert learn(estimator, texts, billed) == most
            assert (estimator.expected != BYTES_PER_TOKEN) == is_learned


def test_inputs_at_the_models_length_teach_nothing() -> None:
    estimator = TokenEstimator()
    learn(estimator, ["x" * 10_000] * 5, 5 * LENGTH)
    assert estimator.bytes_per_token == FEWEST_BYTES_PER_TOKEN
    learn(estimator, ["x" * 10_000, "y" * 120], LENGTH + 30 + SPECIAL_TOKENS)
    assert estimator.expected == 4.0


def test_even_one_letter_of_one_token_teaches_the_ratio() -> None:
    estimator = TokenEstimator()
    learn(estimator, ["x"], 1 + SPECIAL_TOKENS)
    assert estimator.expected == 1.0


@given(st.lists(st.tuples(st.lists(st.integers(0, 5000), min_size=1, max_size=20), st.integers(0, 10**7)), max_size=30))
def test_no_bill_however_wrong_makes_an_estimate_senseless(bills: list[tuple[list[int], int]]) -> None:
    estimator = TokenEstimator()
    for sizes, billed in bills:
        learn(estimator, ["x" * size for size in sizes], billed)
        assert 0 < estimator.bytes_per_token < math.inf
        assert estimator.bytes_per_token <= max(estimator.expected, FEWEST_BYTES_PER_TOKEN)
        if estimator.bytes_per_token != FEWEST_BYTES_PER_TOKEN:
            assert estimator.expected <= estimator.bytes_per_token * (1 + MOST_SPREAD) * 1.02
        assert estimate_tokens(10**6, LENGTH, estimator.bytes_per_token) <= LENGTH


def test_its_repr_tells_what_it_learned() -> None:
    assert repr(TokenEstimator()) == "<TokenEstimator 4.00 bytes a token, spread 0%>"


@given(st.lists(st.text(max_size=300), min_size=1, max_size=20), st.integers(1, 400), st.floats(1.0, 8.0))
def test_no_honest_bill_is_more_than_a_request_can_have_cost(texts: list[str], length: int, bytes_per_token: float) -> None:
    limits = RequestLimits(inputs=96, sequence_length=length, bytes_per_token=bytes_per_token)
    load = Load.of(texts, limits)
    # A token a byte, two around each input, and `query: ` before it.
    most = LearnedLimits(limits, Learned()).billed(load, 10**9)
    assert sum(min(utf8_length(text), length) + 2 + 3 for text in texts) <= most <= len(texts) * (length + 20)


@pytest.mark.parametrize("absurd", [10**6, 10**9, 10**15])
def test_a_bill_that_cannot_be_right_teaches_nothing(absurd: int) -> None:
    estimator = TokenEstimator()
    texts = ["x" * 40] * 96
    for _ in range(20):
        learn(estimator, texts, bill(texts, 4.0))
    before = estimator.bytes_per_token
    learn(estimator, texts, absurd)
    assert estimator.bytes_per_token == before
