"""The cache stage: looks vectors up before anything is sent, and writes new ones after they are answered."""

from __future__ import annotations

import asyncio
import copy
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pinecone_embed_async._cache.values import Found, decode_values, encode_dense, encode_sparse
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._foreign import ForeignCode, until_done
from pinecone_embed_async._log import logger
from pinecone_embed_async._wire import generation_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pinecone_embed_async._cache.protocol import Cache
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._wire import VectorType

LOOKED_UP_AT_ONCE = 1024
"""Maximum number of texts per look-up: enough to make the round trip negligible."""

NOT_LOOKED_UP = "could not look vectors up in the cache (%s); the service is asked instead"
NOT_WRITTEN = "could not write vectors to the cache (%s); the service is asked instead when they are needed again"

READ_AT_ONCE = 256
"""Number of texts whose vectors are checked and copied before yielding to the event loop: with 1024 numbers per vector
1 MiB, which takes half as long as decoding an answer."""

HASHED_AT_ONCE = 2**20
"""Characters of texts that are hashed before yielding to the event loop: about two milliseconds."""

WRITE_SECONDS = 5.0
"""Maximum time of a write: a transaction of a file takes milliseconds, and a cluster's cache that takes longer is as good as
gone. It equals the grace period of requests in flight once a job has ended."""

WRITE_PAUSE_SECONDS = 60.0
"""How long nothing is written after a write took too long, because otherwise every request in flight would wait as long."""


class CacheStage:
    """The cache of one client; failures of the cache are logged, and the service is asked instead.

    Args:
        cache: the cache.
        address: address of the service, so that answers of one service, such as an emulator, never pass for another's.
        api_version: API version; versions of one generation have the same keys.
        model: the model's name in requests.
        clock: the clock.

    Attributes:
        hits: number of texts whose vectors were found.
        misses: number of texts whose vectors were looked up but not found.
    """

    def __init__(self, cache: Cache, *, address: str, api_version: str, model: str, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._foreign = ForeignCode("the cache", clock)
        self._writes_again_at = -math.inf
        self._common = [part.encode() for part in ("pinecone-embed-async 1", address, generation_of(api_version), model)]
        self._warned: set[str] = set()
        self._look_ups: dict[asyncio.AbstractEventLoop, _SharedLookUp] = {}
        self.hits = 0
        self.misses = 0

    def __repr__(self) -> str:
        return f"<CacheStage {self.hits} hits, {self.misses} misses>"

    def of_call(self, parameters: bytes) -> CallCache:
        """The cache for calls with these parameters, as JSON with sorted names."""
        return CallCache(self, [*self._common, parameters])

    def decode(self, values: Sequence[Any], vector_type: VectorType | None, dimension: int | None) -> Found:
        """Decode values of the cache; unusable ones are logged and count as misses.

        Args:
            values: the values, not yet checked.
            vector_type: expected vector type; `None` for any.
            dimension: expected numbers per dense vector; `None` for any.
        """
        found = decode_values(values, vector_type, dimension)
        # Unary plus drops causes without a value.
        for cause, count in (+found.refused).items():
            self._log(f"%d values of the cache {cause}; the service is asked instead", count)
        self.hits += len(found.rows)
        self.misses += found.count - len(found.rows)
        return found

    async def look_up_one(self, key: bytes) -> Any:
        """The value of one key, looked up together with the keys requested in the same event loop iteration.

        A cancelled caller leaves; when the last caller leaves, the look-up is cancelled.

        Raises:
            ConfigurationError: the cache cannot work as configured.
        """
        loop = asyncio.get_running_loop()
        look_up = self._look_ups.get(loop)
        if look_up is None:
            look_up = self._look_ups[loop] = _SharedLookUp()
            look_up.task = loop.create_task(self._look_up(loop, look_up), name="look up single inputs")
        look_up.keys[key] = None
        look_up.waiting += 1
        task = look_up.task
        try:
            await asyncio.wait([task])
        finally:
            look_up.waiting -= 1
            if not look_up.waiting and not task.done():
                # Later callers need a new look-up.
                self._look_ups.pop(loop, None)
                task.cancel()
                await until_done(task)
        found = {} if task.cancelled() else task.result()
        if isinstance(found, ConfigurationError):
            # A copy, so that each caller has its own traceback.
            raise copy.copy(found)
        return found.get(key)

    async def _look_up(
        self, loop: asyncio.AbstractEventLoop, look_up: _SharedLookUp
    ) -> dict[bytes, Any] | ConfigurationError:
        """Look up the keys of all callers in this loop iteration."""
        try:
            await asyncio.sleep(0)
        finally:
            # If the last caller has left, this may remove a newer look-up, which is then merely not shared further.
            self._look_ups.pop(loop, None)
        keys = [*look_up.keys]
        try:
            return dict(zip(keys, await self.look_up(keys), strict=True))
        except ConfigurationError as error:
            return error.with_traceback(None)

    async def write(self, entries: Mapping[bytes, bytes], until: float | None) -> None:
        """Write values by key; give up at `until` by the clock, or after `WRITE_SECONDS`."""
        now = self._clock.time()
        if now < self._writes_again_at or self._foreign.is_stuck:
            return
        end = now + WRITE_SECONDS
        until = end if until is None else min(until, end)
        if until <= now:
            self._log(NOT_WRITTEN, "no time is left")
            return
        try:
            await self._foreign.run(_put(self._cache, entries), until=until)
        except ConfigurationError:
            # The look-ups raise it.
            pass
        except asyncio.CancelledError:
            self._log(NOT_WRITTEN, "the call was cancelled")
            raise
        except Exception as error:  # noqa: BLE001 - a cache may raise anything, which must not fail the call
            now = self._clock.time()
            if now >= end:
                self._writes_again_at = now + WRITE_PAUSE_SECONDS
            self._log(NOT_WRITTEN, _shown(error))

    async def look_up(self, keys: list[bytes]) -> Sequence[Any]:
        """The unchecked values of some keys; `None` for all if the cache fails.

        Raises:
            ConfigurationError: the cache cannot work as configured.
        """
        if self._foreign.is_stuck:
            self._log(NOT_LOOKED_UP, "an operation that was left running has not ended")
            return [None] * len(keys)
        try:
            values = await self._foreign.run(_get(self._cache, keys))
            if isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray, memoryview)):
                # A copy, so that nothing depends on the cache's own class any more.
                taken = list(values)
                if len(taken) == len(keys):
                    return taken
                problem = f"get_many must return a value for each of the {len(keys)} keys, got {len(taken)}"
            else:
                problem = f"get_many must return a sequence with a value or None for each key, got {type(values).__name__}"
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            problem = _shown(error)
        self._log(NOT_LOOKED_UP, problem)
        return [None] * len(keys)

    def _log(self, message: str, detail: object) -> None:
        """Log a message with a detail; as a warning only once, because it may recur with every request."""
        level = logger.debug if message in self._warned else logger.warning
        self._warned.add(message)
        level(message, detail)


# Coroutines of our own, because a method of a cache may return any awaitable, or raise.


async def _get(cache: Cache, keys: list[bytes]) -> Any:
    return await cache.get_many(keys)


async def _put(cache: Cache, entries: Mapping[bytes, bytes]) -> None:
    await cache.put_many(entries)


def _shown(error: Exception) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - the `__str__` of a foreign exception may raise anything
        return name


@dataclass(slots=True, eq=False)
class _SharedLookUp:
    """The single look-ups of one event loop iteration.

    Attributes:
        keys: keys requested.
        waiting: number of callers waiting for the look-up.
        task: looks them up, and returns the values found or the error to raise in the callers.
    """

    keys: dict[bytes, None] = field(default_factory=dict)
    waiting: int = 0
    task: asyncio.Task[dict[bytes, Any] | ConfigurationError] = field(init=False)


class CallCache:
    """The cache for calls with equal parameters.

    Args:
        stage: the cache stage of the client.
        parts: what the keys depend on besides the texts.

    Attributes:
        stage: the cache stage of the client.
    """

    def __init__(self, stage: CacheStage, parts: Iterable[bytes]) -> None:
        self.stage = stage
        self._common = hashlib.sha256()
        for part in parts:
            # Each part is prefixed with its length, so that different parts never give the same bytes.
            self._common.update(len(part).to_bytes(8, "little") + part)

    def key_of(self, text: str) -> bytes:
        """The key of a text, a SHA-256 digest of 32 bytes."""
        digest = self._common.copy()
        digest.update(text.encode())
        return digest.digest()

    async def look_up_one(self, text: str) -> Any:
        """The unchecked value of one text; see `CacheStage.look_up_one`."""
        key = self.key_of(text)
        del text
        return await self.stage.look_up_one(key)

    async def look_up(self, texts: Sequence[str]) -> Sequence[Any]:
        """The unchecked values of some texts; see `CacheStage.look_up`."""
        keys: list[bytes] = []
        hashed = 0
        for text in texts:
            keys.append(self.key_of(text))
            hashed += len(text)
            if hashed >= HASHED_AT_ONCE:
                hashed = 0
                await asyncio.sleep(0)
        # Error reports that include local variables must not show the texts.
        text, texts = "", ()
        return await self.stage.look_up(keys)

    async def write(self, request: PlannedRequest, until: float | None = None) -> None:
        """Write the rows of an answered request; give up at `until` by the clock.

        The rows are encoded before anything is awaited, so the caller may already use the result. An answer with tokens is
        not written, because tokens are parts of the texts.
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
        keys = map(self.key_of, request.texts)
        await self.stage.write(dict(zip(keys, values, strict=True)), until)
