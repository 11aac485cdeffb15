"""Adaptive concurrency: the number of requests in flight, by the outcomes of the last ones."""

from __future__ import annotations


class AdaptiveConcurrency:
    """Additive increase, multiplicative decrease: a failure halves the limit, and a limit's worth of responses adds one.

    Requests in flight together fail together, so the limit is not halved again for those sent before it was last halved.

    Source: D. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer
    networks", 1989.

    Args:
        most: maximum and initial value of the limit.
    """

    __slots__ = ("_halved_at", "_limit", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._halved_at = float("-inf")

    def __repr__(self) -> str:
        return f"<AdaptiveConcurrency {self.limit}/{self._most}>"

    @property
    def limit(self) -> int:
        """Maximum of requests in flight, from 1."""
        return int(self._limit)

    def succeeded(self) -> None:
        """Record that a request was answered."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)

    def failed(self, sent: float, now: float) -> None:
        """Record that the service was overloaded by a request sent at `sent`."""
        if sent >= self._halved_at:
            self._limit = max(1.0, self._limit / 2)
            self._halved_at = now
