from collections import Counter
from collections.abc import Callable
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit import Flow
from pinecone_embed_async._rate_limit.fair_queue import AGEING, FairQueue


def anything(_: str) -> bool:
    return True


class Feeder:
    """Flows that always have something waiting; serves the next, and counts what each has had."""

    def __init__(self, sizes: dict[Flow[str], int]) -> None:
        self.queue = FairQueue[str]()
        self.sizes = sizes
        self.had = Counter[Flow[str]]()
        self._numbers = count()
        self._flows: dict[str, Flow[str]] = {}

    def feed(self, *flows: Flow[str]) -> None:
        for flow in flows:
            name = f"{next(self._numbers)}"
            self._flows[name] = flow
            self.queue.add(flow, name)

    def serve(self, may_go: Callable[[Flow[str]], bool] = lambda _: True, now: float = 0.0) -> Flow[str] | None:
        one = self.queue.next(now, lambda name: may_go(self._flows[name]))
        if one is None:
            return None
        flow = self._flows[one]
        self.had[flow] += self.sizes[flow]
        self.queue.served(flow, self.sizes[flow])
        self.feed(flow)
        return flow


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 1000)), max_size=80))
def test_order_is_kept_within_a_flow(requests: list[tuple[int, int]]) -> None:
    queue, flows = FairQueue[tuple[int, int]](), [Flow[tuple[int, int]]("g", "bulk") for _ in range(5)]
    for number, (flow, _) in enumerate(requests):
        queue.add(flows[flow], (flow, number))
    seen: list[tuple[int, int]] = []
    while (one := queue.next(0, lambda _: True)) is not None:
        seen.append(one)
        queue.served(flows[one[0]], requests[one[1]][1])
    assert sorted(one[1] for one in seen) == list(range(len(requests)))
    for flow in range(5):
        numbers = [number for which, number in seen if which == flow]
        assert numbers == sorted(numbers)


@given(
    st.lists(st.integers(1, 5000), min_size=2, max_size=6),
    st.lists(st.integers(0, 200), min_size=6, max_size=6),
    st.booleans(),
)
def test_flows_get_even_shares_whatever_their_sizes_and_whichever_came_first(
    sizes: list[int], starts: list[int], one_group: bool
) -> None:
    flows = [Flow[str]("g" if one_group else number, "bulk") for number in range(len(sizes))]
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
    large, small = Flow[str]("g", "bulk"), [Flow[str]("g", "bulk") for _ in range(9)]
    feeder = Feeder({large: 50_000, **dict.fromkeys(small, 1)})
    feeder.feed(*small, large)
    served = [feeder.serve() for _ in range(10)]
    assert large in served


def test_a_flow_that_comes_later_neither_catches_up_nor_falls_behind() -> None:
    first, second = Flow[str]("g", "bulk"), Flow[str]("g", "bulk")
    feeder = Feeder({first: 10, second: 10})
    feeder.feed(first)
    for _ in range(1000):
        feeder.serve()
    feeder.feed(second)
    served = [feeder.serve() for _ in range(20)]
    assert served.count(second) == 10
    assert all(left is not right for left, right in pairwise(served))


def test_a_blocked_group_does_not_catch_up_later() -> None:
    held, free, late = Flow[str]("held", "bulk"), Flow[str]("free", "bulk"), Flow[str]("held", "bulk")
    feeder = Feeder({held: 10, free: 10, late: 10})
    feeder.feed(free, *100 * [held])
    for _ in range(1000):
        assert feeder.serve(lambda flow: flow is free) is free
    # Nor does it displace a flow that joins its group now.
    feeder.feed(late)
    served = [feeder.serve() for _ in range(30)]
    assert [served.count(flow) for flow in (held, free, late)] == [10, 10, 10]


def test_flows_of_a_group_share_evenly_even_if_another_group_is_served_far_more_often() -> None:
    large, small, free = Flow[str]("held", "bulk"), Flow[str]("held", "bulk"), Flow[str]("free", "bulk")
    feeder = Feeder({large: 100, small: 10, free: 10})
    feeder.feed(large, small, free)
    for _ in range(300):
        for _ in range(50):
            feeder.serve(lambda flow: flow is free)
        feeder.serve(lambda flow: flow is not free)
    assert abs(feeder.had[large] - feeder.had[small]) <= 110


def test_interactive_work_goes_before_bulk_work() -> None:
    bulk, interactive = Flow[str]("g", "bulk"), Flow[str]("g", "interactive")
    queue = FairQueue[str]()
    queue.add(bulk, "bulk")
    queue.add(interactive, "interactive")
    assert queue.next(0, anything) == "interactive"
    queue.served(interactive, 10**9)
    assert queue.next(0, anything) == "bulk"


def test_overtaken_bulk_work_is_served_once_it_has_aged() -> None:
    bulk, interactive = Flow[str]("g", "bulk"), Flow[str]("g", "interactive")
    feeder = Feeder({bulk: 10, interactive: 10})
    feeder.feed(bulk, interactive)
    served = [feeder.serve(now=step / 10) for step in range(int(30 * AGEING))]
    waits = [right - left for left, right in pairwise(step for step, flow in enumerate(served) if flow is bulk)]
    assert max(waits) <= 10 * AGEING + 2
    assert served.count(bulk) == pytest.approx(len(served) / (10 * AGEING), abs=1)


def test_bulk_work_does_not_age_unless_overtaken() -> None:
    bulk, interactive = Flow[str]("g", "bulk"), Flow[str]("g", "interactive")
    queue = FairQueue[str]()
    queue.add(bulk, "bulk")
    assert queue.next(0, lambda _: False) is None
    queue.add(interactive, "interactive")
    assert queue.next(100 * AGEING, anything) == "interactive"


def test_a_blocked_group_is_tried_once_and_others_are_served() -> None:
    queue, asked = FairQueue[str](), list[str]()
    for group in "ab":
        for number in range(3):
            queue.add(Flow(group, "bulk"), f"{group}{number}")

    def only_b(one: str) -> bool:
        asked.append(one)
        return one.startswith("b")

    assert queue.next(0, only_b) == "b0"
    assert asked == ["a0", "b0"]


@given(st.data())
def test_removal_keeps_the_queue_consistent(data: st.DataObject) -> None:
    queue = FairQueue[int]()
    flows = [Flow[int](number % 2, "bulk" if number % 3 else "interactive") for number in range(5)]
    waiting: dict[int, Flow[int]] = {}
    for number in range(data.draw(st.integers(0, 60))):
        what = data.draw(st.sampled_from(["add", "add", "remove", "next", "pass"]))
        if what == "add":
            flow = data.draw(st.sampled_from(flows))
            queue.add(flow, number)
            waiting[number] = flow
        elif what == "remove" and waiting:
            one = data.draw(st.sampled_from(sorted(waiting)))
            queue.remove(waiting.pop(one), one)
        elif what == "next":
            one_or_none = queue.next(number, lambda _: True)
            assert (one_or_none is None) == (not waiting)
            if one_or_none is not None:
                queue.served(waiting.pop(one_or_none), 7)
        elif what == "pass":
            assert queue.next(number, lambda _: False) is None
        assert sorted(queue) == sorted(waiting)
        assert len(queue) == len(waiting)


def test_empty_flows_do_not_pile_up_behind_one_that_stays() -> None:
    queue, stays = FairQueue[int](), Flow[int]("g", "bulk")
    queue.add(stays, -1)
    for number in range(1000):
        flow = Flow[int]("g", "bulk")
        queue.add(flow, number)
        queue.remove(flow, number)
    (group,) = queue._groups.values()
    assert len(group._flows) <= 3
    for number in range(1000):
        queue.add(stays, number)
        queue.remove(stays, number)
    assert len(stays.waiting) == 1


def test_a_flow_works_again_after_clear() -> None:
    queue, flow = FairQueue[str](), Flow[str]("g", "bulk")
    queue.add(flow, "before")
    queue.clear()
    assert queue.next(0, anything) is None
    queue.add(flow, "after")
    assert queue.next(0, anything) == "after"
    queue.remove(flow, "before")


def test_reprs() -> None:
    queue, flow = FairQueue[str](), Flow[str]("g", "bulk")
    queue.add(flow, "one")
    assert repr(queue) == "<FairQueue 1 waiting>"
    assert repr(flow) == "<Flow bulk, 1 waiting>"


@pytest.mark.parametrize("is_listed", [False, True])
def test_an_absent_flow_is_shifted_with_its_group(is_listed: bool) -> None:
    queue = FairQueue[str](60.0)
    absent, present, other = Flow[str]("g", "bulk"), Flow[str]("g", "bulk"), Flow[str]("h", "bulk")
    absent.in_flight = 1
    queue.add(absent, "absent")
    if not is_listed:
        # Removed while alone, it is dropped from the list at once; removed later, it stays listed beside the other.
        queue.remove(absent, "absent")
    for number in range(3):
        queue.add(present, f"present {number}")
        queue.add(other, f"other {number}")
    for number in range(3):
        # The group is blocked and forfeits its lead.
        assert queue.next(0.0, lambda name: name.startswith("other")) == f"other {number}"
        queue.served(other, 100)
    if is_listed:
        queue.remove(absent, "absent")
    assert absent.is_listed is is_listed
    # Both count as having had the same.
    assert not queue.is_behind(absent, present)
    assert queue.next(0.0, lambda name: name.startswith("present")) == "present 0"
    queue.served(present, 100)
    assert queue.is_behind(absent, present)
