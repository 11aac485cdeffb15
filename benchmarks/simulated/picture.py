"""Plots tokens used against the quota over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.simulated.cases import WINDOWS, must_hold, simulate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt
    from matplotlib.axes import Axes

    from benchmarks.simulated.cases import Case

SHOWN = (
    "250,000 known, fixed",
    "250,000 unknown, fixed",
    "250,000 unknown, no text, fixed",
    "16 clients on 1,000,000, no text, sliding",
    "1,000,000 halved, unknown, sliding",
    "1,000,000 halved, unknown, no text, sliding",
)
SEED = 0
STEP = 4.0
"""Seconds between two points."""

USED, QUOTA, REJECTED = "#2a6f97", "#444444", "#c1121f"


def draw(file: Path) -> None:
    """Draw the main cases: at each time, the tokens accepted in the last window beside the quota."""
    # The same figures give the same file, to the byte; text stays text.
    with mpl.rc_context({"svg.hashsalt": "quota", "svg.fonttype": "none", "font.size": 8}):
        cases = {case.title: case for case in must_hold()}
        # As wide as a phone, and white in the dark too.
        figure = Figure(figsize=(4.4, 8.4), layout="constrained", facecolor="white")
        for number, (title, axes) in enumerate(zip(SHOWN, figure.subplots(len(SHOWN), sharex=True), strict=True)):
            _draw_case(axes, cases[title], legend=number == 0)
        figure.supxlabel("minutes")
        figure.supylabel("tokens accepted in the last minute")
        figure.savefig(file, format="svg", metadata={"Date": None})


def _draw_case(axes: Axes, case: Case, *, legend: bool) -> None:
    result, window = simulate(case, SEED), case.terms.window
    times = np.arange(0.0, WINDOWS * window, STEP)
    clients = sorted((_in_window(log, times, window) for log in result.accepted), key=lambda used: float(used.sum()))
    bottom = np.zeros_like(times)
    for place, used in enumerate(clients):
        shade = 0.9 - 0.5 * (place % 2) if len(clients) > 1 else 0.8
        axes.fill_between(times / 60, bottom, bottom + used, color=USED, alpha=shade, linewidth=0)
        bottom = bottom + used
    quota = [case.terms.limit_at(time) for time in times]
    axes.plot(times / 60, quota, color=QUOTA, linewidth=1, drawstyle="steps-post", label="quota")
    rejections = [time for time in result.rejections if time < times[-1]]
    axes.plot(
        np.array(rejections) / 60,
        np.full(len(rejections), -0.05 * case.terms.tokens),
        color=REJECTED,
        marker="|",
        markersize=5,
        linestyle="none",
        label="a request rejected",
    )
    axes.set_title(f"{case.title}:\n{result.used:.0%} used, {result.rejected:.1%} rejected", fontsize=8, loc="left")
    axes.set_ylim(-0.1 * case.terms.tokens, 1.15 * case.terms.tokens)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value / 1000:,.0f}k")
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(loc="lower right", fontsize=7, framealpha=0.9)


def _in_window(log: Iterable[tuple[float, int]], times: npt.NDArray[np.float64], window: float) -> npt.NDArray[np.float64]:
    """Tokens that arrived in the window before each time."""
    ordered = sorted(log)
    arrivals = np.array([at for at, _ in ordered])
    total = np.concatenate(([0.0], np.cumsum([tokens for _, tokens in ordered])))
    inside: npt.NDArray[np.float64] = (
        total[np.searchsorted(arrivals, times, "right")] - total[np.searchsorted(arrivals, times - window, "right")]
    )
    return inside
