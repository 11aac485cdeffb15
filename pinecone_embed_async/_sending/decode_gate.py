"""The gate that limits concurrent decodes, and the thread for large answers."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pinecone_embed_async._foreign import until_done
from pinecone_embed_async._threads import in_thread, result_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor

    from pinecone_embed_async._rate_limit import Priority
    from pinecone_embed_async._wire import StreamingDecoder


class DecodeGate:
    """Limits the number of concurrent decodes, and yields to the event loop between them.

    `sleep(0)` is not enough: tasks whose answers are ready in the same loop iteration would all decode in the next one.

    Bulk answers first wait for each other, and no more of them than there are places wait with the interactive ones. So an
    interactive answer enters before nearly all waiting bulk ones, and no bulk answer waits forever.

    Args:
        places: maximum number of concurrent decodes.
    """

    def __init__(self, places: int = 1) -> None:
        self._places = asyncio.Semaphore(places)
        self._bulk = asyncio.Semaphore(places)

    def __repr__(self) -> str:
        return f"<DecodeGate{', full' if self._places.locked() else ''}>"

    @contextlib.asynccontextmanager
    async def passing(self, priority: Priority) -> AsyncIterator[None]:
        """Decode an answer of this priority in this block."""
        async with self._bulk if priority == "bulk" else contextlib.nullcontext(), self._places:
            yield
            await asyncio.sleep(0)


class DecodeThread:
    """Decodes large answers in a thread, which starts with the first of them.

    Args:
        executor: runs the decoding; `None` for a thread of its own.
    """

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor
        self._own: ThreadPoolExecutor | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<DecodeThread {'closed' if self._is_closed else 'idle' if self._own is None else 'running'}>"

    async def decode(self, decoder: StreamingDecoder, most: int) -> None:
        """Decode up to `most` bytes. A cancelled caller waits for the current step.

        After `aclose`, decoding runs in the event loop's thread.
        """
        if self._is_closed:
            decoder.decode(most)
            return
        executor = self._executor
        if executor is None:
            executor = self._own = self._own or ThreadPoolExecutor(1, "pinecone-embed-decode")
        work = executor.submit(decoder.decode, most)
        future = asyncio.wrap_future(work)
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            decoder.stop()
            # Ends it at once if it has not begun, because all threads of a caller's executor may be busy.
            work.cancel()
            await until_done(future)
            raise
        await result_of(future)

    async def aclose(self) -> None:
        """End the thread after its current step."""
        self._is_closed = True
        own, self._own = self._own, None
        if own is not None:
            try:
                await in_thread(lambda: None, own)
            finally:
                own.shutdown()
