"""The stream of the client for code that is not asynchronous, and its source."""

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
"""Items that are pulled from a source at a time, for one hand-over between the threads: those of a full request."""


class SyncEmbeddingStream(Generic[ItemT, EmbeddingsT]):
    """Yields the batches of a stream; made by `SyncEmbedClient.stream`.

    An iterator and a context manager. Leaving the `with` block, the last batch and `close` end the stream, and so does
    dropping it. What it raises in place of a batch, and at the end, is what `EmbeddingStream` raises.
    """

    def __init__(
        self,
        client: object,
        thread: LoopThread,
        stream: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]],
        source: CallersSource | None,
    ) -> None:
        # As long as the stream lives, the client does.
        self._client = client
        self._thread = thread
        self._source = source
        # Pulls of the source, and each call that has ended.
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
        with self._lock:
            self._open()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # The error of the block goes first.
        with contextlib.suppress(*([] if kind is None else [Exception])):
            self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        """The next batch; the source is pulled in this thread until it is there.

        Raises:
            EmbedError: the batch, or the whole job, failed.
            ClosedError: the stream was closed.
            Exception: the source raised it.
        """
        with self._lock:
            batch = None if self._is_exhausted else self._wait(self._thread.call(_next_of(self._open())))
            if batch is None:
                self._is_exhausted = True
                self.close()
                raise StopIteration
        return batch

    def close(self) -> None:
        """End the stream: cancel what is under way, and close the source's iterator.

        Raises:
            Exception: closing the source raised it.
        """
        if self._is_over:
            return
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
            raise ClosedError("the stream was closed: iterate before that, inside its `with` block if it has one")
        if self._holding is None:
            self._holding = self._thread.submit(self._held.hold())
            # For a stream that is dropped.
            weakref.finalize(self, self._held.leave)
        elif self._holding.done():
            raise ClosedError("the client was closed")
        return self._held.opened.result()

    def _wait(self, call: Future[ResultT]) -> ResultT:
        call.add_done_callback(self._asked.put)
        try:
            while (asked := self._asked.get()) is not call:
                # Others are calls that were interrupted.
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
    """Enters a stream and leaves it in one task.

    Attributes:
        opened: the stream, once it is entered, or the error of that.
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
        """Keep the stream open until it is left."""
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
        """Let it be left; may be called from any thread."""
        # A loop that is closed has left it.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._left.set)


class _Pull(Future[list[Any]]):
    """A request for the next items of a source; no items are its end."""


class CallersSource:
    """An iterable that is pulled in the thread of the caller.

    Args:
        source: the iterable.
        max_delay: seconds after which items are handed over, although there could be more.

    Attributes:
        asked: the pulls.
    """

    def __init__(self, source: Iterable[Any], max_delay: float) -> None:
        self._source = source
        self._max_delay = max_delay
        self._iterator: Iterator[Any] | None = None
        self._error: Exception | None = None
        self.asked: SimpleQueue[Future[Any]] = SimpleQueue()

    async def items(self) -> AsyncIterator[Any]:
        """Ask for the items, and yield them."""
        while True:
            pull = _Pull()
            self.asked.put(pull)
            items = await asyncio.wrap_future(pull)
            for item in items:
                yield item
            if not items:
                return

    def pull(self, pull: _Pull) -> None:
        """Pull items; an exception of the source comes with the next pull, after them."""
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
        """Close the iterator if it is a generator or was made for this stream; a file is its own iterator."""
        iterator: Any = self._iterator if self._iterator is not None else self._source
        if hasattr(iterator, "close") and (iterator is not self._source or hasattr(iterator, "gi_frame")):
            iterator.close()
