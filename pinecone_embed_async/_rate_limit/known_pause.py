"""How long certainly no request can be sent."""

from __future__ import annotations

import math

import msgspec

from pinecone_embed_async._errors import DeadlineExceededError, RateLimitError


class KnownPause(msgspec.Struct, frozen=True, order=True):
    """A time before which a request certainly gets no permit. Pauses sort by their ends.

    Attributes:
        until: the time; in the past if nothing is known to prevent a request.
        rejection: message of the rejection that started the pause; empty if there was none, or it had no text.
    """

    until: float = -math.inf
    rejection: str = ""

    def outlasts(self, deadline: float, now: float) -> bool:
        """Whether it lasts until the deadline or longer, and is not over."""
        return self.until > now and self.until >= deadline

    def left(self, now: float) -> float:
        """Seconds that are left of it."""
        return max(0.0, self.until - now)

    def error(self, now: float, message: str = "") -> DeadlineExceededError:
        """The error of a call whose deadline has passed, or comes before the end of the pause.

        Args:
            now: the time.
            message: what happened; defaults to a message about the pause.
        """
        left = self.left(now)
        known = message or f"no request can be sent for {left:.1f} s, and the deadline of the call is earlier"
        error = DeadlineExceededError(known, retry_after=left or None)
        if left and self.rejection:
            error.__cause__ = RateLimitError(self.rejection, status=429, retry_after=left)
        return error
