"""What a type checker makes of the public names; `make types` reads it, nothing runs it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

from pinecone_embed_async import (
    ApiError,
    DenseEmbeddings,
    EmbedClient,
    EmbeddedBatch,
    EmbeddingStream,
    EmbedError,
    Estimate,
    Failure,
    InputError,
    ModelInfo,
    Progress,
    Quota,
    QuotaBackend,
    RetryPolicy,
    SharedQuota,
    SparseEmbeddings,
    SparseVector,
    SqliteQuota,
    Statistics,
    SyncEmbedClient,
    TokenStatistics,
    Usage,
)
from pinecone_embed_async.emulator import Emulator, ServiceQuota
from pinecone_embed_async.emulator import Statistics as ServiceStatistics


def a_client_knows_by_the_name_what_it_gives() -> None:
    assert_type(EmbedClient("multilingual-e5-large"), EmbedClient[DenseEmbeddings])
    assert_type(EmbedClient("llama-text-embed-v2"), EmbedClient[DenseEmbeddings])
    assert_type(EmbedClient("pinecone-sparse-english-v0"), EmbedClient[SparseEmbeddings])
    assert_type(EmbedClient("pinecone-sparse-multilingual-v0"), EmbedClient[SparseEmbeddings])


def the_blocking_client_knows_the_same() -> None:
    assert_type(SyncEmbedClient("multilingual-e5-large"), SyncEmbedClient[DenseEmbeddings])
    assert_type(SyncEmbedClient("llama-text-embed-v2", dimension=512), SyncEmbedClient[DenseEmbeddings])
    assert_type(SyncEmbedClient("pinecone-sparse-english-v0"), SyncEmbedClient[SparseEmbeddings])
    SyncEmbedClient("llama-text-embed-v2", dimension=500)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]


def a_client_of_another_model_is_told(name: str) -> None:
    assert_type(EmbedClient(name, vector_type="dense"), EmbedClient[DenseEmbeddings])
    assert_type(EmbedClient(name, vector_type="sparse"), EmbedClient[SparseEmbeddings])
    assert_type(EmbedClient(name), EmbedClient[DenseEmbeddings | SparseEmbeddings])


def options_are_checked() -> None:
    EmbedClient("pinecone-sparse-english-v0", max_concurrency="8")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    EmbedClient("multilingual-e5-large", concurrency=8)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


def parameters_are_those_of_the_model(name: str) -> None:
    options = EmbedClient("llama-text-embed-v2", dimension=512, truncate="START", input_type="query")
    assert_type(options, EmbedClient[DenseEmbeddings])
    assert_type(EmbedClient("multilingual-e5-large", truncate="NONE"), EmbedClient[DenseEmbeddings])
    assert_type(EmbedClient("pinecone-sparse-english-v0", truncate="END"), EmbedClient[SparseEmbeddings])
    assert_type(EmbedClient(name, vector_type="dense", dimension=100, truncate="MIDDLE"), EmbedClient[DenseEmbeddings])
    assert_type(EmbedClient(name, truncate="MIDDLE"), EmbedClient[DenseEmbeddings | SparseEmbeddings])
    assert_type(EmbedClient(name, parameters={"dimension": 100}), EmbedClient[DenseEmbeddings | SparseEmbeddings])
    EmbedClient("multilingual-e5-large", dimension=512)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    EmbedClient("llama-text-embed-v2", dimension=500)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    EmbedClient("pinecone-sparse-english-v0", dimension=512)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    EmbedClient("llama-text-embed-v2", dimension="512")  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    EmbedClient("pinecone-sparse-english-v0", truncate=5)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def quotas_are_of_five_kinds(backend: QuotaBackend) -> None:
    EmbedClient("multilingual-e5-large", quota="standard")
    EmbedClient("multilingual-e5-large", quota=250_000)
    EmbedClient("multilingual-e5-large", quota=Quota(tokens_per_minute=500_000))
    EmbedClient("multilingual-e5-large", quota=SharedQuota("enterprise"))
    EmbedClient("multilingual-e5-large", quota=backend)
    EmbedClient("multilingual-e5-large", quota="gold")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    shared: QuotaBackend = SharedQuota(250_000)
    in_a_file: QuotaBackend = SqliteQuota("quota.db", Quota(500_000))
    del shared, in_a_file


async def dense_results_have_vectors(client: EmbedClient[DenseEmbeddings]) -> None:
    result = await client.embed(["a", {"text": "b"}], input_type="passage")
    assert_type(result, DenseEmbeddings)
    assert_type(result.vectors, NDArray[np.float32])
    assert_type(result.embedded, NDArray[np.bool_])
    assert_type(result[0], NDArray[np.float32])
    assert_type(result.usage.total_tokens, int | Any)
    assert_type(result.shape, tuple[int, int])
    assert_type(result.failures, tuple[Failure, ...])
    assert_type(result.to_records(["1", "2"]), list[dict[str, Any]])
    assert_type([row for row in result], list[NDArray[np.float32]])  # noqa: C416 - the rows' type is the point
    assert_type(await client.embed_one("a", input_type="query"), NDArray[np.float32])


async def parts_of_a_result_are_results(client: EmbedClient[DenseEmbeddings], other: EmbedClient[SparseEmbeddings]) -> None:
    dense, sparse = await client.embed(["a", "b"]), await other.embed(["a", "b"])
    assert_type(dense[np.int64(1)], NDArray[np.float32])
    assert_type(sparse[-1], SparseVector)
    mask = dense.vectors[:, 0] > 0
    for picked in (
        dense[1:],
        dense[[0, 1]],
        dense[[True, False]],
        dense[range(2)],
        dense[mask],
        dense[np.flatnonzero(mask)],
    ):
        assert_type(picked, DenseEmbeddings)
    for rows in (sparse[1:], sparse[[0, 1]], sparse[[True, False]], sparse[mask], sparse[np.flatnonzero(mask)]):
        assert_type(rows, SparseEmbeddings)
    dense["a"]  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    dense[1, 2]  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def results_become_what_other_tools_take(client: EmbedClient[DenseEmbeddings | SparseEmbeddings]) -> None:
    result = await client.embed(["a"], dimension=512, truncate="END")
    assert_type(result.to_documents(["1"], field="terms", fields=[{"year": 1990}, None]), list[dict[str, Any]])
    if isinstance(result, DenseEmbeddings):
        assert_type(result.to_list(), list[list[float] | None])
        assert_type(np.asarray(result).shape, tuple[Any, ...])
    else:
        assert_type(result.to_list(), list[dict[str, list[Any]] | None])


async def sparse_results_have_compressed_rows(client: EmbedClient[SparseEmbeddings]) -> None:
    result = await client.embed("a", input_type="passage")
    assert_type(result, SparseEmbeddings)
    assert_type(result.indptr, NDArray[np.int64])
    assert_type(result.indices, NDArray[np.uint32])
    assert_type(result.values, NDArray[np.float32])
    assert_type(result.tokens, list[list[str]] | None)
    assert_type(result[0], SparseVector)
    assert_type(await client.embed_one("a", input_type="query"), SparseVector)
    result.vectors  # type: ignore[attr-defined]  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


async def results_of_a_model_that_is_not_known_are_either(client: EmbedClient[DenseEmbeddings | SparseEmbeddings]) -> None:
    result = await client.embed("a", input_type="passage")
    assert_type(result, DenseEmbeddings | SparseEmbeddings)
    if isinstance(result, DenseEmbeddings):
        assert_type(result.vectors, NDArray[np.float32])
    assert_type(await client.embed_one("a", input_type="query"), NDArray[np.float32] | SparseVector)


async def batches_have_the_items_of_the_source(
    client: EmbedClient[DenseEmbeddings], numbers: list[int], texts: AsyncIterator[str]
) -> None:
    opened = client.stream(numbers, text=str, input_type="passage")
    assert_type(opened, AbstractAsyncContextManager[EmbeddingStream[int, DenseEmbeddings]])
    async with opened as batches:
        async for batch in batches:
            assert_type(batch, EmbeddedBatch[int, DenseEmbeddings])
            assert_type(batch.items, Sequence[int])
            assert_type(batch.vectors, NDArray[np.float32])
            assert_type(batch.usage, Usage)
    async with client.stream(texts, input_type="passage") as batches_of_texts:
        async for one in batches_of_texts:
            assert_type(one.items, Sequence[str])


async def batches_of_sparse_models_have_embeddings_only(client: EmbedClient[SparseEmbeddings], texts: list[str]) -> None:
    async with client.stream(texts, input_type="passage") as batches:
        async for batch in batches:
            assert_type(batch.embeddings, SparseEmbeddings)


async def errors_carry_what_succeeded(client: EmbedClient[DenseEmbeddings]) -> None:
    try:
        await client.embed(["a"], input_type="passage", timeout=1.5, on_error="raise")
    except InputError as error:
        assert_type(error.index, int | None)
    except ApiError as error:
        assert_type(error.status, int)
        assert_type(error.code, str | None)
        assert_type(error.retry_after, float | None)
    except EmbedError as error:
        assert_type(error.partial, Any)
        assert_type(error.failures, tuple[Failure, ...])
    await client.embed("a", on_error="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.embed(b"a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def the_rest_of_a_client_is_typed(client: EmbedClient[DenseEmbeddings]) -> None:
    def show(progress: Progress) -> None:
        assert_type(progress.done, int)
        assert_type(progress.total, int | None)

    await client.embed(["a"], input_type="passage", progress=show, dedupe=True, priority="interactive")
    await client.embed(["a"], progress=True)
    client.stream(["a"], progress=False)
    await client.embed(["a"], progress="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await client.embed_one("a", dimension=512, truncate="NONE")
    client.estimate(["a"], dimension=512, truncate="NONE")
    assert_type(await client.list_models(), list[ModelInfo])
    assert_type(await client.describe_model(), ModelInfo)
    assert_type(client.estimate(["a"], input_type="passage"), Estimate)
    statistics = client.statistics()
    assert_type(statistics, Statistics)
    assert_type(statistics.quotas, tuple[TokenStatistics, ...])
    assert_type(RetryPolicy(max_attempts=3).max_elapsed, float)


async def a_client_stays_what_it_is_when_it_is_entered() -> None:
    async with (
        Emulator(quota=ServiceQuota(tokens_per_window=1000)) as emulator,
        EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url) as client,
    ):
        assert_type(emulator, Emulator)
        assert_type(emulator.url, str)
        assert_type(emulator.statistics(), ServiceStatistics)
        assert_type(client, EmbedClient[DenseEmbeddings])
