"""The synchronous client: runs the calls of `EmbedClient` in an event loop in its own thread."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast, overload

from pinecone_embed_async._calls import check_source
from pinecone_embed_async._client import EmbedClient
from pinecone_embed_async._sync.stream import CallersSource, SyncEmbeddingStream
from pinecone_embed_async._threads import OwnLoopThread

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Self, Unpack

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async import _options
    from pinecone_embed_async._calls import Source
    from pinecone_embed_async._inputs import Input, Inputs
    from pinecone_embed_async._planning import Estimate
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, SparseVector
    from pinecone_embed_async._statistics import Statistics
    from pinecone_embed_async._wire import ModelInfo

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")


class SyncEmbedClient(Generic[EmbeddingsT]):
    """Embeds texts with one of Pinecone's hosted models, from synchronous code.

    It has the arguments and methods of `EmbedClient`. Each method blocks until it is done and raises the same errors. Any
    number of threads may use one client, and their calls run concurrently. Ctrl-C cancels a call.

    ```python
    with SyncEmbedClient("multilingual-e5-large", quota="standard") as client:
        passages = client.embed(["first text", "second text"], input_type="passage")
        print(passages.vectors.shape, passages.usage.total_tokens)
    ```

    The calls run in an event loop in the client's own thread. So they also work in a forked process, and where an event loop
    is running, such as in a notebook, although they block that loop. If you do not close the client, it ends with the
    interpreter or when it is garbage-collected.

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
        self._thread = OwnLoopThread("pinecone-embed", self, self._client, "open it again with `with`")

    def __repr__(self) -> str:
        return repr(self._client).replace("EmbedClient", "SyncEmbedClient", 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SyncEmbedClient cannot be pickled: it holds connections and a key; make one in each process")

    def __enter__(self) -> Self:
        self._thread.open()
        self._thread.get().run(self._client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the running calls and close the connections.

        Requests in flight get a few seconds to complete. Their calls then raise `ClosedError` with what was embedded.
        Later calls raise it too, until the client is entered again.
        """
        self._thread.close()

    def statistics(self) -> Statistics:
        """Counts since the client was created; may be called from any thread."""
        return self._client.statistics()

    def embed(self, inputs: Inputs, **options: Unpack[_options.EmbedArguments]) -> EmbeddingsT:
        """Embed any number of inputs; row i of the result belongs to input i.

        Args:
            inputs: as for `EmbedClient.embed`. An iterator is read in the calling thread, anything else in the client's.
            options: as for `EmbedClient.embed`. `progress` is called in the client's thread.

        Returns:
            `DenseEmbeddings` with float32 vectors of shape (inputs, dimension), or `SparseEmbeddings`.

        Raises:
            EmbedError: as `EmbedClient.embed`.
        """
        try:
            if isinstance(inputs, Iterator):
                # Read iterators here, because they may belong to this thread, like rows of a database.
                inputs = list(inputs)
            thread = self._thread.get()
            call = self._client.embed(inputs, **cast("Any", options))
        finally:
            # Error reports that include local variables must not show the texts.
            del inputs
        return cast("EmbeddingsT", thread.run(call))

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
            Float32 of shape (dimension,), or a `SparseVector`; each call gets its own copy.

        Raises:
            EmbedError: as `EmbedClient.embed_one`.
        """
        try:
            thread = self._thread.get()
            call: Coroutine[Any, Any, NDArray[np.float32] | SparseVector] = self._client.embed_one(text, **options)
        finally:
            # As above.
            del text
        return thread.run(call)

    def stream(
        self, source: Source[ItemT], **options: Unpack[_options.StreamArguments[ItemT]]
    ) -> SyncEmbeddingStream[ItemT, EmbeddingsT]:
        """Embed an iterable of any length in bounded memory.

        ```python
        documents = ({"id": number, "body": f"text number {number}"} for number in range(1000))
        with SyncEmbedClient("multilingual-e5-large", input_type="passage") as client:
            for batch in client.stream(documents, text=lambda document: document["body"]):
                print(batch.items[0]["id"], batch.vectors.shape)
        ```

        Args:
            source: an iterable or async iterable of items. An iterable is read by the thread that iterates over the batches,
                as it waits for one, up to 96 items beyond the window; with `in_thread`, by another thread.
            options: as for `EmbedClient.stream`. `text` and `progress` are called in the client's thread.

        Returns:
            An iterator over the batches, each an `EmbeddedBatch`; also a context manager that ends the stream.

        Raises:
            InputError: `source` is not an iterable, or is a single text.
            ConfigurationError: an argument is invalid; nothing was sent.
            ClosedError: the client is closed.
        """
        check_source(source)
        self._thread.check_open()
        given: Source[Any] = source
        own = CallersSource((), 0.0)
        if not isinstance(source, AsyncIterable) and not options.get("in_thread"):
            own = CallersSource(source, options.get("max_delay", 0.5))
            given = own.items()
        return SyncEmbeddingStream(self, self._thread, self._client.stream(given, **cast("Any", options)), own)

    def estimate(self, inputs: Input | Iterable[Input], **options: Unpack[_options.EstimateArguments]) -> Estimate:
        """Estimate the cost of embedding `inputs`, without a request; as `EmbedClient.estimate`."""
        return self._client.estimate(inputs, **cast("Any", options))

    def list_models(self) -> list[ModelInfo]:
        """List the embedding models that the service offers; as `EmbedClient.list_models`."""
        return self._thread.get().run(self._client.list_models())

    def describe_model(self, name: str | None = None) -> ModelInfo:
        """Fetch the service's description of a model; as `EmbedClient.describe_model`."""
        return self._thread.get().run(self._client.describe_model(name))
