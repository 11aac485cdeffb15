"""The listening socket, which can be closed for a while and opened again on the same port."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG = 1024


class Listener:
    """Accepts connections on one address.

    Args:
        host: The address or name to listen on.
        port: The port; 0 for any free one.
        protocol_factory: Creates the protocol of an accepted connection.
    """

    def __init__(self, host: str, port: int, protocol_factory: Callable[[], asyncio.Protocol]) -> None:
        self._host = host
        self._port = port
        self._protocol_factory = protocol_factory
        self._server: asyncio.Server | None = None
        self._placeholder: socket.socket | None = None
        self._family = socket.AF_INET
        self._address: tuple[object, ...] = ()
        self._reopening: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(str(self._address[1]))

    async def open(self) -> None:
        """Start listening.

        Raises:
            OSError: The address cannot be bound.
        """
        found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        self._family, _, _, _, self._address = found[0]
        # Bound all the time and never listening, it reserves the port while connections are refused.
        self._placeholder = self._bound()
        self._address = self._placeholder.getsockname()
        try:
            await self._listen()
        except BaseException:
            self._placeholder.close()
            raise

    def _bound(self) -> socket.socket:
        bound = socket.socket(self._family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(self._address)
        except BaseException:
            bound.close()
            raise
        return bound

    async def _listen(self) -> None:
        bound = self._bound()
        # With `start_serving=False` this call neither waits nor fails, so `bound` cannot be left open.
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol_factory, sock=bound, backlog=_BACKLOG, start_serving=False
        )
        try:
            await self._server.start_serving()
        except BaseException:
            # If it was cancelled, it may already be listening.
            self._stop()
            raise

    def refuse(self) -> None:
        """Stop listening: new connections are refused until `accept`."""
        self._forget_reopening()
        self._stop()

    def _stop(self) -> None:
        if self._server is not None:
            loop = asyncio.get_running_loop()
            for listening in self._server.sockets:
                loop.remove_reader(listening.fileno())
            # Not at once: a connection that was just accepted must still be passed to the server.
            loop.call_soon(self._server.close)
            self._server = None

    async def accept(self) -> None:
        """Listen again."""
        self._forget_reopening()
        if self._server is None:
            await self._listen()

    def refuse_for(self, seconds: float) -> None:
        """Stop listening for a number of seconds."""
        self.refuse()
        self._reopening = asyncio.get_running_loop().create_task(self._listen_after(seconds))

    async def _listen_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if self._server is None:
            await self._listen()

    def _forget_reopening(self) -> None:
        if self._reopening is not None:
            self._reopening.cancel()

    async def close(self) -> None:
        """Stop listening for good."""
        self.refuse()
        if self._reopening is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reopening
            self._reopening = None
            # Its last step may have opened the socket.
            self.refuse()
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
