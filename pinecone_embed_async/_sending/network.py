"""Exchanges with the service, and the connections of each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from multidict import CIMultiDict

from pinecone_embed_async._errors import ClosedError, EmbedError, ResponseError, TransportError
from pinecone_embed_async._foreign import Cancellations
from pinecone_embed_async._rate_limit import ConcurrencyLimiter
from pinecone_embed_async._sending.aiohttp_transport import AiohttpTransport, closed_session
from pinecone_embed_async._sending.decode_gate import DecodeGate, DecodeThread
from pinecone_embed_async._sending.transport import TransportRequest
from pinecone_embed_async._wire import choose_decoder, error_from_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._sending.counters import Counters
    from pinecone_embed_async._sending.options import SendingOptions
    from pinecone_embed_async._sending.retry import RetryBudget
    from pinecone_embed_async._sending.transport import Transport, TransportResponse

ERROR_BODY_BYTES = 65_536
"""Number of bytes after which reading an error's body stops; the documented errors have fewer than 1,000."""

PIECES_IN_A_ROW = 256
"""Pieces of an answer that are processed before yielding to the event loop, even if they are small."""

ERROR_BODY_SECONDS = 5.0
"""How long to wait for the body of an error, whose status is already known."""


@dataclass(slots=True, repr=False, eq=False)
class LoopState:
    """The state of one event loop in one process.

    Attributes:
        transport: sends requests.
        own: the transport if this package made it; `None` if the caller passed one.
        concurrency: limits the requests in flight.
        decode_gate: limits concurrent decodes.
        thread: decodes large answers if the decoder releases the GIL; else `None`.
        exchanges: the exchanges under way.
        was_closed: whether the client was closed.
    """

    transport: Transport
    own: AiohttpTransport | None
    concurrency: ConcurrencyLimiter
    decode_gate: DecodeGate
    thread: DecodeThread | None
    exchanges: dict[Cancellations, None] = field(default_factory=dict)
    was_closed: bool = False

    @property
    def is_closed(self) -> bool:
        """Whether no more requests can be sent."""
        return self.was_closed or (self.own is not None and self.own.is_closed)


class BodyReceiver(Protocol):
    """Receives the body of an answer."""

    async def take(self, piece: bytes) -> None:
        """Take the next piece."""


class Network:
    """Exchanges requests for answers over the connections of the running event loop.

    Args:
        options: how requests are sent.
        budget: the retry budget; while it is low, one request is in flight at a time.
        counters: counts of the client; updated here.

    Attributes:
        decoder: decodes the answers.
    """

    def __init__(self, options: SendingOptions, budget: RetryBudget, counters: Counters) -> None:
        self._options = options
        self._budget = budget
        self._counters = counters
        self._clock = options.clock
        self.decoder = choose_decoder(options.decoder)
        # By process and event loop. After a fork, the parent process uses the same sockets, and closing them in the child
        # would write to them. So the parent's states are kept unused as long as this client lives.
        self._states: dict[tuple[int, asyncio.AbstractEventLoop], LoopState] = {}
        # Built once, because building them takes a twentieth of the time of a small request.
        self._embed_url = options.base_url / "embed"
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "X-Pinecone-Api-Version": options.api_version,
            "User-Agent": options.user_agent,
        }
        # Of the type that aiohttp need not convert, and without the key, which would then be in plain sight.
        self._headers = CIMultiDict(headers)

    def __repr__(self) -> str:
        return f"<Network to {self._options.base_url.host}, {self.in_flight} requests in flight>"

    @property
    def in_flight(self) -> int:
        """Number of requests on the wire or being decoded."""
        return sum(concurrency.in_flight for concurrency in self.concurrencies)

    @property
    def concurrencies(self) -> set[ConcurrencyLimiter]:
        """The concurrency limiters of all event loops of this process."""
        return {state.concurrency for (process, _), state in self._states.copy().items() if process == os.getpid()}

    @property
    def concurrency(self) -> int:
        """Current limit on requests in flight per event loop, adapted to recent outcomes."""
        return min((limiter.limit for limiter in self.concurrencies), default=self._options.max_concurrency)

    async def open(self) -> LoopState:
        """The state of the running event loop, created if there is none."""
        process = os.getpid()
        place = process, asyncio.get_running_loop()
        state = self._states.get(place)
        if state is not None and not state.is_closed:
            return state
        # A copy, and `pop` with a default, because other threads may clean up at the same time.
        for other, loop in self._states.copy():
            if other == process and loop.is_closed():
                self._states.pop((other, loop), None)
        state = self._states[place] = self._make_state()
        if state.own is not None:
            await state.own.open()
        return state

    def _make_state(self) -> LoopState:
        options = self._options
        transport, own = options.transport, None
        if transport is None:
            transport = own = AiohttpTransport(
                options.base_url,
                max_connections=options.max_concurrency,
                connect_timeout=options.connect_timeout,
                session=options.session,
                ssl_context=options.ssl_context,
                executor=options.executor,
                clock=self._clock,
            )
        return LoopState(
            transport=transport,
            own=own,
            # A shared quota refers to the limiter, so the limiter must not refer to the objects of a closed loop.
            concurrency=ConcurrencyLimiter(options.max_concurrency, budget=self._budget),
            # With a thread, two places, so that the next decode begins without waiting for the event loop.
            decode_gate=DecodeGate(2 if self.decoder.releases_lock else 1),
            thread=DecodeThread(options.executor) if self.decoder.releases_lock else None,
        )

    async def aclose(self) -> None:
        """Close the connections of the running event loop; those of other loops close with their loops."""
        state = self._states.pop((os.getpid(), asyncio.get_running_loop()), None)
        if state is not None:
            state.was_closed = True
            for exchange in state.exchanges:
                # aiohttp does not wake the reader of a body when the connection is closed.
                exchange.interrupt()
            try:
                if state.own is not None:
                    await state.own.aclose()
            finally:
                if state.thread is not None:
                    await state.thread.aclose()

    def abandon(self) -> None:
        """Drop all connections of a client that was never closed, without the event loop's help."""
        for (process, loop), state in self._states.copy().items():
            if state.own is None or process != os.getpid() or loop.is_closed():
                continue
            if loop.is_running() and loop is not asyncio._get_running_loop():  # noqa: SLF001 - the public function raises
                # The loop runs in another thread, and only that thread may touch its connections. If the loop ends first,
                # it closes them.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(state.own.abandon)
            else:
                state.own.abandon()
        self._states.clear()

    def post(self, state: LoopState, planned: PlannedRequest, receiver: BodyReceiver) -> Awaitable[EmbedError | None]:
        """Post a planned request, which must be encoded, to `/embed`; see `_exchange`."""
        request = TransportRequest("POST", self._embed_url, self._headers_with_key(), planned.body)
        return self._exchange(state, request, receiver, planned)

    def get(
        self, state: LoopState, path: str, query: Mapping[str, str], receiver: BodyReceiver
    ) -> Awaitable[EmbedError | None]:
        """Get a path, which must be URL-encoded because a model's name may hold a slash; see `_exchange`."""
        url = self._options.base_url.joinpath(path, encoded=True).with_query(query)
        return self._exchange(state, TransportRequest("GET", url, self._headers_with_key()), receiver)

    def _headers_with_key(self) -> CIMultiDict[str]:
        """The headers of one request, which its transport may change."""
        headers = self._headers.copy()
        headers["Api-Key"] = self._options.api_key.reveal()
        return headers

    async def _exchange(
        self, state: LoopState, request: TransportRequest, receiver: BodyReceiver, planned: PlannedRequest | None = None
    ) -> EmbedError | None:
        """Send a request and pass the answer's body on piece by piece; return the error instead of raising it."""
        if state.was_closed:
            return self._closed_error(state)
        status: int | None = None
        headers: dict[str, str] = {}
        start = bytearray()
        cancellations = await Cancellations.counted()
        # Interrupted by its time-out, or by the client's being closed.
        timer = self._clock.call_at(self._clock.time() + self._options.attempt_timeout, cancellations.interrupt)
        state.exchanges[cancellations] = None
        try:
            async with state.transport.send(request) as response:
                status = int(response.status)
                if status == 200:
                    return await self._take_answer(response, receiver)
                if 200 < status < 300:
                    return ResponseError(f"the service answered HTTP {status} instead of 200")
                headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
                await self._read_error_start(response, start)
        except asyncio.CancelledError:
            if cancellations.is_callers:
                raise
            is_late = cancellations.is_interrupted
            stray = TimeoutError() if is_late else TransportError("it was cancelled, but not by the client")
            error = self._transport_error(stray, planned)
        except Exception as fault:  # noqa: BLE001 - a caller's transport may raise anything, even with the key in it
            error = self._transport_error(fault, planned)
        finally:
            timer.cancel()
            del state.exchanges[cancellations]
            cancellations.end()
        if state.is_closed:
            return self._closed_error(state)
        if status is not None and not 200 <= status < 300:
            # The status is known, even if reading the body failed.
            redactor = self._options.redactor(planned)
            return error_from_response(status, headers, bytes(start), redactor=redactor, now=self._clock.wall_time())
        if status == 200 and planned is not None:
            self._counters.unreadable_answers += 1
        return error

    def _closed_error(self, state: LoopState) -> EmbedError:
        """The error of a request that is ended because the client, or the caller's session, was closed."""
        session = self._options.session
        if not state.was_closed and session is not None and session.closed:
            return closed_session()
        return ClosedError("the client was closed while the request was in flight")

    def _transport_error(self, fault: Exception, planned: PlannedRequest | None) -> TransportError:
        """The error for an exception of a transport, or a time-out; without secrets."""
        problem = None
        if isinstance(fault, TransportError):
            message, problem = fault.message, fault.problem
        elif isinstance(fault, TimeoutError) and not str(fault):
            message = f"no complete answer within {self._options.attempt_timeout:g} s"
        else:
            message = f"{type(fault).__name__}: {fault}"
        return TransportError(self._options.redactor(planned).clean(message), problem=problem)

    async def _take_answer(self, response: TransportResponse, receiver: BodyReceiver) -> EmbedError | None:
        """Pass on the body of an answer piece by piece; return an error if it is unusable."""
        limit = self._options.max_answer_bytes
        size = count = 0
        while piece := await response.read():
            size += len(piece)
            if size > limit:
                return ResponseError(f"the answer is larger than max_answer_bytes ({limit})")
            try:
                await receiver.take(piece)
            except ResponseError as unusable:
                return unusable
            count += 1
            if count % PIECES_IN_A_ROW == 0:
                # If the pieces are already buffered, nothing else here yields to the event loop.
                await asyncio.sleep(0)
        return None

    async def _read_error_start(self, response: TransportResponse, start: bytearray) -> None:
        """Read the start of an error's body; stop once it has more than `ERROR_BODY_BYTES`."""
        async with self._clock.timeout_at(self._clock.time() + ERROR_BODY_SECONDS):
            while len(start) <= ERROR_BODY_BYTES and (piece := await response.read()):
                start += piece
