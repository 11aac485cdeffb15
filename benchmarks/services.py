"""Searches of a FastAPI service: beside a bulk job of the same client, and during a pause longer than their deadline.

    python -m benchmarks.services
    python -m benchmarks.services --rounds 3 --json services.json

The service (`benchmarks/service_app.py`, served by uvicorn) and the emulator, which answers after 100 ms, run in their own
processes. Searches start at random times, at a fixed rate, whether earlier ones are answered or not. Rounds with and without
the job alternate, so that drift affects both alike. The exit status is 1 if a bound does not hold, 2 for misuse.
`docs/benchmarks.md` explains the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from benchmarks.figures import percentile
from benchmarks.harness import ROOT, BenchmarkError, describe_machine
from pinecone_embed_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

LATENCY = 0.1
SEARCHES = 1000
RATE = 100.0
"""Searches per second."""

SLOWEST = 1.5
"""Most p99 beside the job, relative to p99 alone."""

DEADLINE, PAUSE = 0.2, 30.0
CROWD = 20
"""Concurrent searches during the pause."""

_START_SECONDS = 30.0
_ADDRESS = re.compile(rb"(http://127\.0\.0\.1:\d+)")


async def emulate() -> None:
    """Run the emulator, and obey the commands on standard input: `pause` or `count`."""
    async with Emulator(latency=LATENCY, record_texts=False) as emulator:
        print(emulator.url, flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if line == "pause":
                emulator.inject(f"rate_limited={PAUSE:.0f}")
            print(emulator.statistics().requests, flush=True)


class Process:
    """A process that prints its address and takes commands."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    @classmethod
    @contextlib.asynccontextmanager
    async def running(cls, *arguments: str, **environment: str) -> AsyncIterator[Process]:
        """Run a module while the block runs.

        Raises:
            BenchmarkError: it ended, or did not start in time.
        """
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *arguments),
            env=os.environ | environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield cls(process, await cls._address(process))
        finally:
            if process.returncode is None:
                process.terminate()
            # Read its last output, or it might block and not end.
            await process.communicate()

    @staticmethod
    async def _address(process: asyncio.subprocess.Process) -> str:
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                while process.stdout is not None and (line := await process.stdout.readline()):
                    said += line
                    found = _ADDRESS.search(line)
                    if found is not None:
                        return found[1].decode()
        raise BenchmarkError(f"a process did not start: {said.decode()}")

    async def tell(self, line: str) -> int:
        """Send a command; return the number it answers."""
        to, said = self._process.stdin, self._process.stdout
        if to is None or said is None:
            raise BenchmarkError("a process was started without pipes")
        to.write(f"{line}\n".encode())
        return int(await said.readline())


async def search(session: aiohttp.ClientSession, number: int) -> tuple[float, int, str | None]:
    """Seconds, status and `Retry-After` of a search."""
    began = time.perf_counter()
    async with session.get("/search", params={"q": f"query {number} of some words"}) as answer:
        await answer.read()
        return time.perf_counter() - began, answer.status, answer.headers.get("Retry-After")


async def searches_at_random(session: aiohttp.ClientSession, count: int, draw: random.Random) -> list[float]:
    """Seconds of each of `count` searches.

    Raises:
        BenchmarkError: a search failed.
    """
    tasks, at = [], time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            at += draw.expovariate(RATE)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            tasks.append(group.create_task(search(session, draw.getrandbits(60))))
    answers = [task.result() for task in tasks]
    if {status for _, status, _ in answers} != {200}:
        raise BenchmarkError(f"searches were answered with { ({status for _, status, _ in answers}) }")
    return [seconds for seconds, _, _ in answers]


async def measure_beside_job(rounds: int, count: int, *, seed: int = 0) -> dict[str, Any]:
    """p99 of searches alone and beside a bulk job, in paired rounds."""
    draw = random.Random(seed)
    pairs: list[tuple[float, float]] = []
    medians: list[tuple[float, float]] = []
    done = 0
    took = 0.0
    async with _service() as (_, session):
        await searches_at_random(session, min(count, 200), draw)
        for _ in range(rounds):
            alone = await searches_at_random(session, count, draw)
            async with session.post("/job") as answer:
                before = (await answer.json())["done"]
            await asyncio.sleep(10 * LATENCY)
            began = time.perf_counter()
            beside = await searches_at_random(session, count, draw)
            took += time.perf_counter() - began + 10 * LATENCY
            async with session.delete("/job") as answer:
                done += (await answer.json())["done"] - before
            pairs.append((percentile(alone, 99), percentile(beside, 99)))
            medians.append((statistics.median(alone), statistics.median(beside)))
    return {
        "rounds": rounds,
        "searches": count,
        "alone_p99": [alone for alone, _ in pairs],
        "beside_p99": [beside for _, beside in pairs],
        "alone_median": statistics.median(alone for alone, _ in medians),
        "beside_median": statistics.median(beside for _, beside in medians),
        "ratio": statistics.median(beside / alone for alone, beside in pairs),
        "passages_per_second": done / took,
    }


async def measure_pause(count: int) -> dict[str, Any]:
    """Searches with a deadline of 0.2 s during a pause of 30 s: how long they take, and how many requests are sent."""
    async with _service(SEARCH_TIMEOUT=str(DEADLINE)) as (emulator, session):
        await asyncio.gather(*(search(session, number) for number in range(CROWD)))
        await emulator.tell("pause")
        while (await search(session, 0))[1] != 503:
            pass
        before, began = await emulator.tell("count"), time.perf_counter()
        numbers = iter(range(count))

        async def one_after_the_other() -> list[tuple[float, int, str | None]]:
            return [await search(session, number) for number in numbers]

        answers = [*itertools.chain(*await asyncio.gather(*(one_after_the_other() for _ in range(CROWD))))]
        took = time.perf_counter() - began
        requests = await emulator.tell("count") - before
    seconds = [each for each, _, _ in answers]
    return {
        "searches": len(answers),
        "unavailable": sum(status == 503 for _, status, _ in answers),
        "with_retry_after": sum(after is not None for _, _, after in answers),
        "least_retry_after": min(int(after or 0) for _, _, after in answers),
        "requests": requests,
        "median": statistics.median(seconds),
        "p99": percentile(seconds, 99),
        "per_second": len(answers) / took,
    }


@contextlib.asynccontextmanager
async def _service(**environment: str) -> AsyncIterator[tuple[Process, aiohttp.ClientSession]]:
    async with Process.running("benchmarks.services", "--emulate") as emulator:
        environment |= {"PINECONE_CONTROLLER_HOST": emulator.url, "PINECONE_API_KEY": "emulator-key"}
        serve = ("uvicorn", "benchmarks.service_app:app", "--port", "0", "--no-access-log")
        async with (
            Process.running(*serve, **environment) as service,
            aiohttp.ClientSession(service.url, connector=aiohttp.TCPConnector(limit=0)) as session,
        ):
            yield emulator, session


def problems(beside: dict[str, Any], pause: dict[str, Any]) -> list[str]:
    """The bounds that do not hold, in words."""
    found = []
    if beside["ratio"] > SLOWEST:
        found.append(f"beside a job, searches take {beside['ratio']:.2f} times as long (p99)")
    if pause["requests"]:
        found.append(f"{pause['requests']} requests were sent in a pause")
    if not pause["searches"] == pause["unavailable"] == pause["with_retry_after"]:
        found.append(f"of {pause['searches']} searches in a pause, {pause['with_retry_after']} were told when to retry")
    if pause["p99"] >= DEADLINE:
        found.append(f"searches in a pause take {pause['p99']:.3f} s, not less than their deadline")
    return found


def report(beside: dict[str, Any], pause: dict[str, Any]) -> str:
    """The figures, in words."""
    alone, with_job = statistics.median(beside["alone_p99"]), statistics.median(beside["beside_p99"])
    return (
        f"searches alone: median {1e3 * beside['alone_median']:.0f} ms, p99 {1e3 * alone:.0f} ms; beside a job: median"
        f" {1e3 * beside['beside_median']:.0f} ms, p99 {1e3 * with_job:.0f} ms, {beside['ratio']:.2f} times as long (median"
        f" of {beside['rounds']} pairs); the job embeds {beside['passages_per_second']:,.0f} passages/s\n"
        f"in a pause of {PAUSE:.0f} s, deadline {DEADLINE} s: {pause['unavailable']} of {pause['searches']} answers are 503,"
        f" {pause['with_retry_after']} with Retry-After (at least {pause['least_retry_after']} s), {pause['requests']} sent;"
        f" median {1e3 * pause['median']:.1f} ms, p99 {1e3 * pause['p99']:.1f} ms, {pause['per_second']:.0f} a second"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--searches", type=int, default=SEARCHES, help="searches in each half of a round")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--emulate", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.emulate:
        asyncio.run(emulate())
        return 0
    if options.rounds < 1 or options.searches < CROWD:
        parser.error(f"--rounds must be at least 1, --searches at least {CROWD}")
    beside = asyncio.run(measure_beside_job(options.rounds, options.searches))
    pause = asyncio.run(measure_pause(options.searches))
    print(report(beside, pause))
    if options.json is not None:
        figures = {"machine": describe_machine(), "beside": beside, "pause": pause}
        options.json.write_text(json.dumps(figures, indent=2))
    found = problems(beside, pause)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
