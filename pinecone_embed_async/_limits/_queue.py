"""Whose turn it is: fair shares between flows, precedence between priorities, nobody starved."""

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
"""Seconds after which bulk work that interactive work went ahead of has a turn before the next interactive one."""


WaitingT = TypeVar("WaitingT", bound="Hashable")


class Flow(Generic[WaitingT]):
    """Work that waits first come, first served, and shares evenly with other flows: a call, or a stream.

    Args:
        group: flows of a group wait for the same things, so that if one of them has to wait, so have the others.
        priority: interactive work goes before bulk work.
    """

    __slots__ = ("group", "in_flight", "is_listed", "name", "priority", "shifted", "tag", "waiting")

    def __init__(self, group: Hashable, priority: Priority) -> None:
        self.group = group
        self.priority: Priority = priority
        # In their order; a dictionary that gives up one in the middle as fast as the first.
        self.waiting: OrderedDict[WaitingT, None] = OrderedDict()
        # How much it has had: on the scale of its group while it is listed there, else on the one of all flows.
        self.tag = 0.0
        self.is_listed = False
        # By how much its group had been moved up when it was listed there last.
        self.shifted = 0.0
        # Turns that it has had and that have not ended: while there are some, it is not gone though nobody waits in it.
        self.in_flight = 0
        # By which whoever deals out a quota from elsewhere knows it, once it was asked.
        self.name = ""

    def __repr__(self) -> str:
        return f"<Flow {self.priority}, {len(self.waiting)} waiting>"


class _Group(Generic[WaitingT]):
    """The flows of a group that have a priority.

    Attributes:
        shift: what is added to the tags of its flows to have them on the scale of all flows.
        passed_over_at: since when interactive work has gone ahead of it.
    """

    __slots__ = ("_empty", "_flows", "passed_over_at", "priority", "shift")

    def __init__(self, priority: Priority) -> None:
        self.priority: Priority = priority
        self.shift = 0.0
        self.passed_over_at: float | None = None
        # A heap of what they have had; those that all have left stay in it until they come up, or there are too many.
        self._flows: list[tuple[float, int, Flow[WaitingT]]] = []
        self._empty = 0

    def __iter__(self) -> Iterator[WaitingT]:
        for _, _, flow in self._flows:
            yield from flow.waiting

    def enlist(self, flow: Flow[WaitingT], number: int, least: float) -> None:
        """Have a flow wait in which somebody waits; it has had at least `least`, on the scale of all."""
        if flow.is_listed:
            self._empty -= 1
            return
        flow.tag = max(self.had(flow), least) - self.shift
        flow.is_listed = True
        heapq.heappush(self._flows, (flow.tag, number, flow))

    def had(self, flow: Flow[WaitingT]) -> float:
        """How much a flow has had, on the scale of all."""
        if flow.is_listed:
            return flow.tag + self.shift
        # The others of its group were moved up while it was absent for a moment: so is it.
        return flow.tag + (max(0.0, self.shift - flow.shifted) if flow.in_flight else 0.0)

    def first(self) -> tuple[float, int, Flow[WaitingT]] | None:
        """The flow whose turn it is, and what it has had, on the scale of all; drops those that all have left."""
        while self._flows:
            tag, number, flow = self._flows[0]
            if flow.waiting:
                return tag + self.shift, number, flow
            self.pop()
            self._empty -= 1
        return None

    def pop(self) -> None:
        """Take the flow whose turn it is off the list."""
        self._unlist(heapq.heappop(self._flows)[2])

    def emptied(self) -> None:
        """Note that all have left a flow that is listed."""
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
        """Have nobody wait."""
        for _, _, flow in self._flows:
            flow.waiting.clear()
            self._unlist(flow)

    def _unlist(self, flow: Flow[WaitingT]) -> None:
        flow.is_listed = False
        flow.tag += self.shift
        flow.shifted = self.shift


class FairQueue(Generic[WaitingT]):
    """Flows that wait for turns.

    Between flows of one priority it is start-time fair queueing: each turn goes to the flow that has had least, and a
    flow that comes later starts with what the last one served had, so that it neither catches up nor stands behind. Nor
    does a group catch up on the turns that it could not have taken.

    That alone would share turns rather than tokens while all find room, for each has one request waiting at a time and is
    absent for the moment until the next one comes. So a flow with turns that have not ended counts as present: it keeps
    what it had less, of the last `memory` seconds, and goes first once there is not room for all.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time fair queueing", 1996.

    Args:
        memory: seconds for which it is made up for, and up to a fourth more.
    """

    def __init__(self, memory: float = 0.0) -> None:
        self._groups: dict[tuple[Hashable, Priority], _Group[WaitingT]] = {}
        self._served: dict[Priority, float] = {"interactive": 0.0, "bulk": 0.0}
        # The same at some times, from where memory begins on.
        self._marks: deque[tuple[float, dict[Priority, float]]] = deque([(-math.inf, self._served.copy())])
        self._memory = memory
        self._numbers = itertools.count()

    def __repr__(self) -> str:
        return f"<FairQueue {len(self)} waiting>"

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[WaitingT]:
        """All who wait, in no order."""
        return itertools.chain.from_iterable(self._groups.values())

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits, as far as can be told without a look at everybody."""
        return not self._groups

    def add(self, flow: Flow[WaitingT], waiting: WaitingT) -> None:
        """Have somebody wait behind those of the same flow."""
        flow.waiting[waiting] = None
        if len(flow.waiting) == 1:
            self._list(flow)

    def remove(self, flow: Flow[WaitingT], waiting: WaitingT) -> bool:
        """Have somebody wait no more; says whether it did."""
        if waiting not in flow.waiting:
            return False
        del flow.waiting[waiting]
        if not flow.waiting:
            self._groups[flow.group, flow.priority].emptied()
        return True

    def has_aged(self, flow: Flow[WaitingT], now: float) -> bool:
        """Whether a flow in which somebody waits has its turn before interactive ones."""
        return self._rank(self._groups[flow.group, flow.priority], now) == 0

    def clear(self) -> None:
        """Have nobody wait."""
        for group in self._groups.values():
            group.clear()
        self._groups.clear()

    def next(self, now: float, may_go: Callable[[WaitingT], bool]) -> WaitingT | None:
        """The one whose turn it is; it waits no more, and `served` is to be told at once what it got.

        Args:
            now: the time.
            may_go: whether one may go now; not asked for others of its group if not.
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
                self._let_go_of_lead([(other[1], other[4]) for other in heads[:place]], tag, flow.priority)
                self._note_passed_over(group, now)
                return waiting
        return None

    def served(self, flow: Flow[WaitingT], amount: float) -> None:
        """Note what the flow of the one that `next` gave got; it may have its next turn."""
        flow.tag += amount
        if flow.waiting:
            self._list(flow)

    def is_behind(self, absent: Flow[WaitingT], flow: Flow[WaitingT]) -> bool:
        """Whether a flow in which nobody waits would go before one in which somebody does, if it had somebody wait."""
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
    def _let_go_of_lead(refused: list[tuple[float, _Group[WaitingT]]], tag: float, priority: Priority) -> None:
        """Move up those groups that had less, and could not go before a flow that had `tag`."""
        behind = [(had, group) for had, group in refused if group.priority == priority and had < tag]
        if behind:
            # All by the same, so that they stay to each other as they were.
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
