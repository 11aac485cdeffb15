"""The stream of a job: the same rows, with the vectors of their texts, and no row held back by the next."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from pinecone_embed_async import DenseEmbeddings, InputError
from pinecone_embed_async._jobs._job import embedded_rows
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async.emulator import Emulator
from tests.clients import dense_client


def rows_of(texts: Iterable[str]) -> Iterator[Row]:
    for number, text in enumerate(texts):
        yield Row(f"id {number}", text, "in.txt", number + 1, number)


async def test_every_row_comes_back_once_with_the_vector_of_its_text(emulator: Emulator) -> None:
    texts = [f"text number {number}" for number in range(1_000)]
    vectors: dict[int, Any] = {}
    async with dense_client(emulator, parameters={"input_type": "passage"}, max_batch_size=8) as client:
        expected = await client.embed(texts)
        emulator.latency = lambda request: 0.02 * (request.number % 3)
        async with embedded_rows(client, rows_of(texts)) as batches:
            async for batch in batches:
                assert isinstance(batch.embeddings, DenseEmbeddings)
                vectors.update(zip([row.number for row in batch.items], batch.embeddings.vectors, strict=True))
    assert sorted(vectors) == list(range(1_000))
    np.testing.assert_array_equal([vectors[number] for number in range(1_000)], expected.vectors)


async def test_rows_that_fail_are_told_with_their_cause(emulator: Emulator) -> None:
    async with (
        dense_client(emulator, parameters={"input_type": "passage"}) as client,
        embedded_rows(client, rows_of(["one", "lone \ud800 surrogate", "three"])) as batches,
    ):
        failures = [
            (batch.items[index].number, failure)
            for batch in [each async for each in batches]
            for failure in batch.embeddings.failures
            for index in failure.indices
        ]
    [(row, failure)] = failures
    assert row == 1
    assert isinstance(failure.error, InputError)


async def test_a_row_is_sent_although_the_next_is_not_there_yet(emulator: Emulator) -> None:
    more = threading.Event()

    def slow() -> Iterator[Row]:
        first, second = rows_of(["one", "two"])
        yield first
        assert more.wait(30)
        yield second

    async with (
        dense_client(emulator, parameters={"input_type": "passage"}) as client,
        embedded_rows(client, slow()) as batches,
    ):
        first = await anext(batches)
        assert [row.text for row in first.items] == ["one"]
        more.set()
        assert [row.text for batch in [each async for each in batches] for row in batch.items] == ["two"]
