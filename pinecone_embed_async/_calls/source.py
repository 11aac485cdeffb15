"""Reads a source item by item into requests, at most a window ahead."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pinecone_embed_async._errors import EmbedError, InputError
from pinecone_embed_async._foreign import Cancellations, StrayCancellationError
from pinecone_embed_async._inputs import check_iterable, text_of
from pinecone_embed_async._structs import SilentStruct
from pinecone_embed_async._threads import in_thread

if TYPE_CHECKING:
    from pinecone_embed_async._calls.batches import StreamBatches
    from pinecone_embed_async._calls.runtime import Runtime
    from pinecone_embed_async._clock import Timer
    from pinecone_embed_async._options import StreamOptions
    from pinecone_embed_async._planning import PackedTexts, Packer

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MISLEADING = (StopIteration, StopAsyncIteration, asyncio.CancelledError)
"""Exceptions that would look like the end of the stream or the caller's own cancellation if they were passed on."""
Source = Iterable[ItemT] | AsyncIterable[ItemT]

_END = object()


def check_source(source: object) -> None:
    """Reject a source that cannot be read as a stream of items.

    Raises:
        InputError: it is not an iterable, or it is a table, a mapping, bytes, or a single text, whose characters would be
            taken for texts.
    """
    check_iterable("the source", source)
    if isinstance(source, (str, bytes, bytearray, memoryview, Mapping)):
        raise InputError(f"the source must be an iterable of inputs, got a single {type(source).__name__}: put it in a list")
    if not isinstance(source, (Iterable, AsyncIterable)):
        raise InputError(f"the source must be an iterable or an async iterable, got {type(source).__name__}")


class SourceReader(SilentStruct):
    """Pulls items from a source, and splits them into batches in a queue, from which the stream takes them over.

    The number of batches that are read but not delivered is bounded: no item is read once there are `window` of them. A
    queued batch is either the texts of a request with their items, or one item that cannot be sent, with its position and
    its error.

    Args:
        source: an iterable or async iterable of items.
        options: how to read items: the function that gives their texts, whether to read in a thread, and how long an item
            may wait for others.
        packer: packs the texts into requests.
        batches: the batches that the stream has taken over but not delivered.
        window: number of batches from reading to delivery at which reading stops.
        runtime: has the clock, the executor of the thread, and the tasks that await asynchronous sources.

    Attributes:
        window: number of batches from reading to delivery at which reading stops.
        queue: the batches that the stream has not taken over, oldest first.
        added: set when there are new batches, and when reading has ended.
        delivered: set when batches were delivered.
        is_finished: whether the source has ended or will be read no further.
        error: exception of the source or of the `text` function; `None` if there is none.
        was_cancelled: whether the reading task was cancelled, by the stream or from outside; `error` then says so.
        closing_error: exception raised when closing the source's iterator; `None` if there is none.
    """

    _source: Source[Any]
    _options: StreamOptions
    _packer: Packer
    _batches: StreamBatches
    window: int
    _runtime: Runtime
    queue: deque[tuple[PackedTexts, list[Any]] | tuple[int, Any, EmbedError]] = msgspec.field(default_factory=deque)
    added: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    delivered: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    is_finished: bool = False
    error: Exception | None = None
    was_cancelled: bool = False
    closing_error: Exception | None = None
    # Held while items are gathered. A thread releases it while the caller's code runs; then the event loop may flush.
    _gathering: threading.Lock = msgspec.field(default_factory=threading.Lock)
    _is_async: bool = False
    _in_thread: bool = False
    _iterator: AsyncIterator[Any] | Iterator[Any] | None = None
    _items: list[Any] = msgspec.field(default_factory=list)
    _refused: InputError | None = None
    _timer: Timer | None = None
    _is_overdue: bool = False

    def __post_init__(self) -> None:
        self._is_async = isinstance(self._source, AsyncIterable)
        self._in_thread = self._options.in_thread and not self._is_async

    def __len__(self) -> int:
        """Number of batches that are read but not delivered."""
        return len(self._batches) + len(self.queue)

    async def read(self) -> None:
        """Read the source to its end. Its iterator is closed in any case, also after a cancellation."""
        if not self._is_async:
            await self._read()
            return
        try:
            with contextlib.suppress(StrayCancellationError):
                await self._runtime.sources.run(self._read())
        finally:
            self._cancel_timer()

    async def _read(self) -> None:
        cancellations = await Cancellations.counted()
        try:
            try:
                await self._pull(cancellations)
            except asyncio.CancelledError as error:
                self.error = _reportable("the source", error)
                if cancellations.is_callers:
                    self.was_cancelled = True
                    raise
            except Exception as error:  # noqa: BLE001 - the caller's exception, passed on to the caller
                self.error = _reportable("the source", error)
            if not self.is_finished:
                self._flush()
        finally:
            self.is_finished = True
            self._cancel_timer()
            self.added.set()
            await self._close()

    def ended(self) -> None:
        """Record that reading is over if the task has not done so: it was abandoned, or cancelled before it began."""
        if not self.is_finished:
            self.error, self.was_cancelled = _reportable("the source", asyncio.CancelledError()), True
            self.is_finished = True
            self.added.set()

    async def _pull(self, cancellations: Cancellations) -> None:
        source = self._source

        def begin() -> None:
            # Assigned in the thread: if the waiting task is cancelled, it gets no result but must close the iterator.
            self._iterator = aiter(source) if isinstance(source, AsyncIterable) else iter(source)

        await self._call_sync("the source", begin)
        iterator: Any = self._iterator
        ended = False
        # A source may swallow its cancellation.
        while not (ended or self.is_finished or cancellations.is_callers):
            while not self._has_room:
                self.delivered.clear()
                await self.delivered.wait()
            if self._is_overdue:
                self._flush()
            elif self._is_async:
                ended = await self._take_until_full(iterator, cancellations)
            else:
                self._start_timer()
                ended = await self._call_sync("the source", lambda: self._take(iterator))
                self._cancel_timer()
            self.added.set()
            # A source that never suspends must not block the loop.
            await asyncio.sleep(0)
        if not ended:
            # Reading ends before the source does, by a cancellation that the source has swallowed.
            raise asyncio.CancelledError

    @property
    def _has_room(self) -> bool:
        """Whether another batch may be read now."""
        return len(self) < self.window

    async def _close(self) -> None:
        """Close the iterator if it has `aclose`, is a generator, or was made for this stream; keep what it raises.

        A synchronous iterable that is its own iterator, such as a file, is left to its owner.
        """
        iterator: Any = self._iterator
        cancellations = Cancellations(asyncio.current_task())
        try:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()
            elif hasattr(iterator, "close") and (iterator is not self._source or hasattr(iterator, "gi_frame")):
                await self._call_sync("closing the source", iterator.close)
        except asyncio.CancelledError as error:
            if cancellations.is_callers:
                raise
            self.closing_error = _reportable("closing the source", error)
        except Exception as error:  # noqa: BLE001 - the caller's exception, passed on to the caller
            self.closing_error = _reportable("closing the source", error)

    async def _call_sync(self, action: str, work: Callable[[], ResultT]) -> ResultT:
        """Call synchronous code of the source, in a thread if the source is read in one."""

        def call() -> ResultT:
            try:
                return work()
            except StopIteration as error:
                # A future cannot hold a StopIteration.
                raise _reportable(action, error) from error

        return await in_thread(call, self._runtime.options.executor) if self._in_thread else call()

    async def _take_until_full(self, iterator: AsyncIterator[Any], cancellations: Cancellations) -> bool:
        """Take items of an asynchronous source until a request is full; return whether the source has ended."""
        async for item in iterator:
            if self.is_finished or cancellations.is_callers:
                return False
            if not self._take(iter((item,))):
                self._cancel_timer()
                if self._items:
                    # The request had no room for them.
                    self._start_timer()
                return False
            if self._timer is None:
                self._start_timer()
                if not self._has_room:
                    # The previous timer flushed a batch, which filled the window.
                    return False
        return True

    def _start_timer(self) -> None:
        clock = self._runtime.options.clock
        self._timer = clock.call_at(clock.time() + self._options.max_delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._has_room:
            self._is_overdue = True
        elif self._gathering.acquire(blocking=False):
            self._flush()
            self._gathering.release()
        if self._in_thread:
            # Start it again, because items that the thread reads from now on must not wait longer either.
            self._start_timer()

    def _take(self, items: Iterator[Any]) -> bool:
        """Take items until a request is full or an item is not a text; return whether `items` ended. May run in a thread."""
        with self._gathering:
            full = self._packer.fill(self._texts_of(items))
            if full is not None:
                self._add(full)
                return False
            refused, self._refused = self._refused, None
            if refused is None:
                return True
            position = self._packer.position
            item = self._items.pop()
            self._add(self._packer.skip())
            self.queue.append((position, item, refused))
            return False

    def _texts_of(self, items: Iterator[Any]) -> Iterator[str]:
        """Yield the texts of items, up to the first item without one; foreign code runs without the lock of `_take`."""
        # Only in a thread: elsewhere nothing else runs meanwhile, and an interruption could come between two steps.
        lock, text_in = self._gathering if self._in_thread else None, self._options.text
        while True:
            if lock is not None:
                lock.release()
            try:
                item = next(items, _END)
                if item is _END:
                    return
                try:
                    value = item if text_in is None else text_in(item)
                except MISLEADING as error:
                    raise _reportable("the function `text`", error) from error
            finally:
                if lock is not None:
                    lock.acquire()
            self._items.append(item)
            if type(value) is not str or not value.isascii():
                try:
                    value = text_of(value, self._packer.position)
                except InputError as error:
                    self._refused = error.with_traceback(None)
                    return
            yield value

    def _add(self, packed: PackedTexts | None) -> None:
        if packed is not None:
            count = len(packed.texts)
            self.queue.append((packed, self._items[:count]))
            del self._items[:count]

    def _flush(self) -> None:
        """Hand over the items read so far, even if they do not fill a request."""
        self._is_overdue = False
        self._add(self._packer.flush())
        self.added.set()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _reportable(action: str, error: BaseException) -> Exception:
    """The exception itself, or an `EmbedError` in place of a misleading one."""
    if isinstance(error, Exception) and not isinstance(error, MISLEADING):
        return error
    own = EmbedError(
        f"{action} raised {type(error).__name__}, which marks neither the source's end nor the caller's cancellation"
    )
    own.__cause__ = error
    return own
