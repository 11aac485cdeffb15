"""The seam to the network: one request out; status, headers and the pieces of the body back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractAsyncContextManager

    from yarl import URL


@dataclass(frozen=True, slots=True, repr=False)
class TransportRequest:
    """An HTTP request.

    Attributes:
        method: `"POST"` or `"GET"`.
        url: the whole address, query included.
        headers: the API key is among them, so they are for the wire only.
        body: of a `POST`; `None` without one.
    """

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None = None

    def __repr__(self) -> str:
        size = 0 if self.body is None else len(self.body)
        return f"<TransportRequest {self.method} {self.url.path}, {size} bytes>"

    def json(self) -> Any:
        """The body, decoded.

        Raises:
            ValueError: there is none, or it is not JSON.
        """
        if self.body is None:
            raise ValueError(f"a {self.method} request has no body")
        return json.loads(self.body)


class TransportResponse(Protocol):
    """An HTTP response whose body has not been read yet."""

    @property
    def status(self) -> int:
        """The status code, informational ones left out."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names in any case."""

    async def read(self) -> bytes:
        """The next piece of the body, decompressed, as soon as there is one; `b""` at its end.

        Raises:
            TransportError: the body was cut off or cannot be decompressed.
        """


class Transport(Protocol):
    """Carries requests to the service and responses back.

    `EmbedClient(transport=...)` takes one in the place of aiohttp: `MockTransport` in tests, or one of your own. One
    transport may serve several clients and event loops, and several requests at a time. Time-outs of attempts are the
    client's: it cancels what takes too long.
    """

    def send(self, request: TransportRequest) -> AbstractAsyncContextManager[TransportResponse]:
        """Send a request. The block is entered with the status and the headers, and its end gives up what was not read.

        The context must not follow redirects, for the API key would go along, and must let a cancellation through.

        Raises:
            TransportError: on entering, the service could not be reached, or did not answer in HTTP. Whatever else a
                transport raises is taken for that. The client replaces the key and the inputs in its message.
        """
