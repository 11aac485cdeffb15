"""Runs blocking work in a thread, and an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pinecone_embed_async._foreign import until_done

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Executor

ResultT = TypeVar("ResultT")


async def in_thread(work: Callable[[], ResultT], executor: Executor | None = None) -> ResultT:
    """Run `work` in a thread. A cancelled caller still waits for it, because a thread cannot be cancelled.

    Args:
        work: the blocking function.
        executor: runs the work; `None` for the event loop's default executor.
    """
    context = contextvars.copy_context()
    return await result_of(asyncio.get_running_loop().run_in_executor(executor, context.run, work))


async def result_of(future: asyncio.Future[ResultT]) -> ResultT:
    """The result of a thread's work. A cancelled caller still waits for it, because a thread cannot be cancelled."""
    try:
        await until_done(future)
    except asyncio.CancelledError:
        if not future.cancelled():
            # Reading the exception keeps asyncio from warning that it was never retrieved.
            future.exception()
        raise
    return future.result()


class LoopThread:
    """Runs coroutines in an event loop in its own thread, until it is closed or garbage-collected.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self.process = os.getpid()
        started: Future[asyncio.AbstractEventLoop] = Future()
        # A daemon, because the interpreter waits for non-daemon threads before it runs the finalizer that ends this one.
        self._thread = threading.Thread(target=_run, args=(started,), name=name, daemon=True)
        self._thread.start()
        self._loop = started.result()
        self._calls: set[Future[Any]] = set()
        self._end = weakref.finalize(self, _stop, self._loop, self._thread, self.process)

    def __repr__(self) -> str:
        return f"<LoopThread {self._thread.name!r}>"

    @property
    def is_here(self) -> bool:
        """Whether the caller is in the loop's thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    def check_elsewhere(self) -> None:
        """Check that the caller may wait for the loop.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
        """
        if self.is_here:
            raise RuntimeError("a blocking call must not be made in the event loop that runs it: it would wait for itself")

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine in the loop and wait for its result; interrupting the caller cancels the coroutine.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
        """
        future = self.call(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run a coroutine in the loop; the caller must wait for its result.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
        """
        try:
            self.check_elsewhere()
        except RuntimeError:
            work.close()
            raise
        future = self.submit(work)
        self._calls.add(future)
        future.add_done_callback(self._calls.discard)
        return future

    def end_calls(self, last: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that ends the calls, and wait until they have ended.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
        """
        calls = self._calls.copy()
        self.run(last)
        wait(calls)

    def submit(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run a coroutine in the loop without waiting for it; cancelling the future cancels the coroutine.

        Raises:
            RuntimeError: the loop was closed.
        """
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            raise

    def close(self) -> None:
        """End the loop, its tasks and its asynchronous generators, some of which close sessions; wait for the thread."""
        self._end()


class Closable(Protocol):
    """A client whose calls and connections belong to the event loops that use it."""

    async def aclose(self) -> None:
        """End the calls of the running loop, and close its connections."""


class OwnLoopThread:
    """The loop thread of one object: started on first use, also after a fork or a close.

    When the object is collected, the client is closed in the loop's thread, because only that thread may close its
    connections; then the thread ends. The client is kept alive until then, because in a reference cycle it could be
    collected before the object.

    Args:
        name: the thread's name.
        owner: the object.
        client: the object's client, which must not refer to the object.
    """

    def __init__(self, name: str, owner: object, client: Closable) -> None:
        self._name = name
        self._client = client
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        weakref.finalize(owner, self._drop)

    def __repr__(self) -> str:
        return f"<OwnLoopThread {self._name!r}>"

    def get(self) -> LoopThread:
        """The thread."""
        with self._lock:
            # A thread does not survive a fork.
            if self._thread is None or self._thread.process != os.getpid():
                self._thread = LoopThread(self._name)
            return self._thread

    def close(self) -> None:
        """Close the client in the loop, wait until its calls have ended, and end the thread.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
        """
        thread = self.get()
        thread.end_calls(self._client.aclose())
        with self._lock:
            self._thread = None
        thread.close()

    async def aclose(self) -> None:
        """Close the client in the running loop, and then do what `close` does, in another thread."""
        await self._client.aclose()
        await asyncio.to_thread(self.close)

    def _drop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None or thread.process != os.getpid():
            return
        # At interpreter exit the thread may already have ended and closed its loop.
        with contextlib.suppress(RuntimeError):
            if thread.is_here:
                thread.submit(self._client.aclose()).add_done_callback(lambda _: thread.close())
            else:
                thread.end_calls(self._client.aclose())
                thread.close()


def _run(started: Future[asyncio.AbstractEventLoop]) -> None:
    # Closing the runner cancels the remaining tasks and closes the loop's asynchronous generators.
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        asyncio.set_event_loop(loop)
        loop.call_soon(started.set_result, loop)
        loop.run_forever()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    # In a forked child the thread does not exist, and the loop's wake-up pipe belongs to the parent.
    if process != os.getpid() or loop.is_closed():
        return
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join()
