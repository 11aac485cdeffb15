"""A clock whose hands the tests turn."""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator, Callable
from itertools import count


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Time stands still until a test advances it; sleeps are recorded."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []
        self._numbers = count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def time(self) -> float:
        return self.now

    def wall_time(self) -> float:
        return self.now

    async def sleep(self, delay: float) -> None:
        self.slept.append(delay)
        done = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not done.done():
                done.set_result(None)

        timer = self.call_at(self.now + delay, wake)
        try:
            await done
        finally:
            timer.cancel()

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    @contextlib.asynccontextmanager
    async def timeout_at(self, when: float | None) -> AsyncIterator[asyncio.Timeout]:
        async with asyncio.timeout(None) as scope:
            timer = None if when is None else self.call_at(when, lambda: scope.reschedule(0))
            try:
                yield scope
            finally:
                if timer is not None:
                    timer.cancel()

    @property
    def pending(self) -> int:
        """Timers that are set and not called off."""
        return sum(timer.callback is not None for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()
        self.now = end


async def settle() -> None:
    """Let every task run until it waits for something; 20 turns are more than any chain here has."""
    for _ in range(20):
        await asyncio.sleep(0)
