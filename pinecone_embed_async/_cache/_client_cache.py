"""How a client looks things up in its cache, and keeps what it has paid for."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pinecone_embed_async._cache._keys import KeyMaker
from pinecone_embed_async._cache._values import Found, decode_values, encode_dense, encode_sparse
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._foreign import Neighbour, until_done
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._cache._protocol import Cache
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._engine import Destination
    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._plan import PlannedRequest
    from pinecone_embed_async._wire import Answer

LOOKED_UP_AT_ONCE = 1024
"""Texts for which the cache is asked at once: a bounded number, and so many that the way there and back does not count."""

ASKED_INSTEAD = "the service is asked instead"
ASKED_AGAIN = "the service is asked instead when they are needed again"

READ_AT_ONCE = 256
"""Texts of which the vectors are checked and copied before the event loop is given back: 1 MiB of vectors of 1024 numbers,
which takes half the time of an answer's decode."""

KEEP_SECONDS = 5.0
"""How long keeping may take: a file's transaction takes milliseconds, and what a cluster shares answers in less or is as
good as gone. Nobody waits longer for it than for requests in flight once a job has ended."""

KEEP_PAUSE_SECONDS = 60.0
"""How long nothing is kept after keeping took too long, for every request under way would wait as long again."""


class ClientCache:
    """A cache as one client uses it: what goes wrong in it is logged, and costs requests only.

    Args:
        cache: keeps the values.
        address: of the service, for the keys.
        api_version: of its API.
        model: the name that requests carry.
        clock: the time.

    Attributes:
        hits: texts whose vectors were found.
        misses: texts whose vectors were looked for and not found.
    """

    def __init__(self, cache: Cache, *, address: str, api_version: str, model: str, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._neighbour = Neighbour("the cache", clock)
        self._keeps_again_at = -math.inf
        self._common = (address, api_version, model)
        self._complained: set[str] = set()
        self._turns: dict[asyncio.AbstractEventLoop, _Turn] = {}
        self.hits = 0
        self.misses = 0

    def __repr__(self) -> str:
        return f"<ClientCache {self.hits} hits, {self.misses} misses>"

    def key_maker(self, parameters: bytes) -> KeyMaker:
        """What makes the keys of texts with these parameters, as JSON with sorted names."""
        return KeyMaker(*self._common, parameters)

    def read(self, values: Sequence[Any], vector_type: VectorType | None, dimension: int | None) -> Found:
        """The vectors in what the cache gave; what is none is logged, and counts as not found.

        Args:
            values: that it gave.
            vector_type: the kind expected; `None` if any will do.
            dimension: numbers per dense vector expected; `None` if any will do.
        """
        found = decode_values(values, vector_type, dimension)
        for cause, count in found.refused.items():
            if count:
                self._log(cause, "%d values of the cache %s; the service is asked instead", count, cause)
        self.hits += len(found.rows)
        self.misses += found.count - len(found.rows)
        return found

    async def value(self, key: bytes) -> Any:
        """What the cache has for one key, looked up together with those that are asked for in the same turn of the loop.

        Whoever is cancelled leaves; the look-up ends when the last one has left.

        Raises:
            ConfigurationError: the cache cannot be what the caller meant.
        """
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = _Turn()
            turn.task = loop.create_task(self._look_up(loop, turn), name="look up single inputs")
        turn.keys.append(key)
        turn.waiting += 1
        task = turn.task
        try:
            await asyncio.wait([task])
        finally:
            turn.waiting -= 1
            if not turn.waiting and not task.done():
                # Whoever asks from now on needs another.
                self._close_turn(loop, turn)
                task.cancel()
                await until_done(task)
        if turn.error is not None:
            # Each has a traceback of its own.
            raise copy.copy(turn.error)
        return turn.values.get(key)

    async def _look_up(self, loop: asyncio.AbstractEventLoop, turn: _Turn) -> None:
        """Look up for all who ask in this turn."""
        try:
            await asyncio.sleep(0)
        finally:
            self._close_turn(loop, turn)
        keys = list(dict.fromkeys(turn.keys))
        try:
            turn.values = dict(zip(keys, await self.values(keys), strict=True))
        except ConfigurationError as error:
            turn.error = error.with_traceback(None)

    def _close_turn(self, loop: asyncio.AbstractEventLoop, turn: _Turn) -> None:
        if self._turns.get(loop) is turn:
            del self._turns[loop]

    def keeper(self, destination: Destination, maker: KeyMaker) -> Keeper:
        """What keeps the vectors of all answers of a call or stream.

        Args:
            destination: where the rows go.
            maker: makes the keys.
        """
        return Keeper(destination, lambda texts, values, until: self._keep(texts, maker, values, until))

    async def _keep(self, texts: Sequence[str], maker: KeyMaker, values: list[bytes], until: float | None) -> None:
        entries = dict(zip(maker.keys_of(texts), values, strict=True))
        # Whoever reports errors with the locals of their frames is shown no texts.
        del texts
        now = self._clock.time()
        if now < self._keeps_again_at or self._neighbour.is_stuck:
            return
        end = now + KEEP_SECONDS
        if until is not None and until <= now:
            self._complain("keep vectors in", "no time is left", ASKED_AGAIN)
            return
        try:
            await self._neighbour.ask(_put(self._cache, entries), until=end if until is None else min(until, end))
        except ConfigurationError:
            # The look-up has raised it already, or will.
            pass
        except asyncio.CancelledError:
            self._complain("keep vectors in", "the call was cancelled", ASKED_AGAIN)
            raise
        except Exception as error:  # noqa: BLE001 - a cache may be anything, and is never a reason to fail
            now = self._clock.time()
            if now >= end:
                self._keeps_again_at = now + KEEP_PAUSE_SECONDS
            self._complain("keep vectors in", _shown(error), ASKED_AGAIN)

    async def values(self, keys: list[bytes]) -> Sequence[Any]:
        """What the cache has for some keys, which may be anything; nothing if it fails.

        Raises:
            ConfigurationError: the cache cannot be what the caller meant.
        """
        if self._neighbour.is_stuck:
            self._complain("look vectors up in", "what was left behind has not ended", ASKED_INSTEAD)
            return [None] * len(keys)
        try:
            values = await self._neighbour.ask(_get(self._cache, keys))
            if isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray, memoryview)):
                # Of its own class, which may be anybody's, nothing is needed any more.
                taken = list(values)
                if len(taken) == len(keys):
                    return taken
                problem = f"get_many gave {len(taken)} values for {len(keys)} keys"
            else:
                problem = f"get_many gave {type(values).__name__}; it must give a sequence, a value or None for each key"
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            problem = _shown(error)
        self._complain("look vectors up in", problem, ASKED_INSTEAD)
        return [None] * len(keys)

    def _complain(self, doing: str, problem: str, consequence: str) -> None:
        self._log(doing, "could not %s the cache (%s); %s", doing, problem, consequence)

    def _log(self, cause: str, message: str, *args: object) -> None:
        """Log it, as a warning once for each cause: it may happen with every request."""
        level = logger.debug if cause in self._complained else logger.warning
        self._complained.add(cause)
        level(message, *args)


async def _get(cache: Cache, keys: list[bytes]) -> Any:
    return await cache.get_many(keys)


async def _put(cache: Cache, entries: Mapping[bytes, bytes]) -> None:
    await cache.put_many(entries)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _Turn:
    """The single look-ups of one turn of the event loop.

    Attributes:
        keys: asked for.
        waiting: callers that wait for it.
        task: looks them up.
        values: that were found.
        error: that the callers are to be told.
    """

    __slots__ = ("error", "keys", "task", "values", "waiting")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.waiting = 0
        self.task: asyncio.Task[None]
        self.values: dict[bytes, Any] = {}
        self.error: ConfigurationError | None = None


class Keeper:
    """A destination that passes everything on, and keeps what was answered once it is in place.

    Args:
        destination: where the rows go.
        keep: keeps the values of some texts.
    """

    def __init__(
        self, destination: Destination, keep: Callable[[Sequence[str], list[bytes], float | None], Awaitable[None]]
    ) -> None:
        self._destination = destination
        self._keep = keep
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._answered: dict[int, tuple[PlannedRequest, list[bytes]]] = {}

    def __repr__(self) -> str:
        return f"<Keeper, {len(self._answered)} answers to keep>"

    @property
    def dimension(self) -> int | None:
        """See `Destination`."""
        return self._destination.dimension

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """See `Destination`."""
        rows = self._destination.rows(request, dimension)
        if not request.is_probe:
            self._rows[request.start] = rows
        return rows

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """See `Destination`."""
        return self._destination.names(request)

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """See `Destination`. Nothing of an answer with tokens is kept, for they are parts of the texts."""
        if not request.is_probe:
            rows = self._rows.pop(request.start, None)
            if answer.sparse is None:
                values = [] if rows is None else encode_dense(rows)
            else:
                values = encode_sparse(answer.sparse) if answer.sparse.tokens is None else []
            if values:
                self._answered[request.start] = request, values
        self._destination.answered(request, answer)

    async def keep(self, request: PlannedRequest, until: float | None = None) -> None:
        """Keep what a request that has ended was answered, if it was, until a time by the clock."""
        if request.is_probe:
            return
        # It may have been cut meanwhile, from its end.
        self._rows.pop(request.start, None)
        answered = self._answered.pop(request.start, None)
        if answered is not None:
            await self._keep(answered[0].texts, answered[1], until)
