"""Measure one competitor once in this process, and print the figures as JSON.

Started by `harness.run_competitor`; the job is JSON in the only argument.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import COMPETITORS, Kept, Received, Target
from benchmarks.figures import percentile
from benchmarks.lag import ticking
from benchmarks.seeded import PERIOD, Load, SparseRows, dense_vectors, sparse_vectors, texts

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.competitors import Competitor, Result

_CHECKED_AT_ONCE = 8 * PERIOD


class WrongResultError(Exception):
    """A competitor did not return the server's vectors."""


def peak_memory() -> int:
    """Return the peak resident memory of this process, in bytes.

    It is read from `/proc` if that exists, because on Linux `ru_maxrss` starts at the peak of the parent process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def cpu_seconds() -> float:
    """Return the user and system time of all threads of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def check(result: Result, inputs: int, load: Load) -> None:
    """Compare every row with the server's vector for its input.

    Raises:
        WrongResultError: A row differs; the message names the first.
    """
    if isinstance(result, Received):  # the parent process compares its bytes with the server's
        return
    if isinstance(result, SparseRows):
        _check_sparse(result, inputs, load)
        return
    matrix = result.matrix() if isinstance(result, Kept) else result
    if matrix.shape != (inputs, load.dimension) or matrix.dtype != np.float32:
        raise WrongResultError(f"the result is {matrix.dtype} {matrix.shape}, not float32 ({inputs}, {load.dimension})")
    expected = dense_vectors(load)
    for start in range(0, inputs, _CHECKED_AT_ONCE):
        rows = matrix[start : start + _CHECKED_AT_ONCE]
        equal = (rows == expected[np.arange(start, start + len(rows)) % PERIOD]).all(axis=1)
        if not equal.all():
            raise WrongResultError(f"row {start + int(equal.argmin())} is not the vector of its input")


def _check_sparse(result: SparseRows, inputs: int, load: Load) -> None:
    expected = sparse_vectors(load)
    rows = np.arange(inputs) % PERIOD
    if not np.array_equal(result.lengths, expected.lengths[rows]):
        raise WrongResultError("the rows' lengths differ from those of the inputs' vectors")
    starts = np.cumsum(expected.lengths) - expected.lengths
    places = np.concatenate([np.arange(starts[row], starts[row] + expected.lengths[row]) for row in rows.tolist()])
    for name, got, right in (
        ("indices", result.indices, expected.indices),
        ("values", result.values, expected.values),
    ):
        if got.dtype != right.dtype or not np.array_equal(got, right[places]):
            raise WrongResultError(f"the {name} are not those of the inputs' vectors")


def size_of(result: Result) -> int:
    """Return the bytes of a result's arrays; 0 if it has none."""
    if isinstance(result, SparseRows):
        return result.lengths.nbytes + result.indices.nbytes + result.values.nbytes
    return result.nbytes if isinstance(result, np.ndarray) else 0


def touch(rows: int, dimension: int) -> float:
    """Write to as much memory as dense results need, and free it; return the microseconds per row."""
    matrix = np.empty((rows, dimension), np.float32)
    started = time.perf_counter()
    matrix[:] = 1
    return 1e6 * (time.perf_counter() - started) / rows


async def measure(
    competitor: Competitor, target: Target, inputs: int, warm_up: int, limit: float, *, holds_memory: bool = False
) -> dict[str, Any]:
    """Run a competitor once on new inputs, after a warm-up on others.

    Args:
        competitor: The competitor.
        target: The server.
        inputs: Number of inputs to embed while the clock runs.
        warm_up: Number of inputs to embed before that.
        limit: Time limit of the whole in seconds.
        holds_memory: Whether to write to as much memory as the results need beforehand.

    Returns:
        Wall and CPU seconds from the call to the whole result; how late the event loop was meanwhile; the peak memory up
        to then, and before the first request, with everything imported and the inputs made; the bytes the floor received;
        the microseconds that first touching a row's memory took, if it was measured.
    """
    first_touch = touch(inputs, target.load.dimension) if holds_memory else None
    passages = texts(inputs + warm_up, target.load.seed)
    measured, warming = passages[:inputs], passages[inputs:]
    del passages
    async with asyncio.timeout(limit), competitor.open(target) as embed:
        gc.collect()
        memory_before = peak_memory()
        warm = await embed(warming)
        received = warm.bytes if isinstance(warm, Received) else 0
        del warm
        gc.collect()
        async with ticking() as late:
            cpu_before, started = cpu_seconds(), time.perf_counter()
            result = await embed(measured)
            seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu_before
        memory = peak_memory()
    check(result, inputs, target.load)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "lag_p99_ms": 1000 * percentile(late, 99),
        "lag_max_ms": 1000 * max(late, default=0.0),
        "ticks": len(late),
        "peak_bytes": memory,
        "peak_bytes_before": memory_before,
        "result_bytes": size_of(result),
        "first_touch_us": first_touch,
        "received_bytes": received + result.bytes if isinstance(result, Received) else None,
    }


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the factory of a competitor's event loop."""
    return asyncio.new_event_loop if name == "asyncio" else importlib.import_module(name).new_event_loop


def main() -> int:
    """Read the job, measure, print."""
    job = json.loads(sys.argv[1])
    # Ends this process even if its parent is gone and the loop hangs
    signal.alarm(int(job["limit"]) + 30)
    target = Target(job["url"], Load(**job["load"]), job["concurrency"])
    competitor = COMPETITORS[job["competitor"]]
    try:
        with asyncio.Runner(loop_factory=loop_factory(competitor.loop)) as runner:
            measured = measure(
                competitor, target, job["inputs"], job["warm_up"], job["limit"], holds_memory=job["holds_memory"]
            )
            figures = runner.run(measured)
    except WrongResultError as error:
        print(f"wrong result: {error}", file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"not finished after {job['limit']:.0f} s", file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
