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

    Many tasks may use one client; they share its connections and its limit of requests in flight.
    It opens with `async with`, or at the first call, and can be used again in another event loop and after a fork.
    Each event loop has its own connections and its own limit of requests in flight.

    ```python
    async with EmbedClient("multilingual-e5-large", quota="standard") as client:
        passages = await client.embed(["first text", "second text"], input_type="passage")
        print(passages.vectors.shape, passages.usage.total_tokens)
    ```

    Args:
        model: name of the hosted model. The service decides about unknown names.
        vector_type: `"dense"` or `"sparse"`, for models that this package does not know by name.
        api_key: the API key; defaults to `PINECONE_API_KEY` from the environment.
        base_url: URL of the API; defaults to `PINECONE_CONTROLLER_HOST` from the environment, else Pinecone's. Plain HTTP
            only to this machine.
        api_version: version of the API that is asked for, in the header `X-Pinecone-Api-Version`; defaults to 2026-07.
        parameters: model parameters for every call; a call's own are merged over them, key by key.
        input_type: `"passage"` or `"query"`; like `dimension` and `truncate` short for that key of `parameters`.
        dimension: numbers per vector, for models that offer several: 384, 512, 768, 1024 or 2048 of `llama-text-embed-v2`.
        truncate: what the service does with texts that are too long: `"END"` and, for `llama-text-embed-v2`, `"START"` cut
            there; `"NONE"` refuses them.
        quota: paces requests so that few are rejected: the name of a plan (`"starter"`, `"builder"`, `"standard"`,
            `"enterprise"`), tokens per minute or a `Quota`, a `SharedQuota` for several clients, or a `SqliteQuota` for
            several processes. By default the limits are learned from rejections.
        retry: how often and how long a request is retried. The default is `RetryPolicy()`, with which a failure to connect
            before the service's first answer ends the job early; see docs/faults.md.
        max_concurrency: maximum number of requests in flight.
        max_batch_size: maximum number of inputs per request; defaults to the model's limit.
        attempt_timeout: seconds for one attempt, from the connection to the last byte.
        connect_timeout: seconds to establish a connection, name resolution, proxy and TLS included.
        max_answer_bytes: maximum size of an answer, decompressed; a single embedding may take 1 MiB of it.
        session: an aiohttp session whose connections and trace configurations are used; its headers, cookies and other
            settings, TLS included, are not. The client never closes it.
        ssl_context: the trusted authorities, also with `session`; for example `ssl.create_default_context(cafile=...)`.
            It must verify certificates and host names. Defaults to the system's authorities, or those in the file named
            by the environment variable `SSL_CERT_FILE`.
        transport: carries the requests instead of aiohttp; for example a `MockTransport` in tests. The client does not
            close it. By default aiohttp handles connections, TLS and proxies.
        source_tag: name of the calling integration, for the `User-Agent` header.
        allow_http: allow plain HTTP to other machines, which exposes the key and the inputs.
        decoder: `"native"`, where the package was built with a C compiler, or `"msgspec"`; defaults to the faster one.
        max_delay: maximum seconds that a call of `embed_one` waits for others to share its request while another such
            request with the same parameters is under way; otherwise it does not wait.
        hooks: functions called with the events of calls and requests; see `Hook`.
        cache: stores vectors, so that equal texts are not paid for again; for example `SqliteCache`. The client does not
            close it.
        look_up_model: ask the service for the model's limits and parameters before the first call, which costs one `GET`.
            By default this is done for models that this package does not know by name.
        clock: source of time and timers; defaults to the system's. `clock`, `transport`, `draw` and `executor` are a
            client's only external inputs, so that a simulation can replace them all.
        draw: uniform random numbers from [0, 1), for jitter.
        executor: threads in which a stream pulls a blocking source, the trusted authorities are read and big answers are
            decoded; defaults to the event loop's own, and one of the client's for answers.

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

    if not TYPE_CHECKING:  # type checkers know better

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

        Requests in flight have a few seconds to be answered; their calls raise `ClosedError` with what was embedded.
        Later calls raise it, too, until the client is entered again.
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
            input_type: `"passage"` or `"query"`; short for that key of `parameters`.
            dimension: numbers per vector, for models that offer several; the same.
            truncate: `"END"`, `"START"` or `"NONE"`; the same.
            parameters: of the model, merged over the client's.
            timeout: seconds for the whole call.
            on_error: `"raise"` raises once all other inputs are settled, with the successful embeddings in the error's
                `partial`; `"return"` returns them, failed rows NaN (sparse: empty), with the causes in `failures`. This
                includes inputs that are not texts, such as missing values.
            priority: `"interactive"` requests go before `"bulk"` ones, of which one is still sent every few seconds; calls
                of one priority share evenly.
            dedupe: send equal texts once; every input still has its own row.
            progress: called in the event loop after each settled request. An exception that it raises ends the call, as the
                cause of an `EmbedError` with what was embedded. `True` shows a bar in a terminal or a notebook, with rich or
                tqdm.

        Returns:
            `DenseEmbeddings` with float32 vectors of shape (inputs, dimension), or `SparseEmbeddings`.

        Raises:
            InputError: inputs are not texts (the error counts them), or have no order; nothing was sent.
            ConfigurationError: an option is invalid; nothing was sent.
            ApiError: the service refused inputs, or failed in every attempt that the policy allows.
            TransportError: the connection failed in every attempt.
            ResponseError: the answer could not be read in any attempt.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        try:
            given = parameters, input_type, dimension, truncate
            options = self._runtime.call(given, timeout=timeout, priority=priority, on_error=on_error, progress=progress)
            call = _calls.embed(self._runtime, inputs, options, dedupe=_checks.truth("dedupe", dedupe))
        finally:
            # Error reports that include the locals of frames must show no texts.
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

        A call is sent at once if no such request is under way. Otherwise it waits for others until the request is full,
        `max_delay` has passed, or the request under way is answered. Equal texts are sent once. The failure or
        cancellation of one call does not affect the others.

        ```python
        vector = await client.embed_one("what is a vector?", input_type="query", timeout=2.0)
        ```

        Args:
            text: a text, or a mapping with `text`.
            input_type: `"passage"` or `"query"`; short for that key of `parameters`.
            dimension: numbers per vector, for models that offer several; the same.
            truncate: `"END"`, `"START"` or `"NONE"`; the same.
            parameters: of the model, merged over the client's.
            timeout: seconds for this call.
            priority: `"interactive"` or `"bulk"`; see `embed`. Calls with different priorities share no request.

        Returns:
            Float32 of shape (dimension,), or a `SparseVector`; the arrays are the caller's own.

        Raises:
            InputError: `text` is not a text; nothing was sent.
            ConfigurationError: the parameters are invalid; nothing was sent.
            ApiError: the service refused the text, or failed in every attempt that the policy allows.
            TransportError: the connection failed in every attempt.
            ResponseError: the answer could not be read in any attempt.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        try:
            given = parameters, input_type, dimension, truncate
            options = self._runtime.call(given, timeout=timeout, priority=priority)
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

        The source is read only as fast as batches are taken. Leaving the block cancels the running tasks, waits for them,
        and closes the source's iterator.

        Args:
            source: an iterable or async iterable of items. It is pulled in the event loop.
            text: returns the input of an item; by default the items are inputs. An item whose input is not a text fails
                alone, with an `InputError`.
            ordered: yield batches in the source's order; otherwise as they complete.
            window: maximum number of requests read ahead, completed ones that were not taken included; defaults to
                `2 * max_concurrency`.
            input_type: `"passage"` or `"query"`; short for that key of `parameters`.
            dimension: numbers per vector, for models that offer several; the same.
            truncate: `"END"`, `"START"` or `"NONE"`; the same.
            parameters: of the model, merged over the client's.
            timeout: seconds for the whole stream.
            on_error: `"raise"` raises the error of a batch in its place; `"return"` yields the batch, failed rows NaN
                (sparse: empty), with the causes in `failures`.
            priority: `"interactive"` or `"bulk"`; see `embed`.
            progress: called in the event loop after each settled request. An exception that it raises ends the stream, as
                the cause of an `EmbedError` raised after everything that was embedded. `True` shows a bar; see `embed`.
            in_thread: pull a synchronous source in a thread, because it may block.
            max_delay: maximum seconds that an item of an asynchronous source, or of one in a thread, waits for others.

        Returns:
            An async context manager over an `EmbeddingStream`, an async iterator of `EmbeddedBatch`.

        Raises:
            InputError: `source` is not an iterable, or is a single text.
            ConfigurationError: an argument is invalid; nothing was sent.
            ClosedError: the client is closed.
        """
        _calls.check_source(source)
        given = parameters, input_type, dimension, truncate
        options = self._runtime.call(given, timeout=timeout, priority=priority, on_error=on_error, progress=progress)
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
            inputs: as for `embed`; an iterable is read to its end and need not fit into memory.
            input_type: `"passage"` or `"query"`, which have separate quotas.
            dimension: as for `embed`; like `truncate` it changes no figure.
            truncate: as for `embed`.
            parameters: of the model, merged over the client's.
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
