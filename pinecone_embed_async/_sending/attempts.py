"""Takes one planned request through its permit, attempts, transport and decoding."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import msgspec
import tenacity

from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._errors import (
    ClosedError,
    ConfigurationError,
    EmbedError,
    InputError,
    RateLimitError,
    ResponseError,
    ServiceError,
    TransportError,
    kind_of,
    unexpected_error,
)
from pinecone_embed_async._foreign import Cancellations
from pinecone_embed_async._log import logger
from pinecone_embed_async._planning import most_tokens
from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, RateLimitGate
from pinecone_embed_async._sending.aiohttp_transport import AiohttpTransport
from pinecone_embed_async._sending.decode_gate import DecodeGate, DecodeThread
from pinecone_embed_async._sending.retry import FirstContact, RetryBudget, RetryPolicy, RetryState, Verdict, judge
from pinecone_embed_async._sending.transport import TransportRequest
from pinecone_embed_async._telemetry import ObservedRequest, RequestObservation, Waiting
from pinecone_embed_async._wire import Redactor, choose_decoder, encode_request, error_from_envelope, error_from_response

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping
    from concurrent.futures import Executor

    import aiohttp
    from yarl import URL

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._errors import ConnectionProblem
    from pinecone_embed_async._planning import PlannedRequest, RequestLimits, Sink
    from pinecone_embed_async._rate_limit import Permit, PermitRequest, Priority
    from pinecone_embed_async._sending.endpoint import ApiKey
    from pinecone_embed_async._sending.transport import Transport, TransportResponse
    from pinecone_embed_async._telemetry import HookDispatcher, ObservedCall
    from pinecone_embed_async._wire import Answer, Decoder, DecoderName, StreamingDecoder, VectorType

ERROR_BODY_BYTES = 65_536
"""Most bytes read of an error's body: the documented ones have fewer than 1,000."""

OVERLOAD = frozenset({502, 503, 504})
"""Statuses that call for fewer requests in flight, as time-outs and lost connections do. A 500 is no sign of load."""

SMALL = 8
"""The rest of an answer is small if it is less than one in so many parts of a slice: it then decodes in less than a fifth
of a millisecond, and the event loop is not yielded for it."""

AT_ONCE = 2**16
"""Bytes that are decoded at once if they are the last of an answer: it takes 50 microseconds, and so does the thread."""

PIECES_IN_A_ROW = 256
"""Pieces of an answer that are processed before yielding to the event loop, however small they are."""

ERROR_BODY_SECONDS = 5.0
"""How long to wait for the body of an error, whose status is already known."""


class Counters(msgspec.Struct):
    """Totals since the client was created."""

    attempts: int = 0
    answers: int = 0
    retries: int = 0
    rejections: int = 0
    unreadable_answers: int = 0
    inputs: int = 0
    tokens: int = 0


@dataclass(slots=True, repr=False, eq=False)
class EngineOptions:
    """Settings of an engine; see `EmbedClient` for their meaning."""

    model: str
    api_key: ApiKey
    base_url: URL
    api_version: str
    vector_type: VectorType | None
    retry: RetryPolicy
    max_concurrency: int
    attempt_timeout: float
    connect_timeout: float
    max_answer_bytes: int
    decoder: DecoderName | None
    session: aiohttp.ClientSession | None
    transport: Transport | None
    user_agent: str
    dispatcher: HookDispatcher | None = None
    is_patient: bool = False
    ssl_context: ssl.SSLContext | None = None
    executor: Executor | None = None


@dataclass(slots=True, repr=False, eq=False)
class _LoopState:
    """State of one event loop in one process."""

    process: int
    transport: Transport
    own: AiohttpTransport | None
    """The transport, unless the caller passed one."""
    concurrency: ConcurrencyLimiter
    gate: DecodeGate
    decoder: Decoder
    thread: DecodeThread | None
    """For a decoder that releases the interpreter's lock."""
    exchanges: dict[asyncio.Timeout, None] = field(default_factory=dict)
    was_closed: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing more can be sent."""
        return self.was_closed or (self.own is not None and self.own.is_closed)


@dataclass(slots=True, repr=False, eq=False)
class _Sending:
    """One request during its attempts."""

    request: PlannedRequest
    body: bytes
    redactor: Redactor
    retry: RetryState
    permit: Permit | None
    cut: Callable[[int], PlannedRequest]
    observation: RequestObservation | None


class Engine:
    """Sends requests; returns errors, and raises nothing but `CancelledError`.

    Args:
        options: settings of the client.
        gate: grants the permits.
        clock: the clock.
        draw: draws uniformly from [0, 1), for jitter.
    """

    def __init__(
        self,
        options: EngineOptions,
        gate: RateLimitGate,
        *,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._options = options
        self._gate = gate
        self._clock = clock or SystemClock()
        self._draw = draw
        self._states: dict[asyncio.AbstractEventLoop, _LoopState] = {}
        self._inherited: list[_LoopState] = []
        self._vector_type = options.vector_type
        # Building it for each request takes a twentieth of a small request's time.
        self._embed_url = options.base_url / "embed"
        self.budget = RetryBudget()
        self._contact = FirstContact(is_patient=options.is_patient)
        self.counters = Counters()
        self.decoder_name = choose_decoder(options.decoder).name

    @property
    def in_flight(self) -> int:
        """Requests on the wire or being decoded."""
        return sum(state.concurrency.in_flight for state in self._states.copy().values())

    @property
    def waiting(self) -> int:
        """Requests waiting for a permit."""
        return self._gate.waiting({state.concurrency for state in self._states.copy().values()})

    @property
    def concurrency(self) -> int:
        """Current limit of requests in flight per event loop, adapted to recent outcomes."""
        return min(
            (state.concurrency.limit for state in self._states.copy().values()), default=self._options.max_concurrency
        )

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._options.model

    @property
    def vector_type(self) -> VectorType | None:
        """The model's vector type; `None` until it is known."""
        return self._vector_type

    def learn_vector_type(self, vector_type: VectorType | None) -> None:
        """Set the vector type from another source than an answer, if it is unknown."""
        self._vector_type = self._vector_type or vector_type

    async def open(self) -> _LoopState:
        """The running loop's state, created if there is none."""
        loop, process = asyncio.get_running_loop(), os.getpid()
        state = self._states.get(loop)
        if state is not None and state.process == process and not state.is_closed:
            return state
        # Copied, and popped with a default: other threads may clean up at the same time.
        for other, old in self._states.copy().items():
            if old.process == process and not other.is_closed():
                continue
            gone = self._states.pop(other, None)
            if gone is not None and old.process != process:
                # Its sockets belong to the parent process too, and closing them would write to them. They are
                # kept unused for the lifetime of this client.
                self._inherited.append(gone)
        state = self._make_state(process)
        self._states[loop] = state
        if state.own is not None:
            await state.own.open()
        return state

    def _make_state(self, process: int) -> _LoopState:
        options, budget = self._options, self.budget
        own: AiohttpTransport | None = None
        if options.transport is None:
            own = AiohttpTransport(
                options.base_url,
                max_connections=options.max_concurrency,
                connect_timeout=options.connect_timeout,
                session=options.session,
                ssl_context=options.ssl_context,
                executor=options.executor,
                clock=self._clock,
            )
        decoder = choose_decoder(options.decoder)
        return _LoopState(
            process=process,
            transport=options.transport or cast("Transport", own),
            own=own,
            # A shared quota refers to the limiter, so this must not keep a closed loop's leftovers alive.
            concurrency=ConcurrencyLimiter(options.max_concurrency, is_slowed=lambda: budget.is_low),
            gate=DecodeGate(),
            decoder=decoder,
            thread=DecodeThread(options.executor) if decoder.releases_lock else None,
        )

    async def aclose(self) -> None:
        """Close the running loop's connections; those of other loops close with their loops."""
        state = self._states.pop(asyncio.get_running_loop(), None)
        if state is not None and state.process == os.getpid():
            state.was_closed = True
            try:
                for exchange in state.exchanges:
                    # aiohttp does not wake a reader of a body when the connection is closed.
                    if not exchange.expired():
                        exchange.reschedule(0)
            finally:
                try:
                    if state.own is not None:
                        await state.own.aclose()
                finally:
                    if state.thread is not None:
                        await state.thread.aclose()

    def abandon(self) -> None:
        """Drop all connections without the loop's help, for a client that was never closed."""
        for loop, state in self._states.copy().items():
            if state.own is not None and state.process == os.getpid() and not loop.is_closed():
                state.own.abandon()
        self._states.clear()

    def sender(
        self,
        parameters: Mapping[str, Any],
        sink: Sink,
        limits: Callable[[], RequestLimits],
        learn: Callable[[PlannedRequest, int], None],
        *,
        deadline: float | None,
        priority: Priority,
        calls: Callable[[], tuple[ObservedCall, ...]] = tuple,
    ) -> Sender:
        """A sender for the requests of one call or stream.

        Args:
            parameters: the model's parameters.
            sink: receives the rows.
            limits: what one request may hold.
            learn: takes a request and the tokens billed for it.
            deadline: deadline of the whole call, by the clock; `None` for none.
            priority: priority of the call.
            calls: returns the unfinished calls that the requests are sent for, as the hooks know them.
        """
        dispatcher = None if self._options.dispatcher is None else _CallHooks(self._options.dispatcher, self._clock, calls)
        return Sender(self, parameters, sink, limits, learn, deadline=deadline, priority=priority, dispatcher=dispatcher)

    async def permit(
        self,
        limiter_flow: _LimiterFlow,
        request: PlannedRequest,
        limits: RequestLimits,
        on_wait: Callable[[float], None] | None = None,
    ) -> Permit:
        """Wait for a permit to send a request, or its first inputs.

        Args:
            limiter_flow: the flow that it waits in.
            request: the request, of which as much as possible is to be sent.
            limits: what one request may hold.
            on_wait: called if no permit is free at once, with the remaining seconds of a pause.

        Raises:
            InputError: the first input has more tokens than the whole quota.
            ConfigurationError: the session passed to the client cannot be used.
        """
        state = await self.open()
        limit = self._gate.known_limit(limiter_flow.key)
        if limit is not None and request.fewest_tokens(limits) > limit:
            raise InputError(
                f"input {request.start} has about {request.least_tokens(limits)} tokens, and the quota {limit} in a whole"
                " window, so it can never be sent: split it",
                index=request.start,
            )
        concurrency, least = state.concurrency, request.least_tokens(limits)
        gate, key = self._gate, limiter_flow.key
        report_wait = None if on_wait is None else lambda: on_wait(gate.pause_left(key))
        return await gate.permit(limiter_flow.flow(concurrency), concurrency, key, request.tokens, least, waits=report_wait)

    async def send(
        self,
        request: PlannedRequest,
        sender: Sender,
        retry: RetryState,
        permit: Permit,
        cut: Callable[[int], PlannedRequest],
        observation: RequestObservation | None,
    ) -> EmbedError | None:
        """Send a request through all its attempts; return the error it ended with, or `None` for success."""
        redactor = Redactor(self._options.api_key.reveal(), request.texts, request.start)
        sending = _Sending(request, b"", redactor, retry, permit, cut, observation)
        cancelled: asyncio.CancelledError | None = None
        error: EmbedError | None = None
        try:
            self._prepare(sending, request, sender)
            try:
                state = await self.open()
            except ConfigurationError as unusable:
                error = unusable.with_traceback(None)
                return error
            error = await self._attempt(state, sending, sender)
            if error is None:
                # The usual case, and setting up the retry loop takes a tenth of a small request's time.
                return None
            met: EmbedError | None = error

            async def attempt() -> EmbedError | None:
                nonlocal met
                first, met = met, None
                return first if first is not None else await self._attempt(state, sending, sender)

            error = await self._retrying(sender.limiter_flow.key, retry, sender.deadline, observation)(attempt)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
            raise
        except Exception as fault:  # noqa: BLE001 - one request must not cost the others their answers
            # Handled here, where the secrets to redact are known.
            error = unexpected_error(fault, sending.redactor.clean)
            error.attempts = retry.attempts
        finally:
            if sending.permit is not None:
                sending.permit.give_back()
            if observation is not None:
                inputs = len(sending.request.texts)
                observation.ended(retry.attempts, inputs, error or cancelled, is_embedded=retry.is_settled)
            # Its traceback holds this frame: a reference cycle.
            del cancelled
        return error

    def _prepare(self, sending: _Sending, request: PlannedRequest, sender: Sender) -> None:
        """Encode a request, once for all its attempts unless it is cut."""
        sending.request = request
        names = sender.sink.names(request)
        sending.redactor = Redactor(self._options.api_key.reveal(), request.texts, request.start, names)
        sending.body = encode_request(self._options.model, request.texts, sender.parameters)

    def _retrying(
        self,
        key: tuple[str, str] | None,
        retry: RetryState,
        deadline: float | None,
        observation: RequestObservation | None = None,
    ) -> tenacity.AsyncRetrying:
        """The tenacity loop of one request, driven by this client's clock and retry state."""
        policy, clock, gate, contact = self._options.retry, self._clock, self._gate, self._contact
        verdict = Verdict.FINAL
        final: EmbedError | None = None

        def should_retry(call: tenacity.RetryCallState) -> bool:
            nonlocal verdict
            if call.outcome is None or call.outcome.failed:
                return False
            error = call.outcome.result()
            if error is None:
                return False
            verdict = retry.failed(error, contact)
            return verdict is not Verdict.FINAL

        def wait(_: tenacity.RetryCallState) -> float:
            if verdict is Verdict.WAIT or retry.last_error is None:
                return gate.wait_left(key)
            return retry.backoff(policy, verdict, retry.last_error, self._draw)

        def stop(call: tenacity.RetryCallState) -> bool:
            nonlocal final
            final = retry.final_error(
                policy,
                now=clock.time(),
                wait=call.upcoming_sleep,
                last_acceptance=gate.last_acceptance(key),
                deadline=deadline,
                contact=contact,
            )
            return final is not None

        def count(call: tenacity.RetryCallState) -> None:
            self.counters.retries += 1
            _report_retry(observation, retry, verdict, call.upcoming_sleep)

        async def sleep(delay: float) -> None:
            # A pause is waited out in the queue for permits, which keeps the order.
            if verdict is Verdict.RETRY:
                await clock.sleep(delay)

        return tenacity.AsyncRetrying(
            sleep=sleep,
            stop=stop,
            wait=wait,
            retry=should_retry,
            before_sleep=count,
            retry_error_callback=lambda _: final,
        )

    async def _attempt(self, state: _LoopState, sending: _Sending, sender: Sender) -> EmbedError | None:
        """Make one attempt: permit, POST, decode. Return the error instead of raising it."""
        retry = sending.retry
        if sending.permit is None:
            try:
                await self._take_permit(sending, sender)
            except InputError as too_large:
                # It concerns the first input only; the others can still be sent.
                sending.request = sending.cut(0)
                return too_large.with_traceback(None)
            except ConfigurationError as unusable:
                return unusable.with_traceback(None)
        answer: Answer | None = None
        error: EmbedError | None = None
        try:
            retry.sent(self._clock.time())
            self.counters.attempts += 1
            decoding = self._decoding(state, sending, sender)
            error = await self._exchange(state, "POST", "embed", sending.body, sending.redactor, decoding.take)
            if error is None:
                answer, error = await self._settle(sending, sender, decoding)
        finally:
            retry.in_flight = False
            self._end_permit(sending, sender, answer, error)
        self._note(sending, error)
        # Its traceback would keep frames alive, and with them texts and bodies.
        return error.with_traceback(None) if error is not None else None

    async def _take_permit(self, sending: _Sending, sender: Sender) -> None:
        """Wait for the permit of another attempt, and cut the request to it."""
        sending.request = sending.request.estimated(sender.limits())
        permit = await sender.next_permit(sending.request, sending.observation)
        sending.permit = permit
        if permit.tokens < sending.request.tokens:
            self._prepare(sending, sending.cut(permit.tokens), sender)
        permit.shrink(sending.request.tokens)

    def _end_permit(self, sending: _Sending, sender: Sender, answer: Answer | None, error: EmbedError | None) -> None:
        """End the permit of an attempt according to its outcome."""
        permit = sending.permit
        if permit is None:
            raise RuntimeError("an attempt was made without a permit")
        billed = None if answer is None else answer.total_tokens
        counted = None if billed is None else min(billed, most_tokens(sending.request, sender.limits().sequence_length))
        # Not before: if anything above raises, the permit is given back.
        sending.permit = None
        if answer is not None or isinstance(error, ResponseError):
            # The service accepted the request even if its answer cannot be read.
            permit.accepted(counted)
        else:
            self._end_failed_permit(permit, sending.retry, error)
        if billed is not None:
            sender.learn(sending.request, billed)

    def _end_failed_permit(self, permit: Permit, retry: RetryState, error: EmbedError | None) -> None:
        if isinstance(error, RateLimitError) and judge(error) is Verdict.WAIT:
            self.counters.rejections += 1
            pause = permit.rejected(
                error.message, error.retry_after, lambda bursts: self._options.retry.backoff(bursts, error, self._draw)
            )
            if pause is not None:
                logger.info("the service's limit is reached; all requests under it pause for %.1f s", pause)
        else:
            is_overload = isinstance(error, TransportError) or (isinstance(error, ServiceError) and error.status in OVERLOAD)
            permit.failed(is_overload=is_overload and not retry.is_stale_connection(error))

    def _note(self, sending: _Sending, error: EmbedError | None) -> None:
        self._contact.record(error)
        if not sending.retry.is_stale_connection(error):
            self.budget.record(error)
        logger.debug(
            "%s, attempt %d: %s", sending.request, sending.retry.attempts, "answered" if error is None else kind_of(error)
        )
        if isinstance(error, ResponseError):
            self.counters.unreadable_answers += 1

    async def get(self, path: str, query: Mapping[str, str], *, is_tried_once: bool = False) -> bytes:
        """The body of the answer to a `GET`, retried by the retry policy unless `is_tried_once`.

        Raises:
            EmbedError: the request failed.
        """
        state = await self.open()
        retry = RetryState(is_last=is_tried_once)
        redactor = Redactor(self._options.api_key.reveal())
        limiter_flow = _LimiterFlow(None, "interactive")
        body = bytearray()

        async def take(piece: bytes) -> None:
            body.extend(piece)

        async def attempt() -> EmbedError | None:
            body.clear()
            permit = await self._gate.permit(limiter_flow.flow(state.concurrency), state.concurrency, None, 0, 0)
            is_answered = False
            error: EmbedError | None = None
            try:
                retry.sent(self._clock.time())
                error = await self._exchange(state, "GET", path, None, redactor, take, query)
                is_answered = error is None
                if is_answered:
                    self._contact.answered()
                else:
                    self._contact.record(error)
                if not retry.is_stale_connection(error):
                    self.budget.record(error)
            finally:
                if is_answered:
                    permit.accepted(0)
                else:
                    self._end_failed_permit(permit, retry, error)
            return error

        error: EmbedError | None = await self._retrying(None, retry, None)(attempt)
        if error is not None:
            raise error
        return bytes(body)

    async def _exchange(
        self,
        state: _LoopState,
        method: str,
        path: str,
        body: bytes | None,
        redactor: Redactor,
        take: Callable[[bytes], Awaitable[None]],
        query: Mapping[str, str] | None = None,
    ) -> EmbedError | None:
        """Send a request and take the answer's body piece by piece; return the error instead of raising it."""
        options = self._options
        if state.was_closed:
            return ClosedError("the client was closed while the request was in flight")
        # The path is encoded already: a model's name may hold a slash.
        url = self._embed_url if query is None else options.base_url.joinpath(path, encoded=True).with_query(query)
        status, is_refused = 0, False
        headers: dict[str, str] = {}
        start = bytearray()
        connection: ConnectionProblem | None = None
        cancellations = await Cancellations.counted()
        scope = self._clock.timeout_at(self._clock.time() + options.attempt_timeout)
        try:
            async with scope as timeout:
                # Listed, so that closing the client can end it early.
                state.exchanges[timeout] = None
                try:
                    async with state.transport.send(TransportRequest(method, url, self._headers(), body)) as response:
                        status = int(response.status)
                        if 200 <= status < 300:
                            return await self._take_answer(response, status, take)
                        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
                        is_refused = True
                        await self._read_error_start(response, start)
                finally:
                    del state.exchanges[timeout]
        except asyncio.CancelledError:
            if cancellations.is_callers:
                raise
            problem = "it was cancelled, and not by the client"
        except Exception as fault:  # noqa: BLE001 - a caller's transport may raise anything, and it may hold the key
            problem = redactor.clean(self._problem_of(fault))
            connection = fault.problem if isinstance(fault, TransportError) else None
        if state.is_closed:
            return ClosedError("the client was closed while the request was in flight")
        if is_refused:
            # The status is known, whatever happened to the body afterwards.
            return error_from_response(status, headers, bytes(start), redactor=redactor, now=self._clock.wall_time())
        if status == 200:
            self.counters.unreadable_answers += 1
        return TransportError(problem, problem=connection)

    def _problem_of(self, fault: Exception) -> str:
        if isinstance(fault, TransportError):
            return fault.message
        if isinstance(fault, TimeoutError) and not str(fault):
            return f"no complete answer within {self._options.attempt_timeout:g} s"
        return f"{type(fault).__name__}: {fault}"

    async def _take_answer(
        self, response: TransportResponse, status: int, take: Callable[[bytes], Awaitable[None]]
    ) -> EmbedError | None:
        """Take the body of an answer piece by piece; return an error if there is no usable one."""
        limit = self._options.max_answer_bytes
        if status != 200:
            return ResponseError(f"the service answered HTTP {status}, which carries no embeddings")
        if await _take_all(response, limit, take):
            return None
        return ResponseError(f"the answer is larger than max_answer_bytes ({limit})")

    async def _read_error_start(self, response: TransportResponse, start: bytearray) -> None:
        """Read the useful start of an error's body."""
        async with self._clock.timeout_at(self._clock.time() + ERROR_BODY_SECONDS):
            while len(start) <= ERROR_BODY_BYTES and (piece := await response.read()):
                start += piece

    def _headers(self) -> dict[str, str]:
        return {
            "Api-Key": self._options.api_key.reveal(),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "X-Pinecone-Api-Version": self._options.api_version,
            "User-Agent": self._options.user_agent,
        }

    def _decoding(self, state: _LoopState, sending: _Sending, sender: Sender) -> _Decoding:
        request, sink = sending.request, sender.sink
        decoder = state.decoder.begin(
            count=len(request.texts),
            vector_type=self._vector_type,
            dimension=sink.dimension,
            rows=lambda dimension: sink.rows(request, dimension),
        )
        return _Decoding(decoder, state.gate, sender.limiter_flow.priority, state.decoder.slice_bytes, state.thread)

    async def _settle(
        self, sending: _Sending, sender: Sender, decoding: _Decoding
    ) -> tuple[Answer | None, EmbedError | None]:
        """Judge a complete answer and hand it on; return the error instead of raising it."""
        request, sink, decoder = sending.request, sender.sink, decoding.decoder
        invalid: EmbedError | None = None
        answer: Answer | None = None
        await decoding.catch_up(to_end=True)
        is_small = decoder.left * SMALL < decoding.slice_bytes
        while answer is None and invalid is None:
            async with decoding.gate.passing(decoding.priority, is_small=is_small):
                try:
                    answer = decoder.finish(decoding.slice_bytes)
                except ResponseError as error:
                    invalid = error
                if answer is not None:
                    # Before the gate yields to the loop: a cancellation after this point cannot undo it.
                    self._vector_type = answer.vector_type
                    sending.retry.is_settled = True
                    self.counters.answers += 1
                    self.counters.inputs += 0 if request.is_probe else len(request.texts)
                    self.counters.tokens += answer.total_tokens or 0
                    if sending.observation is not None:
                        sending.observation.answered(answer.total_tokens)
                    sink.answered(request, answer)
        if invalid is not None:
            return None, error_from_envelope(decoder.body(), redactor=sending.redactor) or invalid
        return answer, None


class _LimiterFlow:
    """The flow in which a sender's requests wait for permits: one key, one priority."""

    __slots__ = ("_concurrency", "_flow", "key", "priority")

    def __init__(self, key: tuple[str, str] | None, priority: Priority) -> None:
        self.key = key
        self.priority: Priority = priority
        self._concurrency: ConcurrencyLimiter | None = None
        self._flow: Flow[PermitRequest] | None = None

    def flow(self, concurrency: ConcurrencyLimiter) -> Flow[PermitRequest]:
        """The flow under a concurrency limiter; a new one if the client was reopened meanwhile."""
        if self._flow is None or self._concurrency is not concurrency:
            self._concurrency, self._flow = concurrency, Flow((concurrency, self.key), self.priority)
        return self._flow


class _CallHooks:
    """Reports the requests of one call or stream to the hooks.

    A request is cut to its first permit, so until it has that permit it is the call that waits.
    """

    __slots__ = ("_calls", "_clock", "_dispatcher", "_waited")

    def __init__(self, dispatcher: HookDispatcher, clock: Clock, calls: Callable[[], tuple[ObservedCall, ...]]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self._calls = calls
        self._waited = 0.0

    def waiting(self, pause: float) -> None:
        """Report that the next request has to wait for its permit."""
        for call in self._calls():
            self._dispatcher.dispatch(Waiting(call, pause))

    async def timed(self, permit: Awaitable[Permit]) -> Permit:
        """Wait for the permit of the next request, and add up the waiting time."""
        started = self._clock.time()
        try:
            return await permit
        finally:
            self._waited += self._clock.time() - started

    def observe(self, request: PlannedRequest) -> RequestObservation:
        """Report a request that is about to be sent."""
        waited, self._waited = self._waited, 0.0
        subject = ObservedRequest(self._calls(), len(request.texts), request.tokens, request.is_probe)
        return RequestObservation(self._dispatcher, self._clock, subject, waited)


class Sender:
    """Sends the requests of one call or stream; see `Engine.sender`."""

    __slots__ = ("_dispatcher", "_engine", "deadline", "learn", "limiter_flow", "limits", "parameters", "sink")

    def __init__(
        self,
        engine: Engine,
        parameters: Mapping[str, Any],
        sink: Sink,
        limits: Callable[[], RequestLimits],
        learn: Callable[[PlannedRequest, int], None],
        *,
        deadline: float | None,
        priority: Priority,
        dispatcher: _CallHooks | None,
    ) -> None:
        self._engine = engine
        self._dispatcher = dispatcher
        self.limits = limits
        self.learn = learn
        self.parameters = parameters
        self.sink = sink
        self.deadline = deadline
        self.limiter_flow = _LimiterFlow((engine.model, str(parameters.get("input_type", ""))), priority)

    def permit_for(self, request: PlannedRequest) -> Awaitable[Permit]:
        """Wait for the permit of a request, which may cover only its first inputs; see `Engine.permit`."""
        if self._dispatcher is None:
            return self._engine.permit(self.limiter_flow, request, self.limits())
        hooks = self._dispatcher
        return hooks.timed(self._engine.permit(self.limiter_flow, request, self.limits(), hooks.waiting))

    async def next_permit(self, request: PlannedRequest, observation: RequestObservation | None) -> Permit:
        """Wait for the permit of another attempt."""
        if observation is None:
            return await self._engine.permit(self.limiter_flow, request, self.limits())
        observation.wait_started()
        try:
            return await self._engine.permit(self.limiter_flow, request, self.limits(), observation.waiting)
        finally:
            observation.wait_ended()

    def send(
        self, request: PlannedRequest, retry: RetryState, permit: Permit, cut: Callable[[int], PlannedRequest]
    ) -> Awaitable[EmbedError | None]:
        """Send a request through all its attempts.

        Args:
            request: the request.
            retry: state of the attempts; the caller may read it, and set `is_last`.
            permit: permit of the first attempt.
            cut: cuts the request to the permit of another attempt.

        Returns:
            The error it ended with, or `None` for success.
        """
        observation = None if self._dispatcher is None else self._dispatcher.observe(request)
        return self._engine.send(request, self, retry, permit, cut, observation)


def _report_retry(observation: RequestObservation | None, retry: RetryState, verdict: Verdict, wait: float) -> None:
    if observation is not None and retry.last_error is not None:
        # A pause is waited out in the queue for permits.
        observation.retried(retry.attempts, retry.last_error, 0.0 if verdict is Verdict.WAIT else wait)


@dataclass(slots=True, repr=False, eq=False)
class _Decoding:
    """Decodes an answer while it arrives, slice by slice through the decode gate, beside the loop if there is a thread."""

    decoder: StreamingDecoder
    gate: DecodeGate
    priority: Priority
    slice_bytes: int
    thread: DecodeThread | None

    async def take(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.decoder.add(piece)
        await self.catch_up()

    async def catch_up(self, *, to_end: bool = False) -> None:
        """Decode until less than a slice is left; `to_end` until there is so little that a thread is not worth it."""
        least = AT_ONCE if to_end and self.thread is not None else self.slice_bytes
        while self.decoder.undecoded >= least:
            if self.thread is None:
                async with self.gate.passing(self.priority):
                    self.decoder.decode(self.slice_bytes)
            else:
                async with self.gate.passing(self.priority, is_small=True):
                    # The matrix belongs to the loop's thread: the first row is decoded here.
                    while self.decoder.undecoded and not self.decoder.has_matrix:
                        self.decoder.decode(1)
                    await self.thread.decode(self.decoder, self.slice_bytes)


async def _take_all(response: TransportResponse, limit: int, take: Callable[[bytes], Awaitable[None]]) -> bool:
    """Take the whole body piece by piece; return whether it was within the limit."""
    size = count = 0
    while piece := await response.read():
        size += len(piece)
        if size > limit:
            return False
        await take(piece)
        count += 1
        if count % PIECES_IN_A_ROW == 0:
            # If the pieces are buffered already, nothing else yields to the loop.
            await asyncio.sleep(0)
    return True
