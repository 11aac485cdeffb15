"""The cache stage: looks vectors up before planning, and writes new ones after embedding."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pinecone_embed_async._cache.keys import KeyMaker
from pinecone_embed_async._cache.values import Found, decode_values, encode_dense, encode_sparse
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._foreign import Neighbour, until_done
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinecone_embed_async._cache.protocol import Cache
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._wire import VectorType

LOOKED_UP_AT_ONCE = 1024
"""Texts per look-up in the cache: bounded, and enough to make the round trip negligible."""

SENT_INSTEAD = "the service is asked instead"
SENT_AGAIN = "the service is asked instead when they are needed again"

READ_AT_ONCE = 256
"""Texts whose vectors are checked and copied before yielding to the event loop: 1 MiB of vectors of 1024 numbers, which
takes half as long as decoding an answer."""

WRITE_SECONDS = 5.0
"""How long a write may take: a file's transaction takes milliseconds, and a cluster's cache answers sooner or is as good as
gone. Equal to the wait for requests in flight once a job has ended."""

WRITE_PAUSE_SECONDS = 60.0
"""How long nothing is written after a write took too long, since every request in flight would wait as long again."""


class CacheStage:
    """A cache as one client uses it: its failures are logged, and cost nothing but requests.

    Args:
        cache: the cache.
        address: address of the service, for the keys.
        api_version: version of its API.
        model: the model's name in requests.
        clock: the clock.

    Attributes:
        hits: texts whose vectors were found.
        misses: texts whose vectors were looked up and not found.
    """

    def __init__(self, cache: Cache, *, address: str, api_version: str, model: str, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._neighbour = Neighbour("the cache", clock)
        self._writes_again_at = -math.inf
        self._common = (address, api_version, model)
        self._warned: set[str] = set()
        self._look_ups: dict[asyncio.AbstractEventLoop, _SharedLookUp] = {}
        self.hits = 0
        self.misses = 0

    def __repr__(self) -> str:
        return f"<CacheStage {self.hits} hits, {self.misses} misses>"

    def of_call(self, parameters: bytes) -> CallCache:
        """The cache for calls with these parameters, as JSON with sorted names."""
        return CallCache(self, KeyMaker(*self._common, parameters))

    def decode(self, values: Sequence[Any], vector_type: VectorType | None, dimension: int | None) -> Found:
        """Decode the values of the cache; unusable ones are logged, and count as misses.

        Args:
            values: the cache's values.
            vector_type: expected vector type; `None` for any.
            dimension: expected numbers per dense vector; `None` for any.
        """
        found = decode_values(values, vector_type, dimension)
        for cause, count in found.refused.items():
            if count:
                self._log(cause, "%d values of the cache %s; the service is asked instead", count, cause)
        self.hits += len(found.rows)
        self.misses += found.count - len(found.rows)
        return found

    async def look_up_one(self, key: bytes) -> Any:
        """The cache's value of one key, looked up together with those requested in the same loop iteration.

        A cancelled caller leaves; the look-up is cancelled when the last caller leaves.

        Raises:
            ConfigurationError: the cache cannot work as configured.
        """
        loop = asyncio.get_running_loop()
        look_up = self._look_ups.get(loop)
        if look_up is None:
            look_up = self._look_ups[loop] = _SharedLookUp()
            look_up.task = loop.create_task(self._look_up(loop, look_up), name="look up single inputs")
        look_up.keys.append(key)
        look_up.waiting += 1
        task = look_up.task
        try:
            await asyncio.wait([task])
        finally:
            look_up.waiting -= 1
            if not look_up.waiting and not task.done():
                # Later callers need another look-up.
                self._close_look_up(loop, look_up)
                task.cancel()
                await until_done(task)
        if look_up.error is not None:
            # Copied, so that each caller has its own traceback.
            raise copy.copy(look_up.error)
        return look_up.values.get(key)

    async def _look_up(self, loop: asyncio.AbstractEventLoop, look_up: _SharedLookUp) -> None:
        """Look up the keys of all callers in this loop iteration."""
        try:
            await asyncio.sleep(0)
        finally:
            self._close_look_up(loop, look_up)
        keys = list(dict.fromkeys(look_up.keys))
        try:
            look_up.values = dict(zip(keys, await self.look_up(keys), strict=True))
        except ConfigurationError as error:
            look_up.error = error.with_traceback(None)

    def _close_look_up(self, loop: asyncio.AbstractEventLoop, look_up: _SharedLookUp) -> None:
        if self._look_ups.get(loop) is look_up:
            del self._look_ups[loop]

    async def write(self, entries: Mapping[bytes, bytes], until: float | None) -> None:
        """Write values by key; give up at `until` by the clock, or after `WRITE_SECONDS`."""
        now = self._clock.time()
        if now < self._writes_again_at or self._neighbour.is_stuck:
            return
        end = now + WRITE_SECONDS
        if until is not None and until <= now:
            self._report("write vectors to", "no time is left", SENT_AGAIN)
            return
        try:
            await self._neighbour.ask(_put(self._cache, entries), until=end if until is None else min(until, end))
        except ConfigurationError:
            # The look-up raises it.
            pass
        except asyncio.CancelledError:
            self._report("write vectors to", "the call was cancelled", SENT_AGAIN)
            raise
        except Exception as error:  # noqa: BLE001 - a cache may raise anything, and is never a reason to fail
            now = self._clock.time()
            if now >= end:
                self._writes_again_at = now + WRITE_PAUSE_SECONDS
            self._report("write vectors to", _shown(error), SENT_AGAIN)

    async def look_up(self, keys: list[bytes]) -> Sequence[Any]:
        """The cache's values of some keys, unchecked; `None` for all if it fails.

        Raises:
            ConfigurationError: the cache cannot work as configured.
        """
        if self._neighbour.is_stuck:
            self._report("look vectors up in", "an operation that was left behind has not ended", SENT_INSTEAD)
            return [None] * len(keys)
        try:
            values = await self._neighbour.ask(_get(self._cache, keys))
            if isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray, memoryview)):
                # Copied, so that nothing depends on the cache's own class any more.
                taken = list(values)
                if len(taken) == len(keys):
                    return taken
                problem = f"get_many returned {len(taken)} values for {len(keys)} keys"
            else:
                problem = f"get_many must return a sequence with a value or None for each key, got {type(values).__name__}"
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            problem = _shown(error)
        self._report("look vectors up in", problem, SENT_INSTEAD)
        return [None] * len(keys)

    def _report(self, action: str, problem: str, consequence: str) -> None:
        self._log(action, "could not %s the cache (%s); %s", action, problem, consequence)

    def _log(self, cause: str, message: str, *args: object) -> None:
        """Log a message, as a warning only once for each cause: it may recur with every request."""
        level = logger.debug if cause in self._warned else logger.warning
        self._warned.add(cause)
        level(message, *args)


async def _get(cache: Cache, keys: list[bytes]) -> Any:
    return await cache.get_many(keys)


async def _put(cache: Cache, entries: Mapping[bytes, bytes]) -> None:
    await cache.put_many(entries)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _SharedLookUp:
    """The single look-ups of one iteration of the event loop.

    Attributes:
        keys: keys requested.
        waiting: callers waiting for it.
        task: the task that looks them up.
        values: values found.
        error: error to raise to the callers.
    """

    __slots__ = ("error", "keys", "task", "values", "waiting")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.waiting = 0
        self.task: asyncio.Task[None]
        self.values: dict[bytes, Any] = {}
        self.error: ConfigurationError | None = None


class CallCache:
    """The cache as calls with equal parameters use it.

    Args:
        stage: the cache.
        maker: makes the keys.
    """

    def __init__(self, stage: CacheStage, maker: KeyMaker) -> None:
        self._stage = stage
        self._maker = maker

    async def look_up_one(self, text: str) -> Any:
        """The cache's value of one text, unchecked; see `CacheStage.look_up_one`."""
        (key,) = self._maker.keys_of([text])
        del text
        return await self._stage.look_up_one(key)

    async def look_up(self, texts: Sequence[str]) -> Sequence[Any]:
        """The cache's values of some texts, unchecked; see `CacheStage.look_up`."""
        keys = self._maker.keys_of(texts)
        # Error reports that include the locals of frames must show no texts.
        del texts
        return await self._stage.look_up(keys)

    def decode(self, values: Sequence[Any], vector_type: VectorType | None, dimension: int | None) -> Found:
        """Decode values; see `CacheStage.decode`."""
        return self._stage.decode(values, vector_type, dimension)

    async def write(self, request: PlannedRequest, until: float | None = None) -> None:
        """Write the rows of an answered request; give up at `until` by the clock.

        They are encoded before anything is awaited, so the caller may have the result meanwhile. An answer with tokens is
        not written, since tokens are parts of the texts.
        """
        sparse, matrix = request.sparse, request.matrix
        if request.is_probe or (sparse is not None and sparse.tokens is not None):
            return
        if sparse is not None:
            values = encode_sparse(sparse)
        elif matrix is not None:
            values = encode_dense(matrix)
        else:
            return
        await self._stage.write(dict(zip(self._maker.keys_of(request.texts), values, strict=True)), until)
