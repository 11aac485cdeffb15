"""Backoff after consecutive failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def full_jitter(failures: int, *, initial: float, most: float, draw: Callable[[], float]) -> float:
    """Seconds to wait after the `failures`-th consecutive failure.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 (full jitter).

    Args:
        failures: number of consecutive failures, from 1.
        initial: upper bound of the first wait; it doubles with every failure.
        most: upper bound of any wait.
        draw: draws uniformly from [0, 1).
    """
    # The exponent is bounded so that the power stays finite; the wait is capped long before.
    return draw() * min(most, initial * 2.0 ** min(failures - 1, 60))
