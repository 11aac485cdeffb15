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


class LookingReader:
    """A reader whose batches are looked up, one after the other, while it reads on.

    Args:
        reader: reads the source; `handed_over` is to be called when it has handed over batches.
        batches: has the batches.
        look_up: looks one up.
        failed: takes the error that ends the job, for looking up cannot work.
    """

    def __init__(self, reader: Reader, batches: Batches, look_up: LookUp, failed: Callable[[EmbedError], None]) -> None:
        self._reader = reader
        self._batches = batches
        self._look_up = look_up
        self._failed = failed
        self._handed_over = asyncio.Event()

    @property
    def task(self) -> asyncio.Task[None] | None:
        """See `Reader`."""
        return self._reader.task

    @property
    def is_finished(self) -> bool:
        """See `Reader`; what is not looked up yet is among the batches."""
        return self._reader.is_finished

    @property
    def error(self) -> Exception | None:
        """See `Reader`."""
        return self._reader.error

    @property
    def was_cancelled(self) -> bool:
        """See `Reader`."""
        return self._reader.was_cancelled

    @property
    def closing_error(self) -> Exception | None:
        """See `Reader`."""
        return self._reader.closing_error

    def handed_over(self) -> None:
        """Note that there are batches to look up, or that the reader has finished."""
        self._handed_over.set()

    async def read(self, room: Callable[[], Awaitable[bool]], has_room: Callable[[], bool]) -> None:
        """See `Reader.read`; ends when everything is looked up."""
        async with asyncio.TaskGroup() as group:
            # Both are tasks of the group, so that they are cancelled together, and neither waits for the other's neighbour.
            group.create_task(self._look_all_up(), name="look up batches")
            group.create_task(self._reader.read(room, has_room), name="read the source")

    async def _look_all_up(self) -> None:
        while True:
            self._handed_over.clear()
            while (request := self._batches.next_unlooked()) is not None:
                try:
                    await self._look_up(request)
                except EmbedError as error:
                    self._failed(error.with_traceback(None))
                    return
            if self._reader.is_finished:
                return
            await self._handed_over.wait()
