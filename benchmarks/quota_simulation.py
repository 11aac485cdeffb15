"""How much of a quota a job uses and how much it wastes, simulated with the real client under a virtual clock.

    python -m benchmarks.quota_simulation
    python -m benchmarks.quota_simulation --seeds 5 --only halved --json figures.json
    python -m benchmarks.quota_simulation --plot docs/images/quota-simulation.svg
    python -m benchmarks.quota_simulation --sweep

The exit status is 1 if a bound does not hold for some seed, 2 for misuse. `docs/benchmarks.md` explains the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from benchmarks.simulated.cases import WINDOWS, Summary, must_hold, observed, simulate
from benchmarks.simulated.sweep import figures, simulate_variant, sweep_cases, variants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from benchmarks.simulated.cases import Case

SEEDS, SWEEP_SEEDS = 20, 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, simulate, print."""
    parser = _parser()
    options = parser.parse_args(arguments)
    seeds = options.seeds if options.seeds is not None else SWEEP_SEEDS if options.sweep else SEEDS
    if seeds < 1 or options.workers < 1:
        parser.error("--seeds and --workers must be at least 1")
    if options.only is not None and (options.sweep or options.plot):
        parser.error("--only selects rows of the table, which --sweep and --plot do not print")
    for file in (options.json, options.plot):
        if file not in {None, "-"} and not Path(file).absolute().parent.is_dir():
            parser.error(f"there is no folder for {file}")
    if options.plot is not None:
        if options.json is not None:
            parser.error("--plot cannot be combined with --json")
        return _plot(parser, Path(options.plot))
    cases = [case for case in (*must_hold(), *observed()) if options.only is None or options.only in case.title]
    if not cases:
        parser.error(f"--only: no case has {options.only!r} in its name")
    out = sys.stderr if options.json == "-" else sys.stdout
    with ProcessPoolExecutor(options.workers) as pool:
        report = sweep(pool, seeds, out) if options.sweep else table(pool, cases, seeds, out)
    if options.json == "-":
        print(json.dumps(report, indent=2))
    elif options.json is not None:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0 if report["holds"] else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument("--sweep", action="store_true", help="compare the limiter's constants with their neighbours")
    modes.add_argument("--plot", metavar="FILE", help="draw the tokens used against the quota over time, as SVG")
    parser.add_argument("--seeds", type=int, help=f"seeds of each case (default {SEEDS}, with --sweep {SWEEP_SEEDS})")
    parser.add_argument("--only", metavar="TEXT", help="only cases with this in their name")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file; - for standard output")
    return parser


def _plot(parser: argparse.ArgumentParser, file: Path) -> int:
    try:
        from benchmarks.simulated.picture import draw  # noqa: PLC0415 - needs matplotlib, which nothing else does
    except ImportError as error:
        parser.error(f"--plot needs matplotlib, which the extra `bench` installs ({error})")
    draw(file)
    return 0


def table(pool: Executor, cases: Sequence[Case], seeds: int, out: TextIO) -> dict[str, Any]:
    """Simulate every case with every seed, print a line for each, and return the report."""
    started = time.perf_counter()
    width = max(len(case.title) for case in cases)
    print(
        f"{'':{width}}  {'used, min':>9} {'median':>7} {'bound':>6}  {'rejected, max':>13} {'median':>7} {'bound':>6}"
        f"  {'lost':>4}  {'fairness, min':>13} {'bound':>6}",
        file=out,
    )
    summaries: list[Summary] = []
    for case in cases:
        summary = Summary(case, list(pool.map(partial(simulate, case), range(seeds))))
        summaries.append(summary)
        print(_line(summary, width), file=out, flush=True)
    seconds = time.perf_counter() - started
    minutes = sum(case.terms.window for case in cases) * WINDOWS * seeds / 60
    print(f"\n{minutes:,.0f} simulated minutes in {seconds:.0f} s; {seeds} seeds, {WINDOWS} windows each.", file=out)
    failed = [summary for summary in summaries if summary.failures]
    for summary in failed:
        print(f"FAILS: {summary.case.title}: {', '.join(summary.failures)}", file=out)
    return {
        "benchmark": "quota_simulation",
        "settings": {"seeds": seeds, "windows": WINDOWS},
        "simulated_minutes": minutes,
        "seconds": seconds,
        "cases": [summary.as_json() for summary in summaries],
        "holds": not failed,
    }


def _line(summary: Summary, width: int) -> str:
    case, report = summary.case, summary.as_json()
    bounds = case.bounds
    used, rejected, fairness = report["used"], report["rejected"], report["fairness"]
    least = f"{bounds.used:.0%}" if bounds is not None else "-"
    most = f"{bounds.rejected:.1%}" if bounds is not None and bounds.rejected is not None else "-"
    fair = f"{bounds.fairness:.2f}" if bounds is not None and bounds.fairness is not None else "-"
    verdict = "FAILS" if summary.failures else "" if bounds is None else "holds"
    return (
        f"{case.title:{width}}  {used['min']:>9.1%} {used['median']:>7.1%} {least:>6}"
        f"  {rejected['max']:>13.2%} {rejected['median']:>7.2%} {most:>6}  {report['lost']['max']:>4}"
        f"  {fairness['min'] if case.clients > 1 else '-':>13{'.3f' if case.clients > 1 else ''}} {fair:>6}  {verdict}"
    ).rstrip()


def sweep(pool: Executor, seeds: int, out: TextIO) -> dict[str, Any]:
    """Simulate the cases without text under every variant, print a line for each, and return the report."""
    print(
        f"{'':20}  {'one client: used':>16} {'rejected':>8}  {'sixteen: used':>13} {'rejected':>8} {'fairness':>8}"
        f"  {'halved: used':>12}  {'lost':>4}",
        file=out,
    )
    rows = []
    for variant in variants():
        jobs = [(variant, case, seed) for case in sweep_cases() for seed in range(seeds)]
        found = figures([(job[1], result) for job, result in zip(jobs, pool.map(simulate_variant, jobs), strict=True)])
        rows.append({**asdict(variant), **found})
        print(
            f"{variant.title:20}  {found['single_used']:>16.1%} {found['single_rejected']:>8.1%}"
            f"  {found['crowd_used']:>13.1%} {found['crowd_rejected']:>8.1%} {found['crowd_fairness']:>8.3f}"
            f"  {found['halved_used']:>12.1%}  {found['lost']:>4}",
            file=out,
            flush=True,
        )
    print(f"\nThe worst of {seeds} seeds, both quotas and both kinds of window.", file=out)
    return {
        "benchmark": "quota_simulation --sweep",
        "settings": {"seeds": seeds, "windows": WINDOWS},
        "variants": rows,
        "holds": True,
    }


if __name__ == "__main__":
    sys.exit(main())
