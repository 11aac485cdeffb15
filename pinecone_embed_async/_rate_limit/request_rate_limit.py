"""A limit on requests, given or named by a rejection."""

from __future__ import annotations

import math

from pinecone_embed_async._rate_limit.known_pause import KnownPause
from pinecone_embed_async._rate_limit.limit_probe import PROBE_WINDOWS
from pinecone_embed_async._rate_limit.window import Window


class RequestRateLimit:
    """A limit on requests per window, for all models together.

    A limit named by a rejection applies for some windows and then lapses until the next rejection, because it may have been
    raised. Each time the same limit is named again, it applies twice as long.

    Args:
        length: length of the window in seconds.
        given: requests per window; `None` to learn them.

    Attributes:
        window: requests that count now.
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

    def free_at(self, now: float) -> float:
        """The time at which one more request fits: at most `now` if it fits, infinite if only a response can free one."""
        free_at = max(self.pause.until, self.window.fits_at(1, self.given, now))
        if now < self._holds_until:
            free_at = max(free_at, min(self.window.fits_at(1, self._named, now), self._holds_until))
        return free_at

    def rejected(self, limit: int | None, pause: KnownPause, now: float) -> None:
        """Record a rejection, the limit that it named if any, and the pause that follows."""
        self.pause = max(self.pause, pause)
        # While the same limit applies, the rejection belongs to the same burst.
        if limit is not None and not (limit == self._named and now < self._holds_until):
            self._holds_for = 2 * self._holds_for if limit == self._named else PROBE_WINDOWS * self.window.length
            self._named = limit
            self._holds_until = now + self._holds_for
