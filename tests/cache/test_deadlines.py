"""A look-up that the deadline ends halfway: only what was found so far is in the result."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async import DenseEmbeddings, EmbedClient, MockResponse, MockTransport, TransportRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXTS = [f"text {number}" for number in range(3000)]


class Stuck:
    """Answers a number of look-ups, then hangs."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}
        self.left: int | None = None

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                await asyncio.get_running_loop().create_future()
        return [self.kept.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        self.kept.update(entries)


def numbers(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[float(one["text"].split()[1]), 1.0] for one in request.json()["inputs"]])


async def test_rows_not_looked_up_by_the_deadline_are_not_embedded() -> None:
    cache = Stuck()
    client: EmbedClient[DenseEmbeddings] = EmbedClient(
        "two", vector_type="dense", api_key="k", transport=MockTransport(numbers), cache=cache, look_up_model=False
    )
    async with client:
        whole = await client.embed(TEXTS)
        assert whole.vectors[:, 0].tolist() == list(range(3000))
        cache.left = 1
        result = await client.embed(TEXTS, timeout=0.5, on_error="return")
    found = np.flatnonzero(result.embedded)
    assert len(found) == 1024
    assert result.vectors[found, 0].tolist() == found.tolist()
    assert np.isnan(result.vectors[~result.embedded]).all()


async def test_rows_not_looked_up_by_the_deadline_need_little_memory() -> None:
    cache = Stuck()
    cache.left = 0
    texts = [str(number) for number in range(50_000)]
    transport = MockTransport(lambda _: MockResponse(status=500))
    options: dict[str, Any] = {"transport": transport, "cache": cache, "look_up_model": False}
    async with EmbedClient("another-model", api_key="any-key", **options) as client:
        tracemalloc.start()
        try:
            result = await client.embed(texts, timeout=1.0, on_error="return")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(result.not_tried) == len(texts)
    assert peak < 500 * len(texts)
