"""The limit on requests in flight, adapted to the outcomes of recent requests."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.quota import Priority

KEPT = 5.0
"""Seconds after an interactive request during which bulk work leaves one place free for the next one."""


class FailureBudget(Protocol):
    """A budget that failures use up: the `RetryBudget` of the client."""

    @property
    def is_low(self) -> bool:
        """Whether less than half of the budget is left."""


class ConcurrencyLimiter:
    """Limits the requests in flight of one client in one event loop.

    Additive increase, multiplicative decrease: an overload halves the limit, and as many responses as the limit add one.
    Requests in flight together fail together, so requests sent before the last halving do not halve the limit again.

    Source: D. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer
    networks", 1989.

    Args:
        most: maximum and initial value of the limit.
        budget: while it is low, only one request may be in flight; `None` to ignore it.

    Attributes:
        in_flight: number of requests in flight.
    """

    def __init__(self, most: int, *, budget: FailureBudget | None = None) -> None:
        self._most = most
        self._limit = float(most)
        self._halved_at = -math.inf
        self._budget = budget
        # Bulk requests in flight, and when an interactive request last asked for a permit.
        self._bulk = 0
        self._interactive_at = -math.inf
        self.in_flight = 0

    @property
    def limit(self) -> int:
        """Maximum number of requests in flight, at least 1."""
        return 1 if self._budget is not None and self._budget.is_low else int(self._limit)

    def asked(self, priority: Priority, now: float) -> None:
        """Record that a request asks for a permit."""
        if priority == "interactive":
            self._interactive_at = now

    def has_room(self, priority: Priority, now: float, *, has_aged: bool = False) -> bool:
        """Whether one more request may be in flight.

        While interactive requests keep coming, bulk work leaves them the last free place; otherwise each of them would have
        to wait for a response first. To avoid starvation, bulk work takes even that place if none of it is in flight, or
        if it `has_aged` and does not hold all other places.
        """
        most = self.limit
        if priority == "bulk" and now < self._interactive_at + KEPT and self._bulk >= (max(1, most - 1) if has_aged else 1):
            most -= 1
        return self.in_flight < most

    def count(self, priority: Priority, change: int) -> None:
        """Count requests more or fewer in flight."""
        self.in_flight += change
        self._bulk += change if priority == "bulk" else 0

    def succeeded(self) -> None:
        """Record that a request was answered."""
        if self._limit < self._most:
            self._limit = min(float(self._most), self._limit + 1 / self._limit)

    def overloaded(self, sent: float, now: float) -> None:
        """Record that the service was overloaded by a request sent at `sent`."""
        if sent >= self._halved_at:
            self._limit = max(1.0, self._limit / 2)
            self._halved_at = now
