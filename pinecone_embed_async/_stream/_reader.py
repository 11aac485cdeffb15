"""Reads a source, item by item, into requests; only as far ahead as it is told."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pinecone_embed_async._errors import EmbedError, InputError
from pinecone_embed_async._foreign import Cancellations, StrayCancellationError
from pinecone_embed_async._inputs import check_iterable, text_of
from pinecone_embed_async._threads import in_thread

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._foreign import Neighbour
    from pinecone_embed_async._plan import PlannedRequest, Splitter
    from pinecone_embed_async._stream._batches import Batches

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

MISLEADING = (StopIteration, StopAsyncIteration, asyncio.CancelledError)
"""What would read as the end of the stream, or as a cancellation of its caller's, if it came out as it is."""
Source = Iterable[ItemT] | AsyncIterable[ItemT]


def check_source(source: object) -> None:
    """Refuse what cannot be a source.

    Raises:
        InputError: it is no iterable, a table, or a single text, of which the characters would be taken for texts.
    """
    check_iterable("the source", source)
    if isinstance(source, (str, bytes, bytearray, memoryview, Mapping)):
        raise InputError(
            f"the source is a single {type(source).__name__}; a stream takes an iterable of inputs, so put it in a list"
        )
    if not isinstance(source, (Iterable, AsyncIterable)):
        raise InputError(f"the source is of type {type(source).__name__}; it must be an iterable or an async iterable")


class Reader:
    """Pulls items out of a source and cuts them into batches.

    Args:
        source: an iterable or async iterable of items.
        text: gives the input of an item; `None` if the items are inputs.
        splitter: gathers the texts.
        batches: takes the batches.
        clock: the time.
        in_thread: whether a source that is not asynchronous is pulled in a thread, for it may block.
        executor: has the thread; the event loop's own if it is `None`.
        max_delay: seconds that an item of an asynchronous source waits at most for others to share a request, unless
            there is no room for another.
        handed_over: called in the event loop when there are new batches, with how many of their items have failed.
        neighbour: awaits an asynchronous source; `None` for one that reads in the event loop or a thread, which nobody
            can leave behind.

    Attributes:
        task: that reads an asynchronous source; `None` for another, or none yet.
        is_finished: whether the source has ended, or will not be read any further.
        error: what the source raised, or the function that gives the text; `None` if nothing.
        was_cancelled: whether the task that reads was cancelled, by the stream or by somebody else, which is the error then.
        closing_error: what closing the source's iterator raised; `None` if nothing.
    """

    def __init__(
        self,
        source: Source[Any],
        text: Callable[[Any], Any] | None,
        splitter: Splitter,
        batches: Batches,
        *,
        clock: Clock,
        in_thread: bool,
        executor: Executor | None,
        max_delay: float,
        handed_over: Callable[[int], None],
        neighbour: Neighbour | None = None,
    ) -> None:
        self._source = source
        self._text = text
        self._splitter = splitter
        self._batches = batches
        self._clock = clock
        self._is_async = isinstance(source, AsyncIterable)
        self._in_thread = in_thread and not self._is_async
        self._executor = executor
        self._max_delay = max_delay
        self._handed_over = handed_over
        self._neighbour = neighbour
        self.task: asyncio.Task[None] | None = None
        self._iterator: AsyncIterator[Any] | Iterator[Any] | None = None
        self._position = 0
        self._items: list[Any] = []
        self._cut: list[tuple[PlannedRequest | EmbedError, int, list[Any]]] = []
        self._timer: Timer | None = None
        self._has_room: Callable[[], bool] = lambda: True
        self._was_flushed = False
        self._is_overdue = False
        self.is_finished = False
        self.error: Exception | None = None
        self.was_cancelled = False
        self.closing_error: Exception | None = None

    async def read(self, room: Callable[[], Awaitable[bool]], has_room: Callable[[], bool]) -> None:
        """Read the source to its end, and close its iterator then, or when cancelled.

        Args:
            room: awaited before each request, until there is room for one; says whether to go on at all.
            has_room: whether there is now.
        """
        self._has_room = has_room
        if self._neighbour is None:
            await self._read(room)
            return
        self.task = asyncio.create_task(self._read(room), name="the source")
        try:
            with contextlib.suppress(StrayCancellationError):
                await self._neighbour.ask(self.task)
        finally:
            # One that is left behind is read for nobody, and one that was cancelled before it began has told of nothing.
            self.ended()
            self._call_off()

    async def _read(self, room: Callable[[], Awaitable[bool]]) -> None:
        cancellations = await Cancellations.counted()
        try:
            try:
                await self._pull(room)
            except asyncio.CancelledError as error:
                self.error = _told("the source", error)
                if cancellations.is_callers:
                    self.was_cancelled = True
                    raise
            except Exception as error:  # noqa: BLE001 - it is the caller's, and given to the caller
                self.error = _told("the source", error)
            if not self.is_finished:
                self._flush()
        finally:
            self.is_finished = True
            self._call_off()
            self._handed_over(0)
            await self._close()

    def ended(self) -> None:
        """Note that what runs `read` has ended, perhaps before it had begun."""
        if not self.is_finished:
            self.error, self.was_cancelled = _told("the source", asyncio.CancelledError()), True
            self.is_finished = True
            self._handed_over(0)

    async def _pull(self, room: Callable[[], Awaitable[bool]]) -> None:
        await self._begin()
        iterator, ended = self._iterator, False
        while not ended and await room():
            if self._is_overdue:
                self._flush()
            elif self._is_async:
                ended = await self._gather_async(iterator)
            else:
                ended = await self._call("the source", lambda: self._gather(iterator))
            self._hand_over()
            # A source that never suspends must not keep the loop.
            await asyncio.sleep(0)

    async def _begin(self) -> None:
        source = self._source
        if isinstance(source, AsyncIterable):
            self._iterator = aiter(source)
            return

        def begin() -> None:
            # Kept here, for whoever waits for it may be cancelled, and it is to be closed then.
            self._iterator = iter(source)

        await self._call("the source", begin)

    async def _close(self) -> None:
        """Close the iterator if it is a generator, or made for this stream, and keep what that raises.

        A file is its own iterator; closing it is left to whoever opened it.
        """
        iterator: Any = self._iterator
        cancellations = Cancellations(asyncio.current_task())
        try:
            if hasattr(iterator, "aclose"):
                await iterator.aclose()
            elif hasattr(iterator, "close") and (iterator is not self._source or hasattr(iterator, "gi_frame")):
                # A generator that is still running in a thread cannot be closed.
                with contextlib.suppress(ValueError):
                    await self._call("closing the source", iterator.close)
        except asyncio.CancelledError as error:
            if cancellations.is_callers:
                raise
            self.closing_error = _told("closing the source", error)
        except Exception as error:  # noqa: BLE001 - it is the caller's, and given to the caller
            self.closing_error = _told("closing the source", error)

    async def _call(self, who: str, work: Callable[[], ResultT]) -> ResultT:
        """Call what is not asynchronous of the source: in a thread, if it may block."""

        def call() -> ResultT:
            try:
                return work()
            except StopIteration as error:
                # No future can hold it.
                raise _told(who, error) from error

        return await in_thread(call, self._executor) if self._in_thread else call()

    def _gather(self, iterator: Any) -> bool:
        """Pull until a request is full; says whether the source has ended."""
        return all(not self._feed(item) for item in iterator)

    async def _gather_async(self, iterator: Any) -> bool:
        self._was_flushed = False
        async for item in iterator:
            if self.is_finished:
                return True
            if self._feed(item):
                self._call_off()
                return False
            if self._timer is None:
                self._timer = self._clock.call_at(self._clock.time() + self._max_delay, self._come_due)
            if self._was_flushed:
                # What was read before has taken up the room, so there must be some for this item first.
                return False
        return True

    def _come_due(self) -> None:
        self._timer = None
        if self._has_room():
            self._flush()
        else:
            self._is_overdue = True

    def _feed(self, item: Any) -> bool:
        """Take one item; says whether that filled a request. Runs in a thread, perhaps."""
        position = self._position
        self._position += 1
        problem: InputError | None = None
        try:
            given = item if self._text is None else self._text(item)
        except MISLEADING as error:
            raise _told("the function `text`", error) from error
        try:
            text = text_of(given, position)
        except InputError as error:
            problem = error.with_traceback(None)
        if problem is not None:
            self._take_over(self._splitter.skip())
            self._cut.append((problem, position, [item]))
            return True
        self._items.append(item)
        full = self._splitter.add(text)
        self._take_over(full)
        return full is not None

    def _take_over(self, request: PlannedRequest | None) -> None:
        if request is not None:
            count = len(request.texts)
            self._cut.append((request, request.start, self._items[:count]))
            del self._items[:count]

    def _flush(self) -> None:
        """Send what has been gathered, although it does not fill a request."""
        self._call_off()
        self._was_flushed, self._is_overdue = True, False
        self._take_over(self._splitter.flush())
        self._hand_over()

    def _hand_over(self) -> None:
        if not self._cut:
            return
        failed = 0
        for what, start, items in self._cut:
            if isinstance(what, EmbedError):
                self._batches.add_failed(start, items[0], what)
                failed += 1
            else:
                self._batches.add(what, items)
        self._cut.clear()
        self._handed_over(failed)

    def _call_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _told(who: str, error: BaseException) -> Exception:
    """What the caller is told of an error: that itself, unless it would mislead."""
    if isinstance(error, Exception) and not isinstance(error, MISLEADING):
        return error
    own = EmbedError(f"{who} raised {type(error).__name__}, which is neither its end nor the caller's cancellation")
    own.__cause__ = error
    return own
