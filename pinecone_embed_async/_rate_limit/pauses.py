"""Pauses: how long one is after failures, and until when one certainly lasts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._errors import DeadlineExceededError, RateLimitError

if TYPE_CHECKING:
    from collections.abc import Callable


class Backoff(msgspec.Struct, frozen=True):
    """The wait after a failure.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).

    Attributes:
        initial: upper bound of the first wait in seconds; it doubles with every failure.
        most: maximum upper bound, in seconds.
        draw: draws uniformly from [0, 1).
        retry_after: seconds to wait that the service asked for, which take precedence; `None` if it did not.
        most_asked: upper bound of a wait that the service asks for, in seconds.
    """

    initial: float
    most: float
    draw: Callable[[], float]
    retry_after: float | None = None
    most_asked: float = math.inf

    def seconds(self, failures: int) -> float:
        """Seconds to wait after the `failures`-th consecutive failure, from 1."""
        if self.retry_after is not None:
            # Extended at random, so that requests that were rejected together are not sent again together.
            return min(self.retry_after, self.most_asked) + self.draw() * self.initial
        # The exponent is bounded only to keep the power finite; `most` caps the wait long before.
        return self.draw() * min(self.most, self.initial * 2.0 ** min(failures - 1, 60))


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
