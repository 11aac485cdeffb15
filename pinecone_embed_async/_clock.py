"""The clock for everything that waits: passed in, so that tests can control time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager


class Timer(Protocol):
    """A scheduled callback that can be cancelled."""

    def cancel(self) -> None:
        """Cancel it; does nothing if it has already run."""


class Clock(Protocol):
    """The time, and ways to wait. All times are in seconds."""

    def time(self) -> float:
        """Seconds since some fixed moment; never goes backwards."""

    def wall_time(self) -> float:
        """Seconds since the epoch, for dates that come from outside."""

    async def sleep(self, delay: float) -> None:
        """Suspend the caller for `delay` seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once `time()` has reached `when`."""

    def timeout_at(self, when: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """A scope that ends with a `TimeoutError` once `time()` has reached `when`; never if that is `None`."""


class SystemClock:
    """The system's monotonic clock, which is the same in all threads and event loops."""

    def time(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    def wall_time(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, delay: float) -> None:
        """Suspend the caller for `delay` seconds."""
        await asyncio.sleep(delay)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the running loop once the clock has reached `when`."""
        return asyncio.get_running_loop().call_later(max(0.0, when - time.monotonic()), callback)

    def timeout_at(self, when: float | None) -> asyncio.Timeout:
        """A scope that ends with a `TimeoutError` once the clock has reached `when`; never if that is `None`."""
        return asyncio.timeout(None if when is None else when - time.monotonic())
