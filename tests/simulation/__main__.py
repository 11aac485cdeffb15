"""The whole client in a simulation, from many seeds.

    python -m tests.simulation --seeds 10000
    python -m tests.simulation --seed 4711

Exit status 1 if an invariant is violated for some seed, whose scenario is then printed, shrunk as far as it still fails; 2
for misuse.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.simulation.run import Outcome, run
from tests.simulation.scenario import described, draw
from tests.simulation.shrink import shrink

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.simulation.scenario import Scenario

AT_ONCE = 50
"""Seeds that a process gets at a time."""

MOST_REPORTED = 5
"""Failing seeds that are reported in full."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, simulate, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--start", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="just this one, with everything that happens")
    parser.add_argument("--first", action="store_true", help="stop at the first that fails")
    parser.add_argument("--brief", action="store_true", help="do not make what fails smaller")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.workers < 1:
        parser.error("--seeds and --workers must be integers ≥ 1")
    if options.seed is not None:
        return _report_one(draw(options.seed))
    seeds = range(options.start, options.start + options.seeds)
    return _report_many(seeds, options.workers, is_first=options.first, is_brief=options.brief)


def _report_one(scenario: Scenario) -> int:
    outcome = run(scenario)
    print(described(scenario), *outcome.trace, *outcome.violations, f"digest {outcome.digest}", sep="\n")
    return 1 if outcome.violations else 0


def _report_many(seeds: range, workers: int, *, is_first: bool, is_brief: bool) -> int:
    started, done, requests, seconds = time.perf_counter(), 0, 0, 0.0
    failed: list[int] = []
    checks: Counter[str] = Counter()
    for outcome in _outcomes(seeds, workers):
        done += 1
        requests += outcome.requests
        seconds += outcome.seconds
        if outcome.violations:
            failed.append(outcome.scenario.seed)
            checks.update({violation.check for violation in outcome.violations})
            if len(failed) <= MOST_REPORTED:
                print(summary(outcome) if is_brief else report(outcome), flush=True)
            if is_first:
                break
    took = time.perf_counter() - started
    print(f"{done:,} seeds, {requests:,} requests, {seconds / 3600:,.0f} simulated hours in {took:.0f} s")
    if failed:
        print(f"{len(failed)} seeds fail, {', '.join(map(str, failed[:20]))} among them; by check: {dict(checks)}")
    return 1 if failed else 0


def _outcomes(seeds: range, workers: int) -> Iterator[Outcome]:
    parts = [seeds[start : start + AT_ONCE] for start in range(0, len(seeds), AT_ONCE)]
    if workers == 1:
        for part in parts:
            yield from run_all(part)
        return
    pool = ProcessPoolExecutor(workers)
    try:
        for outcomes in pool.map(run_all, parts):
            yield from outcomes
    finally:
        # A caller that stops early does not wait for the rest.
        pool.shutdown(cancel_futures=True)


def run_all(seeds: range) -> list[Outcome]:
    """Run the scenarios of some seeds; the traces of those without violations are dropped."""
    outcomes = [run(draw(seed)) for seed in seeds]
    for outcome in outcomes:
        if not outcome.violations:
            outcome.trace.clear()
    return outcomes


def summary(outcome: Outcome) -> str:
    """What failed."""
    return "\n".join([f"seed {outcome.scenario.seed} fails:", *(f"  {violation}" for violation in outcome.violations)])


def report(outcome: Outcome) -> str:
    """What failed, and the smallest scenario in which it does."""
    check = outcome.violations[0].check
    smallest = shrink(outcome.scenario, lambda scenario: any(one.check == check for one in run(scenario).violations))
    small = run(smallest)
    lines = [summary(outcome), "made smaller:", f"  {described(smallest)}", *(f"  {line}" for line in small.trace)]
    return "\n".join([*lines, *(f"  {violation}" for violation in small.violations)])


if __name__ == "__main__":
    sys.exit(main())
