"""Other people's code that the client calls: caches, backends and hooks that work, hang, raise or return garbage."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async import QuotaGrant
from pinecone_embed_async._cache.values import encode_dense

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from pinecone_embed_async import Event, QuotaDemand, QuotaOutcome, SharedQuota

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
"""What neighbours raise; the last ones look like the end of an iteration or the caller's cancellation."""

MISLEADING = FAULTS[-3:]

LIES = (5, "text", [1.5], {"a": None}, True, float("nan"), b"", bytearray(b"PED1"), memoryview(b"PED1\0\0\0\0"))
"""What a cache returns for a value."""

PATIENCE = 1.0
"""How long the client waits for a neighbour that it has cancelled."""

HANG_SECONDS = 40.0
"""Time of a look-up in a cache that hangs: not for ever, since not every call has a deadline."""


class NeighbourError(Exception):
    """An error of a simulated neighbour, distinct from every other."""


_FAULTS_BY_NAME: dict[str, type[BaseException]] = {kind.__name__: kind for kind in (*FAULTS, NeighbourError)}


def fault(kind: str, whose: str) -> BaseException:
    """What a neighbour raises.

    Args:
        kind: the name of the exception, one of `FAULTS` or `NeighbourError`.
        whose: the neighbour.
    """
    return _FAULTS_BY_NAME[kind](f"a fault of the simulated {whose}")


def is_fault(error: object) -> bool:
    """Whether an error is what a neighbour raised, or what Python makes of an end that a generator raises."""
    if isinstance(error, RuntimeError) and "generator raised Stop" in str(error):
        return True
    return isinstance(error, BaseException) and str(error.args[:1]).startswith("('a fault of the simulated ")


_SCALARS = (None, True, False, 0, 1, -1, 10**309, 1.5, -0.0, math.nan, math.inf, "", "\ud800", "{0}-odd", b"", b"{0}")


def json_like(rng: random.Random, name: str, depth: int = 2) -> Any:
    """Any JSON value, or bytes.

    Args:
        rng: source of the draws.
        name: part of its texts.
        depth: depth of lists and dicts.
    """
    kind = rng.random() if depth else 0.0
    if kind < 0.6:
        value = _SCALARS[int(rng.random() * len(_SCALARS))]
        return value.format(name) if isinstance(value, str) else value
    inner = [json_like(rng, name, depth - 1) for _ in range(int(rng.random() * 4))]
    return inner if kind < 0.8 else dict(zip(("text", "a", ""), inner, strict=False))


class Stalls:
    """What hangs in the neighbours of a run, until the run is over.

    Attributes:
        staying: tasks of neighbours that have swallowed their cancellation and go on, and since when.
        timers: timers of those that will go on for some time only.
        is_over: whether the run is over, so that nothing more hangs.
    """

    def __init__(self) -> None:
        self._waits: dict[asyncio.Future[None], None] = {}
        self._took: list[float] = []
        self.staying: dict[asyncio.Task[Any], float] = {}
        self.timers: list[asyncio.TimerHandle] = []
        self.is_over = False

    async def hang(self, rng: random.Random, *, stays: bool) -> None:
        """Hang until the run is over, or until cancelled.

        Args:
            rng: of the draws.
            stays: whether it swallows its cancellation and goes on, perhaps for a time only.
        """
        if self.is_over:
            return
        loop = asyncio.get_running_loop()
        wait, end = loop.create_future(), loop.create_future()
        self._waits.update({wait: None, end: None})
        try:
            await wait
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not stays or task is None:
                raise
            self.staying[task] = loop.time()
            task.add_done_callback(self._ended)
            seconds = (0.5, 3.0, math.inf)[int(rng.random() * 3)]
            if seconds < math.inf:
                self.timers.append(loop.call_later(seconds, _wake, end))
            await self._to_the_end(end)

    @staticmethod
    async def _to_the_end(end: asyncio.Future[None]) -> None:
        while not end.done():
            try:
                await asyncio.wait([end])
            except asyncio.CancelledError:
                continue

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._took.append(asyncio.get_running_loop().time() - self.staying.pop(task))

    def went_on(self, seconds: float) -> int:
        """How many went on for longer than `seconds` after they were cancelled."""
        return len(self.staying) + sum(took > seconds for took in self._took)

    def end(self) -> None:
        """Wake everything that hangs."""
        self.is_over = True
        for wait in self._waits:
            _wake(wait)
        self._waits.clear()


def _wake(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


class SimulatedCache:
    """A cache of one client over what all clients have kept.

    Args:
        kept: shared by the caches of all clients.
        behaviour: as in `ClientPlan.cache`.
        rng: of its draws.
        stalls: what hangs in it.
    """

    def __init__(self, kept: dict[bytes, bytes], behaviour: str, rng: random.Random, stalls: Stalls) -> None:
        self._kept = kept
        self._behaviour = behaviour
        self._rng = rng
        self._stalls = stalls

    async def get_many(self, keys: Sequence[bytes]) -> Any:
        """See `Cache.get_many`."""
        await self._misbehave()
        values = [self._kept.get(key) for key in keys]
        if self._behaviour == "lies":
            return [self._lie(value) for value in values] if self._rng.random() < 0.8 else self._one_of(LIES)
        if self._behaviour == "answers":
            return self._odd_values(values)
        if self._behaviour == "forgets":
            return [None if self._rng.random() < 0.5 else value for value in values]
        if self._behaviour == "short" and self._rng.random() < 0.5:
            return values[:-1]
        if self._behaviour == "garbage":
            return [value if self._rng.random() < 0.5 else self._spoilt(value or b"PED1") for value in values]
        return values

    async def put_many(self, entries: Mapping[bytes, bytes]) -> Any:
        """See `Cache.put_many`."""
        if self._behaviour == "hangs" and self._rng.random() < 0.3:
            await asyncio.Event().wait()
        await self._misbehave()
        self._kept.update(entries)
        return json_like(self._rng, "kept") if self._behaviour == "answers" else None

    async def _misbehave(self) -> None:
        if self._behaviour == "hangs" and self._rng.random() < 0.2:
            await asyncio.sleep(HANG_SECONDS)
        if self._behaviour == "slow":
            await asyncio.sleep(self._rng.random())
        if self._behaviour in ("stops", "stays") and self._rng.random() < 0.3:
            await self._stalls.hang(self._rng, stays=self._behaviour == "stays")
        if self._behaviour == "raises" and self._rng.random() < 0.5:
            raise FAULTS[int(self._rng.random() * len(FAULTS))]("a fault of the simulated cache")

    def _one_of(self, options: Sequence[Any]) -> Any:
        return options[int(self._rng.random() * len(options))]

    def _odd_values(self, values: list[bytes | None]) -> Any:
        """Anything at all, or a list of the right length, or nearly, with anything in it."""
        if self._rng.random() < 0.3:
            return json_like(self._rng, "found", 3)
        odd: list[Any] = [value if self._rng.random() < 0.5 else json_like(self._rng, "found") for value in values]
        if self._rng.random() < 0.2:
            odd.append(None)
        return tuple(odd) if self._rng.random() < 0.2 else odd

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
    """A quota backend with a delay, which checks that every grant is settled once.

    Args:
        quota: the quota that it serves.
        behaviour: as in `ClientPlan.backend`.
        fails: part of the calls that end with an exception.
        rng: source of its draws.
        stalls: what hangs in it.

    Attributes:
        misuse: what the client did wrong, in words.
        is_healed: whether it works from now on.
    """

    def __init__(self, quota: SharedQuota, behaviour: str, fails: float, rng: random.Random, stalls: Stalls) -> None:
        self._quota = quota
        self._behaviour = behaviour
        self._fails = fails
        self._rng = rng
        self._stalls = stalls
        self._open: dict[QuotaGrant, None] = {}
        self.misuse: list[str] = []
        self.is_healed = False

    @property
    def unsettled(self) -> int:
        """Grants that are not settled."""
        return len(self._open)

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """The timers of the requests that wait for its quota."""
        return [of.timer for of in self._quota.gate._loops.values() if isinstance(of.timer, asyncio.TimerHandle)]

    async def acquire(self, demand: QuotaDemand) -> Any:
        """See `QuotaBackend.acquire`."""
        await asyncio.sleep(self._rng.random() / 50)
        if not self.is_healed:
            await self._misbehave()
            if self._behaviour == "answers" and self._rng.random() < 0.2:
                return self._odd_grant()
        grant = await self._quota.acquire(demand)
        self._open[grant] = None
        return grant

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> Any:
        """See `QuotaBackend.settle`."""
        if grant not in self._open:
            self.misuse.append(f"a grant was settled twice, now as {outcome.kind}")
            return None
        del self._open[grant]
        if grant.ticket is not None:
            self._quota.settle(grant, outcome)
        if self._fails and self._rng.random() < 2 * self._fails:
            raise FAULTS[int(self._rng.random() * len(FAULTS))]("a fault of the simulated back end")
        return json_like(self._rng, "settled") if self._behaviour == "answers" else None

    async def _misbehave(self) -> None:
        if self._rng.random() < self._fails / 4:
            await asyncio.sleep(HANG_SECONDS)
        if self._rng.random() < self._fails:
            raise FAULTS[int(self._rng.random() * len(FAULTS))]("a fault of the simulated back end")
        if self._behaviour in ("stops", "stays") and self._rng.random() < 0.1:
            await self._stalls.hang(self._rng, stays=self._behaviour == "stays")

    def _odd_grant(self) -> Any:
        """Anything at all, or a grant of anything; a usable one must be settled."""
        value = json_like(self._rng, "granted")
        if self._rng.random() < 0.5:
            return value
        grant = QuotaGrant(value)
        if type(value) is int and value >= 1:
            self._open[grant] = None
        return grant


class Recorder:
    """A hook that keeps its events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)


class RaisingHook:
    """A hook that raises at each event, one kind of error after the other, and that returns something now and then."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, event: Event) -> Any:
        self._count += 1
        if self._count % 7 == 0:
            return {"text": [self._count, None]}
        raise FAULTS[self._count % len(FAULTS)](f"a fault of the simulated hook at {type(event).__name__}")
