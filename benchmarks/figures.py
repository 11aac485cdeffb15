"""Computes figures from measurements: medians, ratios, percentiles. Pure."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Round = Mapping[str, Any]
    """The figures of one measurement, by name."""


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` per cent of the values do not exceed; 0 if there are none.

    It does not interpolate: the result is a measured value ("nearest rank").
    """
    if not values:
        return 0.0
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def derived(figures: Round, *, inputs: int, requests: int) -> dict[str, Any]:
    """Add derived figures: rates per input and request, and memory beyond what was used before."""
    return {
        **figures,
        "inputs_per_second": inputs / figures["seconds"],
        "cpu_us_per_input": 1e6 * figures["cpu_seconds"] / inputs,
        "cpu_ms_per_request": 1e3 * figures["cpu_seconds"] / requests,
        "memory_bytes": figures["peak_bytes"] - figures["peak_bytes_before"],
        "memory_over_result_bytes": figures["peak_bytes"] - figures["peak_bytes_before"] - figures["result_bytes"],
    }


FIGURES = (
    "seconds",
    "inputs_per_second",
    "cpu_us_per_input",
    "cpu_ms_per_request",
    "lag_p99_ms",
    "lag_max_ms",
    "memory_bytes",
    "memory_over_result_bytes",
)
"""The figures that have medians."""


def medians(rounds: Sequence[Round]) -> dict[str, float]:
    """Return each figure's median over the rounds."""
    return {figure: statistics.median(one[figure] for one in rounds) for figure in FIGURES}


def ratio(rounds: Sequence[Round], base: Sequence[Round], figure: str) -> float:
    """Return the median over the rounds of a figure's ratio to another competitor's in the same round.

    Round by round, because a machine that is slow for a while is slow for both.
    """
    return statistics.median(ratios(rounds, base, figure))


def ratios(rounds: Sequence[Round], base: Sequence[Round], figure: str) -> list[float]:
    """Return a figure's ratios to another competitor's, round by round."""
    return [one[figure] / other[figure] for one, other in zip(rounds, base, strict=True)]


def difference(rounds: Sequence[Round], base: Sequence[Round], figure: str) -> float:
    """Return the median over the rounds of a figure's difference from another competitor's in the same round."""
    differences: list[float] = [one[figure] - other[figure] for one, other in zip(rounds, base, strict=True)]
    return statistics.median(differences)
