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

    async def decode(letter: str) -> None:
        priority: Priority = "interactive" if letter == "i" else "bulk"
        async with gate.passing(priority):
            seen.append(letter)

    async with asyncio.TaskGroup() as group, gate.passing("bulk"):
        for letter in order:
            group.create_task(decode(letter))
        await settle()
    return "".join(seen)


async def test_interactive_answers_are_decoded_before_bulk_ones_that_came_first() -> None:
    assert await decoded("bbiib") == "iibbb"


async def test_a_bulk_answer_waits_for_the_interactive_ones_before_it_but_not_for_later_ones() -> None:
    gate, seen = DecodeGate(), list[str]()

    async def decode(priority: Priority, name: str, then: str = "") -> None:
        async with gate.passing(priority):
            seen.append(name)
            if then:
                # Another interactive answer is always waiting.
                group.create_task(decode("interactive", then[0], then[1:]))
                await settle()

    async with asyncio.TaskGroup() as group:
        group.create_task(decode("interactive", "0", "123456789"))
        group.create_task(decode("bulk", "bulk"))
    assert seen.index("bulk") <= 2


@pytest.mark.parametrize("priority", ["bulk", "interactive"])
async def test_a_waiter_cancelled_at_any_moment_gives_its_place_back(priority: Priority) -> None:
    for turns in range(12):
        gate = DecodeGate()

        async def decode(gate: DecodeGate = gate) -> None:
            async with gate.passing(priority):
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(decode()) for _ in range(3)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
        await asyncio.wait_for(decode(), 1)
        assert repr(gate) == "<DecodeGate>"


async def test_a_gate_of_two_places_admits_two_at_a_time_and_interactive_ones_first() -> None:
    gate, seen = DecodeGate(2), list[str]()
    leave = [asyncio.Event() for _ in range(4)]
    priorities: list[Priority] = ["bulk", "bulk", "bulk", "interactive"]

    async def decode(number: int, priority: Priority) -> None:
        async with gate.passing(priority):
            seen.append(f"{priority} {number}")
            await leave[number].wait()

    async with asyncio.TaskGroup() as group:
        for number, priority in enumerate(priorities):
            group.create_task(decode(number, priority))
        await settle()
        assert seen == ["bulk 0", "bulk 1"]
        assert repr(gate) == "<DecodeGate, full>"
        leave[1].set()
        await settle()
        assert seen == ["bulk 0", "bulk 1", "interactive 3"]
        for event in leave:
            event.set()
    assert seen[-1] == "bulk 2"
    assert repr(gate) == "<DecodeGate>"
