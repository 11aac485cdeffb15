"""`baseten-performance-client`: a client in Rust, with its own threads on every core.

It is made for other services. `embed` speaks OpenAI's wire format and returns a float32 matrix; `batch_post` posts any JSON,
including this service's, and returns Python objects.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from baseten_performance_client import PerformanceClient, RequestProcessingPreference

from benchmarks.competitors import API_KEY, API_VERSION
from benchmarks.seeded import MAX_BATCH, SparseRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy.typing as npt

    from benchmarks.competitors import Embed, Result, Target

_MOST_CHARACTERS = 2**20
"""Most characters per request that the client allows, so that batches are as large as the others'."""


@asynccontextmanager
async def open_embedder(target: Target, call: Literal["embed", "batch_post"]) -> AsyncIterator[Embed]:
    """Open the client with everybody's batch size and concurrency, otherwise with its defaults."""
    load = target.load
    client = PerformanceClient(base_url=target.url, api_key=API_KEY)
    preference = RequestProcessingPreference(
        batch_size=MAX_BATCH,
        max_concurrent_requests=target.concurrency,
        max_chars_per_request=_MOST_CHARACTERS,
        extra_headers={"Api-Key": API_KEY, "X-Pinecone-Api-Version": API_VERSION},
    )

    async def embed(texts: list[str]) -> Result:
        answer = await client.async_embed(texts, model=load.model, preference=preference)
        return cast("npt.NDArray[np.float32]", answer.numpy())

    async def batch_post(texts: list[str]) -> Result:
        requests = [
            {
                "model": load.model,
                "inputs": [{"text": text} for text in texts[start : start + MAX_BATCH]],
                "parameters": load.parameters,
            }
            for start in range(0, len(texts), MAX_BATCH)
        ]
        answer = await client.async_batch_post("/embed", requests, preference=preference)
        items = [item for body in answer.data for item in body["data"]]
        if load.kind == "sparse":
            return SparseRows.of([item["sparse_indices"] for item in items], [item["sparse_values"] for item in items])
        return np.array([item["values"] for item in items], np.float32)

    yield embed if call == "embed" else batch_post
