"""Code that is not the client's and meets it: caches, back ends and hooks that work, dawdle, raise or answer rubbish."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._cache import encode_dense

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from pinecone_embed_async import Event, QuotaDemand, QuotaGrant, QuotaOutcome, SharedQuota

FAULTS: tuple[type[BaseException], ...] = (
    OSError,
    RuntimeError,
    KeyError,
    ValueError,
    ConnectionError,
    MemoryError,
    TimeoutError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    ZeroDivisionError,
    OverflowError,
    UnicodeError,
    EOFError,
    NotImplementedError,
    AssertionError,
    StopIteration,
    StopAsyncIteration,
    asyncio.CancelledError,
)
"""What neighbours raise; the last ones would read as an end or as a cancellation of the caller's."""

MISLEADING = FAULTS[-3:]

LIES = (5, "text", [1.5], {"a": None}, True, float("nan"), b"", bytearray(b"PED1"), memoryview(b"PED1\0\0\0\0"))
"""What a cache gives for a value."""


HANG_SECONDS = 40.0
"""How long a cache that hangs takes to look something up: for ever only if a call has a deadline, and not every one has."""


class NeighbourError(Exception):
    """What a neighbour of the simulation raises, to be told from everything else."""


def is_of_a_generator(error: object) -> bool:
    """Whether it is what Python makes of an end that a generator raises."""
    return isinstance(error, RuntimeError) and "generator raised Stop" in str(error)


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
        if self._behaviour == "lies":
            return [self._lie(value) for value in values] if self._rng.random() < 0.8 else self._one_of(LIES)
        if self._behaviour == "forgets":
            return [None if self._rng.random() < 0.5 else value for value in values]
        if self._behaviour == "short" and self._rng.random() < 0.5:
            return values[:-1]
        if self._behaviour == "garbage":
            return [value if self._rng.random() < 0.5 else self._spoilt(value or b"PED1") for value in values]
        return values

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See `Cache.put_many`."""
        if self._behaviour == "hangs" and self._rng.random() < 0.3:
            await asyncio.Event().wait()
        await self._misbehave()
        self._kept.update(entries)

    async def _misbehave(self) -> None:
        if self._behaviour == "hangs" and self._rng.random() < 0.2:
            await asyncio.sleep(HANG_SECONDS)
        if self._behaviour == "slow":
            await asyncio.sleep(self._rng.random())
        if self._behaviour == "raises" and self._rng.random() < 0.5:
            raise FAULTS[int(self._rng.random() * len(FAULTS))]("a fault of the simulated cache")

    def _one_of(self, options: Sequence[Any]) -> Any:
        return options[int(self._rng.random() * len(options))]

    def _lie(self, value: bytes | None) -> Any:
        if value is None or self._rng.random() < 0.5:
            return self._one_of(LIES)
        if self._rng.random() < 0.5:
            return bytearray(value)
        vector = np.frombuffer(value[8:], np.float32)
        if value[:4] != b"PED1" or not len(vector):
            return None
        return encode_dense(np.full((1, len(vector)), np.nan, np.float32))[0]

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
        if self._rng.random() < self._fails / 4:
            await asyncio.sleep(HANG_SECONDS)
        if self._rng.random() < self._fails:
            raise FAULTS[int(self._rng.random() * len(FAULTS))]("a fault of the simulated back end")
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


class RaisingHook:
    """A hook that raises whatever it is told, one kind of error after the other."""

    def __init__(self) -> None:
        self._told = 0

    def __call__(self, event: Event) -> None:
        self._told += 1
        raise FAULTS[self._told % len(FAULTS)](f"a fault of the simulated hook at {type(event).__name__}")
