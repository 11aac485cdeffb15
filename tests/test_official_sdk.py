"""What `to_records` gives is what the official SDK takes."""

import numpy as np
import pytest
from pinecone import AsyncPinecone, Vector

from pinecone_embed_async import DenseEmbeddings, EmbedClient, SparseEmbeddings
from pinecone_embed_async.emulator import Emulator
from tests.index import Index

TEXTS = ["alpha beta", "gamma", "delta epsilon zeta"]
IDS = ["a", "b", "c"]
METADATA = [{"page": 1, "tags": ["x", "y"]}, None, {"title": "third"}]


async def test_dense_records_make_vectors(client: EmbedClient[DenseEmbeddings]) -> None:
    rows = await client.embed(TEXTS, input_type="passage")
    vectors = [Vector.from_dict(record) for record in rows.to_records(IDS, METADATA)]
    assert [(vector.id, vector.metadata) for vector in vectors] == list(zip(IDS, METADATA, strict=True))
    np.testing.assert_array_equal(np.array([vector.values for vector in vectors], np.float32), rows.vectors)
    assert all(type(number) is float for vector in vectors for number in vector.values)


async def test_sparse_records_make_vectors(sparse_client: EmbedClient[SparseEmbeddings]) -> None:
    rows = await sparse_client.embed(TEXTS, input_type="passage")
    for row, record in zip(rows, rows.to_records(IDS), strict=True):
        vector = Vector.from_dict(record)
        assert vector.sparse_values is not None
        np.testing.assert_array_equal(np.array(vector.sparse_values.indices, np.uint32), row.indices)
        np.testing.assert_array_equal(np.array(vector.sparse_values.values, np.float32), row.values)
        assert vector.metadata is None


@pytest.mark.parametrize("model", ["multilingual-e5-large", "pinecone-sparse-english-v0"])
async def test_the_sdk_sends_them_to_an_index(emulator: Emulator, model: str) -> None:
    async with (
        Index() as index,
        EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url) as client,
        AsyncPinecone(api_key="k") as pinecone,
        await pinecone.index(host=index.url) as remote,
    ):
        rows = await client.embed(TEXTS, input_type="passage")
        answer = await remote.upsert(vectors=rows.to_records(IDS, METADATA), namespace="here")
        assert answer.upserted_count == 3
        arrived = [index.vectors["here", name] for name in IDS]
    assert [vector.get("metadata") for vector in arrived] == METADATA
    if isinstance(rows, SparseEmbeddings):
        for vector, row in zip(arrived, rows, strict=True):
            assert vector["sparseValues"]["indices"] == row.indices.tolist()
            np.testing.assert_array_equal(np.array(vector["sparseValues"]["values"], np.float32), row.values)
    else:
        np.testing.assert_array_equal(np.array([vector["values"] for vector in arrived], np.float32), rows.vectors)


async def test_rows_that_failed_are_left_out(emulator: Emulator, client: EmbedClient[DenseEmbeddings]) -> None:
    emulator.reject = lambda text: text == TEXTS[1]
    rows = await client.embed(TEXTS, input_type="passage", on_error="return")
    assert [Vector.from_dict(record).id for record in rows.to_records(IDS, METADATA)] == ["a", "c"]


async def test_dense_and_sparse_records_join_into_hybrid_ones(
    client: EmbedClient[DenseEmbeddings], sparse_client: EmbedClient[SparseEmbeddings]
) -> None:
    dense = (await client.embed(TEXTS, input_type="passage")).to_records(IDS)
    sparse = (await sparse_client.embed(TEXTS, input_type="passage")).to_records(IDS)
    for one, other in zip(dense, sparse, strict=True):
        vector = Vector.from_dict({**one, "sparse_values": other["sparse_values"]})
        assert len(vector.values) == 1024
        assert vector.sparse_values is not None
