"""A client with a cache, against the emulator."""

import asyncio
import hashlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    Event,
    Finished,
    InvalidRequestError,
    MockResponse,
    MockTransport,
    ObservedCall,
    Progress,
    SparseEmbeddings,
    SparseVector,
    SqliteCache,
    TransportRequest,
)
from pinecone_embed_async._cache import CacheStage
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._results import Dimension
from pinecone_embed_async._wire import Answer
from pinecone_embed_async.emulator import EmulatedModel, Emulator, FaultMix
from tests import silence
from tests.clients import E5, QUICK, SPARSE
from tests.clock import FakeClock
from tests.outcomes import planned

TEXTS = [f"document {number} about {number % 7} things" for number in range(40)]


class Shelf:
    """A cache in memory, as a user might write one."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.asked: list[int] = []

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.asked.append(len(keys))
        await asyncio.sleep(0)
        return [self.values.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        await asyncio.sleep(0)
        self.values.update(entries)


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
async def cache(tmp_path: Path) -> AsyncIterator[SqliteCache]:
    async with SqliteCache(tmp_path / "vectors.cache") as opened:
        yield opened


def client_of(emulator: Emulator, cache: Any, model: str = E5, **options: Any) -> EmbedClient[Any]:
    options = {"retry": QUICK, "parameters": {"input_type": "passage"}, "max_batch_size": 7, **options}
    return EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url, cache=cache, **options)


def own_tasks() -> set[str]:
    """The tasks that are neither the test's nor the emulator's."""
    emulators = "RequestHandler."
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return {repr(task) for task in others if emulators not in repr(task)}


def same(one: DenseEmbeddings | SparseEmbeddings, other: DenseEmbeddings | SparseEmbeddings) -> None:
    assert type(one) is type(other)
    assert one.embedded.tolist() == other.embedded.tolist()
    if isinstance(one, DenseEmbeddings) and isinstance(other, DenseEmbeddings):
        assert one.vectors.tobytes() == other.vectors.tobytes()
    if isinstance(one, SparseEmbeddings) and isinstance(other, SparseEmbeddings):
        assert one.indptr.tolist() == other.indptr.tolist()
        assert one.indices.tobytes() == other.indices.tobytes()
        assert one.values.tobytes() == other.values.tobytes()


@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_a_second_run_makes_no_request_and_returns_the_same(
    emulator: Emulator, cache: SqliteCache, model: str
) -> None:
    async with client_of(emulator, cache, model) as client:
        first = await client.embed(TEXTS)
        requests = emulator.statistics().requests
        second = await client.embed(TEXTS)
        same(first, second)
        assert emulator.statistics().requests == requests
        assert (second.usage.requests, second.usage.total_tokens) == (0, 0)
        statistics = client.statistics()
        assert (statistics.cache_hits, statistics.cache_misses, statistics.inputs) == (40, 40, 40)
    async with client_of(emulator, cache, model) as another:
        same(first, await another.embed(TEXTS))
    assert emulator.statistics().requests == requests


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(TEXTS), max_size=12),
    st.lists(st.sampled_from(TEXTS), max_size=30),
    st.sampled_from([E5, SPARSE]),
    st.booleans(),
    st.integers(1, 9),
)
async def test_rows_are_those_of_the_service_whatever_is_cached(
    before: list[str], texts: list[str], model: str, dedupe: bool, size: int
) -> None:
    shelf = Shelf()
    async with (
        Emulator() as emulator,
        client_of(emulator, None, model) as plain,
        client_of(emulator, shelf, model, max_batch_size=size) as client,
    ):
        expected = await plain.embed(texts)
        await client.embed(before)
        emulator.reset_statistics()
        same(await client.embed(texts, dedupe=dedupe), expected)
        assert set(emulator.statistics().answered) == set(texts) - set(before)
        async with client.stream(texts, window=3) as batches:
            streamed = [batch async for batch in batches]
        assert [item for batch in streamed for item in batch.items] == texts
        for batch in streamed:
            same(batch.embeddings, await plain.embed(batch.items))


async def test_missing_texts_are_packed_into_full_requests(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf) as client:
        await client.embed(TEXTS[::2])
        emulator.reset_statistics()
        await client.embed(TEXTS)
        assert emulator.statistics().requests == 3
        assert emulator.statistics().answered == dict.fromkeys(TEXTS[1::2], 1)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_a_stream_sends_no_cached_text(emulator: Emulator, cache: SqliteCache, model: str, ordered: bool) -> None:
    async with client_of(emulator, cache, model) as client:
        expected = await client.embed(TEXTS)
        requests = emulator.statistics().requests
        told: list[Progress] = []
        async with client.stream(TEXTS, ordered=ordered, progress=told.append) as batches:
            rows = {batch.start + row: vector async for batch in batches for row, vector in enumerate(batch.embeddings)}
        assert batches.usage.total_tokens == 0
        assert told[-1].done == 40
        for row, vector in rows.items():
            np.testing.assert_array_equal(vector.values if model == SPARSE else vector, _numbers(expected[row]))
        assert len(rows) == 40
    assert emulator.statistics().requests == requests


def _numbers(vector: Any) -> Any:
    return vector.values if isinstance(vector, SparseVector) else vector


async def test_a_stream_of_a_slow_source_is_looked_up_too(emulator: Emulator, shelf: Shelf) -> None:
    async def source() -> AsyncIterator[str]:
        for text in TEXTS[:3]:
            yield text
            await asyncio.sleep(0.02)

    async with client_of(emulator, shelf) as client:
        await client.embed(TEXTS)
        requests = emulator.statistics().requests
        async with client.stream(source(), max_delay=0.001) as batches:
            assert sum([len(batch) async for batch in batches]) == 3
    assert emulator.statistics().requests == requests


async def test_leaving_a_stream_while_it_looks_up_leaves_nothing_behind(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf) as client:
        async with client.stream(TEXTS) as batches:
            await anext(batches)
        assert own_tasks() == set()
        with pytest.raises(KeyError):
            async with client.stream(TEXTS):
                raise KeyError
        assert own_tasks() == set()


@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_a_single_text_is_looked_up_and_its_arrays_are_the_callers_own(
    emulator: Emulator, cache: SqliteCache, model: str
) -> None:
    async with client_of(emulator, cache, model) as client:
        expected = await client.embed_one(TEXTS[0])
        requests = emulator.statistics().requests
        one, other = await asyncio.gather(client.embed_one(TEXTS[0]), client.embed_one(TEXTS[0]))
        assert emulator.statistics().requests == requests
        for vector in (one, other):
            np.testing.assert_array_equal(_numbers(vector), _numbers(expected))
            assert _numbers(vector).base is None
            assert _numbers(vector).flags.writeable
        assert not np.shares_memory(_numbers(one), _numbers(other))
        assert client.statistics().joined == 1


async def test_single_texts_of_one_loop_iteration_share_a_look_up_and_a_request(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf, max_batch_size=96) as client:
        await client.embed(TEXTS[:10])
        shelf.asked.clear()
        emulator.reset_statistics()
        await asyncio.gather(*(client.embed_one(text) for text in [*TEXTS, TEXTS[0]]))
        assert shelf.asked == [40]
        assert emulator.statistics().requests == 1
        assert set(emulator.statistics().answered) == set(TEXTS[10:])


@pytest.mark.parametrize("position", [0, 1])
async def test_a_caller_cancelled_during_a_look_up_does_not_disturb_the_others(
    emulator: Emulator, shelf: Shelf, position: int
) -> None:
    async with client_of(emulator, shelf) as client:
        calls = [asyncio.create_task(client.embed_one(text)) for text in TEXTS[:3]]
        await asyncio.sleep(0)
        calls[position].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [number == position for number in range(3)]
        assert own_tasks() == set()


async def test_a_hit_does_not_wait_for_requests_in_flight(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf) as client:
        await client.embed(TEXTS[:1])
        emulator.hold()
        slow = asyncio.create_task(client.embed_one(TEXTS[1]))
        await emulator.wait_for_in_flight(1)
        async with asyncio.timeout(5):
            await client.embed_one(TEXTS[0])
        assert not slow.done()
        emulator.release()
        await slow


# What makes another key.


async def test_another_service_model_parameter_or_version_has_its_own_entries(shelf: Shelf) -> None:
    async with Emulator() as one, Emulator() as other:
        for options, emulator in (
            ({}, one),
            ({}, other),
            ({"parameters": {"input_type": "query"}}, one),
            ({"api_version": "2025-04"}, one),
            ({"model": "llama-text-embed-v2"}, one),
            ({"model": "llama-text-embed-v2", "parameters": {"input_type": "passage", "dimension": 384}}, one),
        ):
            before = emulator.statistics().requests
            async with client_of(emulator, shelf, **options) as client:
                for _ in range(2):
                    await client.embed(TEXTS[:5])
            assert emulator.statistics().requests == before + 1
    assert len(shelf.values) == 6 * 5


async def test_an_emulators_answers_are_never_taken_for_the_services(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf) as client:
        await client.embed(TEXTS)
    asked: list[str] = []

    def answer(request: TransportRequest) -> MockResponse:
        asked.extend(item["text"] for item in request.json()["inputs"])
        return MockResponse.embeddings([[0.5] * 1024 for _ in TEXTS])

    async with EmbedClient(E5, api_key="k", cache=shelf, transport=MockTransport(answer)) as real:
        await real.embed(TEXTS, input_type="passage")
    assert asked == TEXTS


async def test_differently_spelled_addresses_are_the_same_service(emulator: Emulator, shelf: Shelf) -> None:
    for url in (emulator.url, f"{emulator.url}/", emulator.url.replace("http", "HTTP")):
        async with EmbedClient(E5, api_key=emulator.api_key, base_url=url, cache=shelf) as client:
            await client.embed(TEXTS, input_type="passage")
    assert emulator.statistics().answered == dict.fromkeys(TEXTS, 1)


async def test_the_file_holds_no_text_and_no_key(emulator: Emulator, cache: SqliteCache, tmp_path: Path) -> None:
    emulator.api_key = "pcsk_not-in-the-file"
    for model in (E5, SPARSE):
        async with client_of(emulator, cache, model) as client:
            await client.embed(["something nobody should read"])
            if model == SPARSE:
                await client.embed(["something nobody should read"], parameters={"return_tokens": True})
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    for word in (b"something", b"nobody", b"pcsk", b"not-in-the-file"):
        assert word not in written


async def test_answers_with_tokens_are_not_cached(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf, SPARSE) as client:
        for _ in range(2):
            result = await client.embed(["alpha beta"], parameters={"return_tokens": True})
            assert sorted(result.tokens[0]) == ["alpha", "beta"]
    assert emulator.statistics().requests == 2
    assert not shelf.values


async def test_the_cache_reveals_an_unknown_models_vector_type(shelf: Shelf) -> None:
    model = EmulatedModel("new-sparse", vector_type="sparse")
    async with Emulator(models=[model]) as emulator:
        for _ in range(2):
            async with EmbedClient("new-sparse", api_key=emulator.api_key, base_url=emulator.url, cache=shelf) as client:
                assert isinstance(await client.embed(TEXTS), SparseEmbeddings)
                assert isinstance(await client.embed_one(TEXTS[0]), SparseVector)
        assert emulator.statistics().requests == 1


# Failures.


@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_failures_name_the_inputs_of_the_call(
    emulator: Emulator, shelf: Shelf, on_error: Literal["raise", "return"]
) -> None:
    texts = [f"text number {number}" for number in range(20)]
    emulator.reject = lambda text: text == texts[11]
    async with client_of(emulator, shelf) as client:
        await client.embed(texts[::3])
        try:
            result = await client.embed(texts, on_error=on_error)
        except EmbedError as error:
            assert on_error == "raise"
            assert error.partial is not None
            result = error.partial
    (failure,) = result.failures
    assert list(failure.indices) == [11]
    assert isinstance(failure.error, InvalidRequestError)
    # The service echoes the text.
    assert "<input 11>" in str(failure.error)
    assert np.flatnonzero(~result.embedded).tolist() == [11]
    assert np.isnan(result.vectors[11]).all()
    assert not np.isnan(np.delete(result.vectors, 11, 0)).any()


async def test_a_failed_batch_of_a_stream_keeps_its_cached_rows(emulator: Emulator, shelf: Shelf) -> None:
    texts = [f"text number {number}" for number in range(14)]
    async with client_of(emulator, shelf) as client:
        await client.embed([texts[8], texts[10]])
        emulator.reject = lambda text: text == texts[9]
        async with client.stream(texts, on_error="return") as batches:
            first, second = [batch async for batch in batches]
        assert first.failures == ()
        (failure,) = second.failures
        assert list(failure.indices) == [2]
        assert "<input 9>" in str(failure.error)
        assert np.flatnonzero(~second.embeddings.embedded).tolist() == [2]
        emulator.reject = None
        emulator.faults = "status=503"
        async with client.stream([texts[8], "unheard of", texts[10]], on_error="return") as batches:
            (batch,) = [batch async for batch in batches]
        assert batch.embeddings.embedded.tolist() == [True, False, True]


async def test_cached_texts_need_no_service(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf) as client:
        await client.embed(TEXTS[:5])
        emulator.api_key = "another"
        await client.embed(TEXTS[:5])
        with pytest.raises(AuthenticationError) as caught:
            await client.embed(TEXTS[:7])
        assert caught.value.partial is not None
        assert caught.value.partial.embedded.tolist() == [True] * 5 + [False] * 2


async def test_rows_embedded_beside_failures_are_cached(emulator: Emulator, shelf: Shelf) -> None:
    emulator.faults = FaultMix(seed=3, rate=0.5)
    async with client_of(emulator, shelf, max_batch_size=2) as client:
        while True:
            result = await client.embed(TEXTS, on_error="return")
            assert len(shelf.values) == result.embedded.sum()
            if result.embedded.all():
                break


class Broken:
    """A cache that fails."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def get_many(self, keys: Sequence[bytes]) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer


@pytest.mark.parametrize(
    "answer", [sqlite3.OperationalError("disk I/O error"), TimeoutError("of its own"), [], [None] * 999]
)
async def test_a_failing_cache_does_not_fail_the_call(
    emulator: Emulator, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(emulator, None) as plain, client_of(emulator, Broken(answer)) as client:
        expected = await plain.embed(TEXTS)
        for _ in range(2):
            same(await client.embed(TEXTS, timeout=60), expected)
        np.testing.assert_array_equal(await client.embed_one(TEXTS[0], timeout=60), expected[0])
        async with client.stream(TEXTS) as batches:
            assert sum([len(batch) async for batch in batches]) == 40
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(told) == (2 if isinstance(answer, Exception) else 1)
    assert all("the service is asked instead" in one for one in told)


async def test_a_corrupted_file_costs_requests_and_a_warning(
    emulator: Emulator, cache: SqliteCache, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(emulator, cache) as client:
        first = await client.embed(TEXTS)
        await cache.aclose()
        (tmp_path / "vectors.cache").write_bytes(b"spilled coffee" * 5000)
        same(first, await client.embed(TEXTS))
        requests = emulator.statistics().requests
        same(first, await client.embed(TEXTS))
    assert emulator.statistics().requests == requests == 12
    assert sum("corrupted" in record.getMessage() for record in caplog.records) == 1
    assert (tmp_path / "vectors.cache.corrupt-1").exists()


async def test_another_programs_file_is_refused_by_every_call(
    emulator: Emulator, cache: SqliteCache, tmp_path: Path
) -> None:
    other = sqlite3.connect(tmp_path / "vectors.cache")
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    async with client_of(emulator, cache) as client:
        with pytest.raises(ConfigurationError, match="another program"):
            await client.embed(TEXTS)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(ConfigurationError, match="another program"):
            await client.embed_one(TEXTS[0])
        with pytest.raises(ConfigurationError, match="another program"):
            async with client.stream(TEXTS) as batches:
                await anext(batches)
    assert emulator.statistics().requests == 0


class Slow(Shelf):
    """A slow cache."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.is_asked = asyncio.Event()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.is_asked.set()
        await self.gate.wait()
        return await super().get_many(keys)


async def test_a_deadline_holds_during_a_look_up(emulator: Emulator) -> None:
    slow = Slow()
    async with client_of(emulator, slow) as client:
        texts = silence.TEXTS
        for call in (client.embed(texts, timeout=0.05), client.embed_one(texts[0], timeout=0.05)):
            with pytest.raises(DeadlineExceededError) as caught:
                await call
            silence.assert_frames_are_silent(caught.value)
    assert emulator.statistics().requests == 0


async def test_a_client_closed_during_a_look_up_sends_nothing(emulator: Emulator) -> None:
    slow = Slow()
    async with client_of(emulator, slow) as client:
        calls = [asyncio.create_task(client.embed(TEXTS)), asyncio.create_task(client.embed_one(TEXTS[0]))]
        await slow.is_asked.wait()
        await client.aclose()
        slow.gate.set()
        for call in calls:
            with pytest.raises(ClosedError):
                await call
    assert emulator.statistics().requests == 0


async def test_a_cancelled_call_leaves_no_look_up_behind(emulator: Emulator) -> None:
    slow = Slow()
    async with client_of(emulator, slow) as client:
        for make in (lambda: client.embed(TEXTS), lambda: client.embed_one(TEXTS[0])):
            call = asyncio.create_task(make())
            await slow.is_asked.wait()
            slow.is_asked.clear()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert own_tasks() == set()


# What is told.


async def test_progress_counts_cached_rows(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf, max_concurrency=1) as client:
        await client.embed(TEXTS[:30])
        told: list[Progress] = []
        await client.embed(TEXTS, progress=told.append)
        assert [(one.done, one.total, one.requests) for one in told] == [(30, 40, 0), (37, 40, 1), (40, 40, 2)]
        told.clear()
        await client.embed(TEXTS, progress=told.append)
        assert [(one.done, one.total) for one in told] == [(40, 40)]


async def test_hooks_receive_hits(emulator: Emulator, shelf: Shelf) -> None:
    events: list[Event] = []
    async with client_of(emulator, shelf, hooks=[events.append]) as client:
        await client.embed(TEXTS[:3])
        await client.embed(TEXTS[:5])
        await client.embed_one(TEXTS[0])
        async with client.stream(TEXTS[:4]) as batches:
            assert [len(batch) async for batch in batches] == [4]
    ends = [event for event in events if isinstance(event, Finished) and isinstance(event.subject, ObservedCall)]
    assert [(end.embedded, end.cached) for end in ends] == [(3, 0), (5, 3), (1, 1), (4, 4)]


@pytest.mark.parametrize("cache", ["vectors.cache", Path("vectors.cache"), 5])
def test_an_invalid_cache_is_rejected(cache: Any) -> None:
    with pytest.raises(ConfigurationError, match="SqliteCache"):
        EmbedClient(E5, api_key="k", cache=cache)


def digest_of(result: DenseEmbeddings | SparseEmbeddings) -> str:
    arrays: list[np.ndarray] = (
        [result.vectors] if isinstance(result, DenseEmbeddings) else [result.indptr, result.indices, result.values]
    )
    return hashlib.sha256(b"".join(array.data for array in arrays)).hexdigest()


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize("count", [3_000, pytest.param(50_000, marks=pytest.mark.long)])
async def test_a_second_run_over_many_inputs_makes_no_request(cache: SqliteCache, model: str, count: int) -> None:
    texts = [f"document number {number} about {number % 97} things and some more words" for number in range(count)]
    async with (
        Emulator(record_texts=False) as emulator,
        client_of(emulator, cache, model, max_batch_size=None) as client,
    ):
        first = digest_of(await client.embed(texts))
        assert digest_of(await client.embed(texts)) == first
        assert emulator.statistics().requests == -(-count // 96)
        assert client.statistics().cache_hits == count


async def test_many_texts_are_looked_up_1024_at_a_time(emulator: Emulator, shelf: Shelf) -> None:
    async with client_of(emulator, shelf, max_batch_size=None) as client:
        await client.embed([f"document {number}" for number in range(1500)])
    assert shelf.asked == [1024, 476]


async def test_the_answer_to_a_probe_is_not_cached(shelf: Shelf) -> None:
    stage = CacheStage(shelf, address="http://127.0.0.1", api_version="2025-10", model="m", clock=FakeClock())
    cache = stage.of_call(b"{}")
    builder = ResultBuilder(0, 1, Dimension(2))
    request, probe = planned(["first"], builder), planned(["probe"], builder, is_probe=True)
    builder.rows(request, 2)[:] = [1, 2]
    # Its answer is decoded at the same time as the first.
    builder.rows(probe, 2)[:] = [3, 4]
    answer = Answer("dense", None, 1)
    for one in (probe, request):
        builder.answered(one, answer)
    await cache.write(probe)
    assert not shelf.values
    await cache.write(request)
    found = stage.decode(await cache.look_up(request.texts), "dense", 2)
    assert found.dense is not None
    assert found.dense.tolist() == [[1, 2]]
    assert len(shelf.values) == 1


async def test_the_event_loop_runs_while_long_texts_are_hashed() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    stage = CacheStage(Shelf(), address="a", api_version="2026-07", model="m", clock=SystemClock())
    counting = asyncio.create_task(count())
    await stage.of_call(b"{}").look_up(["short"])
    short = turns
    # Five million characters.
    await stage.of_call(b"{}").look_up(["word " * 50_000] * 20)
    counting.cancel()
    assert turns - short >= short + 4
