"""The service's description of a client's model: fetched once; a failure to fetch it is not an error."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from pinecone_embed_async._errors import ClosedError, EmbedError, kind_of
from pinecone_embed_async._log import logger
from pinecone_embed_async._models import described_model

if TYPE_CHECKING:
    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._models import KnownModel
    from pinecone_embed_async._wire import ModelInfo

LOOK_UP_SECONDS = 5.0
"""How long to wait for the answer: it has only a few kilobytes, and a call waits for it."""


class ModelSource(Protocol):
    """Asks the service about a client's model."""

    async def describe_model(self, *, is_tried_once: bool) -> ModelInfo:
        """The description of the model; without retries if `is_tried_once`."""


class Discovery:
    """Fetches the description of a model once for all calls.

    Args:
        is_wanted: whether to fetch it at all.
        clock: the clock.

    Attributes:
        model: the model as described; `None` if it was not fetched, or the service did not describe it.
        is_done: whether there is nothing to wait for.
    """

    def __init__(self, *, is_wanted: bool, clock: Clock) -> None:
        self._clock = clock
        self._fetching: dict[asyncio.AbstractEventLoop, asyncio.Event] = {}
        self.model: KnownModel | None = None
        self.is_done = not is_wanted

    def __repr__(self) -> str:
        return f"<Discovery {'pending' if not self.is_done else 'done'}>"

    async def ask(self, service: ModelSource) -> None:
        """Wait until the description has been fetched. If the caller that fetches it is cancelled, another one takes over.

        Args:
            service: describes the model. It is not stored, because it refers to this object, and that would be a reference
                cycle: if the client were dropped without closing, its sessions would warn before the client could release
                them.

        Raises:
            ClosedError: the client was closed before the description was fetched.
        """
        loop = asyncio.get_running_loop()
        while not self.is_done:
            fetched = self._fetching.get(loop)
            if fetched is not None:
                # An event, not a lock, so that all callers go on in the same loop iteration and can share a request.
                await fetched.wait()
                continue
            fetched = self._fetching[loop] = asyncio.Event()
            try:
                await self._fetch(service)
            finally:
                del self._fetching[loop]
                fetched.set()

    async def _fetch(self, service: ModelSource) -> None:
        try:
            async with self._clock.timeout_at(self._clock.time() + LOOK_UP_SECONDS):
                self.model = described_model(await service.describe_model(is_tried_once=True))
        except ClosedError:
            # Not done: if the client is opened again, it fetches the description.
            raise
        except EmbedError as error:
            logger.debug("the service did not describe the model (%s); defaults are used", kind_of(error))
        except TimeoutError:
            logger.debug("the service did not describe the model within %g s; defaults are used", LOOK_UP_SECONDS)
        self.is_done = True
