"""Detection of limits that refill evenly, like a token bucket."""

from __future__ import annotations

import math

import msgspec

CAME_FREE = 2
"""How often tokens must come free soon after a rejection, within the first window, for the limit to count as refilling
evenly; a limit by windows resets only once in that time."""

SOON = 1 / 4
"""Fraction of a window that counts as soon; tokens for a request of a fourth of the limit refill in that time."""

MEASURED = 8
"""Number of requests over which the refill rate is measured; with half as many, some clients start at half the rate.
Source: `benchmarks/unnamed_limits.py`."""


class Refill(msgspec.Struct):
    """Detects from the first rejections whether a limit refills evenly, and how fast.

    A client that knows no limit sends until it is rejected, pauses, sends one request, and resumes if that is accepted.
    A limit by windows rejects everything until the next window begins; a bucket soon has tokens for another request.

    Attributes:
        length: length of a window in seconds.
    """

    length: float
    _came_free: int = 0
    # Time of the first rejection, and the tokens accepted by then.
    _since: float = math.inf
    _total: int = 0
    # Time of the last rejection, and the tokens of that request.
    _at: float = -math.inf
    _tokens: int = 0

    def rejected(self, tokens: int, total: int, now: float) -> None:
        """Record a rejected request of `tokens`, and the total accepted so far."""
        if math.isinf(self._since):
            self._since, self._total = now, total
        self._at, self._tokens = now, tokens

    def accepted(self, tokens: int, now: float) -> None:
        """Record an acceptance after the pause; ignored for a much smaller request, which may have fitted into the rest."""
        self._came_free += now - self._at <= SOON * self.length and 2 * tokens >= self._tokens

    def reset(self) -> None:
        """Forget everything."""
        self._came_free, self._since = 0, math.inf

    def tokens(self, total: int, now: float, *, least: float) -> float | None:
        """Tokens refilled per window, if the limit refills evenly and at least `least` came since the first rejection."""
        if self._came_free < CAME_FREE or now <= self._since or total - self._total < least:
            return None
        return max(float(self._tokens), (total - self._total) / (now - self._since) * self.length)
