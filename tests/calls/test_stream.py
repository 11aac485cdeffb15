import asyncio
import contextlib
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedClient,
    EmbeddedBatch,
    EmbedError,
    InputError,
    InvalidRequestError,
    Progress,
    Quota,
    SparseEmbeddings,
)
from pinecone_embed_async.emulator import Emulator, Fault, FaultRule
from tests.clients import dense_client
from tests.clock import FakeClock, settle

Passage: dict[str, Any] = {"input_type": "passage"}


class Source:
    """Counts the items pulled, and records whether it was closed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.pulled = 0
        self.closed = False

    def __iter__(self) -> Iterator[str]:
        try:
            for number in range(self._count):
                self.pulled += 1
                yield f"text {number}"
        finally:
            self.closed = True

    async def slowly(self) -> AsyncIterator[str]:
        for text in self:
            await asyncio.sleep(0)
            yield text


def library_tasks() -> list[str]:
    """Tasks of the library, without those of the emulator."""
    coroutines: list[Any] = [task.get_coro() for task in asyncio.all_tasks()]
    return [code.__qualname__ for code in coroutines if "/pinecone_embed_async/_" in code.cr_code.co_filename]


def sources(count: int) -> list[Any]:
    source = Source(count)
    return [list(source), Source(count), Source(count).slowly()]


@pytest.mark.parametrize("kind", [0, 1, 2], ids=["list", "generator", "async"])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_a_stream_yields_what_embed_returns(emulator: Emulator, kind: int, ordered: bool, in_thread: bool) -> None:
    async with dense_client(emulator, max_batch_size=7) as client:
        expected = await client.embed(Source(100), **Passage)
        rows = np.full((100, 1024), np.nan, np.float32)
        starts = []
        async with client.stream(sources(100)[kind], ordered=ordered, in_thread=in_thread, **Passage) as batches:
            async for batch in batches:
                assert list(batch.items) == [f"text {number}" for number in range(batch.start, batch.start + len(batch))]
                rows[batch.start : batch.start + len(batch)] = batch.vectors
                starts.append(batch.start)
            assert batches.usage == expected.usage
    assert sorted(starts) == list(range(0, 100, 7))
    if ordered:
        assert starts == sorted(starts)
    np.testing.assert_array_equal(rows, expected.vectors)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=40), st.integers(1, 9), st.integers(1, 4))
async def test_any_split_and_window_yields_what_embed_returns(texts: list[str], size: int, window: int) -> None:
    async with Emulator() as emulator, dense_client(emulator, max_batch_size=size) as client:
        expected = await client.embed(texts, **Passage)
        async with client.stream(texts, window=window, **Passage) as batches:
            rows = [row async for batch in batches for row in batch.vectors]
    np.testing.assert_array_equal(np.array(rows).reshape(-1, 1024), expected.vectors.reshape(-1, 1024))


async def test_sparse_batches_hold_compressed_rows(sparse_client: EmbedClient[SparseEmbeddings]) -> None:
    whole = await sparse_client.embed(Source(10), **Passage)
    async with sparse_client.stream(Source(10), **Passage) as batches:
        (batch,) = [batch async for batch in batches]
    assert isinstance(batch.embeddings, SparseEmbeddings)
    np.testing.assert_array_equal(batch.embeddings.values, whole.values)


async def test_items_may_be_anything_that_the_text_function_accepts(emulator: Emulator) -> None:
    documents = [{"id": number, "body": f"text {number}"} for number in range(5)]
    async with (
        dense_client(emulator) as client,
        client.stream(documents, text=lambda document: str(document["body"]), **Passage) as batches,
    ):
        (batch,) = [batch async for batch in batches]
    assert list(batch.items) == documents


async def test_a_file_is_read_line_by_line_and_not_closed(emulator: Emulator) -> None:
    file = io.StringIO("one\ntwo\n")
    async with dense_client(emulator) as client, client.stream(file, **Passage) as batches:
        assert [list(batch.items) async for batch in batches] == [["one\n", "two\n"]]
    assert not file.closed


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["sync", "async", "thread"])
async def test_a_source_is_never_read_further_ahead_than_the_window(emulator: Emulator, ordered: bool, kind: str) -> None:
    source = Source(300)
    taken = 0
    async with dense_client(emulator, max_batch_size=5, max_concurrency=2) as client:
        items = source.slowly() if kind == "async" else source
        async with client.stream(items, window=3, ordered=ordered, in_thread=kind == "thread", **Passage) as batches:
            # No batch is taken, so reading stops at the window.
            await emulator.wait_for_requests(3)
            await emulator.wait_until_idle()
            await settle()
            assert source.pulled <= 15
            async for batch in batches:
                taken += len(batch)
                # A slow consumer: reading goes on up to the window.
                for _ in range(5):
                    await asyncio.sleep(0)
                assert source.pulled - taken <= 15
    assert taken == 300


async def test_reading_stops_at_the_window_while_the_service_is_slow(emulator: Emulator) -> None:
    source = Source(300)
    emulator.hold()
    async with (
        dense_client(emulator, max_batch_size=5, max_concurrency=2) as client,
        client.stream(source, window=4, **Passage) as batches,
    ):
        await emulator.wait_for_in_flight(2)
        await settle()
        assert source.pulled == 20
        emulator.release()
        assert sum([len(batch) async for batch in batches]) == 300


async def test_a_slow_request_does_not_delay_others_in_an_unordered_stream(emulator: Emulator) -> None:
    emulator.hold()
    async with dense_client(emulator, max_batch_size=1, max_concurrency=4) as client:
        async with client.stream(Source(4), ordered=False, **Passage) as batches:
            await emulator.wait_for_in_flight(4)
            emulator.release(3, 2)
            first = [(await anext(batches)).start, (await anext(batches)).start]
            emulator.release()
            rest = [batch.start async for batch in batches]
        assert sorted(first) != [0, 1]
        assert sorted(first + rest) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["sync", "async", "thread"])
async def test_leaving_early_cancels_all_tasks_and_closes_the_source(emulator: Emulator, kind: str) -> None:
    source = Source(300)
    async with dense_client(emulator, max_batch_size=5, max_concurrency=2) as client:
        items: Any = source.slowly() if kind == "async" else source
        emulator.hold()
        async with client.stream(items, in_thread=kind == "thread", ordered=False, **Passage) as batches:
            await emulator.wait_for_in_flight(2)
            emulator.release(1)
            await anext(batches)
            assert "Scheduler._run_task" in library_tasks()
        assert source.closed
        assert library_tasks() == []
        assert client.statistics().in_flight == client.statistics().waiting == 0
        with pytest.raises(ClosedError, match="was left"):
            await anext(batches)
        emulator.release()
        assert len(await client.embed("after", **Passage)) == 1


async def test_a_stream_can_be_left_during_a_request_after_there_was_none(emulator: Emulator) -> None:
    async with dense_client(emulator, max_batch_size=1) as client:
        async with client.stream(Source(3), window=1, **Passage) as batches:
            await emulator.wait_for_requests(1)
            await emulator.wait_until_idle()
            await settle()
            assert repr(batches).startswith("<EmbeddingStream 1 embedded")
            emulator.hold()
            await anext(batches)
            await emulator.wait_for_in_flight(1)
        assert library_tasks() == []
        emulator.release()


async def test_an_error_in_the_block_is_raised_unchanged(emulator: Emulator) -> None:
    cause = KeyError("cause")
    async with dense_client(emulator, max_batch_size=5) as client:
        with pytest.raises(ValueError, match="mine") as caught:
            async with client.stream(Source(300), **Passage) as batches:
                async for _ in batches:
                    raise ValueError("mine") from cause
    assert caught.value.__cause__ is cause
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_cancelled_consumer_leaves_nothing_behind(emulator: Emulator) -> None:
    source = Source(300)
    emulator.hold()
    async with dense_client(emulator, max_batch_size=5) as client:

        async def consume() -> None:
            async with client.stream(source, **Passage) as batches:
                async for _ in batches:
                    pass

        consumer = asyncio.create_task(consume())
        await emulator.wait_for_in_flight(4)
        consumer.cancel("mine")
        with pytest.raises(asyncio.CancelledError, match="mine"):
            await consumer
        assert source.closed
        assert client.statistics().in_flight == client.statistics().waiting == 0


async def test_an_error_of_the_source_comes_after_the_items_read_before(emulator: Emulator) -> None:
    def broken() -> Iterator[str]:
        yield from Source(12)
        raise OSError("disk")

    async with dense_client(emulator, max_batch_size=5) as client, client.stream(broken(), **Passage) as batches:
        seen: list[Any] = []
        with pytest.raises(OSError, match="disk"):
            async for batch in batches:
                seen.extend(batch.items)
        assert seen == list(Source(12))
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


async def test_an_error_of_the_source_comes_after_that_of_the_job(emulator: Emulator) -> None:
    def broken() -> Iterator[str]:
        yield from Source(2)
        raise OSError("disk")

    emulator.faults = [FaultRule(Fault("status", "401"))]
    emulator.hold()
    async with dense_client(emulator) as client, client.stream(broken(), **Passage) as batches:
        await emulator.wait_for_in_flight(1)
        emulator.release()
        with pytest.raises(AuthenticationError):
            await anext(batches)
        with pytest.raises(OSError, match="disk"):
            await anext(batches)
        with pytest.raises(StopAsyncIteration):
            await anext(batches)


@pytest.mark.parametrize("error", [KeyError("body"), StopIteration("odd")])
@pytest.mark.parametrize("in_thread", [True, False])
async def test_an_error_of_the_text_function_is_an_error_of_the_source(
    emulator: Emulator, error: Exception, in_thread: bool
) -> None:
    def text(item: str) -> str:
        if item == "text 7":
            raise error
        return item

    async with dense_client(emulator, max_batch_size=5) as client:
        seen: list[Any] = []
        with pytest.raises((KeyError, EmbedError)):
            async with client.stream(Source(12), text=text, in_thread=in_thread, **Passage) as batches:
                async for batch in batches:
                    seen.extend(batch.items)
        assert seen == list(Source(7))


@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_an_item_that_is_not_a_text_fails_alone(emulator: Emulator, on_error: Any) -> None:
    items: list[Any] = ["a", "b", None, "c", 7, "d"]
    embedded: list[Any] = []
    failed: list[Any] = []
    async with dense_client(emulator) as client, client.stream(items, on_error=on_error, **Passage) as batches:
        async for batch in all_batches(batches):
            (failed if batch.failures else embedded).extend(batch.items)
            assert items[batch.start : batch.start + len(batch)] == list(batch.items)
            if batch.failures:
                assert isinstance(batch.failures[0].error, InputError)
                assert batch.failures[0].error.index == batch.start
                assert np.isnan(batch.vectors).all()
    assert embedded == ["a", "b", "c", "d"]
    assert failed == [None, 7]


async def all_batches(batches: Any) -> AsyncIterator[EmbeddedBatch[Any, Any]]:
    """All batches, including those of the errors raised."""
    while True:
        try:
            batch = await anext(batches)
        except StopAsyncIteration:
            return
        except (InputError, InvalidRequestError) as error:
            assert error.batch is not None
            assert error.partial is error.batch.embeddings
            assert error.failures == error.batch.failures
            batch = error.batch
        yield batch


@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_a_rejected_input_fails_alone_and_the_stream_goes_on(emulator: Emulator, on_error: Any) -> None:
    emulator.reject = lambda text: text in ("text 7", "text 8", "text 15")
    failed: list[Any] = []
    count = 0
    async with (
        dense_client(emulator, max_batch_size=5) as client,
        client.stream(Source(30), on_error=on_error, **Passage) as batches,
    ):
        async for batch in all_batches(batches):
            count += len(batch)
            failed.extend(batch.items[index] for failure in batch.failures for index in failure.indices)
            assert np.isfinite(batch.vectors[batch.embeddings.embedded]).all()
    assert failed == ["text 7", "text 8", "text 15"]
    assert count == 30


@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_an_error_of_the_job_comes_after_everything_that_was_embedded(emulator: Emulator, on_error: Any) -> None:
    emulator.faults = [FaultRule(Fault("status", "401"), when=lambda request: "text 3" in request.inputs)]
    emulator.hold()
    source = Source(500)
    async with dense_client(emulator, max_batch_size=1, max_concurrency=6, quota=Quota(10**9, None, None)) as client:
        embedded: list[int] = []
        errors: list[Any] = []
        async with client.stream(source, on_error=on_error, **Passage) as batches:
            await emulator.wait_for_in_flight(6)
            emulator.release()
            while True:
                try:
                    batch = await anext(batches)
                except AuthenticationError as error:
                    errors.append(error)
                except StopAsyncIteration:
                    break
                else:
                    assert not errors
                    (errors if batch.failures else embedded).append(batch.start)
        assert source.closed
    assert set(embedded) >= {0, 1, 2, 4, 5}
    assert source.pulled < 30
    assert errors[-1].partial is not None
    if on_error == "return":
        assert errors[0] == 3
        assert len(errors) == 2
    else:
        assert len(errors) == 1
        assert errors[0].batch.items == ["text 3"]


async def test_the_deadline_of_a_stream_delivers_what_was_embedded(emulator: Emulator) -> None:
    clock = FakeClock()
    emulator.hold()
    async with (
        dense_client(emulator, max_batch_size=1, max_concurrency=2, clock=clock) as client,
        client.stream(Source(9), timeout=10, **Passage) as batches,
    ):
        await emulator.wait_for_in_flight(2)
        emulator.release(1)
        assert (await anext(batches)).start == 0
        clock.advance(10)
        with pytest.raises(DeadlineExceededError) as caught:
            await anext(batches)
        assert caught.value.partial is not None
        with pytest.raises((DeadlineExceededError, StopAsyncIteration)):
            while True:
                await anext(batches)
    assert clock.pending == 0


async def test_closing_the_client_ends_a_stream_after_the_embedded_batches(emulator: Emulator) -> None:
    emulator.hold()
    client = dense_client(emulator, max_batch_size=1, max_concurrency=2)
    async with client.stream(Source(100), **Passage) as batches:
        await emulator.wait_for_in_flight(2)
        closing = asyncio.create_task(client.aclose())
        await settle()
        emulator.release()
        assert [(await anext(batches)).start, (await anext(batches)).start] == [0, 1]
        with pytest.raises(ClosedError) as caught:
            await anext(batches)
        assert caught.value.partial is not None
        assert len(caught.value.partial) == 0
        with pytest.raises(StopAsyncIteration):
            await anext(batches)
        await closing


async def test_a_slow_async_source_does_not_wait_for_a_full_request(emulator: Emulator) -> None:
    clock = FakeClock()
    more = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        yield "two"
        await more.wait()
        yield "three"

    async with (
        dense_client(emulator, clock=clock) as client,
        client.stream(source(), max_delay=0.5, **Passage) as batches,
    ):
        await settle()
        assert client.statistics().in_flight == 0
        clock.advance(0.5)
        assert (await anext(batches)).items == ["one", "two"]
        more.set()
        assert [batch.items async for batch in batches] == [["three"]]
    assert clock.pending == 0


@pytest.mark.parametrize("where", ["source", "text"])
async def test_a_source_that_blocks_in_a_thread_does_not_hold_back_what_it_has_yielded(
    emulator: Emulator, where: str
) -> None:
    clock = FakeClock()
    reached, more = threading.Event(), threading.Event()

    def block() -> None:
        reached.set()
        assert more.wait(30)

    def source() -> Iterator[str]:
        yield from ("one", "two")
        if where == "source":
            block()
        yield "three"

    def text(item: str) -> str:
        if where == "text" and item == "three":
            block()
        return item

    async with (
        dense_client(emulator, clock=clock) as client,
        client.stream(source(), text=text, in_thread=True, max_delay=0.5, **Passage) as batches,
    ):
        assert await asyncio.to_thread(reached.wait, 30)
        assert client.statistics().in_flight == 0
        clock.advance(0.5)
        assert (await anext(batches)).items == ["one", "two"]
        clock.advance(0.5)
        more.set()
        assert [batch.items async for batch in batches] == [["three"]]
    assert clock.pending == 0


async def test_a_slow_async_source_is_not_read_further_ahead_than_the_window_either(emulator: Emulator) -> None:
    clock, source, gate = FakeClock(), Source(9), asyncio.Semaphore(0)

    async def slow() -> AsyncIterator[str]:
        for text in source:
            await gate.acquire()
            yield text

    async with (
        dense_client(emulator, clock=clock) as client,
        client.stream(slow(), window=2, max_delay=0.5, **Passage) as batches,
    ):
        for _ in range(9):
            gate.release()
            await settle()
            clock.advance(0.5)
            await settle()
        # No batch is taken. Two requests were sent although not full, and the next item waits for room.
        assert repr(batches).endswith("2/2 batches read ahead>")
        assert source.pulled <= 4
        seen = [batch.items async for batch in batches]
    assert seen[:3] == [["text 0"], ["text 1"], ["text 2"]]
    assert [text for items in seen for text in items] == list(Source(9))
    assert clock.pending == 0


@pytest.mark.parametrize("own", [None, ValueError("mine")])
@pytest.mark.parametrize("kind", ["sync", "async", "thread"])
async def test_an_error_of_closing_the_source_is_raised_unless_the_block_raised(
    emulator: Emulator, kind: str, own: Exception | None
) -> None:
    def broken() -> Iterator[str]:
        try:
            yield from Source(300)
        finally:
            raise OSError("closing")

    async def slowly() -> AsyncIterator[str]:
        source = broken()
        try:
            for text in source:
                yield text
        finally:
            source.close()  # type: ignore[attr-defined]

    items: Any = slowly() if kind == "async" else broken()
    async with dense_client(emulator, max_batch_size=5) as client:
        with pytest.raises((OSError, ValueError), match="mine" if own else "closing"):
            async with client.stream(items, in_thread=kind == "thread", **Passage) as batches:
                await anext(batches)
                if own is not None:
                    raise own
        assert library_tasks() == []


async def test_a_value_error_of_closing_the_source_is_raised_like_any_other(emulator: Emulator) -> None:
    class Rows:
        def __iter__(self) -> Iterator[str]:
            return self.Open()

        class Open:
            def __iter__(self) -> Iterator[str]:
                return self

            def __next__(self) -> str:
                raise StopIteration

            def close(self) -> None:
                raise ValueError("rows are left in the buffer")

    async with dense_client(emulator) as client:
        with pytest.raises(ValueError, match="rows are left"):
            async with client.stream(Rows(), **Passage) as batches:
                assert [batch async for batch in batches] == []


async def test_a_source_that_swallows_its_cancellation_is_left_all_the_same(emulator: Emulator) -> None:
    closed = False

    async def stubborn() -> AsyncIterator[str]:
        nonlocal closed
        try:
            yield "first"
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                yield "more"
        finally:
            closed = True

    async with dense_client(emulator, max_batch_size=1) as client:
        async with client.stream(stubborn(), window=1, **Passage) as batches:
            await anext(batches)
            await settle()
        assert closed
        assert library_tasks() == []


async def test_rows_of_parquet_batches_are_a_source(emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    parquet.write_table(pa.table({"id": range(30), "body": list(Source(30))}), path, row_group_size=7)
    with parquet.ParquetFile(path) as file:
        rows = (row for batch in file.iter_batches(7) for row in batch.to_pylist())
        async with (
            dense_client(emulator, max_batch_size=4) as client,
            client.stream(rows, text=lambda row: str(row["body"]), in_thread=True, **Passage) as batches,
        ):
            assert [row["id"] async for batch in batches for row in batch.items] == list(range(30))


async def test_a_source_in_a_thread_may_block_without_blocking_the_loop(emulator: Emulator) -> None:
    gate = threading.Event()

    def source() -> Iterator[str]:
        gate.wait(30)
        yield "one"

    async with dense_client(emulator) as client, client.stream(source(), in_thread=True, **Passage) as batches:
        assert len(await client.embed("meanwhile", **Passage)) == 1
        gate.set()
        assert [batch.items async for batch in batches] == [["one"]]


async def test_a_source_in_a_thread_is_also_started_and_closed_there(emulator: Emulator) -> None:
    threads: list[threading.Thread] = []

    class Rows:
        """An iterable that is slow to start, like a query."""

        def __iter__(self) -> Iterator[str]:
            threads.append(threading.current_thread())
            return self.rows()

        def rows(self) -> Iterator[str]:
            try:
                while True:
                    yield "a row"
            finally:
                threads.append(threading.current_thread())

    async with (
        dense_client(emulator, max_batch_size=1) as client,
        client.stream(Rows(), in_thread=True, window=1, **Passage) as batches,
    ):
        await anext(batches)
    assert len(threads) == 2
    assert threading.current_thread() not in threads


@pytest.mark.parametrize("misleading", [StopIteration, asyncio.CancelledError])
async def test_misleading_exceptions_of_starting_or_closing_a_source_in_a_thread_are_raised_as_embed_errors(
    emulator: Emulator, misleading: type[BaseException]
) -> None:
    class Rows:
        def __init__(self, *, begins: bool) -> None:
            self.begins = begins

        def __iter__(self) -> "Rows":
            if self.begins:
                return Rows(begins=True)
            raise misleading

        def __next__(self) -> str:
            return "a row"

        def close(self) -> None:
            raise misleading

    async with dense_client(emulator, max_batch_size=1) as client, asyncio.timeout(10):
        with pytest.raises(EmbedError, match=rf"the source raised {misleading.__name__}"):
            async with client.stream(Rows(begins=False), in_thread=True, window=1, **Passage) as batches:
                await anext(batches)
        with pytest.raises(EmbedError, match=rf"closing the source raised {misleading.__name__}"):
            async with client.stream(Rows(begins=True), in_thread=True, window=1, **Passage) as batches:
                await anext(batches)


@pytest.mark.parametrize("breaks", [False, True])
async def test_reading_in_a_thread_leaves_no_timer(emulator: Emulator, breaks: bool) -> None:
    clock = FakeClock()

    def source() -> Iterator[str]:
        yield from Source(5)
        if breaks:
            raise OSError("disk")

    async with dense_client(emulator, clock=clock, max_batch_size=1) as client:
        with contextlib.suppress(OSError):
            async with client.stream(source(), in_thread=True, max_delay=0.5, **Passage) as batches:
                assert len([batch async for batch in batches]) == 5
    assert clock.pending == 0


async def test_a_source_that_never_suspends_does_not_block_the_loop(emulator: Emulator) -> None:
    iterations, seen = 0, set()

    async def count() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    def source() -> Iterator[str]:
        for text in Source(50):
            seen.add(iterations)
            yield text

    counting = asyncio.create_task(count())
    async with dense_client(emulator, max_batch_size=1) as client, client.stream(source(), window=100, **Passage) as batches:
        assert len([batch async for batch in batches]) == 50
    counting.cancel()
    assert len(seen) == 50


async def test_leaving_waits_for_a_thread_that_is_reading(emulator: Emulator) -> None:
    reading, gate = threading.Event(), threading.Event()
    source = Source(3)

    def slow() -> Iterator[str]:
        for text in source:
            reading.set()
            gate.wait(30)
            yield text

    async with dense_client(emulator) as client, client.stream(slow(), in_thread=True, **Passage):
        await asyncio.to_thread(reading.wait, 30)
        asyncio.get_running_loop().call_soon(gate.set)
    assert source.closed


async def test_leaving_waits_for_a_reading_thread_although_requests_end_meanwhile(emulator: Emulator) -> None:
    reading, gate = threading.Event(), threading.Event()
    source = Source(9)

    def slow() -> Iterator[str]:
        for text in source:
            if text == "text 3":
                reading.set()
                gate.wait(30)
            yield text

    emulator.hold()
    async with dense_client(emulator, max_batch_size=1) as client:
        async with client.stream(slow(), in_thread=True, **Passage):
            await emulator.wait_for_in_flight(3)
            await asyncio.to_thread(reading.wait, 30)
            asyncio.get_running_loop().call_later(0.05, gate.set)
        assert gate.is_set()
        assert source.closed
        assert source.pulled == 4
        emulator.release()


async def test_several_tasks_share_a_stream(emulator: Emulator) -> None:
    seen: list[int] = []
    async with dense_client(emulator, max_batch_size=1) as client, client.stream(Source(40), **Passage) as batches:

        async def consume() -> None:
            async for batch in batches:
                seen.append(batch.start)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(consume())
    assert sorted(seen) == list(range(40))


async def test_progress_has_no_total_and_its_exceptions_end_the_stream(emulator: Emulator) -> None:
    seen: list[Progress] = []
    async with dense_client(emulator, max_batch_size=5) as client:
        async with client.stream(Source(12), progress=seen.append, **Passage) as batches:
            async for _ in batches:
                pass
        assert (seen[-1].done, seen[-1].total, len(seen)) == (12, None, 3)

        def broken(_: Progress) -> None:
            raise KeyError("mine")

        with pytest.raises(EmbedError, match="`progress` raised KeyError"):
            async with client.stream(Source(12), progress=broken, **Passage) as batches:
                async for _ in batches:
                    pass
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


async def test_an_exception_of_progress_is_raised_even_if_nobody_asks_for_a_batch(emulator: Emulator) -> None:
    has_raised = asyncio.Event()

    def broken(_: Progress) -> None:
        has_raised.set()
        raise KeyError("mine")

    async with dense_client(emulator) as client:
        with pytest.raises(EmbedError, match="`progress` raised KeyError"):
            async with client.stream(Source(12), progress=broken, **Passage):
                await has_raised.wait()


@pytest.mark.parametrize("source", ["text", b"text", {"text": "a"}, 7, None])
async def test_a_single_text_is_not_a_source(client: EmbedClient[Any], source: Any) -> None:
    with pytest.raises(InputError, match="the source must be an iterable"):
        client.stream(source)


async def test_a_table_is_not_a_source(client: EmbedClient[Any]) -> None:
    with pytest.raises(InputError, match="the source must be texts, got a Table"):
        client.stream(pa.table({"body": ["a"]}))


async def test_an_error_of_the_cache_that_ends_the_job_ends_a_stream(emulator: Emulator) -> None:
    class Unusable:
        async def get_many(self, keys: Sequence[bytes]) -> list[None]:
            raise ConfigurationError("no cache of ours")

        async def put_many(self, entries: object) -> None:
            pass

    async with dense_client(emulator, cache=Unusable()) as client, asyncio.timeout(10):
        with pytest.raises(ConfigurationError, match="no cache of ours"):
            async with client.stream(Source(3), **Passage) as batches:
                await anext(batches)
    assert emulator.statistics().requests == 0


@pytest.mark.parametrize(
    "options", [{"window": 0}, {"on_error": "ignore"}, {"max_delay": -1}, {"timeout": 0}, {"input_type": "neither"}]
)
async def test_arguments_are_checked_before_the_source_is_touched(client: EmbedClient[Any], options: Any) -> None:
    source = Source(3)
    with pytest.raises(ConfigurationError):
        client.stream(source, **{**Passage, **options})
    assert source.pulled == 0


async def test_an_empty_source_yields_nothing(emulator: Emulator, client: EmbedClient[Any]) -> None:
    empty: Iterable[str] = []
    async with client.stream(empty, **Passage) as batches:
        assert [batch async for batch in batches] == []
    assert emulator.statistics().requests == 0


async def test_reprs_hold_no_texts(client: EmbedClient[Any]) -> None:
    make: Callable[[], Any] = lambda: client.stream(["secret text"], **Passage)  # noqa: E731
    async with make() as batches:
        (batch,) = [batch async for batch in batches]
        assert "secret" not in repr(batches) + repr(batch)
        assert batch.usage == batch.embeddings.usage
        assert batches.usage == batch.usage
        assert repr(batches) == "<EmbeddingStream 1 embedded, 0/16 batches read ahead>"


async def test_max_delay_counts_from_the_oldest_item_of_a_slow_source(emulator: Emulator) -> None:
    clock = FakeClock()
    more = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        await more.wait()
        yield "two"
        await asyncio.get_running_loop().create_future()

    async with (
        dense_client(emulator, clock=clock) as client,
        client.stream(source(), max_delay=0.5, **Passage) as batches,
    ):
        await settle()
        clock.advance(0.4)
        more.set()
        await settle()
        clock.advance(0.1)
        async with asyncio.timeout(20):
            assert (await anext(batches)).items == ["one", "two"]


async def test_max_delay_counts_anew_after_a_full_request(emulator: Emulator) -> None:
    clock = FakeClock()
    more = asyncio.Event()

    async def source() -> AsyncIterator[str]:
        yield "one"
        await more.wait()
        yield "two"
        yield "three"
        await asyncio.get_running_loop().create_future()

    async with (
        dense_client(emulator, clock=clock, max_batch_size=2) as client,
        client.stream(source(), max_delay=0.5, **Passage) as batches,
    ):
        await settle()
        clock.advance(0.4)
        more.set()
        await settle()
        clock.advance(0.4)
        await settle()
        assert repr(batches).endswith(" 1/16 batches read ahead>")
        clock.advance(0.1)
        await settle()
        assert repr(batches).endswith(" 2/16 batches read ahead>")


async def test_a_stream_whose_first_item_fails_ends_though_it_is_awaited_already(emulator: Emulator) -> None:
    def fail(_: str) -> str:
        raise ValueError("mine")

    async with asyncio.timeout(20), dense_client(emulator) as client, client.stream(["a"], text=fail, **Passage) as batches:
        with pytest.raises(ValueError, match="mine"):
            await anext(batches)
        with pytest.raises(StopAsyncIteration):
            await anext(batches)
