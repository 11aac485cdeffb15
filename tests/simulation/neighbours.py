"""Code that is not the client's and meets it: caches, back ends and hooks that work, dawdle, raise or answer rubbish."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from pinecone_embed_async import Event, QuotaDemand, QuotaGrant, QuotaOutcome, SharedQuota

FAULTS = (OSError, RuntimeError, KeyError, ValueError, ConnectionError, MemoryError, TimeoutError, LookupError)


class NeighbourError(Exception):
    """What a neighbour of the simulation raises, to be told from everything else."""


class SimulatedCache:
    """A cache of one client over what all clients have kept.

    Args:
        kept: shared by the caches of all clients.
        behaviour: as in `ClientPlan.cache`.
        rng: of its draws.
    """

    def __init__(self, kept: dict[bytes, bytes], behaviour: str, rng: random.Random) -> None:
        self._kept = kept
        self._behaviour = behaviour
        self._rng = rng

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """See `Cache.get_many`."""
        await self._misbehave()
        values = [self._kept.get(key) for key in keys]
        if self._behaviour == "forgets":
            return [None if self._rng.random() < 0.5 else value for value in values]
        if self._behaviour == "short" and self._rng.random() < 0.5:
            return values[:-1]
        if self._behaviour == "garbage":
            return [value if self._rng.random() < 0.5 else self._spoilt(value or b"PED1") for value in values]
        return values

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See `Cache.put_many`."""
        await self._misbehave()
        self._kept.update(entries)

    async def _misbehave(self) -> None:
        if self._behaviour == "slow":
            await asyncio.sleep(self._rng.random())
        if self._behaviour == "raises" and self._rng.random() < 0.5:
            raise FAULTS[int(self._rng.random() * len(FAULTS))]("a fault of the simulated cache")

    def _spoilt(self, value: bytes) -> bytes:
        at = int(self._rng.random() * len(value))
        return value[:at] + bytes([int(self._rng.random() * 256)]) + value[at + int(self._rng.random() * 3) :]


class SimulatedBackend:
    """Deals out a quota from elsewhere, with a delay; sees to it that every grant is settled once.

    Args:
        quota: that it deals out.
        fails: part of the turns that end with an exception.
        rng: of its draws.

    Attributes:
        misuse: what the client did wrong, in words.
    """

    def __init__(self, quota: SharedQuota, fails: float, rng: random.Random) -> None:
        self._quota = quota
        self._fails = fails
        self._rng = rng
        self._open: dict[QuotaGrant, None] = {}
        self.misuse: list[str] = []

    @property
    def unsettled(self) -> int:
        """Grants that nobody has settled."""
        return len(self._open)

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        """See `QuotaBackend.acquire`."""
        await asyncio.sleep(self._rng.random() / 50)
        if self._rng.random() < self._fails:
            raise NeighbourError("a fault of the simulated back end")
        grant = await self._quota.acquire(demand)
        self._open[grant] = None
        return grant

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """See `QuotaBackend.settle`."""
        if grant not in self._open:
            self.misuse.append(f"a grant was settled twice, now as {outcome.kind}")
            return
        del self._open[grant]
        self._quota.settle(grant, outcome)


class Recorder:
    """A hook that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


def raising_hook(event: Event) -> None:
    """Raise whatever it is told."""
    raise NeighbourError(f"a fault of the simulated hook at {type(event).__name__}")
