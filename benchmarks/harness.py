"""Shared by the benchmarks: runs a server and competitors in their own processes, and describes the machine."""

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
# Keeps glibc's malloc from returning memory to the system.
_KEEPING_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1"}


class BenchmarkError(Exception):
    """A competitor or the server failed, so there is nothing to compare."""


def _environment() -> dict[str, str]:
    """Return the environment without variables that would affect how a competitor talks to the local server."""
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
    """Run a module of this package in its own process, and return its output.

    Args:
        name: Name of the module.
        arguments: Its command line.
        limit: Seconds after which it is stopped.
        who: Its name in error messages.
        environment: Variables to add to this process's environment.
        checkout: Checkout to import the package from, if not this one.

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
    """Run a module of this package in its own process while the block runs.

    The module must end when its standard input closes.

    Args:
        name: Name of the module.
        arguments: Its command line.
        who: Its name in error messages.

    Yields:
        The process, with pipes to it, and the first line it printed.

    Raises:
        BenchmarkError: It did not start.
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
                raise BenchmarkError(f"{who} did not start; see its output above")
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
    """A running server."""

    url: str

    def statistics(self) -> dict[str, float]:
        """Ask the server for its counts so far.

        Raises:
            BenchmarkError: It does not answer.
        """
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"{self.url}/statistics", timeout=10) as response:
                statistics: dict[str, float] = json.load(response)
        except OSError as error:
            raise BenchmarkError(f"the server no longer answers: {error}") from error
        return statistics


@contextlib.contextmanager
def running_server(load: Load, *, service_time: float = 0.0) -> Iterator[Server]:
    """Run the server while the block runs.

    Args:
        load: Which vectors it returns.
        service_time: Seconds before it answers.

    Raises:
        BenchmarkError: It did not start.
    """
    arguments = ["--service-time", str(service_time)]
    for name, value in asdict(load).items():
        arguments += [f"--{name}", str(value)]
    with running_module("server", arguments, who="the server") as (_, port):
        yield Server(f"http://127.0.0.1:{port}")


@dataclass(frozen=True)
class Job:
    """A measurement of one competitor.

    Attributes:
        inputs: Number of inputs to embed while the clock runs.
        warm_up: Number of inputs to embed before that.
        concurrency: Most requests in flight.
        limit: Seconds after which the competitor is stopped.
        holds_memory: Whether its process writes to as much memory as the results need before the clock runs.
    """

    inputs: int
    warm_up: int
    concurrency: int
    limit: float
    holds_memory: bool = False


def run_competitor(
    competitor: Competitor, server: Server, load: Load, job: Job, *, checkout: str | None = None
) -> dict[str, Any]:
    """Measure a competitor once in its own process, and check the result against the server's counts.

    `checkout` is the checkout to import the package from, if not this one.

    Returns:
        The figures of `measure.measure` and those derived from them; under `server`, the change in the server's counts; and
        the share of processor time that the host of a virtual machine gave to others meanwhile.

    Raises:
        BenchmarkError: It failed, took too long, returned wrong vectors or did not request each input once.
    """
    before, stolen_before = server.statistics(), _stolen()
    argument = json.dumps({"competitor": competitor.name, "url": server.url, "load": asdict(load), **asdict(job)})
    environment = _KEEPING_MEMORY if job.holds_memory else {}
    said = run_module(
        "measure", [argument], limit=job.limit + 20, who=competitor.name, environment=environment, checkout=checkout
    )
    # the last line, since a library may print too
    figures: dict[str, Any] = json.loads(said.splitlines()[-1])
    after, stolen_after = server.statistics(), _stolen()
    served = {name: value - before[name] for name, value in after.items()}
    served["connections"] -= 1  # the one used to request the statistics
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
    """Return the ticks that a virtual machine's host gave to others, and all ticks; zeros if unknown."""
    with contextlib.suppress(OSError, ValueError):
        ticks = [int(count) for count in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
        return ticks[7], sum(ticks)
    return 0, 0


def describe_machine() -> dict[str, Any]:
    """Return the processor, the system, and the versions of the packages measured."""
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
