"""The simulated cases, their bounds and their results."""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.simulated.client import Client, Corpus
from benchmarks.simulated.service import Service, Terms, accepted_before
from benchmarks.simulated.world import run_virtually
from pinecone_embed_async import Quota

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WINDOWS = 10
"""Length of a case in windows."""

STARTING = 0.5
"""Seconds within which several clients start, at random times."""


@dataclass(frozen=True)
class Bounds:
    """Bounds for every seed.

    Attributes:
        used: least accepted tokens, as a fraction of what an ideal sender would get accepted.
        rejected: largest fraction of requests rejected; `None` for no bound.
        fairness: least Jain's index of the clients' tokens; `None` for one client.
    """

    used: float
    rejected: float | None = None
    fairness: float | None = None


@dataclass(frozen=True)
class Case:
    """A case to simulate.

    Attributes:
        name: its name.
        terms: the service's terms.
        bounds: its bounds; `None` if it is only measured.
        knows: whether the clients are given the quota (before it is halved, if it is).
        inputs: tokens per input.
        clients: number of independent clients.
        concurrency: most requests in flight per client.
        counted_from: windows after which rejections are counted.
    """

    name: str
    terms: Terms
    bounds: Bounds | None
    knows: bool = False
    inputs: int = 95
    clients: int = 1
    concurrency: int = 8
    counted_from: int = 0

    @property
    def title(self) -> str:
        """The name with the kind of windows."""
        return f"{self.name}, {self.terms.kind}"


@dataclass(frozen=True)
class Result:
    """The result of a case with one seed.

    Attributes:
        used: accepted tokens, as a fraction of what an ideal sender would get accepted in the same time.
        rejected: fraction of the requests rejected.
        lost: inputs not embedded in the end.
        fairness: Jain's index of the clients' tokens; 1 for one client.
        requests: requests sent.
        accepted: arrivals and tokens of accepted requests, by client.
        rejections: arrivals of rejected requests of all clients.
    """

    used: float
    rejected: float
    lost: int
    fairness: float
    requests: int
    accepted: Sequence[Sequence[tuple[float, int]]] = field(repr=False)
    rejections: Sequence[float] = field(repr=False)


async def _simulate(case: Case, seed: int, windows: int) -> Result:
    service = Service(case.terms, seed)
    corpus = Corpus(case.inputs, seed)
    given = Quota(case.terms.tokens, None, None, case.terms.window) if case.knows else None
    clients = [
        Client(service, corpus, given, seed=f"{seed} {number}", max_concurrency=case.concurrency)
        for number in range(case.clients)
    ]
    rng, end = random.Random(f"start {seed}"), windows * case.terms.window
    async with asyncio.TaskGroup() as group:
        group.create_task(service.serve_tenants(end))
        for client in clients:
            group.create_task(client.work(rng.uniform(0, STARTING) if len(clients) > 1 else 0.0, end))
    for client in clients:
        await client.aclose()
    shares = [accepted_before(client.way.accepted, end) for client in clients]
    since = case.counted_from * case.terms.window
    rejections = sorted(at for client in clients for at in client.way.rejected)
    rejected = sum(since <= at < end for at in rejections)
    accepted = sum(since <= at < end for client in clients for at, _ in client.way.accepted)
    return Result(
        used=sum(shares) / service.best(windows),
        rejected=rejected / max(1, rejected + accepted),
        lost=sum(client.lost for client in clients),
        fairness=jain(shares),
        requests=rejected + accepted,
        accepted=[client.way.accepted for client in clients],
        rejections=rejections,
    )


def simulate(case: Case, seed: int, windows: int = WINDOWS) -> Result:
    """Simulate a case with one seed."""
    return run_virtually(_simulate(case, seed, windows))


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 if all shares are equal, 1/n if one of n has everything.

    Source: R. Jain, D. Chiu and W. Hawe, "A quantitative measure of fairness", 1984.
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


@dataclass(frozen=True)
class Summary:
    """A case with several seeds."""

    case: Case
    results: Sequence[Result]

    @property
    def failures(self) -> list[str]:
        """The violated bounds, in words; empty if all hold."""
        bounds = self.case.bounds
        found = []
        if lost := max(result.lost for result in self.results):
            found.append(f"{lost} inputs lost")
        if bounds is None:
            return found
        used = min(result.used for result in self.results)
        if used < bounds.used:
            found.append(f"used {used:.1%} < {bounds.used:.0%}")
        rejected = max(result.rejected for result in self.results)
        if bounds.rejected is not None and rejected > bounds.rejected:
            found.append(f"rejected {rejected:.2%} > {bounds.rejected:.1%}")
        fairness = min(result.fairness for result in self.results)
        if bounds.fairness is not None and fairness < bounds.fairness:
            found.append(f"fairness {fairness:.3f} < {bounds.fairness}")
        return found

    def as_json(self) -> dict[str, Any]:
        """All figures, without the requests."""
        figures = ("used", "rejected", "lost", "fairness")
        values = {name: [getattr(result, name) for result in self.results] for name in figures}
        bounds = self.case.bounds
        return {
            "case": self.case.name,
            "kind": self.case.terms.kind,
            "requests": sum(result.requests for result in self.results),
            "bounds": None if bounds is None else vars(bounds),
            "failures": self.failures,
            **{
                name: {"min": min(all_), "median": statistics.median(all_), "max": max(all_), "seeds": all_}
                for name, all_ in values.items()
            },
        }


def summarise(case: Case, seeds: Iterable[int], windows: int = WINDOWS) -> Summary:
    """Simulate a case with several seeds."""
    return Summary(case, [simulate(case, seed, windows) for seed in seeds])


SMALL, LARGE = 250_000, 1_000_000
_HALVED = (3, 6)

_KNOWING = (("known", True, True), ("unknown", False, True), ("unknown, no text", False, False))
"""What the clients know about a quota: in words, whether they are given it, and whether a rejection's text names it."""


def _both(**terms: Any) -> tuple[Terms, Terms]:
    return Terms(kind="fixed", **terms), Terms(kind="sliding", **terms)


def must_hold() -> list[Case]:
    """The cases with bounds."""
    cases = []
    known = Bounds(used=0.98, rejected=0.005)
    longer = Bounds(used=0.97, rejected=0.005)
    for tokens in (SMALL, LARGE):
        for terms in _both(tokens=tokens):
            cases.append(Case(f"{tokens:,} known", terms, known, knows=True))
            cases += (
                Case(f"{tokens:,} known, inputs of {inputs:,}", terms, longer, knows=True, inputs=inputs)
                for inputs in (500, 2_000)
            )
            cases.append(Case(f"{tokens:,} unknown", terms, Bounds(used=0.95, rejected=0.03)))
        cases += (
            Case(f"{tokens:,} unknown, no text", terms, Bounds(used=0.85, rejected=0.1))
            for terms in _both(tokens=tokens, text=False)
        )
    crowd = Bounds(used=0.85, rejected=0.1, fairness=0.9)
    cases += (
        Case("16 clients on 1,000,000, no text", terms, crowd, clients=16, concurrency=1, counted_from=2)
        for terms in _both(tokens=LARGE, text=False)
    )
    halved = Bounds(used=0.85)
    for tokens in (SMALL, LARGE):
        for terms in _both(tokens=tokens, halved=_HALVED):
            cases.append(Case(f"{tokens:,} halved, was known", terms, halved, knows=True))
            cases.append(Case(f"{tokens:,} halved, unknown", terms, halved))
        cases += (
            Case(f"{tokens:,} halved, unknown, no text", terms, halved)
            for terms in _both(tokens=tokens, text=False, halved=_HALVED)
        )
    return sorted(cases, key=_place)


def _place(case: Case) -> tuple[bool, bool, int, bool, bool, str]:
    terms = case.terms
    return terms.halved is not None, case.clients > 1, terms.tokens, not case.knows, not terms.text, case.name


def observed() -> list[Case]:
    """The cases that are only measured."""
    return [
        *(
            Case("16 clients on 1,000,000, no text, eight in flight each", terms, None, clients=16, counted_from=2)
            for terms in _both(tokens=LARGE, text=False)
        ),
        *(
            Case(f"{SMALL:,} {name}, windows begin at random", Terms(SMALL, text=text, phase=None), None, knows=knows)
            for name, knows, text in _KNOWING
        ),
        *(
            Case(f"{SMALL:,} {name}, long-tailed latency", terms, None, knows=knows)
            for name, knows, text in _KNOWING
            for terms in _both(tokens=SMALL, text=text, latency="long-tailed")
        ),
        *(
            Case(f"{LARGE:,} {name}, others ask for 30%", terms, None, knows=knows)
            for name, knows, text in _KNOWING
            for terms in _both(tokens=LARGE, text=text, tenants=0.3)
        ),
        *(
            Case(f"{SMALL:,} halved for good, {name}", terms, None, knows=knows)
            for name, knows, text in (("was known", True, True), *_KNOWING[1:])
            for terms in _both(tokens=SMALL, text=text, halved=(3, WINDOWS))
        ),
    ]
