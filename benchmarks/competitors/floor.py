"""The limit of any client on aiohttp: receives the answers and discards them without decoding."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import msgspec

from benchmarks.competitors import HEADERS, READ_BUFFER, Received
from benchmarks.seeded import MAX_BATCH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.competitors import Embed, Target


@asynccontextmanager
async def open_embedder(target: Target) -> AsyncIterator[Embed]:
    """Open a session that counts the bytes of its answers."""
    async with aiohttp.ClientSession(target.url, headers=HEADERS, read_bufsize=READ_BUFFER) as session:

        async def embed(texts: list[str]) -> Received:
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

            return Received(sum(await asyncio.gather(*map(receive, range(0, len(texts), MAX_BATCH)))))

        yield embed
