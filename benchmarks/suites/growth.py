"""Does the cost grow linearly? Time per input at 10,000 and 1,000,000 inputs, results kept; and memory at 100,000 inputs."""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import HAND_MSGSPEC, HAND_SIMDJSON, MSGSPEC, NATIVE, OFFICIAL
from benchmarks.harness import run_competitor, running_server
from benchmarks.settings import MAIN_LOAD, job_of
from benchmarks.suites.throughput import run_rounds
from benchmarks.tables import Table, number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.settings import Settings

FEW, MANY = 10_000, 1_000_000
FEW_REPEATS = 3
"""Repeats before the large count, and again after it."""
KEPT = 100_000
MEASURED = (MSGSPEC, NATIVE)
COMPARED = (MSGSPEC, NATIVE, HAND_MSGSPEC, HAND_SIMDJSON, OFFICIAL)


def measure_growth(settings: Settings) -> dict[str, Any] | None:
    """Measure the small count before and after the large one, so that a change of the machine shows.

    Each count is measured both in processes that hold the results' memory before the clock runs, and in processes that get
    it while it runs. A virtual machine's host provides memory when it is first written to, and takes it back shortly after
    it is freed. On the machine of docs/benchmarks.md that took up to 9 µs per row of 1024 numbers. This is not the client's
    doing, and it affects the small count less, which fits into memory that the host has not taken back.
    """
    competitors = settings.competitors(MAIN_LOAD, MEASURED)
    counts = {"few": settings.scaled(FEW), "many": settings.scaled(MANY)}
    entries: dict[str, Any] = {}
    with running_server(MAIN_LOAD) as server:
        for competitor in competitors:
            times: dict[str, dict[str, list[float]]] = {way: {count: [] for count in counts} for way in ("held", "fresh")}
            first_touch: float | None = None
            for count in ("few",) * FEW_REPEATS + ("many",) + ("few",) * FEW_REPEATS:
                inputs = counts[count]
                for way, of_way in times.items():
                    job = replace(job_of(settings, MAIN_LOAD, inputs), holds_memory=way == "held")
                    figures = run_competitor(competitor, server, MAIN_LOAD, job)
                    of_way[count].append(1e6 * figures["seconds"] / inputs)
                    if way == "held" and count == "many":
                        first_touch = figures["first_touch_us"]
            entries[competitor.name] = {
                "title": competitor.title,
                "first_touch_us": first_touch,
                **{way: _grown(**of_way) for way, of_way in times.items()},
            }
    return {**counts, "competitors": entries} if entries else None


def _grown(few: Sequence[float], many: Sequence[float]) -> dict[str, Any]:
    at_few, at_many = statistics.median(few), statistics.median(many)
    return {"us_per_input_few": at_few, "us_per_input_many": at_many, "ratio": at_many / at_few, "few": few}


def growth_tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of time per input."""
    rows = tuple(
        (
            f"{entry['title']}, {memory}",
            number(entry[way]["us_per_input_few"], 1),
            number(entry[way]["us_per_input_many"], 1),
            number(entry[way]["ratio"], 2),
            number(entry["first_touch_us"] if way == "held" else None, 1),
        )
        for entry in part["competitors"].values()
        for way, memory in (("held", "memory held before"), ("fresh", "memory got meanwhile"))
    )
    header = (
        "way",
        f"µs/input at {part['few']:,}",
        f"µs/input at {part['many']:,}",
        "ratio",
        "first touch of a row's memory, µs",
    )
    return [Table("Time per input, results kept", header, rows)]


def measure_memory(settings: Settings) -> dict[str, Any] | None:
    """Measure the peak memory beyond the results."""
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
    """Return the table of memory beyond the results."""
    rows = tuple(
        (entry["title"], number(entry["result_bytes"] / 1e6, 0), number(entry["over_result_bytes"] / 1e6, 1))
        for entry in part["competitors"].values()
    )
    caption = f"Peak memory at {part['job']['inputs']:,} inputs, over imports and inputs"
    return [Table(caption, ("way", "results, MB", "beside them, MB"), rows)]
