"""The official SDK's async client, with what it leaves to its user done by hand: batches, a bound, a matrix.

``host`` is its own setting for another address of the service. It keeps the scheme it is given, so plain HTTP
to the local server needs nothing else; nothing of the SDK is replaced.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast

import numpy as np
from pinecone import AsyncPinecone
from seeded import MAX_BATCH

from competitors import API_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy.typing as npt
    from pinecone.models.inference.embed import DenseEmbedding

    from competitors import Embed, Target

_DEFAULT_POOL = 20
"""Connections of the SDK's pool at least; it keeps half of them alive."""


@asynccontextmanager
async def open_embedder(target: Target) -> AsyncIterator[Embed]:
    """Open the SDK's async client with default settings; the pool only grows with the concurrency."""
    pool = 2 * target.concurrency
    async with AsyncPinecone(
        api_key=API_KEY, host=target.url, connection_pool_maxsize=pool if pool > _DEFAULT_POOL else 0
    ) as client:
        inference = client.inference

        async def embed(texts: list[str]) -> npt.NDArray[np.float32]:
            semaphore = asyncio.Semaphore(target.concurrency)
            vectors = np.empty((len(texts), target.load.dimension), np.float32)

            async def embed_batch(start: int) -> None:
                batch = texts[start : start + MAX_BATCH]
                async with semaphore:
                    answer = await inference.embed(model=target.load.model, inputs=batch, parameters=target.load.parameters)
                vectors[start : start + len(batch)] = [item.values for item in cast("list[DenseEmbedding]", answer.data)]

            async with asyncio.TaskGroup() as group:
                for start in range(0, len(texts), MAX_BATCH):
                    group.create_task(embed_batch(start))
            return vectors

        yield embed
