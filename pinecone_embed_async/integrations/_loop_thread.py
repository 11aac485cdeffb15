"""An event loop in a thread of its own, for callers without one, or that block theirs."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

ResultT = TypeVar("ResultT")


class LoopThread:
    """Runs coroutines in an event loop of its own, until it is closed or collected.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self.process = os.getpid()
        started: Future[asyncio.AbstractEventLoop] = Future()
        # A daemon, or the interpreter would wait for it before it runs the finalizer that ends it.
        self._thread = threading.Thread(target=_run, args=(started,), name=name, daemon=True)
        self._thread.start()
        self._loop = started.result()
        self._end = weakref.finalize(self, _stop, self._loop, self._thread, self.process)

    def __repr__(self) -> str:
        return f"<LoopThread {self._thread.name!r}>"

    @property
    def is_here(self) -> bool:
        """Whether the caller is in that very thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine there and wait for its result; an interruption of the caller cancels it.

        Raises:
            RuntimeError: called in that very thread, which would wait for itself.
        """
        if self.is_here:
            work.close()
            raise RuntimeError("a blocking call was made in the event loop that is to carry it out")
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def submit(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run a coroutine there, without waiting; to cancel the future cancels it.

        Raises:
            RuntimeError: the loop was closed.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def close(self) -> None:
        """End the loop, with the tasks, generators and sessions that belong to it, and wait for the thread."""
        self._end()


def _run(started: Future[asyncio.AbstractEventLoop]) -> None:
    # Closing the runner cancels what is left and closes the loop's asynchronous generators.
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(started.set_result, loop)
        loop.run_forever()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    # In a forked child the thread does not exist, and the loop's pipe is the parent's.
    if process != os.getpid() or loop.is_closed():
        return
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join()
