"""Inputs per second, CPU and memory of the client and of what people use instead, side by side in one run.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --rounds 5 --json figures.json
    python benchmarks/throughput.py --only msgspec,official

Exit status 1 when a competitor fails or returns wrong vectors, 2 for misuse. ``docs/benchmarks.md`` says what
the figures mean.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from competitors import COMPETITORS, OFFICIAL
from harness import BenchmarkError, Job, Server, describe_machine, run_competitor, running_server
from seeded import MAX_BATCH, PRECISIONS, Load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from competitors import Competitor

DIMENSIONS = (384, 512, 768, 1024, 2048)
MAX_RESULT_BYTES = 8 * 1024**3
SLOWEST = 500
"""Inputs of 1024 dimensions per second below which a competitor is given up."""

NOISE = 0.02
"""Share of stolen time from which a run is called noisy."""

FIGURES = ("inputs_per_second", "cpu_ms_per_request", "memory_bytes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    load = Load(options.dimension, options.precision, options.seed)
    if options.inputs * options.dimension * 4 > MAX_RESULT_BYTES:
        parser.error(f"the result would be larger than {MAX_RESULT_BYTES // 1024**3} GiB")
    if options.json not in {None, "-"} and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    chosen, left_out = _choose(parser, options.only)
    job = Job(
        inputs=options.inputs,
        warm_up=2 * options.concurrency * MAX_BATCH,
        concurrency=options.concurrency,
        limit=60 + options.inputs * max(1, options.dimension / 1024) / SLOWEST,
    )
    # so that the processes started here are ended by the same `finally` as with Ctrl-C
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine = describe_machine()
    try:
        with running_server(load) as server:
            rounds = run_rounds(chosen, server, load, job, options.rounds)
    except BenchmarkError as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("throughput: interrupted", file=sys.stderr)
        return 130
    report = {
        "benchmark": "throughput",
        "machine": machine | {"load_average_after": os.getloadavg()[0]},
        "settings": {"rounds": options.rounds, "batch": MAX_BATCH, "job": asdict(job), "load": asdict(load)},
        "left_out": left_out,
        "competitors": summarise(chosen, rounds, job),
    }
    print_table(report, sys.stderr if options.json == "-" else sys.stdout)
    if options.json == "-":
        print(json.dumps(report, indent=2))
    elif options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    def between(low: int, high: int) -> Any:
        def read(text: str) -> int:
            if not low <= (number := int(text)) <= high:
                raise argparse.ArgumentTypeError(f"must be between {low:,} and {high:,}")
            return number

        return read

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=between(1, 2_000_000), default=19_200, help="per measurement (default 19,200)")
    parser.add_argument("--concurrency", type=between(1, 64), default=8, help="requests in flight at most (default 8)")
    parser.add_argument("--rounds", type=between(1, 50), default=5, help="measurements of each competitor (default 5)")
    parser.add_argument("--dimension", type=int, choices=DIMENSIONS, default=1024, help="numbers per vector (default 1024)")
    parser.add_argument("--precision", choices=PRECISIONS, default="half", help="of the service's numbers (default half)")
    parser.add_argument("--seed", type=int, default=2, help="of inputs and vectors (default 2)")
    parser.add_argument("--only", metavar="NAMES", help=f"some of {', '.join(COMPETITORS)}, separated by commas")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; - for standard output")
    return parser


def _choose(parser: argparse.ArgumentParser, only: str | None) -> tuple[list[Competitor], dict[str, str]]:
    """Return who takes part, and who does not with the reason."""
    names = [name.strip() for name in only.split(",")] if only is not None else list(COMPETITORS)
    if unknown := [name for name in names if name not in COMPETITORS]:
        parser.error(f"--only: unknown {', '.join(map(repr, unknown))}; known: {', '.join(COMPETITORS)}")
    missing = {
        name: f"{COMPETITORS[name].optional_import} is not installed" for name in names if not COMPETITORS[name].available
    }
    if only is not None and missing:
        parser.error(f"--only: {'; '.join(f'{name}: {why}' for name, why in missing.items())}")
    return [COMPETITORS[name] for name in dict.fromkeys(names) if name not in missing], missing


def run_rounds(
    competitors: Sequence[Competitor], server: Server, load: Load, job: Job, rounds: int
) -> dict[str, list[dict[str, Any]]]:
    """Measure everyone once a round, and start each round with the next one, so that drift hits all alike."""
    results: dict[str, list[dict[str, Any]]] = {competitor.name: [] for competitor in competitors}
    for number in range(rounds):
        turn = number % len(competitors)
        for competitor in (*competitors[turn:], *competitors[:turn]):
            figures = run_competitor(competitor, server, load, job)
            requests = math.ceil(job.inputs / MAX_BATCH)
            figures["inputs_per_second"] = job.inputs / figures["seconds"]
            figures["cpu_ms_per_request"] = 1000 * figures["cpu_seconds"] / requests
            figures["memory_bytes"] = figures["peak_bytes"] - figures["peak_bytes_before"]
            results[competitor.name].append(figures)
            speed = f"{figures['inputs_per_second']:,.0f} inputs/s"
            print(f"round {number + 1} of {rounds}: {competitor.name} {speed}", file=sys.stderr)
    return results


def summarise(competitors: Sequence[Competitor], rounds: dict[str, list[dict[str, Any]]], job: Job) -> dict[str, Any]:
    """Return each competitor's rounds, the medians over them, and their ratios to the official SDK's."""
    medians = {
        name: {figure: statistics.median(one[figure] for one in figures) for figure in FIGURES}
        for name, figures in rounds.items()
    }
    official = medians.get(OFFICIAL)
    summary: dict[str, Any] = {}
    for competitor in competitors:
        figures = rounds[competitor.name]
        median = medians[competitor.name]
        requests = sum(one["server"]["embed_requests"] for one in figures)
        summary[competitor.name] = {
            "title": competitor.title,
            "median": median,
            "ratio_to_official": {figure: median[figure] / official[figure] for figure in FIGURES} if official else None,
            "server_cpu_ms_per_request": 1000 * sum(one["server"]["cpu_seconds"] for one in figures) / requests,
            "requests_per_round": requests / len(figures),
            "warm_up_requests_per_round": math.ceil(job.warm_up / MAX_BATCH),
            "rounds": figures,
        }
    return summary


def print_table(report: dict[str, Any], file: TextIO) -> None:
    """Print the medians, one competitor a line."""
    machine, job = report["machine"], report["settings"]["job"]
    print(
        f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['python']}; "
        f"{job['inputs']:,} inputs x {report['settings']['load']['dimension']} dimensions, "
        f"{MAX_BATCH} a request, concurrency {job['concurrency']}, median of {report['settings']['rounds']}",
        file=file,
    )
    width = max(len(entry["title"]) for entry in report["competitors"].values())
    print(
        f"\n{'':{width}}  {'inputs/s':>9} {'(min - max)':>19} {'x':>6}"
        f"  {'CPU ms/request':>14} {'x':>6}  {'memory MB':>9} {'x':>6}",
        file=file,
    )
    for entry in report["competitors"].values():
        median = entry["median"]
        ratios = {
            figure: f"{entry['ratio_to_official'][figure]:.2f}" if entry["ratio_to_official"] else "-" for figure in FIGURES
        }
        speeds = [one["inputs_per_second"] for one in entry["rounds"]]
        spread = f"({min(speeds):,.0f} - {max(speeds):,.0f})"
        print(
            f"{entry['title']:{width}}  {median['inputs_per_second']:>9,.0f} {spread:>19}"
            f" {ratios['inputs_per_second']:>6}"
            f"  {median['cpu_ms_per_request']:>14.2f} {ratios['cpu_ms_per_request']:>6}"
            f"  {median['memory_bytes'] / 1e6:>9.1f} {ratios['memory_bytes']:>6}",
            file=file,
        )
    server = max(entry["server_cpu_ms_per_request"] for entry in report["competitors"].values())
    print(
        f"\nx: ratio to the official SDK. The server used {server:.2f} ms of CPU a request at most,"
        f" enough for {1000 * MAX_BATCH / server:,.0f} inputs/s.",
        file=file,
    )
    stolen = [one["stolen_share"] for entry in report["competitors"].values() for one in entry["rounds"]]
    if max(stolen) > NOISE:
        print(f"Noisy: the machine's host took up to {max(stolen):.0%} of the processor away.", file=file)
    for name, reason in report["left_out"].items():
        print(f"Left out: {name}, {reason}.", file=file)


if __name__ == "__main__":
    sys.exit(main())
