"""Run suites, print the results and write them to files.

    python -m benchmarks                              everything, as `make bench` does
    python -m benchmarks --quick                      everything with a tenth of the inputs and two rounds, as a trial
    python -m benchmarks throughput decoding          two of the suites
    python -m benchmarks throughput --only native,baseten,official --loads dense-2048-half
    python -m benchmarks --against CHECKOUT           this code beside another checkout's, in paired rounds
    python -m benchmarks --write-docs FILE            no measurement: write the plots and tables in docs/ from a run's JSON

The exit status is 1 if a competitor fails or returns wrong vectors, 2 for misuse. docs/benchmarks.md explains the figures.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import against, plots, report
from benchmarks.competitors import COMPETITORS
from benchmarks.harness import BenchmarkError, describe_machine
from benchmarks.settings import LOADS, Settings
from benchmarks.suites import caching, decoding, filling, growth, jobs, redacting, single, streaming, throughput
from benchmarks.with_package import is_checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SUITES: Mapping[str, tuple[str, Callable[[Settings], dict[str, Any] | None]]] = {
    "throughput": ("speed, CPU, lag and memory of everybody", throughput.measure),
    "memory": ("peak memory at 100,000 inputs", growth.measure_memory),
    "growth": ("time per input at 10,000 and 1,000,000 inputs", growth.measure_growth),
    "single": ("latency of a single text", single.measure),
    "decoding": ("decoders alone", decoding.measure),
    "streaming": ("peak memory of a stream", streaming.measure),
    "jobs": ("a job beside a stream", jobs.measure),
    "caching": ("a second run with a cache", caching.measure),
    "filling": ("a first run with a cache", filling.measure),
    "redacting": ("errors that are hard to clean", redacting.measure),
}
COMPARING = frozenset({"throughput", "memory", "growth", "streaming"})
"""Suites that `--only` applies to."""

ROOT = Path(__file__).parent.parent
PAGES, PICTURES = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md"), ROOT / "docs" / "benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, run the suites, and print the report."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.write_docs is not None:
        return _write_docs(parser, options.write_docs)
    suites = list(SUITES if options.against is None else against.SUITES)
    chosen = list(dict.fromkeys(options.suites)) or suites
    if unknown := [name for name in chosen if name not in suites]:
        beside = "" if options.against is None else " with --against"
        parser.error(f"unknown {', '.join(map(repr, unknown))}; suites{beside}: {', '.join(suites)}")
    checkout = _checkout(parser, options)
    settings = _settings(parser, options, chosen)
    if options.json is not None and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    # So that SIGTERM runs the same `finally` blocks as Ctrl-C, which end the processes started here
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    machine = describe_machine()
    parts: dict[str, Any] = {}
    try:
        if checkout is not None:
            parts["against"] = against.measure(settings, checkout, chosen)
        else:
            for name in chosen:
                parts[name] = SUITES[name][1](settings)
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: interrupted", file=sys.stderr)
        return 130
    result = {
        "format": 1,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine,
        "load_average_after": os.getloadavg()[0],
        "settings": asdict(settings),
        "suites": parts,
    }
    print(report.plain(result))
    if options.json is not None:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if options.plots is not None:
        plots.draw(plots.plots_of(parts), Path(options.plots))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the client beside the alternatives.",
        epilog="suites: " + "; ".join(f"{name} ({what})" for name, (what, _) in SUITES.items()),
    )
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="suites to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the inputs and two rounds, as a trial")
    parser.add_argument(
        "--rounds", type=int, help=f"measurements of each competitor (default 7; {against.ROUNDS} with --against)"
    )
    parser.add_argument("--scale", type=float, help="factor for the inputs of every measurement (default 1)")
    parser.add_argument("--concurrency", type=int, default=8, help="most requests in flight (default 8)")
    parser.add_argument(
        "--loads", help=f"loads of the throughput suite, separated by commas: {', '.join(LOADS)} (default all)"
    )
    parser.add_argument("--only", help=f"competitors, separated by commas: {', '.join(COMPETITORS)} (default all)")
    parser.add_argument(
        "--against",
        metavar="CHECKOUT",
        help="measure the code of another checkout of this project, such as a git worktree, beside this code, in paired"
        f" rounds ({' and '.join(against.SUITES)})",
    )
    parser.add_argument("--json", metavar="FILE", help="write all figures to this file")
    parser.add_argument("--plots", metavar="FOLDER", help="draw the plots in this folder")
    parser.add_argument(
        "--write-docs", metavar="FILE", help="only write docs/benchmarks.md, its plots and the README's table from this JSON"
    )
    return parser


def _checkout(parser: argparse.ArgumentParser, options: argparse.Namespace) -> str | None:
    if options.against is None:
        return None
    if not is_checkout(folder := Path(options.against).absolute()):
        parser.error(f"--against must be a checkout of this project, got {options.against}: there is no package in it")
    if options.plots is not None:
        parser.error("--plots cannot be combined with --against")
    if options.only is not None and not set(options.only.split(",")) <= set(against.OWN):
        parser.error(f"--only: with --against the choices are {', '.join(against.OWN)}")
    return str(folder)


def _settings(parser: argparse.ArgumentParser, options: argparse.Namespace, chosen: Sequence[str]) -> Settings:
    def names(option: str, text: str | None, known: Mapping[str, object]) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(name.strip() for name in text.split(","))) if text is not None else ()
        if unknown := [name for name in found if name not in known]:
            parser.error(f"{option}: unknown {', '.join(map(repr, unknown))}; known: {', '.join(known)}")
        return found

    only, loads = names("--only", options.only, COMPETITORS), names("--loads", options.loads, LOADS)
    if loads and "throughput" not in chosen:
        parser.error("--loads is for the throughput suite, which is not chosen")
    if only and not COMPARING.intersection(chosen):
        parser.error(f"--only is for the suites {', '.join(sorted(COMPARING))}, and none of them is chosen")
    missing = [f"{name} needs {COMPETITORS[name].missing}" for name in only if COMPETITORS[name].missing is not None]
    if missing:
        parser.error(f"--only: {'; '.join(missing)}")
    usual = Settings.rounds if options.against is None else against.ROUNDS
    rounds = options.rounds if options.rounds is not None else 2 if options.quick else usual
    scale = options.scale if options.scale is not None else 0.1 if options.quick else Settings.scale
    if not 1 <= rounds <= 1000 or not 0 < scale <= 10 or not 1 <= options.concurrency <= 512:
        parser.error("--rounds must be 1 to 1000, --scale above 0 and at most 10, --concurrency 1 to 512")
    return Settings(rounds, scale, options.concurrency, loads or tuple(LOADS), only)


def _write_docs(parser: argparse.ArgumentParser, file: str) -> int:
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
        pages = {page: report.filled(page.read_text(encoding="utf-8"), result) for page in PAGES}
    except (OSError, ValueError) as error:
        parser.error(f"--write-docs: {error}")
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")
    for drawn in plots.draw(plots.plots_of(result["suites"]), PICTURES):
        print(drawn.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
