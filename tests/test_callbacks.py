"""Functions that a call uses: what they raise ends it with what was paid for, and what is no function is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pinecone_embed_async import AuthenticationError, ConfigurationError, EmbedClient, EmbeddedBatch, EmbedError, Progress
from pinecone_embed_async.emulator import Emulator
from tests.clients import E5, dense_client

TEXTS = [f"document {number}" for number in range(12)]
OPTIONS: dict[str, Any] = {"max_batch_size": 2, "max_concurrency": 1, "parameters": {"input_type": "passage"}}
RAISED = [KeyError("mine"), asyncio.CancelledError(), StopIteration(), StopAsyncIteration(), EmbedError("its own")]


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EmbedClient[Any]]:
    async with dense_client(emulator, **OPTIONS) as opened:
        yield opened


def raising_at(call: int, error: BaseException) -> tuple[Callable[[Progress], None], list[Progress]]:
    told: list[Progress] = []

    def progress(now: Progress) -> None:
        told.append(now)
        if len(told) == call:
            raise error

    return progress, told


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_progress_that_raises_ends_the_call_with_what_was_embedded(
    client: EmbedClient[Any], error: BaseException, on_error: Any
) -> None:
    progress, told = raising_at(3, error)
    with pytest.raises(EmbedError, match="`progress` raised") as caught:
        await client.embed(TEXTS, progress=progress, on_error=on_error)
    assert caught.value.__cause__ is error
    assert caught.value.partial is not None
    assert 6 <= caught.value.partial.embedded.sum() == client.statistics().inputs < len(TEXTS)
    assert len(told) == 3
    assert client.statistics().in_flight == 0
    assert (await client.embed(TEXTS)).embedded.all()


async def test_progress_that_raises_at_the_end_takes_nothing_away(client: EmbedClient[Any]) -> None:
    progress, _ = raising_at(6, KeyError("mine"))
    with pytest.raises(EmbedError, match="`progress` raised") as caught:
        await client.embed([*TEXTS, TEXTS[0]], dedupe=True, progress=progress)
    assert caught.value.partial is not None
    assert len(caught.value.partial) == 13
    assert caught.value.partial.embedded.all()
    assert caught.value.failures == ()


@pytest.mark.parametrize("on_error", ["raise", "return"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
async def test_progress_that_raises_ends_a_stream_after_what_was_embedded(
    client: EmbedClient[Any], error: BaseException, on_error: Any
) -> None:
    progress, _ = raising_at(3, error)
    seen: list[EmbeddedBatch[str, Any]] = []
    with pytest.raises(EmbedError, match="`progress` raised") as caught:
        async with client.stream(TEXTS, progress=progress, on_error=on_error) as batches:
            async for batch in batches:
                seen.append(batch)  # noqa: PERF401 - what came before the error is looked at
    assert caught.value.__cause__ is error
    assert caught.value.partial is not None
    assert 6 <= sum(int(batch.embeddings.embedded.sum()) for batch in seen) == client.statistics().inputs < len(TEXTS)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_stream_that_is_left_before_it_tells_what_progress_raised_raises_it(client: EmbedClient[Any]) -> None:
    progress, _ = raising_at(1, KeyError("mine"))
    with pytest.raises(EmbedError, match="`progress` raised"):
        async with client.stream(TEXTS, progress=progress) as batches:
            await anext(batches)


async def test_a_stream_tells_what_progress_raised_also_where_something_else_ended_the_job(emulator: Emulator) -> None:
    progress, _ = raising_at(1, KeyError("mine"))
    told: list[EmbedError] = []
    async with (
        EmbedClient(E5, api_key="wrong", base_url=emulator.url, **OPTIONS) as stranger,
        stranger.stream(TEXTS, progress=progress) as batches,
    ):
        while True:
            try:
                await anext(batches)
            except EmbedError as error:
                told.append(error)
            except StopAsyncIteration:
                break
    assert [type(error) for error in told] == [AuthenticationError, EmbedError]
    assert isinstance(told[1].__cause__, KeyError)


async def coroutine_function(_: object) -> str:
    return "a"


class Asynchronous:
    async def __call__(self, _: object) -> str:
        return "a"


@pytest.mark.parametrize("function", [5, "print", coroutine_function, Asynchronous()])
async def test_what_is_no_function_is_refused_before_anything_is_read_or_sent(
    emulator: Emulator, client: EmbedClient[Any], function: Any
) -> None:
    pulled: list[int] = []

    def source() -> Iterator[str]:
        pulled.append(1)
        yield "a"

    with pytest.raises(ConfigurationError, match=r"progress must be a (plain )?function"):
        await client.embed(source(), progress=function)
    with pytest.raises(ConfigurationError, match=r"progress must be a (plain )?function"):
        client.stream(source(), progress=function)
    with pytest.raises(ConfigurationError, match=r"text must be a (plain )?function"):
        client.stream(source(), text=function)
    with pytest.raises(ConfigurationError, match="hook"):
        dense_client(emulator, hooks=[function])
    assert pulled == []
    assert emulator.statistics().requests == 0
