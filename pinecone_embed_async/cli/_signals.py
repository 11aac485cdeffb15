"""Ctrl-C, SIGTERM and SIGHUP: all stop a command in the same way. Needs only the standard library."""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

T = TypeVar("T")


class Stopped(BaseException):
    """A signal stopped the command. Not a `KeyboardInterrupt`, which Typer handles in its own way.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def status_of_stop(stop: BaseException) -> int:
    """The exit status after a signal, as in shells: 128 plus the signal's number."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Make the signals raise `Stopped` while the block runs, except those that are ignored, as under `nohup`."""
    before = {number: signal.getsignal(number) for number in _STOPPING}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def run_until_stopped(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in a new event loop; the first signal cancels it, the second ends the process at once.

    Raises:
        Stopped: A signal stopped it.
    """
    with asyncio.Runner() as runner:
        stop = _Stop()
        try:
            return runner.run(stop.watch(main))
        except asyncio.CancelledError:
            if stop.number is None:
                raise
            raise Stopped(stop.number) from None


class _Stop:
    """Cancels a coroutine on a signal; `number` is the first signal's, `None` before."""

    def __init__(self) -> None:
        self.number: int | None = None

    async def watch(self, main: Coroutine[Any, Any, T]) -> T:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        is_main = threading.current_thread() is threading.main_thread()
        taken = [number for number in _STOPPING if is_main and signal.getsignal(number) is _stop]

        def stop(number: int) -> None:
            if self.number is not None:
                _end(number)
            self.number = number
            if task is not None:
                task.cancel()

        for number in taken:
            loop.add_signal_handler(number, stop, number)
        try:
            return await main
        finally:
            for number in taken:
                loop.remove_signal_handler(number)
                signal.signal(number, _stop)


def _end(number: int) -> None:
    # The process may be blocked reading a line that somebody has to type. Finished work is on the disk.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # Process 1 of a container ignores that signal.
    os._exit(128 + number)
