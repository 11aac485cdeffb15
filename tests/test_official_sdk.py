"""The official SDK: it talks to the emulator as this client does, and takes what `to_records` gives."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pinecone
import pytest
from pinecone import AsyncPinecone, Pinecone, Vector

from pinecone_embed_async import (
    ApiError,
    AuthenticationError,
    DenseEmbeddings,
    EmbedClient,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    RetryPolicy,
    ServiceError,
    SparseEmbeddings,
)
from pinecone_embed_async.emulator import MODELS, Emulator
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


# Against the emulator.

EMBEDDING = [model.name for model in MODELS if model.type == "embed"]


@pytest.fixture
async def sdk(emulator: Emulator) -> AsyncIterator[AsyncPinecone]:
    async with AsyncPinecone(api_key=emulator.api_key, host=emulator.url) as opened:
        yield opened


def client_of(emulator: Emulator, model: str, **options: Any) -> EmbedClient[DenseEmbeddings | SparseEmbeddings]:
    options = {"api_key": emulator.api_key, "retry": RetryPolicy(max_attempts=1), **options}
    return EmbedClient(model, base_url=emulator.url, **options)


def assert_equal(theirs: Any, ours: DenseEmbeddings | SparseEmbeddings) -> None:
    assert theirs.usage.total_tokens == ours.usage.total_tokens
    assert theirs.model == ours.model
    if isinstance(ours, DenseEmbeddings):
        assert theirs.vector_type == "dense"
        np.testing.assert_array_equal(np.array([item.values for item in theirs], np.float32), ours.vectors)
        return
    assert theirs.vector_type == "sparse"
    for item, row in zip(theirs, ours, strict=True):
        np.testing.assert_array_equal(np.array(item.sparse_indices, np.uint32), row.indices)
        np.testing.assert_array_equal(np.array(item.sparse_values, np.float32), row.values)
        assert item.sparse_tokens == (None if row.tokens is None else list(row.tokens))


@pytest.mark.parametrize("input_type", ["passage", "query"])
@pytest.mark.parametrize("model", EMBEDDING)
async def test_the_sdk_embeds_the_same(sdk: AsyncPinecone, emulator: Emulator, model: str, input_type: str) -> None:
    theirs = await sdk.inference.embed(model=model, inputs=TEXTS, parameters={"input_type": input_type})
    async with client_of(emulator, model) as client:
        assert_equal(theirs, await client.embed(TEXTS, input_type=input_type))


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("llama-text-embed-v2", {"dimension": 384}),
        ("llama-text-embed-v2", {"truncate": "START"}),
        ("pinecone-sparse-english-v0", {"return_tokens": True}),
        ("pinecone-sparse-english-v0", {"max_tokens_per_sequence": 600}),
    ],
)
async def test_parameters_do_the_same(
    sdk: AsyncPinecone, emulator: Emulator, model: str, parameters: dict[str, Any]
) -> None:
    texts, parameters = [*TEXTS, "one two three " * 1000], {"input_type": "passage", **parameters}
    theirs = await sdk.inference.embed(model=model, inputs=texts, parameters=parameters)
    async with client_of(emulator, model) as client:
        assert_equal(theirs, await client.embed(texts, parameters=parameters))


async def test_the_sdk_that_blocks_embeds_the_same(emulator: Emulator, client: EmbedClient[DenseEmbeddings]) -> None:
    def embed() -> Any:
        with Pinecone(api_key=emulator.api_key, host=emulator.url) as blocking:
            return blocking.inference.embed(model="multilingual-e5-large", inputs=TEXTS, parameters={"input_type": "query"})

    assert_equal(await asyncio.to_thread(embed), await client.embed(TEXTS, input_type="query"))


async def test_models_are_listed_and_described_the_same(
    sdk: AsyncPinecone, emulator: Emulator, client: EmbedClient[DenseEmbeddings]
) -> None:
    listed = {model.model: model for model in await sdk.inference.list_models(type="embed")}
    assert list(listed) == [model.model for model in await client.list_models()] == EMBEDDING
    sparse = await sdk.inference.list_models(type="embed", vector_type="sparse")
    assert sparse.names() == [name for name in EMBEDDING if "sparse" in name]
    for name in EMBEDDING:
        theirs, ours = await sdk.inference.get_model(model=name), await client.describe_model(name)
        assert theirs == listed[name]
        for field in ("model", "short_description", "type", "vector_type", "default_dimension", "modality"):
            assert getattr(theirs, field) == getattr(ours, field)
        assert (theirs.max_sequence_length, theirs.max_batch_size) == (ours.max_sequence_length, ours.max_batch_size)
        assert theirs.provider_name == ours.provider_name
        assert tuple(theirs.supported_dimensions or ()) == (ours.supported_dimensions or ())
        assert tuple(theirs.supported_metrics or ()) == (ours.supported_metrics or ())
        for one, other in zip(theirs.supported_parameters, ours.supported_parameters, strict=True):
            assert (one.parameter, one.type, one.value_type) == (other.parameter, other.type, other.value_type)
            assert (one.required, one.default, one.min, one.max) == (other.required, other.default, other.min, other.max)
            assert tuple(one.allowed_values or ()) == (other.allowed_values or ())


HASTY = pinecone.RetryConfig(backoff_factor=0.001, max_wait=0.01)
"""The default number of attempts, without the waiting."""
DENSE, NEW = "multilingual-e5-large", "a-new-model"
PASSAGE = {"input_type": "passage"}


@pytest.mark.parametrize(
    ("model", "parameters", "fault", "their_kind", "our_kind", "status"),
    [
        # This client refuses wrong parameters itself, unless the model is one that it does not know.
        (NEW, {}, None, pinecone.ApiError, InvalidRequestError, 400),
        (NEW, {"input_type": "document"}, None, pinecone.ApiError, InvalidRequestError, 400),
        (NEW, {**PASSAGE, "dimension": 5}, None, pinecone.ApiError, InvalidRequestError, 400),
        (DENSE, {**PASSAGE, "truncate": "NONE"}, None, pinecone.ApiError, InvalidRequestError, 400),
        ("bge-reranker-v2-m3", {}, None, pinecone.ApiError, InvalidRequestError, 400),
        ("no-such-model", PASSAGE, None, pinecone.NotFoundError, NotFoundError, 404),
        (DENSE, PASSAGE, "status=403", pinecone.ForbiddenError, AuthenticationError, 403),
        (DENSE, PASSAGE, "status=500,json,0", pinecone.ServiceError, ServiceError, 500),
        (DENSE, PASSAGE, "status=503,json,0", pinecone.ServiceError, ServiceError, 503),
        (DENSE, PASSAGE, "rate_limited=0", pinecone.RateLimitError, RateLimitError, 429),
        (DENSE, PASSAGE, "request_rate_limited=0", pinecone.RateLimitError, RateLimitError, 429),
        # The SDK tries these again, though waiting does not help.
        (DENSE, PASSAGE, "month_quota_spent", pinecone.RateLimitError, QuotaExceededError, 429),
        (DENSE, PASSAGE, "quota_exceeded", pinecone.RateLimitError, QuotaExceededError, 429),
    ],
)
async def test_documented_errors_are_the_same(
    model: str,
    parameters: dict[str, Any],
    fault: str | None,
    their_kind: type[pinecone.ApiError],
    our_kind: type[ApiError],
    status: int,
) -> None:
    text = "word " * 600
    new = replace(next(known for known in MODELS if known.name == DENSE), name=NEW)
    impatient = RetryPolicy(max_attempts=1, max_elapsed=0.001)
    async with (
        Emulator(models=[new], faults=fault) as emulator,
        AsyncPinecone(api_key=emulator.api_key, host=emulator.url, retry_config=HASTY) as sdk,
        client_of(emulator, model, retry=impatient, look_up_model=False) as client,
    ):
        with pytest.raises(their_kind) as theirs:
            await sdk.inference.embed(model, [text], parameters)
        with pytest.raises(our_kind) as ours:
            await client.embed([text], parameters=parameters)
    assert type(theirs.value) is their_kind
    assert theirs.value.status_code == ours.value.status == status
    assert theirs.value.error_code == ours.value.code
    assert theirs.value.message == ours.value.message


async def test_a_wrong_key_is_refused_the_same(emulator: Emulator) -> None:
    async with (
        AsyncPinecone(api_key="another", host=emulator.url) as sdk,
        client_of(emulator, DENSE, api_key="another") as client,
    ):
        for theirs, ours in (
            (lambda: sdk.inference.embed(DENSE, TEXTS, PASSAGE), lambda: client.embed(TEXTS, parameters=PASSAGE)),
            (lambda: sdk.inference.get_model(model=DENSE), client.describe_model),
            (sdk.inference.list_models, client.list_models),
        ):
            with pytest.raises(pinecone.UnauthorizedError) as their_error:
                await theirs()
            with pytest.raises(AuthenticationError) as our_error:
                await ours()
            assert their_error.value.message == our_error.value.message == "Invalid API key."
            assert their_error.value.error_code == our_error.value.code == "UNAUTHENTICATED"


async def test_a_model_that_does_not_exist_is_not_described(
    sdk: AsyncPinecone, client: EmbedClient[DenseEmbeddings]
) -> None:
    with pytest.raises(pinecone.NotFoundError) as theirs:
        await sdk.inference.get_model(model="absent")
    with pytest.raises(NotFoundError) as ours:
        await client.describe_model("absent")
    assert theirs.value.message == ours.value.message == "Model absent not found."
