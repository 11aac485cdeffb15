"""How long a single text takes, alone and among a thousand at once, beside what people use instead.

    python benchmarks/single.py
    python benchmarks/single.py --rounds 500 --json single.json

All ways run in one process and take turns, so that drift hits all alike. Exit status 1 when one returns wrong vectors or
the server fails, 2 for misuse. ``docs/benchmarks.md`` says what the figures mean.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import numpy as np
from competitors import API_KEY
from harness import BenchmarkError, Server, describe_machine, running_server
from seeded import PERIOD, Load, dense_vectors, texts

from pinecone_embed_async import EmbedClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import numpy.typing as npt

    Single = Callable[[str], Awaitable[npt.NDArray[np.float32]]]

CROWD = 1000
CONCURRENCY = 8
"""Requests in flight at most, the client's default; bare aiohttp gets as many connections."""

BASE = "bare aiohttp + json"


async def open_ways(stack: AsyncExitStack, server: Server, load: Load) -> dict[str, Single]:
    """Open what is measured, by name."""
    client = EmbedClient(load.model, vector_type="dense", api_key=API_KEY, base_url=server.url, max_concurrency=CONCURRENCY)
    await stack.enter_async_context(client)
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            server.url,
            headers={"Api-Key": API_KEY, "X-Pinecone-Api-Version": "2025-10"},
            connector=aiohttp.TCPConnector(limit=CONCURRENCY),
        )
    )

    async def one(text: str) -> npt.NDArray[np.float32]:
        return await client.embed_one(text, parameters=load.parameters)

    async def many(text: str) -> npt.NDArray[np.float32]:
        return (await client.embed(text, parameters=load.parameters))[0]

    async def bare(text: str) -> npt.NDArray[np.float32]:
        request = {"model": load.model, "inputs": [{"text": text}], "parameters": load.parameters}
        async with session.post("/embed", json=request) as response:
            response.raise_for_status()
            answer = await response.json()
        return np.array(answer["data"][0]["values"], np.float32)

    return {"embed_one": one, "embed of one text": many, BASE: bare}


async def measure_alone(
    ways: dict[str, Single], passages: Sequence[str], expected: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Milliseconds of one call after the other, each way in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number, passage in enumerate(passages):
        turn = number % len(names)
        for name in (*names[turn:], *names[:turn]):
            started = time.perf_counter()
            vector = await ways[name](passage)
            taken[name].append(1000 * (time.perf_counter() - started))
            check(name, vector, expected[number % PERIOD])
    return {
        name: {"median": statistics.median(times), "p99": float(np.quantile(times, 0.99))} for name, times in taken.items()
    }


async def measure_crowd(
    ways: dict[str, Single], server: Server, passages: Sequence[str], expected: npt.NDArray[np.float32], rounds: int
) -> dict[str, Any]:
    """Milliseconds until the last of many concurrent calls is answered, and the requests that they made."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    requests: dict[str, float] = {}
    for _ in range(rounds):
        for name, single in ways.items():
            before = server.statistics()["embed_requests"]
            started = time.perf_counter()
            vectors = await asyncio.gather(*map(single, passages))
            taken[name].append(1000 * (time.perf_counter() - started))
            requests[name] = server.statistics()["embed_requests"] - before
            for number, vector in enumerate(vectors):
                check(name, vector, expected[number % PERIOD])
    return {name: {"median": statistics.median(times), "requests": requests[name]} for name, times in taken.items()}


def check(name: str, vector: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Compare a vector with the server's.

    Raises:
        BenchmarkError: It is another one.
    """
    if vector.dtype != np.float32 or not np.array_equal(vector, expected):
        raise BenchmarkError(f"{name}: returned something else than the vector of its input")


async def run(server: Server, load: Load, rounds: int, crowds: int) -> dict[str, Any]:
    """Warm everything up, and measure."""
    passages, expected = texts(max(rounds, CROWD), load.seed), dense_vectors(load)
    async with AsyncExitStack() as stack:
        ways = await open_ways(stack, server, load)
        await measure_alone(ways, passages[:50], expected)
        await measure_crowd(ways, server, passages[:CROWD], expected, 1)
        return {
            "alone": await measure_alone(ways, passages[:rounds], expected),
            "crowd": await measure_crowd(ways, server, passages[:CROWD], expected, crowds),
        }


def print_table(report: dict[str, Any]) -> None:
    """Print the medians, one way a line."""
    machine, figures = report["machine"], report["figures"]
    print(f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['python']}; load {machine['load_average']:.1f}")
    print(
        f"\n{'':{len(BASE)}}  {'alone, ms':>9} {'x':>5} {'p99':>7}  {f'{CROWD:,} at once, ms':>18} {'x':>5} {'requests':>8}"
    )
    for name in figures["alone"]:
        alone, crowd = figures["alone"][name], figures["crowd"][name]
        print(
            f"{name:{len(BASE)}}  {alone['median']:>9.2f} {alone['median'] / figures['alone'][BASE]['median']:>5.2f}"
            f" {alone['p99']:>7.2f}  {crowd['median']:>18.0f}"
            f" {crowd['median'] / figures['crowd'][BASE]['median']:>5.2f} {crowd['requests']:>8,.0f}"
        )
    print(f"\nx: ratio to {BASE}.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000, help="calls one after the other (default 1000)")
    parser.add_argument("--crowds", type=int, default=5, help=f"times that {CROWD:,} calls come at once (default 5)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to a file, too")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.crowds < 1:
        parser.error("there is nothing to measure")
    load = Load()
    machine = describe_machine()
    try:
        with running_server(load) as server:
            figures = asyncio.run(run(server, load, options.rounds, options.crowds))
    except BenchmarkError as error:
        print(f"single: {error}", file=sys.stderr)
        return 1
    report = {
        "benchmark": "single",
        "machine": machine | {"load_average_after": os.getloadavg()[0]},
        "settings": {"rounds": options.rounds, "crowds": options.crowds, "crowd": CROWD, "concurrency": CONCURRENCY},
        "figures": figures,
    }
    print_table(report)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
