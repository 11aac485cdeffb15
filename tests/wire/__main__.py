"""Bodies from seeds: compares all decoders with the standard library.

    python -m tests.wire --bodies 100000 --start 0

Exit status 1 if they disagree about one of them, which is then reported with its seed; 2 for misuse.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

from tests.wire.bodies import body_of, check

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 500
"""Seeds per task of a process."""

MOST_TOLD = 20


def compare(seeds: range) -> tuple[int, list[str]]:
    """The number of valid bodies, and the disagreements."""
    valid, wrong = 0, []
    for seed in seeds:
        body, asked = body_of(seed)
        try:
            valid += check(body, **asked)
        except Exception as error:  # noqa: BLE001 - whatever a decoder raises is a finding
            wrong.append(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}\n  {asked}\n  {body[:600]!r}")
    return valid, wrong


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, compare, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bodies", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument("--start", type=int, default=0, help="seed of the first (default 0)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    if options.bodies < 1 or options.workers < 1:
        parser.error("--bodies and --workers must be integers ≥ 1")
    seeds = range(options.start, options.start + options.bodies)
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(compare, [seeds[at : at + AT_ONCE] for at in range(0, len(seeds), AT_ONCE)]))
    wrong = [problem for _, problems in found for problem in problems]
    print(*wrong[:MOST_TOLD], sep="\n", end="\n" if wrong else "")
    valid = sum(count for count, _ in found)
    print(f"{len(seeds)} bodies, {valid} of them valid: {len(wrong)} read or refused otherwise than the rules say")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
