"""The goals, and whether a run met them. Pure functions of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import BASETEN, FLOOR, HAND_MSGSPEC, HAND_SIMDJSON, MSGSPEC, NATIVE, OFFICIAL
from benchmarks.settings import MAIN_LOAD
from benchmarks.suites.caching import GOAL as CACHE_GOAL
from benchmarks.suites.decoding import SIMDJSON, own_title
from benchmarks.suites.filling import GOAL as FILL_GOAL
from benchmarks.suites.jobs import GOAL as JOB_GOAL
from benchmarks.suites.single import BARE, bare_name
from benchmarks.tables import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


LARGER_LOADS = ("dense-2048-half", "dense-1024-full")


@dataclass(frozen=True)
class Goal:
    """A figure with a bound.

    Attributes:
        figure: Name of the figure.
        who: Name of the decoder.
        got: Value in this run.
        bound: The required value.
        is_most: Whether the bound is an upper one.
        is_aim: Whether the bound is an aim and not a promise.
        unit: Unit shown after the numbers.
    """

    figure: str
    who: str
    got: float
    bound: float
    is_most: bool = True
    is_aim: bool = False
    unit: str = ""

    @property
    def is_met(self) -> bool:
        """Whether the figure is within its bound."""
        return self.got <= self.bound if self.is_most else self.got >= self.bound

    def cells(self) -> tuple[str, ...]:
        """Return the goal's cells for a table."""
        asked = f"{'aim: ' if self.is_aim else ''}{'≤' if self.is_most else '≥'} {self.bound:,.2f}{self.unit}"
        return self.figure, self.who, asked, f"{self.got:,.2f}{self.unit}", "yes" if self.is_met else "NO"


def _job_goals(part: Mapping[str, Any]) -> list[Goal]:
    return [
        Goal("a job against a stream, inputs/s", decoder, figures["ratio"], JOB_GOAL, is_most=False)
        for decoder, figures in part["decoders"].items()
    ]


def _cache_goals(suites: Mapping[str, Any]) -> list[Goal]:
    found: list[Goal] = []
    if suites.get("caching"):
        got = suites["caching"]["ratio"]
        found.append(Goal("a second run with a cache, times as fast", "default", got, CACHE_GOAL, is_most=False))
    for size, figures in (suites.get("filling") or {"sizes": {}})["sizes"].items():
        found.append(Goal(f"filling a cache, CPU against none, {size} a request", "default", figures["ratio"], FILL_GOAL))
    return found


def _decoding_goals(part: Mapping[str, Any]) -> Iterator[Goal]:
    taken = part["ms_per_body"]
    own, other = taken.get(own_title(NATIVE)), taken.get(SIMDJSON)
    if own is not None and other is not None:
        yield Goal("decoding alone, time against pysimdjson", NATIVE, own / other, 0.6)
    if NATIVE in part["two_threads"]:
        yield Goal("decoding alone, two threads against one", NATIVE, part["two_threads"][NATIVE], 1.7, is_most=False)


def _throughput_goals(loads: Mapping[str, Any], default_decode: float | None) -> Iterator[Goal]:
    if MAIN_LOAD.name in loads:
        yield from _throughput(loads[MAIN_LOAD.name]["competitors"], default_decode)
    for name in LARGER_LOADS:
        if (time := _compared(loads.get(name, {}).get("competitors", {}), NATIVE, BASETEN, "time")) is not None:
            yield Goal(f"inputs/s against baseten embed, {name}", NATIVE, 1 / time, 1.4, is_most=False)


def goals(suites: Mapping[str, Any]) -> list[Goal]:
    """Return the goals whose figures a run has measured."""
    decoding = suites.get("decoding") or {"ms_per_body": {}, "two_threads": {}}
    default_decode = decoding["ms_per_body"].get(own_title(MSGSPEC))
    found = [
        *_throughput_goals((suites.get("throughput") or {"loads": {}})["loads"], default_decode),
        *_decoding_goals(decoding),
    ]
    memory = (suites.get("memory") or {"competitors": {}})["competitors"].values()
    found += [
        Goal("peak memory beside results, imports, inputs", entry["title"], entry["over_result_bytes"] / 1e6, 32, unit=" MB")
        for entry in memory
        if entry["title"].startswith("EmbedClient")
    ]
    ways = (suites.get("single") or {"ways": {}})["ways"]
    for decoder in (MSGSPEC, NATIVE):
        if f"embed_one ({decoder})" in ways:
            for base in ("json", BARE[decoder]):
                if bare_name(base) not in ways:
                    continue
                got = ways[f"embed_one ({decoder})"]["p50"] / ways[bare_name(base)]["p50"]
                found.append(Goal(f"one input, p50 against a bare post with {base}", decoder, got, 1.25))
    for entry in (suites.get("growth") or {"competitors": {}})["competitors"].values():
        got = entry["held"]["ratio"]
        found.append(Goal("time per input at the large count against the small one", entry["title"], got, 1.10))
    if suites.get("jobs"):
        found += _job_goals(suites["jobs"])
    return found + _cache_goals(suites)


def _compared(competitors: Mapping[str, Any], name: str, base: str, figure: str) -> float | None:
    found: float | None = competitors.get(name, {}).get("compared", {}).get(base, {}).get(figure)
    return found


def _throughput(competitors: Mapping[str, Any], default_decode: float | None) -> Iterator[Goal]:
    def compared(name: str, base: str, figure: str) -> float | None:
        return _compared(competitors, name, base, figure)

    for name, hand, least, aim in ((MSGSPEC, HAND_MSGSPEC, 1.5, None), (NATIVE, HAND_SIMDJSON, 4.5, None)):
        if (time := compared(name, hand, "time")) is not None:
            yield Goal("time against the hand-written best with the same decoder", name, time, 1.15)
        if (time := compared(name, OFFICIAL, "time")) is not None:
            yield Goal("inputs/s against the official SDK to float32", name, 1 / time, least, is_most=False)
            if aim is not None:
                yield Goal("inputs/s against the official SDK to float32", name, 1 / time, aim, is_most=False, is_aim=True)
        lag, decodes = compared(name, FLOOR, "lag_p99_ms"), 2 if name == MSGSPEC else 1
        if lag is not None and default_decode is not None:
            what = f"event-loop lag p99 over the floor's; {decodes} decode{'s' * (decodes > 1)} of the default"
            yield Goal(what, name, lag, decodes * default_decode, unit=" ms")
    if (time := compared(NATIVE, BASETEN, "time")) is not None:
        yield Goal("inputs/s against baseten embed", NATIVE, 1 / time, 1.5, is_most=False)
    if (cpu := compared(NATIVE, BASETEN, "cpu")) is not None:
        yield Goal("CPU per input against baseten embed", NATIVE, cpu, 0.55)
    if (time := compared(NATIVE, FLOOR, "time")) is not None:
        yield Goal("inputs/s against the floor", NATIVE, 1 / time, 0.32, is_most=False)


def table(found: list[Goal]) -> Table:
    """Return the table of goals."""
    return Table(
        "What must hold, in this run", ("figure", "who", "asked for", "got", "met"), tuple(goal.cells() for goal in found)
    )
