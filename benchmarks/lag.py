"""How late other tasks on the event loop run while a competitor works, measured by a task due every millisecond."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

INTERVAL = 0.001
"""Seconds between two ticks."""


@contextlib.asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """Record, while the block runs, by how many seconds each tick was late."""
    late: list[float] = []

    async def tick() -> None:
        while True:
            due = time.perf_counter() + INTERVAL
            await asyncio.sleep(INTERVAL)
            late.append(time.perf_counter() - due)

    task = asyncio.create_task(tick())
    try:
        yield late
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
