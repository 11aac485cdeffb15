"""One quota for several processes on a machine, some of which are killed: how much of it is used, how fairly, and how fast.

    python -m benchmarks.sqlite_quota
    python -m benchmarks.sqlite_quota --windows 8 --window 1.5 --kind sliding --json figures.json

The service is simulated in this process: it counts tokens as the emulator does, answers after a delay, and logs what arrived
when. Eight processes share a `SqliteQuota`, each with more work than it gets permits for, and three of them are killed
(SIGKILL) at random times, with requests waiting and in flight. A second part measures acquisitions under a quota that is
never reached. The exit status is 1 if a bound does not hold, 2 for misuse. `docs/benchmarks.md` explains the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.harness import ROOT, BenchmarkError, describe_machine
from benchmarks.simulated.service import MODEL
from pinecone_embed_async import Quota, QuotaDemand, QuotaGrant, QuotaOutcome, SqliteQuota
from pinecone_embed_async.emulator import ServiceQuota
from pinecone_embed_async.emulator._quota import QuotaLedger

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS = 25_000
"""Tokens per window: the documented rate of 250,000 a minute, in six seconds."""

REQUEST_TOKENS = (200, 1200)
INPUT_TOKENS = 100
"""A request is cut to whole inputs of this many tokens, as the client does."""

IN_FLIGHT = 8
"""Requests in flight per process, as by default in the client."""

LATENCY = (0.03, 0.09)
"""Seconds an answer takes."""

WORKERS, KILLED = 8, 3

LEAST_USED, MOST_REJECTED, LEAST_FAIR = 0.95, 0.005, 0.9
LEAST_ACQUISITIONS, MOST_WAIT = 200.0, 0.05
"""Least acquisitions per second of all processes together, and most seconds for 99% of them to get their permit."""

PLENTY = 2_000_000_000
_END_SECONDS = 30.0


@dataclass
class Arrivals:
    """A service that decides about requests and logs them.

    Attributes:
        quota: its limits.
        log: time, process, tokens, and whether the request was accepted.
    """

    quota: ServiceQuota
    seed: int = 0
    log: list[tuple[float, int, int, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Start with nothing counted."""
        self._came = asyncio.Condition()
        self._ledger = QuotaLedger()
        self._random = random.Random(self.seed)
        self._tasks: set[asyncio.Task[None]] = set()

    async def await_processes(self, count: int) -> None:
        """Wait until requests of `count` processes have arrived."""
        async with self._came:
            await self._came.wait_for(lambda: len({process for _, process, _, _ in self.log}) >= count)

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one process: each line is a request, with the process's number and the request's number and tokens."""
        with contextlib.suppress(ConnectionError):
            async for line in reader:
                task = asyncio.create_task(self._answer(json.loads(line), writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        writer.close()

    async def _answer(self, request: dict[str, int], writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self._random.uniform(*LATENCY) / 2)
        now, tokens = time.monotonic(), request["tokens"]
        refusal = self._ledger.decide(self.quota, now, MODEL, "passage", tokens)
        self.log.append((now, request["process"], tokens, refusal is None))
        async with self._came:
            self._came.notify_all()
        await asyncio.sleep(self._random.uniform(*LATENCY) / 2)
        answer = {"number": request["number"], "refusal": "" if refusal is None else refusal.message}
        if not writer.transport.is_closing():
            writer.write(json.dumps(answer).encode() + b"\n")


# Runs in a process that shares the quota.


class Worker:
    """A process with more work than it gets permits for.

    Args:
        process: its number.
        quota: the shared quota.
    """

    def __init__(self, process: int, quota: SqliteQuota, writer: asyncio.StreamWriter) -> None:
        self._process = process
        self._quota = quota
        self._writer = writer
        self._random = random.Random(process)
        self._answers: dict[int, asyncio.Future[str]] = {}
        self._in_flight = asyncio.Semaphore(IN_FLIGHT)

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Deliver the answers to the requests that wait for them."""
        async for line in reader:
            answer = json.loads(line)
            self._answers.pop(answer["number"]).set_result(answer["refusal"])

    async def work(self, seconds: float) -> None:
        """Send one request after another, several in flight, and wait for a permit before each."""
        until = time.monotonic() + seconds
        async with asyncio.TaskGroup() as group:
            for number in range(sys.maxsize):
                await self._in_flight.acquire()
                inputs = self._random.randint(*REQUEST_TOKENS) // INPUT_TOKENS
                demand = QuotaDemand(MODEL, "passage", inputs * INPUT_TOKENS, INPUT_TOKENS, flow=self._process)
                try:
                    async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - time.monotonic()):
                        grant = await self._quota.acquire(demand)
                except TimeoutError:
                    return
                group.create_task(self._send(number, grant))

    async def _send(self, number: int, grant: QuotaGrant) -> None:
        tokens = max(INPUT_TOKENS, grant.tokens // INPUT_TOKENS * INPUT_TOKENS)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self._writer.write(json.dumps({"process": self._process, "number": number, "tokens": tokens}).encode() + b"\n")
        refusal = await answer
        outcome = QuotaOutcome("rejected", tokens, refusal) if refusal else QuotaOutcome("accepted", tokens)
        self._quota.settle(grant, outcome)
        self._in_flight.release()


async def run_worker(process: int, path: str, window: float, seconds: float, port: int) -> None:
    """Work for a number of seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with SqliteQuota(path, Quota(TOKENS, window=window)) as quota:
        worker = Worker(process, quota, writer)
        reading = asyncio.create_task(worker.read(reader))
        await worker.work(seconds)
        reading.cancel()
    writer.close()


async def run_acquirer(path: str, seconds: float, rate: float) -> dict[str, Any]:
    """Acquire and settle at a rate, one after the other; return how long each acquisition took."""
    waits = []
    async with SqliteQuota(path, Quota(PLENTY, requests_per_second=None, requests_per_minute=None)) as quota:
        started = time.monotonic()
        due = started + random.random() / rate
        while due < started + seconds:
            await asyncio.sleep(due - time.monotonic())
            begun = time.monotonic()
            grant = await quota.acquire(QuotaDemand(MODEL, "passage", 1000, 100, flow="a call"))
            waits.append(time.monotonic() - begun)
            await asyncio.sleep(0.02)
            quota.settle(grant, QuotaOutcome("accepted", 1000))
            # At random times, out of step with the others; the rate is the same even if one was late.
            due += random.expovariate(rate)
    return {"seconds": time.monotonic() - started, "waits": waits}


# Runs in the process that compares them.


async def started(arguments: Sequence[str]) -> asyncio.subprocess.Process:
    """Start a process of this module."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.sqlite_quota", *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )


async def finished(process: asyncio.subprocess.Process, seconds: float) -> str:
    """Return a process's output once it has ended successfully.

    Raises:
        BenchmarkError: it failed or took too long.
    """
    try:
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise BenchmarkError("a process did not end") from None
    if process.returncode:
        raise BenchmarkError(f"a process ended with {process.returncode}; see its output above")
    return out.decode()


async def measure_sharing(
    window: float, windows: int, kind: str, *, workers: int = WORKERS, killed: int = KILLED, seed: int = 0
) -> dict[str, Any]:
    """Let processes share a quota, and kill some of them; return the figures as the service sees them."""
    draw = random.Random(seed)
    service = Arrivals(ServiceQuota(tokens_per_window=TOKENS, window=window, kind=kind), seed)  # type: ignore[arg-type]
    seconds = window * windows
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "quota.db")
        async with await asyncio.start_server(service.connected, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            # Processes start at slightly different times; the measurement starts when all are there.
            given = ["--path", path, "--window", str(window), "--seconds", str(seconds), "--port", str(port)]
            processes = [await started(["--work", str(number), *given]) for number in range(workers)]
            await service.await_processes(workers)
            ready = time.monotonic()
            # Near the middles of equal parts of the time.
            part = (seconds - 2 * window) / (killed + 1)
            deaths = [ready + part * (number + 1 + draw.uniform(-0.2, 0.2)) for number in range(killed)]
            victims = draw.sample(range(workers), killed)
            for victim, at in zip(victims, deaths, strict=True):
                await asyncio.sleep(at - time.monotonic())
                processes[victim].kill()
            said = await asyncio.gather(
                *(
                    finished(process, seconds + _END_SECONDS)
                    for number, process in enumerate(processes)
                    if number not in victims
                )
            )
            for victim in victims:
                await processes[victim].wait()
    del said
    return figures(service, window, windows, ready, dict(zip(victims, deaths, strict=True)), workers)


def figures(
    service: Arrivals, window: float, windows: int, ready: float, deaths: dict[int, float], workers: int
) -> dict[str, Any]:
    """The figures of a run."""
    log = service.log
    began = log[0][0]
    # The service's windows from its first request on, without the last, which is incomplete.
    starts = [began + number * window for number in range(windows - 1)]
    used = [used_between(log, service.quota.kind, window, start, start + window) for start in starts]
    edges = [ready, *sorted(deaths.values()), ready + windows * window]
    shares = []
    for start, end in itertools.pairwise(edges):
        alive = [number for number in range(workers) if deaths.get(number, edges[-1]) >= end]
        got = [sum(tokens for at, process, tokens, _ in log if process == number and start <= at < end) for number in alive]
        shares.append(jain(got))
    return {
        "windows": windows,
        "window": window,
        "requests": len(log),
        "used": sum(used) / len(used),
        "least_used": min(used),
        "most_arrived": most_within(log, window) / TOKENS,
        "rejected": sum(not is_accepted for *_, is_accepted in log) / len(log),
        "jain": min(shares),
        "deaths": len(deaths),
    }


def used_between(log: Sequence[tuple[float, int, int, bool]], kind: str, window: float, start: float, end: float) -> float:
    """The share of the quota used between two times, at least a window apart, as the service counts it.

    For fixed windows, it is what was accepted in them; for a sliding window, how full it was on average. A sliding window is
    empty at first, so its figure starts one window later.
    """
    accepted = [(at, tokens) for at, _, tokens, is_accepted in log if is_accepted]
    if kind == "fixed":
        return sum(tokens for at, tokens in accepted if start <= at < end) / TOKENS * window / (end - start)
    start, end = start + window, end + window
    filled = sum(tokens * max(0.0, min(at + window, end) - max(at, start)) for at, tokens in accepted)
    return filled / (end - start) / TOKENS


def most_within(log: Sequence[tuple[float, int, int, bool]], window: float) -> int:
    """The most tokens that arrived within any window, accepted or not."""
    most = held = first = 0
    for at, _, tokens, _ in log:
        held += tokens
        while log[first][0] <= at - window:
            held -= log[first][2]
            first += 1
        most = max(most, held)
    return most


def jain(amounts: Sequence[float]) -> float:
    """How even amounts are: 1 if they are equal, one divided by their number if one has everything.

    Source: R. Jain, D. Chiu and W. Hawe, "A quantitative measure of fairness and discrimination", 1984.
    """
    return sum(amounts) ** 2 / (len(amounts) * sum(amount**2 for amount in amounts)) if any(amounts) else 0.0


async def measure_acquiring(seconds: float, rate: float, workers: int = WORKERS) -> dict[str, Any]:
    """Let processes together acquire at a rate; return the achieved rate and the waits."""
    with tempfile.TemporaryDirectory() as folder:
        given = ["--path", str(Path(folder) / "quota.db"), "--seconds", str(seconds), "--acquire", str(rate / workers)]
        processes = [await started(given) for _ in range(workers)]
        said = await asyncio.gather(*(finished(process, seconds + _END_SECONDS) for process in processes))
    runs = [json.loads(one) for one in said]
    waits = sorted(wait for run in runs for wait in run["waits"])
    return {
        "acquisitions": len(waits) / max(run["seconds"] for run in runs),
        "median": waits[len(waits) // 2],
        "p99": waits[int(len(waits) * 0.99)],
        "longest": waits[-1],
    }


def problems(sharing: dict[str, Any], acquiring: dict[str, Any] | None) -> list[str]:
    """The violated bounds, in words."""
    found = []
    if sharing["used"] < LEAST_USED:
        found.append(f"{sharing['used']:.1%} of the quota used, of at least {LEAST_USED:.0%}")
    if sharing["most_arrived"] > 1:
        found.append(f"{sharing['most_arrived']:.1%} of the quota arrived within a window")
    if sharing["rejected"] > MOST_REJECTED:
        found.append(f"{sharing['rejected']:.2%} rejected, of at most {MOST_REJECTED:.1%}")
    if sharing["jain"] < LEAST_FAIR:
        found.append(f"Jain's index {sharing['jain']:.3f}, of at least {LEAST_FAIR}")
    if acquiring is not None and acquiring["acquisitions"] < LEAST_ACQUISITIONS:
        found.append(f"{acquiring['acquisitions']:.0f} acquisitions a second, of at least {LEAST_ACQUISITIONS:.0f}")
    if acquiring is not None and acquiring["p99"] > MOST_WAIT:
        found.append(f"p99 of acquisitions {acquiring['p99'] * 1000:.0f} ms, of at most {MOST_WAIT * 1000:.0f} ms")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--window", type=float, default=6.0, help="seconds of the service's window (default 6)")
    parser.add_argument("--windows", type=int, default=20, help="number of windows (default 20)")
    parser.add_argument("--kind", choices=("fixed", "sliding"), default="fixed", help="kind of window (default fixed)")
    parser.add_argument("--rate", type=float, default=240.0, help="acquisitions per second in the second part (default 240)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills (default 0)")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to this file")
    for name, kind in (("--work", int), ("--acquire", float), ("--path", str), ("--seconds", float), ("--port", int)):
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.work is not None:
        asyncio.run(run_worker(options.work, options.path, options.window, options.seconds, options.port))
        return 0
    if options.acquire is not None:
        print(json.dumps(asyncio.run(run_acquirer(options.path, options.seconds, options.acquire))))
        return 0
    if options.windows < 4 or not 0.5 <= options.window <= 60:
        parser.error("--windows must be at least 4, --window 0.5 to 60")
    machine = describe_machine()
    try:
        sharing = asyncio.run(measure_sharing(options.window, options.windows, options.kind, seed=options.seed))
        acquiring = asyncio.run(measure_acquiring(20.0, options.rate))
    except BenchmarkError as error:
        print(f"sqlite_quota: {error}", file=sys.stderr)
        return 1
    killed = sharing["deaths"]
    print(
        f"{WORKERS} processes, {killed} killed, {options.windows} {options.kind} windows of {options.window:g} s:\n"
        f"{sharing['used']:.1%} of the quota used, {sharing['least_used']:.1%} in the worst window; "
        f"{sharing['most_arrived']:.1%} at most within any window;\n"
        f"{sharing['rejected']:.2%} of {sharing['requests']} requests rejected; Jain's index {sharing['jain']:.4f}"
    )
    print(
        f"{acquiring['acquisitions']:.0f} acquisitions a second over all: median {acquiring['median'] * 1000:.1f} ms, "
        f"p99 {acquiring['p99'] * 1000:.1f} ms, longest {acquiring['longest'] * 1000:.1f} ms"
    )
    failed = problems(sharing, acquiring)
    for problem in failed:
        print(f"FAILS: {problem}")
    if options.json is not None:
        report = {
            "benchmark": "sqlite_quota",
            "machine": machine | {"load_average_after": os.getloadavg()[0]},
            "settings": {"window": options.window, "windows": options.windows, "kind": options.kind, "seed": options.seed},
            "sharing": sharing,
            "acquiring": acquiring,
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
