"""How a source is read: when its items are handed over, and when the program is interrupted."""

import asyncio
import sys
from collections.abc import AsyncIterator
from types import FrameType
from typing import Any

import pytest

from pinecone_embed_async import EmbedClient, MockResponse, MockTransport, TransportRequest
from pinecone_embed_async._calls.source import SourceReader
from tests.clients import E5
from tests.clock import FakeClock, settle


def answer(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[1.0] * 1024 for _ in request.json()["inputs"]])


async def gathered(items: Any) -> list[Any]:
    async with (
        EmbedClient(E5, api_key="key", transport=MockTransport(answer)) as client,
        client.stream(items, input_type="passage") as batches,
    ):
        return [item async for batch in batches for item in batch.items]


async def slow(*items: str) -> AsyncIterator[str]:
    for item in items:
        yield item


@pytest.mark.parametrize("is_async", [False, True])
def test_an_interruption_between_the_steps_of_reading_is_raised_and_not_taken_for_the_sources_error(is_async: bool) -> None:
    steps = at = 0

    def interrupt(_: FrameType, event: str, __: object) -> Any:
        nonlocal steps
        if event == "line":
            steps += 1
            if steps == at:
                raise KeyboardInterrupt
        return interrupt

    def interrupted_source(frame: FrameType, event: str, arg: object) -> Any:
        return interrupt(frame, event, arg) if frame.f_code is SourceReader._texts_of.__code__ else None

    async def main() -> list[Any]:
        nonlocal steps
        steps = 0
        # Closing the loop reports the interruption once more.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        before = sys.gettrace()
        sys.settrace(interrupted_source)
        try:
            return await gathered(slow("one", "two") if is_async else ["one", "two"])
        finally:
            sys.settrace(before)

    assert asyncio.run(main()) == ["one", "two"]
    for step in range(1, steps + 1):
        at = step
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(main())


async def two_large_items() -> AsyncIterator[str]:
    """Two items that have no room in one request; the source never ends."""
    yield "a" * 1_500_000
    yield "b" * 1_500_000
    await asyncio.get_running_loop().create_future()


async def test_max_delay_counts_for_an_item_that_a_full_request_had_no_room_for() -> None:
    clock = FakeClock()
    async with (
        EmbedClient(E5, api_key="key", transport=MockTransport(answer), clock=clock) as client,
        client.stream(two_large_items(), input_type="passage", max_delay=0.5) as batches,
    ):
        await settle()
        assert repr(batches).endswith(" 1/16 batches read ahead>")
        clock.advance(0.5)
        await settle()
        assert repr(batches).endswith(" 2/16 batches read ahead>")


async def test_max_delay_of_an_item_without_room_also_passes_while_the_window_is_full() -> None:
    clock = FakeClock()
    async with (
        asyncio.timeout(20),
        EmbedClient(E5, api_key="key", transport=MockTransport(answer), clock=clock) as client,
        client.stream(two_large_items(), input_type="passage", window=1, max_delay=0.5) as batches,
    ):
        await settle()
        clock.advance(0.5)
        assert [item[0] for item in (await anext(batches)).items] == ["a"]
        assert [item[0] for item in (await anext(batches)).items] == ["b"]
