"""The public client: validates arguments, opens and closes, and delegates to the other modules."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast, overload
from urllib.parse import quote

import msgspec
import numpy as np

from pinecone_embed_async import _checks, _models
from pinecone_embed_async._cache import LOOKED_UP_AT_ONCE, READ_AT_ONCE, CacheStage
from pinecone_embed_async._calls import (
    EmbeddingStream,
    JoinedCounts,
    ReadAhead,
    ResultBuilder,
    Scheduler,
    SingleCalls,
    SourceReader,
    StreamResults,
    check_source,
)
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._errors import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    Failure,
    InputError,
    ResponseError,
)
from pinecone_embed_async._foreign import Cancellations, Neighbour, StrayCancellationError
from pinecone_embed_async._inputs import SLICE, ReadInputs, iter_texts, read_inputs, text_of
from pinecone_embed_async._planning import (
    Deduplicator,
    Estimator,
    Learned,
    RequestLimits,
    RequestPlanner,
    Requests,
    Splitter,
)
from pinecone_embed_async._rate_limit import LimiterOptions, Quota, RateLimitGate, SharedQuota, limiter_options
from pinecone_embed_async._results import (
    DenseEmbeddings,
    Dimension,
    SparseEmbeddings,
    SparseVector,
    all_steps,
    summed_up,
    with_outcome,
)
from pinecone_embed_async._sending import (
    Discovery,
    Engine,
    EngineOptions,
    RetryPolicy,
    check_api_key,
    check_base_url,
    check_ssl_context,
    user_agent,
)
from pinecone_embed_async._telemetry import CallObservation, ObservedCall, dispatcher_of
from pinecone_embed_async._wire import decode_model, decode_models, encode_parameters, encode_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import (
        AsyncIterator,
        Awaitable,
        Callable,
        Coroutine,
        Generator,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from concurrent.futures import Executor
    from types import TracebackType
    from typing import Self, TypedDict, Unpack

    import aiohttp
    from numpy.typing import NDArray
    from yarl import URL

    from pinecone_embed_async._cache import Cache, KeyMaker
    from pinecone_embed_async._calls import Outcomes, SingleResults, Source
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._inputs import Input, Inputs
    from pinecone_embed_async._planning import Estimate, OutcomeRecorder, PendingInputs, PlannedRequest, Sink
    from pinecone_embed_async._rate_limit import PlanName, Priority, QuotaBackend, TokenStatistics
    from pinecone_embed_async._sending import Transport
    from pinecone_embed_async._telemetry import Hook, Operation
    from pinecone_embed_async._wire import DecoderName, ModelInfo, VectorType

DEFAULT_BASE_URL = "https://api.pinecone.io"
"""Source: `servers` in the reference of the inference API, 2025-10."""

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a call; passed to `progress` after each settled request.

    Attributes:
        done: inputs embedded.
        failed: inputs failed.
        total: inputs of the call (distinct ones with `dedupe`); `None` for a stream, whose length is unknown.
        requests: requests answered.
        tokens: tokens billed.
        retries: attempts beyond the first, of the whole client.
    """

    done: int
    failed: int
    total: int | None
    requests: int
    tokens: int
    retries: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of a client since its creation.

    Attributes:
        attempts: requests sent, retries included.
        answers: requests answered with embeddings.
        retries: attempts beyond the first of a request.
        rejections: attempts rejected for going over a limit of the service (429).
        unreadable_answers: answers that could not be read or did not match; they were billed.
        inputs: inputs embedded.
        tokens: tokens billed, as far as the answers report them.
        in_flight: requests now on the wire or being decoded.
        concurrency: requests that may be in flight now; fewer than `max_concurrency` after overloads and time-outs.
        waiting: requests that now wait for a permit: for one in flight to end, or for the quota.
        quotas: known limit and usage of tokens, for each model and input type with requests so far; with a `SharedQuota`,
            of all clients that share it.
        waited: seconds that requests spent waiting for the quota.
        bytes_per_token: UTF-8 bytes of text per token, estimated from the bills so far.
        decoder: `"native"` or `"msgspec"`.
        joined: calls of `embed_one` answered with a vector.
        joined_requests: requests that answered them.
        cache_hits: inputs found in the cache.
        cache_misses: inputs looked up in the cache and not found.
        retry_budget: retry tokens left, of 100; a failure of the service or the connection takes one, an answer returns
            one, and below 50 one request is in flight at a time.
    """

    attempts: int
    answers: int
    retries: int
    rejections: int
    unreadable_answers: int
    inputs: int
    tokens: int
    in_flight: int
    concurrency: int
    waiting: int
    quotas: tuple[TokenStatistics, ...]
    waited: float
    bytes_per_token: float
    decoder: str
    joined: int
    joined_requests: int
    cache_hits: int
    cache_misses: int
    retry_budget: int


@dataclass(slots=True, repr=False, eq=False)
class _Job:
    """Validated settings of one call or stream."""

    parameters: dict[str, Any]
    encoded: bytes
    limits: Callable[[], RequestLimits]
    dimension: int | None
    deadline: float | None
    priority: Priority
    key_maker: KeyMaker | None


@dataclass(slots=True, repr=False, eq=False)
class _Call:
    """The inputs of one call of `embed`; with `dedupe`, `positions` maps each input to its text in `texts`."""

    texts: Sequence[str]
    builder: ResultBuilder
    positions: NDArray[np.intp] | None
    usable: NDArray[np.intp] | None = None
    """Positions of the valid texts; `None` if all inputs are valid."""

    @property
    def count(self) -> int:
        return len(self.texts)

    def usable_texts(self) -> Sequence[str]:
        return self.texts if self.usable is None else [self.texts[position] for position in self.usable.tolist()]


class _SingleCall:
    """One validated call of `embed_one`.

    Args:
        key: cache key of the text; `None` without a cache.

    Attributes:
        observation: reports to the hooks; `None` without hooks.
        is_cached: whether the cache had the vector.
        join: embeds the text in a request shared with other calls. It holds the only reference to the text.
    """

    __slots__ = ("is_cached", "join", "key", "observation")

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.is_cached = False
        self.observation: CallObservation | None = None
        self.join: Callable[[], Coroutine[Any, Any, NDArray[np.float32] | SparseVector | BaseException]]

    def totals(self, is_well: bool) -> dict[str, int]:  # noqa: FBT001 - it is called with one argument
        """The totals reported to the hooks."""
        return {"embedded" if is_well else "failed": 1, "cached": int(self.is_cached)}


if TYPE_CHECKING:

    class _Options(TypedDict, total=False):
        """Keyword arguments shared by the overloads of `EmbedClient`."""

        api_key: str | None
        base_url: str | None
        api_version: str
        parameters: Mapping[str, Any] | None
        quota: Quota | PlanName | SharedQuota | QuotaBackend | None
        retry: RetryPolicy
        max_concurrency: int
        max_batch_size: int | None
        attempt_timeout: float
        connect_timeout: float
        max_answer_bytes: int
        session: aiohttp.ClientSession | None
        ssl_context: ssl.SSLContext | None
        transport: Transport | None
        source_tag: str | None
        allow_http: bool
        decoder: DecoderName | None
        max_delay: float
        hooks: Iterable[Hook]
        cache: Cache | None
        look_up_model: bool | None
        clock: Clock | None
        draw: Callable[[], float]
        executor: Executor | None

    class _OneOptions(TypedDict, total=False):
        """Keyword arguments shared by the overloads of `EmbedClient.embed_one`."""

        input_type: str | None
        parameters: Mapping[str, Any] | None
        timeout: float | None
        priority: Priority


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
        api_version: the `X-Pinecone-Api-Version` header.
        parameters: model parameters for every call; a call's own are merged over them, key by key.
        quota: paces requests so that few are rejected: the name of a plan (`"starter"`, `"builder"`, `"standard"`,
            `"enterprise"`), a custom `Quota`, or a `SharedQuota` for several clients. By default the limits are learned from
            rejections.
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
        self: EmbedClient[DenseEmbeddings],
        model: Literal["multilingual-e5-large", "llama-text-embed-v2"],
        *,
        vector_type: Literal["dense"] | None = None,
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[SparseEmbeddings],
        model: Literal["pinecone-sparse-english-v0"],
        *,
        vector_type: Literal["sparse"] | None = None,
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[DenseEmbeddings],
        model: str,
        *,
        vector_type: Literal["dense"],
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[SparseEmbeddings],
        model: str,
        *,
        vector_type: Literal["sparse"],
        **options: Unpack[_Options],
    ) -> None: ...
    @overload
    def __init__(
        self: EmbedClient[DenseEmbeddings | SparseEmbeddings],
        model: str,
        *,
        vector_type: None = None,
        **options: Unpack[_Options],
    ) -> None: ...
    def __init__(
        self,
        model: str,
        *,
        vector_type: str | None = None,
        api_key: str | None = None,
        base_url: str | None = None,
        api_version: str = "2025-10",
        parameters: Mapping[str, Any] | None = None,
        quota: Quota | PlanName | SharedQuota | QuotaBackend | None = None,
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
        model = _model_name("model", model)
        key = os.environ.get("PINECONE_API_KEY") if api_key is None else _checks.text("api_key", api_key)
        if not key:
            raise ConfigurationError("there is no API key: set PINECONE_API_KEY or pass api_key")
        given = "" if base_url is None else _checks.text("base_url", base_url)
        host = given or os.environ.get("PINECONE_CONTROLLER_HOST") or DEFAULT_BASE_URL
        max_concurrency = _checks.whole("max_concurrency", max_concurrency)
        max_answer_bytes = _checks.whole("max_answer_bytes", max_answer_bytes)
        if max_batch_size is not None:
            max_batch_size = _checks.whole("max_batch_size", max_batch_size)
        attempt_timeout = _checks.seconds("attempt_timeout", attempt_timeout)
        connect_timeout = _checks.seconds("connect_timeout", connect_timeout)
        max_delay = _checks.seconds("max_delay", max_delay)
        api_version = _checks.text("api_version", api_version)
        if not api_version or not api_version.isascii() or not api_version.isprintable() or " " in api_version:
            raise ConfigurationError("api_version must be a date such as 2025-10")
        allow_http = _checks.truth("allow_http", allow_http)
        if look_up_model is not None:
            look_up_model = _checks.truth("look_up_model", look_up_model)
        if source_tag is not None:
            source_tag = _checks.text("source_tag", source_tag)
        _check_parts(retry=retry, session=session, transport=transport, clock=clock, draw=draw, executor=executor)
        if transport is not None and ssl_context is not None:
            raise ConfigurationError("pass either ssl_context or transport: the transport replaces aiohttp")
        check_ssl_context(ssl_context)
        self._base_url = check_base_url(host, allow_http=allow_http)
        self._dispatcher = dispatcher_of(hooks)
        should_ask = model not in _models.KNOWN_MODELS if look_up_model is None else look_up_model
        self._clock = clock or SystemClock()
        # One for the client's lifetime: it holds the tasks of sources that were left running.
        self._sources = Neighbour("the source", self._clock)
        self._cache = None if cache is None else _client_cache(cache, self._base_url, api_version, model, self._clock)
        self._executor = executor
        self._discovery = Discovery(is_wanted=should_ask, clock=self._clock)
        self._model = model
        self._parameters = _models.checked_parameters(parameters)
        self._max_batch_size = max_batch_size
        self._max_concurrency = max_concurrency
        self._closed = False
        self._learned = Learned()
        self._schedulers: dict[Scheduler, None] = {}
        # Waits for foreign code before a scheduler exists.
        self._scopes: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._max_delay = max_delay
        self._joined = JoinedCounts()
        self._single_calls_by_loop: dict[tuple[int, asyncio.AbstractEventLoop], SingleCalls] = {}
        kind = _models.vector_type_of(model, vector_type)
        self._gate = _gate_of(quota, kind, self._clock)
        self._engine = Engine(
            EngineOptions(
                model=model,
                api_key=check_api_key(key),
                base_url=self._base_url,
                api_version=api_version,
                vector_type=kind,
                retry=retry or RetryPolicy(),
                is_patient=retry is not None,
                max_concurrency=max_concurrency,
                attempt_timeout=attempt_timeout,
                connect_timeout=connect_timeout,
                max_answer_bytes=max_answer_bytes,
                decoder=decoder,
                session=session,
                transport=transport,
                user_agent=user_agent(source_tag),
                dispatcher=self._dispatcher,
                ssl_context=ssl_context,
                executor=executor,
            ),
            self._gate,
            clock=self._clock,
            draw=draw,
        )

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<EmbedClient {self._model!r}, {self._engine.in_flight} in flight{state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an EmbedClient cannot be pickled: it holds connections and a key; make one in each process")

    def __del__(self) -> None:
        # Missing if the constructor failed.
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.abandon()

    async def __aenter__(self) -> Self:
        self._closed = False
        await self._engine.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the running calls and close the connections.

        Requests in flight have a few seconds to be answered; their calls raise `ClosedError` with what was embedded.
        Later calls raise it, too, until the client is entered again.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        # A copy, because other threads may add theirs meanwhile.
        schedulers = [scheduler for scheduler in self._schedulers.copy() if scheduler.loop is loop]
        single_calls = self._single_calls_by_loop.get((os.getpid(), loop))
        for scope in [scope for scope, place in list(self._scopes.items()) if place is loop]:
            if not scope.expired():
                scope.reschedule(0)
        for scheduler in schedulers:
            scheduler.stop(ClosedError("the client was closed before all inputs were embedded"))
        try:
            if single_calls is not None:
                single_calls.stop(ClosedError("the client was closed before the text was embedded"))
                await single_calls.drained()
            for scheduler in schedulers:
                await scheduler.drained()
        finally:
            # Also if waiting for them is cancelled.
            await self._engine.aclose()

    def statistics(self) -> Statistics:
        """Counts since the client was created; may be called from any thread."""
        engine = self._engine
        counters = engine.counters
        quotas = self._gate.statistics()
        return Statistics(
            attempts=counters.attempts,
            answers=counters.answers,
            retries=counters.retries,
            rejections=counters.rejections,
            unreadable_answers=counters.unreadable_answers,
            inputs=counters.inputs,
            tokens=counters.tokens,
            in_flight=engine.in_flight,
            concurrency=engine.concurrency,
            waiting=engine.waiting,
            quotas=quotas,
            waited=sum(quota.waited for quota in quotas),
            bytes_per_token=self._learned.estimator.expected,
            decoder=engine.decoder_name,
            joined=self._joined.calls,
            joined_requests=self._joined.requests,
            cache_hits=0 if self._cache is None else self._cache.hits,
            cache_misses=0 if self._cache is None else self._cache.misses,
            retry_budget=engine.budget.tokens,
        )

    async def embed(
        self,
        inputs: Inputs,
        *,
        input_type: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the error carries what was embedded
        on_error: Literal["raise", "return"] = "raise",
        priority: Priority = "bulk",
        dedupe: bool = False,
        progress: Callable[[Progress], None] | None = None,
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
            parameters: of the model, merged over the client's.
            timeout: seconds for the whole call.
            on_error: `"raise"` raises once all other inputs are settled, with the successful embeddings in the error's
                `partial`; `"return"` returns them, failed rows NaN (sparse: empty), with the causes in `failures`. This
                includes inputs that are not texts, such as missing values.
            priority: `"interactive"` requests go before `"bulk"` ones, of which one is still sent every few seconds; calls
                of one priority share evenly.
            dedupe: send equal texts once; every input still has its own row.
            progress: called in the event loop after each settled request. An exception that it raises ends the call, as the
                cause of an `EmbedError` with what was embedded.

        Returns:
            `DenseEmbeddings` with float32 vectors of shape (inputs, dimension), or `SparseEmbeddings`.

        Raises:
            InputError: inputs are not texts (the error counts them), or have no order; nothing was sent.
            ConfigurationError: the parameters are invalid; nothing was sent.
            ApiError: the service refused inputs, or failed in every attempt that the policy allows.
            TransportError: the connection failed in every attempt.
            ResponseError: the answer could not be read in any attempt.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        read: ReadInputs | None = None
        try:
            self._check_open()
            raises = _should_raise(on_error)
            dedupe = _checks.truth("dedupe", dedupe)
            if progress is not None:
                _checks.callback("progress", progress)
            job = self._job(input_type, parameters, self._deadline(timeout), priority)
            read = await self._read_until(inputs, job.deadline)
            problem = read.error() if raises else None
            if problem is not None:
                raise problem
            call = await self._call(job, read, dedupe=dedupe)
        finally:
            # Error reports that include the locals of frames must show no texts.
            del inputs
            read = None
        # Reading an async iterable may take a while.
        self._check_open()
        if call.count:
            job = await self._with_discovery(job, input_type, parameters)
        builder = call.builder
        observation = self._observe("embed", job, call.count, lambda _: _totals(builder, builder.account, call.count))
        with observation or contextlib.nullcontext():
            return await self._carry_out(job, call, observation, progress, raises=raises)

    async def _carry_out(
        self,
        job: _Job,
        call: _Call,
        observation: CallObservation | None,
        progress: Callable[[Progress], None] | None,
        *,
        raises: bool,
    ) -> EmbeddingsT:
        """Embed the inputs that `embed` has read."""
        builder = call.builder
        if self._cache is None or job.key_maker is None:
            requests = Requests(call.usable_texts(), job.limits)
        else:
            missing = await self._look_up(self._cache, job, job.key_maker, call)
            self._check_open()
            requests = Requests((call.texts[position] for position in missing), job.limits)
        is_single = call.count - builder.cached_count - builder.account.failed_count == 1
        planner = self._planner(job, requests, builder, is_single=is_single)
        report = self._reporter(progress, builder, builder.account, call.count)
        scheduler = self._scheduler(planner, job, builder, job.deadline, settled=report, calls=_calls_of(observation))
        with self._registered(scheduler):
            async with scheduler.running():
                if builder.cached_count:
                    scheduler.report()
        result = await _run_in_slices(builder.finish(self._model, self._engine.vector_type, call.positions))
        if scheduler.error is not None:
            # Raised with `on_error="return"` as well, which covers failed inputs only.
            raise with_outcome(scheduler.error, result)
        is_complete = builder.account.embedded_count == call.count
        # The last answer may have come after the job had ended; then nothing is missing.
        error: EmbedError | None = None
        if not is_complete:
            error = planner.job_error or builder.account.first_error()
            if error is None and not result.failures:
                raise with_outcome(EmbedError("the call ended before all inputs were tried, for an unknown reason"), result)
        if error is not None and raises:
            raise with_outcome(error, result) if planner.job_error is not None else summed_up(error, result)
        return cast("EmbeddingsT", result)

    async def _read_until(self, inputs: Inputs, deadline: float | None) -> ReadInputs:
        """Read the inputs until the deadline, or until the client is closed."""
        problem: EmbedError | None = None
        if type(inputs) is str:
            # Nothing blocks, and setting up the scope takes longer than reading one text.
            read = ReadInputs()
            read.add(inputs)
            return read
        cancellations = await Cancellations.counted()
        try:
            async with self._interruptible(deadline) as scope:
                if isinstance(inputs, AsyncIterable):
                    return await self._sources.ask(read_inputs(inputs))
                return await read_inputs(inputs)
        except InputError as error:
            # A traceback would keep frames, and so texts, alive.
            problem = error.with_traceback(None)
        except TimeoutError:
            # The source's own time-outs are the caller's to handle.
            if not scope.expired():
                raise
            problem = DeadlineExceededError("the deadline of the call passed while its inputs were read")
        except (StopAsyncIteration, StrayCancellationError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and cancellations.is_callers:
                raise
            name = "StopAsyncIteration" if isinstance(error, StopAsyncIteration) else "CancelledError"
            problem = EmbedError(
                f"the source of the inputs raised {name}, which is neither its end nor the caller's cancellation"
            )
        finally:
            del inputs
        self._check_open()
        raise problem

    async def _call(self, job: _Job, read: ReadInputs, *, dedupe: bool) -> _Call:
        texts, failures, positions, usable = read.texts, read.failures(), None, None
        room = len(texts)
        if dedupe:
            # Inputs with the same fault share one row, too.
            keys: list[str | int] = [*texts]
            for number, failure in enumerate(failures):
                for index in failure.indices:
                    keys[index] = number
            distinct = Deduplicator(room)
            for start in range(0, room, SLICE):
                distinct.add(keys[start : start + SLICE])
                await asyncio.sleep(0)
            positions = distinct.positions
            if positions is not None:
                keys = distinct.keys
                rows = {key: row for row, key in enumerate(keys) if isinstance(key, int)}
                failures = tuple(Failure([rows[number]], failure.error) for number, failure in enumerate(failures))
                texts = [key if isinstance(key, str) else "" for key in keys]
        builder = ResultBuilder(0, len(texts), Dimension(job.dimension), room)
        if failures:
            refused = np.concatenate([np.asarray(failure.indices, np.intp) for failure in failures])
            usable = np.setdiff1d(np.arange(len(texts)), refused)
            builder.account.refuse(failures)
            builder.limit_to(usable)
        return _Call(texts, builder, positions, usable)

    async def _look_up(self, cache: CacheStage, job: _Job, key_maker: KeyMaker, call: _Call) -> list[int]:
        """Take the cached rows of a call, and return the positions of the other texts."""
        builder, texts, usable = call.builder, call.usable_texts(), call.usable
        count = len(texts)
        missing: dict[int, NDArray[np.intp]] = {}
        starts = iter(range(0, count, LOOKED_UP_AT_ONCE))
        problems: list[EmbedError] = []

        async def look_up_parts() -> None:
            for start in starts:
                keys = key_maker.keys_of(texts[start : start + LOOKED_UP_AT_ONCE])
                try:
                    values = await cache.values(keys)
                    for at in range(0, len(values), READ_AT_ONCE):
                        found = cache.read(values[at : at + READ_AT_ONCE], self._engine.vector_type, builder.dimension)
                        self._engine.learn_vector_type(found.vector_type)
                        if usable is None:
                            builder.found(found, start + at)
                        else:
                            builder.found(replace(found, rows=usable[found.rows + start + at]))
                        missing[start + at] = found.missing + start + at
                        await asyncio.sleep(0)
                except EmbedError as error:
                    # Not raised here: Python 3.11's task groups leave the caller marked as cancelled when a task fails.
                    problems.append(error.with_traceback(None))
                    return

        with contextlib.suppress(TimeoutError):
            async with self._interruptible(job.deadline), asyncio.TaskGroup() as group:
                # The cache looks up one part while the rows of another are copied.
                for _ in range(2):
                    group.create_task(look_up_parts(), name="look up inputs")
        if problems:
            raise problems[0]
        # After the deadline, the scheduler reports it for everything that was not looked up.
        parts = [
            missing[start] if start in missing else np.arange(start, min(start + READ_AT_ONCE, count))
            for start in range(0, count, READ_AT_ONCE)
        ]
        misses = np.concatenate([np.empty(0, np.intp), *parts])
        misses = misses if usable is None else usable[misses]
        if builder.cached_count:
            builder.limit_to(misses)
        positions: list[int] = misses.tolist()
        return positions

    @overload
    async def embed_one(
        self: EmbedClient[DenseEmbeddings], text: Input, **options: Unpack[_OneOptions]
    ) -> NDArray[np.float32]: ...
    @overload
    async def embed_one(
        self: EmbedClient[SparseEmbeddings], text: Input, **options: Unpack[_OneOptions]
    ) -> SparseVector: ...
    @overload
    async def embed_one(
        self: EmbedClient[DenseEmbeddings | SparseEmbeddings], text: Input, **options: Unpack[_OneOptions]
    ) -> NDArray[np.float32] | SparseVector: ...
    async def embed_one(
        self,
        text: Input,
        *,
        input_type: str | None = None,
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
        problem: InputError | None = None
        try:
            self._check_open()
            job = self._job(input_type, parameters, self._deadline(timeout), priority)
            text = text_of(text, 0)
            job = await self._with_discovery(job, input_type, parameters)
            single = self._single(job, text)
        except InputError as error:
            # A traceback would keep frames, and so texts, alive.
            problem = error.with_traceback(None)
        finally:
            # Error reports that include the locals of frames must show no texts.
            del text
        if problem is not None:
            raise problem
        with single.observation or contextlib.nullcontext():
            if single.key is not None:
                with self._single_calls().expect((job.encoded, job.priority)):
                    vector = await self._cached_vector(job, single)
                if vector is not None:
                    return vector
                # The client may have been closed meanwhile.
                self._check_open()
            outcome = await single.join()
            if isinstance(outcome, BaseException):
                try:
                    raise outcome
                finally:
                    # The error's traceback holds this frame: a reference cycle.
                    del outcome
            return outcome

    def _single(self, job: _Job, text: str) -> _SingleCall:
        """Prepare a call of `embed_one`."""
        single = _SingleCall(None if job.key_maker is None else job.key_maker.keys_of([text])[0])
        single.observation = self._observe("embed_one", job, 1, single.totals)

        def join() -> Coroutine[Any, Any, NDArray[np.float32] | SparseVector | BaseException]:
            return self._single_calls().call(
                text,
                key=(job.encoded, job.priority),
                limits=job.limits(),
                dimension=job.dimension,
                deadline=job.deadline,
                scheduler_of=lambda texts, results, deadline: self._joined_scheduler(job, texts, results, deadline),
                observed=None if single.observation is None else single.observation.subject,
            )

        single.join = join
        return single

    async def _cached_vector(self, job: _Job, single: _SingleCall) -> NDArray[np.float32] | SparseVector | None:
        """A copy of the cached vector of a single text; `None` if there is none."""
        if self._cache is None or single.key is None:
            return None
        try:
            async with self._interruptible(job.deadline):
                value = await self._cache.value(single.key)
        except TimeoutError:
            # Joining a request after the deadline raises the right error.
            return None
        found = self._cache.read([value], self._engine.vector_type, job.dimension)
        self._engine.learn_vector_type(found.vector_type)
        single.is_cached = found.vector_type is not None
        if found.dense is not None:
            vector: NDArray[np.float32] = found.dense[0].copy()
            return vector
        if found.sparse is not None:
            return SparseVector(found.sparse.indices.copy(), found.sparse.values.copy())
        return None

    def _single_calls(self) -> SingleCalls:
        """The single calls of the running loop; their tasks are of no use in another loop or process."""
        place = os.getpid(), asyncio.get_running_loop()
        single_calls = self._single_calls_by_loop.get(place)
        if single_calls is None:
            for other in self._single_calls_by_loop.copy():
                if other[1].is_closed():
                    self._single_calls_by_loop.pop(other, None)
            single_calls = self._single_calls_by_loop[place] = SingleCalls(
                clock=self._clock, max_delay=self._max_delay, max_under_way=self._max_concurrency, joined=self._joined
            )
        return single_calls

    def _joined_scheduler(
        self, job: _Job, texts: Sequence[str], results: SingleResults, deadline: float | None
    ) -> Scheduler:
        planner = self._planner(job, Requests(texts, job.limits), results, is_single=len(texts) == 1)
        return self._scheduler(planner, job, results, deadline, settled=lambda: None, calls=lambda: results.calls)

    def stream(
        self,
        source: Source[ItemT],
        *,
        text: Callable[[ItemT], Input] | None = None,
        ordered: bool = True,
        window: int | None = None,
        input_type: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        on_error: Literal["raise", "return"] = "raise",
        priority: Priority = "bulk",
        progress: Callable[[Progress], None] | None = None,
        in_thread: bool = False,
        max_delay: float = 0.5,
    ) -> contextlib.AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]]:
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
            parameters: of the model, merged over the client's.
            timeout: seconds for the whole stream.
            on_error: `"raise"` raises the error of a batch in its place; `"return"` yields the batch, failed rows NaN
                (sparse: empty), with the causes in `failures`.
            priority: `"interactive"` or `"bulk"`; see `embed`.
            progress: called in the event loop after each settled request. An exception that it raises ends the stream, as
                the cause of an `EmbedError` raised after everything that was embedded.
            in_thread: pull a synchronous source in a thread, because it may block.
            max_delay: maximum seconds that an item of an asynchronous source waits for others to share its request.

        Returns:
            An async context manager over an `EmbeddingStream`, an async iterator of `EmbeddedBatch`.

        Raises:
            InputError: `source` is not an iterable, or is a single text.
            ConfigurationError: an argument is invalid; nothing was sent.
            ClosedError: the client is closed.
        """
        self._check_open()
        check_source(source)
        raises = _should_raise(on_error)
        for name, callback in (("text", text), ("progress", progress)):
            if callback is not None:
                _checks.callback(name, callback)
        window = 2 * self._max_concurrency if window is None else _checks.whole("window", window)
        max_delay = _checks.seconds("max_delay", max_delay)
        checked = self._job(input_type, parameters, self._deadline(timeout), priority)

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[EmbeddingStream[ItemT, EmbeddingsT]]:
            self._check_open()
            job = await self._with_discovery(checked, input_type, parameters)
            dimension = Dimension(job.dimension)
            batches = StreamResults(dimension, job.limits, ordered=ordered, looks_up=job.key_maker is not None)
            ahead = ReadAhead(batches, window)
            planner = self._planner(job, batches.pending, batches, is_single=False)
            stream: EmbeddingStream[ItemT, EmbeddingsT] = EmbeddingStream(
                batches,
                planner,
                lambda builder: cast("EmbeddingsT", all_steps(builder.finish(self._model, self._engine.vector_type))),
                ResultBuilder(0, 0, dimension),
                ahead,
                raises=raises,
            )
            report = self._reporter(progress, batches, batches, None)
            observation = self._observe("stream", job, None, lambda _: _totals(batches, batches, None))
            scheduler = self._scheduler(
                planner,
                job,
                batches,
                job.deadline,
                settled=report,
                changed=stream.changed,
                window=window,
                calls=_calls_of(observation),
            )

            reader = SourceReader(
                source,
                text,
                Splitter(job.limits),
                ahead,
                clock=self._clock,
                in_thread=in_thread,
                executor=self._executor,
                max_delay=max_delay,
                neighbour=self._sources if isinstance(source, AsyncIterable) else None,
            )
            look_up = None
            if self._cache is not None and job.key_maker is not None:
                look_up = self._batch_look_up(self._cache, job.key_maker, batches, dimension, scheduler)
            with observation or contextlib.nullcontext(), self._registered(scheduler):
                async with stream.running(scheduler, reader, look_up):
                    yield stream

        return opened()

    def _batch_look_up(
        self, cache: CacheStage, key_maker: KeyMaker, batches: StreamResults, dimension: Dimension, scheduler: Scheduler
    ) -> Callable[[PlannedRequest], Awaitable[None]]:
        """A function that looks up a batch of a stream in the cache, and sends what is missing."""

        async def look_up(request: PlannedRequest) -> None:
            values = await cache.values(key_maker.keys_of(request.texts))
            # Read after the look-up: the first answer may have settled the type and dimension meanwhile.
            found = cache.read(values, self._engine.vector_type, dimension.value)
            self._engine.learn_vector_type(found.vector_type)
            batches.looked_up(request, found)
            if len(found.rows):
                scheduler.report()
            scheduler.fill()
            scheduler.notify()

        return look_up

    def estimate(
        self,
        inputs: Input | Iterable[Input],
        *,
        input_type: str | None = None,
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
            parameters: of the model, merged over the client's.
            dedupe: count equal texts once.

        Raises:
            InputError: an input is not a text.
            ConfigurationError: the parameters are invalid.
        """
        merged, _ = self._checked_parameters(parameters, input_type)
        vector_type = self._engine.vector_type
        estimator = Estimator(
            self._limits(merged),
            vector_type,
            merged.get("input_type"),
            dedupe=_checks.truth("dedupe", dedupe),
            bytes_per_token=self._learned.estimator.expected,
        )
        estimator.add(iter_texts(inputs))
        return estimator.result()

    def _deadline(self, timeout: float | None) -> float | None:
        """The deadline of a call, by the clock."""
        if timeout is None:
            return None
        return self._clock.time() + _checks.seconds("timeout", timeout)

    async def _with_discovery(self, job: _Job, input_type: str | None, parameters: Mapping[str, Any] | None) -> _Job:
        """The settings of a call, adapted to the service's description of the model, which is fetched once."""
        if self._discovery.is_done:
            return job
        # If the call's deadline has passed, the scheduler reports it.
        with contextlib.suppress(TimeoutError):
            async with self._clock.timeout_at(job.deadline):
                await self._discovery.ask(self._describe_once)
        self._check_open()
        if self._discovery.model is not None:
            self._engine.learn_vector_type(self._discovery.model.vector_type)
        return self._job(input_type, parameters, job.deadline, job.priority)

    async def _describe_once(self) -> ModelInfo:
        self._check_open()
        path = f"models/{quote(self._model, safe='')}"
        return _decoded(decode_model, await self._engine.get(path, {}, is_tried_once=True))

    @property
    def _known_model(self) -> _models.KnownModel | None:
        return self._discovery.model or _models.KNOWN_MODELS.get(self._model)

    def _job(
        self, input_type: str | None, parameters: Mapping[str, Any] | None, deadline: float | None, priority: Priority
    ) -> _Job:
        """Validate the settings of a call or stream."""
        priority = cast("Priority", _checks.one_of("priority", priority, ("interactive", "bulk")))
        merged, encoded = self._checked_parameters(parameters, input_type)
        limits = self._limits(merged)
        return _Job(
            parameters=merged,
            encoded=encoded,
            limits=lambda: self._learned.applied_to(limits),
            dimension=_models.expected_dimension(self._model, merged),
            deadline=deadline,
            priority=priority,
            key_maker=None if self._cache is None else self._cache.key_maker(encode_parameters(merged)),
        )

    def _planner(self, job: _Job, pending: PendingInputs, outcomes: OutcomeRecorder, *, is_single: bool) -> RequestPlanner:
        return RequestPlanner(
            pending,
            outcomes,
            limits=job.limits,
            learned=self._learned,
            parameters=job.encoded,
            is_single=is_single,
            now=self._clock.time,
        )

    def _scheduler(
        self,
        planner: RequestPlanner,
        job: _Job,
        sink: Sink,
        deadline: float | None,
        *,
        settled: Callable[[], None],
        changed: Callable[[], None] = lambda: None,
        window: int | None = None,
        calls: Callable[[], tuple[ObservedCall, ...]] = tuple,
    ) -> Scheduler:
        estimator = self._learned.estimator

        def learn(request: PlannedRequest, billed: int) -> None:
            estimator.learn(request, billed, job.limits().sequence_length)

        writer = None
        if self._cache is not None and job.key_maker is not None:
            writer = self._cache.writer(sink, job.key_maker)

        sender = self._engine.sender(
            job.parameters,
            writer or sink,
            job.limits,
            learn,
            deadline=deadline,
            priority=job.priority,
            calls=calls,
        )
        return Scheduler(
            planner,
            sender.permit_for,
            sender.send,
            window=window or 2 * self._max_concurrency,
            clock=self._clock,
            deadline=deadline,
            settled=settled,
            changed=changed,
            keep=None if writer is None else writer.keep,
        )

    def _observe(
        self, operation: Operation, job: _Job, inputs: int | None, totals: Callable[[bool], dict[str, int]]
    ) -> CallObservation | None:
        """Reports a call to the hooks; `None` without hooks."""
        if self._dispatcher is None:
            return None
        input_type = job.parameters.get("input_type")
        subject = ObservedCall(
            operation,
            self._model,
            server_address=self._base_url.host or "",
            server_port=self._base_url.port or 0,
            inputs=inputs,
            input_type=input_type if isinstance(input_type, str) else None,
            dimension=job.dimension,
        )
        return CallObservation(self._dispatcher, self._clock, subject, totals)

    def _interruptible(self, deadline: float | None) -> _Interruptible:
        """A scope for awaiting foreign code until the deadline, or until the client is closed."""
        return _Interruptible(self._clock.timeout_at(deadline), self._scopes)

    @contextlib.contextmanager
    def _registered(self, scheduler: Scheduler) -> Iterator[None]:
        """Let `aclose` stop the scheduler while the block runs."""
        self._schedulers[scheduler] = None
        try:
            yield
        finally:
            del self._schedulers[scheduler]

    def _reporter(
        self,
        progress: Callable[[Progress], None] | None,
        results: ResultBuilder | StreamResults,
        counts: Outcomes | StreamResults,
        total: int | None,
    ) -> Callable[[], None]:
        """A function that calls `progress` with the progress of a call or stream."""
        if progress is None:
            return lambda: None

        def report() -> None:
            progress(
                Progress(
                    done=counts.embedded_count,
                    failed=counts.failed_count,
                    total=total,
                    requests=results.usage.requests,
                    tokens=results.usage.total_tokens,
                    retries=self._engine.counters.retries,
                )
            )

        return report

    async def list_models(self) -> list[ModelInfo]:
        """List the embedding models that the service offers.

        Raises:
            EmbedError: the request failed, or the answer could not be read.
        """
        self._check_open()
        body = await self._engine.get("models", {"type": "embed"})
        return _decoded(decode_models, body)

    async def describe_model(self, name: str | None = None) -> ModelInfo:
        """Fetch the service's description of a model.

        Args:
            name: name of the model; defaults to the client's.

        Raises:
            ConfigurationError: `name` is not a valid name.
            NotFoundError: the service does not know the model.
            EmbedError: the request failed, or the answer could not be read.
        """
        self._check_open()
        model = self._model if name is None else _model_name("name", name)
        body = await self._engine.get(f"models/{quote(model, safe='')}", {})
        return _decoded(decode_model, body)

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the client is closed; open it again with `async with`")

    def _checked_parameters(
        self, parameters: Mapping[str, Any] | None, input_type: str | None
    ) -> tuple[dict[str, Any], bytes]:
        """The parameters of a call, and their JSON."""
        merged = _models.merge_parameters(self._parameters, parameters, input_type)
        known = self._known_model
        # Until the service has described the model, the built-in description may be outdated.
        if known is not None and self._discovery.is_done:
            known.check(merged)
        problem = None
        try:
            encoded = encode_request(self._model, (), merged)
        except (TypeError, ValueError, RecursionError) as error:
            problem = str(error)
        if problem is not None:
            raise ConfigurationError(f"the parameters have no JSON form: {problem}")
        return merged, encoded

    def _limits(self, parameters: Mapping[str, Any]) -> RequestLimits:
        known = self._known_model
        inputs = _models.DEFAULT_MAX_BATCH_SIZE if known is None else known.max_batch_size
        length = _models.DEFAULT_MAX_SEQUENCE_LENGTH if known is None else known.sequence_length(parameters)
        if self._max_batch_size is not None:
            # A known model accepts no larger batches.
            inputs = self._max_batch_size if known is None else min(inputs, self._max_batch_size)
        return RequestLimits(inputs=inputs, sequence_length=length)


class _Interruptible:
    """A time-out that `aclose` can trigger; leaving an expired one raises a `TimeoutError`."""

    __slots__ = ("_listed", "_scope", "_timeout")

    def __init__(
        self,
        timeout: contextlib.AbstractAsyncContextManager[asyncio.Timeout],
        listed: dict[asyncio.Timeout, asyncio.AbstractEventLoop],
    ) -> None:
        self._timeout = timeout
        self._listed = listed
        self._scope: asyncio.Timeout

    async def __aenter__(self) -> asyncio.Timeout:
        self._scope = await self._timeout.__aenter__()
        self._listed[self._scope] = asyncio.get_running_loop()
        return self._scope

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        del self._listed[self._scope]
        return await self._timeout.__aexit__(kind, error, traceback)


def _gate_of(
    quota: Quota | str | SharedQuota | QuotaBackend | None, vector_type: VectorType | None, clock: Clock
) -> RateLimitGate:
    """The rate limit gate of a quota.

    Raises:
        ConfigurationError: `quota` is not a quota.
    """
    if isinstance(quota, SharedQuota):
        return quota.gate
    if quota is None or isinstance(quota, (str, Quota)):
        return RateLimitGate(limiter_options(quota, vector_type), clock=clock)
    is_backend = all(callable(getattr(quota, name, None)) for name in ("acquire", "settle"))
    if is_backend and not isinstance(quota, type):
        return RateLimitGate(LimiterOptions(), clock=clock, backend=quota)
    raise ConfigurationError(f"quota must be the name of a plan, a Quota or a SharedQuota, got {type(quota).__name__}")


def _client_cache(cache: Cache, base_url: URL, api_version: str, model: str, clock: Clock) -> CacheStage:
    _checks.methods("cache", cache, ("get_many", "put_many"), "SqliteCache(path)")
    address = f"{base_url.scheme}://{base_url.host}:{base_url.port}{base_url.path.rstrip('/')}"
    return CacheStage(cache, address=address, api_version=api_version, model=model, clock=clock)


StepsT = TypeVar("StepsT")


async def _run_in_slices(steps: Generator[None, None, StepsT]) -> StepsT:
    """Run a generator, one step per event loop iteration, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: StepsT = end.value
            return result
        await asyncio.sleep(0)


def _calls_of(observation: CallObservation | None) -> Callable[[], tuple[ObservedCall, ...]]:
    return tuple if observation is None else lambda: (observation.subject,)


def _totals(results: ResultBuilder | StreamResults, counts: Outcomes | StreamResults, count: int | None) -> dict[str, int]:
    """The totals of a call or stream of `count` inputs, reported to the hooks."""
    embedded = counts.embedded_count
    return {
        "embedded": embedded,
        "failed": counts.failed_count if count is None else count - embedded,
        "tokens": results.usage.total_tokens,
        "cached": results.cached_count,
        "attempts": results.usage.requests,
    }


DecodedT = TypeVar("DecodedT")


def _decoded(decode: Callable[[bytes], DecodedT], body: bytes) -> DecodedT:
    problem = None
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = str(error) if isinstance(error, msgspec.DecodeError) else type(error).__name__
    raise ResponseError(f"the answer cannot be read: {problem}")


def _model_name(argument: str, value: object) -> str:
    name = _checks.as_text(value)
    # Dots alone would make another path of the API; a URL cannot hold surrogates.
    if not name or name in (".", "..") or not name.isprintable():
        raise ConfigurationError(f"{argument} must be the name of a hosted model, got {_checks.short(value)}")
    return name


def _should_raise(on_error: object) -> bool:
    return _checks.one_of("on_error", on_error, ("raise", "return")) == "raise"


def _check_parts(
    *, retry: object, session: object, transport: object, clock: object, draw: object, executor: object
) -> None:
    """Refuse parts that cannot replace the client's own."""
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry must be a RetryPolicy, got {_checks.short(retry)}")
    if session is not None and (isinstance(session, type) or not hasattr(session, "connector")):
        raise ConfigurationError(f"session must be an aiohttp.ClientSession, got {type(session).__name__}")
    if transport is not None:
        _checks.methods("transport", transport, ("send",), "MockTransport")
        if session is not None:
            raise ConfigurationError("pass either session or transport: the transport replaces aiohttp")
    if clock is not None:
        _checks.methods("clock", clock, ("time", "wall_time", "sleep", "timeout_at", "call_at"), "Clock")
    if executor is not None:
        _checks.methods("executor", executor, ("submit",), "ThreadPoolExecutor")
    _checks.function("draw", draw)
