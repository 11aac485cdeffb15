"""How much does filling a cache cost? CPU time of the process per input, beside the same job without a cache.

Each measurement has its own process and file; the two of a round take turns, against one server that answers at once. The
CPU time includes that of the cache's threads and of closing the cache.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import API_KEY
from benchmarks.harness import BenchmarkError, run_module, running_server
from benchmarks.seeded import MAX_BATCH, texts
from benchmarks.settings import MAIN_LOAD, SLOWEST
from benchmarks.tables import Table, number
from pinecone_embed_async import EmbedClient, SqliteCache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.settings import Settings

INPUTS = {MAX_BATCH: 20_000, 1: 2_000}
"""Inputs of a run, by the size of its requests. A request of one text has its own commit if no other waits with it."""

WARM_UP = 2 * MAX_BATCH
GOAL = 2.0
"""Most CPU time, relative to a run without a cache."""


def measure(settings: Settings) -> dict[str, Any]:
    """Measure rounds of two runs, with and without a cache."""
    sizes: dict[str, Any] = {}
    with running_server(MAIN_LOAD) as server:
        for size, count in INPUTS.items():
            inputs = settings.scaled(count)

            def run(kind: str, size: int = size, inputs: int = inputs) -> float:
                arguments = [server.url, str(inputs), str(size), kind]
                said = run_module("suites.filling", arguments, limit=60 + inputs * MAX_BATCH / size / SLOWEST, who="filling")
                return 1e6 * float(said) / inputs

            pairs = []
            for place in range(settings.rounds):
                order = ("without", "with") if place % 2 else ("with", "without")
                pairs.append({kind: run(kind) for kind in order})
            ratio = statistics.median(pair["with"] / pair["without"] for pair in pairs)
            sizes[str(size)] = {"inputs": inputs, "us_per_input": pairs, "ratio": ratio}
    return {"sizes": sizes}


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table for all request sizes."""
    rows = []
    for size, figures in part["sizes"].items():
        kinds = (statistics.median(pair[kind] for pair in figures["us_per_input"]) for kind in ("without", "with"))
        rows.append((size, number(figures["inputs"], 0), *(number(kind, 0) for kind in kinds), number(figures["ratio"], 2)))
    header = ("inputs a request", "inputs", "without, µs", "with, µs", "×")
    return [Table("CPU for each input while a cache is filled; × is the median of the rounds", header, tuple(rows))]


async def run_once(url: str, inputs: int, size: int, *, is_cached: bool) -> float:
    """Embed texts with or without a cache; return the CPU seconds."""
    given = texts(inputs, MAIN_LOAD.seed)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        cache = SqliteCache(Path(folder) / "cache.sqlite") if is_cached else None
        client = EmbedClient("multilingual-e5-large", api_key=API_KEY, base_url=url, cache=cache, max_batch_size=size)
        await stack.enter_async_context(client)
        await client.embed(given[:WARM_UP], input_type="query")
        started = time.process_time()
        await client.embed(given, input_type="passage")
        if cache is not None:
            await cache.aclose()
        taken = time.process_time() - started
        if cache is not None:
            known = client.statistics().cache_hits
            await client.embed(given, input_type="passage")
            if client.statistics().cache_hits - known != inputs:
                raise BenchmarkError("the cache did not keep every vector")
            await cache.aclose()
    return taken


if __name__ == "__main__":
    print(asyncio.run(run_once(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), is_cached=sys.argv[4] == "with")))
