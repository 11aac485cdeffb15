"""Backoff after consecutive failures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

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
