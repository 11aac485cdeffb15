"""The interface of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Cache(Protocol):
    """Stores values by key: `SqliteCache` in a file, your own perhaps in a store shared by a cluster.

    A key is a SHA-256 digest of 32 bytes over the service's address, the API version, the model, the parameters and the
    text. Values are self-describing, checksummed bytes, and a cache may lose or drop any of them. If a cache raises an
    error, it is logged and the service is asked instead; only a `ConfigurationError` ends the call. A returned value is used
    if it is bytes-like and holds an undamaged, finite vector of the expected vector type and dimension; otherwise it is a
    miss.
    """

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The value of each key, in the order of `keys`; `None` for missing ones.

        It must not block the event loop, and must tolerate cancellation.
        """

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Store values by key. The restrictions of `get_many` apply, and it is cancelled after five seconds."""
