"""The gate that limits concurrent decodes, and the thread for large answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pinecone_embed_async._foreign import until_done
from pinecone_embed_async._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor

    from pinecone_embed_async._rate_limit import Priority
    from pinecone_embed_async._wire import StreamingDecoder

MOST_IN_A_ROW = 8
"""Maximum number of consecutive interactive answers that are decoded before a waiting bulk answer."""


class DecodeGate:
    """Limits the number of concurrent decodes, and yields to the event loop between them.

    `sleep(0)` is not enough: tasks whose answers are ready in the same loop iteration would all decode in the next one.

    Args:
        places: maximum number of concurrent decodes.
    """

    def __init__(self, places: int = 1) -> None:
        self._free = places
        self._waiting: dict[Priority, deque[asyncio.Future[None]]] = {"interactive": deque(), "bulk": deque()}
        self._in_a_row = 0

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<DecodeGate {self._free} free, {waiting} waiting>"

    @contextlib.asynccontextmanager
    async def passing(self, priority: Priority, *, is_brief: bool = False) -> AsyncIterator[None]:
        """Decode in this block; interactive answers enter before bulk ones.

        Args:
            priority: priority of the answer.
            is_brief: whether the block takes so little of the event loop's time that it need not yield to it afterwards.
        """
        await self.enter(priority)
        try:
            try:
                yield
            finally:
                if not is_brief:
                    await asyncio.sleep(0)
        finally:
            self.leave()

    async def enter(self, priority: Priority) -> None:
        """Wait for the gate.

        Raises:
            asyncio.CancelledError: the caller was cancelled and does not hold a place in the gate.
        """
        if self._free:
            self._free -= 1
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[priority].append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """Leave the gate, and admit the next waiter."""
        interactive, bulk = self._waiting["interactive"], self._waiting["bulk"]
        while interactive or bulk:
            is_interactive = bool(interactive) and (not bulk or self._in_a_row < MOST_IN_A_ROW)
            future = (interactive if is_interactive else bulk).popleft()
            if not future.done():
                self._in_a_row = self._in_a_row + 1 if is_interactive else 0
                future.set_result(None)
                return
        self._free += 1


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
        finally:
            if future.done() and not future.cancelled():
                # Reading the exception keeps asyncio from warning that it was never retrieved.
                future.exception()
        future.result()

    async def aclose(self) -> None:
        """End the thread after its current step."""
        self._is_closed = True
        own, self._own = self._own, None
        if own is not None:
            try:
                await in_thread(lambda: None, own)
            finally:
                own.shutdown()
