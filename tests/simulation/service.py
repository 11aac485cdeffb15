"""The simulated service and the way to it, behind the transport; it records what it saw."""

from __future__ import annotations

import asyncio
import email.utils
import math
import random
import zlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import msgspec

from pinecone_embed_async import TransportError
from pinecone_embed_async.emulator import EmulatedModel, Fault, FaultName, Parameter, ServiceQuota
from pinecone_embed_async.emulator._answers import Answer
from pinecone_embed_async.emulator._errors import code_of, envelope
from pinecone_embed_async.emulator._quota import (
    QuotaLedger,
    requests_per_second_text,
    tokens_per_minute_text,
    tokens_per_month_text,
)
from pinecone_embed_async.emulator._spoiling import HTML_PAGE, spoil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from pinecone_embed_async import TransportRequest
    from tests.simulation.scenario import ServicePlan

MODEL = "simulated"
REFUSED = "refuse-this"
"""Texts with this are refused as content."""

HARMLESS = frozenset({FaultName.MISSING_USAGE, FaultName.EXTRA_KEYS, FaultName.REORDERED_KEYS, FaultName.WHITE_SPACE})
"""Faults of a body that is right nevertheless."""


OTHER_DIMENSION = frozenset({FaultName.WRONG_DIMENSION, FaultName.RAGGED_DIMENSION})
"""Faults that a client takes for the dimension, if it does not know it and has had no other answer."""

MOST_DIGITS = 16
"""Digits of a bill that the client accepts."""


class Texts:
    """The vector and the bill of each text, the same every time.

    Args:
        plan: the service's plan.
    """

    def __init__(self, plan: ServicePlan) -> None:
        self._plan = plan
        self._rows: dict[tuple[str, str, int], tuple[list[int], list[float], bytes]] = {}

    def row(self, text: str, input_type: str, variant: int) -> tuple[list[int], list[float]]:
        """The indices of a sparse vector, and the values; these are exact in float32."""
        return self._row(text, input_type, variant)[:2]

    def item(self, text: str, input_type: str, variant: int) -> bytes:
        """The JSON of its vector."""
        return self._row(text, input_type, variant)[2]

    def tokens(self, text: str) -> int:
        """Its bill; texts of the same length differ."""
        spread = 0.85 + (zlib.crc32(text.encode()) % 256) * 0.3 / 256
        return max(1, int(len(text) / self._plan.bytes_per_token * spread)) + 2

    def _row(self, text: str, input_type: str, variant: int) -> tuple[list[int], list[float], bytes]:
        key = text, input_type, variant
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._make_row(zlib.crc32(f"{variant} {input_type} {text}".encode()))
        return row

    def _make_row(self, seed: int) -> tuple[list[int], list[float], bytes]:
        if self._plan.vector_type == "dense":
            values = [((seed * (2 * place + 1) + place) % 4001 - 2000) / 2048 for place in range(self._plan.dimension)]
            return [], values, b'{"values":%b,"vector_type":"dense"}' % msgspec.json.encode(values)
        count = seed % 4
        indices = sorted({(seed * (place + 3)) % 2**32 for place in range(count)})
        values = [((seed >> place) % 512 + 1) / 256 for place in range(len(indices))]
        item = {"sparse_values": values, "sparse_indices": indices, "vector_type": "sparse"}
        return indices, values, msgspec.json.encode(item)


@dataclass(eq=False)
class Exchange:
    """A request on its way, as the service and the judge see it.

    Attributes:
        client: the number of the client that sent it.
        number: the request's number, from 1.
        sent: when it was sent.
        texts: its texts.
        key: model and input type.
        fate: its outcome in words.
        billed: tokens that the service counted.
        absurd: the bill that the answer has instead, as JSON; `None` for the right one.
        is_delivered: whether a right answer has been read to its end.
        reported: tokens of the answer's `usage`; `None` if it has none that is a number.
        rejection: of a 429, when it had been read, its message, and its `Retry-After` in seconds.
        ended: when the client was done with the response.
    """

    client: int
    number: int
    sent: float
    texts: tuple[str, ...]
    input_type: str
    variant: int
    fate: str = "under way"
    fault: str = ""
    billed: int = 0
    is_delivered: bool = False
    absurd: str | None = None
    reported: int | None = None
    rejection: tuple[float, str, float | None] | None = None
    ended: float | None = None


@dataclass
class Journal:
    """Everything that the service saw.

    Attributes:
        exchanges: in the order in which they were sent.
        trace: a line per event.
        active: exchanges under way, by client.
        most_active: the most at once, by client.
        tenants: tokens of other tenants' requests that were accepted.
        bugs: exceptions of the service's own, which clients take for a transport's.
    """

    exchanges: list[Exchange] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    active: dict[int, dict[Exchange | int, None]] = field(default_factory=dict)
    most_active: dict[int, int] = field(default_factory=dict)
    bugs: list[str] = field(default_factory=list)


class Service:
    """Answers the clients of a scenario.

    Args:
        plan: its behaviour.
        seed: seed of its draws.
    """

    def __init__(self, plan: ServicePlan, seed: int) -> None:
        self.plan = plan
        self.texts = Texts(plan)
        self.journal = Journal()
        self.on_send: Callable[[Exchange], None] = lambda _: None
        self.is_healed = False
        self._rng = random.Random(f"service {seed}")
        self._faults = [Fault(*fault.split("=", 1)) for fault in plan.faults]
        self._faults = [fault for fault in self._faults if fault.applies_to(plan.vector_type)]
        self._ledger = QuotaLedger()
        self._reached: list[tuple[int, asyncio.Future[None]]] = []
        self._is_knowing: dict[int, bool] = {}

    def note(self, *what: object) -> None:
        """Add an event to the trace."""
        self.journal.trace.append(f"{asyncio.get_running_loop().time()!r} {' '.join(map(str, what))}")

    def transport(self, client: int, *, knows_dimension: bool) -> _Way:
        """The way of a client to the service, and whether it would see that vectors have another dimension."""
        self._is_knowing[client] = knows_dimension
        self.journal.active[client] = {}
        self.journal.most_active[client] = 0
        return _Way(self, client)

    def heal(self) -> None:
        """End all faults and limits."""
        self.is_healed = True

    async def reached(self, count: int) -> None:
        """Wait until so many requests have been sent."""
        if len(self.journal.exchanges) < count:
            future = asyncio.get_running_loop().create_future()
            self._reached.append((count, future))
            await future

    async def serve_tenants(self) -> None:
        """Charge the requests of other tenants, until cancelled."""
        quota = self.plan.quota
        if quota is None or quota.tokens is None or not quota.tenants:
            return
        size = max(1, quota.tokens // 20)
        while not self.is_healed:
            await asyncio.sleep(self._rng.expovariate(quota.tenants * quota.tokens / quota.window / size))
            self._ledger.decide(self._quota(), asyncio.get_running_loop().time(), MODEL, "passage", size)

    def begin(self, client: int, texts: Sequence[str], input_type: str, variant: int) -> Exchange:
        """Record that a request is sent."""
        now = asyncio.get_running_loop().time()
        exchange = Exchange(client, len(self.journal.exchanges) + 1, now, tuple(texts), input_type, variant)
        self.journal.exchanges.append(exchange)
        self.open(client, exchange)
        self.note("sent", client, exchange.number, len(texts), input_type, texts[0][:40], texts[-1][:40])
        for count, future in self._reached:
            if len(self.journal.exchanges) >= count and not future.done():
                future.set_result(None)
        self.on_send(exchange)
        return exchange

    def open(self, client: int, exchange: Exchange | int) -> None:
        """Count an exchange as under way."""
        active = self.journal.active[client]
        active[exchange] = None
        self.journal.most_active[client] = max(self.journal.most_active[client], len(active))

    def latency(self) -> float:
        """Seconds until an answer."""
        if self.is_healed:
            return 0.1
        seconds = self._rng.uniform(*self.plan.latency)
        return seconds * (100 if self._rng.random() < self.plan.slow else 1)

    def random(self) -> float:
        """A draw from [0, 1)."""
        return self._rng.random()

    def fault(self, client: int) -> Fault | None:
        """The fault of a client's next request, if any."""
        if self.is_healed or not self._faults or self._rng.random() >= self.plan.fault_rate:
            return None
        fault = self._faults[int(self._rng.random() * len(self._faults))]
        return fault if self._is_knowing[client] or fault.name not in OTHER_DIMENSION else None

    def bill(self) -> str | None:
        """The absurd bill of the next answer; `None` for one that is right."""
        if self.is_healed or not self.plan.bills or self._rng.random() >= self.plan.bill_rate:
            return None
        return self.plan.bills[int(self._rng.random() * len(self.plan.bills))]

    def is_out(self, now: float) -> bool:
        """Whether every request is answered 503."""
        return self.plan.outage is not None and not self.is_healed and self.plan.outage[0] <= now < self.plan.outage[1]

    def refusal(self, exchange: Exchange, now: float) -> _Reply | None:
        """The refusal of a request; charges it if there is none."""
        plan, texts = self.plan, exchange.texts
        if plan.most_inputs is not None and len(texts) > plan.most_inputs:
            message = f"Input length '{len(texts)}' exceeded inputs limit of {plan.most_inputs} for model '{MODEL}'"
            return _error(400, "INVALID_ARGUMENT", message)
        if plan.most_bytes is not None and len(texts) > 1 and sum(map(len, texts)) > plan.most_bytes:
            return _error(413, "INVALID_ARGUMENT", "Request too large.")
        for text in texts:
            if REFUSED in text:
                return _error(400, "INVALID_ARGUMENT", f"Input '{text}' was rejected by model '{MODEL}'")
        tokens = sum(map(self.texts.tokens, texts))
        if plan.quota is not None and not self.is_healed:
            refused = self._ledger.decide(self._quota(), now, MODEL, exchange.input_type, tokens)
            if refused is not None:
                message = refused.message if plan.quota.text else ""
                return _error(429, "RESOURCE_EXHAUSTED", message, self._retry_after(refused.wait, now))
        exchange.billed = tokens
        return None

    def _quota(self) -> ServiceQuota:
        quota = self.plan.quota
        if quota is None:
            return ServiceQuota()
        part, now = 1.0, asyncio.get_running_loop().time()
        for at, then in quota.changes:
            part = then if now >= at else part
        return ServiceQuota(
            tokens_per_window=None if quota.tokens is None else max(1, int(quota.tokens * part)),
            requests_per_second=quota.requests_per_second,
            requests_per_window=quota.requests_per_window,
            window=quota.window,
            kind=quota.kind,
            burst=quota.burst,
        )

    def _retry_after(self, wait: float | None, now: float) -> str | None:
        kind = None if self.plan.quota is None else self.plan.quota.retry_after
        if wait is None or kind is None:
            return None
        return str(math.ceil(wait)) if kind == "seconds" else _date(now + wait)

    def model(self) -> dict[str, Any]:
        """The description of its model."""
        is_dense = self.plan.vector_type == "dense"
        return EmulatedModel(
            MODEL,
            vector_type=self.plan.vector_type,
            default_dimension=self.plan.dimension if is_dense else None,
            supported_dimensions=(self.plan.dimension,) if is_dense else (),
            parameters=(
                Parameter("input_type", "one_of", "string", allowed_values=("query", "passage"), default="passage"),
                *([Parameter("dimension", "numeric_range", "integer", minimum=1, maximum=8)] if is_dense else []),
                Parameter("variant", "numeric_range", "integer", minimum=0, maximum=9, default=0),
            ),
        ).to_json()


def _date(at: float) -> str:
    return email.utils.formatdate(math.ceil(at), usegmt=True)


@dataclass(frozen=True)
class _Reply:
    """A response: status, body, headers, and how the body ends."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    end: str = "whole"
    seconds: float = 0.0
    message: str = ""


def _error(status: int, code: str, message: str, retry_after: str | None = None) -> _Reply:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    return _Reply(status, envelope(status, code, message), headers, message=message)


class _Way:
    """The transport of one client."""

    def __init__(self, service: Service, client: int) -> None:
        self._service = service
        self._client = client

    def send(self, request: TransportRequest) -> _Context:
        """See `Transport.send`."""
        if request.method == "GET":
            return _Context(self._service, self._client, None)
        body = request.json()
        parameters = body.get("parameters", {})
        texts = [one["text"] for one in body["inputs"]]
        input_type, variant = parameters.get("input_type", ""), parameters.get("variant", 0)
        return _Context(self._service, self._client, self._service.begin(self._client, texts, input_type, variant))


class _Context:
    """A request under way, then its response."""

    def __init__(self, service: Service, client: int, exchange: Exchange | None) -> None:
        self._service = service
        self._client = client
        self._exchange = exchange
        self._place: Exchange | int = exchange or service.journal.trace.__len__() + 2**40
        if exchange is None:
            service.open(client, self._place)
        self._reply = _Reply(200, b"")
        self._pieces: Iterator[bytes] = iter(())
        self._pause = 0.0

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> dict[str, str]:
        return self._reply.headers

    async def __aenter__(self) -> Self:
        try:
            self._reply = await (self._get() if self._exchange is None else self._embed(self._exchange))
        except (TransportError, asyncio.CancelledError) as error:
            self._close(type(error).__name__)
            raise
        except Exception as error:
            self._service.journal.bugs.append(f"{type(error).__name__}: {error}")
            self._close(type(error).__name__)
            raise
        self._pieces = iter(self._cut(self._reply.body))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close("whole" if kind is None else kind.__name__)

    async def read(self) -> bytes:
        """See `TransportResponse.read`."""
        await asyncio.sleep(self._pause)
        piece = next(self._pieces, b"")
        if piece:
            return piece
        if self._reply.end == "stalled":
            await asyncio.get_running_loop().create_future()
        if self._reply.end != "whole":
            raise TransportError(f"the body ended early: {self._reply.end}")
        exchange = self._exchange
        if exchange is not None:
            self._read_whole(exchange)
        return b""

    def _read_whole(self, exchange: Exchange) -> None:
        now, status = asyncio.get_running_loop().time(), self._reply.status
        if status == 200:
            exchange.is_delivered = exchange.billed > 0 and (not exchange.fault or exchange.fault in HARMLESS)
            if exchange.fault == FaultName.MISSING_USAGE:
                exchange.reported = None
            elif exchange.absurd is None:
                exchange.reported = exchange.billed
            else:
                bill = exchange.absurd
                exchange.reported = int(bill) if bill.isdecimal() and len(bill) < MOST_DIGITS else None
        elif status == 429:
            asked = self._reply.headers.get("Retry-After")
            seconds = float(asked) if asked is not None and asked.isdigit() else None
            exchange.rejection = now, self._reply.message, seconds

    def _close(self, how: str) -> None:
        if self._service.journal.active[self._client].pop(self._place, 0) == 0:
            return
        if self._exchange is not None:
            exchange = self._exchange
            exchange.fate = f"{self._reply.status} {how}"
            exchange.ended = asyncio.get_running_loop().time()
            self._service.note("ended", exchange.client, exchange.number, exchange.fate, exchange.fault, exchange.billed)

    def _cut(self, body: bytes) -> list[bytes]:
        service = self._service
        if self._reply.end in ("cut", "stalled"):
            body = body[: len(body) // 2]
        elif self._reply.end == "reset":
            body = b""
        count = 1 + int(service.random() * service.plan.pieces)
        self._pause = self._reply.seconds / count if self._reply.seconds else 0.001 * (count > 1)
        cuts = sorted(int(service.random() * len(body)) for _ in range(count - 1))
        pieces = [body[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        return [piece for piece in pieces if piece]

    async def _get(self) -> _Reply:
        await asyncio.sleep(self._service.latency())
        if self._service.is_out(asyncio.get_running_loop().time()):
            return _error(503, "UNAVAILABLE", "out of order")
        return _Reply(200, msgspec.json.encode(self._service.model()))

    async def _embed(self, exchange: Exchange) -> _Reply:
        service = self._service
        latency, part, fault = service.latency(), service.random(), service.fault(exchange.client)
        exchange.fault = "" if fault is None else fault.name.value
        if fault is not None and fault.name is FaultName.CONNECTION_REFUSED:
            raise TransportError("connection refused")
        await asyncio.sleep(latency * part)
        now = asyncio.get_running_loop().time()
        if service.is_out(now):
            reply: _Reply | None = _error(503, "UNAVAILABLE", "out of order")
        elif fault is not None and not fault.billed:
            reply = await self._struck(exchange, fault, now)
        else:
            reply = service.refusal(exchange, now)
        await asyncio.sleep(latency * (1 - part))
        return reply or self._answer(exchange, fault)

    async def _struck(self, exchange: Exchange, fault: Fault, now: float) -> _Reply:
        name, number = fault.name, fault.number if fault.value.isdigit() else None
        if name is FaultName.STALLED_HEADERS:
            await asyncio.get_running_loop().create_future()
        if name is FaultName.STATUS:
            answer = fault.status_answer
            body = envelope(answer.status, code_of(answer.status), "a fault of the simulation")
            bodies = {"json": body, "html": HTML_PAGE, "empty": b"", "cut": body[: len(body) // 2]}
            headers = {"Retry-After": answer.retry_after} if answer.retry_after else {}
            return _Reply(answer.status, bodies[answer.body], headers)
        if name is FaultName.ERROR_IN_200:
            return _Reply(200, envelope(int(number or 503), code_of(int(number or 503)), "a fault of the simulation"))
        if name is FaultName.REDIRECT:
            return _Reply(307, b"", {"Location": "http://elsewhere.invalid/embed"})
        quota = self._service.plan.quota
        limit = 10**6 if quota is None or quota.tokens is None else quota.tokens
        asked = {"date": _date(now + 2), "": None}.get(fault.value, fault.value)
        if name is FaultName.RATE_LIMITED:
            return _error(429, "RESOURCE_EXHAUSTED", tokens_per_minute_text(limit, MODEL, exchange.input_type), asked)
        if name is FaultName.RATE_LIMITED_WITHOUT_TEXT:
            return _error(429, "RESOURCE_EXHAUSTED", "", asked)
        if name is FaultName.REQUEST_RATE_LIMITED:
            return _error(429, "TOO_MANY_REQUESTS", requests_per_second_text(100), asked)
        if name is FaultName.MONTH_QUOTA_SPENT:
            return _error(429, "RESOURCE_EXHAUSTED", tokens_per_month_text(5_000_000, MODEL))
        if name is FaultName.QUOTA_EXCEEDED:
            return _error(429, "QUOTA_EXCEEDED", "Quota exceeded.")
        raise TransportError(f"a fault of the simulation: {name.value}")

    def _billed(self, exchange: Exchange, body: bytes) -> bytes:
        """The body with another bill, now and then."""
        exchange.absurd = self._service.bill()
        if exchange.absurd is None:
            return body
        right = b'{"total_tokens":%d}' % exchange.billed
        absurd = b'{"total_tokens":%b}' % exchange.absurd.encode() if exchange.absurd else b"{}"
        return body.replace(right, absurd)

    def _answer(self, exchange: Exchange, fault: Fault | None) -> _Reply:
        service = self._service
        items = tuple(service.texts.item(text, exchange.input_type, exchange.variant) for text in exchange.texts)
        answer = Answer(MODEL, service.plan.vector_type, items, exchange.billed)
        if fault is None:
            return _Reply(200, self._billed(exchange, answer.body()))
        spoiled = spoil(fault, answer)
        if spoiled is not None:
            return _Reply(200, spoiled)
        ends = {FaultName.RESET_AFTER_HEADERS: "reset", FaultName.CUT_OFF_BODY: "cut", FaultName.STALLED_BODY: "stalled"}
        if fault.name is FaultName.SLOW_DRIP:
            exchange.fault = ""
            return _Reply(200, answer.body(), seconds=fault.number or 0.0)
        return replace(_Reply(200, answer.body()), end=ends[fault.name])
