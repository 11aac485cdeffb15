"""The server's listening socket and open connections, which can all be ended promptly."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from pinecone_embed_async.emulator._listener import Listener

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

# Ending a connection takes a few iterations of the event loop, as does starting one that was just accepted.
_ITERATIONS = 5
# Seconds to wait for a connection that is stuck.
_PATIENCE = 1.0


class Connections:
    """Accepts connections and passes their requests to a handler.

    Create it in a running event loop. It cannot be opened again after `close`.

    Args:
        handler: Answers one request; cancelled when the client disconnects.
        opened: Called for every accepted connection.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        opened: Callable[[], None],
    ) -> None:
        self._opened = opened
        self._server = web.Server(handler, handler_cancellation=True, access_log=None)
        self._listener: Listener | None = None
        self._doomed: set[asyncio.BaseTransport] = set()

    @property
    def listener(self) -> Listener:
        """The listening socket.

        Raises:
            RuntimeError: It is not open.
        """
        if self._listener is None:
            raise RuntimeError("the emulator is not started")
        return self._listener

    def __len__(self) -> int:
        """The number of open connections."""
        return len(self._server.connections)

    async def open(self, host: str, port: int) -> None:
        """Start accepting connections.

        Raises:
            OSError: The address cannot be bound.
        """
        listener = Listener(host, port, self._protocol)
        await listener.open()
        self._listener = listener

    def _protocol(self) -> asyncio.Protocol:
        self._opened()
        return self._server()

    def doom(self, transport: asyncio.BaseTransport | None) -> None:
        """Mark a connection, so that its next request gets no answer."""
        self._doomed = {one for one in self._doomed if not one.is_closing()}
        if transport is not None:
            self._doomed.add(transport)

    def is_doomed(self, transport: asyncio.BaseTransport) -> bool:
        """Whether a connection is marked."""
        return transport in self._doomed

    def close_idle(self, busy: set[asyncio.BaseTransport]) -> None:
        """Close all connections except the busy ones."""
        for connection in self._server.connections:
            if connection.transport is not None and connection.transport not in busy:
                connection.transport.close()

    async def close(self) -> None:
        """Stop accepting, and end all connections at once; requests in progress are dropped."""
        if self._listener is not None:
            await self._listener.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE
        iterations = 0
        while iterations < _ITERATIONS or (self._server.connections and loop.time() < deadline):
            iterations += 1
            for connection in self._server.connections:
                if isinstance(connection.transport, asyncio.WriteTransport):
                    connection.transport.abort()
            await asyncio.sleep(0)
        await self._server.shutdown(timeout=0)
        self._doomed.clear()
