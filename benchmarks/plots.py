"""Plots of a run. What is drawn is chosen by plain functions; matplotlib draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.settings import MAIN_LOAD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OURS = ("EmbedClient", "embed")
"""How the titles of what is this client's begin."""


@dataclass(frozen=True)
class Bars:
    """A plot of horizontal bars.

    Attributes:
        file: Name of the picture.
        title: Above it.
        axis: What the length of a bar means.
        bars: Title and length of each, with the lowest and the highest of the rounds.
        is_logarithmic: Whether lengths differ so much that their logarithms are drawn.
    """

    file: str
    title: str
    axis: str
    bars: tuple[tuple[str, float, float, float], ...]
    is_logarithmic: bool = False


_THROUGHPUT = (
    ("speed", "inputs_per_second", 1.0, "inputs a second; more is better", False),
    ("cpu", "cpu_us_per_input", 1.0, "µs of CPU for an input; less is better", True),
    ("lag", "lag_p99_ms", 1.0, "event-loop lag, p99, ms; less is better", True),
    ("memory", "memory_bytes", 1e-6, "MB of memory, results included; less is better", True),
)


def plots_of(suites: Mapping[str, Any]) -> list[Bars]:
    """Return what there is to draw in a run."""
    found: list[Bars] = []
    for name, load in (suites.get("throughput") or {"loads": {}})["loads"].items():
        for short, figure, scale, axis, is_logarithmic in _THROUGHPUT:
            if name != MAIN_LOAD.name and short != "speed":
                continue
            bars = tuple(
                (
                    entry["title"],
                    scale * entry["median"][figure],
                    scale * min(one[figure] for one in entry["rounds"]),
                    scale * max(one[figure] for one in entry["rounds"]),
                )
                for entry in load["competitors"].values()
            )
            file = f"{short}.svg" if name == MAIN_LOAD.name else f"{short}-{name}.svg"
            found.append(Bars(file, name, axis, bars, is_logarithmic))
    ways = (suites.get("single") or {"ways": {}})["ways"]
    if ways:
        bars = tuple((name, figures["p50"], figures["p50"], figures["p99"]) for name, figures in ways.items())
        found.append(Bars("single.svg", "a single text", "ms, p50 with a line to p99; less is better", bars))
    decoders = (suites.get("decoding") or {"ms_per_body": {}})["ms_per_body"]
    if decoders:
        bars = tuple((title, taken, taken, taken) for title, taken in decoders.items())
        found.append(Bars("decoding.svg", "decoding alone", "ms for a full answer; less is better", bars))
    return found


def draw(plots: list[Bars], folder: Path) -> list[Path]:
    """Draw the plots into a folder; returns the files."""
    import matplotlib as mpl  # noqa: PLC0415 - only for plots, and slow to import

    # The same picture for the same figures, to the byte; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 9})
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for plot in plots:
        figure = Figure(figsize=(7.5, 0.8 + 0.3 * len(plot.bars)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        bars = plot.bars[::-1]
        titles = [title for title, *_ in bars]
        lengths = [length for _, length, _, _ in bars]
        errors = [
            [max(0.0, length - low) for _, length, low, _ in bars],
            [max(0.0, high - length) for _, length, _, high in bars],
        ]
        colours = ["#2a6f97" if title.startswith(OURS) else "#b5b5b5" for title in titles]
        axes.barh(titles, lengths, xerr=errors, color=colours, error_kw={"elinewidth": 0.8, "ecolor": "#444444"})
        if plot.is_logarithmic:
            axes.set_xscale("log")
        for place, length in enumerate(lengths):
            axes.annotate(
                f"{length:,.0f}" if length >= 100 else f"{length:,.2g}" if length < 1 else f"{length:,.1f}",
                (length, place),
                xytext=(4, 5),
                textcoords="offset points",
                fontsize=7,
                va="center",
            )
        axes.set_xlabel(plot.axis)
        axes.set_title(plot.title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        file = folder / plot.file
        figure.savefig(file, metadata={"Date": None})
        files.append(file)
    return files
