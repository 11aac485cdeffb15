"""The public client: signatures, docstrings, and delegation to the modules that do the work."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast, overload

from pinecone_embed_async import _calls, _checks, _options
from pinecone_embed_async._calls import Runtime

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Executor
    from contextlib import AbstractAsyncContextManager
    from typing import Self, Unpack

    import aiohttp
    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._cache import Cache
    from pinecone_embed_async._calls import EmbeddingStream, Source
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._inputs import Input, Inputs
    from pinecone_embed_async._planning import Estimate
    from pinecone_embed_async._rate_limit import PlanName, Priority, Quota, QuotaBackend, SharedQuota
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, SparseVector
    from pinecone_embed_async._sending import RetryPolicy, Transport
    from pinecone_embed_async._statistics import Progress, Statistics
    from pinecone_embed_async._telemetry import Hook
    from pinecone_embed_async._wire import DecoderName, ModelInfo

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")


class EmbedClient(Generic[EmbeddingsT]):
    """Embeds texts with one of Pinecone's hosted models.

    Any number of tasks may use one client. They share its connections and its limit on requests in flight.
    Open it with `async with`, or let the first call open it. It can be used again in another event loop and after a fork;
    each event loop has its own connections and its own limit on requests in flight.

    ```python
    async with EmbedClient("multilingual-e5-large", quota="standard") as client:
        passages = await client.embed(["first text", "second text"], input_type="passage")
        print(passages.vectors.shape, passages.usage.total_tokens)
    ```

    Args:
        model: name of the hosted model. A name that this package does not know is left to the service.
        vector_type: `"dense"` or `"sparse"`, for models that this package does not know by name.
        api_key: the API key; defaults to `PINECONE_API_KEY` from the environment.
        base_url: URL of the API; defaults to `PINECONE_CONTROLLER_HOST` from the environment, else Pinecone's. Plain HTTP
            is allowed only to this machine; see `allow_http`.
        api_version: API version to request, sent in the header `X-Pinecone-Api-Version`; defaults to 2026-07.
        parameters: model parameters for every call; those of a call override them key by key.
        input_type: `"passage"` or `"query"`. Like `dimension` and `truncate`, a shorthand for that key of `parameters`.
        dimension: numbers per vector, for models with a choice: 384, 512, 768, 1024 or 2048 for `llama-text-embed-v2`.
        truncate: what the service does with texts that are too long: `"END"` cuts off the end, `"START"` (only
            `llama-text-embed-v2`) the start, `"NONE"` refuses them.
        quota: paces requests to stay under a rate limit: the name of a plan (`"starter"`, `"builder"`, `"standard"`,
            `"enterprise"`), tokens per minute, a `Quota`, a `SharedQuota` for several clients, or a `SqliteQuota` for
            several processes. By default the client learns the limits from rejections.
        retry: how often and how long a request is retried. The default is `RetryPolicy()`, but without a policy of your own
            a failure to connect before the service's first answer ends the call early; see docs/faults.md.
        max_concurrency: maximum number of requests in flight.
        max_batch_size: maximum number of inputs per request; defaults to the model's limit.
        attempt_timeout: seconds for one attempt, from connecting to the last byte of the answer.
        connect_timeout: seconds to establish a connection, including name resolution, proxy and TLS.
        max_answer_bytes: maximum size of an answer after decompression. A single embedding may take at most 1 MiB.
        session: an aiohttp session to take connections and trace configurations from. Its other settings, such as headers,
            cookies and TLS, are not used. The client never closes it.
        ssl_context: the trusted certificate authorities, for example `ssl.create_default_context(cafile=...)`; applies to
            `session` too. It must verify certificates and host names. Defaults to the system's authorities, or those in the
            file named by the environment variable `SSL_CERT_FILE`.
        transport: sends the requests in place of aiohttp, which by default handles connections, TLS and proxies; for
            example a `MockTransport` in tests. The client does not close it.
        source_tag: name of the calling integration, for the `User-Agent` header.
        allow_http: allow plain HTTP to other machines, which exposes the key and the inputs.
        decoder: `"native"`, if the package was built with a C compiler, or `"msgspec"`; defaults to the faster one there is.
        max_delay: maximum seconds that a call of `embed_one` waits for others to share its request. It waits only while
            another such request with the same parameters is under way, and longer while all permits are in use.
        hooks: functions called with the events of calls and requests; see `Hook`.
        cache: stores vectors, so that you pay for equal texts only once; for example a `SqliteCache`. The client does not
            close it.
        look_up_model: ask the service for the model's limits and parameters before the first call, with one `GET`. By
            default only for models whose limits and parameters this package does not know.
        clock: source of time and timers; defaults to the system's. `clock`, `transport`, `draw` and `executor` are the only
            external inputs of a client, so a simulation can replace them all.
        draw: returns uniform random numbers from [0, 1), for jitter.
        executor: runs blocking work: pulls a stream's blocking source, reads the certificate authorities and decodes large
            answers. Defaults to the event loop's executor, and for decoding to one of the client's own.

    Raises:
        ConfigurationError: an argument is invalid; nothing was sent.
    """

    @overload
    def __init__(
        self: EmbedClient[DenseEmbeddings], model: _options.E5, **options: Unpack[_options.E5Arguments]
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[DenseEmbeddings], model: _options.Llama, **options: Unpack[_options.LlamaArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[SparseEmbeddings], model: _options.Sparse, **options: Unpack[_options.SparseArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[DenseEmbeddings], model: str, **options: Unpack[_options.OtherDenseArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[SparseEmbeddings], model: str, **options: Unpack[_options.OtherSparseArguments]
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[DenseEmbeddings | SparseEmbeddings], model: str, **options: Unpack[_options.OtherArguments]
    ) -> None: ...
    def __init__(
        self,
        model: str,
        *,
        vector_type: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        api_version: str = _options.DEFAULT_API_VERSION,
        parameters: Mapping[str, Any] | None = None,
        input_type: str | None = None,
        dimension: int | None = None,
        truncate: str | None = None,
        quota: Quota | int | PlanName | SharedQuota | QuotaBackend | None = None,
        retry: RetryPolicy | None = None,
        max_concurrency: int = 8,
        max_batch_size: int | None = None,
        attempt_timeout: float = 60.0,
        connect_timeout: float = 10.0,
        max_answer_bytes: int = 64 * 2**20,
        session: aiohttp.ClientSession | None = None,
        ssl_context: ssl.SSLContext | None = None,
        transport: Transport | None = None,
        source_tag: str | None = None,
        allow_http: bool = False,
        decoder: DecoderName | None = None,
        max_delay: float = 0.002,
        hooks: Iterable[Hook] = (),
        cache: Cache | None = None,
        look_up_model: bool | None = None,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
        executor: Executor | None = None,
    ) -> None:
        arguments = locals()
        del arguments["self"]
        self._runtime = Runtime(_options.client_options(**arguments))

    def __repr__(self) -> str:
        return f"<EmbedClient {self._runtime!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an EmbedClient cannot be pickled: it holds connections and a key; make one in each process")

    if not TYPE_CHECKING:  # a type checker reports the missing methods itself

        def __enter__(self) -> NoReturn:
            raise TypeError("an EmbedClient is asynchronous: write `async with`, or use a SyncEmbedClient")

        def __exit__(self, *_: object) -> None: ...

    async def __aenter__(self) -> Self:
        await self._runtime.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the running calls and close the connections.

        Requests in flight get a few seconds to complete. Their calls then raise `ClosedError` with what was embedded.
        Later calls raise it too, until the client is entered again.
        """
        await self._runtime.aclose()

    def statistics(self) -> Statistics:
        """Counts since the client was created; may be called from any thread."""
        return self._runtime.statistics()

    async def embed(
        self,
        inputs: Inputs,
        *,
        input_type: str | None = None,
        dimension: int | None = None,
        truncate: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the error carries what was embedded
        on_error: Literal["raise", "return"] = "raise",
        priority: Priority = "bulk",
        dedupe: bool = False,
        progress: Callable[[Progress], None] | bool | None = None,
    ) -> EmbeddingsT:
        """Embed any number of inputs; row i of the result belongs to input i.

        All inputs are read and validated before anything is sent.

        ```python
        passages = await client.embed(texts, input_type="passage", on_error="return")
        for failure in passages.failures:
            print(failure.indices, failure.error)
        ```

        Args:
            inputs: a text, a mapping with `text`, or an iterable or async iterable of those. Texts of any length are sent
                whole; the service cuts them according to `truncate`.
            input_type: `"passage"` or `"query"`. Like the next two, a shorthand for that key of `parameters`.
            dimension: numbers per vector, for models with a choice.
            truncate: `"END"`, `"START"` or `"NONE"`.
            parameters: model parameters; they override the client's key by key.
            timeout: seconds for the whole call.
            on_error: `"raise"` raises once every input has succeeded or failed, with the successful embeddings in the
                error's `partial`. `"return"` returns them: failed rows are NaN (sparse: empty), and `failures` has the
                causes. With `"return"`, inputs that are not texts, such as missing values, fail like the others.
            priority: `"interactive"` requests go before `"bulk"` ones, but a bulk request is still sent every few seconds.
                Calls of one priority share the quota evenly.
            dedupe: send equal texts once; every input still has its own row.
            progress: called in the event loop after each request that succeeds or fails for good. If it raises an
                exception, the call ends with an `EmbedError` that it caused, with what was embedded. `True` shows a
                progress bar in a terminal or a notebook, with rich or tqdm.

        Returns:
            `DenseEmbeddings` with float32 vectors of shape (inputs, dimension), or `SparseEmbeddings`.

        Raises:
            InputError: some inputs are not texts (the error counts them), or the inputs have no order; nothing was sent.
            ConfigurationError: an option is invalid; nothing was sent.
            ApiError: the service refused inputs, or every attempt failed, the last one with an error of the service.
            TransportError: every attempt failed, the last one without an answer.
            ResponseError: every attempt failed, the last one with an unreadable answer.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        try:
            given = parameters, input_type, dimension, truncate
            options = self._runtime.check(given, timeout=timeout, priority=priority, on_error=on_error, progress=progress)
            call = _calls.embed(self._runtime, inputs, options, dedupe=_checks.truth("dedupe", dedupe))
        finally:
            # Error reports that include local variables must not show the texts.
            del inputs
        return cast("EmbeddingsT", await call)

    @overload
    async def embed_one(
        self: EmbedClient[DenseEmbeddings], text: Input, **options: Unpack[_options.OneArguments]
    ) -> NDArray[np.float32]: ...
    @overload
    async def embed_one(
        self: EmbedClient[SparseEmbeddings], text: Input, **options: Unpack[_options.OneArguments]
    ) -> SparseVector: ...
    @overload
    async def embed_one(
        self: EmbedClient[DenseEmbeddings | SparseEmbeddings], text: Input, **options: Unpack[_options.OneArguments]
    ) -> NDArray[np.float32] | SparseVector: ...
    async def embed_one(
        self,
        text: Input,
        *,
        input_type: str | None = None,
        dimension: int | None = None,
        truncate: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it ends this call alone, not the shared request
        priority: Priority = "interactive",
    ) -> NDArray[np.float32] | SparseVector:
        """Embed one text, in a request shared with concurrent calls that have the same parameters.

        The text is sent at once if no such request is under way. Otherwise it waits for others until the request is full,
        `max_delay` has passed and a permit is free, or the request under way is answered. Equal texts are sent once. The
        failure or cancellation of one call does not affect the others.

        ```python
        vector = await client.embed_one("what is a vector?", input_type="query", timeout=2.0)
        ```

        Args:
            text: a text, or a mapping with `text`.
            input_type: `"passage"` or `"query"`. Like the next two, a shorthand for that key of `parameters`.
            dimension: numbers per vector, for models with a choice.
            truncate: `"END"`, `"START"` or `"NONE"`.
            parameters: model parameters; they override the client's key by key.
            timeout: seconds for this call.
            priority: `"interactive"` or `"bulk"`; see `embed`. Calls of different priority never share a request.

        Returns:
            Float32 of shape (dimension,), or a `SparseVector`; each call gets its own copy.

        Raises:
            InputError: `text` is not a text; nothing was sent.
            ConfigurationError: the parameters are invalid; nothing was sent.
            ApiError: the service refused the text, or every attempt failed, the last one with an error of the service.
            TransportError: every attempt failed, the last one without an answer.
            ResponseError: every attempt failed, the last one with an unreadable answer.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        try:
            given = parameters, input_type, dimension, truncate
            options = self._runtime.check(given, timeout=timeout, priority=priority)
            call = _calls.embed_one(self._runtime, text, options)
        finally:
            # As above.
            del text
        return await call

    def stream(
        self,
        source: Source[ItemT],
        *,
        text: Callable[[ItemT], Input] | None = None,
        ordered: bool = True,
        window: int | None = None,
        input_type: str | None = None,
        dimension: int | None = None,
        truncate: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        on_error: Literal["raise", "return"] = "raise",
        priority: Priority = "bulk",
        progress: Callable[[Progress], None] | bool | None = None,
        in_thread: bool = False,
        max_delay: float = 0.5,
    ) -> AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]]:
        """Embed an iterable of any length in bounded memory.

        ```python
        documents = ({"id": number, "body": f"text number {number}"} for number in range(1000))
        async with client.stream(documents, text=lambda document: document["body"], input_type="passage") as batches:
            async for batch in batches:
                print(batch.items[0]["id"], batch.vectors.shape)
        ```

        The source is read only as fast as you take batches. Leaving the block cancels the running tasks, waits for them to
        end, and closes the source's iterator.

        Args:
            source: an iterable or async iterable of items. It is read in the event loop.
            text: returns the input of an item; by default the items are inputs. An item whose input is not a text fails
                alone, with an `InputError`.
            ordered: yield batches in the source's order; otherwise as they complete.
            window: maximum number of requests read ahead, including completed ones that you have not taken yet; defaults
                to `2 * max_concurrency`.
            input_type: `"passage"` or `"query"`. Like the next two, a shorthand for that key of `parameters`.
            dimension: numbers per vector, for models with a choice.
            truncate: `"END"`, `"START"` or `"NONE"`.
            parameters: model parameters; they override the client's key by key.
            timeout: seconds for the whole stream.
            on_error: `"raise"` raises the error of a batch in its place; `"return"` yields the batch: failed rows are NaN
                (sparse: empty), and `failures` has the causes.
            priority: `"interactive"` or `"bulk"`; see `embed`.
            progress: called in the event loop after each request that succeeds or fails for good. If it raises an
                exception, the stream yields everything embedded so far and then raises an `EmbedError` with this cause.
                `True` shows a progress bar; see `embed`.
            in_thread: read a synchronous source in a thread, because it may block.
            max_delay: maximum seconds that an item waits for others to fill its request, if the source is asynchronous or
                read in a thread.

        Returns:
            An async context manager over an `EmbeddingStream`, an async iterator of `EmbeddedBatch`.

        Raises:
            InputError: `source` is not an iterable, or is a single text.
            ConfigurationError: an argument is invalid; nothing was sent.
            ClosedError: the client is closed.
        """
        _calls.check_source(source)
        given = parameters, input_type, dimension, truncate
        options = self._runtime.check(given, timeout=timeout, priority=priority, on_error=on_error, progress=progress)
        reading = _options.StreamOptions(text, ordered, window, in_thread, max_delay)
        return _calls.open_stream(self._runtime, source, options, reading)

    def estimate(
        self,
        inputs: Input | Iterable[Input],
        *,
        input_type: str | None = None,
        dimension: int | None = None,
        truncate: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        dedupe: bool = False,
    ) -> Estimate:
        """Estimate the cost of embedding `inputs`, without a request.

        ```python
        estimate = client.estimate(texts, input_type="passage", dedupe=True)
        print(estimate.tokens, estimate.requests, estimate.seconds["starter"])
        ```

        Args:
            inputs: as for `embed`, but not asynchronous; an iterable is read to its end and need not fit into memory.
            input_type: `"passage"` or `"query"`, which have separate quotas.
            dimension: as for `embed`; does not change the estimate.
            truncate: as for `embed`; does not change the estimate.
            parameters: model parameters; they override the client's key by key.
            dedupe: count equal texts once.

        Raises:
            InputError: an input is not a text.
            ConfigurationError: the parameters are invalid.
        """
        given = parameters, input_type, dimension, truncate
        return self._runtime.estimate(inputs, given, dedupe=_checks.truth("dedupe", dedupe))

    async def list_models(self) -> list[ModelInfo]:
        """List the embedding models that the service offers.

        Raises:
            EmbedError: the request failed, or the answer could not be read.
        """
        return await self._runtime.list_models()

    async def describe_model(self, name: str | None = None) -> ModelInfo:
        """Fetch the service's description of a model.

        Args:
            name: name of the model; defaults to the client's.

        Raises:
            ConfigurationError: `name` is not a valid name.
            NotFoundError: the service does not know the model.
            EmbedError: the request failed, or the answer could not be read.
        """
        return await self._runtime.describe_model(None if name is None else _options.model_name("name", name))
