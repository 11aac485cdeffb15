"""A client without a known quota under rejections that name no limit: spurious ones, and those of a refilling bucket.

    python -m benchmarks.unnamed_limits
    python -m benchmarks.unnamed_limits --seeds 5 --only spurious

It runs the real client under the virtual clock of `benchmarks.quota_simulation`. Exit status 1 if a bound does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from benchmarks.simulated.client import Client, Corpus
from benchmarks.simulated.service import Service, Terms
from benchmarks.simulated.world import run_virtually

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REQUEST = 96 * 95
"""Tokens of a full request."""

UNLIMITED = 10**12
"""More tokens than a client sends in a window."""

SPURIOUS_SECONDS = 120.0
QUARTER = SPURIOUS_SECONDS / 4


@dataclass(frozen=True)
class Setting:
    """A setting to simulate.

    Attributes:
        name: its name.
        terms: the service's terms.
        bounds: bounds of some results of `figures`: upper bounds for names that begin with `rejected`, else lower bounds.
        seconds: its length.
        settled: windows after which a quota's figures are counted.
    """

    name: str
    terms: Terms
    bounds: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 600.0
    settled: int = 3


@dataclass(frozen=True)
class Outcome:
    """The outcome of a setting with one seed: arrivals and tokens of accepted requests, and arrivals of rejected ones."""

    accepted: Sequence[tuple[float, int]]
    rejected: Sequence[float]
    lost: int

    def tokens(self, start: float, end: float) -> int:
        """Tokens accepted between two times."""
        return sum(tokens for at, tokens in self.accepted if start <= at < end)

    def rejections(self, start: float, end: float) -> tuple[int, int]:
        """Requests rejected between two times, and all requests."""
        rejected = sum(start <= at < end for at in self.rejected)
        return rejected, rejected + sum(start <= at < end for at, _ in self.accepted)


def simulate(job: tuple[Setting, int]) -> Outcome:
    """Simulate a setting with one seed."""
    setting, seed = job

    async def go() -> Outcome:
        client = Client(Service(setting.terms, seed), Corpus(95, seed), seed=f"{seed}")
        async with asyncio.TaskGroup() as group:
            group.create_task(client.work(0.0, setting.seconds))
        await client.aclose()
        return Outcome(client.way.accepted, client.way.rejected, client.lost)

    return run_virtually(go())


def figures(setting: Setting, outcomes: Sequence[Outcome], undisturbed: Sequence[Outcome]) -> dict[str, float]:
    """The results of a setting over all seeds together, since a single seed has few spurious rejections.

    With spurious rejections, `ratio` is the tokens accepted relative to a run without them, and `last/first` those of the
    last 30 seconds relative to those of the first. With a quota, `used` is the fraction of it accepted after the first
    `settled` windows, and `rejected` the fraction of the requests rejected there.
    """
    results = {"lost": float(sum(outcome.lost for outcome in outcomes))}
    end, terms = setting.seconds, setting.terms
    if terms.spurious:
        all_, best = (sum(one.tokens(0, end) for one in some) for some in (outcomes, undisturbed))
        last, first = (sum(one.tokens(at, at + QUARTER) for one in outcomes) for at in (end - QUARTER, 0.0))
        results |= {"ratio": all_ / best, "last/first": last / first}
    if terms.tokens < UNLIMITED:
        start = setting.settled * terms.window
        results["used"] = min(one.tokens(start, end) for one in outcomes) / (terms.tokens * (end - start) / terms.window)
        results["rejected"] = max(rejected / max(1, of) for rejected, of in (one.rejections(start, end) for one in outcomes))
    return results


def settings() -> list[Setting]:
    """All settings."""
    spurious = Terms(UNLIMITED, text=False, spurious=1 / 500, latency="short")
    all_ = [
        Setting(
            f"one in 500 is spurious{', Retry-After: 1' if asks else ''}",
            replace(spurious, spurious_asks=asks),
            {"ratio": 0.45 if asks else 0.7, "last/first": 0.9},
            SPURIOUS_SECONDS,
        )
        for asks in (False, True)
    ]
    for tokens in (250_000, 1_000_000):
        for burst, name in ((None, "a bucket of a minute"), (4 * REQUEST, "a bucket of four requests")):
            terms = Terms(tokens, kind="bucket", burst=burst, text=False)
            all_.append(Setting(f"{tokens:,} in {name}", terms, {"used": 0.8, "rejected": 0.15}))
        all_ += (
            Setting(f"{tokens:,}, one in 500 is spurious, {kind}", Terms(tokens, kind=kind, text=False, spurious=1 / 500))
            for kind in ("fixed", "sliding")
        )
    return all_


def failures(setting: Setting, results: Mapping[str, float]) -> list[str]:
    """The violated bounds, in words."""
    found = [f"{results['lost']:.0f} inputs lost"] if results["lost"] else []
    for name, bound in setting.bounds.items():
        if results[name] > bound if name.startswith("rejected") else results[name] < bound:
            found.append(f"{name} {results[name]:.3f}, bound {bound:g}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, simulate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each setting (default 5)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only settings with this in their name")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    chosen = [setting for setting in settings() if options.only in setting.name]
    if options.seeds < 1 or options.workers < 1 or not chosen:
        parser.error("--seeds and --workers must be integers ≥ 1, and --only a part of a setting's name")
    holds = True
    with ProcessPoolExecutor(options.workers) as pool:
        for setting in chosen:
            jobs = [(setting, seed) for seed in range(options.seeds)]
            calm = [(replace(setting, terms=replace(setting.terms, spurious=0.0)), seed) for _, seed in jobs]
            outcomes = list(pool.map(simulate, jobs))
            results = figures(setting, outcomes, list(pool.map(simulate, calm)) if setting.terms.spurious else [])
            failed = failures(setting, results)
            verdict = f"FAILS: {'; '.join(failed)}" if failed else "holds" if setting.bounds else ""
            columns = ", ".join(f"{name} {value:.3f}" for name, value in results.items())
            print(f"{setting.name:42} {columns}  {verdict}".rstrip(), flush=True)
            holds = holds and not failed
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
