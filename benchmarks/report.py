"""The report of a run: its JSON, its tables, and the parts of the docs between markers. It measures nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks import against, goals
from benchmarks.settings import MAIN_LOAD
from benchmarks.suites import caching, decoding, filling, growth, jobs, redacting, single, streaming, throughput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.tables import Table

NOISE = 0.02
"""Share of stolen time above which a run counts as noisy."""

BUSY = 0.5
"""Load average per core above which a machine counts as busy; the benchmarks have no load of their own at the start."""

TABLES: Mapping[str, Callable[[Mapping[str, Any]], list[Table]]] = {
    "throughput": throughput.tables,
    "memory": growth.memory_tables,
    "growth": growth.growth_tables,
    "single": single.tables,
    "decoding": decoding.tables,
    "streaming": streaming.tables,
    "jobs": jobs.tables,
    "caching": caching.tables,
    "against": against.tables,
    "filling": filling.tables,
    "redacting": redacting.tables,
}


def tables_of(report: Mapping[str, Any]) -> dict[str, list[Table]]:
    """Return a run's tables by suite, the goals first."""
    suites = report["suites"]
    found = {name: tables(suites[name]) for name, tables in TABLES.items() if suites.get(name)}
    held = goals.goals(suites)
    return {"goals": [goals.table(held)], **found} if held else found


def machine_of(report: Mapping[str, Any]) -> str:
    """Return where and when a run took place, in a few sentences."""
    machine, settings = report["machine"], report["settings"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if version)
    text = (
        f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['system']}, {machine['python']}; {packages}."
        f" {report['date']}, load average {machine['load_average']:.1f} before and {report['load_average_after']:.1f} after."
    )
    if settings["scale"] != 1 or settings["only"]:
        text += " Not the full measurement: a trial with fewer inputs or fewer competitors."
    if machine["load_average"] > BUSY * machine["usable_cores"]:
        text += " The machine had other work to do: not figures to rely on."
    stolen = stolen_share(report)
    if stolen > NOISE:
        text += f" The machine's host took up to {stolen:.0%} of the processor away."
    return text


def stolen_share(report: Mapping[str, Any]) -> float:
    """Return the highest share of processor time that the host took away during a measurement."""
    loads = (report["suites"].get("throughput") or {"loads": {}})["loads"].values()
    shares = [one["stolen_share"] for load in loads for entry in load["competitors"].values() for one in entry["rounds"]]
    return max(shares, default=0.0)


def plain(report: Mapping[str, Any]) -> str:
    """Return a run as text for the terminal."""
    parts = [table.plain() for tables in tables_of(report).values() for table in tables]
    left_out = (report["suites"].get("throughput") or {"left_out": {}})["left_out"]
    parts += [f"Left out: {name}, {reason}." for name, reason in left_out.items()]
    return "\n\n".join((machine_of(report), *parts))


def begin(name: str) -> str:
    """Return the marker before a part of the docs written from a run."""
    return f"<!-- benchmarks: {name} -->"


END = "<!-- benchmarks: end -->"


def filled(text: str, report: Mapping[str, Any]) -> str:
    """Return a page of the docs with a run's tables between their markers.

    Raises:
        ValueError: A marker has no end, or the page needs figures that the run has not measured.
    """
    parts = {"machine": machine_of(report)}
    for name, tables in tables_of(report).items():
        parts[name] = "\n\n".join(table.markdown() for table in tables)
    for load, table in zip(
        (report["suites"].get("throughput") or {"loads": {}})["loads"], tables_of(report).get("throughput", []), strict=True
    ):
        parts[load] = table.markdown()
    main = (report["suites"].get("throughput") or {"loads": {}})["loads"].get(MAIN_LOAD.name)
    if main is not None:
        parts["short"] = throughput.short_line(main)
    pieces = text.split("<!-- benchmarks: ")
    written = [pieces[0]]
    place = 1
    while place < len(pieces):
        name, closed, _ = pieces[place].partition(" -->")
        if not closed or place + 1 == len(pieces) or not pieces[place + 1].startswith("end -->"):
            raise ValueError(f"the marker {begin(name)} has no end")
        if name not in parts:
            raise ValueError(f"the page needs {name}, which the run has not measured")
        written.append(f"{begin(name)}\n\n{parts[name]}\n\n{END}")
        written.append(pieces[place + 1].removeprefix("end -->"))
        place += 2
    return "".join(written)
