"""Compares this checkout's code with another checkout's in paired rounds: `--against`.

A round measures the new code, the old code, and the old code again, each in its own process against one server. The
difference between the two measurements of the old code shows how much is noise.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import asdict, dataclass
from itertools import cycle, islice, permutations
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import MSGSPEC, NATIVE
from benchmarks.figures import percentile, ratios
from benchmarks.harness import ROOT, run_competitor, running_server
from benchmarks.settings import LOADS, MAIN_LOAD, job_of
from benchmarks.suites import single, throughput
from benchmarks.tables import Table, number

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks.figures import Round
    from benchmarks.settings import Settings

ROUNDS = 18
"""Three times each of the six orders."""

OWN = (MSGSPEC, NATIVE)
"""The competitors that use the package."""

NEW, OLD, AGAIN = "new", "old", "old again"
MOST = 0.03
"""How much worse the new code may be, unless the old code differs from itself by more."""


@dataclass(frozen=True)
class Figure:
    """A figure to compare.

    Attributes:
        name: Its name in a measurement.
        title: Its title in tables.
        digits: Decimal places.
        is_speed: Whether a higher value is better.
    """

    name: str
    title: str
    digits: int
    is_speed: bool = False


SPEED = (Figure("inputs_per_second", "inputs/s", 0, is_speed=True), Figure("cpu_us_per_input", "CPU µs/input", 1))
LATENCY = (Figure("p50", "p50 ms", 3), Figure("cpu_p50", "CPU p50 ms", 3))


def orders(rounds: int) -> list[tuple[str, ...]]:
    """Return the order of measurement in each round; every order occurs equally often."""
    return list(islice(cycle(permutations((NEW, OLD, AGAIN))), rounds))


def run_rounds(checkout: str, rounds: int, what: str, measure: Callable[[str], Round]) -> dict[str, list[Round]]:
    """Measure all three once per round; `measure` takes the checkout to use."""
    checkouts = {NEW: str(ROOT), OLD: checkout, AGAIN: checkout}
    found: dict[str, list[Round]] = {who: [] for who in checkouts}
    for number_, order in enumerate(orders(rounds), 1):
        for who in order:
            found[who].append(measure(checkouts[who]))
        print(f"{what}, round {number_} of {rounds}", file=sys.stderr)
    return found


def compare(rounds: Mapping[str, Sequence[Round]], figure: Figure) -> dict[str, Any]:
    """Return a figure's medians, the quartiles of its ratios round by round, and whether the new code is as good."""
    changed, noise = (ratios(rounds[who], rounds[OLD], figure.name) for who in (NEW, AGAIN))
    change, difference = statistics.median(changed), abs(statistics.median(noise) - 1)
    return {
        **asdict(figure),
        "medians": {who: statistics.median(one[figure.name] for one in rounds[who]) for who in rounds},
        "new_to_old": [percentile(changed, 25), change, percentile(changed, 75)],
        "old_to_old": [percentile(noise, 25), statistics.median(noise), percentile(noise, 75)],
        "is_as_good": (1 - change if figure.is_speed else change - 1) <= max(MOST, difference),
    }


def _way(title: str, rounds: Mapping[str, Sequence[Round]], figures: Sequence[Figure]) -> dict[str, Any]:
    return {"title": title, "compared": [compare(rounds, figure) for figure in figures], "rounds": rounds}


def measure_throughput(settings: Settings, checkout: str) -> dict[str, Any]:
    """Compare inputs per second and CPU time for each load."""
    loads = {}
    for name in settings.loads:
        load = LOADS[name]
        job = job_of(settings, load, settings.scaled(throughput.INPUTS))
        ways = {}
        for competitor in settings.competitors(load, OWN):
            with running_server(load) as server:

                def measured(code: str, one: Any = competitor, at: Any = server, load: Any = load, job: Any = job) -> Round:
                    return run_competitor(one, at, load, job, checkout=code)

                rounds = run_rounds(checkout, settings.rounds, f"{name}, {competitor.name}", measured)
            ways[competitor.name] = _way(competitor.title, rounds, SPEED)
        loads[name] = {"what": f"{name}, {job.inputs:,} inputs, {job.concurrency} requests in flight", "ways": ways}
    return loads


def measure_single(settings: Settings, checkout: str) -> dict[str, Any]:
    """Compare the latency and CPU time of a single text; the bare posts beside it are the same code in all three."""
    calls = max(10, round(single.CALLS * settings.scale))
    with running_server(MAIN_LOAD) as server:
        rounds = run_rounds(
            checkout,
            settings.rounds,
            "single",
            lambda code: single.run(server, calls, crowds=0, crowd=0, concurrency=settings.concurrency, checkout=code)[
                "ways"
            ],
        )
    # The other code may lack a decoder, or have one that this code lacks.
    common = [name for name in rounds[NEW][0] if all(name in one for some in rounds.values() for one in some)]
    ways = {name: _way(name, {who: [one[name] for one in rounds[who]] for who in rounds}, LATENCY) for name in common}
    return {"single": {"what": f"a single text, {calls:,} calls", "ways": ways}}


SUITES: Mapping[str, Callable[[Settings, str], dict[str, Any]]] = {
    "throughput": measure_throughput,
    "single": measure_single,
}


def measure(settings: Settings, checkout: str, suites: Sequence[str]) -> dict[str, Any]:
    """Measure the chosen suites."""
    parts: dict[str, Any] = {}
    for name in suites:
        parts |= SUITES[name](settings, checkout)
    return {"checkout": checkout, "rounds": settings.rounds, "parts": parts}


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return a table for each load and one for a single text."""
    header = ("way", "figure", NEW, OLD, "new/old (quartiles)", "old again/old (quartiles)", f"as good, within {MOST:.0%}")
    return [
        Table(
            f"{measured['what']}, {part['rounds']} paired round{'s' * (part['rounds'] > 1)}; old is {part['checkout']}",
            header,
            tuple(
                (
                    way["title"],
                    one["title"],
                    number(one["medians"][NEW], one["digits"]),
                    number(one["medians"][OLD], one["digits"]),
                    _quartiles(one["new_to_old"]),
                    _quartiles(one["old_to_old"]),
                    "yes" if one["is_as_good"] else "NO",
                )
                for way in measured["ways"].values()
                for one in way["compared"]
            ),
        )
        for measured in part["parts"].values()
    ]


def _quartiles(found: Sequence[float]) -> str:
    low, median, high = found
    return f"{median:.3f} ({low:.3f}–{high:.3f})"
