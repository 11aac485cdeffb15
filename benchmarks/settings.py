"""How much to measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.competitors import COMPETITORS
from benchmarks.harness import Job
from benchmarks.seeded import MAX_BATCH, Load

if TYPE_CHECKING:
    from benchmarks.competitors import Competitor

MAIN_LOAD = Load()
"""Answers like the service's: 96 rows of 1024 half-precision numbers."""

LOADS = {load.name: load for load in (MAIN_LOAD, Load(dimension=2048), Load(precision="full"), Load(kind="sparse"))}

SLOWEST = 500
"""Inputs of 1024 dimensions per second below which a competitor is stopped."""


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        rounds: Measurements of each competitor.
        scale: Factor for the inputs of every measurement.
        concurrency: Most requests in flight.
        loads: Names of the loads of the throughput suite.
        only: Names of the competitors; if empty, all that are installed.
    """

    rounds: int = 7
    scale: float = 1.0
    concurrency: int = 8
    loads: tuple[str, ...] = tuple(LOADS)
    only: tuple[str, ...] = ()

    def scaled(self, inputs: int) -> int:
        """Return the scaled number of inputs, rounded to full requests; at least one request."""
        return max(1, round(inputs * self.scale / MAX_BATCH)) * MAX_BATCH

    def competitors(self, load: Load, names: tuple[str, ...] = ()) -> list[Competitor]:
        """Return the wanted competitors, of `names` if given, that are installed and support the load's vectors."""
        wanted = self.only or tuple(COMPETITORS)
        return [
            competitor
            for name, competitor in COMPETITORS.items()
            if name in wanted
            and (not names or name in names)
            and competitor.missing is None
            and load.kind in competitor.kinds
        ]

    def left_out(self) -> dict[str, str]:
        """Return the competitors that are not installed, and why they are left out."""
        wanted = self.only or tuple(COMPETITORS)
        return {
            name: f"{competitor.missing} is not installed"
            for name, competitor in COMPETITORS.items()
            if name in wanted and competitor.missing is not None
        }


def job_of(settings: Settings, load: Load, inputs: int) -> Job:
    """Return a measurement of `inputs` inputs, with a warm-up of twice as many requests as may be in flight."""
    return Job(
        inputs=inputs,
        warm_up=2 * settings.concurrency * MAX_BATCH,
        concurrency=settings.concurrency,
        limit=60 + inputs * max(1, load.dimension / 1024) / SLOWEST,
    )
