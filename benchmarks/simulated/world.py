"""An event loop in which waiting takes no time: its clock jumps to the next event, and every run is repeatable."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

ResultT = TypeVar("ResultT")


class NothingHappensError(RuntimeError):
    """Everything is waiting and nothing can end the wait: a wake-up was lost."""


class NeverEndsError(RuntimeError):
    """The loop iterated too often: something repeats endlessly."""


class _Selector(selectors.SelectSelector):
    """Waits by advancing the clock."""

    def __init__(self, most_waits: int) -> None:
        super().__init__()
        self.now = 0.0
        self.before_waiting: Callable[[], None] | None = None
        self._left = most_waits

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingHappensError("everything is waiting, and nothing can end the wait")
        self._left -= 1
        if self._left < 0:
            raise NeverEndsError("the loop has iterated too often")
        if timeout > 0:
            if self.before_waiting is not None:
                self.before_waiting()
            self.now += timeout
        return []


class _Task(asyncio.Task["Any"]):
    """A task that hashes to its number in the loop, so that sets of tasks have the same order in every run."""

    def __init__(self, *arguments: Any, number: int, **options: Any) -> None:
        # Before the task starts, since asyncio keeps it in a set.
        self._number = number
        super().__init__(*arguments, **options)

    def __hash__(self) -> int:
        return self._number

    __eq__ = object.__eq__


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop without I/O whose time starts at 0 and passes only while everything waits.

    Args:
        most_iterations: iterations of the loop after which it raises.
    """

    def __init__(self, most_iterations: int = 2**62) -> None:
        self._hands = _Selector(most_iterations)
        super().__init__(self._hands)
        numbers = itertools.count()

        def make_task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> _Task:
            return _Task(coroutine, loop=loop, number=next(numbers), **options)

        self.set_task_factory(make_task)

    def time(self) -> float:
        """Virtual seconds since the loop was created."""
        return self._hands.now

    def before_waiting(self, callback: Callable[[], None]) -> None:
        """Set a callback to call whenever everything waits and the time is about to advance."""
        self._hands.before_waiting = callback

    def timers(self) -> list[asyncio.TimerHandle]:
        """The timers that are not cancelled."""
        handles: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return [handle for handle in handles if not handle.cancelled()]

    def _write_to_self(self) -> None:
        """Do nothing, since this loop never sleeps."""


class LoopClock:
    """The running loop's time, as a clock for the package."""

    def time(self) -> float:
        """The running loop's time in seconds."""
        return asyncio.get_running_loop().time()

    def wall_time(self) -> float:
        """The same: there is no other time here."""
        return self.time()

    async def sleep(self, delay: float) -> None:
        """Suspend the caller for `delay` seconds."""
        await asyncio.sleep(delay)

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        """Call `callback` when the running loop's time reaches `when`."""
        return asyncio.get_running_loop().call_at(when, callback)

    def timeout_at(self, when: float | None) -> asyncio.Timeout:
        """A scope that ends with a `TimeoutError` when the running loop's time reaches `when`."""
        return asyncio.timeout_at(when)


class InlineExecutor(Executor):
    """Runs submitted work immediately, in the submitting thread."""

    def submit(self, work: Callable[..., ResultT], /, *arguments: Any, **options: Any) -> Future[ResultT]:
        """See `Executor.submit`."""
        future: Future[ResultT] = Future()
        try:
            future.set_result(work(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - it is the work's error, and goes to the waiting caller
            future.set_exception(error)
        return future


def run_virtually(main: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Run a coroutine to its end in a virtual loop.

    Raises:
        NothingHappensError: it would never end.
    """
    with asyncio.Runner(debug=False, loop_factory=VirtualLoop) as runner:
        return runner.run(main)
