"""The stream of the synchronous client, and its source."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pinecone_embed_async._errors import ClosedError, EmbedError
from pinecone_embed_async._results import Usage
from pinecone_embed_async._threads import outcome_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from pinecone_embed_async._calls import EmbeddedBatch, EmbeddingStream
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings
    from pinecone_embed_async._threads import LoopThread, OwnLoopThread

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")

_OVER = "the stream is closed: iterate over it before closing it, or inside its `with` block"

ITEMS_PER_PULL = 96
"""Maximum number of items read from a source per hand-over between the threads: those of a full request."""


class SyncEmbeddingStream(Generic[ItemT, EmbeddingsT]):
    """Yields the batches of a stream; made by `SyncEmbedClient.stream`.

    It is an iterator and a context manager. The stream ends after the last batch, when you leave the `with` block, call
    `close` or drop the stream. It raises the same errors as `EmbeddingStream`, in place of a batch and at the end.
    """

    def __init__(
        self,
        client: object,
        own_thread: OwnLoopThread,
        context: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]],
        source: CallersSource,
    ) -> None:
        # Keeps the client alive as long as the stream.
        self._client = client
        # Its thread is taken when the stream is begun, because a fork may come before.
        self._own_thread = own_thread
        self._context = context
        self._source = source
        self._turn_lock = threading.Lock()
        self._turn_of: int | None = None
        self._begin_lock = threading.Lock()
        self._held: _HeldStream[ItemT, EmbeddingsT] | None = None
        self._is_over = self._is_exhausted = False

    def __repr__(self) -> str:
        state = "closed" if self._is_over else "not begun" if self._held is None else "open"
        return f"<SyncEmbeddingStream {state}>"

    @property
    def usage(self) -> Usage:
        """Usage billed so far."""
        return Usage() if self._held is None else self._held.usage

    def __enter__(self) -> Self:
        with self._turn() as thread:
            self._open(thread)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error of the block takes precedence over one of closing.
        with contextlib.suppress(*([] if kind is None else [Exception])):
            self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        """The next batch; reads the source in this thread while waiting for it.

        After Ctrl-C, or any other exception of a signal handler, the stream goes on where it was interrupted.

        Raises:
            EmbedError: the batch, or the whole job, failed.
            ClosedError: the stream or its client was closed, or the stream was begun before a fork.
            Exception: any exception of the source.
            RuntimeError: called by the source, or by a function that the stream calls, which would wait for itself.
        """
        with self._turn() as thread:
            batch = None if self._is_exhausted else self._take(thread)
            if batch is None:
                self._is_exhausted = True
                self.close()
        if batch is None:
            raise StopIteration
        return batch

    def close(self) -> None:
        """End the stream: cancel its requests, and close the source's iterator.

        If another thread is reading the source, that thread closes the iterator afterwards. In a forked process, a stream
        that was begun before the fork is left alone.

        Raises:
            Exception: any exception of closing the source.
            RuntimeError: called by a function that the stream calls in the client's thread, which would wait for itself.
        """
        with self._begin_lock:
            held = self._held
            if self._is_over or (held is not None and held.thread.is_inherited):
                return
            if held is not None:
                held.thread.check_usable()
            self._is_over = True
        try:
            if held is not None:
                held.leave()
                held.wait()
        finally:
            self._source.close()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[LoopThread]:
        """Keep other threads out while the block runs; its value is the thread of the stream.

        Raises:
            ClosedError: the client is closed, or the stream was begun before a fork.
            RuntimeError: the stream itself called this, and would wait for itself.
        """
        thread = self._own_thread.get() if self._held is None else self._held.thread
        # Before the lock, which is held by the thread that waits for this one.
        thread.check_usable()
        if self._turn_of == threading.get_ident():
            raise RuntimeError(
                "the source of a stream must not iterate over that stream or enter it: it would wait for itself"
            )
        with self._turn_lock:
            try:
                self._turn_of = threading.get_ident()
                yield thread
            finally:
                self._turn_of = None

    def _open(self, thread: LoopThread) -> _HeldStream[ItemT, EmbeddingsT]:
        with self._begin_lock:
            if self._is_over:
                raise ClosedError(_OVER)
            if self._held is None:
                self._held = _HeldStream(self._context, thread)
                # Ends a stream that is dropped without closing.
                weakref.finalize(self, self._held.leave)
        outcome_of(self._held.opened)
        return self._held

    def _take(self, thread: LoopThread) -> EmbeddedBatch[ItemT, EmbeddingsT] | None:
        """The next batch; `None` at the end. Reads the source until it comes."""
        held, woken = self._open(thread), self._source.woken
        call = thread.call(held.next())
        call.add_done_callback(lambda _: woken.set())
        while True:
            self._source.serve()
            if call.done():
                break
            woken.wait()
        try:
            return outcome_of(call)
        except ClosedError:
            if self._is_over:
                raise ClosedError(_OVER) from None
            raise
        finally:
            # Not before: an interrupted caller asks for the same batch again.
            held.taken()


class _Wake:
    """An event that ends a wait. Unlike that of `threading`, it cannot be broken by an interruption such as Ctrl-C."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """End the present wait, or else the next one."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def wait(self) -> None:
        """Wait until it is set, and reset it."""
        self._lock.acquire()


class _HeldStream(Generic[ItemT, EmbeddingsT]):
    """Enters and leaves a stream in one task.

    Args:
        context: the stream.
        thread: runs the task.

    Attributes:
        thread: as above.
        opened: future with the entered stream, or the error of entering it.
    """

    def __init__(
        self, context: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]], thread: LoopThread
    ) -> None:
        self.thread = thread
        self.opened: Future[EmbeddingStream[ItemT, EmbeddingsT]] = Future()
        self._left = asyncio.Event()
        self._next: asyncio.Future[EmbeddedBatch[ItemT, EmbeddingsT] | None] | None = None
        self._task = thread.submit(self._hold(context))
        # The thread may end before the stream is entered.
        self._task.add_done_callback(lambda _: self.opened.cancel())

    @property
    def usage(self) -> Usage:
        is_open = self.opened.done() and not self.opened.cancelled() and self.opened.exception() is None
        return self.opened.result().usage if is_open else Usage()

    async def _hold(self, context: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]]) -> None:
        """Keep the stream open until `leave` is called."""
        try:
            async with context as stream:
                self.opened.set_result(stream)
                await self._left.wait()
        except Exception as error:
            if self.opened.done():
                raise
            self.opened.set_exception(error)

    async def next(self) -> EmbeddedBatch[ItemT, EmbeddingsT] | None:
        """The next batch, the same one until `taken` is called; `None` at the end."""
        if self._next is None:
            self._next = asyncio.ensure_future(anext(self.opened.result(), None))
        return await asyncio.shield(self._next)

    def taken(self) -> None:
        """Let `next` go on to the batch after this one; called while no `next` runs."""
        self._next = None

    def leave(self) -> None:
        """Make the task leave the stream; may be called from any thread."""
        self.thread.set_event(self._left)

    def wait(self) -> None:
        """Wait until the task has ended.

        Raises:
            Exception: any exception of leaving the stream.
        """
        with contextlib.suppress(CancelledError):
            self._task.result()


class CallersSource:
    """An iterable that is read in the caller's thread.

    Args:
        source: the iterable; an empty one if the source is read elsewhere.
        max_delay: seconds after which items are handed over even if there could be more.

    Attributes:
        woken: set when items are asked for, or the batch has come that the caller waits for.
    """

    def __init__(self, source: Iterable[Any], max_delay: float) -> None:
        self._source = source
        self._max_delay = max_delay
        self._iterator: Iterator[Any] | None = None
        self._error: Exception | None = None
        self._reading = threading.Lock()
        self._is_closed = False
        # The items that were asked for last; an empty list means the end.
        self._pull: Future[list[Any]] | None = None
        self.woken = _Wake()

    async def items(self) -> AsyncIterator[Any]:
        """Request the items from the caller's thread, and yield them."""
        while True:
            self._pull = Future()
            self.woken.set()
            items = await asyncio.wrap_future(self._pull)
            for item in items:
                yield item
            if not items:
                return

    def serve(self) -> None:
        """Read items if they are asked for. An exception of the source is passed on after the items read before it.

        Raises:
            Exception: any exception of closing the source, if `close` was called meanwhile.
        """
        pull = self._pull
        if pull is None or pull.done():
            return
        try:
            with self._reading:
                self._read(pull)
        finally:
            if self._is_closed:
                self.close()

    def _read(self, pull: Future[list[Any]]) -> None:
        items: list[Any] = []
        try:
            if self._iterator is None:
                self._iterator = iter(self._source)
            due = time.monotonic() + self._max_delay
            # Not read again after an exception, which is passed on now.
            for item in self._iterator if self._error is None else ():
                items.append(item)
                if self._is_closed or len(items) >= ITEMS_PER_PULL or time.monotonic() >= due:
                    break
        except Exception as error:  # noqa: BLE001 - the stream raises it, after what was embedded
            self._error = error
        except BaseException as error:
            self._error = EmbedError(f"the source was interrupted by {type(error).__name__}")
            raise
        finally:
            # The stream may have been left meanwhile.
            with contextlib.suppress(InvalidStateError):
                if items or self._error is None:
                    pull.set_result(items)
                else:
                    pull.set_exception(self._error)

    def close(self) -> None:
        """Close the iterator if it is a generator or was made for this stream; the owner of a file closes it.

        If it is being read, the reading thread closes it afterwards.
        """
        self._is_closed = True
        if self._reading.acquire(blocking=False):
            try:
                iterator: Any = self._iterator if self._iterator is not None else self._source
                if hasattr(iterator, "close") and (iterator is not self._source or hasattr(iterator, "gi_frame")):
                    iterator.close()
            finally:
                # It is closed only once, and not read again.
                self._source, self._iterator = (), None
                self._reading.release()
