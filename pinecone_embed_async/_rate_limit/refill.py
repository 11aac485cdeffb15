"""Limits that refill evenly, like a token bucket: their detection, and the pacing of requests."""

from __future__ import annotations

import math

CAME_FREE = 2
"""How often tokens must come free soon after a rejection, within the first window, for the limit to count as refilling
evenly; a limit by windows resets only once in that time."""

SOON = 1 / 4
"""Fraction of a window that counts as soon; tokens for a request of a fourth of the limit refill in that time."""

MEASURED = 8
"""Number of requests over which the refill rate is measured; with half as many, some clients start at half the rate.
Source: `benchmarks/unnamed_limits.py`."""


class Refill:
    """Detects from the first rejections whether a limit refills evenly, and how fast.

    A client that knows no limit sends until it is rejected, pauses, sends one request, and resumes if that is accepted.
    A limit by windows rejects everything until the next window begins; a bucket soon has tokens for another request.

    Args:
        length: length of a window in seconds.
    """

    __slots__ = ("_at", "_came_free", "_length", "_since", "_tokens", "_total")

    def __init__(self, length: float) -> None:
        self._length = length
        self._came_free = 0
        # Time of the first rejection, and the tokens accepted by then.
        self._since = math.inf
        self._total = 0
        # Time of the last rejection, and the tokens of that request.
        self._at = -math.inf
        self._tokens = 0

    def __repr__(self) -> str:
        return f"<Refill {self._came_free} times>"

    def rejected(self, tokens: int, total: int, now: float) -> None:
        """Record a rejected request of `tokens`, and the total accepted so far."""
        if math.isinf(self._since):
            self._since, self._total = now, total
        self._at, self._tokens = now, tokens

    def accepted(self, tokens: int, now: float) -> None:
        """Record an acceptance after the pause; ignored for a much smaller request, which may have fitted into the rest."""
        self._came_free += now - self._at <= SOON * self._length and 2 * tokens >= self._tokens

    def reset(self) -> None:
        """Forget everything."""
        self._came_free, self._since = 0, math.inf

    def tokens(self, total: int, now: float, *, least: float) -> float | None:
        """Tokens refilled per window, if the limit refills evenly and at least `least` came since the first rejection."""
        if self._came_free < CAME_FREE or now <= self._since or total - self._total < least:
            return None
        return max(float(self._tokens), (total - self._total) / (now - self._since) * self._length)


class Pace:
    """Spaces requests out evenly.

    Source: the generic cell rate algorithm, ITU-T I.371.

    Attributes:
        next: earliest time of the next request.
    """

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = -math.inf

    def __repr__(self) -> str:
        return f"<Pace next at {self.next:g}>"

    def send(self, seconds: float, tolerance: float, now: float) -> None:
        """Record a request whose tokens refill in `seconds`; up to `tolerance` seconds of lateness are made up for."""
        self.next = max(self.next, now - tolerance) + seconds

    def adjust(self, seconds: float) -> None:
        """Record that the tokens of a request take `seconds` longer to refill."""
        self.next += seconds
