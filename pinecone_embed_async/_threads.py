"""Runs blocking work in a thread, and always waits for it."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, TypeVar

from pinecone_embed_async._foreign import until_done

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

ResultT = TypeVar("ResultT")


async def in_thread(work: Callable[[], ResultT], executor: Executor | None = None) -> ResultT:
    """Run `work` in a thread; a cancelled caller still waits for the thread, which cannot be cancelled.

    Args:
        work: the blocking function.
        executor: runs the work; `None` for the event loop's own.
    """
    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(executor, context.run, work)
    try:
        await until_done(future)
    except asyncio.CancelledError:
        if not future.cancelled():
            # Retrieving the exception keeps asyncio from warning that nobody did.
            future.exception()
        raise
    return future.result()
