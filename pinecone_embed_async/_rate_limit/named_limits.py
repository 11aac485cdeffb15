"""Limits that rejections name: those on requests, and when to test whether one of tokens still holds."""

from __future__ import annotations

import math

import msgspec

from pinecone_embed_async._rate_limit.pauses import KnownPause
from pinecone_embed_async._rate_limit.window import Window

PROBE_WINDOWS = 4
"""Number of windows after which one request probes whether a named limit still holds; the interval doubles each time."""

EAGER_PROBES = 8
"""Number of probes, one per window, if a higher limit held before."""

DOUBT = 1 / 120
"""Fraction of a window to wait for another probe if the last one was inconclusive."""


class RequestRateLimit:
    """A limit on requests per window, for all models together.

    A limit named by a rejection applies for some windows and then lapses until the next rejection, because it may have been
    raised. Each time the same limit is named again, it applies twice as long.

    Args:
        length: length of the window in seconds.
        given: requests per window; `None` to learn them.

    Attributes:
        window: requests that have ended.
        pause: the pause; nothing is sent before its end.
        given: the given limit; infinite if there is none.
    """

    def __init__(self, length: float, given: int | None) -> None:
        self.window = Window(length)
        self.given = math.inf if given is None else given
        self._named = math.inf
        self._holds_for = 0.0
        self._holds_until = -math.inf
        self.pause = KnownPause()

    def free_at(self, in_flight: int, now: float) -> float:
        """When one more request fits beside those in flight: at most `now` if it fits, infinite if one of them must end."""
        free_at = self.pause.until
        if self.given < math.inf:
            free_at = max(free_at, self.window.fits_at(in_flight + 1, self.given, now))
        if now < self._holds_until:
            free_at = max(free_at, min(self.window.fits_at(in_flight + 1, self._named, now), self._holds_until))
        return free_at

    def rejected(self, limit: int | None, pause: KnownPause, now: float) -> None:
        """Record a rejection, the limit that it named if any, and the pause that follows."""
        self.pause = max(self.pause, pause)
        # While the same limit applies, the rejection belongs to the same burst.
        if limit is not None and not (limit == self._named and now < self._holds_until):
            self._holds_for = 2 * self._holds_for if limit == self._named else PROBE_WINDOWS * self.window.length
            self._named = limit
            self._holds_until = now + self._holds_for


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
