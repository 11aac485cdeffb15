"""How one client shares a known quota: between queries and bulk work, and between two jobs with requests of different sizes.

    python -m benchmarks.sharing
    python -m benchmarks.sharing --seeds 20 --only queries

It runs the real client under the virtual clock of `benchmarks.quota_simulation`. The exit status is 1 if a bound does not
hold for some seed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.simulated.client import Client, Corpus
from benchmarks.simulated.service import Service, Terms, accepted_before
from benchmarks.simulated.world import run_virtually
from pinecone_embed_async import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WINDOWS = 5
"""Windows of queries beside bulk work; the first does not count, since the client knows nothing about queries yet."""

QUERY_TOKENS = 100
QUERIES_PART = 0.1
"""Fraction of the quota that queries need."""

SLOWEST_QUERY, LEAST_USED, MOST_APART = 1.5, 0.95, 0.05

SMALL, LARGE = 200, 740
"""Tokens per request of the two jobs."""


@dataclass(frozen=True)
class Row:
    """A row to simulate.

    Attributes:
        name: its name.
        terms: the service's terms.
        simulate: returns a seed's figures, in the order of `columns`.
        columns: names and bounds of the figures; a negative bound is an upper bound.
    """

    name: str
    terms: Terms
    simulate: Callable[[Terms, int], tuple[float, ...]]
    columns: tuple[tuple[str, float], ...]


def quota_of(terms: Terms) -> Quota:
    """The quota as the client's type."""
    return Quota(terms.tokens, None, None, terms.window)


def queries_beside_bulk(terms: Terms, seed: int) -> tuple[float, float]:
    """p99 of the queries' seconds, including the answer, and the fraction of the quota used."""

    async def go() -> tuple[float, float]:
        service, rng = Service(terms, seed), random.Random(f"queries {seed}")
        corpus, queries = Corpus(95, seed), Corpus(QUERY_TOKENS, seed)
        corpus.take(queries)
        client, end = Client(service, corpus, quota_of(terms), seed=f"{seed}"), WINDOWS * terms.window
        every = QUERY_TOKENS * terms.window / (QUERIES_PART * terms.tokens)
        waits: list[tuple[float, float]] = []

        async def ask() -> None:
            asked = asyncio.get_running_loop().time()
            waits.append((asked, await client.ask(rng.choice(queries.texts))))

        async with asyncio.TaskGroup() as group:
            group.create_task(client.work(0.0, end))
            while asyncio.get_running_loop().time() < end:
                group.create_task(ask())
                await asyncio.sleep(rng.expovariate(1 / every))
        await client.aclose()
        counted = sorted(wait for asked, wait in waits if terms.window <= asked)
        used = accepted_before(client.way.accepted, end) - accepted_before(client.way.accepted, terms.window)
        return counted[int(0.99 * len(counted))], used / service.best(WINDOWS, since=1)

    return run_virtually(go())


def two_jobs(terms: Terms, seed: int) -> tuple[float]:
    """Difference between two jobs with requests of different sizes after two windows, as a fraction of their tokens."""

    async def go() -> tuple[float]:
        service, end = Service(terms, seed), 2 * terms.window
        corpus, large = Corpus(SMALL, seed), Corpus(LARGE, seed)
        corpus.take(large)
        client = Client(service, corpus, quota_of(terms), seed=f"{seed}", max_batch_size=1)
        async with asyncio.TaskGroup() as group:
            group.create_task(client.work(0.0, end))
            group.create_task(client.work(0.0, end, large))
        await client.aclose()
        shares = {SMALL: 0, LARGE: 0}
        for (at, tokens), size in zip(client.way.accepted, client.way.sizes, strict=True):
            shares[size] += tokens if at < end else 0
        return (abs(shares[SMALL] - shares[LARGE]) / sum(shares.values()),)

    return run_virtually(go())


def rows() -> list[Row]:
    """All rows."""
    queries = (("p99", -SLOWEST_QUERY), ("used", LEAST_USED))
    all_ = [
        Row(f"queries beside bulk work, {tokens:,}, {kind}", Terms(tokens, kind=kind), queries_beside_bulk, queries)
        for tokens in (250_000, 1_000_000)
        for kind in ("fixed", "sliding")
    ]
    terms = Terms(50_000, kind="sliding", window=10.0)
    return [*all_, Row(f"two jobs, requests of {SMALL} and {LARGE}", terms, two_jobs, (("apart", -MOST_APART),))]


def simulate(job: tuple[int, int]) -> tuple[float, ...]:
    """Simulate a row, given by its number, with one seed."""
    number, seed = job
    row = rows()[number]
    return row.simulate(row.terms, seed)


def worst(row: Row, figures: Sequence[tuple[float, ...]]) -> list[tuple[str, float, float, bool]]:
    """Name, worst figure, bound, and whether the bound holds, for each column."""
    results = []
    for place, (name, bound) in enumerate(row.columns):
        values = [one[place] for one in figures]
        value = max(values) if bound < 0 else min(values)
        results.append((name, value, abs(bound), value <= -bound if bound < 0 else value >= bound))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, simulate, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each row (default 5)")
    parser.add_argument("--only", metavar="TEXT", default="", help="only rows with this in their name")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    chosen = [(number, row) for number, row in enumerate(rows()) if options.only in row.name]
    if options.seeds < 1 or options.workers < 1 or not chosen:
        parser.error("--seeds and --workers must be integers ≥ 1, and --only a part of a row's name")
    holds = True
    with ProcessPoolExecutor(options.workers) as pool:
        for number, row in chosen:
            results = worst(row, list(pool.map(simulate, [(number, seed) for seed in range(options.seeds)])))
            columns = ", ".join(f"{name} {value:.3f} (bound {bound:g})" for name, value, bound, _ in results)
            is_well = all(well for *_, well in results)
            print(f"{row.name:42} {columns}  {'holds' if is_well else 'FAILS'}", flush=True)
            holds = holds and is_well
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
