from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, Priority
from pinecone_embed_async._rate_limit.fair_queue import AGEING, FairQueue
from pinecone_embed_async._rate_limit.permit import LimiterPermit

CONCURRENCY = ConcurrencyLimiter(1)


def flow_of(group: object, priority: Priority = "bulk") -> Flow:
    return Flow(CONCURRENCY, ("model", str(group)), priority)


def request_of(flow: Flow) -> LimiterPermit:
    return LimiterPermit(flow, flow.key, 1, 1)


def add(queue: FairQueue, flow: Flow, times: int = 1) -> list[LimiterPermit]:
    requests = [request_of(flow) for _ in range(times)]
    for request in requests:
        queue.add(request)
    return requests


def serve(
    queue: FairQueue, amount: float = 1, *, now: float = 0.0, may_go: Callable[[Flow], bool] = lambda _: True
) -> LimiterPermit | None:
    """Serve the first request whose flow may go."""
    groups = queue.groups(now)
    for place, group in enumerate(groups):
        request = group.permit
        if may_go(request.flow):
            queue.serve(groups, place, amount, now)
            return request
    return None


class Feeder:
    """Flows that always have something waiting; serves the next, and counts what each has had."""

    def __init__(self, sizes: dict[Flow, int]) -> None:
        self.queue = FairQueue()
        self.sizes = sizes
        self.had = Counter[Flow]()

    def feed(self, *flows: Flow) -> None:
        for flow in flows:
            add(self.queue, flow)

    def serve(self, may_go: Callable[[Flow], bool] = lambda _: True, now: float = 0.0) -> Flow | None:
        for place, group in enumerate(groups := self.queue.groups(now)):
            flow = group.permit.flow
            if may_go(flow):
                self.queue.serve(groups, place, self.sizes[flow], now)
                self.had[flow] += self.sizes[flow]
                self.feed(flow)
                return flow
        return None


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 1000)), max_size=80))
def test_order_is_kept_within_a_flow(requests: list[tuple[int, int]]) -> None:
    queue, flows = FairQueue(), [flow_of("g") for _ in range(5)]
    added = [(add(queue, flows[number])[0], size) for number, size in requests]
    seen = list[LimiterPermit]()
    while (groups := queue.groups(0.0)) and (request := groups[0].permit):
        queue.serve(groups, 0, dict(added)[request], 0.0)
        seen.append(request)
    assert set(seen) == {request for request, _ in added}
    for flow in flows:
        assert [request for request in seen if request.flow is flow] == [one for one, _ in added if one.flow is flow]


@given(
    st.lists(st.integers(1, 5000), min_size=2, max_size=6),
    st.lists(st.integers(0, 200), min_size=6, max_size=6),
    st.booleans(),
)
def test_flows_get_even_shares_whatever_their_sizes_and_whichever_came_first(
    sizes: list[int], starts: list[int], one_group: bool
) -> None:
    flows = [flow_of("g" if one_group else number) for number in range(len(sizes))]
    feeder = Feeder(dict(zip(flows, sizes, strict=True)))
    for step in range(201):
        feeder.feed(*(flow for flow, start in zip(flows, starts, strict=False) if start == step))
        feeder.serve()
    base = Counter(feeder.had)
    for _ in range(1000):
        feeder.serve()
        had = [feeder.had[flow] - base[flow] for flow in flows]
        # From any moment on, two flows that always wait differ by at most one request of each.
        assert max(had) - min(had) <= 2 * max(sizes)


def test_a_large_request_is_not_starved_by_small_ones() -> None:
    large, small = flow_of("g"), [flow_of("g") for _ in range(9)]
    feeder = Feeder({large: 50_000, **dict.fromkeys(small, 1)})
    feeder.feed(*small, large)
    served = [feeder.serve() for _ in range(10)]
    assert large in served


def test_a_flow_that_comes_later_neither_catches_up_nor_falls_behind() -> None:
    first, second = flow_of("g"), flow_of("g")
    feeder = Feeder({first: 10, second: 10})
    feeder.feed(first)
    for _ in range(1000):
        feeder.serve()
    feeder.feed(second)
    served = [feeder.serve() for _ in range(20)]
    assert served.count(second) == 10
    assert all(left is not right for left, right in pairwise(served))


def test_a_blocked_group_does_not_catch_up_later() -> None:
    held, free, late = flow_of("held"), flow_of("free"), flow_of("held")
    feeder = Feeder({held: 10, free: 10, late: 10})
    feeder.feed(free, *100 * [held])
    for _ in range(1000):
        assert feeder.serve(lambda flow: flow is free) is free
    # Nor does it displace a flow that joins its group now.
    feeder.feed(late)
    served = [feeder.serve() for _ in range(30)]
    assert [served.count(flow) for flow in (held, free, late)] == [10, 10, 10]


def test_flows_of_a_group_share_evenly_even_if_another_group_is_served_far_more_often() -> None:
    large, small, free = flow_of("held"), flow_of("held"), flow_of("free")
    feeder = Feeder({large: 100, small: 10, free: 10})
    feeder.feed(large, small, free)
    for _ in range(300):
        for _ in range(50):
            feeder.serve(lambda flow: flow is free)
        feeder.serve(lambda flow: flow is not free)
    assert abs(feeder.had[large] - feeder.had[small]) <= 110


def test_interactive_work_goes_before_bulk_work() -> None:
    queue = FairQueue()
    (bulk,), (interactive,) = add(queue, flow_of("g")), add(queue, flow_of("g", "interactive"))
    assert serve(queue, 10**9) is interactive
    assert serve(queue) is bulk


def test_overtaken_bulk_work_is_served_once_it_has_aged() -> None:
    bulk, interactive = flow_of("g"), flow_of("g", "interactive")
    feeder = Feeder({bulk: 10, interactive: 10})
    feeder.feed(bulk, interactive)
    served = [feeder.serve(now=step / 10) for step in range(int(30 * AGEING))]
    waits = [right - left for left, right in pairwise(step for step, flow in enumerate(served) if flow is bulk)]
    assert max(waits) <= 10 * AGEING + 2
    assert served.count(bulk) == pytest.approx(len(served) / (10 * AGEING), abs=1)


def test_bulk_work_has_aged_five_seconds_after_it_was_first_overtaken() -> None:
    queue, bulk, interactive = FairQueue(), flow_of("g"), flow_of("g", "interactive")
    add(queue, bulk, 2)
    assert serve(queue, 1000) is not None
    add(queue, interactive, 3)
    for now in (10.0, 14.0):
        assert not queue.groups(now)[0].has_aged(now)
        served = serve(queue, now=now)
        assert served is not None
        assert served.flow is interactive
    first, second = queue.groups(15.0)
    assert (first.permit.flow, first.has_aged(15.0)) == (bulk, True)
    assert (second.permit.flow, second.has_aged(15.0)) == (interactive, False)


def test_bulk_work_does_not_age_unless_overtaken() -> None:
    queue = FairQueue()
    add(queue, flow_of("g"))
    assert serve(queue, may_go=lambda _: False) is None
    (interactive,) = add(queue, flow_of("g", "interactive"))
    assert serve(queue, now=100 * AGEING) is interactive


def test_each_group_has_one_first_request() -> None:
    queue, flows = FairQueue(), [flow_of(group) for group in "ab"]
    first = [add(queue, flow, 3)[0] for flow in flows]
    assert [group.permit for group in queue.groups(0.0)] == first
    assert serve(queue, may_go=lambda flow: flow is flows[1]) is first[1]


@given(st.data())
def test_removal_keeps_the_queue_consistent(data: st.DataObject) -> None:
    queue = FairQueue()
    flows = [flow_of(number % 2, "bulk" if number % 3 else "interactive") for number in range(5)]
    waiting = list[LimiterPermit]()
    for now in range(data.draw(st.integers(0, 60))):
        what = data.draw(st.sampled_from(["add", "add", "remove", "serve", "pass"]))
        if what == "add":
            waiting += add(queue, data.draw(st.sampled_from(flows)))
        elif what == "remove" and waiting:
            one = data.draw(st.sampled_from(waiting))
            waiting.remove(one)
            assert queue.remove(one)
            assert not queue.remove(one)
        elif what == "serve":
            served = serve(queue, 7, now=now)
            assert (served is None) == (not waiting)
            if served is not None:
                waiting.remove(served)
        elif what == "pass":
            assert serve(queue, now=now, may_go=lambda _: False) is None
        assert set(queue) == set(waiting)
        assert len([*queue]) == len(waiting)
        assert bool(queue) == bool(waiting)


def test_an_absent_flow_is_shifted_with_its_group() -> None:
    queue = FairQueue(60.0)
    absent, present, other = flow_of("g"), flow_of("g"), flow_of("h")
    absent.in_flight = 1
    (left,) = add(queue, absent)
    queue.remove(left)
    for _ in range(3):
        add(queue, present)
        add(queue, other)
    for _ in range(3):
        # The group is blocked and forfeits its lead.
        serve(queue, 100, may_go=lambda flow: flow is other)
    # Both count as having had the same.
    assert not queue.is_behind(absent, present)
    serve(queue, 100, may_go=lambda flow: flow is present)
    assert queue.is_behind(absent, present)


@pytest.mark.parametrize("is_by_the_way", [False, True])
@pytest.mark.parametrize(("every", "times", "least"), [(15, 8, 200), (13, 9, 100)])
def test_a_deficit_is_kept_for_a_minute_and_up_to_a_fourth_longer(
    is_by_the_way: bool, every: int, times: int, least: int
) -> None:
    queue, present, absent = FairQueue(60.0), flow_of("g"), flow_of("g")
    absent.in_flight = 1
    for step in range(times):
        if is_by_the_way:
            queue.pass_by(present, 100, step * every)
        else:
            add(queue, present)
            serve(queue, 100, now=step * every)
    add(queue, absent)
    assert absent.had == least


def test_a_flow_that_is_served_by_the_way_starts_level_with_the_last_one() -> None:
    queue, first, late, level, present = FairQueue(60.0), *(flow_of("g") for _ in range(4))
    for _ in range(2):
        queue.pass_by(first, 100, 0.0)
    queue.pass_by(level, 10, 0.0)
    # It has its deficit, and does not lower the level of those that come later.
    present.in_flight = 1
    queue.pass_by(present, 10, 0.0)
    queue.pass_by(late, 10, 0.0)
    assert [flow.had for flow in (first, level, present, late)] == [200, 110, 10, 110]


def test_only_an_absent_flow_of_the_same_priority_may_be_behind() -> None:
    queue = FairQueue()
    present, waiting, other = flow_of("g"), flow_of("g"), flow_of("g", "interactive")
    for flow in (present, waiting):
        add(queue, flow)
    present.had = 100
    assert not queue.is_behind(waiting, present)
    assert not queue.is_behind(other, present)
    assert queue.is_behind(flow_of("g"), present)


def test_a_blocked_interactive_group_forfeits_nothing_to_bulk_work() -> None:
    queue, bulk, interactive = FairQueue(), flow_of("g"), flow_of("g", "interactive")
    add(queue, bulk, 2)
    add(queue, interactive)
    for _ in range(2):
        serve(queue, 1000, may_go=lambda flow: flow is bulk)
    assert [group.least for group in queue.groups(0.0)] == [0.0]


def test_an_absent_flow_is_shifted_only_by_what_its_group_forfeits_meanwhile() -> None:
    queue, absent, present, other = FairQueue(60.0), flow_of("g"), flow_of("g"), flow_of("h")
    absent.in_flight = 1
    add(queue, present, 2)
    add(queue, other, 4)
    for _ in range(2):
        serve(queue, 100, may_go=lambda flow: flow is other)
    (left,) = add(queue, absent)
    queue.remove(left)
    # Its group has been shifted by then, and is no further.
    before = absent.had
    assert serve(queue, 1000, may_go=lambda flow: flow is present) is not None
    add(queue, absent)
    assert [group.least for group in queue.groups(0.0) if group.permit.flow is absent] == [before]


def test_blocked_groups_forfeit_the_same_lead_so_that_their_differences_stay() -> None:
    queue, first, second, free = FairQueue(), flow_of("first"), flow_of("second"), flow_of("free")
    add(queue, first)
    add(queue, second, 2)
    add(queue, free, 3)
    serve(queue, 50, may_go=lambda flow: flow is second)
    for _ in range(2):
        serve(queue, 100, may_go=lambda flow: flow is free)
    assert [group.least for group in queue.groups(0.0)] == [100, 150, 200]
