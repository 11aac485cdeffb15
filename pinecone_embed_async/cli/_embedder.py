"""The process that embeds the texts of a job.

It receives the settings and the texts over a socket, and sends embeddings back. It has no file of the job, so at
whatever moment either process is killed, the other leaves nothing harmful behind.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from pinecone_embed_async import DenseEmbeddings, EmbedClient, EmbedError, SparseEmbeddings, Statistics
from pinecone_embed_async.cli._channel import Channel
from pinecone_embed_async.cli._connection import Settings, connected
from pinecone_embed_async.cli._slots import Slots

STATISTICS_INTERVAL = 0.1
"""Seconds between two messages of the client's statistics: as often as a bar is drawn."""


class Texts(NamedTuple):
    """More texts, which follow those of earlier messages."""

    texts: list[str]
    is_last: bool


class MoreWanted(NamedTuple):
    """A request for another message of texts."""


class Embedded(NamedTuple):
    """A batch of the stream: the embeddings of the texts from `start` on."""

    start: int
    embeddings: DenseEmbeddings | SparseEmbeddings


class Counted(NamedTuple):
    """The client's statistics so far."""

    statistics: Statistics


class Ended(NamedTuple):
    """The last message, with the error that ended the stream, if one did."""

    error: EmbedError | None


async def embed_for(channel: Channel) -> None:
    """Embed the texts that come over a channel until its other end is closed."""
    with contextlib.suppress(EOFError, OSError):
        settings: Settings = await channel.receive()
        try:
            async with connected(settings) as client:
                await channel.send(Counted(client.statistics()))
                await _Session(channel, client).serve()
        except EmbedError as error:
            await channel.send(Ended(error.with_traceback(None)))


class _Session:
    """Embeds the texts of one job."""

    def __init__(self, channel: Channel, client: EmbedClient[Any]) -> None:
        self._channel = channel
        self._client = client
        self._arrived: asyncio.Queue[Texts] = asyncio.Queue()
        self._done = asyncio.Event()

    async def serve(self) -> None:
        """Embed until everything is sent and the other process has closed its end, or is gone."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(), name="listen")
                counting = group.create_task(self._send_statistics(), name="statistics")
                error = await self._embed()
                self._done.set()
                # Not cancelled, for a message must be sent whole.
                await counting
                await self._channel.send(Ended(error))
        except* (EOFError, OSError):
            pass

    async def _embed(self) -> EmbedError | None:
        try:
            async with self._client.stream(self._texts(), ordered=False, on_error="return") as batches:
                async for batch in batches:
                    await self._channel.send(Embedded(batch.start, batch.embeddings))
        except EmbedError as error:
            return error.with_traceback(None)
        return None

    async def _texts(self) -> AsyncIterator[str]:
        while True:
            message = await self._arrived.get()
            await self._channel.send(MoreWanted())
            for text in message.texts:
                yield text
            if message.is_last:
                return

    async def _listen(self) -> None:
        while True:
            self._arrived.put_nowait(await self._channel.receive())

    async def _send_statistics(self) -> None:
        while not self._done.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATISTICS_INTERVAL):
                    await self._done.wait()
            await self._channel.send(Counted(self._client.statistics()))


def main(channel: int, memory: int | None = None) -> None:
    """Entry point of the process.

    Args:
        channel: The descriptor of a socket.
        memory: The descriptor of shared memory; `None` if there is none.
    """
    # Log lines of the client and asyncio would come between those of the progress, as in the other process.
    logging.getLogger().addHandler(logging.NullHandler())
    asyncio.run(_embed_over(socket.socket(fileno=channel), None if memory is None else Slots(memory)))


async def _embed_over(own: socket.socket, slots: Slots | None) -> None:
    with contextlib.closing(Channel(own, to_fill=slots)) as channel:
        await embed_for(channel)
