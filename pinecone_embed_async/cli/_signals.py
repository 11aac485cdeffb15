"""Ctrl-C, SIGTERM and SIGHUP: each stops a command in the same way. Needs only the standard library."""

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
    """A signal has stopped the command; no `KeyboardInterrupt`, which Typer makes something else of.

    Attributes:
        number: The signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def status_of_stop(stop: BaseException) -> int:
    """The exit status after a signal, as shells have it: 128 and the number of the signal."""
    return 128 + (stop.number if isinstance(stop, Stopped) else signal.SIGINT)


def _stop(number: int, _frame: FrameType | None) -> None:
    raise Stopped(number)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let the signals raise `Stopped` while the block runs, except those that are ignored: `nohup` means it."""
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
    """Run a coroutine in an event loop of its own; the first signal cancels it, the second ends the process at once.

    Raises:
        Stopped: A signal has stopped it.
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
    """What stops one coroutine; `number` is the signal's, once one came."""

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
    # It may wait for a line that somebody has to type. What is done is on the disk.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    # To process 1 of a container that does nothing.
    os._exit(128 + number)
