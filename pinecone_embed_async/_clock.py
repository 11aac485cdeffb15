"""The clock that all waiting code uses; tests pass their own to control time."""

from __future__ import annotations

import asyncio
from time import monotonic
from time import time as wall_time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager


class Timer(Protocol):
    """A scheduled callback that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the callback; does nothing if it has already run."""


class Clock(Protocol):
    """Tells the time and waits. All times are in seconds."""

    def time(self) -> float:
        """Seconds since some fixed moment; never goes backwards."""

    def wall_time(self) -> float:
        """Seconds since the epoch, for dates that come from outside."""

    async def sleep(self, delay: float) -> None:
        """Suspend the caller for `delay` seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once `time()` has reached `when`."""

    def timeout_at(self, when: float | None) -> AbstractAsyncContextManager[asyncio.Timeout]:
        """A scope that ends with a `TimeoutError` once `time()` reaches `when`; never if `when` is `None`."""


class SystemClock:
    """The system's monotonic clock, which is the same in all threads and event loops."""

    # Bound directly, without a method around them, because every step of a request reads the clock.
    time = staticmethod(monotonic)
    wall_time = staticmethod(wall_time)

    async def sleep(self, delay: float) -> None:
        """Suspend the caller for `delay` seconds."""
        await asyncio.sleep(delay)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` from the running loop once the clock has reached `when`."""
        return asyncio.get_running_loop().call_later(when - monotonic(), callback)

    def timeout_at(self, when: float | None) -> asyncio.Timeout:
        """A scope that ends with a `TimeoutError` once the clock reaches `when`; never if `when` is `None`."""
        return asyncio.timeout(None if when is None else when - monotonic())
