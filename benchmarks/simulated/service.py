"""A simulated service with a quota, the transport to it, and the other tenants of its project."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from pinecone_embed_async import MockResponse
from pinecone_embed_async.emulator import ServiceQuota
from pinecone_embed_async.emulator._quota import QuotaLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from benchmarks.simulated.client import Corpus
    from pinecone_embed_async import TransportRequest

MODEL, INPUT_TYPE = "simulated", "passage"
"""An unknown model with 96 inputs per request and 2,048 tokens per input. Its vectors do not matter and have one number."""

TENANTS_REQUEST = 96 * 95
"""Tokens per request of the other tenants."""

LONGEST_TAIL = 10.0
"""Most seconds of an answer with long-tailed latency."""

Latency = Literal["even", "long-tailed", "short"]


def draw_latency(kind: Latency, rng: random.Random) -> float:
    """Seconds from sending a request to its answer.

    `even`: uniform between 0.05 and 0.25. `long-tailed`: log-normal with a median of 0.12 and sigma 0.9, at most
    `LONGEST_TAIL`; one in a hundred takes a second or longer. `short`: always 0.02.
    """
    if kind == "short":
        return 0.02
    if kind == "even":
        return rng.uniform(0.05, 0.25)
    return min(0.12 * math.exp(rng.gauss(0.0, 0.9)), LONGEST_TAIL)


@dataclass(frozen=True)
class Terms:
    """The terms of a service.

    Attributes:
        tokens: tokens per window.
        kind: `fixed` windows follow one another; a `sliding` window ends now; a `bucket` refills evenly.
        burst: most tokens a bucket holds; `None` for those of a window.
        text: whether a rejection's text names the limit, as documented.
        window: length of a window in seconds.
        phase: fraction of the first fixed window that has passed when the clients start; `None` to draw it by the seed.
        halved: the window, counted from 0, from which half the tokens are allowed, and the one from which all are again.
        tenants: fraction of the tokens that others request, in requests at random times.
        latency: kind of latency of the answers.
        spurious: fraction of the requests rejected without a cause, never two in a row; with a `Retry-After` of one second
            if `spurious_asks`.
        spurious_asks: see `spurious`.
    """

    tokens: int
    kind: Literal["fixed", "sliding", "bucket"] = "fixed"
    burst: int | None = None
    text: bool = True
    window: float = 60.0
    phase: float | None = 0.0
    halved: tuple[int, int] | None = None
    tenants: float = 0.0
    latency: Latency = "even"
    spurious: float = 0.0
    spurious_asks: bool = False

    def limit_at(self, now: float) -> int:
        """The tokens per window at a time."""
        if self.halved is not None and self.halved[0] * self.window <= now < self.halved[1] * self.window:
            return self.tokens // 2
        return self.tokens


class Service:
    """Counts each request when it arrives, with the emulator's ledger, and refuses a request that exceeds the limit.

    A request arrives at a random time between its sending and its answer.

    Args:
        terms: its terms.
        seed: seed of latencies, the phase, spurious rejections and the other tenants.

    Attributes:
        tenants: arrivals and tokens of the other tenants' accepted requests.
    """

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self._rng = random.Random(f"service {seed}")
        self.phase = self._rng.random() if terms.phase is None else terms.phase
        self._ledger = QuotaLedger()
        self._quota = ServiceQuota(
            tokens_per_window=terms.tokens, window=terms.window, kind=terms.kind, burst=terms.burst, text=terms.text
        )
        self._draws = random.Random(f"strays {seed}")
        self._was_spurious = False
        self.tenants: list[tuple[float, int]] = []
        # A charge of 0 starts the first window.
        self._decide(-self.phase * terms.window, 0)

    def __repr__(self) -> str:
        """Show its terms."""
        return f"<Service {self.terms}>"

    def way(self, corpus: Corpus) -> Way:
        """The transport of a client whose texts come from a corpus."""
        return Way(self, corpus)

    async def embed(self, tokens: int) -> tuple[float, MockResponse | None]:
        """Carry a request to the service and its answer back.

        Returns:
            When the request arrived, and its rejection; `None` if it was accepted.
        """
        latency = draw_latency(self.terms.latency, self._rng)
        there = latency * self._rng.random()
        await asyncio.sleep(there)
        arrived = asyncio.get_running_loop().time()
        rejection = self._spurious() or self._rejection(arrived, tokens)
        await asyncio.sleep(latency - there)
        return arrived, rejection

    async def serve_tenants(self, until: float) -> None:
        """Charge the requests of the other tenants."""
        loop = asyncio.get_running_loop()
        if not self.terms.tenants:
            return
        every = TENANTS_REQUEST * self.terms.window / (self.terms.tenants * self.terms.tokens)
        while (now := loop.time()) < until:
            if self._decide(now, TENANTS_REQUEST) is None:
                self.tenants.append((now, TENANTS_REQUEST))
            await asyncio.sleep(self._rng.expovariate(1 / every))

    def best(self, windows: int, *, since: int = 0) -> int:
        """Tokens that an ideal sender gets accepted in this many windows, beside the other tenants.

        A sliding window gives one window's worth at the start and one at the end of each window. A job touches one fixed
        window more than its length in windows, unless it starts with a window. A bucket adds a burst at the start.

        Args:
            windows: number of windows to send for.
            since: the first window that counts.
        """
        length = self.terms.window
        starts = [number * length for number in range(since, windows)]
        if self.terms.kind == "fixed" and self.phase and not since:
            starts.append(windows * length - self.phase * length)
        allowed = sum(map(self.terms.limit_at, starts))
        if self.terms.kind == "bucket" and not since:
            allowed += self.terms.tokens if self.terms.burst is None else self.terms.burst
        return allowed - sum(tokens for at, tokens in self.tenants if since * length <= at < windows * length)

    def _spurious(self) -> MockResponse | None:
        if not self.terms.spurious:
            return None
        self._was_spurious = not self._was_spurious and self._draws.random() < self.terms.spurious
        headers = {"Retry-After": "1"} if self.terms.spurious_asks else {}
        return MockResponse.error(429, "RESOURCE_EXHAUSTED", "", headers=headers) if self._was_spurious else None

    def _rejection(self, now: float, tokens: int) -> MockResponse | None:
        message = self._decide(now, tokens)
        return None if message is None else MockResponse.error(429, "RESOURCE_EXHAUSTED", message)

    def _decide(self, now: float, tokens: int) -> str | None:
        limit = self.terms.limit_at(now)
        if limit != self._quota.tokens_per_window:
            self._quota = replace(self._quota, tokens_per_window=limit)
        refusal = self._ledger.decide(self._quota, now, MODEL, INPUT_TYPE, tokens)
        if refusal is None:
            return None
        return refusal.message if self.terms.text else ""


@dataclass(eq=False)
class Way:
    """The transport of one client.

    Attributes:
        service: the service it leads to.
        corpus: the corpus of the client's texts.
        accepted: arrival and tokens of each accepted request.
        sizes: tokens of the first input of each accepted request.
        rejected: arrival of each rejected request.
    """

    service: Service
    corpus: Corpus
    accepted: list[tuple[float, int]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[_Response]:
        """See `Transport.send`."""
        texts = [one["text"] for one in request.json()["inputs"]]
        tokens = self.corpus.count(texts)
        arrived, rejection = await self.service.embed(tokens)
        if rejection is None:
            self.accepted.append((arrived, tokens))
            self.sizes.append(self.corpus.count(texts[:1]))
            yield _Response(_answer(len(texts), tokens))
        else:
            self.rejected.append(arrived)
            yield _Response(rejection)


class _Response:
    """A response whose body is read in one piece."""

    def __init__(self, response: MockResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self._body = b"".join(response.pieces())

    async def read(self) -> bytes:
        body, self._body = self._body, b""
        return body


def _answer(count: int, tokens: int) -> MockResponse:
    row = b'{"vector_type":"dense","values":[0.5]}'
    body = b'{"model":"%b","vector_type":"dense","data":[%b],"usage":{"total_tokens":%d}}'
    return MockResponse(body=body % (MODEL.encode(), b",".join([row] * count), tokens))


def accepted_before(log: Sequence[tuple[float, int]], end: float) -> int:
    """Tokens of the requests that arrived before a time."""
    return sum(tokens for at, tokens in log if at < end)
