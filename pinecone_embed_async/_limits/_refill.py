"""Limits that refill evenly, as a token bucket does: how they are told from windows, and how sending keeps to them."""

from __future__ import annotations

import math

CAME_FREE = 2
"""Times within the first window that something came free soon after a rejection, from which a limit refills evenly: a window
turns once in that time."""

SOON = 1 / 4
"""Part of a window within which something comes free soon: a request of a fourth of the limit comes in that time."""

MEASURED = 8
"""Requests over which the rate of a limit that refills evenly is measured; with half as many, some clients begin at half of
it. Source: `benchmarks/unnamed_limits.py`."""


class Refill:
    """Tells by the first rejections whether a limit refills evenly, and how fast.

    A client that knows no limit sends until it is rejected, pauses, sends one request, and goes on if that is accepted.
    Under a window everything is rejected until the window turns; a bucket soon has something for every request.

    Args:
        length: seconds of a window.
    """

    __slots__ = ("_at", "_came_free", "_length", "_since", "_tokens", "_total")

    def __init__(self, length: float) -> None:
        self._length = length
        self._came_free = 0
        # When the first rejection came, and how many tokens had been accepted by then.
        self._since = math.inf
        self._total = 0
        # When the last rejection came, and the tokens of that request.
        self._at = -math.inf
        self._tokens = 0

    def __repr__(self) -> str:
        return f"<Refill {self._came_free} times>"

    def rejected(self, tokens: int, total: int, now: float) -> None:
        """Note a rejection of so many tokens, and how many were accepted in all."""
        if math.isinf(self._since):
            self._since, self._total = now, total
        self._at, self._tokens = now, tokens

    def accepted(self, tokens: int, now: float) -> None:
        """Note that a request was accepted behind the pause; a smaller one may have fitted into what had been left."""
        self._came_free += now - self._at <= SOON * self._length and 2 * tokens >= self._tokens

    def reset(self) -> None:
        """Forget everything."""
        self._came_free, self._since = 0, math.inf

    def tokens(self, total: int, now: float, *, least: float) -> float | None:
        """Tokens that come in a window, if they come evenly and `least` have come since the first rejection; else `None`."""
        if self._came_free < CAME_FREE or now <= self._since or total - self._total < least:
            return None
        return max(float(self._tokens), (total - self._total) / (now - self._since) * self._length)


class Pace:
    """Spaces requests out evenly.

    Source: the generic cell rate algorithm, ITU-T I.371.

    Attributes:
        next: when the next request may be sent.
    """

    __slots__ = ("next",)

    def __init__(self) -> None:
        self.next = -math.inf

    def __repr__(self) -> str:
        return f"<Pace next at {self.next:g}>"

    def send(self, seconds: float, tolerance: float, now: float) -> None:
        """Note a request that takes so many seconds to refill; being late, by `tolerance` at most, is made up for."""
        self.next = max(self.next, now - tolerance) + seconds

    def adjust(self, seconds: float) -> None:
        """Note that a request takes longer to refill than was said."""
        self.next += seconds
