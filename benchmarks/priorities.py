"""Calls that share a client: interactive calls beside bulk work, two jobs, a burst, a lone call.

    python -m benchmarks.priorities
    python -m benchmarks.priorities --rounds 10 --json priorities.json

One client with its default settings and no token limit in effect, against a server in its own process that takes 50 ms.
Compared runs alternate, so that drift affects both alike. The exit status is 1 if a bound does not hold, 2 for misuse.
`docs/benchmarks.md` explains the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import API_KEY
from benchmarks.harness import BenchmarkError, describe_machine, running_server
from benchmarks.seeded import Load, texts
from pinecone_embed_async import EmbedClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from benchmarks.harness import Server
    from pinecone_embed_async import DenseEmbeddings, Progress

SERVICE_TIME = 0.05
CROWD = 1000
BULK = 4 * 8 * 96
"""Inputs per call of the background work, which repeats its calls."""

JOB = 300 * 96
"""Inputs of each of the two jobs."""

SLOWEST_INTERACTIVE = 1.5
"""Most p99 beside bulk work, relative to p99 alone."""

FAIR = (0.4, 0.6)
MOST_REQUESTS = 12
MOST_DELAY = 1.1
"""Most median latency of a lone `embed_one`, relative to `embed` of one text."""

WARM_UP = 200 * 96
"""Inputs before all of the client's permits may be in use; it starts with few while it knows no limit."""


@contextlib.asynccontextmanager
async def bulk_work(client: EmbedClient[DenseEmbeddings], passages: Sequence[str]) -> AsyncIterator[None]:
    """Keep the client saturated while the block runs."""

    async def work() -> None:
        while True:
            await client.embed(passages, input_type="passage")

    tasks = [asyncio.create_task(work()) for _ in range(2)]
    try:
        # Wait until answers are being decoded.
        await asyncio.sleep(10 * SERVICE_TIME)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def timed(call: Awaitable[Any]) -> float:
    """Seconds a call takes."""
    started = time.perf_counter()
    await call
    return time.perf_counter() - started


async def measure_interactive(
    client: EmbedClient[DenseEmbeddings], passages: Sequence[str], rounds: int, calls: int
) -> dict[str, Any]:
    """Latencies of `embed_one` in milliseconds, alternately alone and beside bulk work."""
    taken: dict[str, list[float]] = {"alone": [], "beside": []}

    async def measure(name: str) -> None:
        for text in passages[:calls]:
            taken[name].append(1000 * await timed(client.embed_one(text, input_type="passage")))

    for _ in range(rounds):
        await measure("alone")
        async with bulk_work(client, passages[:BULK]):
            await measure("beside")
    p99 = {name: float(np.quantile(times, 0.99)) for name, times in taken.items()}
    return {
        "calls": rounds * calls,
        "median": {name: statistics.median(times) for name, times in taken.items()},
        "p99": p99,
        "ratio": p99["beside"] / p99["alone"],
        "bound": SLOWEST_INTERACTIVE,
        "holds": p99["beside"] <= SLOWEST_INTERACTIVE * p99["alone"],
    }


async def measure_shares(client: EmbedClient[DenseEmbeddings], passages: Sequence[str]) -> dict[str, Any]:
    """Shares of two jobs in the inputs embedded while both ran; the second began when the first was a tenth done."""
    done = [0, 0]
    at_start: list[int] = []
    at_end: list[int] = []
    is_tenth = asyncio.Event()

    def progress(job: int) -> Callable[[Progress], None]:
        def report(now: Progress) -> None:
            done[job] = now.done
            if done[0] >= len(passages) // 10:
                is_tenth.set()
            if now.done == len(passages) and not at_end:
                at_end[:] = done

        return report

    async with asyncio.TaskGroup() as group:
        group.create_task(client.embed(passages, input_type="passage", progress=progress(0)))
        await is_tenth.wait()
        at_start[:] = done
        group.create_task(client.embed(passages, input_type="passage", progress=progress(1)))
    shares = [end - start for start, end in zip(at_start, at_end, strict=True)]
    first = shares[0] / sum(shares)
    return {"first": first, "second": 1 - first, "bounds": FAIR, "holds": FAIR[0] <= first <= FAIR[1]}


async def measure_crowd(server: Server, load: Load, passages: Sequence[str]) -> dict[str, Any]:
    """Requests made for a thousand concurrent calls of a new client that knows no limit."""
    async with _client(server, load) as client:
        before = server.statistics()["embed_requests"]
        seconds = await timed(asyncio.gather(*(client.embed_one(text, input_type="passage") for text in passages[:CROWD])))
        requests = server.statistics()["embed_requests"] - before
    return {"requests": requests, "seconds": seconds, "bound": MOST_REQUESTS, "holds": requests <= MOST_REQUESTS}


async def measure_lone(client: EmbedClient[DenseEmbeddings], passages: Sequence[str], calls: int) -> dict[str, Any]:
    """Median milliseconds of a lone `embed_one` and of `embed` of one text, alternately."""
    taken: dict[str, list[float]] = {"embed_one": [], "embed": []}
    for text in passages[:calls]:
        taken["embed_one"].append(1000 * await timed(client.embed_one(text, input_type="passage")))
        taken["embed"].append(1000 * await timed(client.embed(text, input_type="passage")))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    ratio = medians["embed_one"] / medians["embed"]
    return {"median": medians, "ratio": ratio, "bound": MOST_DELAY, "holds": ratio <= MOST_DELAY}


def _client(server: Server, load: Load) -> EmbedClient[DenseEmbeddings]:
    return EmbedClient(load.model, vector_type="dense", api_key=API_KEY, base_url=server.url)


async def run(server: Server, load: Load, rounds: int, calls: int) -> dict[str, Any]:
    """Measure everything."""
    passages = texts(max(JOB, WARM_UP), load.seed)
    async with _client(server, load) as client:
        await client.embed(passages[:WARM_UP], input_type="passage")
        return {
            "lone": await measure_lone(client, passages, calls),
            "crowd": await measure_crowd(server, load, passages),
            "shares": await measure_shares(client, passages[:JOB]),
            "interactive": await measure_interactive(client, passages, rounds, calls),
        }


def print_report(figures: dict[str, Any]) -> None:
    """Print the results, one per line."""

    def line(name: str, text: str) -> None:
        print(f"{'holds' if figures[name]['holds'] else 'FAILS'}  {text}")

    lone, crowd, shares, interactive = (figures[name] for name in ("lone", "crowd", "shares", "interactive"))
    line(
        "lone",
        f"a lone embed_one {lone['median']['embed_one']:.1f} ms, embed of one text {lone['median']['embed']:.1f} ms:"
        f" {lone['ratio']:.2f}, at most {lone['bound']}",
    )
    line("crowd", f"{CROWD:,} embed_one at once: {crowd['requests']:.0f} requests, at most {crowd['bound']}")
    line("shares", f"two jobs: {shares['first']:.0%} and {shares['second']:.0%} while both run, 40% to 60%")
    line(
        "interactive",
        f"embed_one p99 {interactive['p99']['alone']:.1f} ms alone, {interactive['p99']['beside']:.1f} ms beside bulk"
        f" work: {interactive['ratio']:.2f}, at most {interactive['bound']} ({interactive['calls']:,} calls each;"
        f" medians {interactive['median']['alone']:.1f} and {interactive['median']['beside']:.1f} ms)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="rounds alone and beside bulk work (default 6)")
    parser.add_argument("--calls", type=int, default=100, help="calls in each (default 100)")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to this file")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or not 1 <= options.calls <= JOB:
        parser.error(f"--rounds must be at least 1, --calls 1 to {JOB:,}")
    if options.json is not None and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    load = Load()
    machine = describe_machine()
    try:
        with running_server(load, service_time=SERVICE_TIME) as server:
            figures = asyncio.run(run(server, load, options.rounds, options.calls))
    except BenchmarkError as error:
        print(f"priorities: {error}", file=sys.stderr)
        return 1
    print_report(figures)
    if options.json is not None:
        report = {
            "benchmark": "priorities",
            "machine": machine | {"load_average_after": os.getloadavg()[0]},
            "settings": {"rounds": options.rounds, "calls": options.calls, "service_time": SERVICE_TIME},
            "figures": figures,
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if all(part["holds"] for part in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
