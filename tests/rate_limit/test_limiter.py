import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit import Backoff, ConcurrencyLimiter, Flow, LimiterOptions, Priority
from pinecone_embed_async._rate_limit.fair_queue import AGEING
from pinecone_embed_async._rate_limit.limiter import GRACE, Limiter
from pinecone_embed_async._rate_limit.permit import LimiterPermit
from pinecone_embed_async._rate_limit.rejections import NamedLimit
from pinecone_embed_async._rate_limit.token_limit import FIRST_IN_FLIGHT
from tests.rate_limit.world import KEY, OneLimit, Service, Work, World

OTHER = ("model", "query")

# Without the explaining phase, which traces every line: a simulation has a million.
PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 96)).map(lambda of: (of[0], of[0] * of[1]))
"""Tokens of an input and of a whole request."""
WORKS = st.lists(st.tuples(SIZES, st.integers(1, 30), st.integers(1, 8), st.floats(0, 90)), min_size=1, max_size=4)
"""Sizes, number of whole requests, maximum in flight, and start time."""
KINDS = st.sampled_from(["fixed", "sliding"])
TRAVEL = st.tuples(st.floats(0.01, 0.5), st.floats(0, 5)).map(lambda of: (of[0], of[0] + of[1]))


PAUSE = Backoff(1.0, 1.0, lambda: 1.0)
"""A second, however often."""


class Harness:
    """A limiter with a clock set by the test, and the permits that it has granted."""

    def __init__(self, kind: type[LimiterOptions] = LimiterOptions, **options: Any) -> None:
        self.limiter = Limiter(kind(**options))
        self.now = 1000.0
        self._permits: list[LimiterPermit] = []

    @property
    def permits(self) -> list[LimiterPermit]:
        """In the order in which they were granted."""
        self._permits += [permit for permit in self.limiter.decided if permit.is_granted]
        self.limiter.decided.clear()
        return self._permits

    def request(self, flow: Flow, tokens: int = 10, *, least: int = 1) -> LimiterPermit:
        request = LimiterPermit(flow, flow.key, tokens, least)
        self.limiter.enqueue(request, self.now)
        return request

    def reject(self, permit: LimiterPermit, named: NamedLimit | None = None, *, backoff: Backoff = PAUSE) -> float | None:
        return self.limiter.rejected(permit, named, backoff, self.now)

    def wait(self) -> None:
        """Advance to the time at which a permit may be granted."""
        assert self.now < self.limiter.next_at < math.inf
        self.now = self.limiter.next_at
        self.limiter.dispatch(self.now)


def flow(concurrency: ConcurrencyLimiter, priority: Priority = "bulk", *, key: tuple[str, str] | None = KEY) -> Flow:
    return Flow(concurrency, key, priority)


@settings(phases=PHASES)
@given(
    works=WORKS,
    limit=st.integers(1000, 20_000),
    per_second=st.none() | st.integers(1, 20),
    per_minute=st.none() | st.integers(5, 60),
    window=st.floats(0.5, 60),
    travel=TRAVEL,
    seed=st.integers(0, 999),
    fails=st.sampled_from([0.0, 0.3]),
    cancels=st.sampled_from([0.0, 0.3]),
)
def test_given_limits_hold_in_any_window_and_no_wake_up_is_lost(
    works: list[tuple[tuple[int, int], int, int, float]],
    limit: int,
    per_second: int | None,
    per_minute: int | None,
    window: float,
    travel: tuple[float, float],
    seed: int,
    fails: float,
    cancels: float,
) -> None:
    # What fits every sliding window fits every fixed one, whatever its phase.
    service = Service(lambda _: limit, per_second or math.inf, per_minute or math.inf, window)
    options = LimiterOptions(limit, per_second, per_minute, window)
    world = World(options, service, seed=seed, travel=travel, fails=fails, cancels=cancels)
    jobs = [
        world.add(Work(flow(ConcurrencyLimiter(most)), requests * size, size, item), at)
        for number, ((item, size), requests, most, at) in enumerate(works)
    ]
    world.run()
    assert not service.rejected
    assert all(job.left == 0 and not job.requests for job in jobs)
    assert world.in_flight == 0
    assert all(job.flow.concurrency.in_flight == 0 for job in jobs)
    assert not world.limiter._queue
    assert world.limiter._open == set()


@settings(phases=PHASES)
@given(
    works=WORKS,
    limits=st.lists(st.integers(4000, 50_000), min_size=1, max_size=3),
    per_second=st.just(math.inf) | st.integers(2, 20).map(float),
    kind=KINDS,
    phase=st.floats(0, 60),
    text=st.booleans(),
    given_limit=st.none() | st.integers(4000, 50_000),
    travel=TRAVEL,
    seed=st.integers(0, 999),
    cancels=st.sampled_from([0.0, 0.2]),
)
# A request arrives at the service just as a grace period ends.
@example(
    works=[((1, 1), 1, 1, 0.0), ((10, 160), 1, 1, 0.0), ((13, 585), 7, 1, 0.0), ((15, 375), 6, 1, 0.0)],
    limits=[4000],
    per_second=math.inf,
    kind="fixed",
    phase=0.0,
    text=False,
    given_limit=None,
    travel=(0.02, 0.02),
    seed=0,
    cancels=0.0,
)
def test_work_always_finishes_whatever_is_learned(
    works: list[tuple[tuple[int, int], int, int, float]],
    limits: list[int],
    per_second: float,
    kind: Literal["fixed", "sliding"],
    phase: float,
    text: bool,
    given_limit: int | None,
    travel: tuple[float, float],
    seed: int,
    cancels: float,
) -> None:
    """The quota changes every five minutes, perhaps without rejections naming it."""
    service = Service(lambda now: limits[int(now // 300) % len(limits)], per_second, kind=kind, phase=phase, text=text)
    options = LimiterOptions(given_limit)
    world = World(options, service, seed=seed, travel=travel, cancels=cancels)
    jobs = [
        world.add(Work(flow(ConcurrencyLimiter(most)), requests * size, size, item), at)
        for number, ((item, size), requests, most, at) in enumerate(works)
    ]
    world.run(until=20_000)
    assert all(job.left == 0 and not job.requests for job in jobs)
    assert world.in_flight == 0
    assert sum(tokens for _, tokens in service.accepted) == sum(size * requests for (_, size), requests, _, _ in works)


@settings(phases=PHASES, max_examples=20)
@given(
    sizes=st.lists(
        st.tuples(st.integers(20, 100), st.integers(10, 96)).map(lambda of: (of[0], of[0] * of[1])), min_size=2, max_size=4
    ),
    starts=st.lists(st.floats(0, 60), min_size=4, max_size=4),
    seed=st.integers(0, 999),
)
def test_calls_of_a_client_share_the_tokens_evenly_whatever_their_sizes_and_whichever_came_first(
    sizes: list[tuple[int, int]], starts: list[float], seed: int
) -> None:
    limit, window = 50_000, 10.0
    world = World(LimiterOptions(limit, window=window), Service(lambda _: limit, window=window), seed=seed)
    concurrency = ConcurrencyLimiter(8)
    jobs = [
        world.add(Work(flow(concurrency), 10**9, size, item), start)
        for (item, size), start in zip(sizes, starts, strict=False)
    ]
    world.run(until=60)
    before = [job.total for job in jobs]
    world.run(until=60 + 5 * window)
    had = [job.total - was for job, was in zip(jobs, before, strict=True)]
    # Tokens come in bursts a window and a round trip apart, so that there may be four, each less than would be a crumb.
    assert sum(had) >= 3.95 * limit
    assert max(had) - min(had) <= 0.05 * sum(had)


@pytest.mark.parametrize("places", [8, 16, 100])
def test_two_calls_share_tokens_evenly_even_while_some_are_free(places: int) -> None:
    limit, window = 50_000, 10.0
    for seed in range(10):
        world = World(LimiterOptions(limit, window=window), Service(lambda _: limit, window=window), seed=seed)
        concurrency = ConcurrencyLimiter(places)
        jobs = [world.add(Work(flow(concurrency), 10**9, size, 20)) for size in (200, 740)]
        for start in (0, 6):
            if start:
                world.run(until=start * window)
            before = [job.total for job in jobs]
            world.run(until=(start + 2) * window)
            had = [job.total - was for job, was in zip(jobs, before, strict=True)]
            assert sum(had) >= 1.95 * limit
            assert max(had) - min(had) <= 0.05 * sum(had)


def test_clients_share_tokens_evenly_when_not_bound_by_requests_in_flight() -> None:
    limit, window = 50_000, 10.0
    for seed in range(10):
        world = World(LimiterOptions(limit, window=window), Service(lambda _: limit, window=window), seed=seed)
        jobs = [world.add(Work(flow(ConcurrencyLimiter(100)), 10**9, size, 20)) for size in (200, 740)]
        world.run(until=6 * window)
        before = [job.total for job in jobs]
        world.run(until=8 * window)
        had = [job.total - was for job, was in zip(jobs, before, strict=True)]
        assert max(had) - min(had) <= 0.05 * sum(had)


def test_a_call_uses_all_tokens_that_another_one_leaves() -> None:
    limit, window = 50_000, 10.0
    world = World(LimiterOptions(limit, window=window), Service(lambda _: limit, window=window))
    concurrency = ConcurrencyLimiter(8)
    large, small = Work(flow(concurrency), 10**9, 740, 20), Work(flow(concurrency), 0, 200, 20)
    world.add(large)
    # Never without a request in flight for long.
    for number in range(600):
        world.add_to(small, 20, 0.1 * number)
    world.run(until=6 * window)
    assert small.total >= 20 * 500
    assert large.total + small.total >= 5.9 * limit
    assert max(right - left for (left, _), (right, _) in pairwise(large.granted)) <= window


def test_a_call_that_is_behind_makes_up_for_little_more_than_a_window() -> None:
    limit, window = 50_000, 10.0
    world = World(LimiterOptions(limit, window=window), Service(lambda _: limit, window=window))
    concurrency = ConcurrencyLimiter(8)
    large, small = Work(flow(concurrency), 10**9, 740, 20), Work(flow(concurrency), 0, 740, 20)
    world.add(large)
    for number in range(600):
        world.add_to(small, 20, 0.1 * number)
    world.add_to(small, 10**9, 60.0)
    world.run(until=9 * window)
    before = large.total
    world.run(until=12 * window)
    assert large.total - before >= 1.4 * limit


def test_a_briefly_absent_call_does_not_overtake_those_that_were_blocked_meanwhile() -> None:
    harness, concurrency = Harness(OneLimit, tokens_per_minute=100), ConcurrencyLimiter(1000)
    waits, absent, free = flow(concurrency), flow(concurrency), flow(concurrency, key=OTHER)
    harness.request(absent, 50)
    harness.request(waits, 50)
    harness.request(waits, 50)
    for _ in range(20):
        harness.request(free, 1000)
    for _ in range(9):
        harness.request(absent, 50)
    for permit in harness.permits:
        harness.limiter.accepted(permit, permit.tokens, harness.now)
    for _ in range(3):
        harness.request(waits, 50)
    before = len(harness.permits)
    for _ in range(2):
        harness.wait()
        for permit in harness.permits[before:]:
            harness.limiter.accepted(permit, permit.tokens, harness.now)
    # They alternate: neither makes up for what the other limit was used for.
    assert Counter(permit.flow for permit in harness.permits[before:]) == {waits: 2, absent: 2}


def test_no_grace_period_while_plenty_of_tokens_are_free() -> None:
    harness, concurrency = Harness(tokens_per_minute=10_000), ConcurrencyLimiter(8)
    small, large = flow(concurrency), flow(concurrency)
    for _ in range(4):
        harness.request(large, 1000)
        harness.request(small, 10)
    assert len(harness.permits) == 8


def test_a_short_grace_period_for_the_flow_that_is_behind_when_tokens_are_short() -> None:
    harness, concurrency = Harness(tokens_per_minute=1000), ConcurrencyLimiter(8)
    small, large = flow(concurrency), flow(concurrency)
    harness.request(large, 400)
    harness.request(small, 200)
    harness.request(large, 100)
    assert [permit.flow for permit in harness.permits] == [large, small]
    harness.request(small, 100)
    assert [permit.flow for permit in harness.permits] == [large, small, small]
    harness.wait()
    assert harness.now == pytest.approx(1000 + GRACE)
    assert [permit.flow for permit in harness.permits] == [large, small, small, large]


def test_no_grace_period_up_to_half_of_the_limit() -> None:
    harness, concurrency = Harness(tokens_per_minute=1000), ConcurrencyLimiter(8)
    small, large, other = flow(concurrency), flow(concurrency), flow(ConcurrencyLimiter(1), key=None)
    # Something else waits, so that nothing is sent past the queue.
    for _ in range(2):
        harness.request(other)
    harness.request(large, 300)
    harness.request(small, 100)
    harness.request(large, 100)
    assert [permit.flow for permit in harness.permits] == [other, large, small, large]


def test_no_grace_period_for_a_flow_with_nothing_in_flight() -> None:
    harness, concurrency = Harness(tokens_per_minute=1000), ConcurrencyLimiter(8)
    small, large = flow(concurrency), flow(concurrency)
    harness.request(large, 400)
    harness.request(small, 200)
    harness.limiter.accepted(harness.permits[1], 200, harness.now)
    harness.request(large, 100)
    assert [permit.flow for permit in harness.permits] == [large, small, large]


@given(st.lists(st.floats(0, 60), min_size=2, max_size=4), st.integers(0, 999))
@settings(phases=PHASES, max_examples=10)
def test_clients_that_share_a_quota_share_the_tokens_evenly(starts: list[float], seed: int) -> None:
    limit, window = 250_000, 60.0
    world = World(LimiterOptions(limit), Service(lambda _: limit), seed=seed)
    jobs = [world.add(Work(flow(ConcurrencyLimiter(8)), 10**9, 9120, 95), start) for start in starts]
    world.run(until=4 * window)
    before = [job.total for job in jobs]
    world.run(until=14 * window)
    had = [job.total - was for job, was in zip(jobs, before, strict=True)]
    assert sum(had) >= 9.5 * limit
    assert max(had) - min(had) <= 0.1 * sum(had)


def test_work_that_fits_the_rest_of_the_window_is_not_delayed() -> None:
    harness, concurrency = (
        Harness(tokens_per_minute=250_000, requests_per_second=100, requests_per_minute=2000),
        ConcurrencyLimiter(100),
    )
    for _ in range(27):
        harness.request(flow(concurrency), 9_120)
    assert len(harness.permits) == 27
    assert {permit.at for permit in harness.permits} == {harness.now}


def test_permits_are_granted_in_the_order_of_a_flow() -> None:
    harness, one = Harness(tokens_per_minute=100), flow(ConcurrencyLimiter(8))
    requests = [harness.request(one, tokens, least=tokens) for tokens in (90, 100, 1, 1)]
    assert len(harness.permits) == 1
    harness.limiter.give_back(requests[1], harness.now)
    assert [permit.tokens for permit in harness.permits] == [90, 1, 1]


@pytest.mark.parametrize("priority", ["bulk", "interactive"])
def test_a_small_request_overtakes_no_large_one_of_another_client_although_plenty_is_free(priority: Priority) -> None:
    harness = Harness(tokens_per_minute=100)
    harness.request(flow(ConcurrencyLimiter(8)), 10)
    harness.request(flow(ConcurrencyLimiter(8), priority), 95, least=95)
    harness.request(flow(ConcurrencyLimiter(8), priority), 10)
    assert [permit.tokens for permit in harness.permits] == [10]


def test_the_share_of_a_flow_counts_what_was_billed() -> None:
    harness, one = Harness(), flow(ConcurrencyLimiter(8))
    harness.request(one, 90)
    harness.limiter.resize(harness.permits[0], 20, harness.now)
    assert one.had == 20
    harness.limiter.accepted(harness.permits[0], 15, harness.now)
    assert one.had == 15


def test_a_full_concurrency_limiter_does_not_block_another() -> None:
    harness, full, free = Harness(), ConcurrencyLimiter(1), ConcurrencyLimiter(1)
    first, second = flow(full), flow(free)
    harness.request(first)
    harness.request(first)
    harness.request(second)
    assert [permit.flow.concurrency for permit in harness.permits] == [full, free]
    assert math.isinf(harness.limiter.next_at)
    harness.limiter.accepted(harness.permits[0], harness.permits[0].tokens, harness.now)
    assert len(harness.permits) == 3


def test_while_no_token_limit_is_known_few_requests_are_in_flight_whatever_the_concurrency() -> None:
    harness = Harness(tokens_per_minute=None)
    places = ConcurrencyLimiter(10 * FIRST_IN_FLIGHT)
    for _ in range(FIRST_IN_FLIGHT):
        assert harness.request(flow(places)).is_granted
    assert not harness.request(flow(places)).is_granted


def test_a_slowed_concurrency_limiter_has_one_request_in_flight() -> None:
    budget = SimpleNamespace(is_low=True)
    harness, one = Harness(), flow(ConcurrencyLimiter(8, budget=budget))
    for _ in range(3):
        harness.request(one)
    assert len(harness.permits) == 1
    budget.is_low = False
    harness.limiter.dispatch(harness.now)
    assert len(harness.permits) == 3


def test_interactive_work_takes_the_next_tokens_that_come_free() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    bulk, interactive = flow(concurrency), flow(concurrency, "interactive")
    harness.request(bulk, 100)
    harness.limiter.accepted(harness.permits[0], harness.permits[0].tokens, harness.now)
    harness.request(bulk, 100, least=50)
    harness.request(interactive, 100)
    harness.wait()
    assert [permit.flow for permit in harness.permits] == [bulk, interactive]


def test_bulk_work_is_not_starved_of_tokens_by_interactive_work() -> None:
    service = Service(lambda _: 1000, window=1.0)
    world = World(LimiterOptions(1000, window=1.0), service)
    concurrency = ConcurrencyLimiter(8)
    bulk = world.add(Work(flow(concurrency), 10**9, 1000, 1000))
    for _ in range(8):
        world.add(Work(flow(concurrency, "interactive"), 10**9, 100, 100))
    world.run(until=60)
    times = [when for when, _ in bulk.granted]
    assert len(times) >= 60 / (AGEING + 2)
    assert max(right - left for left, right in pairwise(times)) <= AGEING + 3


def test_requests_for_other_tokens_are_not_blocked() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    one, other = flow(concurrency), flow(concurrency, key=OTHER)
    harness.request(one, 100)
    harness.request(one, 100)
    harness.request(other, 100)
    assert [permit.key for permit in harness.permits] == [KEY, OTHER]


def test_requests_that_cost_no_tokens_wait_for_no_tokens() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 100)
    harness.request(flow(concurrency), 100)
    harness.request(flow(concurrency, "interactive", key=None), 0, least=0)
    assert [permit.key for permit in harness.permits] == [KEY, None]


def test_a_permit_given_back_costs_nothing_and_goes_to_the_next_request() -> None:
    harness, concurrency = Harness(tokens_per_minute=100, requests_per_minute=1), ConcurrencyLimiter(1)
    one, other = flow(concurrency), flow(concurrency)
    harness.request(one, 100)
    harness.request(other, 100)
    harness.limiter.give_back(harness.permits[0], harness.now)
    assert [permit.flow for permit in harness.permits] == [one, other]
    assert concurrency.in_flight == 1
    assert one.had == 0
    assert harness.request(flow(ConcurrencyLimiter(1), key=OTHER)).is_granted is False, "one request is counted"


def test_shrinking_a_permit_leaves_the_rest_to_others() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 90)
    harness.request(flow(concurrency), 80, least=80)
    assert len(harness.permits) == 1
    harness.limiter.resize(harness.permits[0], 20, harness.now)
    assert [permit.tokens for permit in harness.permits] == [20, 80]


ENDS = [
    lambda harness, permit: harness.limiter.accepted(permit, permit.tokens, harness.now),
    lambda harness, permit: harness.limiter.failed(permit, harness.now, is_overload=False),
    lambda harness, permit: harness.limiter.give_back(permit, harness.now),
    lambda harness, permit: harness.reject(permit),
    lambda harness, permit: harness.limiter.resize(permit, 1, harness.now),
]


@pytest.mark.parametrize("end", ENDS[:-1])
def test_the_end_of_a_request_makes_its_place_free_at_once(end: Callable[[Harness, LimiterPermit], object]) -> None:
    harness, concurrency = Harness(), ConcurrencyLimiter(1)
    harness.request(flow(concurrency))
    harness.request(flow(concurrency, key=OTHER))
    end(harness, harness.permits[0])
    assert [permit.key for permit in harness.permits] == [KEY, OTHER]


@pytest.mark.parametrize("end", ENDS[:-1])
def test_an_ended_request_counts_against_the_request_limit_for_no_longer_than_a_window(
    end: Callable[[Harness, LimiterPermit], object],
) -> None:
    harness, concurrency = Harness(requests_per_minute=1), ConcurrencyLimiter(8)
    harness.request(flow(concurrency))
    end(harness, harness.permits[0])
    harness.now += 60
    assert harness.request(flow(concurrency)).is_granted


@pytest.mark.parametrize("end", ENDS)
def test_ending_a_closed_or_forgotten_permit_again_does_nothing(end: Callable[[Harness, LimiterPermit], object]) -> None:
    for forget in (False, True):
        harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
        harness.request(flow(concurrency), 60)
        (permit,) = harness.permits
        if forget:
            harness.limiter.forget_requests(harness.now)
        else:
            harness.limiter.accepted(permit, permit.tokens, harness.now)
        end(harness, permit)
        limit = harness.limiter._budgets[KEY].limit
        assert concurrency.in_flight == 0
        assert limit.in_flight == 0
        assert limit.used(harness.now) == 60
        assert limit.reserved == 0
        assert not limit.streak


def test_queueing_tells_whether_the_request_waits() -> None:
    harness, of = Harness(tokens_per_minute=100), flow(ConcurrencyLimiter(1))
    requests = [LimiterPermit(of, KEY, 100, 100, deadline) for deadline in (math.inf, math.inf, harness.now + 1)]
    assert not harness.limiter.enqueue(requests[0], harness.now)
    assert harness.limiter.enqueue(requests[1], harness.now)
    harness.reject(requests[0])
    assert not harness.limiter.enqueue(requests[2], harness.now)
    assert requests[2].pause is not None


def test_a_failed_request_counts_as_the_service_may_have_counted_it() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 60)
    harness.limiter.failed(harness.permits[0], harness.now, is_overload=True)
    harness.request(flow(concurrency), 60, least=60)
    assert len(harness.permits) == 1
    harness.wait()
    assert harness.now == 1060


def test_a_rejected_request_does_not_count() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 60)
    harness.reject(harness.permits[0])
    assert harness.limiter._budgets[KEY].limit.used(harness.now) == 0


def test_one_rejection_pauses_everything_under_that_limit_and_nothing_else() -> None:
    harness, concurrency = Harness(), ConcurrencyLimiter(8)
    harness.request(flow(concurrency))
    assert harness.reject(harness.permits[0]) == 1.0
    harness.request(flow(concurrency))
    harness.request(flow(ConcurrencyLimiter(8), "interactive"))
    harness.request(flow(concurrency, key=OTHER))
    assert [permit.key for permit in harness.permits] == [KEY, OTHER]
    assert harness.limiter.known_pause(KEY, harness.now).left(harness.now) == 1
    assert harness.limiter.known_pause(OTHER, harness.now).left(harness.now) == 0
    harness.wait()
    assert len(harness.permits) == 3
    assert harness.now == 1001


def test_the_start_of_a_pause_is_returned_once() -> None:
    harness, concurrency = Harness(), ConcurrencyLimiter(8)
    for _ in range(3):
        harness.request(flow(concurrency))
    assert [harness.reject(permit) for permit in harness.permits] == [1.0, None, None]


def test_a_pause_of_no_length_does_not_start() -> None:
    harness = Harness()
    harness.request(flow(ConcurrencyLimiter(8)))
    assert harness.reject(harness.permits[0], backoff=Backoff(0.0, 0.0, lambda: 0.0)) is None


def test_overloads_halve_requests_in_flight_once_per_burst_and_token_rejections_do_not() -> None:
    harness, concurrency = Harness(tokens_per_minute=10**9), ConcurrencyLimiter(8)
    for _ in range(8):
        harness.request(flow(concurrency))
    harness.now += 1
    for permit in harness.permits[:4]:
        harness.limiter.failed(permit, harness.now, is_overload=True)
    assert concurrency.limit == 4
    for permit in harness.permits[4:]:
        harness.reject(permit, NamedLimit("tokens per minute", 1000))
    assert concurrency.limit == 4
    for _ in range(100):
        concurrency.succeeded()
    assert concurrency.limit == 8


def test_accepted_requests_raise_a_halved_limit_in_flight() -> None:
    harness, concurrency = Harness(), ConcurrencyLimiter(2)
    harness.request(flow(concurrency))
    harness.limiter.failed(harness.permits[0], harness.now, is_overload=True)
    assert concurrency.limit == 1
    harness.request(flow(concurrency))
    harness.limiter.accepted(harness.permits[1], harness.permits[1].tokens, harness.now)
    assert concurrency.limit == 2


def test_a_rejection_for_requests_halves_those_in_flight_and_its_limit_is_learned() -> None:
    harness, concurrency = Harness(tokens_per_minute=10**9), ConcurrencyLimiter(8)
    for _ in range(8):
        harness.request(flow(concurrency))
    harness.now += 0.5
    for permit in harness.permits[:4]:
        harness.limiter.accepted(permit, permit.tokens, harness.now)
    for permit in harness.permits[4:8]:
        harness.reject(permit, NamedLimit("requests per second", 4), backoff=Backoff(1.0, math.inf, lambda: 1.0))
    assert concurrency.limit == 4
    assert harness.limiter.known_pause(KEY, harness.now).left(harness.now) == 1
    assert harness.limiter._budgets[KEY].limit.used(harness.now) == 4 * 10, "those rejected cost no tokens"
    assert not harness.limiter._budgets[KEY].limit.streak
    wide = ConcurrencyLimiter(100)
    for _ in range(5):
        harness.request(flow(wide))
    before = len(harness.permits)
    harness.wait()
    assert harness.now == 1001.5
    assert len(harness.permits) - before == 4


def test_wait_left_after_a_rejection_lasts_until_the_request_limit_has_room() -> None:
    harness, concurrency = Harness(), ConcurrencyLimiter(8)
    for _ in range(4):
        harness.request(flow(concurrency))
    for permit in harness.permits[:3]:
        harness.limiter.accepted(permit, permit.tokens, harness.now)
    harness.now += 20
    harness.reject(harness.permits[3], NamedLimit("requests per minute", 3))
    assert harness.limiter.known_pause(KEY, harness.now).left(harness.now) == 1
    assert harness.limiter.wait_left(KEY, harness.now) == 40
    assert harness.limiter.wait_left(None, harness.now) == 40
    harness.request(flow(concurrency))
    harness.wait()
    assert harness.now == 1060


def test_wait_left_lasts_until_the_end_of_a_later_pause() -> None:
    harness, concurrency = Harness(requests_per_minute=1), ConcurrencyLimiter(8)
    harness.request(flow(concurrency))
    harness.reject(harness.permits[0], backoff=Backoff(100.0, 100.0, lambda: 1.0))
    assert harness.limiter.wait_left(KEY, harness.now) == 100
    assert harness.limiter.wait_left(OTHER, harness.now) == 60


def test_wait_left_is_0_if_it_depends_on_responses() -> None:
    harness, concurrency = Harness(requests_per_minute=1), ConcurrencyLimiter(8)
    harness.request(flow(concurrency))
    assert harness.limiter.wait_left(KEY, harness.now) == 0


@pytest.mark.parametrize("which", ["per_second", "per_window"])
def test_a_raised_request_limit_is_noticed(which: str) -> None:
    length = 1.0 if which == "per_second" else 60.0
    service = Service()
    setattr(service, which, 2)
    world = World(LimiterOptions(), service, travel=(0.01, 0.02))
    world.add(Work(flow(ConcurrencyLimiter(8)), 10**9, 1, 1))
    world.run(until=60 * length)
    assert len(service.accepted) >= 100
    last = len(service.rejected)
    world.run(until=120 * length)
    # It is probed half as often each time, so hardly ever by now.
    assert len(service.rejected) - last <= 8
    setattr(service, which, 20)
    world.run(until=360 * length)
    assert len([when for when, _ in service.accepted if when > 340 * length]) > 300


def test_a_learned_request_limit_does_not_stop_probes_of_the_token_limit() -> None:
    harness, concurrency = Harness(), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 100)
    harness.reject(harness.permits[0], NamedLimit("tokens per minute", 100))
    harness.now += 5 * 60
    harness.request(flow(concurrency), 100)
    harness.limiter.accepted(harness.permits[1], harness.permits[1].tokens, harness.now)
    harness.request(flow(concurrency), 100)
    assert harness.permits[2].is_probe
    harness.reject(harness.permits[2], NamedLimit("requests per second", 10))
    harness.now += 1
    harness.request(flow(concurrency), 100)
    assert harness.permits[3].is_probe


def test_waiting_for_a_request_limit_does_not_count_as_waiting_for_tokens() -> None:
    harness, concurrency = Harness(tokens_per_minute=1000, requests_per_minute=1), ConcurrencyLimiter(8)
    harness.request(flow(concurrency))
    harness.limiter.accepted(harness.permits[0], harness.permits[0].tokens, harness.now)
    harness.request(flow(concurrency))
    harness.now += 30
    (known,) = harness.limiter.statistics(harness.now)
    assert (known.waiting, known.waited) == (1, 0)


def test_waiting_for_tokens_counts_until_nothing_waits_any_more() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 60)
    waits = harness.request(flow(concurrency, "interactive"), 60, least=60)
    harness.now += 7
    harness.limiter.dispatch(harness.now)
    harness.now += 7
    (known,) = harness.limiter.statistics(harness.now)
    assert (known.waiting, known.is_waiting, known.waited) == (1, True, 14)
    harness.limiter.give_back(waits, harness.now)
    harness.now += 7
    (known,) = harness.limiter.statistics(harness.now)
    assert (known.waiting, known.is_waiting, known.waited) == (0, False, 14)


def test_used_up_limits_are_no_pause() -> None:
    harness = Harness(tokens_per_minute=100, requests_per_minute=1)
    harness.request(flow(ConcurrencyLimiter(8)), 100)
    harness.limiter.accepted(harness.permits[0], 100, harness.now)
    assert harness.limiter.known_pause(KEY, harness.now).left(harness.now) == 0


def test_after_a_fork_learned_limits_stay_and_waiting_requests_are_forgotten() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    waits = flow(concurrency)
    harness.request(waits, 60)
    harness.request(waits, 60, least=60)
    harness.limiter.forget_requests(harness.now)
    assert harness.limiter.waiting({concurrency}) == 0
    assert math.isinf(harness.limiter.next_at)
    assert (concurrency.in_flight, concurrency.limit) == (0, 8)
    assert harness.limiter._budgets[KEY].limit.used(harness.now) == 60
    # The flow works in the child, too.
    harness.request(waits, 40)
    assert [permit.tokens for permit in harness.permits] == [40]


def test_statistics_and_repr() -> None:
    harness, concurrency = Harness(tokens_per_minute=100), ConcurrencyLimiter(8)
    harness.request(flow(concurrency), 60)
    harness.request(flow(concurrency), 60, least=60)
    (known,) = harness.limiter.statistics(harness.now)
    assert (known.model, known.input_type, known.limit, known.source) == (*KEY, 100, "given")
    assert (known.used, known.waiting) == (60, 1)
    assert repr(harness.limiter) == "<Limiter 1 waiting; model passage: <TokenLimit 60 used, limit 100 (given)>>"
    assert concurrency.in_flight == 1
