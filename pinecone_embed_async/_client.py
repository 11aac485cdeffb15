"""The facade: checks what the caller says, opens and closes, and puts the other modules together."""

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
from pinecone_embed_async._cache import LOOKED_UP_AT_ONCE, READ_AT_ONCE, ClientCache
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._coalesce import Joined, Joiner
from pinecone_embed_async._collector import Collector
from pinecone_embed_async._discovery import Discovery
from pinecone_embed_async._endpoint import check_api_key, check_base_url, user_agent
from pinecone_embed_async._engine import Engine, EngineOptions
from pinecone_embed_async._errors import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    Failure,
    InputError,
    ResponseError,
)
from pinecone_embed_async._estimate import Estimator
from pinecone_embed_async._foreign import Cancellations, Neighbour, StrayCancellationError
from pinecone_embed_async._inputs import SLICE, ReadInputs, iter_texts, read_inputs, text_of
from pinecone_embed_async._limits import LimiterOptions, Quota, SharedQuota, Turnstile, limiter_options
from pinecone_embed_async._plan import Distinct, Learned, Ledger, RequestLimits, Requests, Splitter
from pinecone_embed_async._results import (
    DenseEmbeddings,
    Dimension,
    SparseEmbeddings,
    SparseVector,
    all_steps,
    summed_up,
    with_outcome,
)
from pinecone_embed_async._retry import RetryPolicy
from pinecone_embed_async._sending import check_ssl_context
from pinecone_embed_async._stream import Batches, EmbeddingStream, LookUps, Reader, Run, check_source
from pinecone_embed_async._telemetry import CallObservation, ObservedCall, teller_of
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
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._coalesce import Answers
    from pinecone_embed_async._engine import Destination
    from pinecone_embed_async._estimate import Estimate
    from pinecone_embed_async._inputs import Input, Inputs
    from pinecone_embed_async._limits import PlanName, Priority, QuotaBackend, TokenStatistics
    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._plan import Account, Fresh, Outcomes, PlannedRequest
    from pinecone_embed_async._sending import Transport
    from pinecone_embed_async._stream import Source
    from pinecone_embed_async._telemetry import Hook, Operation
    from pinecone_embed_async._wire import DecoderName, ModelInfo

DEFAULT_BASE_URL = "https://api.pinecone.io"
"""Source: `servers` in the reference of the inference API, 2025-10."""

EmbeddingsT = TypeVar("EmbeddingsT", bound="DenseEmbeddings | SparseEmbeddings")
ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a call has come; passed to `progress` after each request that is settled.

    Attributes:
        done: inputs embedded.
        failed: inputs failed.
        total: inputs of the call (distinct ones with `dedupe`); `None` for a stream, which does not know.
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
    """What a client has done since it was made.

    Attributes:
        attempts: requests sent, retries included.
        answers: requests answered with embeddings.
        retries: attempts beyond the first of a request.
        rejections: attempts rejected for going over a limit of the service (429).
        unreadable_answers: answers that could not be read or did not match; they have been billed.
        inputs: inputs embedded.
        tokens: tokens billed for answers, as far as these say.
        in_flight: requests on the wire or being decoded now.
        concurrency: requests that may be in flight now; fewer than `max_concurrency` after overloads and time-outs.
        waiting: requests that wait for their turn now: for one in flight to end, or for the quota.
        quotas: for each model and input type that something was sent for, what is known of its tokens and used; with a
            `SharedQuota`, of all clients that share it.
        waited: seconds in which requests waited for the quota.
        bytes_per_token: UTF-8 bytes of text that a token stands for, by the bills so far.
        decoder: `"msgspec"` or `"simdjson"`.
        joined: calls of `embed_one` answered with a vector.
        joined_requests: requests that answered them.
        cache_hits: inputs whose vectors the cache had.
        cache_misses: inputs whose vectors were looked for there, and not found.
        retry_budget: what is left of 100; a failure of the service or the connection takes one, an answer gives
            one back, and below 50 one request is in flight at a time.
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
    """What a call or a stream is to do, checked."""

    parameters: dict[str, Any]
    encoded: bytes
    limits: Callable[[], RequestLimits]
    dimension: int | None
    deadline: float | None
    priority: Priority
    maker: KeyMaker | None


@dataclass(slots=True, repr=False, eq=False)
class _Call:
    """A call of `embed` whose inputs are read; if equal ones are merged, `positions` has the place of each in `texts`."""

    texts: Sequence[str]
    collector: Collector
    positions: NDArray[np.intp] | None
    usable: NDArray[np.intp] | None = None
    """The positions of the texts among inputs of which some are none; `None` if all are texts."""

    @property
    def count(self) -> int:
        return len(self.texts)

    def usable_texts(self) -> Sequence[str]:
        return self.texts if self.usable is None else [self.texts[position] for position in self.usable.tolist()]


class _Single:
    """A call of `embed_one` whose text is checked.

    Args:
        key: of the text in the cache; `None` without one.

    Attributes:
        observation: tells the hooks; `None` without any.
        is_cached: whether the cache had the vector.
        join: has the text embedded together with what others ask for. It alone has the text.
    """

    __slots__ = ("is_cached", "join", "key", "observation")

    def __init__(self, key: bytes | None) -> None:
        self.key = key
        self.is_cached = False
        self.observation: CallObservation | None = None
        self.join: Callable[[], Coroutine[Any, Any, NDArray[np.float32] | SparseVector | BaseException]]

    def totals(self, is_well: bool) -> dict[str, int]:  # noqa: FBT001 - it is called with one argument
        """What came of it, as the hooks are told."""
        return {"embedded" if is_well else "failed": 1, "cached": int(self.is_cached)}


if TYPE_CHECKING:

    class _Options(TypedDict, total=False):
        """The keywords that the overloads of `EmbedClient` share; see there."""

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
        """The keywords that the overloads of `EmbedClient.embed_one` share; see there."""

        input_type: str | None
        parameters: Mapping[str, Any] | None
        timeout: float | None
        priority: Priority


class EmbedClient(Generic[EmbeddingsT]):
    """Embeds texts with one of Pinecone's hosted models.

    One client may be awaited from many tasks; they share its connections and its limit of requests in flight.
    It opens with `async with`, or at the first call, and works again in another event loop and after a fork.
    Each event loop has connections and permits of its own.

    ```python
    async with EmbedClient("multilingual-e5-large", quota="standard") as client:
        passages = await client.embed(["first text", "second text"], input_type="passage")
        print(passages.vectors.shape, passages.usage.total_tokens)
    ```

    Args:
        model: name of the hosted model. An unknown name is left to the service.
        vector_type: `"dense"` or `"sparse"`, for models that this package does not know by name.
        api_key: the key; `PINECONE_API_KEY` from the environment if it is left out.
        base_url: where the API is; `PINECONE_CONTROLLER_HOST` from the environment, else Pinecone's, if it is
            left out. Plain HTTP only to this machine.
        api_version: the `X-Pinecone-Api-Version` header.
        parameters: model parameters for every call; a call's own are merged over them, key by key.
        quota: paces requests, so that few are rejected: the name of a plan (`"starter"`, `"builder"`, `"standard"`,
            `"enterprise"`), a `Quota` with figures of its own, or a `SharedQuota` for several clients. If it is left out,
            the limits are learned from rejections.
        retry: how often and how long a request is tried. If it is left out, it is `RetryPolicy()`, and a connection that
            cannot be had before the service's first answer ends the job early; see docs/faults.md.
        max_concurrency: requests in flight at most.
        max_batch_size: inputs per request at most; the model's limit if it is left out.
        attempt_timeout: seconds for one attempt, from the connection to the last byte.
        connect_timeout: seconds for everything up to a connection: the look-up of the host's name, a proxy, and TLS.
        max_answer_bytes: largest answer that is read, decompressed. Of these bytes one embedding may take 1 MiB.
        session: an aiohttp session whose connections are used; it is never closed here. Its headers, cookies
            and other settings, TLS among them, are not used, except for its trace configurations.
        ssl_context: says which authorities are trusted, with `session`, too: `ssl.create_default_context(cafile=...)`,
            say. It must verify certificates and the host's name. If it is left out, the system's authorities are
            trusted, or those in the file that the environment variable `SSL_CERT_FILE` names.
        transport: carries the requests in the place of aiohttp: a `MockTransport` in tests, say. It is not closed here.
            Without it proxies, TLS and connections are aiohttp's.
        source_tag: names the integration that calls, in the `User-Agent` header.
        allow_http: allow plain HTTP to other machines, which shows them the key and the inputs.
        decoder: `"msgspec"`, or `"simdjson"` with the extra `fast`; the faster one installed if left out.
        max_delay: seconds that a call of `embed_one` waits at most for others to share its request, while another
            such request with the same parameters is under way; else it does not wait.
        hooks: functions that are told what happens to calls and requests; see `Hook`.
        cache: keeps vectors, so that equal texts are not paid for again; `SqliteCache`, say. It is not closed here.
        look_up_model: ask the service about the model before the first call, and split and check by what it says. If it
            is left out, that is done for models that this package does not know by name. It costs one `GET`.
        clock: the time, and all waiting for it; the system's if it is left out. With `transport`, `draw` and `executor` it
            is all that a client takes from the world, so that a simulation can pass in its own.
        draw: draws evenly from [0, 1), for jitter.
        executor: has the threads in which a stream pulls a source that blocks, and in which the trusted authorities are
            read; the event loop's own if it is left out.

    Raises:
        ConfigurationError: an argument cannot work; nothing was sent.
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
            raise ConfigurationError("pass either ssl_context or transport: the transport takes the place of aiohttp")
        check_ssl_context(ssl_context)
        self._base_url = check_base_url(host, allow_http=allow_http)
        self._teller = teller_of(hooks)
        is_wanted = model not in _models.KNOWN_MODELS if look_up_model is None else look_up_model
        self._clock = clock or SystemClock()
        # Kept, for it has what sources leave behind.
        self._sources = Neighbour("the source", self._clock)
        self._cache = None if cache is None else _client_cache(cache, self._base_url, api_version, model, self._clock)
        self._executor = executor
        self._discovery = Discovery(is_wanted=is_wanted, clock=self._clock)
        self._model = model
        self._parameters = _models.checked_parameters(parameters)
        self._max_batch_size = max_batch_size
        self._max_concurrency = max_concurrency
        self._closed = False
        self._learned = Learned()
        self._runs: dict[Run, None] = {}
        # What waits for other people's code before there is a run.
        self._scopes: dict[asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._max_delay = max_delay
        self._joined = Joined()
        self._joiners: dict[tuple[int, asyncio.AbstractEventLoop], Joiner] = {}
        kind = _models.vector_type_of(model, vector_type)
        self._turnstile = _turnstile_of(quota, kind, self._clock)
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
                teller=self._teller,
                ssl_context=ssl_context,
                executor=executor,
            ),
            self._turnstile,
            clock=self._clock,
            draw=draw,
        )

    def __repr__(self) -> str:
        state = ", closed" if self._closed else ""
        return f"<EmbedClient {self._model!r}, {self._engine.in_flight} in flight{state}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an EmbedClient cannot be pickled: it holds connections and a key; make one in each process")

    def __del__(self) -> None:
        # Only there if the constructor got that far.
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
        """End the calls that run, and close the connections.

        Requests in flight have a few seconds to be answered; the calls that they belong to raise `ClosedError`
        with what was embedded, as do all calls from now on until the client is entered again.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        # Other threads may add theirs meanwhile.
        runs = [run for run in self._runs.copy() if run.loop is loop]
        joiner = self._joiners.get((os.getpid(), loop))
        for scope in [scope for scope, place in list(self._scopes.items()) if place is loop]:
            if not scope.expired():
                scope.reschedule(0)
        for run in runs:
            run.stop(ClosedError("the client was closed before all inputs were embedded"))
        try:
            if joiner is not None:
                joiner.close(ClosedError("the client was closed before the text was embedded"))
                await joiner.drained()
            for run in runs:
                await run.drained()
        finally:
            # Also for whoever does not wait for those to end.
            await self._engine.aclose()

    def statistics(self) -> Statistics:
        """What the client has done so far; may be called from any thread."""
        engine = self._engine
        counters = engine.counters
        quotas = self._turnstile.statistics()
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
        timeout: float | None = None,  # noqa: ASYNC109 - it hands over what was embedded
        on_error: Literal["raise", "return"] = "raise",
        priority: Priority = "bulk",
        dedupe: bool = False,
        progress: Callable[[Progress], None] | None = None,
    ) -> EmbeddingsT:
        """Embed any number of inputs; row i of the result belongs to input i.

        The inputs are read whole and checked before anything is sent.

        ```python
        passages = await client.embed(texts, input_type="passage", on_error="return")
        for failure in passages.failures:
            print(failure.indices, failure.error)
        ```

        Args:
            inputs: a text, a mapping with `text`, or an iterable or async iterable of those. Texts are sent whole, however
                long: it is the service that cuts them, under `truncate`.
            input_type: `"passage"` or `"query"`; short for that key of `parameters`.
            parameters: of the model, merged over the client's.
            timeout: seconds for the whole call.
            on_error: `"raise"` raises once everything else is settled, with the embeddings that did succeed
                in the error's `partial`; `"return"` gives the same as the result, failed rows NaN (sparse:
                empty), the causes in `failures`. So do inputs that are no texts, such as missing values.
            priority: `"interactive"` requests go before `"bulk"` ones, which still have a turn every few seconds; calls of
                one priority share evenly.
            dedupe: send equal texts once, and give every input its row.
            progress: called in the event loop after each request that is settled. What it raises ends the call, as the
                cause of an `EmbedError` with what was embedded.

        Returns:
            `DenseEmbeddings` with float32 vectors of shape (inputs, dimension), or `SparseEmbeddings`.

        Raises:
            InputError: inputs are no texts, which it counts, or they have no order; nothing was sent.
            ConfigurationError: the parameters cannot work; nothing was sent.
            ApiError: the service refused inputs, or could not be had in the attempts that the policy allows.
            TransportError: the same for the connection.
            ResponseError: the same for answers that cannot be read.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        read: ReadInputs | None = None
        try:
            self._check_open()
            raises = _raises(on_error)
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
            # Whoever reports errors with the locals of their frames is shown no texts.
            del inputs
            read = None
        # Reading an async iterable may take a while.
        self._check_open()
        if call.count:
            job = await self._discovered(job, input_type, parameters)
        collector = call.collector
        observation = self._observe("embed", job, call.count, lambda _: _totals(collector, collector.account, call.count))
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
        """Embed what `embed` has read."""
        collector = call.collector
        if self._cache is None or job.maker is None:
            requests = Requests(call.usable_texts(), job.limits)
        else:
            missing = await self._look_up(self._cache, job, job.maker, call)
            self._check_open()
            requests = Requests((call.texts[position] for position in missing), job.limits)
        is_single = call.count - collector.cached_count - collector.account.failed_count == 1
        ledger = self._ledger(job, requests, collector, is_single=is_single)
        report = self._reporter(progress, collector, collector.account, call.count)
        run = self._run(ledger, job, collector, job.deadline, settled=report, calls=_calls_of(observation))
        with self._registered(run):
            async with run.running():
                if collector.cached_count:
                    run.report()
        result = await _in_turns(collector.finish(self._model, self._engine.vector_type, call.positions))
        if run.error is not None:
            # Whoever wanted what failed as a result has not asked for that.
            raise with_outcome(run.error, result)
        is_complete = collector.account.embedded_count == call.count
        # Where the last answer came after the job had ended, nothing is missing.
        error: EmbedError | None = None
        if not is_complete:
            error = ledger.job_error or collector.account.first_error()
            if error is None and not result.failures:
                raise with_outcome(EmbedError("the call ended before its inputs were tried, and nobody said why"), result)
        if error is not None and raises:
            raise with_outcome(error, result) if ledger.job_error is not None else summed_up(error, result)
        return cast("EmbeddingsT", result)

    async def _read_until(self, inputs: Inputs, deadline: float | None) -> ReadInputs:
        """Read the inputs until the deadline, or until the client is closed."""
        problem: EmbedError | None = None
        if type(inputs) is str:
            # Nobody is waited for, and setting up for that takes longer than the reading.
            read = ReadInputs()
            read.add(inputs)
            return read
        cancellations = await Cancellations.counted()
        try:
            async with self._looking(deadline) as scope:
                if isinstance(inputs, AsyncIterable):
                    return await self._sources.ask(read_inputs(inputs))
                return await read_inputs(inputs)
        except InputError as error:
            # Without its traceback it keeps no frame, and so no text, alive.
            problem = error.with_traceback(None)
        except TimeoutError:
            # A source may have time-outs of its own: those are the caller's.
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
            # All inputs with the same fault have one row, too.
            keys: list[str | int] = [*texts]
            for number, failure in enumerate(failures):
                for index in failure.indices:
                    keys[index] = number
            distinct = Distinct(room)
            for start in range(0, room, SLICE):
                distinct.add(keys[start : start + SLICE])
                await asyncio.sleep(0)
            positions = distinct.positions
            if positions is not None:
                keys = distinct.keys
                rows = {key: row for row, key in enumerate(keys) if isinstance(key, int)}
                failures = tuple(Failure([rows[number]], failure.error) for number, failure in enumerate(failures))
                texts = [key if isinstance(key, str) else "" for key in keys]
        collector = Collector(0, len(texts), Dimension(job.dimension), room)
        if failures:
            refused = np.concatenate([np.asarray(failure.indices, np.intp) for failure in failures])
            usable = np.setdiff1d(np.arange(len(texts)), refused)
            collector.account.refuse(failures)
            collector.limit_to(usable)
        return _Call(texts, collector, positions, usable)

    async def _look_up(self, cache: ClientCache, job: _Job, maker: KeyMaker, call: _Call) -> list[int]:
        """Take what the cache has of a call; gives the positions of the other texts."""
        collector, texts, usable = call.collector, call.usable_texts(), call.usable
        count = len(texts)
        missing: dict[int, NDArray[np.intp]] = {}
        starts = iter(range(0, count, LOOKED_UP_AT_ONCE))
        problems: list[EmbedError] = []

        async def look_up_parts() -> None:
            for start in starts:
                keys = maker.keys_of(texts[start : start + LOOKED_UP_AT_ONCE])
                try:
                    values = await cache.values(keys)
                    for at in range(0, len(values), READ_AT_ONCE):
                        found = cache.read(values[at : at + READ_AT_ONCE], self._engine.vector_type, collector.dimension)
                        self._engine.learn_vector_type(found.vector_type)
                        if usable is None:
                            collector.found(found, start + at)
                        else:
                            collector.found(replace(found, rows=usable[found.rows + start + at]))
                        missing[start + at] = found.missing + start + at
                        await asyncio.sleep(0)
                except EmbedError as error:
                    # Not raised here: Python 3.11's task groups leave the caller marked as cancelled when a task fails.
                    problems.append(error.with_traceback(None))
                    return

        with contextlib.suppress(TimeoutError):
            async with self._looking(job.deadline), asyncio.TaskGroup() as group:
                # While the rows of one part are copied here, the cache looks up another.
                for _ in range(2):
                    group.create_task(look_up_parts(), name="look up inputs")
        if problems:
            raise problems[0]
        # Where the deadline has passed, the run says so of all that was not looked up.
        parts = [
            missing[start] if start in missing else np.arange(start, min(start + READ_AT_ONCE, count))
            for start in range(0, count, READ_AT_ONCE)
        ]
        misses = np.concatenate([np.empty(0, np.intp), *parts])
        misses = misses if usable is None else usable[misses]
        if collector.cached_count:
            collector.limit_to(misses)
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
        timeout: float | None = None,  # noqa: ASYNC109 - it ends this call alone, not the request that it shares
        priority: Priority = "interactive",
    ) -> NDArray[np.float32] | SparseVector:
        """Embed one text, in one request with what other calls with the same parameters ask for at the same time.

        A call goes at once if no such request is under way. Else it waits for others until the request is full, or
        `max_delay` has passed, or what was under way is answered. Equal texts are sent once. What becomes of one call,
        its cancellation included, is nothing to the others.

        ```python
        vector = await client.embed_one("what is a vector?", input_type="query", timeout=2.0)
        ```

        Args:
            text: a text, or a mapping with `text`.
            input_type: `"passage"` or `"query"`; short for that key of `parameters`.
            parameters: of the model, merged over the client's.
            timeout: seconds for this call.
            priority: `"interactive"` or `"bulk"`; see `embed`. Calls of different priorities share no request.

        Returns:
            Float32 of shape (dimension,), or a `SparseVector`; the arrays are the caller's own.

        Raises:
            InputError: `text` is no text; nothing was sent.
            ConfigurationError: the parameters cannot work; nothing was sent.
            ApiError: the service refused the text, or could not be had in the attempts that the policy allows.
            TransportError: the same for the connection.
            ResponseError: the same for answers that cannot be read.
            DeadlineExceededError: `timeout` ran out.
            ClosedError: the client is closed.
        """
        problem: InputError | None = None
        try:
            self._check_open()
            job = self._job(input_type, parameters, self._deadline(timeout), priority)
            text = text_of(text, 0)
            job = await self._discovered(job, input_type, parameters)
            single = self._single(job, text)
        except InputError as error:
            # Without its traceback it keeps no frame, and so no text, alive.
            problem = error.with_traceback(None)
        finally:
            # Whoever reports errors with the locals of their frames is shown no texts.
            del text
        if problem is not None:
            raise problem
        with single.observation or contextlib.nullcontext():
            if single.key is not None:
                with self._joiner().coming((job.encoded, job.priority)):
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
                    # It would hold itself by this frame.
                    del outcome
            return outcome

    def _single(self, job: _Job, text: str) -> _Single:
        """What a call of `embed_one` is to do."""
        single = _Single(None if job.maker is None else job.maker.keys_of([text])[0])
        single.observation = self._observe("embed_one", job, 1, single.totals)

        def join() -> Coroutine[Any, Any, NDArray[np.float32] | SparseVector | BaseException]:
            return self._joiner().call(
                text,
                key=(job.encoded, job.priority),
                limits=job.limits(),
                dimension=job.dimension,
                deadline=job.deadline,
                run_of=lambda texts, answers, deadline: self._joined_run(job, texts, answers, deadline),
                observed=None if single.observation is None else single.observation.subject,
            )

        single.join = join
        return single

    async def _cached_vector(self, job: _Job, single: _Single) -> NDArray[np.float32] | SparseVector | None:
        """The vector that the cache has of a single text, in arrays of the caller's own; `None` if it has none."""
        if self._cache is None or single.key is None:
            return None
        try:
            async with self._looking(job.deadline):
                value = await self._cache.value(single.key)
        except TimeoutError:
            # Who joins a request out of time is told so.
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

    def _joiner(self) -> Joiner:
        """What joins the calls of the running loop; its tasks are of no use in another loop or process."""
        place = os.getpid(), asyncio.get_running_loop()
        joiner = self._joiners.get(place)
        if joiner is None:
            for other in self._joiners.copy():
                if other[1].is_closed():
                    self._joiners.pop(other, None)
            joiner = self._joiners[place] = Joiner(
                clock=self._clock, max_delay=self._max_delay, most=self._max_concurrency, joined=self._joined
            )
        return joiner

    def _joined_run(self, job: _Job, texts: Sequence[str], answers: Answers, deadline: float | None) -> Run:
        ledger = self._ledger(job, Requests(texts, job.limits), answers, is_single=len(texts) == 1)
        return self._run(ledger, job, answers, deadline, settled=lambda: None, calls=lambda: answers.calls)

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

        The source is read only as fast as batches are taken. Leaving the block cancels what runs, waits for it, and
        closes the source's iterator.

        Args:
            source: an iterable or async iterable of items. It is pulled in the event loop.
            text: gives the input of an item; without it the items are inputs. An item whose input is no text fails
                alone, with an `InputError`.
            ordered: give batches in the source's order; otherwise as they are done.
            window: requests read ahead at most, those that are done and not taken included;
                `2 * max_concurrency` if it is left out.
            input_type: `"passage"` or `"query"`; short for that key of `parameters`.
            parameters: of the model, merged over the client's.
            timeout: seconds for the whole stream.
            on_error: `"raise"` raises the error of a batch in its place, `"return"` gives the batch, failed rows NaN
                (sparse: empty), the causes in `failures`.
            priority: `"interactive"` or `"bulk"`; see `embed`.
            progress: called in the event loop after each request that is settled. What it raises ends the stream, as the
                cause of an `EmbedError` that comes after what was embedded.
            in_thread: pull a source that is not asynchronous in a thread, for it may block.
            max_delay: seconds that an item of an asynchronous source waits at most for others to share its request.

        Returns:
            An async context manager over an `EmbeddingStream`, an async iterator of `EmbeddedBatch`.

        Raises:
            InputError: `source` is no iterable, or a single text.
            ConfigurationError: the arguments cannot work; nothing was sent.
            ClosedError: the client is closed.
        """
        self._check_open()
        check_source(source)
        raises = _raises(on_error)
        for name, callback in (("text", text), ("progress", progress)):
            if callback is not None:
                _checks.callback(name, callback)
        window = 2 * self._max_concurrency if window is None else _checks.whole("window", window)
        max_delay = _checks.seconds("max_delay", max_delay)
        checked = self._job(input_type, parameters, self._deadline(timeout), priority)

        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[EmbeddingStream[ItemT, EmbeddingsT]]:
            self._check_open()
            job = await self._discovered(checked, input_type, parameters)
            dimension = Dimension(job.dimension)
            batches = Batches(dimension, job.limits, ordered=ordered, looks_up=job.maker is not None)
            ledger = self._ledger(job, batches.unsent, batches, is_single=False)
            stream: EmbeddingStream[ItemT, EmbeddingsT] = EmbeddingStream(
                batches,
                ledger,
                lambda collector: cast("EmbeddingsT", all_steps(collector.finish(self._model, self._engine.vector_type))),
                Collector(0, 0, dimension),
                window=window,
                raises=raises,
            )
            report = self._reporter(progress, batches, batches, None)
            observation = self._observe("stream", job, None, lambda _: _totals(batches, batches, None))
            run = self._run(
                ledger,
                job,
                batches,
                job.deadline,
                settled=report,
                changed=stream.changed,
                window=window,
                calls=_calls_of(observation),
            )

            look_ups: LookUps | None = None

            def handed_over(failed: int) -> None:
                if failed:
                    # Items that are no texts fail without a request.
                    run.report()
                if look_ups is None:
                    run.fill()
                else:
                    look_ups.handed_over()
                stream.changed()

            reader = Reader(
                source,
                text,
                Splitter(job.limits),
                batches,
                clock=self._clock,
                in_thread=in_thread,
                executor=self._executor,
                max_delay=max_delay,
                handed_over=handed_over,
                neighbour=self._sources if isinstance(source, AsyncIterable) else None,
            )
            if self._cache is not None and job.maker is not None:
                look_up = self._batch_looker(self._cache, job.maker, batches, dimension, run)
                look_ups = LookUps(reader, batches, look_up)
            with observation or contextlib.nullcontext(), self._registered(run):
                async with stream.running(run, reader, look_ups):
                    yield stream

        return opened()

    def _batch_looker(
        self, cache: ClientCache, maker: KeyMaker, batches: Batches, dimension: Dimension, run: Run
    ) -> Callable[[PlannedRequest], Awaitable[None]]:
        """A function that takes what the cache has of a stream's batch, and sends for the rest."""

        async def look_up(request: PlannedRequest) -> None:
            values = await cache.values(maker.keys_of(request.texts))
            # Not looked at before: the first answer may have told more meanwhile.
            found = cache.read(values, self._engine.vector_type, dimension.value)
            self._engine.learn_vector_type(found.vector_type)
            batches.looked_up(request, found)
            if len(found.rows):
                run.report()
            run.fill()
            run.tell_changed()

        return look_up

    def estimate(
        self,
        inputs: Input | Iterable[Input],
        *,
        input_type: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        dedupe: bool = False,
    ) -> Estimate:
        """What embedding `inputs` will cost, about, without a request.

        ```python
        told = client.estimate(texts, input_type="passage", dedupe=True)
        print(told.tokens, told.requests, told.seconds["starter"])
        ```

        Args:
            inputs: as for `embed`; an iterable is read to its end, and need not fit into memory.
            input_type: `"passage"` or `"query"`, which have quotas of their own.
            parameters: of the model, merged over the client's.
            dedupe: count equal texts once.

        Raises:
            InputError: an input is no text.
            ConfigurationError: the parameters cannot work.
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
        """When a call's time is over, by the clock."""
        if timeout is None:
            return None
        return self._clock.time() + _checks.seconds("timeout", timeout)

    async def _discovered(self, job: _Job, input_type: str | None, parameters: Mapping[str, Any] | None) -> _Job:
        """The job under what the service says about the model, which is asked once."""
        if self._discovery.is_done:
            return job
        # If the call's own time is over, the run says so.
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
        """What a call or stream is to do, checked."""
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
            maker=None if self._cache is None else self._cache.key_maker(encode_parameters(merged)),
        )

    def _ledger(self, job: _Job, fresh: Fresh, outcomes: Outcomes, *, is_single: bool) -> Ledger:
        return Ledger(
            fresh,
            outcomes,
            limits=job.limits,
            learned=self._learned,
            parameters=job.encoded,
            is_single=is_single,
            now=self._clock.time,
        )

    def _run(
        self,
        ledger: Ledger,
        job: _Job,
        destination: Destination,
        deadline: float | None,
        *,
        settled: Callable[[], None],
        changed: Callable[[], None] = lambda: None,
        window: int | None = None,
        calls: Callable[[], tuple[ObservedCall, ...]] = tuple,
    ) -> Run:
        estimator = self._learned.estimator

        def learn(request: PlannedRequest, billed: int) -> None:
            estimator.learn(request, billed, job.limits().sequence_length)

        keeper = None
        if self._cache is not None and job.maker is not None:
            keeper = self._cache.keeper(destination, job.maker)

        sender = self._engine.sender(
            job.parameters,
            keeper or destination,
            job.limits,
            learn,
            deadline=deadline,
            priority=job.priority,
            calls=calls,
        )
        return Run(
            ledger,
            sender.turn_for,
            sender.send,
            window=window or 2 * self._max_concurrency,
            clock=self._clock,
            deadline=deadline,
            settled=settled,
            changed=changed,
            keep=None if keeper is None else keeper.keep,
        )

    def _observe(
        self, operation: Operation, job: _Job, inputs: int | None, totals: Callable[[bool], dict[str, int]]
    ) -> CallObservation | None:
        """What tells the hooks of a call; `None` without hooks."""
        if self._teller is None:
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
        return CallObservation(self._teller, self._clock, subject, totals)

    def _looking(self, deadline: float | None) -> _Looking:
        """Wait for other people's code until the deadline, or until the client is closed."""
        return _Looking(self._clock.timeout_at(deadline), self._scopes)

    @contextlib.contextmanager
    def _registered(self, run: Run) -> Iterator[None]:
        """Have `aclose` know of a run."""
        self._runs[run] = None
        try:
            yield
        finally:
            del self._runs[run]

    def _reporter(
        self,
        progress: Callable[[Progress], None] | None,
        costs: Collector | Batches,
        counts: Account | Batches,
        total: int | None,
    ) -> Callable[[], None]:
        """A function that tells `progress` how far a call or stream has come."""
        if progress is None:
            return lambda: None

        def report() -> None:
            progress(
                Progress(
                    done=counts.embedded_count,
                    failed=counts.failed_count,
                    total=total,
                    requests=costs.usage.requests,
                    tokens=costs.usage.total_tokens,
                    retries=self._engine.counters.retries,
                )
            )

        return report

    async def list_models(self) -> list[ModelInfo]:
        """The embedding models that the service offers.

        Raises:
            EmbedError: the service could not be asked, or answered something else.
        """
        self._check_open()
        body = await self._engine.get("models", {"type": "embed"})
        return _decoded(decode_models, body)

    async def describe_model(self, name: str | None = None) -> ModelInfo:
        """What the service says about a model.

        Args:
            name: of the model; the client's own if it is left out.

        Raises:
            ConfigurationError: `name` is no name.
            NotFoundError: the service does not know it.
            EmbedError: the service could not be asked, or answered something else.
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
        # If the service is to be asked, its word counts.
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
            # For a known model only smaller ones can work.
            inputs = self._max_batch_size if known is None else min(inputs, self._max_batch_size)
        return RequestLimits(inputs=inputs, sequence_length=length)


class _Looking:
    """A scope that `aclose` can end; leaving it raises a `TimeoutError` if it is over."""

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


def _turnstile_of(
    quota: Quota | str | SharedQuota | QuotaBackend | None, vector_type: VectorType | None, clock: Clock
) -> Turnstile:
    """What gives the turns under a quota.

    Raises:
        ConfigurationError: it is no quota.
    """
    if isinstance(quota, SharedQuota):
        return quota.turnstile
    if quota is None or isinstance(quota, (str, Quota)):
        return Turnstile(limiter_options(quota, vector_type), clock=clock)
    is_backend = all(callable(getattr(quota, name, None)) for name in ("acquire", "settle"))
    if is_backend and not isinstance(quota, type):
        return Turnstile(LimiterOptions(), clock=clock, backend=quota)
    raise ConfigurationError(f"quota must be the name of a plan, a Quota or a SharedQuota, got {type(quota).__name__}")


def _client_cache(cache: Cache, base_url: URL, api_version: str, model: str, clock: Clock) -> ClientCache:
    _checks.methods("cache", cache, ("get_many", "put_many"), "SqliteCache(path)")
    address = f"{base_url.scheme}://{base_url.host}:{base_url.port}{base_url.path.rstrip('/')}"
    return ClientCache(cache, address=address, api_version=api_version, model=model, clock=clock)


StepsT = TypeVar("StepsT")


async def _in_turns(steps: Generator[None, None, StepsT]) -> StepsT:
    """Take steps, each in a turn of the event loop; gives what they come to."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: StepsT = end.value
            return result
        await asyncio.sleep(0)


def _calls_of(observation: CallObservation | None) -> Callable[[], tuple[ObservedCall, ...]]:
    return tuple if observation is None else lambda: (observation.subject,)


def _totals(costs: Collector | Batches, counts: Account | Batches, count: int | None) -> dict[str, int]:
    """What has come of a call or stream of `count` inputs, as the hooks are told."""
    embedded = counts.embedded_count
    return {
        "embedded": embedded,
        "failed": counts.failed_count if count is None else count - embedded,
        "tokens": costs.usage.total_tokens,
        "cached": costs.cached_count,
        "attempts": costs.usage.requests,
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
    # A path of dots would be another place of the API; surrogates have no place in one.
    if not name or name in (".", "..") or not name.isprintable():
        raise ConfigurationError(f"{argument} must be the name of a hosted model, got {_checks.short(value)}")
    return name


def _raises(on_error: object) -> bool:
    return _checks.one_of("on_error", on_error, ("raise", "return")) == "raise"


def _check_parts(
    *, retry: object, session: object, transport: object, clock: object, draw: object, executor: object
) -> None:
    """Refuse what cannot take the place of a client's own parts."""
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise ConfigurationError(f"retry must be a RetryPolicy, got {_checks.short(retry)}")
    if session is not None and (isinstance(session, type) or not hasattr(session, "connector")):
        raise ConfigurationError(f"session must be an aiohttp.ClientSession, got {type(session).__name__}")
    if transport is not None:
        _checks.methods("transport", transport, ("send",), "MockTransport")
        if session is not None:
            raise ConfigurationError("pass either session or transport: the transport takes the place of aiohttp")
    if clock is not None:
        _checks.methods("clock", clock, ("time", "wall_time", "sleep", "timeout_at", "call_at"), "Clock")
    if executor is not None:
        _checks.methods("executor", executor, ("submit",), "ThreadPoolExecutor")
    _checks.function("draw", draw)
