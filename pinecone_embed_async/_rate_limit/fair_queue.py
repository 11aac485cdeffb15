"""Fair queueing: even shares between flows, precedence between priorities, no starvation."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

Priority = Literal["interactive", "bulk"]

AGEING = 5.0
"""Seconds after which bulk work that interactive work overtook is served before the next interactive request."""


WaitingT = TypeVar("WaitingT", bound="Hashable")


class Flow(Generic[WaitingT]):
    """Requests of one call or stream: first come, first served, with shares even to those of other flows.

    Args:
        group: flows of a group wait for the same things: if one of them has to wait, so do the others.
        priority: interactive work goes before bulk work.
    """

    __slots__ = ("group", "in_flight", "is_listed", "name", "priority", "shifted", "tag", "waiting")

    def __init__(self, group: Hashable, priority: Priority) -> None:
        self.group = group
        self.priority: Priority = priority
        # In order; a dictionary, as it removes one in the middle as fast as the first.
        self.waiting: OrderedDict[WaitingT, None] = OrderedDict()
        # How much it has had: on the scale of its group while listed there, otherwise on the common scale.
        self.tag = 0.0
        self.is_listed = False
        # The shift of its group when it was last listed there.
        self.shifted = 0.0
        # Permits that have not ended: while there are some, the flow counts as present even if nothing waits.
        self.in_flight = 0
        # Its name for a quota back end, once it was asked.
        self.name = ""

    def __repr__(self) -> str:
        return f"<Flow {self.priority}, {len(self.waiting)} waiting>"


class _Group(Generic[WaitingT]):
    """The flows of one group and priority.

    Attributes:
        shift: offset from the tags of its flows to the common scale of all flows.
        passed_over_at: since when interactive work has overtaken it.
    """

    __slots__ = ("_empty", "_flows", "passed_over_at", "priority", "shift")

    def __init__(self, priority: Priority) -> None:
        self.priority: Priority = priority
        self.shift = 0.0
        self.passed_over_at: float | None = None
        # A heap by what they have had; empty flows stay in it until they come up or are too many.
        self._flows: list[tuple[float, int, Flow[WaitingT]]] = []
        self._empty = 0

    def __iter__(self) -> Iterator[WaitingT]:
        for _, _, flow in self._flows:
            yield from flow.waiting

    def enlist(self, flow: Flow[WaitingT], number: int, least: float) -> None:
        """List a flow with waiting requests; it counts as having had at least `least`, on the common scale."""
        if flow.is_listed:
            self._empty -= 1
            return
        flow.tag = max(self.had(flow), least) - self.shift
        flow.is_listed = True
        heapq.heappush(self._flows, (flow.tag, number, flow))

    def had(self, flow: Flow[WaitingT]) -> float:
        """How much a flow has had, on the common scale."""
        if flow.is_listed:
            return flow.tag + self.shift
        # Its group was shifted while it was briefly absent, so it is shifted, too.
        return flow.tag + (max(0.0, self.shift - flow.shifted) if flow.in_flight else 0.0)

    def first(self) -> tuple[float, int, Flow[WaitingT]] | None:
        """The next flow, and what it has had on the common scale; drops empty flows."""
        while self._flows:
            tag, number, flow = self._flows[0]
            if flow.waiting:
                return tag + self.shift, number, flow
            self.pop()
            self._empty -= 1
        return None

    def pop(self) -> None:
        """Remove the next flow from the list."""
        self._unlist(heapq.heappop(self._flows)[2])

    def flow_emptied(self) -> None:
        """Record that a listed flow has become empty."""
        self._empty += 1
        if 2 * self._empty > len(self._flows):
            for _, _, flow in self._flows:
                if not flow.waiting:
                    self._unlist(flow)
            self._flows = [entry for entry in self._flows if entry[2].waiting]
            heapq.heapify(self._flows)
            self._empty = 0
            if not self._flows:
                self.passed_over_at = None

    def clear(self) -> None:
        """Remove all waiting requests."""
        for _, _, flow in self._flows:
            flow.waiting.clear()
            self._unlist(flow)

    def _unlist(self, flow: Flow[WaitingT]) -> None:
        flow.is_listed = False
        flow.tag += self.shift
        flow.shifted = self.shift


class FairQueue(Generic[WaitingT]):
    """A fair queue of flows.

    Flows of one priority share by start-time fair queueing: the flow that has had least is served next, and a flow that
    comes later starts level with the last one served, so that it neither catches up nor falls behind. Nor does a group
    catch up on what it could not have used.

    That alone would share permits rather than tokens while there is room for all, as each flow has one request waiting at
    a time and is absent until the next one comes. So a flow with open permits counts as present: what it has had less in
    the last `memory` seconds is kept, and it goes first once there is no room for all.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time fair queueing", 1996.

    Args:
        memory: seconds for which a smaller share is made up for, and up to a fourth more.
    """

    def __init__(self, memory: float = 0.0) -> None:
        self._groups: dict[tuple[Hashable, Priority], _Group[WaitingT]] = {}
        self._served: dict[Priority, float] = {"interactive": 0.0, "bulk": 0.0}
        # The same at earlier times, from the beginning of the memory on.
        self._marks: deque[tuple[float, dict[Priority, float]]] = deque([(-math.inf, self._served.copy())])
        self._memory = memory
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} waiting>"

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[WaitingT]:
        """All that wait, in no particular order."""
        return itertools.chain.from_iterable(self._groups.values())

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits; may be false for a queue whose flows have become empty."""
        return not self._groups

    def add(self, flow: Flow[WaitingT], waiting: WaitingT) -> None:
        """Append to a flow."""
        flow.waiting[waiting] = None
        if len(flow.waiting) == 1:
            self._list(flow)

    def remove(self, flow: Flow[WaitingT], waiting: WaitingT) -> bool:
        """Remove from a flow; returns whether it was waiting there."""
        if waiting not in flow.waiting:
            return False
        del flow.waiting[waiting]
        if not flow.waiting:
            self._groups[flow.group, flow.priority].flow_emptied()
        return True

    def has_aged(self, flow: Flow[WaitingT], now: float) -> bool:
        """Whether a flow with waiting requests is served before interactive ones."""
        return self._rank(self._groups[flow.group, flow.priority], now) == 0

    def clear(self) -> None:
        """Remove all waiting requests."""
        for group in self._groups.values():
            group.clear()
        self._groups.clear()

    def next(self, now: float, may_go: Callable[[WaitingT], bool]) -> WaitingT | None:
        """Remove and return the next one to serve, or `None`; the caller must call `served` at once.

        Args:
            now: the time.
            may_go: returns whether one may go now; if not, others of its group are not tried.
        """
        self._remember(now)
        heads: list[tuple[int, float, int, Flow[WaitingT], _Group[WaitingT]]] = []
        for key, group in list(self._groups.items()):
            first = group.first()
            if first is None:
                del self._groups[key]
            else:
                heads.append((self._rank(group, now), *first, group))
        heads.sort()
        for place, (_, tag, _, flow, group) in enumerate(heads):
            waiting = next(iter(flow.waiting))
            if may_go(waiting):
                del flow.waiting[waiting]
                group.pop()
                self._served[flow.priority] = max(self._served[flow.priority], flow.tag)
                self._forfeit_lead([(other[1], other[4]) for other in heads[:place]], tag, flow.priority)
                self._note_passed_over(group, now)
                return waiting
        return None

    def served(self, flow: Flow[WaitingT], amount: float) -> None:
        """Record the amount served to the flow of the one that `next` returned, and list the flow again."""
        flow.tag += amount
        if flow.waiting:
            self._list(flow)

    def is_behind(self, absent: Flow[WaitingT], flow: Flow[WaitingT]) -> bool:
        """Whether an absent flow would go before a waiting one if it had something waiting."""
        if absent.waiting or absent.priority != flow.priority:
            return False
        own, group = self._groups.get((absent.group, absent.priority)), self._groups[flow.group, flow.priority]
        return (absent.tag if own is None else own.had(absent)) < group.had(flow)

    def _list(self, flow: Flow[WaitingT]) -> None:
        key = flow.group, flow.priority
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(flow.priority)
        least = self._marks[0][1] if flow.in_flight else self._served
        group.enlist(flow, next(self._numbers), least[flow.priority])

    def _remember(self, now: float) -> None:
        marks = self._marks
        if now - marks[-1][0] >= self._memory / 4:
            marks.append((now, self._served.copy()))
            while len(marks) > 1 and now - marks[1][0] >= self._memory:
                marks.popleft()

    @staticmethod
    def _forfeit_lead(blocked: list[tuple[float, _Group[WaitingT]]], tag: float, priority: Priority) -> None:
        """Shift the blocked groups that have had less than a flow with `tag` up to it."""
        behind = [(had, group) for had, group in blocked if group.priority == priority and had < tag]
        if behind:
            # All by the same amount, so that their differences stay.
            gap = tag - min(had for had, _ in behind)
            for _, group in behind:
                group.shift += gap

    @staticmethod
    def _rank(group: _Group[WaitingT], now: float) -> int:
        if group.priority == "interactive":
            return 1
        has_aged = group.passed_over_at is not None and now - group.passed_over_at >= AGEING
        return 0 if has_aged else 2

    def _note_passed_over(self, chosen: _Group[WaitingT], now: float) -> None:
        if chosen.priority == "bulk":
            chosen.passed_over_at = None
            return
        for group in self._groups.values():
            if group.priority == "bulk" and group.passed_over_at is None:
                group.passed_over_at = now
