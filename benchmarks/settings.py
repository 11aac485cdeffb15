"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.competitors import COMPETITORS
from benchmarks.harness import Job
from benchmarks.seeded import MAX_BATCH, Load

if TYPE_CHECKING:
    from benchmarks.competitors import Competitor

MAIN_LOAD = Load()
"""Answers as the service gives them: 96 rows of 1024 half-precision numbers."""

LOADS = {load.name: load for load in (MAIN_LOAD, Load(dimension=2048), Load(precision="full"), Load(kind="sparse"))}

SLOWEST = 500
"""Inputs of 1024 dimensions per second below which a competitor is given up."""


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        rounds: Measurements of each competitor.
        scale: The inputs of every measurement are multiplied by this.
        concurrency: Requests in flight at most.
        loads: Names of the loads of the throughput suite.
        only: Names of the competitors; all that are installed if empty.
    """

    rounds: int = 7
    scale: float = 1.0
    concurrency: int = 8
    loads: tuple[str, ...] = tuple(LOADS)
    only: tuple[str, ...] = ()

    def scaled(self, inputs: int) -> int:
        """Return so many inputs, scaled, in full requests; one request at least."""
        return max(1, round(inputs * self.scale / MAX_BATCH)) * MAX_BATCH

    def competitors(self, load: Load, names: tuple[str, ...] = ()) -> list[Competitor]:
        """Return the competitors, of those named or of all, that are wanted, installed and return such vectors."""
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
        """Return the competitors that cannot take part, and why."""
        wanted = self.only or tuple(COMPETITORS)
        return {
            name: f"{competitor.missing} is not installed"
            for name, competitor in COMPETITORS.items()
            if name in wanted and competitor.missing is not None
        }


def job_of(settings: Settings, load: Load, inputs: int) -> Job:
    """Return a measurement of so many inputs, with a warm-up of twice as many requests as may be in flight."""
    return Job(
        inputs=inputs,
        warm_up=2 * settings.concurrency * MAX_BATCH,
        concurrency=settings.concurrency,
        limit=60 + inputs * max(1, load.dimension / 1024) / SLOWEST,
    )
