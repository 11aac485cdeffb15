"""`pinecone_embed_async`, as its users call it: one `embed` for all inputs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from benchmarks.competitors import API_KEY
from benchmarks.seeded import SparseRows
from pinecone_embed_async import EmbedClient, SparseEmbeddings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.competitors import Embed, Result, Target


@asynccontextmanager
async def open_embedder(target: Target, decoder: Literal["native", "msgspec"]) -> AsyncIterator[Embed]:
    """Open the client with default settings, except for a fixed decoder."""
    client: EmbedClient[Any] = EmbedClient(
        target.load.model, api_key=API_KEY, base_url=target.url, max_concurrency=target.concurrency, decoder=decoder
    )
    async with client:

        async def embed(texts: list[str]) -> Result:
            result = await client.embed(texts, parameters=target.load.parameters)
            if isinstance(result, SparseEmbeddings):
                return SparseRows(np.diff(result.indptr), result.indices, result.values)
            vectors: Result = result.vectors
            return vectors

        yield embed
