import asyncio
from itertools import pairwise

import pytest

from pinecone_embed_async._limits import DecodeGate, Permits
from tests.clock import FakeClock, settle


async def test_no_more_permits_than_the_limit_first_come_first_served() -> None:
    permits = Permits(2, FakeClock())
    order: list[int] = []

    async def take(number: int) -> None:
        await permits.acquire()
        order.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(take(number))
        await settle()
        assert order == [0, 1]
        assert permits.in_flight == 2
        assert permits.waiting == 3
        for expected in (3, 4, 5):
            permits.release()
            await settle()
            assert order == list(range(expected))


async def test_a_cancelled_waiter_leaves_no_hole() -> None:
    permits = Permits(1, FakeClock())
    await permits.acquire()
    cancelled = asyncio.create_task(permits.acquire())
    served = asyncio.create_task(permits.acquire())
    await settle()
    cancelled.cancel()
    await settle()
    permits.release()
    await served
    assert permits.in_flight == 1
    assert permits.waiting == 0


async def test_a_waiter_cancelled_just_before_a_permit_comes_back_leaves_no_hole() -> None:
    permits = Permits(1, FakeClock())
    await permits.acquire()
    cancelled = asyncio.create_task(permits.acquire())
    next_one = asyncio.create_task(permits.acquire())
    await settle()
    cancelled.cancel()
    permits.release()
    await next_one
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert permits.in_flight == 1


async def test_a_waiter_cancelled_in_the_turn_of_its_grant_passes_the_permit_on() -> None:
    permits = Permits(1, FakeClock())
    await permits.acquire()
    unlucky = asyncio.create_task(permits.acquire())
    next_one = asyncio.create_task(permits.acquire())
    await settle()
    permits.release()
    unlucky.cancel()
    await next_one
    with pytest.raises(asyncio.CancelledError):
        await unlucky
    assert permits.in_flight == 1


async def test_a_rejection_pauses_all_and_one_goes_ahead_afterwards() -> None:
    clock = FakeClock()
    permits = Permits(4, clock)
    granted = await permits.acquire()
    assert permits.reject(granted, lambda _: 10.0, asked=False) == 10
    permits.release()
    waiting = [asyncio.create_task(permits.acquire()) for _ in range(3)]
    await settle()
    assert permits.in_flight == 0
    assert clock.pending == 1
    clock.advance(10)
    await settle()
    assert permits.in_flight == 1
    permits.accept()
    await settle()
    assert permits.in_flight == 3
    assert all(task.done() for task in waiting)
    assert clock.pending == 0


async def test_a_burst_of_rejections_counts_once_but_an_asked_pause_is_kept() -> None:
    clock = FakeClock()
    permits = Permits(4, clock)
    granted = [await permits.acquire() for _ in range(3)]
    clock.advance(1)
    seen: list[int] = []

    def backoff(bursts: int) -> float:
        seen.append(bursts)
        return 5.0 * bursts

    assert permits.reject(granted[0], backoff, asked=False) == 5
    assert permits.reject(granted[1], backoff, asked=False) == 5
    assert seen == [1]
    assert permits.reject(granted[2], lambda _: 60.0, asked=True) == 60


async def test_no_timer_is_left_when_the_last_waiter_is_cancelled() -> None:
    clock = FakeClock()
    permits = Permits(1, clock)
    permits.reject(await permits.acquire(), lambda _: 10.0, asked=False)
    permits.release()
    waiter = asyncio.create_task(permits.acquire())
    await settle()
    assert clock.pending == 1
    waiter.cancel()
    await settle()
    assert clock.pending == 0


async def test_the_gate_gives_the_loop_a_turn_between_decodes() -> None:
    gate, events = DecodeGate(), []

    async def decode(number: int) -> None:
        async with gate:
            events.append(f"decode {number}")

    async def other() -> None:
        for _ in range(8):
            events.append("other")
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(decode(number))
        group.create_task(other())
    decodes = [position for position, event in enumerate(events) if event.startswith("decode")]
    assert all("other" in events[left:right] for left, right in pairwise(decodes))
