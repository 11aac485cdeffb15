"""An event loop in which waiting takes no time: its clock jumps to whatever happens next."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

ResultT = TypeVar("ResultT")


class NothingHappensError(RuntimeError):
    """Everything waits, and nothing will ever end the waiting: somebody was not woken."""


class _Selector(selectors.SelectSelector):
    """Waits by putting the clock forward."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingHappensError("nobody is left to wake those who wait")
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that does no I/O and whose time, from 0, passes only while everything waits."""

    def __init__(self) -> None:
        self._hands = _Selector()
        super().__init__(self._hands)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._hands.now


class LoopClock:
    """The running loop's time, as a clock of the package."""

    def time(self) -> float:
        """Seconds of the running loop."""
        return asyncio.get_running_loop().time()

    def wall_time(self) -> float:
        """The same: there is no other time here."""
        return self.time()

    async def sleep(self, delay: float) -> None:
        """Suspend the caller for `delay` seconds."""
        await asyncio.sleep(delay)

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` once the running loop's time has reached `when`."""
        return asyncio.get_running_loop().call_at(when, callback)

    def timeout_at(self, when: float | None) -> asyncio.Timeout:
        """A scope that ends with a `TimeoutError` once the running loop's time has reached `when`."""
        return asyncio.timeout_at(when)


def run_virtually(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine in a virtual loop, to its end.

    Raises:
        NothingHappensError: it will never end.
    """
    with asyncio.Runner(debug=False, loop_factory=VirtualLoop) as runner:
        return runner.run(main)
