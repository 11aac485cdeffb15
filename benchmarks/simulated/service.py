"""A service with a quota, the way to it, and the other tenants of its project."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from pinecone_embed_async.emulator import ServiceQuota
from pinecone_embed_async.emulator._quota import QuotaLedger

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL, INPUT_TYPE = "llama-text-embed-v2", "passage"
"""A model that takes inputs of 2,000 tokens."""

TENANTS_REQUEST = 96 * 95
"""Tokens of a request of the other tenants."""

LONGEST_TAIL = 10.0
"""Seconds of the slowest answer with long-tailed latency."""

Latency = Literal["even", "long-tailed"]


def draw_latency(kind: Latency, rng: random.Random) -> float:
    """Seconds from the sending of a request to its answer.

    `even`: evenly between 0.05 and 0.25. `long-tailed`: log-normal with a median of 0.12 and sigma 0.9, at most
    `LONGEST_TAIL`: one in a hundred takes a second or longer.
    """
    if kind == "even":
        return rng.uniform(0.05, 0.25)
    return min(0.12 * math.exp(rng.gauss(0.0, 0.9)), LONGEST_TAIL)


@dataclass(frozen=True)
class Terms:
    """What a service allows.

    Attributes:
        tokens: in a window.
        kind: of windows: fixed ones follow each other, a sliding one ends now.
        text: whether a rejection's text names the limit, as documented.
        window: seconds.
        phase: part of the first fixed window that had passed when the clients began; `None` for one drawn by the seed.
        halved: the windows, counted from 0, with which half the tokens begin and with which all are there again.
        tenants: part of the tokens that others ask for, in requests that come at random.
        latency: of answers.
    """

    tokens: int
    kind: Literal["fixed", "sliding"] = "fixed"
    text: bool = True
    window: float = 60.0
    phase: float | None = 0.0
    halved: tuple[int, int] | None = None
    tenants: float = 0.0
    latency: Latency = "even"

    def limit_at(self, now: float) -> int:
        """Tokens in a window at a time."""
        if self.halved is not None and self.halved[0] * self.window <= now < self.halved[1] * self.window:
            return self.tokens // 2
        return self.tokens


class Service:
    """Counts each request when it arrives, and refuses it whole if it is over the limit; the counting is the emulator's.

    A request arrives some time between its sending and its answer.

    Args:
        terms: what it allows.
        seed: of latencies, the phase and the other tenants.

    Attributes:
        tenants: arrival and tokens of the requests of others that were accepted.
    """

    def __init__(self, terms: Terms, seed: int) -> None:
        self.terms = terms
        self._rng = random.Random(f"service {seed}")
        self.phase = self._rng.random() if terms.phase is None else terms.phase
        self._ledger = QuotaLedger()
        self._quota = ServiceQuota(tokens_per_window=terms.tokens, window=terms.window, kind=terms.kind, text=terms.text)
        self.tenants: list[tuple[float, int]] = []
        # Nothing, but the first window begins with it.
        self._decide(-self.phase * terms.window, 0)

    def __repr__(self) -> str:
        """Say what it allows."""
        return f"<Service {self.terms}>"

    async def embed(self, tokens: int) -> tuple[float, str | None]:
        """Carry a request there and its answer back.

        Returns:
            When it arrived; the message of its rejection, which is empty without a text; `None` if it was accepted.
        """
        latency = draw_latency(self.terms.latency, self._rng)
        there = latency * self._rng.random()
        await asyncio.sleep(there)
        arrived = asyncio.get_running_loop().time()
        message = self._decide(arrived, tokens)
        await asyncio.sleep(latency - there)
        return arrived, message

    async def serve_tenants(self, until: float) -> None:
        """Take what the other tenants send."""
        loop = asyncio.get_running_loop()
        if not self.terms.tenants:
            return
        every = TENANTS_REQUEST * self.terms.window / (self.terms.tenants * self.terms.tokens)
        while (now := loop.time()) < until:
            if self._decide(now, TENANTS_REQUEST) is None:
                self.tenants.append((now, TENANTS_REQUEST))
            await asyncio.sleep(self._rng.expovariate(1 / every))

    def best(self, windows: int) -> int:
        """Tokens that an all-knowing sender gets accepted in so many windows, of what others left.

        In windows that slide it is one window's worth at the start and one at the end of each window. A job's time meets one
        fixed window more than it has windows in it, unless it begins with one.
        """
        length = self.terms.window
        starts = [number * length for number in range(windows)]
        if self.terms.kind == "fixed" and self.phase:
            starts.append(windows * length - self.phase * length)
        allowed = sum(map(self.terms.limit_at, starts))
        return allowed - sum(tokens for at, tokens in self.tenants if at < windows * length)

    def _decide(self, now: float, tokens: int) -> str | None:
        limit = self.terms.limit_at(now)
        if limit != self._quota.tokens_per_window:
            self._quota = replace(self._quota, tokens_per_window=limit)
        refusal = self._ledger.decide(self._quota, now, MODEL, INPUT_TYPE, tokens)
        if refusal is None:
            return None
        return refusal.message if self.terms.text else ""


def accepted_before(log: Sequence[tuple[float, int]], end: float) -> int:
    """Tokens of what arrived before a time."""
    return sum(tokens for at, tokens in log if at < end)
