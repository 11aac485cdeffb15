"""Permits under a clock that goes on while it is looked at, as a real one does."""

import asyncio

import pytest

from pinecone_embed_async._limits import Permits
from tests.clock import FakeClock, settle


class CreepingClock(FakeClock):
    """Goes on by a millisecond with every look at it."""

    def time(self) -> float:
        self.now += 0.001
        return self.now


@pytest.mark.parametrize("looks", range(20))
async def test_a_pause_that_ends_between_two_looks_at_the_clock_keeps_nobody_waiting(looks: int) -> None:
    clock = CreepingClock()
    permits = Permits(1, clock)
    granted = await permits.acquire()
    permits.reject(granted, lambda _: 0.001 * looks + 0.0005, asked=True)
    permits.release()
    waiting = asyncio.create_task(permits.acquire())
    await settle()
    clock.advance(1)
    await settle()
    assert waiting.done()
