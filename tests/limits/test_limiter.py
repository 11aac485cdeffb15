import math
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pinecone_embed_async._limits import Ask, Flow, Grant, Lane, Limiter, LimiterOptions, LimitKind, NamedLimit, Priority
from pinecone_embed_async._limits._limiter import GRACE
from pinecone_embed_async._limits._queue import AGEING
from tests.limits.world import KEY, Service, Work, World

OTHER = ("model", "query")

# Without the explaining phase, which traces every line: a simulation has a million.
PHASES = tuple(phase for phase in Phase if phase is not Phase.explain)

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 96)).map(lambda of: (of[0], of[0] * of[1]))
"""Tokens of an input, and of a whole request."""
WORKS = st.lists(st.tuples(SIZES, st.integers(1, 30), st.integers(1, 8), st.floats(0, 90)), min_size=1, max_size=4)
"""Sizes, how many whole requests, requests in flight at most, and when it starts."""
KINDS = st.sampled_from(["fixed", "sliding"])
TRAVEL = st.tuples(st.floats(0.01, 0.5), st.floats(0, 5)).map(lambda of: (of[0], of[0] + of[1]))


class Desk:
    """A limiter by a clock that a test sets, and the turns that it gave."""

    def __init__(self, *, first_in_flight: int = 1000, **options: Any) -> None:
        self.limiter = Limiter(LimiterOptions(first_in_flight=first_in_flight, **options))
        self.now = 1000.0
        self.grants: list[Grant] = []

    def ask(
        self, flow: Flow[Ask], lane: Lane, tokens: int = 10, *, least: int = 1, key: tuple[str, str] | None = KEY
    ) -> Ask:
        ask = Ask(flow, lane, key, tokens, least, self.grants.append)
        self.limiter.ask(ask, self.now)
        return ask

    def reject(
        self,
        grant: Grant,
        named: NamedLimit | None = None,
        *,
        backoff: Callable[[int], float] = lambda _: 1.0,
        asked: bool = False,
    ) -> float | None:
        return self.limiter.rejected(grant, self.now, named=named, backoff=backoff, asked=asked)

    def wait(self) -> None:
        """Go to the time when there may be a turn."""
        when = self.limiter.next_time(self.now)
        assert when is not None
        assert when > self.now
        self.now = when
        self.limiter.dispatch(self.now)


def flow(priority: Priority = "bulk", group: object = "group") -> Flow[Ask]:
    return Flow(group, priority)


def given_tokens(limit: int | None) -> Callable[[tuple[str, str]], int | None]:
    return lambda _: limit


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
def test_never_over_given_limits_in_any_window_and_never_a_lost_wake_up(
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
    # What no sliding window holds, no fixed one does, whatever its phase.
    service = Service(lambda _: limit, per_second or math.inf, per_minute or math.inf, window)
    options = LimiterOptions(given_tokens(limit), per_second, per_minute, window)
    world = World(options, service, seed=seed, travel=travel, fails=fails, cancels=cancels)
    jobs = [
        world.add(Work(flow(group=number), Lane(most), requests * size, size, item), at)
        for number, ((item, size), requests, most, at) in enumerate(works)
    ]
    world.run()
    assert not service.rejected
    assert all(job.left == 0 and not job.asks for job in jobs)
    assert world.in_flight == 0
    assert all(job.lane.in_flight == 0 for job in jobs)
    assert len(world.limiter._queue) == 0
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
    first=st.integers(1, 8),
    cancels=st.sampled_from([0.0, 0.2]),
)
def test_whatever_is_learned_work_always_gets_done(
    works: list[tuple[tuple[int, int], int, int, float]],
    limits: list[int],
    per_second: float,
    kind: Literal["fixed", "sliding"],
    phase: float,
    text: bool,
    given_limit: int | None,
    travel: tuple[float, float],
    seed: int,
    first: int,
    cancels: float,
) -> None:
    """The quota changes every five minutes, and perhaps nothing is said about it."""
    service = Service(lambda now: limits[int(now // 300) % len(limits)], per_second, kind=kind, phase=phase, text=text)
    options = LimiterOptions(given_tokens(given_limit), first_in_flight=first)
    world = World(options, service, seed=seed, travel=travel, cancels=cancels)
    jobs = [
        world.add(Work(flow(group=number), Lane(most), requests * size, size, item), at)
        for number, ((item, size), requests, most, at) in enumerate(works)
    ]
    world.run(until=20_000)
    assert all(job.left == 0 and not job.asks for job in jobs)
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
    world = World(LimiterOptions(given_tokens(limit), window=window), Service(lambda _: limit, window=window), seed=seed)
    lane = Lane(8)
    jobs = [
        world.add(Work(flow(), lane, 10**9, size, item), start) for (item, size), start in zip(sizes, starts, strict=False)
    ]
    world.run(until=60)
    before = [job.total for job in jobs]
    world.run(until=60 + 5 * window)
    had = [job.total - was for job, was in zip(jobs, before, strict=True)]
    assert sum(had) >= 4 * limit
    assert max(had) - min(had) <= 0.05 * sum(had)


@pytest.mark.parametrize("places", [8, 16, 100])
@pytest.mark.parametrize("start", [0, 6])
def test_two_calls_share_the_tokens_also_while_some_are_free(places: int, start: int) -> None:
    limit, window = 50_000, 10.0
    for seed in range(40):
        world = World(LimiterOptions(given_tokens(limit), window=window), Service(lambda _: limit, window=window), seed=seed)
        lane = Lane(places)
        jobs = [world.add(Work(flow(), lane, 10**9, size, 20)) for size in (200, 740)]
        if start:
            world.run(until=start * window)
        before = [job.total for job in jobs]
        world.run(until=(start + 2) * window)
        had = [job.total - was for job, was in zip(jobs, before, strict=True)]
        assert sum(had) >= 1.95 * limit
        assert max(had) - min(had) <= 0.05 * sum(had)


def test_clients_of_a_quota_share_the_tokens_where_requests_in_flight_do_not_decide() -> None:
    limit, window = 50_000, 10.0
    for seed in range(10):
        world = World(LimiterOptions(given_tokens(limit), window=window), Service(lambda _: limit, window=window), seed=seed)
        jobs = [world.add(Work(flow(group=size), Lane(100), 10**9, size, 20)) for size in (200, 740)]
        world.run(until=6 * window)
        before = [job.total for job in jobs]
        world.run(until=8 * window)
        had = [job.total - was for job, was in zip(jobs, before, strict=True)]
        assert max(had) - min(had) <= 0.05 * sum(had)


def test_a_call_uses_all_that_another_one_under_way_does_not_ask_for() -> None:
    limit, window = 50_000, 10.0
    world = World(LimiterOptions(given_tokens(limit), window=window), Service(lambda _: limit, window=window))
    lane = Lane(8)
    large, small = Work(flow(), lane, 10**9, 740, 20), Work(flow(), lane, 0, 200, 20)
    world.add(large)
    # Never without a request under way for long.
    for number in range(600):
        world.add_to(small, 20, 0.1 * number)
    world.run(until=6 * window)
    assert small.total >= 20 * 500
    assert large.total + small.total >= 5.9 * limit
    assert max(right - left for (left, _), (right, _) in pairwise(large.granted)) <= window


def test_a_call_that_is_behind_makes_up_for_little_more_than_a_window() -> None:
    limit, window = 50_000, 10.0
    world = World(LimiterOptions(given_tokens(limit), window=window), Service(lambda _: limit, window=window))
    lane = Lane(8)
    large, small = Work(flow(), lane, 10**9, 740, 20), Work(flow(), lane, 0, 740, 20)
    world.add(large)
    for number in range(600):
        world.add_to(small, 20, 0.1 * number)
    world.add_to(small, 10**9, 60.0)
    world.run(until=9 * window)
    before = large.total
    world.run(until=12 * window)
    assert large.total - before >= 1.4 * limit


def test_a_call_that_is_absent_for_a_moment_does_not_go_ahead_of_those_that_could_not_go_meanwhile() -> None:
    desk, lane = Desk(tokens=lambda key: 100 if key == KEY else None), Lane(1000)
    waits, absent, free = flow(), flow(), flow(group="other")
    desk.ask(absent, lane, 50)
    desk.ask(waits, lane, 50)
    desk.ask(waits, lane, 50)
    for _ in range(20):
        desk.ask(free, lane, 1000, key=OTHER)
    for _ in range(9):
        desk.ask(absent, lane, 50)
    for grant in desk.grants:
        desk.limiter.accepted(grant, None, desk.now)
    for _ in range(3):
        desk.ask(waits, lane, 50)
    before = len(desk.grants)
    for _ in range(2):
        desk.wait()
        for grant in desk.grants[before:]:
            desk.limiter.accepted(grant, None, desk.now)
    # In turn, not one of them for all that the other limit was used for.
    assert Counter(grant.flow for grant in desk.grants[before:]) == {waits: 2, absent: 2}


def test_who_is_about_to_come_is_not_waited_for_where_tokens_are_free() -> None:
    desk, lane = Desk(tokens=given_tokens(10_000)), Lane(8)
    small, large = flow(), flow()
    for _ in range(4):
        desk.ask(large, lane, 1000)
        desk.ask(small, lane, 10)
    assert len(desk.grants) == 8


def test_who_is_about_to_come_is_waited_for_where_tokens_are_short_but_not_for_long() -> None:
    desk, lane = Desk(tokens=given_tokens(1000)), Lane(8)
    small, large = flow(), flow()
    desk.ask(large, lane, 400)
    desk.ask(small, lane, 200)
    desk.ask(large, lane, 100)
    assert [grant.flow for grant in desk.grants] == [large, small]
    desk.ask(small, lane, 100)
    assert [grant.flow for grant in desk.grants] == [large, small, small]
    desk.wait()
    assert desk.now == pytest.approx(1000 + GRACE)
    assert [grant.flow for grant in desk.grants] == [large, small, small, large]


def test_who_has_nothing_under_way_is_not_waited_for() -> None:
    desk, lane = Desk(tokens=given_tokens(1000)), Lane(8)
    small, large = flow(), flow()
    desk.ask(large, lane, 400)
    desk.ask(small, lane, 200)
    desk.limiter.accepted(desk.grants[1], 200, desk.now)
    desk.ask(large, lane, 100)
    assert [grant.flow for grant in desk.grants] == [large, small, large]


@given(st.lists(st.floats(0, 60), min_size=2, max_size=4), st.integers(0, 999))
@settings(phases=PHASES, max_examples=10)
def test_clients_that_share_a_quota_share_the_tokens_evenly(starts: list[float], seed: int) -> None:
    limit, window = 250_000, 60.0
    world = World(LimiterOptions(given_tokens(limit)), Service(lambda _: limit), seed=seed)
    jobs = [world.add(Work(flow(group=start), Lane(8), 10**9, 9120, 95), start) for start in starts]
    world.run(until=4 * window)
    before = [job.total for job in jobs]
    world.run(until=14 * window)
    had = [job.total - was for job, was in zip(jobs, before, strict=True)]
    assert sum(had) >= 9.5 * limit
    assert max(had) - min(had) <= 0.1 * sum(had)


def test_a_job_that_fits_into_what_is_left_of_the_window_is_not_slowed_down_at_all() -> None:
    desk, lane = Desk(tokens=given_tokens(250_000), requests_per_second=100, requests_per_minute=2000), Lane(100)
    for _ in range(27):
        desk.ask(flow(), lane, 9_120)
    assert len(desk.grants) == 27
    assert {grant.at for grant in desk.grants} == {desk.now}


def test_turns_come_in_the_order_of_a_flow() -> None:
    desk, lane, one = Desk(tokens=given_tokens(100)), Lane(8), flow()
    asks = [desk.ask(one, lane, tokens, least=tokens) for tokens in (90, 100, 1, 1)]
    assert len(desk.grants) == 1
    desk.limiter.withdraw(asks[1], desk.now)
    assert [grant.tokens for grant in desk.grants] == [90, 1, 1]


def test_a_lane_that_is_full_does_not_hold_up_another() -> None:
    desk, full, free = Desk(), Lane(1), Lane(1)
    first, second = flow(group="a"), flow(group="b")
    desk.ask(first, full)
    desk.ask(first, full)
    desk.ask(second, free)
    assert [grant.lane for grant in desk.grants] == [full, free]
    assert desk.limiter.next_time(desk.now) is None
    desk.limiter.accepted(desk.grants[0], None, desk.now)
    assert len(desk.grants) == 3


def test_a_lane_that_is_slowed_has_one_request_in_flight() -> None:
    is_slowed = True
    desk, lane, one = Desk(), Lane(8, is_slowed=lambda: is_slowed), flow()
    for _ in range(3):
        desk.ask(one, lane)
    assert len(desk.grants) == 1
    is_slowed = False
    desk.limiter.dispatch(desk.now)
    assert len(desk.grants) == 3


def test_interactive_work_takes_the_next_tokens_that_come_free() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    bulk, interactive = flow(), flow("interactive")
    desk.ask(bulk, lane, 100)
    desk.limiter.accepted(desk.grants[0], None, desk.now)
    desk.ask(bulk, lane, 100, least=50)
    desk.ask(interactive, lane, 100)
    desk.wait()
    assert [grant.flow for grant in desk.grants] == [bulk, interactive]


def test_bulk_work_is_not_starved_of_tokens_by_interactive_work() -> None:
    service = Service(lambda _: 1000, window=1.0)
    world = World(LimiterOptions(given_tokens(1000), window=1.0), service)
    lane = Lane(8)
    bulk = world.add(Work(flow(), lane, 10**9, 1000, 1000))
    for _ in range(8):
        world.add(Work(flow("interactive"), lane, 10**9, 100, 100))
    world.run(until=60)
    times = [when for when, _ in bulk.granted]
    assert len(times) >= 60 / (AGEING + 2)
    assert max(right - left for left, right in pairwise(times)) <= AGEING + 3


def test_what_needs_other_tokens_is_not_held_up() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    one, other = flow(group="a"), flow(group="b")
    desk.ask(one, lane, 100)
    desk.ask(one, lane, 100)
    desk.ask(other, lane, 100, key=OTHER)
    assert [grant.key for grant in desk.grants] == [KEY, OTHER]


def test_requests_that_cost_no_tokens_wait_for_no_tokens() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    desk.ask(flow(), lane, 100)
    desk.ask(flow(), lane, 100)
    desk.ask(flow("interactive", "other"), lane, 0, least=0, key=None)
    assert [grant.key for grant in desk.grants] == [KEY, None]


def test_a_turn_that_is_given_back_costs_nothing_and_is_passed_on() -> None:
    desk, lane = Desk(tokens=given_tokens(100), requests_per_minute=1), Lane(1)
    one, other = flow(), flow()
    desk.ask(one, lane, 100)
    desk.ask(other, lane, 100)
    desk.limiter.give_back(desk.grants[0], desk.now)
    assert [grant.flow for grant in desk.grants] == [one, other]
    assert lane.in_flight == 1
    assert one.tag == 0


def test_a_turn_that_is_shrunk_leaves_the_rest_to_others() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    desk.ask(flow(), lane, 90)
    desk.ask(flow(), lane, 80, least=80)
    assert len(desk.grants) == 1
    desk.limiter.shrink(desk.grants[0], 20, desk.now)
    assert [grant.tokens for grant in desk.grants] == [20, 80]


ENDS = [
    lambda desk, grant: desk.limiter.accepted(grant, None, desk.now),
    lambda desk, grant: desk.limiter.failed(grant, desk.now, is_overload=False),
    lambda desk, grant: desk.limiter.give_back(grant, desk.now),
    lambda desk, grant: desk.reject(grant),
    lambda desk, grant: desk.limiter.shrink(grant, 1, desk.now),
]


@pytest.mark.parametrize("end", ENDS)
def test_a_turn_that_has_ended_or_was_forgotten_ends_no_second_time(end: Callable[[Desk, Grant], object]) -> None:
    for forget in (False, True):
        desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
        desk.ask(flow(), lane, 60)
        (grant,) = desk.grants
        if forget:
            desk.limiter.forget_asks(desk.now)
        else:
            desk.limiter.accepted(grant, None, desk.now)
        end(desk, grant)
        limit = desk.limiter.tokens(KEY)
        assert lane.in_flight == 0
        assert limit.in_flight == 0
        assert limit.window.used(desk.now) == 60
        assert limit.window.reserved == 0
        assert not limit.is_cautious


def test_a_failed_request_counts_for_it_may_have_been_counted() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    desk.ask(flow(), lane, 60)
    desk.limiter.failed(desk.grants[0], desk.now, is_overload=True)
    desk.ask(flow(), lane, 60, least=60)
    assert len(desk.grants) == 1
    desk.wait()
    assert desk.now == 1060


def test_a_rejected_request_does_not_count() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    desk.ask(flow(), lane, 60)
    desk.reject(desk.grants[0])
    assert desk.limiter.tokens(KEY).window.used(desk.now) == 0


def test_one_rejection_pauses_everything_under_that_quota_and_nothing_else() -> None:
    desk, lane = Desk(), Lane(8)
    desk.ask(flow(), lane)
    assert desk.reject(desk.grants[0]) == 1.0
    desk.ask(flow(), lane)
    desk.ask(flow("interactive"), Lane(8))
    desk.ask(flow(group="other"), lane, key=OTHER)
    assert [grant.key for grant in desk.grants] == [KEY, OTHER]
    assert desk.limiter.pause_left(KEY, desk.now) == 1
    assert desk.limiter.pause_left(OTHER, desk.now) == 0
    desk.wait()
    assert len(desk.grants) == 3
    assert desk.now == 1001


def test_the_start_of_a_pause_is_told_once() -> None:
    desk, lane = Desk(), Lane(8)
    for _ in range(3):
        desk.ask(flow(), lane)
    assert [desk.reject(grant) for grant in desk.grants] == [1.0, None, None]


def test_overloads_halve_the_requests_in_flight_once_for_each_burst_and_rejections_for_tokens_do_not() -> None:
    desk, lane = Desk(), Lane(8)
    for _ in range(8):
        desk.ask(flow(), lane)
    desk.now += 1
    for grant in desk.grants[:4]:
        desk.limiter.failed(grant, desk.now, is_overload=True)
    assert lane.limit == 4
    for grant in desk.grants[4:]:
        desk.reject(grant, NamedLimit(LimitKind.TOKENS, 1000))
    assert lane.limit == 4
    for _ in range(100):
        lane.concurrency.succeeded()
    assert lane.limit == 8


def test_a_rejection_for_requests_halves_what_is_in_flight_and_its_limit_is_learned() -> None:
    desk, lane = Desk(), Lane(8)
    for _ in range(8):
        desk.ask(flow(), lane)
    desk.now += 0.5
    for grant in desk.grants[:4]:
        desk.limiter.accepted(grant, None, desk.now)
    for grant in desk.grants[4:8]:
        desk.reject(grant, NamedLimit(LimitKind.REQUESTS_PER_SECOND, 4))
    assert lane.limit == 4
    assert not desk.limiter.tokens(KEY).is_cautious
    wide = Lane(100)
    for _ in range(5):
        desk.ask(flow(), wide)
    before = len(desk.grants)
    desk.wait()
    assert desk.now == 1001.5
    assert len(desk.grants) - before == 4


def test_the_wait_behind_a_rejection_is_until_the_limit_of_requests_has_room() -> None:
    desk, lane = Desk(), Lane(8)
    for _ in range(4):
        desk.ask(flow(), lane)
    for grant in desk.grants[:3]:
        desk.limiter.accepted(grant, None, desk.now)
    desk.now += 20
    desk.reject(desk.grants[3], NamedLimit(LimitKind.REQUESTS_PER_MINUTE, 3))
    assert desk.limiter.pause_left(KEY, desk.now) == 1
    assert desk.limiter.wait_left(KEY, desk.now) == 40
    assert desk.limiter.wait_left(None, desk.now) == 40
    desk.ask(flow(), lane)
    desk.wait()
    assert desk.now == 1060


def test_the_wait_is_until_the_end_of_a_pause_where_that_is_later() -> None:
    desk, lane = Desk(requests_per_minute=1), Lane(8)
    desk.ask(flow(), lane)
    desk.reject(desk.grants[0], backoff=lambda _: 100.0)
    assert desk.limiter.wait_left(KEY, desk.now) == 100
    assert desk.limiter.wait_left(OTHER, desk.now) == 60


def test_nothing_is_known_of_a_wait_that_takes_answers() -> None:
    desk, lane = Desk(requests_per_minute=1), Lane(8)
    desk.ask(flow(), lane)
    assert desk.limiter.wait_left(KEY, desk.now) == 0


@pytest.mark.parametrize("which", ["per_second", "per_window"])
def test_a_limit_of_requests_that_was_raised_is_noticed(which: str) -> None:
    length = 1.0 if which == "per_second" else 60.0
    service = Service()
    setattr(service, which, 2)
    world = World(LimiterOptions(), service, travel=(0.01, 0.02))
    world.add(Work(flow(), Lane(8), 10**9, 1, 1))
    world.run(until=60 * length)
    assert len(service.accepted) >= 100
    last = len(service.rejected)
    world.run(until=120 * length)
    # It is tried half as often each time, so hardly ever by now.
    assert len(service.rejected) - last <= 8
    setattr(service, which, 20)
    world.run(until=360 * length)
    assert len([when for when, _ in service.accepted if when > 340 * length]) > 300


def test_a_limit_that_is_learned_for_requests_does_not_stop_trials_of_the_tokens() -> None:
    desk, lane = Desk(tokens=given_tokens(None), first_in_flight=10), Lane(8)
    desk.ask(flow(), lane, 100)
    desk.reject(desk.grants[0], NamedLimit(LimitKind.TOKENS, 100))
    desk.now += 5 * 60
    desk.ask(flow(), lane, 100)
    desk.limiter.accepted(desk.grants[1], None, desk.now)
    desk.ask(flow(), lane, 100)
    assert desk.grants[2].is_trial
    desk.reject(desk.grants[2], NamedLimit(LimitKind.REQUESTS_PER_SECOND, 10))
    desk.now += 1
    desk.ask(flow(), lane, 100)
    assert desk.grants[3].is_trial


def test_waiting_for_requests_is_no_waiting_for_tokens() -> None:
    desk, lane = Desk(tokens=given_tokens(1000), requests_per_minute=1), Lane(8)
    desk.ask(flow(), lane)
    desk.limiter.accepted(desk.grants[0], None, desk.now)
    desk.ask(flow(), lane)
    desk.now += 30
    (told,) = desk.limiter.statistics(desk.now)
    assert (told.waiting, told.waited) == (1, 0)


def test_behind_a_fork_what_was_learned_stays_and_who_waited_is_forgotten() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    waits = flow()
    desk.ask(waits, lane, 60)
    desk.ask(waits, lane, 60, least=60)
    desk.limiter.forget_asks(desk.now)
    assert desk.limiter.waiting({lane}) == 0
    assert desk.limiter.next_time(desk.now) is None
    assert lane.in_flight == 0
    assert desk.limiter.tokens(KEY).window.used(desk.now) == 60
    # The flow serves the child, too.
    desk.ask(waits, lane, 40)
    assert [grant.tokens for grant in desk.grants] == [60, 40]


def test_statistics_and_repr_tell_what_is_known_used_and_waiting() -> None:
    desk, lane = Desk(tokens=given_tokens(100)), Lane(8)
    desk.ask(flow(), lane, 60)
    desk.ask(flow(), lane, 60, least=60)
    (told,) = desk.limiter.statistics(desk.now)
    assert (told.model, told.input_type, told.limit, told.source) == (*KEY, 100, "given")
    assert (told.used, told.waiting) == (60, 1)
    assert repr(desk.limiter) == "<Limiter 1 waiting; model passage: <TokenLimit 60 used, limit 100 (given)>>"
    assert repr(lane) == "<Lane 1/8 in flight>"
