"""Plots of a run. Pure functions choose what to draw; matplotlib draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import FLOOR
from benchmarks.settings import MAIN_LOAD

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OURS = ("EmbedClient", "embed")
"""Beginnings of the titles of this client's entries."""


LOADS = {
    "dense-1024-half": "1024 dimensions",
    "dense-2048-half": "2048 dimensions",
    "dense-1024-full": "1024 dimensions, numbers in full precision",
    "sparse-half": "sparse vectors",
}
"""Each load in plain words."""


@dataclass(frozen=True)
class Bars:
    """A plot of horizontal bars.

    Attributes:
        file: Name of the file.
        title: Title above the plot.
        axis: Meaning of a bar's length.
        bars: Title and length of each bar, with the lowest and the highest value of the rounds.
        floor: Limit of any client on aiohttp, drawn as a line; `None` for no line.
    """

    file: str
    title: str
    axis: str
    bars: tuple[tuple[str, float, float, float], ...]
    floor: float | None = None


_THROUGHPUT = (
    ("speed", "inputs_per_second", 1.0, "Inputs a second", "more is better"),
    ("cpu", "cpu_us_per_input", 1.0, "µs of CPU for an input", "less is better"),
    ("lag", "lag_p99_ms", 1.0, "Event-loop lag, p99, ms", "less is better"),
    ("memory", "memory_bytes", 1e-6, "MB of memory, results included", "less is better"),
)


def plots_of(suites: Mapping[str, Any]) -> list[Bars]:
    """Return the plots for a run."""
    found: list[Bars] = []
    for name, load in (suites.get("throughput") or {"loads": {}})["loads"].items():
        for short, figure, scale, what, better in _THROUGHPUT:
            if name != MAIN_LOAD.name and short != "speed":
                continue
            competitors = load["competitors"]
            bars = tuple(
                (
                    entry["title"],
                    scale * entry["median"][figure],
                    scale * min(one[figure] for one in entry["rounds"]),
                    scale * max(one[figure] for one in entry["rounds"]),
                )
                for competitor, entry in competitors.items()
                if competitor != FLOOR
            )
            # The floor keeps no results, so its memory means nothing.
            has_floor = FLOOR in competitors and short != "memory"
            floor = scale * competitors[FLOOR]["median"][figure] if has_floor else None
            file = f"{short}.svg" if name == MAIN_LOAD.name else f"{short}-{name}.svg"
            found.append(Bars(file, f"{what}: {LOADS.get(name, name)}", better, bars, floor))
    ways = (suites.get("single") or {"ways": {}})["ways"]
    if ways:
        bars = tuple((name, figures["p50"], figures["p50"], figures["p99"]) for name, figures in ways.items())
        found.append(Bars("single.svg", "A single text, ms", "p50 with a line to p99; less is better", bars))
    decoders = (suites.get("decoding") or {"ms_per_body": {}})["ms_per_body"]
    if decoders:
        bars = tuple((title, taken, taken, taken) for title, taken in decoders.items())
        found.append(Bars("decoding.svg", "Decoding alone, ms for a full answer", "less is better", bars))
    return found


def draw(plots: list[Bars], folder: Path) -> list[Path]:
    """Draw the plots in a folder; return the files."""
    import matplotlib as mpl  # noqa: PLC0415 - only for plots, and slow to import

    # The same figures give the same file, to the byte; text stays text.
    mpl.rcParams.update({"svg.hashsalt": "benchmarks", "svg.fonttype": "none", "font.size": 10})
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for plot in plots:
        # As wide as a phone, and white in dark mode too.
        figure = Figure(figsize=(4.4, 0.9 + 0.42 * len(plot.bars)), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        bars = plot.bars[::-1]
        places = range(len(bars))
        lengths = [length for _, length, _, _ in bars]
        errors = [
            [max(0.0, length - low) for _, length, low, _ in bars],
            [max(0.0, high - length) for _, length, _, high in bars],
        ]
        colours = ["#2a6f97" if title.startswith(OURS) else "#b5b5b5" for title, *_ in bars]
        axes.barh(places, lengths, 0.42, xerr=errors, color=colours, error_kw={"elinewidth": 0.8, "ecolor": "#444444"})
        # Text hides the line of the floor, which would strike it through.
        blank = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
        for place, (title, length, _, high) in enumerate(bars):
            # Above its bar, because on a phone there is no room beside it.
            axes.annotate(title, (0, place + 0.24), xytext=(1, 2.5), textcoords="offset points", fontsize=8, bbox=blank)
            axes.annotate(
                f"{length:,.0f}" if length >= 100 else f"{length:,.2g}" if length < 1 else f"{length:,.1f}",
                (max(length, high), place),
                xytext=(4, 0),
                textcoords="offset points",
                fontsize=8,
                va="center",
                bbox=blank,
            )
        longest = max(high for *_, high in bars)
        reach = longest if plot.floor is None else max(longest, plot.floor)
        if plot.floor is not None:
            is_behind = plot.floor > reach / 2
            axes.axvline(plot.floor, color="#c1121f", linewidth=1, linestyle="--", zorder=0)
            axes.annotate(
                "received and thrown away",
                (plot.floor, -0.62),
                xytext=(-3 if is_behind else 3, 0),
                textcoords="offset points",
                ha="right" if is_behind else "left",
                fontsize=7,
            )
        axes.set_xlim(0, 1.18 * reach)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.set_ylim(-0.75, len(bars) - 0.2)
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        axes.set_xlabel(plot.axis, fontsize=9)
        axes.set_title(plot.title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        file = folder / plot.file
        figure.savefig(file, metadata={"Date": None})
        files.append(file)
    return files
