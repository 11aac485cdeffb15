"""The emulated service: its routes and how it handles requests."""

from __future__ import annotations

import asyncio
import hmac
import math
import random
import re
import time
from typing import TYPE_CHECKING, Self
from urllib.parse import unquote

import msgspec
from aiohttp import web

from pinecone_embed_async.emulator._answers import accept, compute
from pinecone_embed_async.emulator._connections import Connections
from pinecone_embed_async.emulator._errors import ServiceRefusal
from pinecone_embed_async.emulator._faults import Fault, FaultName, FaultPlan, Outlook, as_fault, as_sources
from pinecone_embed_async.emulator._gate import Gate, Milestones
from pinecone_embed_async.emulator._models import MODELS
from pinecone_embed_async.emulator._quota import QuotaLedger, ServiceQuota
from pinecone_embed_async.emulator._requests import EmbedBody, EmbedRequest, read_body
from pinecone_embed_async.emulator._spoiling import spoil
from pinecone_embed_async.emulator._statistics import Statistics, Tally
from pinecone_embed_async.emulator._transport_faults import Finished, http_date, reset, strike_back, strike_instead
from pinecone_embed_async.emulator._vectors import WordFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from pinecone_embed_async.emulator._answers import Answer, Task
    from pinecone_embed_async.emulator._faults import AnyFault, FaultSetting, FaultSource
    from pinecone_embed_async.emulator._models import EmulatedModel

    Latency = float | tuple[float, float] | Callable[[EmbedRequest], float]
    """Seconds to delay an answer: a constant, a range to draw from uniformly, or a function of the request."""

OLDEST_API_VERSION = "2025-04"
"""The first API version with this form of `/embed`. Source: the references of 2025-04 to 2026-07, which agree about it."""

# A version is a year and a month. Source: "API versioning" in the service's documentation.
_API_VERSION = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])", re.ASCII)

DEFAULT_API_KEY = "emulator-key"

_JSON = "application/json"
# Faults that do not change the answer itself.
_UNSPOILED = frozenset({FaultName.KEEP_ALIVE_CLOSE})


class Emulator:
    """A local service that answers `/embed`, `/models` and `/models/{name}` like the real one.

    `async with Emulator() as emulator:` starts it on a free port. Use it only in the event loop that started it.
    After it is closed, you can start it again, also in another event loop.

    ```python
    quota = ServiceQuota(tokens_per_window=250_000)
    async with Emulator(quota=quota, latency=(0.01, 0.02), faults="status=503:0.1") as emulator:
        async with EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url) as client:
            await client.embed(texts, input_type="passage")
        print(emulator.statistics().by_status)
    ```

    A request goes through these steps: it is received and numbered; held while `hold` is in effect; given a fault that
    replaces the work, if one was chosen; its key, version, parameters and content are checked; the quota is charged; the
    latency passes; the vectors are computed; a fault of the answer is applied. If the service
    refuses a request, the fault of the answer is not applied.

    Args:
        api_key: The key that requests must have.
        host: The address to listen on; by default, only this machine can connect.
        port: The port to listen on; 0 for a free one.
        models: Additional models; one with the name of a built-in model replaces it.
        quota: The limits to enforce; none by default.
        latency: Seconds to delay answers: a number, a pair to draw between, or a function of the request.
        reject: Returns whether the service refuses a text for its content (400 INVALID_ARGUMENT; the message has the text).
        faults: The faults to inject; see the attribute.
        max_body_bytes: Largest accepted request body; a larger one gets a 413.
        seed: Seed for drawing `latency`.
        record_texts: Whether `statistics` counts answers by text; this keeps every text in memory.
        clock: Clock of the quota in seconds, which must not go backwards.

    Attributes:
        api_key: As above. This and the following attributes may be changed while it runs.
        quota: As above.
        latency: As above.
        reject: As above.
        max_body_bytes: As above.
    """

    def __init__(
        self,
        *,
        api_key: str = DEFAULT_API_KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        models: Iterable[EmulatedModel] = (),
        quota: ServiceQuota | None = None,
        latency: Latency = 0.0,
        reject: Callable[[str], bool] | None = None,
        faults: FaultSetting | Iterable[FaultSource | AnyFault] = None,
        max_body_bytes: int = 4 * 2**20,
        seed: int = 0,
        record_texts: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api_key = api_key
        self.quota = quota or ServiceQuota()
        self.latency = latency
        self.reject = reject
        self.max_body_bytes = max_body_bytes
        self._host = host
        self._port = port
        self._seed = seed
        self._record_texts = record_texts
        self._clock = clock
        self._models = {model.name: model for model in (*MODELS, *models)}
        self._ledger = QuotaLedger()
        self._tally = Tally()
        self._plan = FaultPlan(as_sources(faults))
        self._gate = Gate()
        self._milestones = Milestones()
        self._numbers = 0
        self._features = WordFeatures()
        self._in_flight: dict[int, asyncio.BaseTransport | None] = {}
        self._busy: set[asyncio.BaseTransport] = set()
        self._computing = asyncio.Lock()
        self._connections: Connections | None = None

    def __repr__(self) -> str:
        """Where it listens, without the key."""
        where = self.url if self._connections is not None else "not started"
        return f"<Emulator {where}, {self._tally.requests} requests>"

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:40123`.

        Raises:
            RuntimeError: The emulator is not started.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._running().listener.port}"

    async def start(self) -> None:
        """Start listening.

        Raises:
            OSError: The address cannot be bound.
            RuntimeError: The emulator is already started.
        """
        if self._connections is not None:
            raise RuntimeError("the emulator is already started")
        connections = Connections(self._handle, self._count_connection)
        await connections.open(self._host, self._port)
        # A lock belongs to the event loop that first waits for it, and the emulator may be started in another.
        self._computing = asyncio.Lock()
        self._connections = connections

    async def aclose(self) -> None:
        """Stop listening and close all connections; requests in progress are dropped."""
        if self._connections is not None:
            await self._connections.close()
            self._connections = None

    def _running(self) -> Connections:
        if self._connections is None:
            raise RuntimeError("the emulator is not started")
        return self._connections

    def _count_connection(self) -> None:
        self._tally.connections_opened += 1

    # For tests.

    def statistics(self) -> Statistics:
        """The counts so far."""
        return self._tally.snapshot(
            in_flight=len(self._in_flight),
            connections_open=0 if self._connections is None else len(self._connections),
        )

    def reset_statistics(self) -> None:
        """Count from zero again; request numbers continue."""
        self._tally = Tally()

    @property
    def held(self) -> tuple[EmbedRequest, ...]:
        """The requests held by `hold`, in order of arrival."""
        return self._gate.held

    def hold(self) -> None:
        """Hold all answers until `release`; requests are received and counted."""
        self._gate.close()

    def release(self, *numbers: int) -> None:
        """Release the answers held by `hold`, and hold no more.

        Args:
            numbers: Release only the requests with these numbers (see `held`), and continue to hold the others.
        """
        self._gate.open(*numbers)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until this many `/embed` requests have arrived since the statistics were reset."""
        await self._milestones.reached(lambda: self._tally.requests >= count)

    async def wait_for_in_flight(self, count: int) -> None:
        """Wait until at least this many `/embed` requests are in flight at once."""
        await self._milestones.reached(lambda: len(self._in_flight) >= count)

    async def wait_for_answers(self, count: int) -> None:
        """Wait until this many `/embed` requests have ended, answered or not, since the statistics were reset."""
        await self._milestones.reached(lambda: self._tally.finished >= count)

    async def wait_until_idle(self) -> None:
        """Wait until no `/embed` request is in flight."""
        await self._milestones.reached(lambda: not self._in_flight)

    # Faults.

    @property
    def faults(self) -> tuple[FaultSource, ...]:
        """The fault sources; the first that has a fault for a request decides.

        It may be set at any time to one or several of: a `FaultMix`, a `FaultRule`, any `FaultSource`, a `Fault` for all
        requests, a text for `parse_fault`. `None` or an empty list removes all sources.
        """
        return self._plan.sources

    @faults.setter
    def faults(self, faults: FaultSetting | Iterable[FaultSource | AnyFault]) -> None:
        self._plan.sources = as_sources(faults)

    def inject(self, fault: AnyFault, *, times: int = 1, when: Callable[[EmbedRequest], bool] | None = None) -> None:
        """Inject a fault into the next requests. Injections take precedence over `faults`, and earlier ones over later ones.

        ```python
        async with Emulator() as emulator:
            emulator.inject("status=503", times=2)
            emulator.inject("cut_off_body", when=lambda request: "a text" in request.inputs)
        ```

        Args:
            fault: A `Fault`, a name or `NAME=VALUE`.
            times: How many requests get it.
            when: Returns whether a request matches; requests that do not match do not count towards `times`.

        Raises:
            ValueError: There is no such fault, or `times` is below 1.
        """
        self._plan.inject(as_fault(fault), times, when)

    def clear_faults(self) -> None:
        """Remove all faults, including unused injections."""
        self._plan = FaultPlan()

    def refuse_connections(self) -> None:
        """Refuse new connections and close idle ones, until `accept_connections`."""
        connections = self._running()
        connections.listener.refuse()
        connections.close_idle(self._busy)

    async def accept_connections(self) -> None:
        """Accept connections again, on the same port."""
        await self._running().listener.accept()

    # Handling of a request.

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        transport = request.transport
        if transport is None or self._running().is_doomed(transport):
            reset(request)
            return Finished()
        self._busy.add(transport)
        try:
            response = await self._route(request)
        except ServiceRefusal as refusal:
            response = _refused(refusal)
        finally:
            self._busy.discard(transport)
        status = response.sent_status if isinstance(response, Finished) else response.status
        if status is not None:
            self._tally.by_status[status] += 1
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = unquote(request.path)
        if path == "/embed":
            if request.method != "POST":
                raise ServiceRefusal(405, "UNIMPLEMENTED", "Method not allowed.", {"Allow": "POST"})
            return await self._embed(request)
        if path == "/models" or path.startswith("/models/"):
            if request.method != "GET":
                raise ServiceRefusal(405, "UNIMPLEMENTED", "Method not allowed.", {"Allow": "GET"})
            self._tally.model_requests += 1
            self._check_headers(request)
            if path == "/models":
                return self._list_models(request)
            return self._describe_model(path.removeprefix("/models/"))
        raise ServiceRefusal(404, "NOT_FOUND", "Not found.")

    def _list_models(self, request: web.BaseRequest) -> web.Response:
        kind, vector_type = request.query.get("type"), request.query.get("vector_type")
        if kind not in {None, "embed", "rerank"} or vector_type not in {None, "dense", "sparse"}:
            raise ServiceRefusal.invalid("Bad request. The request included invalid query parameters.")
        models = [
            model.to_json()
            for model in self._models.values()
            if kind in {None, model.type} and vector_type in {None, model.vector_type}
        ]
        return _json({"models": models})

    def _describe_model(self, name: str) -> web.Response:
        model = self._models.get(name)
        if model is None:
            raise ServiceRefusal(404, "NOT_FOUND", f"Model {name} not found.")
        return _json(model.to_json())

    def _check_headers(self, request: web.BaseRequest) -> None:
        given = request.headers.get("Api-Key", "").encode("utf-8", "surrogateescape")
        if not hmac.compare_digest(given, self.api_key.encode()):
            raise ServiceRefusal(401, "UNAUTHENTICATED", "Invalid API key.")
        version = request.headers.get("X-Pinecone-Api-Version")
        if version is None:
            raise ServiceRefusal.invalid("Bad request. The header X-Pinecone-Api-Version is required.")
        # Versions later than the published ones are accepted, so that today's clients work with the next version.
        if not _API_VERSION.fullmatch(version) or version < OLDEST_API_VERSION:
            raise ServiceRefusal.invalid(f"Bad request. Unknown API version {version[:20]!r}.")

    async def _embed(self, request: web.BaseRequest) -> web.StreamResponse:
        raw = await self._read(request)
        body: EmbedBody | ServiceRefusal
        try:
            body = read_body(raw) if raw is not None else ServiceRefusal(413, "INVALID_ARGUMENT", "Request too large.")
        except ServiceRefusal as refusal:
            body = refusal
        seen = self._note(request, body)
        try:
            await self._gate.passed(seen)
            response = await self._answer(request, seen, body)
        except ServiceRefusal as refusal:
            response = _refused(refusal)
        finally:
            del self._in_flight[seen.number]
            self._tally.finished += 1
            self._milestones.check()
        response.headers["X-Pinecone-Request-Id"] = f"emulator-{seen.number}"
        return response

    async def _read(self, request: web.BaseRequest) -> bytes | None:
        """Read the whole body, because some clients read the answer only after sending it; `None` if it is too large."""
        if request.headers.get("Expect", "").lower() == "100-continue" and isinstance(
            request.transport, asyncio.WriteTransport
        ):
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        try:
            async for part in request.content.iter_any():
                size += len(part)
                if size <= self.max_body_bytes:
                    parts.append(part)
        except web.RequestPayloadError:
            return b""
        return b"".join(parts) if size <= self.max_body_bytes else None

    def _note(self, request: web.BaseRequest, body: EmbedBody | ServiceRefusal) -> EmbedRequest:
        self._numbers += 1
        if isinstance(body, EmbedBody):
            model = self._models.get(body.model)
            seen = body.seen_as(self._numbers, model.vector_type if model else None)
        else:
            seen = EmbedRequest(self._numbers)
        self._in_flight[seen.number] = request.transport
        self._tally.requests += 1
        # A request whose client has disconnected no longer counts, although its handler ends an event loop iteration later.
        alive = sum(transport is not None and not transport.is_closing() for transport in self._in_flight.values())
        self._tally.max_in_flight = max(self._tally.max_in_flight, alive)
        self._milestones.check()
        return seen

    async def _answer(
        self, request: web.BaseRequest, seen: EmbedRequest, body: EmbedBody | ServiceRefusal
    ) -> web.StreamResponse:
        fault = self._plan.choose(seen)
        if fault is not None and not fault.billed:
            self._tally.faults[fault.name.value] += 1
            if fault.name is FaultName.CONNECTION_REFUSED:
                connections = self._running()
                connections.listener.refuse_for(fault.number or 0.0)
                connections.close_idle(self._busy)
            return await strike_instead(fault, request, seen)
        self._check_headers(request)
        if request.content_type != _JSON:
            raise ServiceRefusal.invalid("Bad request. The content type must be application/json.")
        if isinstance(body, ServiceRefusal):
            raise body
        task = accept(body, self._models.get(body.model), self.reject)
        self._charge(task)
        await asyncio.sleep(self._delay(seen))
        answer = await self._compute(task)
        self._count(task, body, fault)
        return await self._send(request, answer, fault)

    def _charge(self, task: Task) -> None:
        refusal = self._ledger.decide(self.quota, self._clock(), task.model.name, task.input_type, task.tokens)
        if refusal is not None:
            message = refusal.message if self.quota.text else ""
            raise ServiceRefusal(429, "RESOURCE_EXHAUSTED", message, self._retry_after(refusal.wait))

    def _retry_after(self, wait: float | None) -> dict[str, str]:
        if wait is None or self.quota.retry_after is None:
            return {}
        if self.quota.retry_after == "seconds":
            return {"Retry-After": str(math.ceil(wait))}
        return {"Retry-After": http_date(wait)}

    def _delay(self, seen: EmbedRequest) -> float:
        latency = self.latency
        if isinstance(latency, tuple):
            # Seeded by the request's number, so that the order of concurrent requests does not matter.
            return random.Random(f"{self._seed}:{seen.number}").uniform(*latency)
        return latency(seen) if callable(latency) else latency

    async def _compute(self, task: Task) -> Answer:
        async with self._computing:
            answer = compute(task, self._features)
            # One answer per iteration of the event loop, so that other tasks in it can run, such as a client's.
            await asyncio.sleep(0)
        return answer

    def _count(self, task: Task, body: EmbedBody, fault: Fault | None) -> None:
        self._tally.inputs_answered += len(task.texts)
        self._tally.tokens_billed += task.tokens
        if self._record_texts:
            self._tally.answered.update(body.inputs)
            if fault is None or fault.outlook is Outlook.HARMLESS or fault.name in _UNSPOILED:
                self._tally.answered_well.update(body.inputs)
        if fault is not None:
            self._tally.faults[fault.name.value] += 1

    async def _send(self, request: web.BaseRequest, answer: Answer, fault: Fault | None) -> web.StreamResponse:
        if fault is None:
            return web.Response(body=answer.body(), content_type=_JSON)
        if fault.name is FaultName.KEEP_ALIVE_CLOSE:
            self._running().doom(request.transport)
            return web.Response(body=answer.body(), content_type=_JSON)
        spoiled = spoil(fault, answer)
        if spoiled is not None:
            kind = "text/html" if fault.name is FaultName.HTML_BODY else _JSON
            return web.Response(body=spoiled, content_type=kind)
        return await strike_back(fault, request, answer.body())


def _refused(refusal: ServiceRefusal) -> web.Response:
    return web.Response(status=refusal.status, body=refusal.body(), content_type=_JSON, headers=refusal.headers)


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type=_JSON)
