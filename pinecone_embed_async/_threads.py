"""Work that blocks is done in a thread, and waited for whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

ResultT = TypeVar("ResultT")


async def in_thread(work: Callable[[], ResultT], executor: Executor | None = None) -> ResultT:
    """Run `work` in a thread; if the caller is cancelled, it still waits for the thread, which cannot be.

    Args:
        work: what to do.
        executor: has the threads; the event loop's own if it is left out.
    """
    context = contextvars.copy_context()
    future = asyncio.get_running_loop().run_in_executor(executor, context.run, work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            # Who cancels twice must not have the work go on behind their back either.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([future])
        if not future.cancelled():
            # Looked at, so that asyncio does not complain that nobody did.
            future.exception()
        raise
