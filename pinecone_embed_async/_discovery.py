"""What the service says about a client's model: asked once, and never a reason to fail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pinecone_embed_async._errors import ClosedError, EmbedError, kind_of
from pinecone_embed_async._log import logger
from pinecone_embed_async._models import described_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._models import KnownModel
    from pinecone_embed_async._wire import ModelInfo

LOOK_UP_SECONDS = 5.0
"""How long the answer is waited for: it has a few kilobytes, and a call waits behind it."""


class Discovery:
    """Asks the service about a model once, however many calls want to know.

    Args:
        is_wanted: whether to ask at all.
        clock: the time.

    Attributes:
        model: what the service said; `None` if it was not asked, or said nothing of use.
        is_done: whether there is nothing to wait for.
    """

    def __init__(self, *, is_wanted: bool, clock: Clock) -> None:
        self._clock = clock
        self._asked: dict[asyncio.AbstractEventLoop, asyncio.Event] = {}
        self.model: KnownModel | None = None
        self.is_done = not is_wanted

    def __repr__(self) -> str:
        return f"<Discovery {'pending' if not self.is_done else 'done'}>"

    async def ask(self, fetch: Callable[[], Awaitable[ModelInfo]]) -> None:
        """Wait until the service has been asked. If the caller who asks is cancelled, the next one does.

        Args:
            fetch: asks; one attempt. Not kept: with a method of the client, the client would be part of a circle, and one
                that is dropped unclosed would let go of its sessions only after these have complained.

        Raises:
            ClosedError: the client was closed before it could be asked.
        """
        loop = asyncio.get_running_loop()
        while not self.is_done:
            asked = self._asked.get(loop)
            if asked is not None:
                # An event and not a lock: all go on in the same turn, and may share a request.
                await asked.wait()
                continue
            asked = self._asked[loop] = asyncio.Event()
            try:
                await self._ask(fetch)
            finally:
                del self._asked[loop]
                asked.set()

    async def _ask(self, fetch: Callable[[], Awaitable[ModelInfo]]) -> None:
        try:
            async with self._clock.timeout_at(self._clock.time() + LOOK_UP_SECONDS):
                self.model = described_model(await fetch())
        except ClosedError:
            # The client may be opened again: then it is asked.
            raise
        except EmbedError as error:
            logger.debug("the service did not describe the model (%s); defaults are used", kind_of(error))
        except TimeoutError:
            logger.debug("the service did not describe the model within %g s; defaults are used", LOOK_UP_SECONDS)
        self.is_done = True
