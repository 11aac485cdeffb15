"""The transport interface: one request out; status, headers and body pieces back."""

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
        url: the whole URL, including the query.
        headers: the headers, which include the API key; do not log them.
        body: the body of a `POST`; `None` without one.
    """

    method: str
    url: URL
    headers: Mapping[str, str]
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"<TransportRequest {self.method} {self.url.path}, {len(self.body or b'')} bytes>"

    def json(self) -> Any:
        """The body, decoded from JSON.

        Raises:
            ValueError: there is no body, or it is not JSON.
        """
        if self.body is None:
            raise ValueError(f"a {self.method} request has no body")
        return json.loads(self.body)


class TransportResponse(Protocol):
    """An HTTP response whose body has not been read yet."""

    @property
    def status(self) -> int:
        """The final status code, not an informational one."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names may have any case."""

    async def read(self) -> bytes:
        """The next piece of the body, decompressed, as soon as it arrives; `b""` at the end.

        Raises:
            TransportError: the body was cut off or cannot be decompressed.
        """


class Transport(Protocol):
    """Carries requests to the service and responses back.

    Pass one as `EmbedClient(transport=...)` to replace aiohttp: a `MockTransport` in tests, or your own. A transport must be
    able to handle several requests at a time, and may serve several clients and event loops. The client enforces the
    time-out of an attempt by cancelling it.
    """

    def send(self, request: TransportRequest) -> AbstractAsyncContextManager[TransportResponse]:
        """Send a request. Entering the context waits for status and headers; leaving it discards any unread body.

        The context must not follow redirects, which would forward the API key, and must not swallow a cancellation.

        Raises:
            TransportError: on entering, the service could not be reached, or did not answer in HTTP. The client treats any
                other exception in the same way, and redacts the key and the inputs in its message.
        """
