"""Whose turn it is: fair shares between flows, precedence between priorities, nobody starved."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Priority = Literal["interactive", "bulk"]

AGEING = 5.0
"""Seconds after which bulk work that interactive work went ahead of has a turn before the next interactive one."""


class Waiting(Protocol):
    """Something that waits in a queue."""

    @property
    def is_waiting(self) -> bool:
        """Whether it still waits; what does not is dropped."""


WaitingT = TypeVar("WaitingT", bound=Waiting)


class Flow(Generic[WaitingT]):
    """Work that waits first come, first served, and shares evenly with other flows: a call, or a stream.

    Args:
        group: flows of a group wait for the same things, so that if one of them has to wait, so have the others.
        priority: interactive work goes before bulk work.
    """

    __slots__ = ("group", "priority", "tag", "waiting")

    def __init__(self, group: Hashable, priority: Priority) -> None:
        self.group = group
        self.priority: Priority = priority
        self.waiting: deque[WaitingT] = deque()
        # How much it has had, on a scale that all flows share.
        self.tag = 0.0

    def __repr__(self) -> str:
        return f"<Flow {self.priority}, {len(self.waiting)} waiting>"


class _Group(Generic[WaitingT]):
    __slots__ = ("flows", "passed_over_at", "priority")

    def __init__(self, priority: Priority) -> None:
        self.priority: Priority = priority
        # The flows with somebody waiting, as a heap of what they have had.
        self.flows: list[tuple[float, int, Flow[WaitingT]]] = []
        self.passed_over_at: float | None = None

    def first(self) -> Flow[WaitingT] | None:
        """The flow whose turn it is in this group; drops those that nobody waits in any more."""
        while self.flows:
            flow = self.flows[0][2]
            while flow.waiting and not flow.waiting[0].is_waiting:
                flow.waiting.popleft()
            if flow.waiting:
                return flow
            heapq.heappop(self.flows)
        return None


class FairQueue(Generic[WaitingT]):
    """Flows that wait for turns.

    Between flows of one priority it is start-time fair queueing: each turn goes to the flow that has had least, and a
    flow that comes later starts with what the last one served had, so that it neither catches up nor stands behind.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time fair queueing", 1996.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, _Group[WaitingT]] = {}
        self._served: dict[Priority, float] = {"interactive": 0.0, "bulk": 0.0}
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} waiting>"

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[WaitingT]:
        """All who wait, in no order."""
        for group in self._groups.values():
            for _, _, flow in group.flows:
                yield from (one for one in flow.waiting if one.is_waiting)

    def add(self, flow: Flow[WaitingT], waiting: WaitingT) -> None:
        """Have somebody wait behind those of the same flow."""
        # A flow of which all were cancelled is still in its heap.
        is_listed = bool(flow.waiting)
        flow.waiting.append(waiting)
        if not is_listed:
            flow.tag = max(flow.tag, self._served[flow.priority])
            self._list(flow)

    def next(self, now: float, may_go: Callable[[WaitingT], bool]) -> WaitingT | None:
        """The one whose turn it is; it waits no more, and `served` is to be told at once what it got.

        Args:
            now: the time.
            may_go: whether one may go now; not asked for others of its group if not.
        """
        heads: list[tuple[int, float, int, Flow[WaitingT], _Group[WaitingT]]] = []
        for key, group in list(self._groups.items()):
            flow = group.first()
            if flow is None:
                del self._groups[key]
            else:
                tag, number, _ = group.flows[0]
                heads.append((self._rank(group, now), tag, number, flow, group))
        for _, _, _, flow, group in sorted(heads):
            waiting = flow.waiting[0]
            if may_go(waiting):
                flow.waiting.popleft()
                heapq.heappop(group.flows)
                self._served[flow.priority] = max(self._served[flow.priority], flow.tag)
                self._note_passed_over(group, now)
                return waiting
        return None

    def heads(self) -> Iterator[WaitingT]:
        """Those who are next in their groups."""
        for group in self._groups.values():
            flow = group.first()
            if flow is not None:
                yield flow.waiting[0]

    def served(self, flow: Flow[WaitingT], amount: float) -> None:
        """Note what the flow of the one that `next` gave got; it may have its next turn."""
        flow.tag += amount
        if flow.waiting:
            self._list(flow)

    def _list(self, flow: Flow[WaitingT]) -> None:
        key = flow.group, flow.priority
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(flow.priority)
        heapq.heappush(group.flows, (flow.tag, next(self._numbers), flow))

    def _rank(self, group: _Group[WaitingT], now: float) -> int:
        if group.priority == "interactive":
            return 1
        has_aged = group.passed_over_at is not None and now - group.passed_over_at >= AGEING
        return 0 if has_aged else 2

    def _note_passed_over(self, chosen: _Group[WaitingT], now: float) -> None:
        if chosen.priority == "bulk":
            chosen.passed_over_at = None
            return
        for group in self._groups.values():
            if group.priority == "bulk" and group.passed_over_at is None and group.flows:
                group.passed_over_at = now
