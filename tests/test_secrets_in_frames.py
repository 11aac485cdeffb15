"""Programs that report errors keep the local variables of every frame: those of the library hold neither key nor text."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from pinecone_embed_async import EmbedError
from pinecone_embed_async.emulator import Emulator, FaultRule
from tests.clients import E5, SPARSE
from tests.silence import KEY, TEXTS, assert_frames_are_silent, assert_silent, client_of, is_struck

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def source() -> AsyncIterator[str]:
    for text in TEXTS:
        yield text


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize(
    "fault", ["status=503", "status=401", "status=400", "cut_off_body", "wrong_count", "month_quota_spent", "rate_limited"]
)
async def test_an_error_that_leaves_holds_no_text_in_the_librarys_frames(fault: str, model: str) -> None:
    faults = FaultRule(fault, when=is_struck)
    async with Emulator(api_key=KEY, faults=faults) as emulator, client_of(emulator, model) as client:
        for inputs in (TEXTS, source(), ({"text": text} for text in TEXTS)):
            with pytest.raises(EmbedError) as caught:
                await client.embed(inputs)
            assert_frames_are_silent(caught.value)


async def test_a_deadline_holds_no_text_in_the_librarys_frames() -> None:
    async with Emulator(api_key=KEY) as emulator, client_of(emulator, E5) as client:
        emulator.hold()
        with pytest.raises(EmbedError) as caught:
            await client.embed(TEXTS, timeout=0.05)
        emulator.release()
    assert_frames_are_silent(caught.value)


@pytest.mark.parametrize("inputs", [TEXTS[0], TEXTS])
async def test_a_cancelled_call_holds_neither_key_nor_text_in_the_frames_that_sent_them(inputs: str | list[str]) -> None:
    async with Emulator(api_key=KEY) as emulator, client_of(emulator, E5) as client:
        emulator.hold()
        for call in (client.embed(inputs), client.embed_one(TEXTS[0])):
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await call
            assert_frames_are_silent(caught.value)
        emulator.release()


async def test_an_error_before_anything_is_sent_holds_no_text_in_the_librarys_frames() -> None:
    async with Emulator(api_key=KEY) as emulator, client_of(emulator, E5) as client:
        for inputs in ([*TEXTS, 5], [*TEXTS, f"{TEXTS[0]} \ud800"], [{"texts": TEXTS[0]}]):
            with pytest.raises(EmbedError) as caught:
                await client.embed(inputs)  # type: ignore[arg-type]
            assert_silent((str(caught.value), repr(caught.value)), "an error")
            assert_frames_are_silent(caught.value)
        with pytest.raises(EmbedError) as caught:
            await client.embed(TEXTS, timeout=-1)
        assert_frames_are_silent(caught.value)
