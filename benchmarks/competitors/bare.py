"""What one writes by hand first: aiohttp, its ``json()``, a semaphore and a matrix. No retries, no checks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import numpy as np
from seeded import MAX_BATCH

from competitors import API_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy.typing as npt

    from competitors import Embed, Target


@asynccontextmanager
async def open_embedder(target: Target) -> AsyncIterator[Embed]:
    """Open a session whose answers are decoded with the standard library."""
    headers = {"Api-Key": API_KEY, "X-Pinecone-Api-Version": "2025-10"}
    async with aiohttp.ClientSession(target.url, headers=headers) as session:

        async def embed(texts: list[str]) -> npt.NDArray[np.float32]:
            semaphore = asyncio.Semaphore(target.concurrency)
            vectors = np.empty((len(texts), target.load.dimension), np.float32)

            async def embed_batch(start: int) -> None:
                batch = texts[start : start + MAX_BATCH]
                request = {
                    "model": target.load.model,
                    "inputs": [{"text": text} for text in batch],
                    "parameters": target.load.parameters,
                }
                async with semaphore, session.post("/embed", json=request) as response:
                    response.raise_for_status()
                    answer = await response.json()
                vectors[start : start + len(batch)] = [item["values"] for item in answer["data"]]

            async with asyncio.TaskGroup() as group:
                for start in range(0, len(texts), MAX_BATCH):
                    group.create_task(embed_batch(start))
            return vectors

        yield embed
