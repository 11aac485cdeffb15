"""Carries one planned request through permits, attempts, the transport and decoding."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

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
from pinecone_embed_async._limits import DecodeGate, Flow, Lane, Turnstile
from pinecone_embed_async._log import logger
from pinecone_embed_async._plan import most_tokens
from pinecone_embed_async._retry import FirstContact, RetryBudget, RetryPolicy, RetryState, Verdict, judge
from pinecone_embed_async._sending import AiohttpTransport, TransportRequest
from pinecone_embed_async._telemetry import ObservedRequest, RequestObservation, Waiting
from pinecone_embed_async._wire import (
    Redactor,
    choose_decoder,
    encode_request,
    error_from_envelope,
    error_from_response,
)

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Executor

    import aiohttp
    import numpy as np
    from numpy.typing import NDArray
    from yarl import URL

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._endpoint import ApiKey
    from pinecone_embed_async._errors import ConnectionProblem
    from pinecone_embed_async._limits import Ask, Priority, Turn
    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._plan import PlannedRequest, RequestLimits
    from pinecone_embed_async._sending import Transport, TransportResponse
    from pinecone_embed_async._telemetry import ObservedCall, Teller
    from pinecone_embed_async._wire import Answer, Decoder, DecoderName, Reading

ERROR_BODY_BYTES = 65_536
"""As much of an error's body as is read: the documented ones have fewer than 1,000 bytes."""

OVERLOAD = frozenset({502, 503, 504})
"""Statuses that ask for fewer requests in flight, as time-outs and lost connections do. A 500 is no matter of load."""

SMALL = 8
"""What is left of an answer is small if it is less than this part of a slice, and then takes less than a fifth of a
millisecond: no turn of the event loop is spent on it."""

PIECES_IN_A_ROW = 256
"""Pieces of an answer that are taken before the event loop has a turn, however small they are."""

ERROR_BODY_SECONDS = 5.0
"""How long the body of an error is waited for; its status is known by then."""


class Counters(msgspec.Struct):
    """What has happened since the client was made."""

    attempts: int = 0
    answers: int = 0
    retries: int = 0
    rejections: int = 0
    unreadable_answers: int = 0
    inputs: int = 0
    tokens: int = 0


@dataclass(slots=True, repr=False, eq=False)
class EngineOptions:
    """What an engine needs to know; see `EmbedClient` for the meaning."""

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
    teller: Teller | None = None
    is_patient: bool = False
    ssl_context: ssl.SSLContext | None = None
    executor: Executor | None = None


@dataclass(slots=True, repr=False, eq=False)
class _LoopState:
    """What belongs to one event loop in one process."""

    process: int
    transport: Transport
    own: AiohttpTransport | None
    """The transport, unless it is a caller's."""
    lane: Lane
    gate: DecodeGate
    decoder: Decoder
    exchanges: dict[asyncio.Timeout, None] = field(default_factory=dict)
    was_closed: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self.was_closed or (self.own is not None and self.own.is_closed)


class Destination(Protocol):
    """Where the rows of a request go."""

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix, shape (inputs of the request, dimension), that its rows are written to."""

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """The positions in the call of its inputs, for messages; `None` if they are side by side from `start` on."""

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Told of the answer once its rows are in place."""


@dataclass(slots=True, repr=False, eq=False)
class _Sending:
    """One request on its way through its attempts."""

    request: PlannedRequest
    body: bytes
    redactor: Redactor
    retry: RetryState
    turn: Turn | None
    cut: Callable[[int], PlannedRequest]
    observation: RequestObservation | None


class Engine:
    """Sends requests; gives outcomes and raises nothing but `CancelledError`.

    Args:
        options: what the client was made with.
        turnstile: gives the turns to send.
        clock: the time.
        draw: draws evenly from [0, 1), for jitter.
    """

    def __init__(
        self,
        options: EngineOptions,
        turnstile: Turnstile,
        *,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._options = options
        self._turnstile = turnstile
        self._clock = clock or SystemClock()
        self._draw = draw
        self._states: dict[asyncio.AbstractEventLoop, _LoopState] = {}
        self._inherited: list[_LoopState] = []
        self._vector_type = options.vector_type
        # Putting it together takes a twentieth of a small request's time.
        self._embed_url = options.base_url / "embed"
        self.budget = RetryBudget()
        self._contact = FirstContact(is_patient=options.is_patient)
        self.counters = Counters()
        self.decoder_name = choose_decoder(options.decoder).name

    @property
    def in_flight(self) -> int:
        """Requests on the wire or being decoded."""
        return sum(state.lane.in_flight for state in self._states.copy().values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a turn."""
        return self._turnstile.waiting({state.lane for state in self._states.copy().values()})

    @property
    def concurrency(self) -> int:
        """Requests that may be in flight now in each event loop, by what became of the last ones."""
        return min((state.lane.limit for state in self._states.copy().values()), default=self._options.max_concurrency)

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._options.model

    @property
    def vector_type(self) -> VectorType | None:
        """The kind of vectors the model gives; `None` until it is known."""
        return self._vector_type

    def learn_vector_type(self, vector_type: VectorType | None) -> None:
        """Take the kind of the model's vectors from elsewhere than an answer, if it is not known."""
        self._vector_type = self._vector_type or vector_type

    async def open(self) -> _LoopState:
        """The session and the permits of the running loop, made if there are none."""
        loop, process = asyncio.get_running_loop(), os.getpid()
        state = self._states.get(loop)
        if state is not None and state.process == process and not state.is_closed:
            return state
        # Copied, and taken out with a default: other threads may clear up at the same time.
        for other, old in self._states.copy().items():
            if old.process == process and not other.is_closed():
                continue
            gone = self._states.pop(other, None)
            if gone is not None and old.process != process:
                # Its sockets belong to the parent process too: closing them would write to them. They are
                # kept unused for as long as this client lives.
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
            )
        return _LoopState(
            process=process,
            transport=options.transport or cast("Transport", own),
            own=own,
            # A quota that others share knows the lane: it must not keep alive what a loop that is gone has left behind.
            lane=Lane(options.max_concurrency, is_slowed=lambda: budget.is_low),
            gate=DecodeGate(),
            decoder=choose_decoder(options.decoder),
        )

    async def aclose(self) -> None:
        """Close the running loop's connections; those of other loops close with their loops."""
        state = self._states.pop(asyncio.get_running_loop(), None)
        if state is not None and state.process == os.getpid():
            state.was_closed = True
            try:
                for exchange in state.exchanges:
                    # aiohttp does not wake whoever reads a body when the connection is closed under them.
                    if not exchange.expired():
                        exchange.reschedule(0)
            finally:
                if state.own is not None:
                    await state.own.aclose()

    def abandon(self) -> None:
        """Let go of all connections without the loop's help; for a client that was never closed."""
        for loop, state in self._states.copy().items():
            if state.own is not None and state.process == os.getpid() and not loop.is_closed():
                state.own.abandon()
        self._states.clear()

    def sender(
        self,
        parameters: Mapping[str, Any],
        destination: Destination,
        limits: Callable[[], RequestLimits],
        learn: Callable[[PlannedRequest, int], None],
        *,
        deadline: float | None,
        priority: Priority,
        calls: Callable[[], tuple[ObservedCall, ...]] = tuple,
    ) -> Sender:
        """What sends the requests of one call or stream.

        Args:
            parameters: of the model.
            destination: where the rows go.
            limits: what one request may hold.
            learn: told what the service billed for a request.
            deadline: the end of the whole call, by the clock; `None` for none.
            priority: of the call.
            calls: gives those that the requests are sent for, as the hooks know them: the ones that have not ended.
        """
        teller = None if self._options.teller is None else _CallTeller(self._options.teller, self._clock, calls)
        return Sender(self, parameters, destination, limits, learn, deadline=deadline, priority=priority, teller=teller)

    async def turn(
        self,
        waiting: _Waiting,
        request: PlannedRequest,
        limits: RequestLimits,
        waits: Callable[[float], None] | None = None,
    ) -> Turn:
        """Wait for the turn to send a request, or a part of it.

        Args:
            waiting: waits for it.
            request: of which as much as possible is to be sent.
            limits: what one request may hold.
            waits: told if there is no turn at once, with the seconds that a pause still takes.

        Raises:
            InputError: its first input has more tokens than the quota ever has.
            ConfigurationError: the session that was passed cannot be used.
        """
        state = await self.open()
        limit = self._turnstile.known_limit(waiting.key)
        if limit is not None and request.fewest_tokens(limits) > limit:
            raise InputError(
                f"input {request.start} has about {request.least_tokens(limits)} tokens, and the quota {limit} in a whole"
                " window, so it can never be sent: split it",
                index=request.start,
            )
        lane, least = state.lane, request.least_tokens(limits)
        turnstile, key = self._turnstile, waiting.key
        told = None if waits is None else lambda: waits(turnstile.pause_left(key))
        return await turnstile.turn(waiting.flow(lane), lane, key, request.tokens, least, waits=told)

    async def send(
        self,
        request: PlannedRequest,
        sender: Sender,
        retry: RetryState,
        turn: Turn,
        cut: Callable[[int], PlannedRequest],
        observation: RequestObservation | None,
    ) -> EmbedError | None:
        """Send a request through all its attempts; gives the error it ended with, or `None` for success."""
        redactor = Redactor(self._options.api_key.reveal(), request.texts, request.start)
        sending = _Sending(request, b"", redactor, retry, turn, cut, observation)
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
                # Nearly always, and setting up the loop takes a tenth of a small request's time.
                return None
            met: EmbedError | None = error

            async def attempt() -> EmbedError | None:
                nonlocal met
                first, met = met, None
                return first if first is not None else await self._attempt(state, sending, sender)

            error = await self._retrying(sender.waiting.key, retry, sender.deadline, observation)(attempt)
        except asyncio.CancelledError as cancellation:
            cancelled = cancellation
            raise
        except Exception as fault:  # noqa: BLE001 - one request must not take the others' answers along
            # Here and not further up, for here it is known what must not be shown.
            error = unexpected_error(fault, sending.redactor.clean)
            error.attempts = retry.attempts
        finally:
            if sending.turn is not None:
                sending.turn.give_back()
            if observation is not None:
                observation.ended(retry, len(sending.request.texts), error or cancelled)
            # It would hold itself by this frame.
            del cancelled
        return error

    def _prepare(self, sending: _Sending, request: PlannedRequest, sender: Sender) -> None:
        """Encode a request, once for all attempts unless it is cut."""
        sending.request = request
        names = sender.destination.names(request)
        sending.redactor = Redactor(self._options.api_key.reveal(), request.texts, request.start, names)
        sending.body = encode_request(self._options.model, request.texts, sender.parameters)

    def _retrying(
        self,
        key: tuple[str, str] | None,
        retry: RetryState,
        deadline: float | None,
        observation: RequestObservation | None = None,
    ) -> tenacity.AsyncRetrying:
        """The tenacity loop of one request; stop, wait and sleep go by our clock and our state."""
        policy, clock, turnstile, contact = self._options.retry, self._clock, self._turnstile, self._contact
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
                return turnstile.wait_left(key)
            return retry.backoff(policy, verdict, retry.last_error, self._draw)

        def stop(call: tenacity.RetryCallState) -> bool:
            nonlocal final
            final = retry.final_error(
                policy,
                now=clock.time(),
                wait=call.upcoming_sleep,
                last_acceptance=turnstile.last_acceptance(key),
                deadline=deadline,
                contact=contact,
            )
            return final is not None

        def count(call: tenacity.RetryCallState) -> None:
            self.counters.retries += 1
            _tell_retried(observation, retry, verdict, call.upcoming_sleep)

        async def sleep(delay: float) -> None:
            # A pause is waited for in the queue for a turn, where order is kept.
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
        """One attempt: a turn, the post, the decode. Gives the error instead of raising it."""
        retry = sending.retry
        if sending.turn is None:
            try:
                await self._take_turn(sending, sender)
            except InputError as too_large:
                # It is about the first input; the others may be sent yet.
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
            self._end_turn(sending, sender, answer, error)
        self._note(sending, error)
        # Without its traceback the error keeps no frame, and so no text and no body, alive.
        return error.with_traceback(None) if error is not None else None

    async def _take_turn(self, sending: _Sending, sender: Sender) -> None:
        """Wait for the turn of another attempt; the request is cut to it."""
        sending.request = sending.request.estimated(sender.limits())
        turn = await sender.next_turn(sending.request, sending.observation)
        sending.turn = turn
        if turn.tokens < sending.request.tokens:
            self._prepare(sending, sending.cut(turn.tokens), sender)
        turn.shrink(sending.request.tokens)

    def _end_turn(self, sending: _Sending, sender: Sender, answer: Answer | None, error: EmbedError | None) -> None:
        """Tell the limits what became of an attempt."""
        turn = sending.turn
        if turn is None:
            raise RuntimeError("an attempt was made without a turn")
        billed = None if answer is None else answer.total_tokens
        counted = None if billed is None else min(billed, most_tokens(sending.request, sender.limits().sequence_length))
        # Until here it would be given back if something was raised.
        sending.turn = None
        if answer is not None or isinstance(error, ResponseError):
            # The service took the request, also if its answer is not readable.
            turn.accepted(counted)
        else:
            self._end_failed_turn(turn, sending.retry, error)
        if billed is not None:
            sender.learn(sending.request, billed)

    def _end_failed_turn(self, turn: Turn, retry: RetryState, error: EmbedError | None) -> None:
        if isinstance(error, RateLimitError) and judge(error) is Verdict.WAIT:
            self.counters.rejections += 1
            pause = turn.rejected(
                error.message, error.retry_after, lambda bursts: self._options.retry.backoff(bursts, error, self._draw)
            )
            if pause is not None:
                logger.info("the service's limit is reached; all requests under it pause for %.1f s", pause)
        else:
            is_overload = isinstance(error, TransportError) or (isinstance(error, ServiceError) and error.status in OVERLOAD)
            turn.failed(is_overload=is_overload and not retry.is_for_once(error))

    def _note(self, sending: _Sending, error: EmbedError | None) -> None:
        self._contact.noted(error)
        if not sending.retry.is_for_once(error):
            self.budget.settle(error)
        logger.debug(
            "%s, attempt %d: %s", sending.request, sending.retry.attempts, "answered" if error is None else kind_of(error)
        )
        if isinstance(error, ResponseError):
            self.counters.unreadable_answers += 1

    async def get(self, path: str, query: Mapping[str, str], *, is_tried_once: bool = False) -> bytes:
        """The body that `GET` answers, tried again as the retry policy says unless it is to be tried once.

        Raises:
            EmbedError: the error it ended with.
        """
        state = await self.open()
        retry = RetryState(is_last=is_tried_once)
        redactor = Redactor(self._options.api_key.reveal())
        waiting = _Waiting(None, "interactive")
        body = bytearray()

        async def take(piece: bytes) -> None:
            body.extend(piece)

        async def attempt() -> EmbedError | None:
            body.clear()
            turn = await self._turnstile.turn(waiting.flow(state.lane), state.lane, None, 0, 0)
            is_answered = False
            error: EmbedError | None = None
            try:
                retry.sent(self._clock.time())
                error = await self._exchange(state, "GET", path, None, redactor, take, query)
                is_answered = error is None
                if is_answered:
                    self._contact.answered()
                else:
                    self._contact.noted(error)
                if not retry.is_for_once(error):
                    self.budget.settle(error)
            finally:
                if is_answered:
                    turn.accepted(0)
                else:
                    self._end_failed_turn(turn, retry, error)
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
        """Send a request and take the answer's body, piece by piece; gives the error instead of raising it."""
        options = self._options
        if state.was_closed:
            return ClosedError("the client was closed while the request was under way")
        # The path comes encoded: a model's name may hold a slash.
        url = self._embed_url if query is None else options.base_url.joinpath(path, encoded=True).with_query(query)
        status, is_refused = 0, False
        headers: dict[str, str] = {}
        start = bytearray()
        connection: ConnectionProblem | None = None
        cancellations = await Cancellations.counted()
        scope = self._clock.timeout_at(self._clock.time() + options.attempt_timeout)
        try:
            async with scope as timeout:
                # Listed, so that closing the client can bring its end forward.
                state.exchanges[timeout] = None
                try:
                    async with state.transport.send(TransportRequest(method, url, self._headers(), body)) as response:
                        status = int(response.status)
                        if 200 <= status < 300:
                            return await self._take_answer(response, status, take)
                        headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
                        is_refused = True
                        await self._take_start(response, start)
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
            return ClosedError("the client was closed while the request was under way")
        if is_refused:
            # Whatever became of the body, and of the response then: the status is known.
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
        """Take the body of an answer piece by piece; gives the error if it is none."""
        limit = self._options.max_answer_bytes
        if status != 200:
            return ResponseError(f"the service answered HTTP {status}, which carries no embeddings")
        if await _take_all(response, limit, take):
            return None
        return ResponseError(f"the answer is larger than max_answer_bytes ({limit})")

    async def _take_start(self, response: TransportResponse, start: bytearray) -> None:
        """Add as much of an error's body as is useful."""
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
        request, destination = sending.request, sender.destination
        reading = state.decoder.begin(
            count=len(request.texts),
            vector_type=self._vector_type,
            dimension=destination.dimension,
            rows=lambda dimension: destination.rows(request, dimension),
        )
        return _Decoding(reading, state.gate, sender.waiting.priority, state.decoder.slice_bytes)

    async def _settle(
        self, sending: _Sending, sender: Sender, decoding: _Decoding
    ) -> tuple[Answer | None, EmbedError | None]:
        """Judge an answer that is there, and hand it over; gives the error instead of raising it."""
        request, destination, reading = sending.request, sender.destination, decoding.reading
        caught: EmbedError | None = None
        answer: Answer | None = None
        await decoding.catch_up()
        is_small = reading.left * SMALL < decoding.slice_bytes
        while answer is None and caught is None:
            async with decoding.gate.passing(decoding.priority, is_small=is_small):
                try:
                    answer = reading.finish(decoding.slice_bytes)
                except ResponseError as error:
                    caught = error
                if answer is not None:
                    # Before the gate gives the loop back: whoever cancels from now on does not undo it.
                    self._vector_type = answer.vector_type
                    sending.retry.is_settled = True
                    self.counters.answers += 1
                    self.counters.inputs += 0 if request.is_probe else len(request.texts)
                    self.counters.tokens += answer.total_tokens or 0
                    if sending.observation is not None:
                        sending.observation.answered(answer.total_tokens)
                    destination.answered(request, answer)
        if caught is not None:
            return None, error_from_envelope(reading.body(), redactor=sending.redactor) or caught
        return answer, None


class _Waiting:
    """What waits for turns under one key and with one priority."""

    __slots__ = ("_flow", "_lane", "key", "priority")

    def __init__(self, key: tuple[str, str] | None, priority: Priority) -> None:
        self.key = key
        self.priority: Priority = priority
        self._lane: Lane | None = None
        self._flow: Flow[Ask] | None = None

    def flow(self, lane: Lane) -> Flow[Ask]:
        """Its flow in a lane; another one if the client was closed and opened again meanwhile."""
        if self._flow is None or self._lane is not lane:
            self._lane, self._flow = lane, Flow((lane, self.key), self.priority)
        return self._flow


class _CallTeller:
    """Tells the hooks of the requests of one call or stream.

    A request has its first turn before it is known, for it is cut to it: until then it is the call that waits.
    """

    __slots__ = ("_calls", "_clock", "_teller", "_waited")

    def __init__(self, teller: Teller, clock: Clock, calls: Callable[[], tuple[ObservedCall, ...]]) -> None:
        self._teller = teller
        self._clock = clock
        self._calls = calls
        self._waited = 0.0

    def waits(self, pause: float) -> None:
        """Note that the next request has to wait for its turn."""
        for call in self._calls():
            self._teller.tell(Waiting(call, pause))

    async def timed(self, turn: Awaitable[Turn]) -> Turn:
        """Wait for the turn of the next request, and keep how long it took."""
        asked = self._clock.time()
        try:
            return await turn
        finally:
            self._waited += self._clock.time() - asked

    def observe(self, request: PlannedRequest) -> RequestObservation:
        """Tell of a request that is about to be sent."""
        waited, self._waited = self._waited, 0.0
        subject = ObservedRequest(self._calls(), len(request.texts), request.tokens, request.is_probe)
        return RequestObservation(self._teller, self._clock, subject, waited)


class Sender:
    """Sends the requests of one call or stream; see `Engine.sender`."""

    __slots__ = ("_engine", "_teller", "deadline", "destination", "learn", "limits", "parameters", "waiting")

    def __init__(
        self,
        engine: Engine,
        parameters: Mapping[str, Any],
        destination: Destination,
        limits: Callable[[], RequestLimits],
        learn: Callable[[PlannedRequest, int], None],
        *,
        deadline: float | None,
        priority: Priority,
        teller: _CallTeller | None,
    ) -> None:
        self._engine = engine
        self._teller = teller
        self.limits = limits
        self.learn = learn
        self.parameters = parameters
        self.destination = destination
        self.deadline = deadline
        self.waiting = _Waiting((engine.model, str(parameters.get("input_type", ""))), priority)

    def turn_for(self, request: PlannedRequest) -> Awaitable[Turn]:
        """Wait for the turn of a request, which may be for a part of it; see `Engine.turn`."""
        if self._teller is None:
            return self._engine.turn(self.waiting, request, self.limits())
        return self._teller.timed(self._engine.turn(self.waiting, request, self.limits(), self._teller.waits))

    async def next_turn(self, request: PlannedRequest, observation: RequestObservation | None) -> Turn:
        """Wait for the turn of another attempt."""
        if observation is None:
            return await self._engine.turn(self.waiting, request, self.limits())
        observation.asks()
        try:
            return await self._engine.turn(self.waiting, request, self.limits(), observation.waits)
        finally:
            observation.has_its_turn()

    def send(
        self, request: PlannedRequest, retry: RetryState, turn: Turn, cut: Callable[[int], PlannedRequest]
    ) -> Awaitable[EmbedError | None]:
        """Send a request through all its attempts.

        Args:
            request: what to send.
            retry: keeps the account of the attempts; others may read it, and set `is_last`.
            turn: of the first attempt.
            cut: cuts the request to what another attempt's turn is for.

        Returns:
            The error it ended with, or `None` for success.
        """
        observation = None if self._teller is None else self._teller.observe(request)
        return self._engine.send(request, self, retry, turn, cut, observation)


def _tell_retried(observation: RequestObservation | None, retry: RetryState, verdict: Verdict, wait: float) -> None:
    if observation is not None:
        # A pause is waited for in the queue for a turn.
        observation.retried(retry, 0.0 if verdict is Verdict.WAIT else wait)


@dataclass(slots=True, repr=False, eq=False)
class _Decoding:
    """Decodes an answer while it arrives: a slice at a time, each through the gate."""

    reading: Reading
    gate: DecodeGate
    priority: Priority
    slice_bytes: int

    async def take(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.reading.add(piece)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Decode until there is less than a slice left."""
        while self.reading.undecoded >= self.slice_bytes:
            async with self.gate.passing(self.priority):
                self.reading.decode(self.slice_bytes)


async def _take_all(response: TransportResponse, limit: int, take: Callable[[bytes], Awaitable[None]]) -> bool:
    """Take the whole body piece by piece as it comes; whether it was no larger than allowed."""
    size = count = 0
    while piece := await response.read():
        size += len(piece)
        if size > limit:
            return False
        await take(piece)
        count += 1
        if count % PIECES_IN_A_ROW == 0:
            # Where they are there already, nothing else gives the loop back.
            await asyncio.sleep(0)
    return True
