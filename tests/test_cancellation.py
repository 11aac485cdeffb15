"""The same job cancelled before each of its steps in turn: nothing is left, and the client works on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pinecone_embed_async import DeadlineExceededError
from tests.interrupting import (
    MAX_CONCURRENCY,
    REFERENCE,
    STRIDES,
    TEXTS,
    Bench,
    FirstAttempts,
    cancelled_before_step,
    has_partial,
    in_stepping_loop,
    out_of_time_before_step,
    right,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine

    Job = Callable[["Bench"], Coroutine[Any, Any, object]]


async def embed_all(bench: Bench) -> None:
    right(await bench.client.embed(TEXTS))


async def embed_from_a_source(bench: Bench) -> None:
    async def source() -> AsyncGenerator[str, None]:
        for text in TEXTS:
            await asyncio.sleep(0)
            yield text

    async with contextlib.aclosing(source()) as texts:
        right(await bench.client.embed(texts))


async def open_embed_and_close(bench: Bench) -> None:
    async with bench.client:
        right(await bench.client.embed(TEXTS))


async def ask_for_models(bench: Bench) -> None:
    assert "tiny" in {model.model for model in await bench.client.list_models()}
    assert (await bench.client.describe_model()).model == "tiny"


class Source:
    """An async source that knows whether it was closed."""

    def __init__(self) -> None:
        self.is_open = False

    async def texts(self) -> AsyncGenerator[str, None]:
        self.is_open = True
        try:
            for text in TEXTS:
                await asyncio.sleep(0)
                yield text
        finally:
            self.is_open = False


async def stream_all(bench: Bench) -> None:
    source = Source()
    try:
        async with bench.client.stream(source.texts(), window=3) as batches:
            rows = [row async for batch in batches for row in batch.vectors]
        for text, row in zip(TEXTS, rows, strict=True):
            np.testing.assert_array_equal(row, REFERENCE[text])
    finally:
        assert not source.is_open


async def stream_and_leave_early(bench: Bench) -> None:
    source = Source()
    try:
        async with bench.client.stream(source.texts(), ordered=False) as batches:
            async for _ in batches:
                break
    finally:
        assert not source.is_open


@pytest.mark.parametrize(
    ("job", "stride"),
    [
        (ask_for_models, 1),
        (embed_all, 3),
        *((job, 5) for job in (stream_all, stream_and_leave_early, embed_from_a_source, open_embed_and_close)),
        *(
            pytest.param(job, 1, marks=pytest.mark.long)
            for job in (embed_all, stream_all, stream_and_leave_early, embed_from_a_source, open_embed_and_close)
        ),
    ],
)
def test_a_cancelled_call_leaves_nothing_behind_whichever_step_it_is_cancelled_before(job: Job, stride: int) -> None:
    async def main(bench: Bench) -> None:
        async def one(number: int) -> bool:
            bench.client = bench.new_client()
            had_that_many = await cancelled_before_step(bench, number, job)
            bench.nothing_is_left()
            async with bench.client:
                await bench.the_client_works_on()
            await bench.all_is_gone_once_it_is_closed()
            return had_that_many

        await sweep(one, stride)

    in_stepping_loop(main)


@pytest.mark.parametrize("stride", STRIDES)
def test_one_client_survives_all_these_cancellations(stride: int) -> None:
    async def main(bench: Bench) -> None:
        async with bench.client:

            async def one(number: int) -> bool:
                had_that_many = await cancelled_before_step(bench, number, embed_all)
                bench.nothing_is_left()
                assert bench.pooled() <= MAX_CONCURRENCY
                return had_that_many

            await sweep(one, stride)
            await bench.the_client_works_on()
        await bench.all_is_gone_once_it_is_closed()

    in_stepping_loop(main)


# Deadlines, and what others do with a task's cancellation.


async def embed_until_the_deadline(bench: Bench) -> None:
    try:
        right(await bench.client.embed(TEXTS, timeout=5))
    except DeadlineExceededError as error:
        has_partial(error)


async def embed_until_a_timeout_around_it(bench: Bench) -> None:
    try:
        async with asyncio.timeout(5) as scope:
            right(await bench.client.embed(TEXTS))
    except TimeoutError:
        assert scope.expired()


async def embed_until_both(bench: Bench) -> None:
    try:
        async with asyncio.timeout(5) as scope:
            await embed_until_the_deadline(bench)
    except TimeoutError:
        assert scope.expired()


async def stream_until_the_deadline(bench: Bench) -> None:
    rows: dict[int, Any] = {}
    try:
        async with bench.client.stream(TEXTS, timeout=5, on_error="return") as batches:
            async for batch in batches:
                if batch.embeddings.embedded.all():
                    rows[batch.start] = batch.vectors[0]
    except DeadlineExceededError as error:
        assert error.partial is not None
    for index, row in rows.items():
        np.testing.assert_array_equal(row, REFERENCE[TEXTS[index]])


DEADLINES = [stream_until_the_deadline, embed_until_the_deadline, embed_until_a_timeout_around_it, embed_until_both]


@pytest.mark.parametrize("job", DEADLINES)
@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("stride", STRIDES)
def test_a_deadline_hands_over_what_is_embedded_whichever_step_it_comes_before(job: Job, cancel: bool, stride: int) -> None:
    async def main(bench: Bench) -> None:
        async def one(number: int) -> bool:
            bench.client = bench.new_client()
            had_that_many = await out_of_time_before_step(bench, number, job, cancel=cancel)
            bench.nothing_is_left()
            await bench.the_client_works_on()
            await bench.all_is_gone_once_it_is_closed()
            return had_that_many

        await sweep(one, stride)

    in_stepping_loop(main)


class SiblingError(Exception):
    """Raised in a task beside the call's."""


@pytest.mark.parametrize("stride", STRIDES)
def test_a_task_group_around_it_hears_of_nothing_but_its_own_errors(stride: int) -> None:
    async def main(bench: Bench) -> None:
        async def one(number: int) -> bool:
            bench.client = bench.new_client()
            bench.emulator.faults = FirstAttempts()
            failing = asyncio.Event()

            async def sibling() -> None:
                await failing.wait()
                raise SiblingError

            async def both() -> None:
                async with asyncio.TaskGroup() as group:
                    group.create_task(sibling())
                    call = group.create_task(bench.client.embed(TEXTS))
                    bench.loop.before_step(number, failing.set)
                    right(await call)
                    failing.set()
                    # Python 3.11 forgets to take back what it cancels while a group is being left.
                    await asyncio.Event().wait()

            with pytest.raises(ExceptionGroup) as caught:
                await both()
            was_pending = bench.loop.forget()
            assert [type(error) for error in caught.value.exceptions] == [SiblingError]
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            bench.nothing_is_left()
            await bench.the_client_works_on()
            await bench.all_is_gone_once_it_is_closed()
            return not was_pending

        await sweep(one, stride)

    in_stepping_loop(main)


@pytest.mark.parametrize("stride", STRIDES)
def test_the_call_beside_a_cancelled_one_gets_its_rows(stride: int) -> None:
    async def main(bench: Bench) -> None:
        async with bench.client:

            async def one(number: int) -> bool:
                bench.emulator.faults = FirstAttempts()
                beside = asyncio.create_task(bench.client.embed(TEXTS))
                doomed = asyncio.create_task(bench.client.embed(TEXTS))
                bench.loop.before_step(number, doomed.cancel)
                await asyncio.wait([beside, doomed])
                was_pending = bench.loop.forget()
                right(await beside)
                bench.nothing_is_left()
                return not was_pending

            await sweep(one, stride)
            await bench.the_client_works_on()

    in_stepping_loop(main)


def test_a_client_whose_closing_is_cancelled_can_be_closed_again() -> None:
    async def close(bench: Bench) -> None:
        await bench.client.aclose()

    async def main(bench: Bench) -> None:
        async def one(number: int) -> bool:
            bench.client = bench.new_client()
            right(await bench.client.embed(TEXTS))
            had_that_many = await cancelled_before_step(bench, number, close)
            await bench.all_is_gone_once_it_is_closed()
            return had_that_many

        await sweep(one, 1)

    in_stepping_loop(main)
