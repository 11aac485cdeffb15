"""The attempts of requests: permit, body, exchange, decoding, and the consequences of each outcome."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

from pinecone_embed_async._errors import (
    DeadlineExceededError,
    EmbedError,
    InputError,
    NotFoundError,
    ResponseError,
    kind_of,
    unexpected_error,
)
from pinecone_embed_async._log import logger
from pinecone_embed_async._models import nearest_known
from pinecone_embed_async._planning import Attempts
from pinecone_embed_async._rate_limit import Flow
from pinecone_embed_async._sending.retry_loop import RetryLoop
from pinecone_embed_async._structs import SilentStruct
from pinecone_embed_async._telemetry import ObservedRequest, RequestObservation, Waiting
from pinecone_embed_async._wire import StreamingDecoder, encode_request, error_from_envelope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import tenacity

    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._rate_limit import Permit, Priority
    from pinecone_embed_async._sending.engine import Engine
    from pinecone_embed_async._sending.network import LoopState
    from pinecone_embed_async._telemetry import ObservedCall
    from pinecone_embed_async._wire import Answer

SLICE_BYTES = 2**19
"""Number of bytes of an answer that msgspec decodes in about 1.5 ms, after which the task yields to the event loop; see
docs/benchmarks.md."""

SMALL_BYTES = 2**16
"""Either decoder decodes fewer bytes than this in less than 0.2 ms, so the task does not yield to the event loop for them,
and switching to the decode thread would take as long."""

THREAD_BYTES = 2**21
"""Number of bytes of an incomplete answer that are handed to the decode thread. Most answers are smaller and are handed over
when they are complete, because with each handover the event loop and the thread wait for the GIL."""


async def get_body(engine: Engine, path: str, query: Mapping[str, str], *, is_tried_once: bool = False) -> bytes:
    """The body of the answer to a `GET`, retried according to the retry policy unless `is_tried_once`.

    Raises:
        EmbedError: the request failed.
    """
    state = await engine.network.open()
    attempts = Attempts(is_last=is_tried_once)
    flow = Flow(state.concurrency, None, "interactive")
    body = _WholeBody()

    async def attempt() -> EmbedError | None:
        body.clear()
        permit = await engine.gate.wait(engine.gate.request(flow, 0, 0))
        try:
            attempts.sent(engine.clock.time())
            error = await engine.network.get(state, path, query, body)
        except BaseException:
            engine.end_unaccepted(permit, attempts, None)
            raise
        if error is None:
            permit.accepted(0)
            # Only "answered": whether the body can be read is not known yet.
            engine.contact.answered()
            engine.budget.record(None)
        else:
            engine.end_unaccepted(permit, attempts, error)
            engine.record(attempts, error)
        return error

    error: EmbedError | None = await RetryLoop(engine, attempts).retrying()(attempt)
    if error is not None:
        raise error
    return bytes(body)


class Callers(Protocol):
    """The calls on whose behalf requests are sent."""

    @property
    def calls(self) -> tuple[ObservedCall, ...]:
        """The calls that have not ended, as hooks see them."""

    @property
    def next_deadline(self) -> float | None:
        """The earliest deadline of the calls that have not ended, by the clock; `None` if none of them has one."""

    def waiting(self) -> AbstractContextManager[None]:
        """A context manager held while one of their requests waits for a free place in flight."""

    def dismiss_late(self, until: float, error: DeadlineExceededError) -> bool:
        """End the calls whose deadline is not after `until`; return whether none is left."""


class Sender(SilentStruct):
    """Makes the attempts of the requests of one call or stream, and returns their errors.

    Args:
        engine: the client's shared state for sending.
        parameters: the model's parameters.
        deadline: clock time at which the requests end; `None` for no deadline.
        priority: priority of the call.
        callers: the calls on whose behalf the requests are sent.
    """

    _engine: Engine
    _parameters: Mapping[str, Any]
    _deadline: float | None
    _priority: Priority
    _callers: Callers
    # Both are set by `permit`, before any attempt.
    _state: LoopState = None  # type: ignore[assignment]
    _flow: Flow = None  # type: ignore[assignment]
    # A request is planned when its first permit comes, so until then the call waits, not a request.
    _waited: float = 0.0

    def __repr__(self) -> str:
        return f"<Sender of {self._priority} requests>"

    async def permit(self, request: PlannedRequest, observation: RequestObservation | None = None) -> Permit:
        """Wait for a permit to send a request, or at least its first inputs.

        Args:
            request: the request; the permit is for as many of its tokens as possible.
            observation: reports the request to the hooks; `None` without hooks, and before its first attempt.

        Raises:
            InputError: the first input has more tokens than the whole quota.
            ConfigurationError: the session passed to the client, or the quota, cannot be used.
            DeadlineExceededError: no permit can come before the deadline of the last caller.
        """
        engine = self._engine
        state = await engine.network.open()
        if state is not self._state:
            # The first request, or the client was reopened meanwhile.
            self._state, self._flow = state, Flow(state.concurrency, engine.key(self._parameters), self._priority)
        least, limit = request.least_tokens, engine.gate.known_limit(self._flow.key)
        if least > limit and request.certain_tokens > limit:
            position = request.positions[0]
            raise InputError(
                f"input {position} has about {least} tokens, but the quota allows only {limit} in a whole window: split it",
                index=position,
            )
        is_paused = False
        while True:
            deadline = self._callers.next_deadline
            certain = 0 if deadline is None else request.certain_tokens
            permit = engine.gate.request(self._flow, request.load.tokens, least, deadline=deadline, certain=certain)
            if permit.is_granted:
                return permit
            started = engine.clock.time()
            # Later calls are held only for lack of a place; otherwise they would miss tokens that come free, and learn too
            # late of a pause that outlasts their deadlines.
            needs_place = not is_paused and not state.concurrency.has_room(self._priority, started)
            try:
                with self._callers.waiting() if needs_place else contextlib.nullcontext():
                    return await engine.gate.wait(permit, observation or self)
            except DeadlineExceededError as error:
                if permit.pause is None or self._callers.dismiss_late(permit.pause.until, error.with_traceback(None)):
                    raise
                is_paused = True
            finally:
                waited = engine.clock.time() - started
                if observation is None:
                    self._waited += waited
                else:
                    observation.waited(waited)

    def out_of_time(self, message: str) -> DeadlineExceededError:
        """The error of a call whose deadline has passed; `retry_after` says how much longer it would have to wait."""
        return self._engine.out_of_time(self._engine.key(self._parameters), message)

    def waiting(self, pause: float) -> None:
        """Report to the hooks that the next request must wait for its permit."""
        if (dispatcher := self._engine.options.dispatcher) is not None:
            for call in self._callers.calls:
                dispatcher.dispatch(Waiting(call, pause))

    def observe(self, request: PlannedRequest) -> RequestObservation | None:
        """Report to the hooks that a request is about to be sent; return `None` without hooks."""
        if (dispatcher := self._engine.options.dispatcher) is None:
            return None
        waited, self._waited = self._waited, 0.0
        subject = ObservedRequest(self._callers.calls, len(request.texts), request.load.tokens, request.is_probe)
        return RequestObservation(dispatcher, self._engine.clock, subject, waited)

    def retrying(self, request: PlannedRequest, observation: RequestObservation | None) -> tenacity.AsyncRetrying:
        """The tenacity loop for the attempts of a request."""
        return RetryLoop(self._engine, request, self._flow.key, self._deadline, observation).retrying()

    async def attempt(
        self, request: PlannedRequest, permit: Permit, observation: RequestObservation | None
    ) -> EmbedError | None:
        """Make one attempt, which ends the permit; return its error."""
        engine, state = self._engine, self._state
        error: EmbedError | None = None
        if request.body is None:
            # Encoded once for all attempts, unless it is cut.
            try:
                request.body = encode_request(engine.options.model, request.texts, self._parameters)
            except BaseException:
                permit.give_back()
                raise
        try:
            engine.counters.attempts += 1
            request.sent(engine.clock.time())
            decoder = StreamingDecoder(
                engine.network.decoder,
                count=len(request.texts),
                vector_type=engine.vector_type,
                dimension=request.results.dimension,
                rows=request,
            )
            decoding = _Decoding(decoder, state, self._priority)
            error = await engine.network.post(state, request, decoding)
            if error is None:
                error = await self._finish_answer(request, decoding, observation)
        finally:
            request.in_flight = False
            self._end_permit(permit, request, error)
        engine.record(request, error)
        logger.debug("%s, attempt %d: %s", request, request.attempts, "answered" if error is None else kind_of(error))
        if error is None:
            return None
        if isinstance(error, ResponseError):
            engine.counters.unreadable_answers += 1
        if isinstance(error, NotFoundError):
            error.suggest(nearest_known(engine.options.model))
        # The traceback would keep frames alive, and with them texts and bodies.
        return error.with_traceback(None)

    def unexpected(self, request: PlannedRequest, fault: Exception) -> EmbedError:
        """The error of a request for an unexpected exception, without secrets."""
        error = unexpected_error(fault, self._engine.options.redactor(request))
        error.attempts = request.attempts
        return error

    def _end_permit(self, permit: Permit, request: PlannedRequest, error: EmbedError | None) -> None:
        """End the permit of an attempt according to its outcome."""
        if not request.is_answered and not isinstance(error, ResponseError):
            self._engine.end_unaccepted(permit, request, error)
            return
        # The service accepted the request even if its answer cannot be read.
        billed = request.billed
        permit.accepted(permit.tokens if billed is None else request.limits.billed(request.load, billed))

    async def _finish_answer(
        self, request: PlannedRequest, decoding: _Decoding, observation: RequestObservation | None
    ) -> EmbedError | None:
        """Decode what is left of a complete answer, validate it and hand it on; return the error instead of raising it."""
        decoder = decoding.decoder
        if decoder.undecoded >= SMALL_BYTES:
            await decoding.catch_up(SMALL_BYTES)
        try:
            while not request.is_answered:
                if decoder.left < SMALL_BYTES:
                    self._accept(request, decoder.finish(SLICE_BYTES), observation)
                    continue
                async with decoding.state.decode_gate.passing(decoding.priority):
                    # Before the gate yields to the event loop, so that a cancellation comes too late to lose the answer.
                    self._accept(request, decoder.finish(SLICE_BYTES), observation)
        except ResponseError as invalid:
            return error_from_envelope(decoder.body(), redactor=self._engine.options.redactor(request)) or invalid
        return None

    def _accept(self, request: PlannedRequest, answer: Answer | None, observation: RequestObservation | None) -> None:
        """Count an answer, and hand it on; do nothing with `None`, while its validation pauses."""
        if answer is None:
            return
        counters = self._engine.counters
        self._engine.vector_type = answer.vector_type
        request.is_answered = True
        counters.answers += 1
        counters.inputs += 0 if request.is_probe else len(request.texts)
        counters.tokens += answer.total_tokens or 0
        if observation is not None:
            observation.answered(answer.total_tokens, self._named(answer.model, request))
        request.results.answered(request, answer)

    def _named(self, model: str | None, request: PlannedRequest) -> str | None:
        """The model that an answer names, redacted, for the hooks."""
        options = self._engine.options
        return model if model in {None, options.model} else options.redactor(request).clean(model)


class _Decoding(SilentStruct):
    """Decodes an answer while it arrives, in the decode thread if there is one, else slice by slice on the event loop."""

    decoder: StreamingDecoder
    state: LoopState
    priority: Priority

    async def take(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.decoder.add(piece)
        if self.decoder.undecoded >= SMALL_BYTES:
            await self.catch_up(THREAD_BYTES)

    async def catch_up(self, least: int) -> None:
        """Decode until fewer bytes than `least` are left, or than a slice if there is no decode thread."""
        decoder, thread = self.decoder, self.state.thread
        while decoder.undecoded >= (SLICE_BYTES if thread is None else least):
            async with self.state.decode_gate.passing(self.priority):
                if thread is None:
                    decoder.decode(SLICE_BYTES)
                    continue
                # Only the event loop's thread may allocate the matrix; its dimension is that of the first row.
                while decoder.undecoded and decoder.matrix is None:
                    decoder.decode(1)
                await thread.decode(decoder, THREAD_BYTES)


class _WholeBody(bytearray):
    """Collects a whole body."""

    async def take(self, piece: bytes) -> None:
        """Take the next piece."""
        self.extend(piece)
