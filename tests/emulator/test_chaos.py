"""All faults together, against a client that does nothing but try again."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import numpy as np
import pytest

from pinecone_embed_async.emulator import Emulator, FaultMix
from tests.emulator.asking import E5, SPARSE, Asking


def rows(body: bytes, model: str, count: int) -> list[object] | None:
    """Judge an answer as a client has to; `None` if it is none."""
    try:
        answer = json.loads(body)
        data = answer["data"]
        if len(data) != count or answer["vector_type"] != ("sparse" if model == SPARSE else "dense"):
            return None
        pairs = json.loads(body, object_pairs_hook=lambda found: found)
        if len(dict(pairs)) != len(pairs):
            return None
        if model == SPARSE:
            indices = [item["sparse_indices"] for item in data]
            values = [item["sparse_values"] for item in data]
            if any(not 0 <= index < 2**32 for row in indices for index in row):
                return None
            if [len(row) for row in indices] != [len(row) for row in values]:
                return None
        else:
            indices = []
            values = [item["values"] for item in data]
            if any(len(row) != 1024 for row in values):
                return None
        numbers = [number for row in values for number in row]
        if not all(isinstance(number, float | int) and abs(number) < 1e38 for number in numbers):
            return None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [indices, values]


async def ask_until_right(ask: Asking, model: str, *texts: str) -> list[object]:
    while True:
        try:
            reply = await ask.embed(*texts, model=model)
        except aiohttp.ClientError:
            # Connections that are refused are refused for a while.
            await asyncio.sleep(0.005)
            continue
        right = rows(reply.body, model, len(texts)) if reply.status == 200 else None
        if right is not None:
            return right


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize("seed", [1, 2])
async def test_whoever_tries_again_gets_every_answer_right(
    emulator: Emulator, session: aiohttp.ClientSession, model: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    ask = Asking(emulator, session)
    texts = [(f"text {number}", f"another {number}") for number in range(60)]
    undisturbed = [await ask_until_right(ask, model, *pair) for pair in texts]
    emulator.reset_statistics()
    emulator.faults = FaultMix(seed=seed, rate=1 / 3)
    limit = asyncio.Semaphore(8)

    async def one(pair: tuple[str, str]) -> list[object]:
        async with limit:
            return await ask_until_right(ask, model, *pair)

    answered = await asyncio.gather(*(one(pair) for pair in texts))
    assert list(answered) == undisturbed
    seen = emulator.statistics()
    assert sum(seen.faults.values()) > 15
    assert seen.max_in_flight <= 8
    assert seen.in_flight == 0
    assert caplog.records == []
    if model == E5:
        assert np.isfinite(np.array(answered[0][1], np.float64)).all()
