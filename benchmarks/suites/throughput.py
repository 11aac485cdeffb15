"""Inputs per second, CPU time, event-loop lag and memory of the competitors, alternating, for each kind of answer."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import BASETEN, FLOOR, HAND_MSGSPEC, HAND_SIMDJSON, MSGSPEC, NATIVE, OFFICIAL
from benchmarks.figures import difference, medians, ratio
from benchmarks.harness import run_competitor, running_server
from benchmarks.settings import LOADS, MAIN_LOAD, job_of
from benchmarks.tables import Table, number, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.competitors import Competitor
    from benchmarks.harness import Job, Server
    from benchmarks.seeded import Load
    from benchmarks.settings import Settings

INPUTS = 19_200
BASES = (OFFICIAL, HAND_MSGSPEC, HAND_SIMDJSON, BASETEN, FLOOR)
"""Competitors that the others are compared with."""


def run_rounds(
    competitors: Sequence[Competitor], server: Server, load: Load, job: Job, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Measure each competitor once per round; each round starts with the next one, so that drift affects all alike."""
    results: dict[str, list[dict[str, Any]]] = {competitor.name: [] for competitor in competitors}
    for number_ in range(rounds):
        turn = number_ % len(competitors)
        for competitor in (*competitors[turn:], *competitors[:turn]):
            figures = run_competitor(competitor, server, load, job)
            results[competitor.name].append(figures)
            speed = f"{figures['inputs_per_second']:,.0f} inputs/s"
            print(f"{load.name}, round {number_ + 1} of {rounds}: {competitor.name} {speed}", file=sys.stderr)
    return results


def summarise(competitors: Sequence[Competitor], rounds: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return each competitor's rounds, their medians, and their comparison with the bases, round by round."""
    summary: dict[str, Any] = {}
    for competitor in competitors:
        own = rounds[competitor.name]
        requests = sum(one["server"]["embed_requests"] for one in own)
        summary[competitor.name] = {
            "title": competitor.title,
            "median": medians(own),
            "compared": {
                base: {
                    "time": ratio(own, rounds[base], "seconds"),
                    "cpu": ratio(own, rounds[base], "cpu_seconds"),
                    "lag_p99_ms": difference(own, rounds[base], "lag_p99_ms"),
                }
                for base in BASES
                if base in rounds
            },
            "requests_per_connection": requests / sum(one["server"]["connections"] for one in own),
            "server_cpu_ms_per_request": 1000 * sum(one["server"]["cpu_seconds"] for one in own) / requests,
            "rounds": own,
        }
    return summary


def measure(settings: Settings) -> dict[str, Any]:
    """Measure each load against its own server."""
    loads: dict[str, Any] = {}
    for name in settings.loads:
        load = LOADS[name]
        competitors = settings.competitors(load)
        # The other loads are for comparison, so fewer rounds are enough.
        rounds = settings.rounds if load == MAIN_LOAD else max(1, settings.rounds // 2)
        job = job_of(settings, load, settings.scaled(INPUTS))
        if competitors:
            with running_server(load) as server:
                measured = run_rounds(competitors, server, load, job, rounds)
            loads[name] = {
                "load": asdict(load),
                "job": asdict(job),
                "rounds": rounds,
                "competitors": summarise(competitors, measured),
            }
    return {"loads": loads, "left_out": settings.left_out()}


SHORT = {OFFICIAL: "the official SDK", BASETEN: "`baseten-performance-client`"}
"""Competitors in the README's sentence."""


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return a table for each load."""
    shown = []
    for name, load in part["loads"].items():
        rows = []
        for entry in load["competitors"].values():
            median, compared = entry["median"], entry["compared"]
            speeds = [one["inputs_per_second"] for one in entry["rounds"]]
            against = 1 / compared[OFFICIAL]["time"] if OFFICIAL in compared else None
            rows.append(
                (
                    entry["title"],
                    f"{median['inputs_per_second']:,.0f} ({spread(speeds)})",
                    number(against, 2),
                    number(median["cpu_us_per_input"], 1),
                    number(median["lag_p99_ms"], 1),
                    number(median["lag_max_ms"], 1),
                    number(median["memory_bytes"] / 1e6, 0),
                    number(entry["requests_per_connection"], 1),
                )
            )
        job = load["job"]
        caption = (
            f"{name}: {job['inputs']:,} inputs, {job['concurrency']} requests in flight, median of {load['rounds']} rounds"
        )
        header = (
            "way",
            "inputs/s (min–max)",
            "× SDK",
            "CPU µs/input",
            "lag p99, ms",
            "lag max, ms",
            "memory, MB",
            "requests/connection",
        )
        shown.append(Table(caption, header, tuple(rows)))
    return shown


def short_line(load: Mapping[str, Any]) -> str:
    """Return one sentence with the client's speed and CPU time relative to the other competitors that were measured."""
    competitors = load["competitors"]
    own = competitors.get(NATIVE) or competitors[MSGSPEC]
    speed, cpu = own["median"]["inputs_per_second"], own["median"]["cpu_us_per_input"]
    others = [
        f"{number(1 / own['compared'][name]['time'], 2)} times the rate of {title}, for "
        f"{100 * cpu / competitors[name]['median']['cpu_us_per_input']:.0f}% of its CPU"
        for name, title in SHORT.items()
        if name in own["compared"] and name in competitors
    ]
    return f"{speed:,.0f} inputs/s on two cores: {'; '.join(others)}."
