"""The stream of the synchronous client, and its source."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pinecone_embed_async._errors import ClosedError, EmbedError
from pinecone_embed_async._results import Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator
    from contextlib import AbstractAsyncContextManager
    from typing import Self

    from pinecone_embed_async._calls import EmbeddedBatch, EmbeddingStream
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings
    from pinecone_embed_async._threads import LoopThread

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

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
        thread: LoopThread,
        stream: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]],
        source: CallersSource | None,
    ) -> None:
        # Keeps the client alive as long as the stream.
        self._client = client
        self._thread = thread
        self._source = source
        # Pulls of the source, and calls that have ended.
        self._asked: SimpleQueue[Future[Any]] = SimpleQueue() if source is None else source.asked
        self._lock = threading.Lock()
        self._held = _HeldStream(stream)
        self._holding: Future[None] | None = None
        self._is_over = self._is_exhausted = False

    def __repr__(self) -> str:
        state = "closed" if self._is_over else "not begun" if self._holding is None else "open"
        return f"<SyncEmbeddingStream {state}>"

    @property
    def usage(self) -> Usage:
        """Usage billed so far."""
        return self._held.usage

    def __enter__(self) -> Self:
        self._thread.check_elsewhere()
        with self._lock:
            self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error of the block takes precedence over one of closing.
        with contextlib.suppress(*([] if kind is None else [Exception])):
            self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        """The next batch; reads the source in this thread while waiting for it.

        Raises:
            EmbedError: the batch, or the whole job, failed.
            ClosedError: the stream was closed.
            Exception: any exception of the source.
            RuntimeError: called by a function that the stream itself calls, which would wait for itself.
        """
        # Before the lock, which is held by the thread that waits for this one.
        self._thread.check_elsewhere()
        with self._lock:
            batch = None if self._is_exhausted else self._wait(self._thread.call(_next_of(self._open())))
            if batch is None:
                self._is_exhausted = True
                self.close()
                raise StopIteration
        return batch

    def close(self) -> None:
        """End the stream: cancel its requests, and close the source's iterator.

        Raises:
            Exception: any exception of closing the source.
            RuntimeError: called by a function that the stream itself calls, which would wait for itself.
        """
        if self._is_over:
            return
        self._thread.check_elsewhere()
        self._is_over = True
        try:
            if self._holding is not None:
                self._held.leave()
                wait([self._holding])
                if not self._holding.cancelled():
                    self._holding.result()
        finally:
            if self._source is not None:
                self._source.close()

    def _open(self) -> EmbeddingStream[ItemT, EmbeddingsT]:
        if self._is_over:
            raise ClosedError("the stream is closed: iterate over it before closing it, or inside its `with` block")
        if self._holding is None:
            self._holding = self._thread.submit(self._held.hold())
            # Ends a stream that is dropped without closing.
            weakref.finalize(self, self._held.leave)
        elif self._holding.done():
            raise ClosedError("the client was closed")
        return self._held.opened.result()

    def _wait(self, call: Future[ResultT]) -> ResultT:
        call.add_done_callback(self._asked.put)
        try:
            while (asked := self._asked.get()) is not call:
                # Other futures are calls that were interrupted earlier.
                if self._source is not None and isinstance(asked, _Pull):
                    self._source.pull(asked)
            return call.result()
        except BaseException:
            call.cancel()
            raise


async def _next_of(
    stream: EmbeddingStream[ItemT, EmbeddingsT],
) -> EmbeddedBatch[ItemT, EmbeddingsT] | None:
    return await anext(stream, None)


class _HeldStream(Generic[ItemT, EmbeddingsT]):
    """Enters and leaves a stream in one task.

    Attributes:
        opened: future with the entered stream, or the error of entering it.
    """

    def __init__(self, stream: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]]) -> None:
        self._stream = stream
        self._left = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.opened: Future[EmbeddingStream[ItemT, EmbeddingsT]] = Future()

    @property
    def usage(self) -> Usage:
        is_open = self.opened.done() and self.opened.exception() is None
        return self.opened.result().usage if is_open else Usage()

    async def hold(self) -> None:
        """Keep the stream open until `leave` is called."""
        self._loop = asyncio.get_running_loop()
        try:
            async with self._stream as stream:
                self.opened.set_result(stream)
                await self._left.wait()
        except BaseException as error:
            if self.opened.done():
                raise
            self.opened.set_exception(error)

    def leave(self) -> None:
        """Make the task leave the stream; may be called from any thread."""
        # If the loop is closed, the stream was already left.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._left.set)


class _Pull(Future[list[Any]]):
    """A request for the next items of a source; an empty list means its end."""


class CallersSource:
    """An iterable that is read in the caller's thread.

    Args:
        source: the iterable.
        max_delay: seconds after which items are handed over even if there could be more.

    Attributes:
        asked: queue of the pulls.
    """

    def __init__(self, source: Iterable[Any], max_delay: float) -> None:
        self._source = source
        self._max_delay = max_delay
        self._iterator: Iterator[Any] | None = None
        self._error: Exception | None = None
        self.asked: SimpleQueue[Future[Any]] = SimpleQueue()

    async def items(self) -> AsyncIterator[Any]:
        """Request the items from the caller's thread, and yield them."""
        while True:
            pull = _Pull()
            self.asked.put(pull)
            items = await asyncio.wrap_future(pull)
            for item in items:
                yield item
            if not items:
                return

    def pull(self, pull: _Pull) -> None:
        """Read the items of a pull. An exception of the source is raised by the next pull, after these items."""
        if not pull.set_running_or_notify_cancel():
            # The stream was left.
            return
        items: list[Any] = []
        try:
            if self._error is None:
                self._take_into(items)
        except Exception as error:  # noqa: BLE001 - the stream raises it, after what was embedded
            self._error = error
        except BaseException as error:
            self._error = EmbedError(f"the source was interrupted by {type(error).__name__}")
            raise
        finally:
            if items or self._error is None:
                pull.set_result(items)
            else:
                pull.set_exception(self._error)

    def _take_into(self, items: list[Any]) -> None:
        if self._iterator is None:
            self._iterator = iter(self._source)
        due = time.monotonic() + self._max_delay
        for item in self._iterator:
            items.append(item)
            if len(items) >= ITEMS_PER_PULL or time.monotonic() >= due:
                break

    def close(self) -> None:
        """Close the iterator if it is a generator or was made for this stream; the owner of a file closes it."""
        iterator: Any = self._iterator if self._iterator is not None else self._source
        if hasattr(iterator, "close") and (iterator is not self._source or hasattr(iterator, "gi_frame")):
            iterator.close()
