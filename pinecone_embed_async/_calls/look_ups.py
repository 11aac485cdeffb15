"""Looks up the batches of a stream in the cache before they are sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pinecone_embed_async._errors import EmbedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pinecone_embed_async._calls.source import SourceReader
    from pinecone_embed_async._calls.stream_results import StreamResults
    from pinecone_embed_async._planning import PlannedRequest

    LookUp = Callable[[PlannedRequest], Awaitable[None]]
    """Looks up the inputs of a request, and records what was found in the stream's results."""


class BatchLookUps:
    """Looks up batches one by one while the source is still being read.

    Args:
        reader: reads the source; `notify` must be called when it has added batches.
        batches: the batches of the stream.
        look_up: looks up one batch.
    """

    def __init__(self, reader: SourceReader, batches: StreamResults, look_up: LookUp) -> None:
        self._reader = reader
        self._batches = batches
        self._look_up = look_up
        self._notified = asyncio.Event()

    def notify(self) -> None:
        """Note that there are batches to look up, or that the reader has finished."""
        self._notified.set()

    async def run(self) -> EmbedError | None:
        """Look up all batches that are read; returns the error that ends the job if the cache is misconfigured."""
        while True:
            self._notified.clear()
            while (request := self._batches.next_to_look_up()) is not None:
                try:
                    await self._look_up(request)
                except EmbedError as error:
                    return error.with_traceback(None)
            if self._reader.is_finished:
                return None
            await self._notified.wait()
