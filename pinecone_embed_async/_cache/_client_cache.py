"""How a client looks things up in its cache, and keeps what it has paid for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pinecone_embed_async._cache._keys import KeyMaker
from pinecone_embed_async._cache._values import Found, decode_values, encode_dense, encode_sparse
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._cache._protocol import Cache
    from pinecone_embed_async._engine import Destination
    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._plan import PlannedRequest
    from pinecone_embed_async._wire import Answer

LOOKED_UP_AT_ONCE = 1024
"""Texts for which the cache is asked at once: a bounded number, and so many that the way there and back does not count."""

READ_AT_ONCE = 256
"""Texts of which the vectors are checked and copied before the event loop is given back: 1 MiB of vectors of 1024 numbers,
which takes half the time of an answer's decode."""


class ClientCache:
    """A cache as one client uses it: what goes wrong in it is logged, and costs requests only.

    Args:
        cache: keeps the values.
        address: of the service, for the keys.
        api_version: of its API.
        model: the name that requests carry.

    Attributes:
        hits: texts whose vectors were found.
        misses: texts whose vectors were looked for and not found.
    """

    def __init__(self, cache: Cache, *, address: str, api_version: str, model: str) -> None:
        self._cache = cache
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

    async def find(self, keys: list[bytes], vector_type: VectorType | None, dimension: int | None) -> Found:
        """The vectors of some texts, by their keys.

        Args:
            keys: of the texts.
            vector_type: the kind expected; `None` if any will do.
            dimension: numbers per dense vector expected; `None` if any will do.

        Raises:
            ConfigurationError: the cache cannot be what the caller meant.
        """
        return self.read(await self.values(keys), vector_type, dimension)

    def read(self, values: Sequence[bytes | None], vector_type: VectorType | None, dimension: int | None) -> Found:
        """The vectors in what the cache gave; see `find`."""
        found = decode_values(values, vector_type, dimension)
        self._count(found)
        return found

    async def find_one(self, key: bytes, vector_type: VectorType | None, dimension: int | None) -> Found:
        """The vector of one text, looked up together with those that are asked for in the same turn of the loop.

        Raises:
            ConfigurationError: the cache cannot be what the caller meant.
        """
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            value = await self._lead(loop, key)
        else:
            turn.keys.append(key)
            # Shielded, for the future is everybody's.
            values = await asyncio.shield(turn.answered)
            value = values.get(key)
        found = decode_values([value], vector_type, dimension)
        self._count(found)
        return found

    async def _lead(self, loop: asyncio.AbstractEventLoop, key: bytes) -> bytes | None:
        """Look up for all who ask in this turn. If this caller is cancelled, the others are told that nothing was found."""
        turn = self._turns[loop] = _Turn([key], loop.create_future())
        values: dict[bytes, bytes | None] = {}
        try:
            try:
                await asyncio.sleep(0)
            finally:
                del self._turns[loop]
            keys = list(dict.fromkeys(turn.keys))
            values = dict(zip(keys, await self.values(keys), strict=True))
        finally:
            if not turn.answered.done():
                turn.answered.set_result(values)
        return values.get(key)

    def keeper(self, destination: Destination, maker: KeyMaker) -> Keeper:
        """What keeps the vectors of all answers of a call or stream.

        Args:
            destination: where the rows go.
            maker: makes the keys.
        """
        return Keeper(destination, lambda texts, values: self._keep(texts, maker, values))

    async def _keep(self, texts: Sequence[str], maker: KeyMaker, values: list[bytes]) -> None:
        entries = dict(zip(maker.keys_of(texts), values, strict=True))
        # Whoever reports errors with the locals of their frames is shown no texts.
        del texts
        try:
            await self._cache.put_many(entries)
        except ConfigurationError:
            # The look-up has raised it already, or will.
            pass
        except Exception as error:  # noqa: BLE001 - a cache may be anything, and is never a reason to fail
            self._complain("keep vectors in", error)

    async def values(self, keys: list[bytes]) -> Sequence[bytes | None]:
        """What the cache has for some keys; nothing if it fails.

        Raises:
            ConfigurationError: the cache cannot be what the caller meant.
        """
        try:
            values = await self._cache.get_many(keys)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._complain("look vectors up in", error)
        else:
            if len(values) == len(keys):
                return values
            self._complain("look vectors up in", ValueError(f"{len(values)} values for {len(keys)} keys"))
        return [None] * len(keys)

    def _count(self, found: Found) -> None:
        self.hits += len(found.rows)
        self.misses += found.count - len(found.rows)

    def _complain(self, doing: str, error: Exception) -> None:
        """Log it, as a warning once: it may happen with every request."""
        level = logger.debug if doing in self._complained else logger.warning
        self._complained.add(doing)
        level("could not %s the cache (%s: %s); the service is asked instead", doing, type(error).__name__, error)


class _Turn:
    """The single look-ups of one turn of the event loop.

    Attributes:
        keys: asked for.
        answered: done with what was found.
    """

    __slots__ = ("answered", "keys")

    def __init__(self, keys: list[bytes], answered: asyncio.Future[dict[bytes, bytes | None]]) -> None:
        self.keys = keys
        self.answered = answered


class Keeper:
    """A destination that passes everything on, and keeps what was answered once it is in place.

    Args:
        destination: where the rows go.
        keep: keeps the values of some texts.
    """

    def __init__(self, destination: Destination, keep: Callable[[Sequence[str], list[bytes]], Awaitable[None]]) -> None:
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
        rows = self._rows[request.start] = self._destination.rows(request, dimension)
        return rows

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """See `Destination`."""
        return self._destination.names(request)

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """See `Destination`. Nothing of an answer with tokens is kept, for they are parts of the texts."""
        rows = self._rows.pop(request.start, None)
        if not request.is_probe:
            if answer.sparse is None:
                values = [] if rows is None else encode_dense(rows)
            else:
                values = encode_sparse(answer.sparse) if answer.sparse.tokens is None else []
            if values:
                self._answered[request.start] = request, values
        self._destination.answered(request, answer)

    async def keep(self, request: PlannedRequest) -> None:
        """Keep what a request that has ended was answered, if it was."""
        # It may have been cut meanwhile, from its end.
        self._rows.pop(request.start, None)
        answered = self._answered.pop(request.start, None)
        if answered is not None:
            await self._keep(answered[0].texts, answered[1])
