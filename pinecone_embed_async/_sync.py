"""The client for code that is not asynchronous: the same calls, carried out in an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import AsyncIterable, Iterator
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast, overload

from pinecone_embed_async._calls import check_source
from pinecone_embed_async._client import EmbedClient
from pinecone_embed_async._errors import ClosedError, EmbedError
from pinecone_embed_async._results import Usage
from pinecone_embed_async._threads import OwnLoopThread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterable
    from contextlib import AbstractAsyncContextManager
    from typing import Self, Unpack

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async import _options
    from pinecone_embed_async._calls import EmbeddedBatch, EmbeddingStream, Source
    from pinecone_embed_async._inputs import Input, Inputs
    from pinecone_embed_async._planning import Estimate
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, SparseVector
    from pinecone_embed_async._statistics import Statistics
    from pinecone_embed_async._threads import LoopThread
    from pinecone_embed_async._wire import ModelInfo

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

ITEMS_PER_PULL = 96
"""Items that are pulled from a source at a time, for one hand-over between the threads: those of a full request."""


class SyncEmbedClient(Generic[EmbeddingsT]):
    """Embeds texts with one of Pinecone's hosted models, from code that is not asynchronous.

    It takes the arguments of `EmbedClient` and has its methods. Each returns when it is done and raises the same errors. Any
    number of threads may use one client: their calls run at the same time. Ctrl-C in a call cancels it.

    ```python
    with SyncEmbedClient("multilingual-e5-large", quota="standard") as client:
        passages = client.embed(["first text", "second text"], input_type="passage")
        print(passages.vectors.shape, passages.usage.total_tokens)
    ```

    The calls are carried out in an event loop in a thread of their own. So they work where an event loop is running, such as
    in a notebook, but block it, and in a forked process. A client that is not closed ends with the interpreter, or once it
    is collected.

    Args:
        model: name of the hosted model.
        options: as for `EmbedClient`.

    Raises:
        ConfigurationError: an argument is invalid; nothing was sent.
    """

    @overload
    def __init__(
        self: SyncEmbedClient[DenseEmbeddings], model: _options.E5, **options: Unpack[_options.E5Arguments]
    ) -> None: ...
    @overload
    def __init__(
        self: SyncEmbedClient[DenseEmbeddings], model: _options.Llama, **options: Unpack[_options.LlamaArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: SyncEmbedClient[SparseEmbeddings], model: _options.Sparse, **options: Unpack[_options.SparseArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: SyncEmbedClient[DenseEmbeddings], model: str, **options: Unpack[_options.OtherDenseArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: SyncEmbedClient[SparseEmbeddings], model: str, **options: Unpack[_options.OtherSparseArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: SyncEmbedClient[DenseEmbeddings | SparseEmbeddings], model: str, **options: Unpack[_options.OtherArguments]
    ) -> None: ...
    def __init__(self, model: str, **options: Any) -> None:
        self._client: EmbedClient[Any] = EmbedClient(model, **options)
        self._thread = OwnLoopThread("pinecone-embed")
        self._is_closed = False

    def __repr__(self) -> str:
        return repr(self._client).replace("EmbedClient", "SyncEmbedClient", 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SyncEmbedClient cannot be pickled: it holds connections and a key; make one in each process")

    def __enter__(self) -> Self:
        self._is_closed = False
        self._run(self._open())
        return self

    async def _open(self) -> None:
        await self._client.__aenter__()

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the running calls and close the connections.

        Requests in flight have a few seconds to be answered; their calls raise `ClosedError` with what was embedded.
        Later calls raise it, too, until the client is entered again.
        """
        if not self._is_closed:
            self._is_closed = True
            self._thread.close(self._client.aclose())

    def statistics(self) -> Statistics:
        """Counts since the client was created; may be called from any thread."""
        return self._client.statistics()

    def embed(self, inputs: Inputs, **options: Unpack[_options.EmbedArguments]) -> EmbeddingsT:
        """Embed any number of inputs; row i of the result belongs to input i.

        Args:
            inputs: as for `EmbedClient.embed`. An iterator is read in the calling thread, all others in the client's.
            options: as for `EmbedClient.embed`. `progress` is called in the client's thread.

        Returns:
            `DenseEmbeddings` with float32 vectors of shape (inputs, dimension), or `SparseEmbeddings`.

        Raises:
            EmbedError: as `EmbedClient.embed`.
        """
        try:
            # What gives items only once may belong to this thread, as rows of a database do.
            call = self._client.embed(list(inputs) if isinstance(inputs, Iterator) else inputs, **cast("Any", options))
        finally:
            # Error reports that include the locals of frames must show no texts.
            del inputs
        return cast("EmbeddingsT", self._run(call))

    @overload
    def embed_one(
        self: SyncEmbedClient[DenseEmbeddings], text: Input, **options: Unpack[_options.OneArguments]
    ) -> NDArray[np.float32]: ...
    @overload
    def embed_one(
        self: SyncEmbedClient[SparseEmbeddings], text: Input, **options: Unpack[_options.OneArguments]
    ) -> SparseVector: ...
    @overload
    def embed_one(
        self: SyncEmbedClient[DenseEmbeddings | SparseEmbeddings], text: Input, **options: Unpack[_options.OneArguments]
    ) -> NDArray[np.float32] | SparseVector: ...
    def embed_one(self, text: Input, **options: Any) -> NDArray[np.float32] | SparseVector:
        """Embed one text, in a request shared with calls of other threads that have the same parameters.

        Args:
            text: a text, or a mapping with `text`.
            options: as for `EmbedClient.embed_one`.

        Returns:
            Float32 of shape (dimension,), or a `SparseVector`; the arrays are the caller's own.

        Raises:
            EmbedError: as `EmbedClient.embed_one`.
        """
        try:
            call: Coroutine[Any, Any, NDArray[np.float32] | SparseVector] = self._client.embed_one(text, **options)
        finally:
            # As above.
            del text
        return self._run(call)

    def stream(
        self, source: Source[ItemT], **options: Unpack[_options.StreamArguments[ItemT]]
    ) -> SyncEmbeddingStream[ItemT, EmbeddingsT]:
        """Embed an iterable of any length in bounded memory.

        ```python
        documents = ({"id": number, "body": f"text number {number}"} for number in range(1000))
        with client.stream(documents, text=lambda document: document["body"], input_type="passage") as batches:
            for batch in batches:
                print(batch.items[0]["id"], batch.vectors.shape)
        ```

        Args:
            source: an iterable or async iterable of items. An iterable is pulled in the thread that iterates, while it waits
                for the next batch, up to 96 items further than the window; with `in_thread` in a thread of its own.
            options: as for `EmbedClient.stream`. `text` and `progress` are called in the client's thread.

        Returns:
            An iterator over the batches, each an `EmbeddedBatch`, and a context manager that ends the stream.

        Raises:
            InputError: `source` is not an iterable, or is a single text.
            ConfigurationError: an argument is invalid; nothing was sent.
            ClosedError: the client is closed.
        """
        check_source(source)
        self._check_open()
        own: _CallersSource | None = None
        if not isinstance(source, AsyncIterable) and not options.get("in_thread"):
            own = _CallersSource(source, options.get("max_delay", 0.5))
        given: Source[Any] = source if own is None else own.items()
        return SyncEmbeddingStream(self._thread.get(), self._client.stream(given, **cast("Any", options)), own)

    def estimate(self, inputs: Input | Iterable[Input], **options: Unpack[_options.EstimateArguments]) -> Estimate:
        """Estimate the cost of embedding `inputs`, without a request; as `EmbedClient.estimate`."""
        return self._client.estimate(inputs, **cast("Any", options))

    def list_models(self) -> list[ModelInfo]:
        """List the embedding models that the service offers; as `EmbedClient.list_models`."""
        return self._run(self._client.list_models())

    def describe_model(self, name: str | None = None) -> ModelInfo:
        """Fetch the service's description of a model; as `EmbedClient.describe_model`."""
        return self._run(self._client.describe_model(name))

    def _run(self, work: Coroutine[Any, Any, ResultT]) -> ResultT:
        if self._is_closed:
            work.close()
            self._check_open()
        return self._thread.get().run(work)

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClosedError("the client is closed; open it again with `with`")


class SyncEmbeddingStream(Generic[ItemT, EmbeddingsT]):
    """Yields the batches of a stream; made by `SyncEmbedClient.stream`.

    An iterator and a context manager. Leaving the `with` block, the last batch and `close` end the stream, and so does
    dropping it. What it raises in place of a batch, and at the end, is what `EmbeddingStream` raises.
    """

    def __init__(
        self,
        thread: LoopThread,
        stream: AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]],
        source: _CallersSource | None,
    ) -> None:
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


class _CallersSource:
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
