"""Objects between two processes of this package, their arrays without a copy on the way in and out."""

import asyncio
import pickle
import socket
import struct
from typing import Any

import numpy as np

_HEAD = struct.Struct("<QQ")
_SIZE = struct.Struct("<Q")


class Channel:
    """One end of a connected pair of sockets, each end held by a process that trusts the other.

    Args:
        own: The socket; closed with the channel.
    """

    def __init__(self, own: socket.socket) -> None:
        own.setblocking(False)
        self._socket = own
        self._sending = asyncio.Lock()

    def close(self) -> None:
        """Close it: the other end receives nothing more."""
        self._socket.close()

    async def send(self, message: object) -> None:
        """Send an object; whoever is cancelled in this must send no more.

        Raises:
            OSError: The other end is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, 5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        sizes = b"".join(_SIZE.pack(view.nbytes) for view in views)
        loop = asyncio.get_running_loop()
        async with self._sending:
            await loop.sock_sendall(self._socket, b"".join([_HEAD.pack(len(body), len(views)), sizes, body]))
            for view in views:
                await loop.sock_sendall(self._socket, view)

    async def receive(self) -> Any:
        """Receive the next object; whoever is cancelled in this must receive no more.

        Raises:
            EOFError: The other end is gone.
        """
        length, count = _HEAD.unpack(await self._exactly(_HEAD.size))
        start = await self._exactly(count * _SIZE.size + length)
        sizes = [size for (size,) in _SIZE.iter_unpack(start[: count * _SIZE.size])]
        buffers = [await self._exactly(size) for size in sizes]
        return pickle.loads(start[count * _SIZE.size :], buffers=buffers)  # noqa: S301 - the other end is our own

    async def _exactly(self, size: int) -> memoryview:
        loop = asyncio.get_running_loop()
        # Not a bytearray, which would be filled with zeros first.
        received = np.empty(size, np.uint8).data
        view = received
        while view:
            try:
                count = await loop.sock_recv_into(self._socket, view)
            except OSError as error:
                raise EOFError(f"the other process is gone: {error}") from None
            if not count:
                raise EOFError("the other process is gone")
            view = view[count:]
        return received
