"""Runs blocking work in a thread, and an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import threading
import weakref
from concurrent.futures import CancelledError, Future, wait
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pinecone_embed_async._errors import ClosedError, ConfigurationError
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

    Raises:
        ConfigurationError: the executor cancelled the work.
    """
    context = contextvars.copy_context()
    return await result_of(asyncio.get_running_loop().run_in_executor(executor, context.run, work))


async def result_of(future: asyncio.Future[ResultT]) -> ResultT:
    """The result of a thread's work. A cancelled caller still waits for it, because a thread cannot be cancelled.

    Raises:
        ConfigurationError: the executor cancelled the work.
    """
    await until_done(future)
    if future.cancelled():
        # A CancelledError would seem to be the caller's.
        raise ConfigurationError("the executor must run what it is given, but cancelled it: keep it open while it is used")
    return future.result()


class LoopThread:
    """Runs coroutines in an event loop in its own thread, until it is closed or garbage-collected.

    Args:
        name: the thread's name.
    """

    def __init__(self, name: str) -> None:
        self.process = os.getpid()
        self._loop = asyncio.new_event_loop()
        # A daemon, because the interpreter waits for non-daemon threads before it runs the finalizer that ends this one.
        self._thread = threading.Thread(target=_run, args=(self._loop,), name=name, daemon=True)
        self._thread.start()
        # Keeps work from being handed over once the end has begun. Re-entrant, because the garbage collector may run while
        # it is held, and finalize an object that takes it too.
        self._lock = threading.RLock()
        self._is_closing = False
        self._calls: set[Future[Any]] = set()
        self._end = weakref.finalize(self, _stop, self._loop, self._thread, self.process)

    def __repr__(self) -> str:
        return f"<LoopThread {self._thread.name!r}>"

    @property
    def is_here(self) -> bool:
        """Whether the caller is in the loop's thread, which must not wait for itself."""
        return threading.current_thread() is self._thread

    @property
    def is_inherited(self) -> bool:
        """Whether it was started before a fork, which it did not survive."""
        return self.process != os.getpid()

    def check_usable(self) -> None:
        """Check that the caller may wait for the loop.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
            ClosedError: called in a forked process.
        """
        if self.is_here:
            raise RuntimeError("a blocking call must not be made in the event loop that runs it: it would wait for itself")
        if self.is_inherited:
            raise self._ended()

    def run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine in the loop and wait for its result; interrupting the caller cancels the coroutine.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
            ClosedError: it was closed, or was started before a fork.
        """
        call = self.call(work)
        try:
            return outcome_of(call)
        except BaseException:
            call.cancel()
            raise

    def call(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run a coroutine in the loop; the caller must wait for its outcome, by `outcome_of`.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
            ClosedError: it was closed, or was started before a fork.
        """
        try:
            self.check_usable()
        except BaseException:
            work.close()
            raise
        with self._lock:
            call = self.submit(work)
            self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    def submit(self, work: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Run a coroutine in the loop without waiting for it; cancelling the future cancels the coroutine.

        Raises:
            ClosedError: it was closed, or was started before a fork.
        """
        # Another thread may have held the lock at the fork. At the interpreter's exit the loop is closed without `close`.
        if not self.is_inherited:
            with self._lock, contextlib.suppress(RuntimeError):
                if not self._is_closing:
                    return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        raise self._ended()

    def set_event(self, event: asyncio.Event) -> None:
        """Set an event in the loop, if it still runs."""
        if not self.is_inherited:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(event.set)

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """End the loop, its tasks and its asynchronous generators, some of which close sessions; wait for the thread.

        Args:
            last: runs last and ends the calls, which are waited for; without it they are cancelled.

        Raises:
            RuntimeError: called with `last` from the loop's own thread, which would wait for itself.
            ClosedError: called with `last`, but it was closed, or was started before a fork.
        """
        with self._lock:
            ending = None if last is None else self.call(last)
            self._is_closing = True
            calls = self._calls.copy()
        try:
            if ending is not None:
                wait(calls)
                outcome_of(ending)
        finally:
            self._end()

    def _ended(self) -> ClosedError:
        return ClosedError(
            f"the thread {self._thread.name} must run in this process, but it was closed, or the process was forked:"
            " begin a new call or stream of an open client"
        )


def outcome_of(call: Future[ResultT]) -> ResultT:
    """Wait for the result of a call in a `LoopThread`.

    Raises:
        ClosedError: the loop ended before the call.
    """
    try:
        return call.result()
    except CancelledError:
        raise ClosedError("a call must end before the client is closed, but this one was still running") from None


class Closable(Protocol):
    """A client whose calls and connections belong to the event loops that use it."""

    async def aclose(self) -> None:
        """End the calls of the running loop, and close its connections."""


class OwnLoopThread:
    """The loop thread of one object: started on first use, also after a fork, until it is closed.

    When the object is collected, the client is closed in the loop's thread, because only that thread may close its
    connections; then the thread ends. The client is kept alive until then, because in a reference cycle it could be
    collected before the object.

    Args:
        name: the thread's name.
        owner: the object.
        client: the object's client, which must not refer to the object.
        cure: what to do once it is closed, for the error message.
    """

    def __init__(self, name: str, owner: object, client: Closable, cure: str = "create another") -> None:
        self._name = name
        self._client = client
        self._cure = cure
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread: LoopThread | None = None
        weakref.finalize(owner, self._drop)

    def __repr__(self) -> str:
        return f"<OwnLoopThread {self._name!r}>"

    def open(self) -> None:
        """Allow calls, also after a close."""
        self._is_closed = False

    def check_open(self) -> None:
        """Check that it is not closed.

        Raises:
            ClosedError: it is closed.
        """
        if self._is_closed:
            raise ClosedError(f"the client is closed; {self._cure}")

    def get(self) -> LoopThread:
        """The thread.

        Raises:
            ClosedError: it is closed.
        """
        with self._lock:
            self.check_open()
            return self._started()

    def close(self) -> None:
        """Refuse further calls, close the client in the loop, wait until its calls have ended, and end the thread.

        Raises:
            RuntimeError: called from the loop's own thread, which would wait for itself.
        """
        with self._lock:
            if self._is_closed:
                return
            thread = self._started()
            thread.check_usable()
            self._thread, self._is_closed = None, True
        thread.close(self._client.aclose())

    async def aclose(self) -> None:
        """Close the client in the running loop, and then do what `close` does, in another thread."""
        await self._client.aclose()
        await asyncio.to_thread(self.close)

    def _started(self) -> LoopThread:
        if self._thread is None or self._thread.is_inherited:
            self._thread = LoopThread(self._name)
        return self._thread

    def _drop(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None or thread.is_inherited:
            return
        # At interpreter exit the thread may already have ended and closed its loop.
        with contextlib.suppress(ClosedError):
            if thread.is_here:
                thread.submit(self._client.aclose()).add_done_callback(lambda _: thread.close())
            else:
                thread.close(self._client.aclose())


def _run(loop: asyncio.AbstractEventLoop) -> None:
    # Closing the runner cancels the remaining tasks and closes the loop's asynchronous generators.
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        asyncio.set_event_loop(runner.get_loop())
        loop.run_forever()


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread, process: int) -> None:
    # In a forked child the thread does not exist, and the loop's wake-up pipe belongs to the parent.
    if process != os.getpid() or loop.is_closed():
        return
    loop.call_soon_threadsafe(loop.stop)
    if threading.current_thread() is not thread:
        thread.join()
