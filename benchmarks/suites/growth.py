"""Does the cost grow linearly? Time per input at 10,000 and at 1,000,000 inputs, results kept; and memory at 100,000."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.competitors import HAND_MSGSPEC, HAND_SIMDJSON, MSGSPEC, OFFICIAL, SIMDJSON
from benchmarks.harness import run_competitor, run_module, running_server
from benchmarks.seeded import MAX_BATCH
from benchmarks.settings import MAIN_LOAD, job_of
from benchmarks.suites.throughput import run_rounds
from benchmarks.tables import Table, number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.settings import Settings

FEW, MANY = 10_000, 1_000_000
KEPT = 100_000
MEASURED = (MSGSPEC, SIMDJSON)
COMPARED = (MSGSPEC, SIMDJSON, HAND_MSGSPEC, HAND_SIMDJSON, OFFICIAL)


def measure_growth(settings: Settings) -> dict[str, Any] | None:
    """Measure few inputs before and after many, so that a machine that changes shows."""
    competitors = settings.competitors(MAIN_LOAD, MEASURED)
    few, many = settings.scaled(FEW), settings.scaled(MANY)
    repeats = max(1, settings.rounds // 2)
    entries: dict[str, Any] = {}
    with running_server(MAIN_LOAD) as server:
        for competitor in competitors:

            def seconds(inputs: int, competitor: Any = competitor) -> float:
                figures = run_competitor(competitor, server, MAIN_LOAD, job_of(settings, MAIN_LOAD, inputs))
                return 1e6 * float(figures["seconds"]) / inputs

            before = [seconds(few) for _ in range(repeats)]
            first_touch = _first_touch(many)
            at_many = seconds(many)
            after = [seconds(few) for _ in range(repeats)]
            at_few = statistics.median(before + after)
            entries[competitor.name] = {
                "title": competitor.title,
                "us_per_input_few": at_few,
                "us_per_input_many": at_many,
                "ratio": at_many / at_few,
                "few": before + after,
                "first_touch_us": first_touch,
            }
    return {"few": few, "many": many, "competitors": entries} if entries else None


def _first_touch(rows: int) -> float:
    """Write to as much memory as the results take, in another process; gives the microseconds that a row took.

    A virtual machine's host hands out memory when it is written to for the first time. That took 9 µs a row of 1024
    numbers on the machine of docs/benchmarks.md, and half a microsecond from the second time on; what it handed out, it
    leaves for a while. The small count fits into memory that was there before.
    """
    said = run_module("suites.growth", [str(rows), str(MAIN_LOAD.dimension)], limit=300, who="the first touch")
    return float(said)


def touch(rows: int, dimension: int) -> float:
    """Fill a matrix, and give the microseconds that a row took."""
    matrix = np.empty((rows, dimension), np.float32)
    started = time.perf_counter()
    for start in range(0, rows, MAX_BATCH):
        matrix[start : start + MAX_BATCH] = 1
    return 1e6 * (time.perf_counter() - started) / rows


def growth_tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of what an input costs."""
    rows = tuple(
        (
            entry["title"],
            number(entry["us_per_input_few"], 1),
            number(entry["us_per_input_many"], 1),
            number(entry["ratio"], 2),
            number(entry["first_touch_us"], 1),
        )
        for entry in part["competitors"].values()
    )
    header = ("way", f"µs/input at {part['few']:,}", f"µs/input at {part['many']:,}", "ratio", "first touch before that, µs")
    return [Table("Time per input, results kept", header, rows)]


def measure_memory(settings: Settings) -> dict[str, Any] | None:
    """Measure the peak of memory beside the results."""
    competitors = settings.competitors(MAIN_LOAD, COMPARED)
    if not competitors:
        return None
    job = job_of(settings, MAIN_LOAD, settings.scaled(KEPT))
    with running_server(MAIN_LOAD) as server:
        measured = run_rounds(competitors, server, MAIN_LOAD, job, 1)
    return {
        "job": asdict(job),
        "competitors": {
            competitor.name: {
                "title": competitor.title,
                "result_bytes": measured[competitor.name][0]["result_bytes"],
                "over_result_bytes": measured[competitor.name][0]["memory_over_result_bytes"],
            }
            for competitor in competitors
        },
    }


def memory_tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of what is needed beside the results."""
    rows = tuple(
        (entry["title"], number(entry["result_bytes"] / 1e6, 0), number(entry["over_result_bytes"] / 1e6, 1))
        for entry in part["competitors"].values()
    )
    caption = f"Peak memory at {part['job']['inputs']:,} inputs, over imports and inputs"
    return [Table(caption, ("way", "results, MB", "beside them, MB"), rows)]


if __name__ == "__main__":
    print(touch(*map(int, sys.argv[1:])))
