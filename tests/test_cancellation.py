"""The same job cancelled before each of its steps in turn: nothing is left, and the client works on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pinecone_embed_async import DeadlineExceededError, DenseEmbeddings, EmbedClient, EmbedError, RetryPolicy
from pinecone_embed_async.emulator import EmbedRequest, EmulatedModel, Emulator, Fault
from tests.stepping import SteppingLoop

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator

    Job = Callable[["Bench"], Coroutine[Any, Any, object]]

TINY = EmulatedModel("tiny", default_dimension=4, supported_dimensions=(4,))
TEXTS = ["plain", "unavailable", "cut", "limited", "nan", "closed"]
ON_FIRST_ATTEMPT = {
    "unavailable": Fault("status", "503"),
    "cut": Fault("cut_off_body"),
    "limited": Fault("rate_limited", "0"),
    "nan": Fault("nan_values"),
    "closed": Fault("keep_alive_close"),
}
MAX_CONCURRENCY = 2
QUICK = RetryPolicy(initial_backoff=0.001, max_backoff=0.002)
AGES = 1e6
"""Seconds that never pass here, not even when the clock is put forward."""


OF_THE_SERVER = ("RequestHandler.", "._accept_connection2")
"""What the emulator, in the same loop, may still be doing."""


class FirstAttempts:
    """Spoils the first attempt of each text with the fault that the text names."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def choose(self, request: EmbedRequest) -> Fault | None:
        for text in request.inputs:
            self._seen[text] += 1
            if self._seen[text] == 1 and text in ON_FIRST_ATTEMPT:
                # Those behind it have theirs in the attempts to come.
                return ON_FIRST_ATTEMPT[text]
        return None


class Bench:
    """An emulator and a client in one loop, the job's faults ready anew, and a look at what is left behind."""

    def __init__(self, emulator: Emulator, loop: SteppingLoop) -> None:
        self.emulator = emulator
        self.loop = loop
        self.client = self.new_client()

    def new_client(self, max_batch_size: int = 1) -> EmbedClient[DenseEmbeddings]:
        return EmbedClient(
            "tiny",
            vector_type="dense",
            api_key=self.emulator.api_key,
            base_url=self.emulator.url,
            max_concurrency=MAX_CONCURRENCY,
            max_batch_size=max_batch_size,
            retry=QUICK,
            attempt_timeout=AGES,
            connect_timeout=AGES,
        )

    def our_tasks(self) -> set[str]:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return {repr(task) for task in others if not any(name in repr(task.get_coro()) for name in OF_THE_SERVER)}

    def our_timers(self) -> set[str]:
        return {name for name in self.loop.timers() if not name.startswith("RequestHandler.")}

    def pooled(self) -> int:
        """Connections that the client keeps for later; none of them is in use."""
        kept = 0
        for state in self.client._engine._states.values():
            connector = state.session.connector
            assert connector is not None
            assert not connector._acquired
            kept += sum(map(len, connector._conns.values()))
        return kept

    async def settle(self) -> None:
        """Wait until the server has noticed what became of its connections."""
        await self.emulator.wait_until_idle()
        pooled = self.pooled()
        for _ in range(1000):
            if self.emulator.statistics().connections_open == pooled:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{self.emulator.statistics().connections_open} connections, {pooled} of them in the pool")

    def nothing_is_left(self) -> None:
        statistics = self.client.statistics()
        assert statistics.in_flight == statistics.waiting == 0
        assert self.our_tasks() == set()
        # The pool looks after its idle connections by a timer of its own.
        assert self.our_timers() <= {"_weakref_handle"}
        assert self.loop.said == []

    async def the_client_works_on(self) -> None:
        self.emulator.faults = None
        right(await self.client.embed(TEXTS))
        assert self.pooled() <= MAX_CONCURRENCY
        await self.settle()
        self.nothing_is_left()

    async def all_is_gone_once_it_is_closed(self) -> None:
        await self.client.aclose()
        self.nothing_is_left()
        assert self.our_timers() == set()
        await self.settle()


def right(result: DenseEmbeddings) -> None:
    """Each text's vector, as it is answered alone, is in its row."""
    for text, row in zip(TEXTS, result, strict=True):
        np.testing.assert_array_equal(row, REFERENCE[text])


REFERENCE: dict[str, Any] = {}


async def learn_reference(bench: Bench) -> None:
    for text in TEXTS:
        REFERENCE[text] = (await bench.client.embed(text))[0]


@contextlib.contextmanager
def no_warnings_later() -> Iterator[None]:
    """What is collected now must not complain: warnings are errors, and unraisable ones fail the test."""
    yield
    gc.collect()


def in_stepping_loop(main: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Run a test with an emulator and a client in a loop that counts."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppingLoop)
        async with Emulator(models=[TINY]) as emulator:
            bench = Bench(emulator, loop)
            await learn_reference(bench)
            await bench.client.aclose()
            await main(bench)

    with no_warnings_later(), asyncio.Runner(loop_factory=SteppingLoop) as runner:
        runner.run(run())


async def cancelled_before_step(bench: Bench, number: int, job: Job) -> bool:
    """Cancel a job before its `number`-th step; says whether it had that many."""
    bench.emulator.faults = FirstAttempts()
    went_through: list[tuple[object, ...]] = []
    requested = False

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            nonlocal requested
            requested = task.cancel("enough")

        bench.loop.before_step(number, cancel)
        try:
            await job(bench)
        except asyncio.CancelledError as error:
            went_through.append((error.args, error.__cause__, task.cancelling()))
            raise

    task = asyncio.create_task(watched())
    await asyncio.wait([task])
    was_pending = bench.loop.forget()
    assert task.cancelled() == requested
    if requested:
        assert went_through == [(("enough",), None, 1)]
    else:
        await task
    return not was_pending


STRIDES = [13, pytest.param(1, marks=pytest.mark.long)]
"""In CI only the plainest sweep looks at every step: a job has some two hundred of them."""


async def sweep(one: Callable[[int], Awaitable[bool]], stride: int) -> int:
    """Call `one` with 1, 2, 3 and so on until it says that there are no steps left; gives the last number."""
    number = 1
    while await one(number):
        number += stride
        assert number < 5_000, "the job does not end"
    return number


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
        (embed_all, 1),
        (ask_for_models, 1),
        (stream_all, 5),
        (stream_and_leave_early, 5),
        *(pytest.param(job, 1, marks=pytest.mark.long) for job in (stream_all, stream_and_leave_early)),
        *((job, 5) for job in (embed_from_a_source, open_embed_and_close)),
        *(pytest.param(job, 1, marks=pytest.mark.long) for job in (embed_from_a_source, open_embed_and_close)),
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


def is_partial(result: DenseEmbeddings) -> None:
    """Each input is embedded, failed or not tried, and what is embedded is right."""
    settled = [index for failure in result.failures for index in failure.indices]
    settled += np.flatnonzero(result.embedded).tolist() + result.not_tried.tolist()
    assert sorted(settled) == list(range(len(TEXTS)))
    for index in np.flatnonzero(result.embedded):
        np.testing.assert_array_equal(result.vectors[index], REFERENCE[TEXTS[index]])
    assert np.isnan(result.vectors[~result.embedded]).all()


def has_partial(error: EmbedError) -> None:
    assert isinstance(error.partial, DenseEmbeddings)
    is_partial(error.partial)
    assert error.failures == error.partial.failures


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


async def out_of_time_before_step(bench: Bench, number: int, job: Job, *, cancel: bool = False) -> bool:
    """Let the time pass before a job's `number`-th step, and cancel it in the same moment; says whether it had that many."""
    bench.emulator.faults = FirstAttempts()
    requested = False

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None

        def act() -> None:
            nonlocal requested
            bench.loop.put_forward(8)
            requested = cancel and task.cancel("enough")

        bench.loop.before_step(number, act)
        await job(bench)
        # Nobody cancelled it for good: whoever did took it back.
        assert task.cancelling() == 0

    task = asyncio.create_task(watched())
    await asyncio.wait([task])
    was_pending = bench.loop.forget()
    assert task.cancelled() == requested
    if not requested:
        await task
    return not was_pending


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
