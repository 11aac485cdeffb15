"""How many requests may be in flight, by what became of the last ones."""

from __future__ import annotations


class Concurrency:
    """Additive increase, multiplicative decrease: a failure halves it, and each limit's worth of answers adds one.

    Requests that were in flight together meet the same trouble together, so it is halved once for those that were sent
    before the last time.

    Source: D. Chiu and R. Jain, "Analysis of the increase and decrease algorithms for congestion avoidance in computer
    networks", 1989.

    Args:
        most: requests in flight at most; it starts with that.
    """

    __slots__ = ("_halved_at", "_limit", "_most")

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = float(most)
        self._halved_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Concurrency {self.limit}/{self._most}>"

    @property
    def limit(self) -> int:
        """Requests in flight at most; from 1."""
        return int(self._limit)

    def succeeded(self) -> None:
        """Note that a request was answered."""
        self._limit = min(float(self._most), self._limit + 1 / self._limit)

    def failed(self, sent: float, now: float) -> None:
        """Note that the service could not cope with a request that was sent at `sent`."""
        if sent >= self._halved_at:
            self._limit = max(1.0, self._limit / 2)
            self._halved_at = now
