"""Messages between two processes of this package, their arrays in shared memory if there is room."""

import asyncio
import pickle
import socket
import struct
from typing import Any

import numpy as np

from pinecone_embed_async.cli._slots import Slots

_HEAD = struct.Struct("<QQq")
_NO_SLOT = -1
_SIZE = struct.Struct("<Q")


class Channel:
    """One end of a connected pair of sockets, each end held by a process that trusts the other.

    Args:
        own: The socket; closed with the channel.
        to_fill: Shared memory for the arrays that this end sends.
        filled: Shared memory for the arrays that this end receives.
    """

    def __init__(self, own: socket.socket, *, to_fill: Slots | None = None, filled: Slots | None = None) -> None:
        own.setblocking(False)
        self._socket = own
        self._to_fill, self._filled = to_fill, filled
        self._sending = asyncio.Lock()

    def close(self) -> None:
        """Close it: the other end receives nothing more."""
        self._socket.close()

    async def send(self, message: object) -> None:
        """Send an object; nothing may be sent after a cancellation.

        Raises:
            OSError: The other end is gone.
        """
        buffers: list[pickle.PickleBuffer] = []
        body = pickle.dumps(message, 5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        sizes = b"".join(_SIZE.pack(view.nbytes) for view in views)
        slot = self._to_fill.fill(views) if views and self._to_fill is not None else None
        head = _HEAD.pack(len(body), len(views), _NO_SLOT if slot is None else slot)
        loop = asyncio.get_running_loop()
        async with self._sending:
            await loop.sock_sendall(self._socket, b"".join([head, sizes, body]))
            if slot is None:
                for view in views:
                    await loop.sock_sendall(self._socket, view)

    async def receive(self) -> Any:
        """Receive the next object; nothing may be received after a cancellation.

        Raises:
            EOFError: The other end is gone.
        """
        length, count, slot = _HEAD.unpack(await self._exactly(_HEAD.size))
        start = await self._exactly(count * _SIZE.size + length)
        sizes = [size for (size,) in _SIZE.iter_unpack(start[: count * _SIZE.size])]
        if slot == _NO_SLOT or self._filled is None:
            buffers = [await self._exactly(size) for size in sizes]
        else:
            buffers = self._filled.buffers(slot, sizes)
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
