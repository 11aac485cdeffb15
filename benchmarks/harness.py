"""Shared by the benchmarks: a server and competitors in processes of their own, and a description of the machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import math
import os
import platform
import select
import subprocess
import sys
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from benchmarks.figures import derived
from benchmarks.seeded import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from benchmarks.competitors import Competitor
    from benchmarks.seeded import Load

ROOT = Path(__file__).parent.parent
_START_SECONDS = 120.0
_END_SECONDS = 10.0
_PACKAGES = (
    "pinecone-embed-async",
    "aiohttp",
    "msgspec",
    "numpy",
    "pysimdjson",
    "pinecone",
    "httpx",
    "orjson",
    "baseten-performance-client",
    "uvloop",
)
# glibc's malloc returns nothing to the system.
_KEEPING_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}


class BenchmarkError(Exception):
    """A competitor or the server failed, so that there is nothing to compare."""


def _environment() -> dict[str, str]:
    """Return the environment without what would change how a competitor talks to the local server."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy")
        and not name.startswith("PINECONE_")
        and name not in {"PYTHONASYNCIODEBUG", "PYTHONDEVMODE", "PYTHONWARNINGS"}
    }


def run_module(
    name: str,
    arguments: Sequence[str],
    *,
    limit: float,
    who: str,
    environment: Mapping[str, str] = MappingProxyType({}),
    checkout: str | None = None,
) -> str:
    """Run a module of this package in a process of its own, and return what it printed.

    Args:
        name: Of the module.
        arguments: On its command line.
        limit: Seconds after which it is given up.
        who: What the messages of errors call it.
        environment: Beside the environment of this process.
        checkout: Where the package comes from, if not from this checkout.

    Raises:
        BenchmarkError: It failed or took too long.
    """
    run = [name] if checkout is None else ["with_package", checkout, name]
    try:
        process = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{run[0]}", *run[1:], *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            env={**_environment(), **environment},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{who}: stopped after {error.timeout:.0f} s") from error
    if process.returncode:
        said = process.stderr.strip().splitlines()[-15:]
        raise BenchmarkError("\n  ".join([f"{who}: exit status {process.returncode}", *said]))
    return process.stdout


@contextlib.contextmanager
def running_module(name: str, arguments: Sequence[str], *, who: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a module of this package in a process of its own while the block runs, and end it whatever happens.

    It has to end when its standard input closes.

    Args:
        name: Of the module.
        arguments: On its command line.
        who: What the messages of errors call it.

    Yields:
        The process, with pipes to it, and the first line that it has printed.

    Raises:
        BenchmarkError: It did not get ready.
    """
    with subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=_environment(),
    ) as process:
        if process.stdin is None or process.stdout is None:
            raise BenchmarkError(f"{who} has no pipes")
        try:
            ready, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
            first = process.stdout.readline().strip() if ready else ""
            if not first:
                raise BenchmarkError(f"{who} did not start; what it said is above")
            yield process, first
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(frozen=True)
class Server:
    """A server that is running."""

    url: str

    def statistics(self) -> dict[str, float]:
        """Ask the server what it has served so far.

        Raises:
            BenchmarkError: It does not answer.
        """
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/statistics", timeout=10) as response:
                statistics: dict[str, float] = json.load(response)
        except OSError as error:
            raise BenchmarkError(f"the server does not answer any more: {error}") from error
        return statistics


@contextlib.contextmanager
def running_server(load: Load, *, service_time: float = 0.0) -> Iterator[Server]:
    """Start the server, and end it whatever happens.

    Args:
        load: Which vectors it answers.
        service_time: Seconds that it takes before it answers.

    Raises:
        BenchmarkError: It did not get ready.
    """
    arguments = ["--service-time", str(service_time)]
    for name, value in asdict(load).items():
        arguments += [f"--{name}", str(value)]
    with running_module("server", arguments, who="the server") as (_, port):
        yield Server(f"http://127.0.0.1:{port}")


@dataclass(frozen=True)
class Job:
    """One measurement of one competitor.

    Attributes:
        inputs: How many are embedded while the clock runs.
        warm_up: How many before that.
        concurrency: Requests in flight at the same time, at most.
        limit: Seconds after which the competitor is given up.
        holds_memory: Whether its process has written to as much memory as the results take before the clock runs.
    """

    inputs: int
    warm_up: int
    concurrency: int
    limit: float
    holds_memory: bool = False


def run_competitor(
    competitor: Competitor, server: Server, load: Load, job: Job, *, checkout: str | None = None
) -> dict[str, Any]:
    """Measure a competitor once, in a process of its own, and compare with what the server has seen.

    `checkout` is where the package comes from, if not from this checkout.

    Returns:
        The figures of `measure.measure` and what follows from them; under `server` the difference in its
        statistics; the share of the processor's time that the host of a virtual machine gave to others meanwhile.

    Raises:
        BenchmarkError: It failed, took too long, returned wrong vectors or did not fetch each input once.
    """
    before, stolen_before = server.statistics(), _stolen()
    argument = json.dumps({"competitor": competitor.name, "url": server.url, "load": asdict(load), **asdict(job)})
    environment = _KEEPING_MEMORY if job.holds_memory else {}
    said = run_module(
        "measure", [argument], limit=job.limit + 20, who=competitor.name, environment=environment, checkout=checkout
    )
    # the last line, for a library may print too
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    after, stolen_after = server.statistics(), _stolen()
    served = {name: value - before[name] for name, value in after.items()}
    served["connections"] -= 1  # the one that asked for the statistics
    if served["inputs"] != job.inputs + job.warm_up or served["errors"]:
        raise BenchmarkError(
            f"{competitor.name}: the server was asked for {served['inputs']:,} inputs where the job had"
            f" {job.inputs + job.warm_up:,}, and answered {served['errors']} errors"
        )
    if figures["received_bytes"] not in {None, served["embed_bytes"]}:
        raise BenchmarkError(f"{competitor.name}: received {figures['received_bytes']:,} of {served['embed_bytes']:,} bytes")
    ticks = stolen_after[1] - stolen_before[1]
    return {
        **derived(figures, inputs=job.inputs, requests=math.ceil(job.inputs / MAX_BATCH)),
        "server": served,
        "stolen_share": (stolen_after[0] - stolen_before[0]) / ticks if ticks else 0.0,
    }


def _stolen() -> tuple[int, int]:
    """Return the ticks that a virtual machine's host gave to others, and all ticks; zeros where unknown."""
    with contextlib.suppress(OSError, ValueError):
        ticks = [int(count) for count in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return ticks[7], sum(ticks)
    return 0, 0


def describe_machine() -> dict[str, Any]:
    """Return the processor, the system, and the versions of what is measured."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: _version(name) for name in _PACKAGES},
        "load_average": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
