"""What a client needs of a cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Cache(Protocol):
    """Keeps values by their keys; `SqliteCache` does in a file, and others may in what a cluster shares.

    Keys are SHA-256 digests, 32 bytes, of the service's address, the API version, the model, the parameters and the text.
    Values are bytes that say themselves what they are and whether they are whole, so a cache may lose or forget any of them.
    An error that is raised is logged and costs a request, not the call; `ConfigurationError` alone goes through. What is
    given is taken if it is bytes-like and holds a whole, finite vector of the kind and dimension that is expected; else
    it is a miss.
    """

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """The value of each key, in the order of `keys`; `None` for what is not there.

        Must not block the event loop, and must survive being cancelled.
        """

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """Keep the values of these keys. The same restrictions hold; it is cancelled after five seconds."""
