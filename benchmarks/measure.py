"""Measure one competitor once, in this process, and print the figures as JSON.

Started by ``harness.run_competitor``; the job comes as JSON in the only argument.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from competitors import COMPETITORS, Target
from seeded import PERIOD, Load, dense_vectors, texts

if TYPE_CHECKING:
    from competitors import Competitor, Result

_CHECKED_AT_ONCE = 8 * PERIOD


class WrongResultError(Exception):
    """A competitor returned something else than the server's vectors."""


def peak_memory() -> int:
    """Return the highest resident memory of this process so far, in bytes.

    From ``/proc`` where there is one: on Linux ``ru_maxrss`` starts with the peak of the process that started
    this one.
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
    """Compare every row with the vector that the server has for its input.

    Raises:
        WrongResultError: Naming the first row that differs.
    """
    if isinstance(result, int):  # the floor; whoever started this compares its bytes with the server's
        return
    if result.shape != (inputs, load.dimension) or result.dtype != np.float32:
        raise WrongResultError(f"the result is {result.dtype} {result.shape}, not float32 ({inputs}, {load.dimension})")
    expected = dense_vectors(load)
    for start in range(0, inputs, _CHECKED_AT_ONCE):
        rows = result[start : start + _CHECKED_AT_ONCE]
        equal = (rows == expected[np.arange(start, start + len(rows)) % PERIOD]).all(axis=1)
        if not equal.all():
            raise WrongResultError(f"row {start + int(equal.argmin())} is not the vector of its input")


async def measure(competitor: Competitor, target: Target, inputs: int, warm_up: int, limit: float) -> dict[str, Any]:
    """Run a competitor once over fresh inputs, after a warm-up over others.

    Returns:
        Wall and CPU seconds from the call to the whole result; the peak of memory up to then, and the one
        before the first request, with everything imported and the inputs made; the bytes the floor received.
    """
    passages = texts(inputs + warm_up, target.load.seed)
    measured, warming = passages[:inputs], passages[inputs:]
    del passages
    async with asyncio.timeout(limit), competitor.open(target) as embed:
        gc.collect()
        memory_before = peak_memory()
        warm = await embed(warming)
        received = warm if isinstance(warm, int) else 0
        del warm
        gc.collect()
        cpu_before, started = cpu_seconds(), time.perf_counter()
        result = await embed(measured)
        seconds, cpu = time.perf_counter() - started, cpu_seconds() - cpu_before
        memory = peak_memory()
    check(result, inputs, target.load)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_bytes": memory,
        "peak_bytes_before": memory_before,
        "result_bytes": result.nbytes if not isinstance(result, int) else 0,
        "received_bytes": received + result if isinstance(result, int) else None,
    }


def main() -> int:
    """Read the job, measure, print."""
    job = json.loads(sys.argv[1])
    # ends this process even if its starter is gone and the loop hangs
    signal.alarm(int(job["limit"]) + 30)
    target = Target(job["url"], Load(**job["load"]), job["concurrency"])
    try:
        figures = asyncio.run(measure(COMPETITORS[job["competitor"]], target, job["inputs"], job["warm_up"], job["limit"]))
    except WrongResultError as error:
        print(f"wrong result: {error}", file=sys.stderr)
        return 1
    except TimeoutError:
        print(f"not done after {job['limit']:.0f} s", file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
