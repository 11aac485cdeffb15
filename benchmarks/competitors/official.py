"""The official SDK's async client, with what it leaves to its user: batching, a concurrency limit, and the matrix.

`host` is the SDK's own setting for another address of the service. It keeps the given scheme, so plain HTTP to the local
server needs nothing else; nothing of the SDK is replaced.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pinecone import AsyncPinecone

from benchmarks.competitors import API_KEY, Kept
from benchmarks.seeded import MAX_BATCH, SparseRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy.typing as npt

    from benchmarks.competitors import Embed, Result, Target

_DEFAULT_POOL = 20
"""Least connections of the SDK's pool; it keeps half of them alive."""


@asynccontextmanager
async def open_embedder(target: Target, *, kept: bool) -> AsyncIterator[Embed]:
    """Open the SDK's async client with default settings; only the pool grows with the concurrency.

    Args:
        target: What to connect to.
        kept: Whether results stay as the SDK returns them: lists of Python floats.
    """
    pool = 2 * target.concurrency
    load = target.load
    async with AsyncPinecone(
        api_key=API_KEY, host=target.url, connection_pool_maxsize=pool if pool > _DEFAULT_POOL else 0
    ) as client:
        inference = client.inference

        async def embed(texts: list[str]) -> Result:
            semaphore = asyncio.Semaphore(target.concurrency)
            starts = range(0, len(texts), MAX_BATCH)

            async def ask(start: int) -> list[Any]:
                async with semaphore:
                    answer = await inference.embed(
                        model=load.model, inputs=texts[start : start + MAX_BATCH], parameters=load.parameters
                    )
                return cast("list[Any]", answer.data)

            if kept or load.kind == "sparse":
                items = [item for data in await asyncio.gather(*map(ask, starts)) for item in data]
                if load.kind == "sparse":
                    return SparseRows.of([item.sparse_indices for item in items], [item.sparse_values for item in items])
                return Kept(items, lambda: np.array([item.values for item in items], np.float32))
            vectors: npt.NDArray[np.float32] = np.empty((len(texts), load.dimension), np.float32)

            async def embed_batch(start: int) -> None:
                values = [item.values for item in await ask(start)]
                vectors[start : start + len(values)] = values

            await asyncio.gather(*map(embed_batch, starts))
            return vectors

        yield embed
