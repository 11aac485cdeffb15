"""A job's stream in a process of its own: the same rows as without, whatever becomes of either process."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import AuthenticationError, ConfigurationError, DenseEmbeddings, EmbedClient, InputError
from pinecone_embed_async._jobs._errors import JobError
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async.cli._connection import Settings
from pinecone_embed_async.cli._embedding_process import MESSAGES_AHEAD, ROWS_PER_MESSAGE, EmbeddingProcess
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import children_of, ended, start, write_texts


def rows_of(texts: Iterable[str]) -> Iterator[Row]:
    for number, text in enumerate(texts):
        yield Row(f"id {number}", text, "in.txt", number + 1, number)


@contextlib.asynccontextmanager
async def embedding(emulator: Emulator) -> AsyncIterator[EmbeddingProcess]:
    settings = Settings(
        model="multilingual-e5-large", parameters={"input_type": "passage"}, base_url=emulator.url, batch_size=8
    )
    with EmbeddingProcess(settings) as process:
        yield process


@pytest.fixture(autouse=True)
def _key(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", emulator.api_key)


async def vectors_by_row(process: EmbeddingProcess, rows: Iterable[Row]) -> dict[int, Any]:
    vectors: dict[int, Any] = {}
    async with process.stream(rows) as batches:
        async for batch in batches:
            assert isinstance(batch.embeddings, DenseEmbeddings)
            vectors.update(zip([row.number for row in batch.rows], batch.embeddings.vectors, strict=True))
    return vectors


async def test_every_row_comes_back_once_with_the_vector_of_its_text(
    emulator: Emulator, client: EmbedClient[DenseEmbeddings]
) -> None:
    texts = [f"text number {number}" for number in range(1_000)]
    expected = await client.embed(texts, input_type="passage")
    emulator.latency = lambda request: 0.02 * (request.number % 3)
    async with embedding(emulator) as process:
        assert process.statistics is None
        vectors = await vectors_by_row(process, rows_of(texts))
        assert process.statistics is not None
        assert process.statistics.inputs == 1_000
    assert sorted(vectors) == list(range(1_000))
    np.testing.assert_array_equal([vectors[number] for number in range(1_000)], expected.vectors)
    assert children_of(os.getpid()) == []


async def test_rows_that_fail_are_told_with_their_cause(emulator: Emulator) -> None:
    async with (
        embedding(emulator) as process,
        process.stream(rows_of(["one", "lone \ud800 surrogate", "three"])) as batches,
    ):
        failures = [
            (batch.rows[index].number, failure)
            for batch in [each async for each in batches]
            for failure in batch.embeddings.failures
            for index in failure.indices
        ]
    [(row, failure)] = failures
    assert row == 1
    assert isinstance(failure.error, InputError)


async def test_an_error_of_the_whole_stream_keeps_its_type(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "wrong-key")
    async with embedding(emulator) as process:
        with pytest.raises(AuthenticationError) as caught:
            await vectors_by_row(process, rows_of(["one"]))
    assert "wrong-key" not in str(caught.value)
    monkeypatch.delenv("PINECONE_API_KEY")
    async with embedding(emulator) as process:
        with pytest.raises(ConfigurationError, match="PINECONE_API_KEY"):
            await vectors_by_row(process, rows_of(["one"]))


async def test_an_error_of_the_source_comes_behind_everything_that_was_read_before_it(emulator: Emulator) -> None:
    def broken() -> Iterator[Row]:
        yield from rows_of(f"text number {number}" for number in range(100))
        raise JobError("in.txt:101: not UTF-8")

    seen: list[int] = []
    async with embedding(emulator) as process, process.stream(broken()) as batches:
        with pytest.raises(JobError, match="not UTF-8"):
            async for batch in batches:
                seen += [row.number for row in batch.rows]
    assert sorted(seen) == list(range(100))


async def test_the_source_is_read_no_further_ahead_than_the_window_and_the_messages(emulator: Emulator) -> None:
    read = 0

    def counted() -> Iterator[Row]:
        nonlocal read
        for row in rows_of(f"text number {number}" for number in range(5_000)):
            read += 1
            yield row

    taken = 0
    # Eight requests of eight rows are in flight at most, and as many read ahead.
    most = (MESSAGES_AHEAD + 1) * ROWS_PER_MESSAGE + 16 * 8
    async with embedding(emulator) as process, process.stream(counted()) as batches:
        async for batch in batches:
            taken += len(batch.rows)
            assert read - taken <= most
            if taken > 1_000:
                break
        await asyncio.sleep(0.3)
        # What was sent here and is not taken yet fits into the buffers of two sockets.
        assert read < 5_000


async def test_a_row_is_sent_although_the_next_is_not_there_yet(emulator: Emulator) -> None:
    more = threading.Event()

    def slow() -> Iterator[Row]:
        first, second = rows_of(["one", "two"])
        yield first
        assert more.wait(30)
        yield second

    async with embedding(emulator) as process, process.stream(slow()) as batches:
        first = await anext(batches)
        assert [row.text for row in first.rows] == ["one"]
        more.set()
        assert [row.text for batch in [each async for each in batches] for row in batch.rows] == ["two"]


async def test_a_process_that_cannot_be_started_is_told_of_once_it_is_needed(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with embedding(emulator) as process:
        with pytest.raises(JobError, match=r"the process that embeds cannot be started: .*/nowhere/python"):
            await vectors_by_row(process, rows_of(["one"]))


async def test_a_process_that_had_nothing_to_do_is_not_waited_for(emulator: Emulator) -> None:
    async with embedding(emulator):
        [child] = children_of(os.getpid())
    assert not Path(f"/proc/{child}").exists()


async def test_leaving_early_ends_the_other_process(emulator: Emulator) -> None:
    emulator.hold()
    async with (
        embedding(emulator) as process,
        process.stream(rows_of(f"text number {number}" for number in range(1_000))),
    ):
        await emulator.wait_for_in_flight(4)
        assert len(children_of(os.getpid())) == 1
    assert children_of(os.getpid()) == []


async def test_a_process_that_is_killed_is_told_of_and_what_came_before_is_delivered(emulator: Emulator) -> None:
    seen = 0
    async with (
        embedding(emulator) as process,
        process.stream(rows_of(f"text number {number}" for number in range(5_000))) as batches,
    ):
        with pytest.raises(JobError, match="the process that embeds has ended on its own"):
            async for batch in batches:
                if not seen:
                    [child] = children_of(os.getpid())
                    os.kill(child, signal.SIGKILL)
                seen += len(batch.rows)
    assert 0 < seen < 5_000


async def test_a_job_that_is_killed_takes_the_other_process_with_it(tmp_path: Path, emulator: Emulator) -> None:
    emulator.hold()
    job = await start(emulator, write_texts(tmp_path / "in.txt", 1_000), "--out", tmp_path / "out", "--quiet")
    await emulator.wait_for_in_flight(4)
    [child] = children_of(job.pid)
    # The key is in its environment, and not among the arguments that everybody may read.
    assert emulator.api_key.encode() not in Path(f"/proc/{child}/cmdline").read_bytes()
    job.kill()
    await job.wait()
    await ended(child)


async def test_a_job_whose_other_process_is_killed_keeps_what_is_done_and_goes_on_next_time(
    tmp_path: Path, emulator: Emulator
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 2_000), tmp_path / "out"
    emulator.latency = lambda request: 0 if request.number < 10 else 60
    job = await start(emulator, source, "--out", out, "--batch-size", 16)
    await emulator.wait_for_answers(9)
    [child] = children_of(job.pid)
    os.kill(child, signal.SIGKILL)
    _, err = await job.communicate()
    assert job.returncode == 1
    assert b"the process that embeds has ended on its own" in err
    assert b"what is done is kept" in err
    emulator.latency = 0
    again = await start(emulator, source, "--out", out, "--batch-size", 16, "--quiet")
    assert await again.communicate() == (b"", b"")
    assert again.returncode == 0
