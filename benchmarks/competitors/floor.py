"""What no client on aiohttp can beat: the answers are received and thrown away, undecoded."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import msgspec
from seeded import MAX_BATCH

from competitors import API_KEY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from competitors import Embed, Target


@asynccontextmanager
async def open_embedder(target: Target) -> AsyncIterator[Embed]:
    """Open a session that counts the bytes of its answers."""
    headers = {
        "Api-Key": API_KEY,
        "X-Pinecone-Api-Version": "2025-10",
        "Content-Type": "application/json",
    }
    async with aiohttp.ClientSession(target.url, headers=headers) as session:

        async def embed(texts: list[str]) -> int:
            semaphore = asyncio.Semaphore(target.concurrency)

            async def receive(start: int) -> int:
                request = {
                    "model": target.load.model,
                    "inputs": [{"text": text} for text in texts[start : start + MAX_BATCH]],
                    "parameters": target.load.parameters,
                }
                received = 0
                async with (
                    semaphore,
                    session.post("/embed", data=msgspec.json.encode(request)) as response,
                ):
                    response.raise_for_status()
                    async for chunk in response.content.iter_any():
                        received += len(chunk)
                return received

            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(receive(start)) for start in range(0, len(texts), MAX_BATCH)]
            return sum(task.result() for task in tasks)

        yield embed
