"""How much faster is a second run over the same texts with a cache? It makes no requests.

Both runs are in one process, against one server that takes a tenth of a second per request, less than a service across a
network. The result of the first run is dropped before the second, because on a virtual machine the first use of memory costs
more than everything else in the second run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import API_KEY
from benchmarks.harness import BenchmarkError, run_module, running_server
from benchmarks.seeded import texts
from benchmarks.settings import MAIN_LOAD, SLOWEST
from benchmarks.tables import Table, number
from pinecone_embed_async import EmbedClient, SqliteCache

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.settings import Settings

INPUTS = 50_000
SERVICE_SECONDS = 0.1
GOAL = 20.0
"""Times as fast as the first run."""


def measure(settings: Settings) -> dict[str, Any] | None:
    """Measure several pairs of runs, each pair in its own process and with its own file."""
    inputs = settings.scaled(INPUTS)
    with running_server(MAIN_LOAD, service_time=SERVICE_SECONDS) as server:
        pairs = [
            json.loads(run_module("suites.caching", [server.url, str(inputs)], limit=60 + inputs / SLOWEST, who="caching"))
            for _ in range(max(1, settings.rounds // 2))
        ]
    return {
        "inputs": inputs,
        "service_seconds": SERVICE_SECONDS,
        "pairs": pairs,
        "ratio": statistics.median(pair["first"] / pair["second"] for pair in pairs),
    }


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of both runs."""
    first, second = (statistics.median(pair[name] for pair in part["pairs"]) for name in ("first", "second"))
    row = (number(part["inputs"], 0), number(first, 2), number(second, 2), number(part["ratio"], 1))
    return [Table("A second run with a cache", ("inputs", "first, s", "second, s", "times as fast"), (row,))]


async def run_twice(url: str, inputs: int) -> dict[str, float]:
    """Embed the same texts twice, and compare the rows."""
    given = texts(inputs, MAIN_LOAD.seed)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            SqliteCache(Path(folder) / "cache.sqlite") as cache,
            EmbedClient("multilingual-e5-large", api_key=API_KEY, base_url=url, cache=cache) as client,
        ):
            taken, digests, attempts = [], set(), set()
            for _ in range(2):
                started = time.perf_counter()
                result = await client.embed(given, input_type="passage")
                taken.append(time.perf_counter() - started)
                digests.add(hashlib.sha256(result.vectors.data).hexdigest())
                attempts.add(client.statistics().attempts)
                del result
            if len(digests) != 1 or len(attempts) != 1 or client.statistics().cache_hits != inputs:
                raise BenchmarkError("the second run made requests or returned other rows")
    return {"first": taken[0], "second": taken[1]}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run_twice(sys.argv[1], int(sys.argv[2])))))
