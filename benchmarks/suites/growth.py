"""Does the cost grow linearly? Time per input at 10,000 and at 1,000,000 inputs, results kept; and memory at 100,000."""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import HAND_MSGSPEC, HAND_SIMDJSON, MSGSPEC, OFFICIAL, SIMDJSON
from benchmarks.harness import run_competitor, running_server
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
            at_many = seconds(many)
            after = [seconds(few) for _ in range(repeats)]
            at_few = statistics.median(before + after)
            entries[competitor.name] = {
                "title": competitor.title,
                "us_per_input_few": at_few,
                "us_per_input_many": at_many,
                "ratio": at_many / at_few,
                "few": before + after,
            }
    return {"few": few, "many": many, "competitors": entries} if entries else None


def growth_tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of what an input costs."""
    rows = tuple(
        (
            entry["title"],
            number(entry["us_per_input_few"], 1),
            number(entry["us_per_input_many"], 1),
            number(entry["ratio"], 2),
        )
        for entry in part["competitors"].values()
    )
    header = ("way", f"µs/input at {part['few']:,}", f"µs/input at {part['many']:,}", "ratio")
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
