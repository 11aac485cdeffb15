"""Looks up the batches of a stream in a cache before they are sent."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pinecone_embed_async._errors import EmbedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pinecone_embed_async._plan import PlannedRequest
    from pinecone_embed_async._stream._batches import Batches
    from pinecone_embed_async._stream._reader import Reader

    LookUp = Callable[[PlannedRequest], Awaitable[None]]
    """Looks up what a request carries, and has the batches know."""


class LookUps:
    """Looks up batches, one after the other, while the source is read on.

    Args:
        reader: reads the source; `handed_over` is to be called when it has handed over batches.
        batches: has the batches.
        look_up: looks one up.
    """

    def __init__(self, reader: Reader, batches: Batches, look_up: LookUp) -> None:
        self._reader = reader
        self._batches = batches
        self._look_up = look_up
        self._handed_over = asyncio.Event()

    def handed_over(self) -> None:
        """Note that there are batches to look up, or that the reader has finished."""
        self._handed_over.set()

    async def run(self) -> EmbedError | None:
        """Look up all batches that are read; gives the error that ends the job, for looking up cannot work."""
        while True:
            self._handed_over.clear()
            while (request := self._batches.next_unlooked()) is not None:
                try:
                    await self._look_up(request)
                except EmbedError as error:
                    return error.with_traceback(None)
            if self._reader.is_finished:
                return None
            await self._handed_over.wait()
