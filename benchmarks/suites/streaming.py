"""Peak memory of a stream: a million inputs must not need more than ten thousand do.

Each length is streamed in its own process, against one server. Every row is compared with the server's vector and then
discarded.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import API_KEY, MSGSPEC, NATIVE
from benchmarks.harness import BenchmarkError, run_module, running_server
from benchmarks.measure import peak_memory
from benchmarks.seeded import NUMBER_WIDTH, PERIOD, dense_vectors
from benchmarks.settings import MAIN_LOAD, SLOWEST
from benchmarks.tables import Table, number
from pinecone_embed_async import EmbedClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.settings import Settings

LENGTHS = (10_000, 1_000_000)


def measure(settings: Settings) -> dict[str, Any] | None:
    """Stream each length in its own process."""
    runs = []
    with running_server(MAIN_LOAD) as server:
        for competitor in settings.competitors(MAIN_LOAD, (MSGSPEC, NATIVE)):
            for length in map(settings.scaled, LENGTHS):
                arguments = [server.url, str(length), competitor.name]
                said = run_module("suites.streaming", arguments, limit=60 + length / SLOWEST, who="streaming")
                runs.append({"title": competitor.title, **json.loads(said)})
    return {"runs": runs} if runs else None


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of peaks."""
    rows = tuple(
        (
            run["title"],
            number(run["inputs"], 0),
            number(run["inputs"] / run["seconds"], 0),
            number(run["peak_bytes"] / 2**20, 1),
        )
        for run in part["runs"]
    )
    return [Table("A stream in order, rows checked and thrown away", ("way", "inputs", "inputs/s", "peak, MiB"), rows)]


async def stream(url: str, inputs: int, decoder: Any) -> dict[str, Any]:
    """Stream numbered inputs and compare every row."""
    expected = dense_vectors(MAIN_LOAD)

    def source() -> Iterator[str]:
        return (f"{number:0{NUMBER_WIDTH}} a short input" for number in range(inputs))

    started, rows = time.perf_counter(), 0
    async with (
        EmbedClient(MAIN_LOAD.model, vector_type="dense", api_key=API_KEY, base_url=url, decoder=decoder) as client,
        client.stream(source(), input_type="passage") as batches,
    ):
        async for batch in batches:
            numbers = np.arange(batch.start, batch.start + len(batch)) % PERIOD
            if not np.array_equal(batch.vectors, expected[numbers]):
                raise BenchmarkError(f"the rows from {batch.start} on are not the vectors of their inputs")
            rows += len(batch)
    if rows != inputs:
        raise BenchmarkError(f"{rows:,} rows for {inputs:,} inputs")
    return {"inputs": inputs, "seconds": time.perf_counter() - started, "peak_bytes": peak_memory()}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(stream(sys.argv[1], int(sys.argv[2]), sys.argv[3]))))
