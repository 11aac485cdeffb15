"""Sources, text functions, quota back ends and transports that are cancelled by others, hang, or raise what misleads."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from pinecone_embed_async import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedClient,
    EmbedError,
    MockResponse,
    MockTransport,
    Progress,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    TransportError,
)
from pinecone_embed_async._foreign import (
    PATIENCE_SECONDS,
    Cancellations,
    ForeignCode,
    StrayCancellationError,
    until_done,
)
from pinecone_embed_async.emulator import Emulator
from tests.clients import E5, QUICK, dense_client
from tests.clock import FakeClock, settle
from tests.executors import CancellingExecutor

TEXTS = [f"document {number}" for number in range(12)]
OPTIONS: dict[str, Any] = {"retry": QUICK, "max_batch_size": 2, "parameters": {"input_type": "passage"}}


async def cancelled_by_another() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task


class Asynchronous:
    """A source that raises at an item."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.given = 0

    def __aiter__(self) -> "Asynchronous":
        return self

    async def __anext__(self) -> str:
        if self.given == self.at:
            await cancelled_by_another()
        self.given += 1
        return TEXTS[self.given - 1]


class Synchronous:
    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.at = at
        self.error = error
        self.given = 0

    def __iter__(self) -> "Synchronous":
        return self

    def __next__(self) -> str:
        if self.given == self.at:
            raise self.error
        self.given += 1
        return TEXTS[self.given - 1]


def cancels_itself(_: object = None) -> Any:
    raise asyncio.CancelledError


SOURCES: list[tuple[Callable[[], Any], dict[str, Any]]] = [
    (lambda: Asynchronous(7), {}),
    (lambda: Synchronous(7, asyncio.CancelledError), {}),
    (lambda: Synchronous(7, asyncio.CancelledError), {"in_thread": True}),
    (lambda: Synchronous(7, StopAsyncIteration), {}),
    (lambda: Synchronous(7, StopAsyncIteration), {"in_thread": True}),
]


@pytest.mark.parametrize(("source", "options"), SOURCES)
async def test_what_a_source_raises_never_reads_as_the_end_of_a_stream(
    emulator: Emulator, source: Callable[[], Any], options: dict[str, Any]
) -> None:
    seen: list[str] = []
    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match="the source raised") as caught:
            async with client.stream(source(), **options) as batches:
                async for batch in batches:
                    seen += batch.items
    assert seen == TEXTS[:7]
    assert isinstance(caught.value.__cause__, (asyncio.CancelledError, StopAsyncIteration))


@pytest.mark.parametrize("error", [asyncio.CancelledError, StopAsyncIteration, StopIteration])
@pytest.mark.parametrize("in_thread", [False, True])
async def test_what_a_text_function_raises_never_reads_as_the_end_of_a_stream(
    emulator: Emulator, error: type[BaseException], in_thread: bool
) -> None:
    def text(item: str) -> str:
        if item == TEXTS[7]:
            raise error
        return item

    seen: list[str] = []
    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match="`text` raised") as caught:
            async with client.stream(TEXTS, text=text, in_thread=in_thread) as batches:
                async for batch in batches:
                    seen += batch.items
    assert seen == TEXTS[:7]
    assert isinstance(caught.value.__cause__, error)


@pytest.mark.parametrize("source", [source for source, options in SOURCES if not options])
async def test_what_a_source_raises_is_no_cancellation_of_embed(emulator: Emulator, source: Callable[[], Any]) -> None:
    async with dense_client(emulator, **OPTIONS) as client:
        with pytest.raises(EmbedError, match="the source of the inputs raised"):
            await client.embed(source())
    assert emulator.statistics().requests == 0


async def test_a_cancellation_requested_just_before_a_call_is_its_callers(emulator: Emulator) -> None:
    async def call() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await client.embed(Asynchronous(len(TEXTS)))

    async with dense_client(emulator, **OPTIONS) as client:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(call())


async def test_closing_a_source_that_is_cancelled_is_an_error_of_its_own(emulator: Emulator) -> None:
    async def source() -> AsyncIterator[str]:
        try:
            for text in TEXTS:
                yield text
        finally:
            await cancelled_by_another()

    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match="raised CancelledError"):
            async with client.stream(source(), window=1) as batches:
                await anext(batches)


def cancel_all(name: str) -> int:
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == name]
    for task in tasks:
        task.cancel()
    return len(tasks)


@pytest.mark.parametrize("name", ["the source", "embed"])
async def test_tasks_of_a_stream_that_somebody_cancels_are_no_silent_end(emulator: Emulator, name: str) -> None:
    gate = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text
        await gate.wait()

    emulator.hold()
    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match=r"cancelled|Cancelled"):
            async with client.stream(source()) as batches:
                await emulator.wait_for_in_flight(2)
                cancel_all(name)
                await settle()
                emulator.release()
                gate.set()
                async for _ in batches:
                    pass


async def test_a_consumer_that_waits_for_a_source_that_somebody_cancels_is_woken(emulator: Emulator) -> None:
    async def source() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text
        await asyncio.Event().wait()

    options = {**OPTIONS, "max_batch_size": len(TEXTS)}
    async with dense_client(emulator, **options) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match="the source raised CancelledError"):
            async with client.stream(source()) as batches:
                assert len(await anext(batches)) == len(TEXTS)
                waiting = asyncio.ensure_future(anext(batches))
                await settle()
                assert cancel_all("the source")
                await waiting


@pytest.mark.parametrize("name", ["the source", "read"])
async def test_nor_is_a_source_that_swallows_a_cancellation_by_somebody(emulator: Emulator, name: str) -> None:
    waits = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "a"
        waits.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        yield "b"
        yield "c"

    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match="the source raised CancelledError"):
            async with client.stream(source()) as batches:
                await waits.wait()
                assert cancel_all(name)
                async for _ in batches:
                    pass


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("the source", "raised CancelledError"),
        ("read", "raised CancelledError"),
        ("take over batches", "taking over the batches was cancelled"),
        ("embed", ""),
    ],
)
async def test_tasks_of_a_stream_that_are_cancelled_before_they_begin_are_no_hang(
    emulator: Emulator, name: str, told: str
) -> None:
    seen = 0

    async def source() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text

    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        errors: list[str] = []
        async with client.stream(source()) as batches:
            while not cancel_all(name):  # noqa: ASYNC110 - a task that has not begun can set no event
                await asyncio.sleep(0)
            try:
                async for batch in batches:
                    seen += len(batch)
            except EmbedError as error:
                errors.append(str(error))
        assert client.statistics().in_flight == 0
    assert ([told in error for error in errors] or [not told]) == [True]
    assert seen == (0 if told else len(TEXTS))


async def test_look_ups_of_a_stream_that_somebody_cancels_end_it_with_an_error(emulator: Emulator) -> None:
    class Slow:
        async def get_many(self, keys: Sequence[bytes]) -> list[None]:
            await asyncio.sleep(0.01)
            return [None] * len(keys)

        async def put_many(self, entries: object) -> None:
            pass

    async with dense_client(emulator, cache=Slow(), **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match="looking vectors up in the cache was cancelled"):
            async with client.stream(TEXTS) as batches:
                assert cancel_all("look up batches")
                async for _ in batches:
                    pass


async def test_whoever_is_cancelled_while_keeping_takes_no_place_along(emulator: Emulator) -> None:
    gate, keeping = asyncio.Event(), list[object]()

    class Slow:
        async def get_many(self, keys: Sequence[bytes]) -> list[None]:
            return [None] * len(keys)

        async def put_many(self, entries: object) -> None:
            keeping.append(entries)
            if len(keeping) == 2:
                # As many as may be under way.
                gate.set()
            if len(keeping) <= 2:
                await asyncio.sleep(60)

    async with dense_client(emulator, cache=Slow(), max_concurrency=1, **OPTIONS) as client, asyncio.timeout(10):
        call = asyncio.create_task(client.embed(TEXTS, on_error="return"))
        await gate.wait()
        cancel_all("embed")
        assert (await call).embedded.all()


async def test_requests_that_somebody_cancels_fail_their_inputs_alone(emulator: Emulator) -> None:
    emulator.hold()
    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        call = asyncio.create_task(client.embed(TEXTS, on_error="return"))
        await emulator.wait_for_in_flight(2)
        cancel_all("embed")
        await settle()
        emulator.release()
        result = await call
    failed = [index for failure in result.failures for index in failure.indices]
    assert failed
    assert all("cancelled" in str(failure.error) for failure in result.failures)
    # What waited for its turn is sent all the same.
    assert result.embedded.sum() + len(failed) == len(TEXTS)
    assert len(result.not_tried) == 0


@contextlib.asynccontextmanager
async def stubborn() -> AsyncIterator[Callable[[], Any]]:
    released = asyncio.Event()

    async def wait() -> None:
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    try:
        yield wait
    finally:
        released.set()
        await settle()


async def test_a_source_that_swallows_its_cancellation_is_left_behind(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with stubborn() as wait, dense_client(emulator, clock=clock, **OPTIONS) as client:

        async def source() -> AsyncIterator[str]:
            yield "a"
            await wait()

        async def streamed() -> None:
            async with client.stream(source(), timeout=1) as batches:
                async for _ in batches:
                    pass

        for call in (asyncio.create_task(client.embed(source(), timeout=1)), asyncio.create_task(streamed())):
            async with asyncio.timeout(10):
                while not call.done():
                    await asyncio.sleep(0.005)
                    clock.advance(PATIENCE_SECONDS / 4)
            with pytest.raises(DeadlineExceededError):
                await call
    assert sum("left running" in record.getMessage() for record in caplog.records) == 2


async def test_a_source_that_is_left_behind_is_read_for_nobody(emulator: Emulator) -> None:
    clock, told = FakeClock(), list[Progress]()
    asked: list[Any] = []

    def text(item: Any) -> Any:
        asked.append(item)
        return item

    async with dense_client(emulator, clock=clock, **OPTIONS) as client, asyncio.timeout(10):
        async with stubborn() as wait:

            async def source() -> AsyncIterator[object]:
                yield "a"
                await wait()
                yield 5
                yield "b"

            async def streamed() -> None:
                async with client.stream(source(), text=text, timeout=1, max_delay=30, progress=told.append) as batches:
                    async for _ in batches:
                        pass

            call = asyncio.create_task(streamed())
            while not call.done():
                await asyncio.sleep(0.005)
                clock.advance(PATIENCE_SECONDS / 4)
            with pytest.raises(DeadlineExceededError):
                await call
            assert not clock.pending
            count = len(told)
        assert asked == ["a"]
        assert len(told) == count
        assert not clock.pending


async def test_a_call_whose_source_hangs_ends_when_the_client_is_closed(emulator: Emulator) -> None:
    async def source() -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield "a"

    async with dense_client(emulator, **OPTIONS) as client, asyncio.timeout(10):
        call = asyncio.create_task(client.embed(source()))
        await settle()
        await client.aclose()
        with pytest.raises(ClosedError):
            await call


class Backend:
    """Deals out what it is told to."""

    def __init__(self, acquire: Callable[[QuotaDemand], Any], settle: Callable[[], None] = lambda: None) -> None:
        self._acquire = acquire
        self._settle = settle
        self.settled: list[str] = []

    async def acquire(self, demand: QuotaDemand) -> Any:
        given = self._acquire(demand)
        return await given if asyncio.iscoroutine(given) else given

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        self.settled.append(outcome.kind)
        self._settle()


def grant_of(demand: QuotaDemand) -> QuotaGrant:
    return QuotaGrant(demand.tokens)


def ends_iteration(_: object = None) -> Any:
    raise StopAsyncIteration


class StatusError(Exception):
    """Cannot be copied: like many clients' errors, it needs an argument that it does not keep among its own."""

    def __init__(self, message: str, *, response: int) -> None:
        super().__init__(message)
        self.response = response


def answers_503(_: object) -> Any:
    raise StatusError("the quota's own service is down", response=503)


BAD_TURNS: list[Callable[[QuotaDemand], Any]] = [
    lambda _: cancelled_by_another(),
    cancels_itself,
    ends_iteration,
    answers_503,
    lambda _: None,
    lambda _: 5,
    lambda _: QuotaGrant(0),
    lambda _: QuotaGrant(float("nan")),  # type: ignore[arg-type]
    lambda _: QuotaGrant("many"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("acquire", BAD_TURNS)
async def test_a_back_end_that_fails_is_an_error_of_the_job(
    emulator: Emulator, acquire: Callable[[QuotaDemand], Any]
) -> None:
    async with dense_client(emulator, quota=Backend(acquire), **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(ConfigurationError, match=r"quota passed to the client failed|acquire must return") as caught:
            await client.embed(TEXTS)
        assert caught.value.partial is not None
        with pytest.raises(ConfigurationError):
            await client.embed_one("a")
        with pytest.raises(ConfigurationError):
            async with client.stream(TEXTS) as batches:
                await anext(batches)
        assert client.statistics().in_flight == client.statistics().waiting == 0


@pytest.mark.parametrize("more", [1, 10**309])
async def test_a_back_end_that_grants_more_than_was_asked_for_grants_that(emulator: Emulator, more: int) -> None:
    backend = Backend(lambda demand: QuotaGrant(demand.tokens + more))
    async with (
        dense_client(emulator, quota=backend, max_concurrency=1, **OPTIONS) as client,
        asyncio.timeout(10),
        asyncio.TaskGroup() as group,
    ):
        calls = [group.create_task(client.embed(TEXTS)) for _ in range(3)]
    assert all(call.result().embedded.all() for call in calls)
    assert len(backend.settled) == emulator.statistics().requests


async def test_a_back_end_that_grants_no_number_is_told_of_shortly(emulator: Emulator) -> None:
    for tokens in (-(10**5000), "many" * 1000):
        backend = Backend(lambda _, tokens=tokens: QuotaGrant(tokens))  # type: ignore[misc]
        async with dense_client(emulator, quota=backend, **OPTIONS) as client:
            with pytest.raises(ConfigurationError, match="acquire must return") as caught:
                await client.embed(TEXTS)
            assert len(str(caught.value)) < 300


async def test_a_back_end_that_takes_a_moment_to_end_is_waited_for_however_often_its_call_is_cancelled(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    has_ended = asyncio.Event()

    async def acquire() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await settle()
            has_ended.set()

    async with dense_client(emulator, quota=Backend(lambda _: acquire()), **OPTIONS) as client, asyncio.timeout(10):
        call = asyncio.create_task(client.embed(TEXTS))
        await settle()
        call.cancel()
        await asyncio.sleep(0)
        # From within, as what waits for it does when it is cancelled by a deadline and left at once.
        cancel_all("embed")
        await asyncio.sleep(0)
        cancel_all("embed")
        with pytest.raises(asyncio.CancelledError):
            await call
        assert has_ended.is_set()
    assert not any("left running" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("settle", [cancels_itself, lambda: 1 / 0])
async def test_a_back_end_that_cannot_settle_costs_no_rows(
    emulator: Emulator, settle: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with dense_client(emulator, quota=Backend(grant_of, settle), **OPTIONS) as client, asyncio.timeout(10):
        assert (await client.embed(TEXTS)).embedded.all()
    assert sum(record.levelno >= logging.WARNING for record in caplog.records) == 1


async def test_a_back_end_that_swallows_its_cancellation_is_left_behind_and_what_it_gives_settled(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with stubborn() as wait:

        async def late(demand: QuotaDemand) -> QuotaGrant:
            await wait()
            return QuotaGrant(demand.tokens)

        backend, clock = Backend(late), FakeClock()
        async with dense_client(emulator, quota=backend, clock=clock, **OPTIONS) as client, asyncio.timeout(10):
            call = asyncio.create_task(client.embed(TEXTS, timeout=1))
            while not call.done():
                await asyncio.sleep(0.005)
                clock.advance(PATIENCE_SECONDS / 4)
            with pytest.raises(DeadlineExceededError):
                await call
    assert backend.settled == ["unused"]
    assert any("left running" in record.getMessage() for record in caplog.records)


async def test_a_transport_that_is_cancelled_has_not_answered(emulator: Emulator) -> None:
    calls: Iterator[int] = iter(range(100))

    async def answer(request: Any) -> MockResponse:
        if next(calls) == 0:
            await cancelled_by_another()
        return MockResponse.embeddings([[1.0] * 1024 for _ in request.json()["inputs"]])

    async with dense_client(emulator, transport=MockTransport(answer), **OPTIONS) as client, asyncio.timeout(10):
        assert (await client.embed(TEXTS)).embedded.all()
    transport = MockTransport(lambda _: cancelled_by_another())  # type: ignore[arg-type,return-value]
    async with dense_client(emulator, transport=transport, **OPTIONS) as client, asyncio.timeout(10):
        with pytest.raises(TransportError, match="cancelled, but not by the client"):
            await client.embed(TEXTS)


async def first_batch(client: EmbedClient[Any]) -> None:
    async with client.stream(iter(TEXTS), in_thread=True) as batches:
        await anext(batches)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.embed(TEXTS[0]),
        lambda client: client.embed(TEXTS),
        lambda client: client.embed_one(TEXTS[0]),
        first_batch,
        lambda client: client.list_models(),
    ],
    ids=["embed of one text", "embed", "embed_one", "stream", "list_models"],
)
async def test_an_executor_that_cancels_its_work_cancels_no_call(
    emulator: Emulator, call: Callable[[EmbedClient[Any]], Any]
) -> None:
    # Before the first connection, an executor reads the certificate authorities.
    address, executor = emulator.url.replace("http:", "https:"), CancellingExecutor()
    client: EmbedClient[Any] = EmbedClient(E5, api_key="key", base_url=address, executor=executor, **OPTIONS)
    task = asyncio.current_task()
    assert task is not None
    with pytest.raises(ConfigurationError, match="the executor must run what it is given, but cancelled it"):
        await call(client)
    assert task.cancelling() == 0
    await client.aclose()


async def test_whoever_waits_for_work_to_end_is_cancelled_only_then_however_often() -> None:
    work = asyncio.get_running_loop().create_future()
    waiting = asyncio.create_task(until_done(work))
    for _ in range(2):
        await settle()
        waiting.cancel()
    await settle()
    assert not waiting.done()
    work.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await waiting


class CountingWork:
    """Work that counts its cancellations and ends only when it is released; and the results that are taken from it late."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.released = asyncio.Event()
        self.taken: list[str] = []

    async def work(self) -> str:
        while not self.released.is_set():
            try:
                await self.released.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return "late"

    def came_late(self, result: str, /) -> None:
        self.taken.append(result)


@pytest.fixture
async def counting() -> AsyncIterator[CountingWork]:
    work = CountingWork()
    yield work
    # Otherwise a failed test would wait for it for ever.
    work.released.set()
    await settle()


async def test_work_out_of_time_is_cancelled_once_and_left_a_second_later_but_its_result_is_taken(
    counting: CountingWork,
) -> None:
    clock = FakeClock()
    foreign = ForeignCode("work", clock)
    asking = asyncio.create_task(foreign.run(counting.work(), until=clock.now + 5, late=counting))
    await settle()
    for seconds, cancelled, is_done in ((4.5, 0, False), (0.5, 1, False), (0.875, 1, False), (0.125, 1, True)):
        clock.advance(seconds)
        await settle()
        assert (counting.cancelled, asking.done(), foreign.is_stuck) == (cancelled, is_done, is_done)
    with pytest.raises(TimeoutError, match=r"^work took too long$"):
        await asking
    assert (clock.pending, counting.taken) == (0, [])
    counting.released.set()
    await settle()
    assert (counting.taken, foreign.is_stuck) == (["late"], False)


async def test_work_that_its_caller_has_cancelled_is_not_cancelled_again_and_its_result_is_taken(
    counting: CountingWork,
) -> None:
    clock = FakeClock()
    task = asyncio.create_task(counting.work())
    await settle()
    task.cancel()
    asking = asyncio.create_task(ForeignCode("work", clock).run(task, late=counting))
    await settle()
    for _ in range(2):
        asking.cancel()
        await settle()
    assert (counting.cancelled, asking.done()) == (1, False)
    counting.released.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (counting.taken, clock.pending) == (["late"], 0)


async def test_work_that_ends_by_its_cancellation_was_out_of_time_only_at_that_time() -> None:
    clock = FakeClock()
    foreign = ForeignCode("work", clock)
    asking = asyncio.create_task(foreign.run(asyncio.Event().wait(), until=clock.now + 5))
    await settle()
    clock.advance(5)
    with pytest.raises(TimeoutError):
        await asking
    for until in (None, clock.now + 5):
        with pytest.raises(StrayCancellationError):
            await foreign.run(cancelled_by_another(), until=until)
    assert clock.pending == 0


async def test_counting_cancellations_takes_no_turn_of_the_loop_if_there_are_none() -> None:
    turns: list[int] = []
    asyncio.get_running_loop().call_soon(turns.append, 1)
    cancellations = await Cancellations.counted()
    assert (turns, cancellations.is_callers) == ([], False)


@pytest.mark.parametrize("is_callers", [False, True])
async def test_an_interruption_is_not_taken_for_the_callers_cancellation(is_callers: bool) -> None:
    begun: list[Cancellations] = []

    async def run() -> tuple[bool, bool, int]:
        cancellations = await Cancellations.counted()
        begun.append(cancellations)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            found = cancellations.is_callers
        finally:
            cancellations.end()
        return cancellations.is_interrupted, found, task.cancelling()

    task = asyncio.get_running_loop().create_task(run())
    await asyncio.sleep(0)
    begun[0].interrupt()
    begun[0].interrupt()
    if is_callers:
        task.cancel()
    assert await task == (True, is_callers, int(is_callers))
