"""A slot of the scheduler, for one request under way."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from pinecone_embed_async._foreign import Cancellations
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pinecone_embed_async._planning import PlannedRequest


class Slot(SilentStruct):
    """A slot for one request under way.

    Attributes:
        request: its request; `None` while it waits for a permit, because the permit decides what the request holds.
        is_settled: whether its outcome is recorded or not needed; its answer may still be on its way to the cache.
    """

    request: PlannedRequest | None = None
    is_settled: bool = False
    _cancellations: Cancellations | None = None

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Send the request in the running task, until it ends or the slot is cancelled.

        Raises:
            asyncio.CancelledError: the task was cancelled, not the slot.
        """
        self._cancellations = cancellations = Cancellations(asyncio.current_task())
        cancelled: list[tuple[Any, ...]] = []
        try:
            await work
            if cancellations.is_interrupted or cancellations.is_callers:
                # In the last step of the request: the cancellation is still to come.
                await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            if cancellations.is_callers or not cancellations.is_interrupted:
                # The caller's may be followed by the slot's, and anyio tells its own by their message.
                while not error.args and isinstance(error.__context__, asyncio.CancelledError):
                    error = error.__context__
                cancelled.append(error.args)
        finally:
            self._cancellations = None
            cancellations.end()
        if cancelled:
            # Another one, because the traceback of the first shows frames that hold the key and the texts.
            raise asyncio.CancelledError(*cancelled.pop())

    def cancel(self) -> None:
        """Cancel what the request awaits, but only once, because a second cancellation would interrupt its clean-up."""
        if self._cancellations is not None:
            self._cancellations.interrupt()
