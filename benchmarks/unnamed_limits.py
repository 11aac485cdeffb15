"""What a client that knows no quota makes of rejections that name none: stray ones, and those of a bucket.

    python -m benchmarks.unnamed_limits
    python -m benchmarks.unnamed_limits --seeds 5 --only stray

Under the virtual clock of `benchmarks.quota_simulation`, with its client. Buckets refill evenly. Exit status 1 if a bound
does not hold for some seed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from benchmarks.simulated.client import Client, Corpus
from benchmarks.simulated.service import INPUT_TYPE, MODEL, draw_latency
from benchmarks.simulated.world import run_virtually
from pinecone_embed_async._errors import RateLimitError
from pinecone_embed_async._limits import LimiterOptions
from pinecone_embed_async.emulator import ServiceQuota
from pinecone_embed_async.emulator._quota import QuotaLedger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pinecone_embed_async._limits import Turn

REQUEST = 96 * 95
"""Tokens of a full request."""


WINDOW = 60.0
"""Seconds of a window."""


@dataclass(frozen=True)
class Setting:
    """One thing to simulate.

    Attributes:
        name: of it.
        quota: of the service.
        bounds: of some of the figures that `figures` gives; where the name begins with `rejected` at most, else at least.
        every: one answer of so many is a rejection without a cause; 0 for none.
        is_regular: whether these come in even distances, rather than by chance, but never two in a row.
        retry_after: seconds that they ask for; `None` if they ask for none.
        latency: seconds from sending to answer; `None` for 0.05 to 0.25.
        seconds: that it goes on for.
    """

    name: str
    quota: ServiceQuota = field(default_factory=ServiceQuota)
    bounds: Mapping[str, float] = field(default_factory=dict)
    every: int = 0
    is_regular: bool = False
    retry_after: float | None = None
    latency: float | None = None
    seconds: float = 10 * WINDOW


@dataclass(frozen=True)
class Outcome:
    """What came of a setting with one seed: arrival and tokens of what was accepted, and arrival of what was rejected."""

    accepted: Sequence[tuple[float, int]]
    rejected: Sequence[float]
    lost: int

    def tokens(self, start: float, end: float) -> int:
        """Tokens accepted in a time."""
        return sum(tokens for at, tokens in self.accepted if start <= at < end)

    def rejected_part(self, start: float, end: float) -> float:
        """Part of the requests in a time that was rejected."""
        rejected = sum(start <= at < end for at in self.rejected)
        return rejected / max(1, rejected + sum(start <= at < end for at, _ in self.accepted))


class _Service:
    """Counts by the emulator's ledger, and rejects now and then without a cause."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self._setting = setting
        self._rng = random.Random(f"service {seed}")
        self._ledger = QuotaLedger()
        self._arrivals = 0
        self._was_stray = False

    async def embed(self, tokens: int) -> tuple[float, str | None]:
        """Carry a request there and its answer back: when it arrived, and `None` if it was accepted."""
        latency = self._setting.latency or draw_latency("even", self._rng)
        there = latency * (0.5 if self._setting.latency else self._rng.random())
        await asyncio.sleep(there)
        arrived = asyncio.get_running_loop().time()
        is_refused = (
            self._is_stray() or self._ledger.decide(self._setting.quota, arrived, MODEL, INPUT_TYPE, tokens) is not None
        )
        await asyncio.sleep(latency - there)
        return arrived, "" if is_refused else None

    def _is_stray(self) -> bool:
        every, self._arrivals = self._setting.every, self._arrivals + 1
        if not every:
            return False
        is_due = self._arrivals % every == 0 if self._setting.is_regular else self._rng.random() < 1 / every
        self._was_stray = is_due and not self._was_stray
        return self._was_stray


class _Client(Client):
    """Is told to wait, where the setting says so."""

    def __init__(self, service: _Service, corpus: Corpus, setting: Setting, seed: str) -> None:
        super().__init__(service, corpus, LimiterOptions(), seed=seed)  # type: ignore[arg-type]
        self._retry_after = setting.retry_after

    def _reject(self, turn: Turn, message: str) -> RateLimitError:
        error = RateLimitError(message, status=429, code="RESOURCE_EXHAUSTED", retry_after=self._retry_after)
        turn.rejected(message, self._retry_after, lambda bursts: self._policy.backoff(bursts, error, self._rng.random))
        return error


def simulate(setting: Setting, seed: int) -> Outcome:
    """Simulate a setting with one seed."""

    async def go() -> Outcome:
        client = _Client(_Service(setting, seed), Corpus(95, seed), setting, f"{seed}")
        await client.work(0.0, setting.seconds)
        return Outcome(client.accepted, client.rejected, client.lost)

    return run_virtually(go())


def figures(setting: Setting, seed: int) -> dict[str, float]:
    """What came of a setting with one seed.

    Of stray rejections `ratio`, the tokens accepted beside those without any, and `last/first`, those of the last fourth of
    the time beside those of the first; of a quota `used`, the part of it that was accepted in windows 4 to 10, and
    `rejected`, the part of the requests in these that was not.
    """
    outcome, seconds = simulate(setting, seed), setting.seconds
    told = {"lost": float(outcome.lost)}
    if setting.every:
        undisturbed = simulate(replace(setting, every=0), seed)
        told["ratio"] = outcome.tokens(0, seconds) / undisturbed.tokens(0, seconds)
        told["last/first"] = outcome.tokens(0.75 * seconds, seconds) / outcome.tokens(0, 0.25 * seconds)
    limit = setting.quota.token_limit(INPUT_TYPE)
    if limit is not None:
        start = 3 * WINDOW
        told["used"] = outcome.tokens(start, seconds) / (limit * (seconds - start) / WINDOW)
        told["rejected"] = outcome.rejected_part(start, seconds)
    return told


def settings() -> list[Setting]:
    """All settings."""
    all_: list[Setting] = []
    for asked, ratio in ((None, 0.7), (1.0, 0.45)):
        name = "one in 500 is stray" + ("" if asked is None else f", Retry-After: {asked:g}")
        stray = Setting(name, every=500, retry_after=asked, latency=0.02, seconds=2 * WINDOW)
        bounds = {"ratio": ratio, "last/first": 0.9}
        all_ += (replace(stray, is_regular=True, bounds=bounds), replace(stray, name=f"{name}, by chance"))
    all_.append(Setting("one in 100 is stray, by chance", every=100))
    for tokens in (250_000, 1_000_000):
        for burst, name in ((None, "a bucket of a minute"), (4 * REQUEST, "a bucket of four requests")):
            quota = ServiceQuota(tokens_per_window=tokens, kind="bucket", burst=burst)
            all_.append(Setting(f"{tokens:,} in {name}", quota, {"used": 0.8, "rejected": 0.15}))
        all_ += (
            Setting(f"{tokens:,}, {kind}, one in 500 is stray", ServiceQuota(tokens_per_window=tokens, kind=kind), every=500)
            for kind in ("fixed", "sliding")
        )
    return all_


def failures(setting: Setting, told: Sequence[Mapping[str, float]]) -> list[str]:
    """What does not hold of some seeds' figures, in words."""
    found = [f"{one['lost']:.0f} inputs lost" for one in told if one["lost"]]
    for name, bound in setting.bounds.items():
        values = [one[name] for one in told]
        is_most = name.startswith("rejected")
        worst = max(values) if is_most else min(values)
        if worst > bound if is_most else worst < bound:
            found.append(f"{name} {worst:.3f}, bound {bound:g}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, simulate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="of each setting (default 5)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only settings with this in their name")
    options = parser.parse_args(arguments)
    chosen = [setting for setting in settings() if options.only in setting.name]
    if options.seeds < 1 or not chosen:
        parser.error("--seeds is a whole number from 1, and --only part of a setting's name")
    holds = True
    for setting in chosen:
        told = [figures(setting, seed) for seed in range(options.seeds)]
        columns = (
            f"{name} {min(one[name] for one in told):.3f} to {max(one[name] for one in told):.3f}" for name in told[0]
        )
        failed = failures(setting, told)
        verdict = f"FAILS: {'; '.join(failed)}" if failed else "holds" if setting.bounds else ""
        print(f"{setting.name:45} {', '.join(columns)}  {verdict}".rstrip(), flush=True)
        holds = holds and not failed
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
