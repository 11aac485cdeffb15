from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from pinecone_embed_async._sending.decode_gate import DecodeGate
from tests.clock import settle

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit import Priority


async def test_the_gate_yields_to_the_loop_between_decodes() -> None:
    gate, events = DecodeGate(), list[str]()

    async def decode(number: int) -> None:
        async with gate.passing("bulk"):
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


async def decoded(order: str) -> str:
    """The order in which waiters are admitted: `i` for interactive, `b` for bulk."""
    gate, seen = DecodeGate(), list[str]()
    await gate.enter("bulk")

    async def decode(letter: str) -> None:
        priority: Priority = "interactive" if letter == "i" else "bulk"
        async with gate.passing(priority):
            seen.append(letter)

    async with asyncio.TaskGroup() as group:
        for letter in order:
            group.create_task(decode(letter))
        await settle()
        gate.leave()
    return "".join(seen)


async def test_interactive_answers_are_decoded_before_bulk_ones_that_came_first() -> None:
    assert await decoded("bbiib") == "iibbb"


async def test_a_bulk_answer_is_decoded_after_eight_interactive_ones() -> None:
    assert await decoded("bb" + 20 * "i") == 8 * "i" + "b" + 8 * "i" + "b" + 4 * "i"


@pytest.mark.parametrize("leaves_first", [True, False])
async def test_a_cancelled_waiter_does_not_block_the_gate(leaves_first: bool) -> None:
    gate = DecodeGate()
    await gate.enter("bulk")
    cancelled = asyncio.create_task(gate.enter("bulk"))
    next_one = asyncio.create_task(gate.enter("bulk"))
    await settle()
    if leaves_first:
        gate.leave()
        cancelled.cancel()
    else:
        cancelled.cancel()
        gate.leave()
    await next_one
    gate.leave()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    await asyncio.wait_for(gate.enter("interactive"), 1)
    assert repr(gate) == "<DecodeGate 0 free, 0 waiting>"


async def test_a_gate_of_two_places_admits_two_at_a_time_and_interactive_ones_first() -> None:
    gate, seen = DecodeGate(2), list[str]()
    leave = [asyncio.Event() for _ in range(4)]
    priorities: list[Priority] = ["bulk", "bulk", "bulk", "interactive"]

    async def decode(number: int, priority: Priority) -> None:
        async with gate.passing(priority, is_brief=True):
            seen.append(f"{priority} {number}")
            await leave[number].wait()

    async with asyncio.TaskGroup() as group:
        for number, priority in enumerate(priorities):
            group.create_task(decode(number, priority))
        await settle()
        assert seen == ["bulk 0", "bulk 1"]
        leave[1].set()
        await settle()
        assert seen == ["bulk 0", "bulk 1", "interactive 3"]
        for event in leave:
            event.set()
    assert seen[-1] == "bulk 2"
    assert repr(gate) == "<DecodeGate 2 free, 0 waiting>"
