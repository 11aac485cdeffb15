"""Probing: tests now and then whether a named limit still holds."""

from __future__ import annotations

import math

import msgspec

PROBE_WINDOWS = 4
"""Number of windows after which one request probes whether a named limit still holds; the interval doubles each time."""

EAGER_PROBES = 8
"""Number of probes, one per window, if a higher limit held before."""

DOUBT = 1 / 120
"""Fraction of a window to wait for another probe if the last one was inconclusive."""


class LimitProbe(msgspec.Struct):
    """Decides when one request may exceed a limit that a rejection named.

    Attributes:
        length: length of a window in seconds.
        is_in_flight: whether a probe is in flight.
    """

    length: float
    is_in_flight: bool = False
    _at: float = math.inf
    _every: float = 0.0
    _eager: int = 0

    @property
    def next(self) -> float:
        """The time of the next probe; infinite while one is in flight or no limit is to be probed."""
        return math.inf if self.is_in_flight else self._at

    def named(self, now: float, *, is_lower: bool) -> None:
        """Record that a rejection named a limit, and whether a higher one held before."""
        if is_lower:
            self._eager, self._every = EAGER_PROBES, self.length
        elif math.isinf(self._at) and self._every:
            # The last probe succeeded only because a new window had begun.
            self._every *= 2
        else:
            self._every = PROBE_WINDOWS * self.length
        self._at = now + self._every

    def held(self, now: float) -> None:
        """Record that the limit still holds: a probe was rejected."""
        if self._eager > 0:
            self._eager -= 1
        else:
            self._every *= 2
        self._at = now + self._every

    def stop(self) -> None:
        """Stop probing until a limit is named again."""
        self._at = math.inf

    def inconclusive(self, now: float) -> None:
        """Record that a probe was accepted but may not have exceeded the limit."""
        self._at = now + self.length * DOUBT
