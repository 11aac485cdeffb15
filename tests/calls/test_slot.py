from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pinecone_embed_async._calls.slot import Slot
from tests.clock import settle

if TYPE_CHECKING:
    from collections.abc import Callable


async def wait(seen: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        seen.append("cancelled")
        raise


async def test_a_cancelled_slot_ends_its_request_and_not_its_task() -> None:
    async def call() -> int:
        await slot.run(wait(seen))
        seen.append("ended")
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    slot, seen = Slot(), list[str]()
    calling = asyncio.create_task(call())
    await settle()
    slot.cancel()
    slot.cancel()
    assert await calling == 0
    assert seen == ["cancelled", "ended"]


@pytest.mark.parametrize("is_slot_first", [True, False])
async def test_a_task_that_is_cancelled_with_its_slot_ends(is_slot_first: bool) -> None:
    slot, seen = Slot(), list[str]()
    calling = asyncio.create_task(slot.run(wait(seen)))
    await settle()
    for cancel in (slot.cancel, calling.cancel) if is_slot_first else (calling.cancel, slot.cancel):
        cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert calling.cancelling() == 1


@pytest.mark.parametrize("is_slot_first", [True, False])
async def test_the_message_of_the_callers_cancellation_is_kept_if_the_slot_cancels_the_clean_up(is_slot_first: bool) -> None:
    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()

    slot = Slot()
    calling = asyncio.create_task(slot.run(clean_up()))
    await settle()
    cancels: list[Callable[[], object]] = [slot.cancel, lambda: calling.cancel("mine")]
    for cancel in cancels if is_slot_first else reversed(cancels):
        cancel()
        await settle()
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await calling


async def test_a_slot_that_cancels_itself_in_its_last_step_does_not_disturb_its_task() -> None:
    async def cancel_itself() -> None:
        slot.cancel()

    slot = Slot()
    await slot.run(cancel_itself())
    await asyncio.sleep(0)


async def test_a_task_that_is_cancelled_in_its_last_step_ends() -> None:
    async def cancel_the_caller() -> None:
        calling.cancel("mine")

    async def call() -> None:
        await Slot().run(cancel_the_caller())
        raise AssertionError("the caller went on")

    calling = asyncio.create_task(call())
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await calling


async def test_a_request_that_swallows_its_cancellation_ends_as_it_likes() -> None:
    async def swallow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async def call() -> None:
        await slot.run(swallow())
        await asyncio.sleep(0)

    slot = Slot()
    calling = asyncio.create_task(call())
    await settle()
    slot.cancel()
    await calling
    assert calling.cancelling() == 0


async def test_a_cancellation_that_nobody_requested_is_passed_on() -> None:
    async def stray() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await Slot().run(stray())
