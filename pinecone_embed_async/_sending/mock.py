"""A transport for your tests: a function answers the requests, and no socket is opened."""

from __future__ import annotations

import contextlib
import inspect
import json as json_module
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from pinecone_embed_async import _checks
from pinecone_embed_async._errors import ConfigurationError

if TYPE_CHECKING:
    from pinecone_embed_async._sending.transport import TransportRequest

Handler = Callable[["TransportRequest"], "MockResponse | Awaitable[MockResponse]"]
"""Answers a request; an exception becomes the error of the request."""


class MockResponse:
    """A response that a test makes up.

    Args:
        status: the status code.
        json: the body, which is encoded as JSON.
        body: the body as bytes or an iterable of pieces, instead of `json`.
        headers: headers of the response.

    Raises:
        ConfigurationError: an argument is invalid.
    """

    def __init__(
        self,
        status: int = 200,
        *,
        json: object = None,
        body: bytes | Iterable[bytes] = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if json is not None:
            try:
                body = json_module.dumps(json).encode()
            except (TypeError, ValueError, RecursionError) as error:
                raise ConfigurationError(f"json must be encodable as JSON: {error}") from None
        if headers is not None and not isinstance(headers, Mapping):
            raise ConfigurationError(f"headers must be a mapping, got {_checks.short(headers)}")
        self.status = _checks.whole("status", status)
        self.headers = dict(headers or {})
        pieces = (body,) if isinstance(body, bytes) or not isinstance(body, Iterable) else tuple(body)
        if not all(isinstance(piece, bytes) for piece in pieces):
            raise ConfigurationError(f"body must be bytes, or an iterable of them, got {_checks.short(body)}")
        self._pieces = pieces

    def __repr__(self) -> str:
        return f"<MockResponse {self.status}, {sum(map(len, self._pieces))} bytes>"

    @classmethod
    def embeddings(cls, vectors: Iterable[Sequence[float]], *, tokens: int | None = None) -> MockResponse:
        """An answer with a dense vector for each input.

        Args:
            vectors: one row of numbers per input of the request, in order.
            tokens: tokens billed; by default one per vector.
        """
        try:
            rows = [[float(value) for value in vector] for vector in vectors]
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"vectors must be rows of numbers: {error}") from None
        data = [{"vector_type": "dense", "values": row} for row in rows]
        usage = {"total_tokens": len(data) if tokens is None else tokens}
        return cls(json={"model": "mock", "vector_type": "dense", "data": data, "usage": usage})

    @classmethod
    def error(cls, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None) -> MockResponse:
        """The service's error envelope.

        Args:
            status: the status code, such as 429.
            code: the service's code, such as `"RESOURCE_EXHAUSTED"`.
            message: the human-readable message.
            headers: headers of the response, such as `Retry-After`.
        """
        return cls(status, json={"status": status, "error": {"code": code, "message": message}}, headers=headers)

    def pieces(self) -> tuple[bytes, ...]:
        """The non-empty pieces of the body."""
        return tuple(piece for piece in self._pieces if piece)


class MockTransport:
    """Answers every request with a function, without sockets.

    ```python
    from pinecone_embed_async import EmbedClient, MockResponse, MockTransport


    def answer(request):
        return MockResponse.embeddings([[len(text["text"])] * 1024 for text in request.json()["inputs"]])


    transport = MockTransport(answer)
    async with EmbedClient("multilingual-e5-large", api_key="any", transport=transport) as client:
        print((await client.embed(["one", "three"], input_type="passage")).vectors)
    print(transport.requests)
    ```

    Args:
        handler: returns the response to a request, or an awaitable of one. An exception that it raises becomes the
            error of the request; a `TransportError`, for example, is retried.

    Attributes:
        requests: all requests sent, in order.

    Raises:
        ConfigurationError: `handler` is not a function.
    """

    def __init__(self, handler: Handler) -> None:
        _checks.function("handler", handler)
        self._handler = handler
        self.requests: list[TransportRequest] = []

    def __repr__(self) -> str:
        return f"<MockTransport, {len(self.requests)} requests>"

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[_Reading]:
        """See `Transport.send`."""
        self.requests.append(request)
        response = self._handler(request)
        yield _Reading(await response if inspect.isawaitable(response) else response)


class _Reading:
    """A response being read; several requests may share one `MockResponse`."""

    def __init__(self, response: MockResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._pieces = iter(response.pieces())

    async def read(self) -> bytes:
        return next(self._pieces, b"")
