"""Fair queueing: even shares between flows, precedence between priorities, no starvation."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from operator import methodcaller
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinecone_embed_async._rate_limit.permit import Flow, LimiterPermit
    from pinecone_embed_async._rate_limit.quota import Key, Priority

AGEING = 5.0
"""Seconds after which bulk work that was overtaken by interactive work is served before the next interactive request."""


class Group(msgspec.Struct, eq=False):
    """The flows of one group that have waiting requests.

    Attributes:
        priority: priority of the flows.
        flows: the flows, ordered by the service they have received, then by the order in which they were listed.
        shift: offset from the scale of this group's flows to the common scale of all flows.
        passed_over_at: since when interactive work has been overtaking the group, if it is bulk work; else `None`.
    """

    priority: Priority
    flows: list[tuple[float, int, Flow]] = []
    shift: float = 0.0
    passed_over_at: float | None = None

    def unlist(self, flow: Flow) -> None:
        """Remove a flow from the list."""
        if flow.entry is not None:
            del self.flows[bisect_left(self.flows, flow.entry)]
            flow.entry = None
            flow.had += self.shift
            flow.shifted = self.shift

    def had(self, flow: Flow) -> float:
        """The service that a flow has received, on the common scale."""
        if flow.entry is not None:
            return flow.had + self.shift
        # A flow that was briefly absent gets the shift that its group got meanwhile.
        return flow.had + (max(0.0, self.shift - flow.shifted) if flow.in_flight else 0.0)

    @property
    def permit(self) -> LimiterPermit:
        """The permit of the first request."""
        return next(iter(self.flows[0][2].waiting))

    @property
    def least(self) -> float:
        """The service that the first flow has received, on the common scale."""
        return self.flows[0][0] + self.shift

    def has_aged(self, now: float) -> bool:
        """Whether this is aged bulk work, which goes before interactive requests."""
        return self.passed_over_at is not None and now - self.passed_over_at >= AGEING

    def turn(self, now: float) -> tuple[int, float, int]:
        """Sorts groups in the order in which their first requests are to be served; other bulk work goes last."""
        rank = 1 if self.priority == "interactive" else 0 if self.has_aged(now) else 2
        had, number, _ = self.flows[0]
        return rank, had + self.shift, number


class FairQueue:
    """A fair queue of flows.

    Flows of one priority share by start-time fair queueing: the flow that has received least is served next. A flow that
    comes later starts level with the last one served, so that it neither catches up nor falls behind. A group that was
    blocked does not catch up either on service that it could not have used.

    That alone would share permits rather than tokens while there is room for all, because each flow has only one request
    waiting at a time and is absent until its next one comes. So a flow with open permits counts as present: its deficit of
    the last `memory` seconds is kept, and it goes first once there is no room for all.

    Source: P. Goyal, H. M. Vin and H. Cheng, "Start-time fair queueing", 1996.

    Args:
        memory: seconds for which a deficit is kept; up to a fourth longer in practice.
    """

    def __init__(self, memory: float = 0.0) -> None:
        self._groups: dict[tuple[object, Key | None, Priority], Group] = {}
        self._served: dict[Priority, float] = {"interactive": 0.0, "bulk": 0.0}
        # `_served` at earlier times, from the beginning of the memory on.
        self._marks: deque[tuple[float, dict[Priority, float]]] = deque([(-math.inf, self._served.copy())])
        self._memory = memory
        # A plain number rather than `itertools.count`, because the queue of a quota in a file is pickled.
        self._listed = 0

    def __iter__(self) -> Iterator[LimiterPermit]:
        """The permits of all waiting requests, in no particular order."""
        return (permit for group in self._groups.values() for _, _, flow in group.flows for permit in flow.waiting)

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, permit: LimiterPermit) -> None:
        """Append a request for a permit to its flow."""
        flow = permit.flow
        flow.waiting[permit] = None
        if flow.entry is None:
            self._enlist(self._groups.setdefault(flow.group, Group(flow.priority)), flow)

    def remove(self, permit: LimiterPermit) -> bool:
        """Remove a request for a permit; return whether it was waiting."""
        flow = permit.flow
        if permit not in flow.waiting:
            return False
        del flow.waiting[permit]
        if not flow.waiting:
            group = self._groups[flow.group]
            group.unlist(flow)
            if not group.flows:
                del self._groups[flow.group]
        return True

    def groups(self, now: float) -> list[Group]:
        """The groups, in the order in which their first requests are to be served."""
        self._remember(now)
        return sorted(self._groups.values(), key=methodcaller("turn", now))

    def serve(self, groups: list[Group], place: int, amount: float, now: float) -> None:
        """Serve and remove the first request of the group at `place` in `groups`; the groups before it have to wait.

        Args:
            groups: the result of `groups`, with nothing changed since.
            place: index of the group to serve.
            amount: amount that its request receives.
            now: the time.
        """
        group, flow = groups[place], groups[place].permit.flow
        behind = [other for other in groups[:place] if other.priority == group.priority and other.least < group.least]
        # Blocked groups that have received less forfeit their lead, all by the same amount, which keeps their differences.
        lead = max([group.least - other.least for other in behind], default=0.0)
        for other in behind:
            other.shift += lead
        flow.waiting.popitem(last=False)
        group.unlist(flow)
        self._served[group.priority] = max(self._served[group.priority], flow.had)
        flow.had += amount
        if group.priority == "bulk":
            group.passed_over_at = None
        else:
            for other in self._groups.values():
                if other.priority == "bulk" and other.passed_over_at is None:
                    other.passed_over_at = now
        if flow.waiting:
            self._enlist(group, flow)
        elif not group.flows:
            del self._groups[flow.group]

    def pass_by(self, flow: Flow, amount: float, now: float) -> None:
        """Record a request that is served at once, because nothing waits."""
        self._remember(now)
        had = max(flow.had, self._least(flow))
        self._served[flow.priority] = max(self._served[flow.priority], had)
        flow.had, flow.shifted = had + amount, 0.0

    def is_behind(self, absent: Flow, flow: Flow) -> bool:
        """Whether an absent flow would go before a waiting one if it had a request."""
        if absent.waiting or absent.priority != flow.priority:
            return False
        own, group = self._groups.get(absent.group), self._groups[flow.group]
        return (absent.had if own is None else own.had(absent)) < group.had(flow)

    def _enlist(self, group: Group, flow: Flow) -> None:
        self._listed += 1
        flow.had = max(group.had(flow), self._least(flow)) - group.shift
        flow.entry = flow.had, self._listed, flow
        insort(group.flows, flow.entry)

    def _least(self, flow: Flow) -> float:
        """The minimum service that a flow listed now counts as having received."""
        return (self._marks[0][1] if flow.in_flight else self._served)[flow.priority]

    def _remember(self, now: float) -> None:
        marks = self._marks
        if now - marks[-1][0] >= self._memory / 4:
            marks.append((now, self._served.copy()))
            while len(marks) > 1 and now - marks[1][0] >= self._memory:
                marks.popleft()
