"""The interface of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Cache(Protocol):
    """Stores values by key: `SqliteCache` in a file, others perhaps in a store that a cluster shares.

    Keys are SHA-256 digests, 32 bytes, of the service's address, the API version, the model, the parameters and the text.
    Values are self-describing, checksummed bytes, so a cache may lose or drop any of them. An error raised by a cache is
    logged and costs a request, not the call; only `ConfigurationError` is passed on. A returned value is used if it is
    bytes-like and holds a whole, finite vector of the expected vector type and dimension; otherwise it is a miss.
    """

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The value of each key, in the order of `keys`; `None` for missing ones.

        Must not block the event loop, and must tolerate cancellation.
        """

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Store the values of these keys. The same restrictions apply; it is cancelled after five seconds."""
