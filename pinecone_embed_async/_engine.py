"""Carries one planned request through permits, attempts, HTTP and decoding; owns the session."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
import tenacity

from pinecone_embed_async._clock import LoopClock
from pinecone_embed_async._endpoint import proxy_for
from pinecone_embed_async._errors import (
    ClosedError,
    ConfigurationError,
    EmbedError,
    RateLimitError,
    ResponseError,
    TransportError,
    kind_of,
)
from pinecone_embed_async._limits import DecodeGate, Permits
from pinecone_embed_async._log import logger
from pinecone_embed_async._retry import RetryBudget, RetryPolicy, RetryState, Verdict, judge
from pinecone_embed_async._wire import (
    Redactor,
    choose_decoder,
    encode_request,
    error_from_envelope,
    error_from_response,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from yarl import URL

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._endpoint import ApiKey
    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._plan import PlannedRequest
    from pinecone_embed_async._wire import Answer, Decoder, DecoderName, Reading

ERROR_BODY_BYTES = 65_536
"""As much of an error's body as is read: the documented ones have fewer than 1,000 bytes."""

READ_BUFFER_BYTES = 2**20
"""Bytes that a connection takes in before it stops reading from its socket. With aiohttp's 64 KiB, the 1.9 MB of a
full answer stop and go thirty times."""

ERROR_BODY_SECONDS = 5.0
"""How long the body of an error is waited for; its status is known by then."""


@dataclass(slots=True)
class Counters:
    """What has happened since the client was made."""

    attempts: int = 0
    answers: int = 0
    retries: int = 0
    rejections: int = 0
    unreadable_answers: int = 0
    inputs: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True, repr=False)
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
    user_agent: str


@dataclass(slots=True, repr=False)
class _LoopState:
    """What belongs to one event loop in one process."""

    process: int
    session: aiohttp.ClientSession
    permits: Permits
    gate: DecodeGate
    decoder: Decoder
    tls: ssl.SSLContext | bool
    proxy: URL | None
    closer: AsyncGenerator[None, None]
    exchanges: set[asyncio.Timeout] = field(default_factory=set)


class Destination(Protocol):
    """Where the rows of a request go."""

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix, shape (inputs of the request, dimension), that its rows are written to."""

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Told of the answer once its rows are in place."""


@dataclass(frozen=True, slots=True, repr=False)
class _Sending:
    """One request on its way through its attempts."""

    request: PlannedRequest
    body: bytes
    redactor: Redactor
    destination: Destination
    retry: RetryState


class Engine:
    """Sends requests; gives outcomes and raises nothing but `CancelledError`.

    Args:
        options: what the client was made with.
        clock: the time.
        draw: draws evenly from [0, 1), for jitter.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._options = options
        self._clock = clock or LoopClock()
        self._draw = draw
        self._states: dict[asyncio.AbstractEventLoop, _LoopState] = {}
        self._inherited: list[_LoopState] = []
        self._vector_type = options.vector_type
        self.budget = RetryBudget()
        self.counters = Counters()
        self.decoder_name = choose_decoder(options.decoder).name

    @property
    def in_flight(self) -> int:
        """Requests on the wire or being decoded."""
        return sum(state.permits.in_flight for state in self._states.values())

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit."""
        return sum(state.permits.waiting for state in self._states.values())

    @property
    def vector_type(self) -> VectorType | None:
        """The kind of vectors the model gives; `None` until it is known."""
        return self._vector_type

    async def open(self) -> _LoopState:
        """The session and the permits of the running loop, made if there are none."""
        loop, process = asyncio.get_running_loop(), os.getpid()
        state = self._states.get(loop)
        if state is not None and state.process == process and not state.session.closed:
            return state
        for other, old in list(self._states.items()):
            if old.process != process:
                # Its sockets belong to the parent process too: closing them would write to them. They are
                # kept unused for as long as this client lives.
                self._inherited.append(self._states.pop(other))
            elif other.is_closed():
                del self._states[other]
        state = self._make_state(loop, process)
        self._states[loop] = state
        # Entered now, so that the loop's own shut-down closes the session if nobody else does.
        await anext(state.closer)
        return state

    def _make_state(self, loop: asyncio.AbstractEventLoop, process: int) -> _LoopState:
        options = self._options
        own = options.session
        tls: ssl.SSLContext | bool = True
        if own is None:
            connector: aiohttp.BaseConnector = aiohttp.TCPConnector(limit=options.max_concurrency)
            trace_configs: list[aiohttp.TraceConfig] = []
        else:
            if own.closed or own.connector is None:
                raise ConfigurationError("the session that was passed to the client is closed")
            if own.connector._loop is not loop:  # noqa: SLF001 - there is no public name for it
                raise ConfigurationError("the session that was passed to the client belongs to another loop")
            # Only its connections are used: its headers, cookies, netrc and redirects would loosen the rules.
            connector, trace_configs = own.connector, own.trace_configs
            if options.base_url.scheme == "https":
                tls = ssl.create_default_context()
        session = aiohttp.ClientSession(
            connector=connector,
            connector_owner=own is None,
            cookie_jar=aiohttp.DummyCookieJar(),
            trace_configs=trace_configs,
            read_bufsize=READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=options.connect_timeout),
        )
        return _LoopState(
            process=process,
            session=session,
            permits=Permits(options.max_concurrency, self._clock, is_slowed=lambda: self.budget.is_low),
            gate=DecodeGate(),
            decoder=choose_decoder(options.decoder),
            tls=tls,
            proxy=proxy_for(options.base_url),
            closer=_close_with_loop(session),
        )

    async def aclose(self) -> None:
        """Close the running loop's session; those of other loops close with their loops."""
        state = self._states.pop(asyncio.get_running_loop(), None)
        if state is not None and state.process == os.getpid():
            for exchange in state.exchanges:
                # aiohttp does not wake whoever reads a body when the connection is closed under them.
                exchange.reschedule(0)
            await state.closer.aclose()

    def abandon(self) -> None:
        """Let go of all sessions without the loop's help; for a client that was never closed."""
        for loop, state in self._states.items():
            if state.process == os.getpid() and not state.session.closed and not loop.is_closed():
                connector = state.session.connector
                state.session.detach()
                if connector is not None and self._options.session is None:
                    connector._close()  # noqa: SLF001 - the public one needs a running loop
        self._states.clear()

    async def send(
        self,
        request: PlannedRequest,
        parameters: Mapping[str, Any],
        destination: Destination,
        retry: RetryState,
        *,
        deadline: float | None,
    ) -> EmbedError | None:
        """Send a request through all its attempts.

        Args:
            request: what to send.
            parameters: of the model.
            destination: where the rows go.
            retry: keeps the account of the attempts; others may read it, and set `is_last`.
            deadline: the end of the whole call, by the clock; `None` for none.

        Returns:
            The error it ended with, or `None` for success.
        """
        body = encode_request(self._options.model, request.texts, parameters)
        redactor = Redactor(self._options.api_key.reveal(), request.texts, request.start)
        try:
            state = await self.open()
        except ConfigurationError as unusable:
            return unusable.with_traceback(None)
        sending = _Sending(request, body, redactor, destination, retry)
        met = await self._attempt(state, sending)
        if met is None:
            # Nearly always, and setting up the loop takes a tenth of a small request's time.
            return None

        async def attempt() -> EmbedError | None:
            nonlocal met
            error, met = met, None
            return error if error is not None else await self._attempt(state, sending)

        error: EmbedError | None = await self._retrying(state, retry, deadline)(attempt)
        return error

    def _retrying(self, state: _LoopState, retry: RetryState, deadline: float | None) -> tenacity.AsyncRetrying:
        """The tenacity loop of one request; stop, wait and sleep go by our clock and our state."""
        policy, clock, permits = self._options.retry, self._clock, state.permits
        verdict = Verdict.FINAL
        final: EmbedError | None = None

        def should_retry(call: tenacity.RetryCallState) -> bool:
            nonlocal verdict
            if call.outcome is None or call.outcome.failed:
                return False
            error = call.outcome.result()
            if error is None:
                return False
            verdict = retry.failed(error)
            return verdict is not Verdict.FINAL

        def wait(_: tenacity.RetryCallState) -> float:
            if verdict is Verdict.WAIT or retry.last_error is None:
                return permits.pause_left()
            return policy.backoff(retry.failures, retry.last_error, self._draw)

        def stop(call: tenacity.RetryCallState) -> bool:
            nonlocal final
            final = retry.final_error(
                policy,
                now=clock.time(),
                wait=call.upcoming_sleep,
                last_acceptance=permits.last_acceptance,
                deadline=deadline,
            )
            return final is not None

        def count(_: tenacity.RetryCallState) -> None:
            self.counters.retries += 1

        async def sleep(delay: float) -> None:
            # A pause is waited for in the queue for a permit, where order is kept.
            if verdict is not Verdict.WAIT:
                await clock.sleep(delay)

        return tenacity.AsyncRetrying(
            sleep=sleep,
            stop=stop,
            wait=wait,
            retry=should_retry,
            before_sleep=count,
            retry_error_callback=lambda _: final,
        )

    async def _attempt(self, state: _LoopState, sending: _Sending) -> EmbedError | None:
        """One attempt: a permit, the post, the decode. Gives the error instead of raising it."""
        permits, retry = state.permits, sending.retry
        granted = await permits.acquire()
        try:
            retry.sent(self._clock.time())
            self.counters.attempts += 1
            decoding = self._decoding(state, sending)
            error = await self._exchange(state, "POST", "embed", sending.body, sending.redactor, decoding.take)
            if error is None:
                error = await self._settle(sending, decoding)
                if error is None or isinstance(error, ResponseError):
                    # Read or not, the service took the request.
                    permits.accept()
            self._note(permits, granted, sending, error)
        finally:
            retry.in_flight = False
            permits.release()
        # Without its traceback the error keeps no frame, and so no text and no body, alive.
        return error.with_traceback(None) if error is not None else None

    def _note(self, permits: Permits, granted: float, sending: _Sending, error: EmbedError | None) -> None:
        self.budget.settle(error)
        logger.debug(
            "%s, attempt %d: %s", sending.request, sending.retry.attempts, "answered" if error is None else kind_of(error)
        )
        if isinstance(error, ResponseError):
            self.counters.unreadable_answers += 1
        if error is not None:
            self._pause_after(permits, granted, error)

    def _pause_after(self, permits: Permits, granted: float, error: EmbedError) -> None:
        """Pause everybody if the error is a rejection by the service's limits."""
        if not isinstance(error, RateLimitError) or judge(error) is not Verdict.WAIT:
            return
        self.counters.rejections += 1
        is_new = permits.pause_left() == 0
        pause = permits.reject(
            granted,
            lambda bursts: self._options.retry.backoff(bursts, error, self._draw),
            asked=error.retry_after is not None,
        )
        if is_new:
            logger.info("the service's limit is reached; all requests pause for %.1f s", pause)

    async def get(self, path: str, query: Mapping[str, str]) -> bytes:
        """The body that `GET` answers, tried again as the retry policy says.

        Raises:
            EmbedError: the error it ended with.
        """
        state = await self.open()
        retry = RetryState()
        redactor = Redactor(self._options.api_key.reveal())
        pieces: list[bytes] = []

        async def take(piece: bytes) -> None:
            pieces.append(piece)

        async def attempt() -> EmbedError | None:
            pieces.clear()
            granted = await state.permits.acquire()
            try:
                retry.sent(self._clock.time())
                error = await self._exchange(state, "GET", path, None, redactor, take, query)
                self.budget.settle(error)
                if error is not None:
                    self._pause_after(state.permits, granted, error)
                else:
                    state.permits.accept()
            finally:
                state.permits.release()
            return error

        error: EmbedError | None = await self._retrying(state, retry, None)(attempt)
        if error is not None:
            raise error
        return b"".join(pieces)

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
        if state.session.closed:
            return ClosedError("the client was closed while the request was under way")
        problem: str | None = None
        is_complete = False
        status = 0
        try:
            async with (
                _listed(asyncio.timeout(options.attempt_timeout), state.exchanges),
                state.session.request(
                    method,
                    (options.base_url / path).with_query(query or {}),
                    data=body,
                    headers=self._headers(),
                    allow_redirects=False,
                    raise_for_status=False,
                    auto_decompress=True,
                    ssl=state.tls,
                    proxy=state.proxy,
                ) as response,
            ):
                status = response.status
                if status == 200:
                    is_complete = await _take_all(response, options.max_answer_bytes, take)
                elif 200 < status < 300:
                    return ResponseError(f"the service answered HTTP {status}, which carries no embeddings")
                else:
                    start = await _start_of(response)
                    now = self._clock.wall_time()
                    return error_from_response(status, response.headers, start, redactor=redactor, now=now)
        except TimeoutError as timeout:
            # aiohttp's connect time-outs are TimeoutErrors as well; they say which one it was.
            known = str(timeout) if isinstance(timeout, aiohttp.ClientError) else ""
            problem = known or f"no complete answer within {options.attempt_timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError, RuntimeError) as fault:
            # aiohttp's errors hold the request's headers: name and message are copied, nothing is chained.
            problem = f"{type(fault).__name__}: {fault}"
        if problem is not None:
            if state.session.closed:
                return ClosedError("the client was closed while the request was under way")
            if status == 200:
                self.counters.unreadable_answers += 1
            return TransportError(redactor.clean(problem))
        if not is_complete:
            return ResponseError(f"the answer is larger than max_answer_bytes ({options.max_answer_bytes})")
        return None

    def _headers(self) -> dict[str, str]:
        return {
            "Api-Key": self._options.api_key.reveal(),
            "Content-Type": "application/json",
            "Accept": "application/json",
            "X-Pinecone-Api-Version": self._options.api_version,
            "User-Agent": self._options.user_agent,
        }

    def _decoding(self, state: _LoopState, sending: _Sending) -> _Decoding:
        request, destination = sending.request, sending.destination
        reading = state.decoder.begin(
            count=len(request.texts),
            vector_type=self._vector_type,
            dimension=destination.dimension,
            rows=lambda dimension: destination.rows(request, dimension),
        )
        return _Decoding(reading, state.gate, state.decoder.slice_bytes)

    async def _settle(self, sending: _Sending, decoding: _Decoding) -> EmbedError | None:
        """Judge an answer that is there, and hand it over; gives the error instead of raising it."""
        request, destination, reading = sending.request, sending.destination, decoding.reading
        caught: EmbedError | None = None
        await decoding.catch_up()
        async with decoding.gate:
            try:
                answer = reading.finish()
            except ResponseError as error:
                caught = error
            else:
                # Before the gate gives the loop back: whoever cancels from now on does not undo it.
                self._vector_type = answer.vector_type
                sending.retry.is_settled = True
                self.counters.answers += 1
                self.counters.inputs += 0 if request.is_probe else len(request.texts)
                self.counters.tokens += answer.total_tokens or 0
                destination.answered(request, answer)
        if caught is not None:
            return error_from_envelope(reading.body(), redactor=sending.redactor) or caught
        return None


@dataclass(frozen=True, slots=True, repr=False)
class _Decoding:
    """Decodes an answer while it arrives: a slice at a time, each through the gate."""

    reading: Reading
    gate: DecodeGate
    slice_bytes: int

    async def take(self, piece: bytes) -> None:
        """Take the next piece of the body."""
        self.reading.add(piece)
        await self.catch_up()

    async def catch_up(self) -> None:
        """Decode until there is less than a slice left."""
        while self.reading.undecoded >= self.slice_bytes:
            async with self.gate:
                self.reading.decode(self.slice_bytes)


async def _take_all(response: aiohttp.ClientResponse, limit: int, take: Callable[[bytes], Awaitable[None]]) -> bool:
    """Take the whole body, decompressed, piece by piece as it comes; whether it was no larger than allowed."""
    size = 0
    # Not `iter_any`, which copies what has come meanwhile into one piece.
    async for piece, _ in response.content.iter_chunks():
        size += len(piece)
        if size > limit:
            response.close()
            return False
        await take(piece)
    return True


async def _start_of(response: aiohttp.ClientResponse) -> bytes:
    """As much of an error's body as is useful; faults on the way do not matter."""
    pieces: list[bytes] = []
    size = 0
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError, ValueError):
        async with asyncio.timeout(ERROR_BODY_SECONDS):
            async for piece in response.content.iter_any():
                pieces.append(piece)
                size += len(piece)
                if size > ERROR_BODY_BYTES:
                    break
    if size > ERROR_BODY_BYTES or not response.content.at_eof():
        response.close()
    return b"".join(pieces)


@contextlib.asynccontextmanager
async def _listed(scope: asyncio.Timeout, scopes: set[asyncio.Timeout]) -> AsyncGenerator[None, None]:
    """Run the block under a time-out that others can find, to bring it forward."""
    async with scope:
        scopes.add(scope)
        try:
            yield
        finally:
            scopes.discard(scope)


async def _close_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Close the session when this generator is closed, which a loop does with all of them when it shuts down.

    So a client that nobody closed leaves nothing open behind `asyncio.run`.
    """
    try:
        yield
    finally:
        await session.close()
