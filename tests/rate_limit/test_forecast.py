"""Tokens of a known quota kept for interactive calls beside bulk work that could use all of it."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from typing import Literal

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, LimiterOptions, Priority
from pinecone_embed_async._rate_limit.forecast import Forecast
from pinecone_embed_async._rate_limit.window import Window
from tests.rate_limit.world import KEY, Service, Work, World

WINDOW = 60.0
TEXT = 100


@dataclass(frozen=True)
class Outcome:
    """The outcome of interactive texts beside bulk work.

    Attributes:
        waits: seconds that each text waited, or still waits at the end, for a permit; without the texts of the first window.
        used: tokens accepted from the second window on, as a fraction of those that an omniscient sender gets accepted.
        bulk: time of each permit of bulk work, and its tokens.
        rejected: number of rejected requests.
    """

    waits: list[float]
    used: float
    bulk: list[tuple[float, int]]
    rejected: int

    @property
    def p99(self) -> float:
        return sorted(self.waits)[math.ceil(0.99 * len(self.waits)) - 1] if self.waits else 0.0


def interactive_beside_bulk(
    limit: int,
    kind: Literal["fixed", "sliding"],
    seed: int,
    *,
    share: float = 0.1,
    text: int = TEXT,
    windows: int = 6,
    begins: float = 0.0,
    ends: float = math.inf,
    places: int = 8,
    is_one_client: bool = True,
    is_named: bool = False,
    bulk_size: int = 96 * 95,
    bulk_input: int = 95,
) -> Outcome:
    """Texts that come at random and need a fraction of a known quota, while bulk work could use all of it.

    Args:
        limit: tokens per window.
        kind: kind of the service's windows.
        seed: seed of travel times and arrivals.
        share: fraction of the quota that the texts need on average.
        text: tokens of each text.
        windows: duration in windows.
        begins: seconds after which the first text may come.
        ends: seconds after which none comes.
        places: maximum of requests in flight of each client.
        is_one_client: whether both are calls of one client, rather than of two that share the quota.
        is_named: whether a rejection has to name the quota first.
        bulk_size: tokens of a whole request of bulk work.
        bulk_input: tokens of one of its inputs.
    """
    service = Service(lambda _: limit, window=WINDOW, kind=kind)
    options = LimiterOptions(None if is_named else limit, window=WINDOW)
    world = World(options, service, seed=seed)
    concurrency = ConcurrencyLimiter(places)
    bulk = Work(
        Flow(concurrency if is_one_client else ConcurrencyLimiter(places), KEY, "bulk"), 10**9, bulk_size, bulk_input
    )
    world.add(bulk)
    # As in `embed_one`, texts that come while others wait are coalesced.
    texts = world.add(Work(Flow(concurrency, KEY, "interactive"), 0, 96 * text, text))
    draw, at, end = random.Random(f"arrivals {seed}"), begins, windows * WINDOW
    arrivals: list[float] = []
    while (at := at + draw.expovariate(share * limit / text / WINDOW)) < min(end, ends):
        arrivals.append(at)
        world.add_to(texts, text, at)
    world.run(until=end)
    permits = [when for when, tokens in texts.granted for _ in range(tokens // text)]
    # From the first window on that has a whole window with texts before it.
    settled = WINDOW * math.ceil(begins / WINDOW + 1)
    waits = [permit - at for at, permit in zip_longest(arrivals, permits, fillvalue=end) if at >= settled]
    accepted = sum(tokens for when, tokens in service.accepted if when >= WINDOW)
    return Outcome(waits, accepted / ((windows - 1) * limit), bulk.granted, len(service.rejected))


KINDS = pytest.mark.parametrize("kind", ["fixed", "sliding"])
SEEDS = pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])


@KINDS
@SEEDS
@pytest.mark.parametrize("limit", [250_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_interactive_texts_get_tokens_beside_bulk_work(limit: int, seed: int, kind: Literal["fixed", "sliding"]) -> None:
    outcome = interactive_beside_bulk(limit, kind, seed)
    assert len(outcome.waits) >= 4 * 0.09 * limit / TEXT
    assert outcome.p99 <= 1.5
    assert outcome.used >= 0.97
    assert not outcome.rejected


@SEEDS
def test_interactive_texts_get_tokens_beside_bulk_work_of_another_client(seed: int) -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", seed, is_one_client=False)
    assert outcome.p99 <= 1.5
    assert outcome.used >= 0.97


@SEEDS
def test_interactive_texts_get_tokens_of_a_quota_named_by_a_rejection(seed: int) -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", seed, is_named=True)
    assert outcome.p99 <= 1.5
    assert outcome.used >= 0.97


def test_interactive_texts_get_tokens_when_they_start_within_a_window() -> None:
    for begins in (10.0, 25.0, 55.0):
        outcome = interactive_beside_bulk(250_000, "sliding", 0, begins=begins)
        assert outcome.p99 <= 1.5
        assert outcome.used >= 0.97


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_interactive_texts_get_tokens_whatever_share_of_the_quota_they_need(share: float) -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", 0, share=share)
    assert outcome.p99 <= 1.5
    assert outcome.used >= 0.97


def test_nothing_is_kept_before_the_first_interactive_text() -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", 0, windows=2, begins=70.0)
    at_once = [tokens for when, tokens in outcome.bulk if when < 2.0]
    assert sum(at_once) >= 250_000 - 95


def test_nothing_is_kept_a_window_after_the_last_interactive_text() -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", 0, windows=6, ends=130.0)
    last = sum(tokens for when, tokens in outcome.bulk if when >= 5 * WINDOW)
    assert last >= 0.98 * 250_000
    assert outcome.used >= 0.97


@pytest.mark.parametrize("share", [0.7, 2.0])
def test_bulk_work_is_served_beside_interactive_texts_that_need_more_than_their_share(share: float) -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", 0, share=share, text=500)
    for start in range(1, 6):
        permits = [tokens for when, tokens in outcome.bulk if start * WINDOW <= when < (start + 1) * WINDOW]
        assert sum(permits) >= 2 * 96 * 95
    assert outcome.used >= 0.97


def test_a_large_bulk_input_is_served_beside_interactive_texts() -> None:
    outcome = interactive_beside_bulk(10_000, "sliding", 0, share=0.3, bulk_size=8_000, bulk_input=8_000)
    permits = [when for when, _ in outcome.bulk]
    assert max(right - left for left, right in pairwise([0.0, *permits, 6 * WINDOW])) <= 2 * WINDOW


def test_a_few_long_interactive_requests_do_not_keep_bulk_work_from_the_quota() -> None:
    outcome = interactive_beside_bulk(250_000, "sliding", 1, share=0.1, text=12_000)
    assert outcome.used >= 0.95


@given(
    st.integers(0, 1000), st.floats(0.01, 1e4), st.floats(0, 1e4), st.floats(0, 1e5), st.floats(0, 1e6), st.floats(0, 2e6)
)
def test_tokens_last_until_as_many_are_expected(
    waiting: int, rate: float, spread: float, surplus: float, most: float, tokens: float
) -> None:
    forecast = Forecast(waiting, rate, spread, surplus, most, over_at=60.0)
    seconds = forecast.lasts(tokens)
    if math.isinf(seconds):
        assert tokens >= most
    elif seconds > 0:
        assert forecast.within(seconds) == pytest.approx(tokens, rel=1e-6, abs=1e-3)
    else:
        assert tokens <= forecast.within(0) + 1e-3


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(1, 500)), max_size=100),
    st.floats(0, 60),
    st.integers(1, 500),
    st.integers(0, 100),
    st.floats(0.1, 500),
    st.floats(0, 500),
)
def test_fits_beside_at_leaves_the_forecast_free(
    settled: list[tuple[float, int]], later: float, amount: int, waiting: int, rate: float, spread: float
) -> None:
    window, limit = Window(60.0), 20_000
    for answered, tokens in sorted(settled):
        window.add(tokens, answered)
    now = 60.0 + later
    forecast = Forecast(waiting, rate, spread, math.inf, limit / 2, over_at=math.inf)
    when = window.fits_beside_at(amount, limit, forecast, now)
    if math.isinf(when):
        assert forecast.within(60.0) > limit - amount
        return
    assert limit - window.used(when) - amount >= window.kept(forecast, when) - 1e-3
    if when > now:
        before = now + 0.9 * (when - now)
        assert limit - window.used(before) - amount < window.kept(forecast, before) + 1e-3


def test_fits_beside_at_waits_for_an_amount_that_is_about_to_expire() -> None:
    window = Window(60.0)
    window.add(100, 1.0)
    forecast = Forecast(0, 1.0, 1.0, math.inf, 10.0, over_at=math.inf)
    now = math.nextafter(61.0, 0.0)
    assert window.fits_beside_at(50, 120, forecast, now) == 61.0
    assert window.fits_beside_at(50, 120, forecast, 61.0) == 61.0


def test_tokens_are_kept_until_a_large_amount_expires() -> None:
    forecast = Forecast(0, 0.5, 5.0, 30.0, 50.0, over_at=math.inf)
    for answered in (0.0, 7.3, 1000.0):
        window = Window(60.0)
        window.add(60, answered)
        window.add(30, answered + 30)
        for before in (20.0, 1.0, 0.5, 0.01):
            now = answered + 60 - before
            assert window.kept(forecast, now) == forecast.within(answered + 60 - now)
            assert window.fits_beside_at(10, 100, forecast, now) == answered + 60


@given(
    st.lists(st.tuples(st.floats(0, 60), st.integers(1, 500)), min_size=1, max_size=20),
    st.lists(st.floats(0, 60), min_size=1),
    st.integers(1, 500),
    st.integers(0, 100),
    st.floats(0.1, 10),
    st.floats(0, 100),
)
def test_the_time_at_which_an_amount_fits_beside_the_forecast_does_not_change_while_nothing_is_counted(
    settled: list[tuple[float, int]], later: list[float], amount: int, waiting: int, rate: float, spread: float
) -> None:
    window, limit = Window(60.0), amount + sum(tokens for _, tokens in settled)
    for answered, tokens in sorted(settled):
        window.add(tokens, answered)
    forecast = Forecast(waiting, rate, spread, math.inf, limit / 2, over_at=math.inf)
    when = window.fits_beside_at(amount, limit, forecast, 60.0)
    shortly_before = [max(60.0, when - seconds / 60) for seconds in later if when < math.inf]
    for now in [*shortly_before, *(60.0 + seconds for seconds in later)]:
        assert window.fits_beside_at(amount, limit, forecast, now) == pytest.approx(max(when, now), abs=1e-3)


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 96)).map(lambda of: (of[0], of[0] * of[1]))
"""Tokens of an input and of a whole request."""


@example(
    works=[
        *(((1, 1), requests, 1, 0.0, "bulk") for requests in (2, 1, 3)),
        ((10, 790), 4, 1, 0.0, "bulk"),
        ((2, 12), 4, 3, 0.0, "interactive"),
    ],
    limit=4000,
    window=1.0,
    travel=(0.5, 3.5),
    seed=0,
    fails=0.3,
    cancels=0.0,
)
@settings(phases=tuple(phase for phase in Phase if phase is not Phase.explain))
@given(
    works=st.lists(
        st.tuples(SIZES, st.integers(1, 30), st.integers(1, 8), st.floats(0, 90), st.sampled_from(["bulk", "interactive"])),
        min_size=2,
        max_size=5,
    ),
    limit=st.integers(4000, 20_000),
    window=st.floats(0.5, 60),
    travel=st.tuples(st.floats(0.01, 0.5), st.floats(0, 5)).map(lambda of: (of[0], of[0] + of[1])),
    seed=st.integers(0, 999),
    fails=st.sampled_from([0.0, 0.3]),
    cancels=st.sampled_from([0.0, 0.3]),
)
def test_all_work_finishes_within_the_limit_whatever_is_kept(
    works: list[tuple[tuple[int, int], int, int, float, Priority]],
    limit: int,
    window: float,
    travel: tuple[float, float],
    seed: int,
    fails: float,
    cancels: float,
) -> None:
    service = Service(lambda _: limit, window=window)
    options = LimiterOptions(limit, window=window)
    world = World(options, service, seed=seed, travel=travel, fails=fails, cancels=cancels)
    concurrency = ConcurrencyLimiter(8)
    jobs = [
        world.add(
            Work(
                Flow(concurrency if number % 2 else ConcurrencyLimiter(most), KEY, priority),
                requests * size,
                size,
                item,
            ),
            at,
        )
        for number, ((item, size), requests, most, at, priority) in enumerate(works)
    ]
    world.run()
    assert not service.rejected
    assert all(job.left == 0 and not job.requests for job in jobs)
    assert world.in_flight == 0
    assert world.limiter._budgets[KEY].waiting == 0
    assert world.limiter._budgets[KEY].demand.waiting == 0
    assert all(job.flow.in_flight == 0 for job in jobs)
