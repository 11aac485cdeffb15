"""The effect of other values of the limiter's constants: each one step smaller and one step larger, the others unchanged."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.simulated.cases import must_hold, simulate
from pinecone_embed_async._rate_limit import adaptive_limit as _found
from pinecone_embed_async._rate_limit import token_limit as _tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from benchmarks.simulated.cases import Case, Result

NEIGHBOURS: Mapping[str, tuple[float, float]] = {
    "CUT": (0.85, 0.96),
    "GROWTH": (0.01, 0.04),
    "GROWTH_REQUESTS": (0.7, 2.8),
    "CALM": (3, 8),
    "DEEP_CUT": (0.65, 0.9),
    "RETURN": (10.0, 160.0),
    "FADING": (0.94, 1.0),
    "SMOOTHING": (2, 8),
}
"""Constants of the limiter and their neighbouring values."""


@dataclass(frozen=True)
class Variant:
    """One constant with another value; an empty name for the chosen constants."""

    name: str = ""
    value: float = 0.0

    @property
    def title(self) -> str:
        """Its title in the table."""
        return f"{self.name} {self.value:g}" if self.name else "as chosen"


def variants() -> list[Variant]:
    """All variants, the chosen constants first."""
    return [Variant(), *(Variant(name, value) for name, values in NEIGHBOURS.items() for value in values)]


@contextlib.contextmanager
def _constants(variant: Variant) -> Iterator[None]:
    if not variant.name:
        yield
        return
    module = _module_of(variant.name)
    chosen = getattr(module, variant.name)
    setattr(module, variant.name, variant.value)
    try:
        yield
    finally:
        setattr(module, variant.name, chosen)


def _module_of(name: str) -> ModuleType:
    return _found if hasattr(_found, name) else _tokens


def chosen_value(name: str) -> float:
    """The current value of a constant."""
    value: float = getattr(_module_of(name), name)
    return value


def sweep_cases() -> list[Case]:
    """The cases these constants are for: a limit that no rejection names."""
    return [case for case in must_hold() if not case.knows and not case.terms.text]


def simulate_variant(job: tuple[Variant, Case, int]) -> Result:
    """Simulate a case with one seed under a variant."""
    variant, case, seed = job
    with _constants(variant):
        return simulate(case, seed)


def figures(results: Sequence[tuple[Case, Result]]) -> dict[str, Any]:
    """A variant's worst results over seeds and cases: for single clients, for the crowd, and for a halved quota."""
    single = [result for case, result in results if case.clients == 1 and case.terms.halved is None]
    crowd = [result for case, result in results if case.clients > 1]
    halved = [result for case, result in results if case.terms.halved is not None]
    return {
        "single_used": min(result.used for result in single),
        "single_rejected": max(result.rejected for result in single),
        "crowd_used": min(result.used for result in crowd),
        "crowd_rejected": max(result.rejected for result in crowd),
        "crowd_fairness": min(result.fairness for result in crowd),
        "halved_used": min(result.used for result in halved),
        "lost": max(result.lost for _, result in results),
    }
