import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import numpy as np
import pytest

from pinecone_embed_async.emulator import Emulator, ServiceQuota

E5, LLAMA, SPARSE = "multilingual-e5-large", "llama-text-embed-v2", "pinecone-sparse-english-v0"


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Api-Key": emulator.api_key, "X-Pinecone-Api-Version": "2025-10"}
    async with aiohttp.ClientSession(emulator.url, headers=headers) as opened:
        yield opened


async def embed(
    session: aiohttp.ClientSession, *texts: str, model: str = E5, headers: dict[str, str] | None = None, **parameters: Any
) -> tuple[int, Any]:
    body = {
        "model": model,
        "inputs": [{"text": text} for text in texts],
        "parameters": {"input_type": "passage", **parameters},
    }
    async with session.post("/embed", json=body, headers=headers) as response:
        return response.status, await response.json()


async def vectors(session: aiohttp.ClientSession, *texts: str, **parameters: Any) -> Any:
    status, answer = await embed(session, *texts, **parameters)
    assert status == 200
    return np.array([item["values"] for item in answer["data"]])


async def test_answers_follow_the_reference(session: aiohttp.ClientSession) -> None:
    status, answer = await embed(session, "one", "two")
    assert status == 200
    assert set(answer) == {"model", "vector_type", "data", "usage"}
    assert answer["vector_type"] == "dense"
    assert [len(item["values"]) for item in answer["data"]] == [1024, 1024]
    assert answer["usage"]["total_tokens"] == 6


async def test_vectors_are_unit_halves_and_the_same_every_time(session: aiohttp.ClientSession) -> None:
    first, second = await vectors(session, "some words", "some words")
    assert (first == second).all()
    assert (first == first.astype(np.float16)).all()
    assert abs(np.linalg.norm(first) - 1) < 0.01


async def test_texts_that_share_words_come_out_closer(session: aiohttp.ClientSession) -> None:
    texts = ["the quick brown fox jumps", "a quick fox jumps over", "compound interest of savings accounts", "jumping foxes"]
    rows = await vectors(session, *texts)
    near, far, inflected = rows[0] @ rows[1], rows[0] @ rows[2], rows[0] @ rows[3]
    assert near > inflected > far
    query = (await vectors(session, texts[0], input_type="query"))[0]
    assert query @ rows[0] > query @ rows[1] > query @ rows[2]


@pytest.mark.parametrize("dimension", [384, 512, 768, 1024, 2048])
async def test_dimensions_are_as_asked(session: aiohttp.ClientSession, dimension: int) -> None:
    assert (await vectors(session, "a", model=LLAMA, dimension=dimension)).shape == (1, dimension)


async def test_sparse_answers_hold_terms_weights_and_tokens(session: aiohttp.ClientSession) -> None:
    _, answer = await embed(session, "red fish blue fish", model=SPARSE, return_tokens=True)
    item = answer["data"][0]
    assert sorted(item["sparse_tokens"]) == ["blue", "fish", "red"]
    assert len(item["sparse_indices"]) == len(item["sparse_values"]) == 3
    weights = dict(zip(item["sparse_tokens"], item["sparse_values"], strict=True))
    assert weights["fish"] > weights["red"] > 0
    assert all(0 <= index < 2**32 for index in item["sparse_indices"])


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Api-Key": "wrong"}, 401, "UNAUTHENTICATED"),
        ({"Api-Key": "schlüssel"}, 401, "UNAUTHENTICATED"),
        ({"X-Pinecone-Api-Version": "1999-01"}, 400, "INVALID_ARGUMENT"),
    ],
)
async def test_headers_are_checked(session: aiohttp.ClientSession, headers: dict[str, str], status: int, code: str) -> None:
    got, answer = await embed(session, "a", headers=headers)
    assert (got, answer["status"], answer["error"]["code"]) == (status, status, code)


@pytest.mark.parametrize(
    ("model", "parameters", "status"),
    [
        ("no-such-model", {}, 404),
        ("bge-reranker-v2-m3", {}, 400),
        (E5, {"input_type": "document"}, 400),
        (E5, {"truncate": "START"}, 400),
        (E5, {"dimension": 512}, 400),
        (LLAMA, {"dimension": 100}, 400),
        (SPARSE, {"return_tokens": "yes"}, 400),
        (SPARSE, {"max_tokens_per_sequence": 4096}, 400),
    ],
)
async def test_models_and_parameters_are_checked(
    session: aiohttp.ClientSession, model: str, parameters: dict[str, Any], status: int
) -> None:
    got, answer = await embed(session, "a", model=model, **parameters)
    assert got == status
    assert answer["error"]["message"]


async def test_too_many_inputs_get_the_documented_text(session: aiohttp.ClientSession) -> None:
    status, answer = await embed(session, *["a"] * 101, model=LLAMA)
    assert status == 400
    assert answer["error"]["message"] == "Input length '101' exceeded inputs limit of 96 for model 'llama-text-embed-v2'"


async def test_long_inputs_are_truncated_or_refused(session: aiohttp.ClientSession) -> None:
    status, answer = await embed(session, "word " * 3000)
    assert (status, answer["usage"]["total_tokens"]) == (200, 507)
    status, answer = await embed(session, "word " * 3000, truncate="NONE")
    assert (status, answer["error"]["code"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"model": "m"}',
        b'{"model": "multilingual-e5-large", "inputs": []}',
        b'{"model": "multilingual-e5-large", "inputs": ["a"]}',
    ],
)
async def test_bodies_that_are_no_request_are_refused(session: aiohttp.ClientSession, body: bytes) -> None:
    async with session.post("/embed", data=body, headers={"Content-Type": "application/json"}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "INVALID_ARGUMENT"


async def test_models_are_listed_and_described(session: aiohttp.ClientSession) -> None:
    async with session.get("/models", params={"type": "embed", "vector_type": "sparse"}) as response:
        listed = (await response.json())["models"]
    assert [model["model"] for model in listed] == [SPARSE]
    async with session.get(f"/models/{E5}") as response:
        described = await response.json()
    assert (described["max_batch_size"], described["default_dimension"]) == (96, 1024)
    async with session.get("/models/none") as response:
        assert response.status == 404


async def test_the_minutes_quota_refuses_whole_requests_with_the_documented_text(
    emulator: Emulator, session: aiohttp.ClientSession
) -> None:
    emulator.quota = ServiceQuota(tokens_per_window=10, retry_after="seconds")
    assert (await embed(session, "one two"))[0] == 200
    status, answer = await embed(session, "one two three four five six seven")
    assert (status, answer["error"]["code"]) == (429, "RESOURCE_EXHAUSTED")
    assert "max embedding tokens per minute (10) model 'multilingual-e5-large' and input type 'passage'" in json.dumps(
        answer
    )
    assert (await embed(session, "one", input_type="query"))[0] == 200


async def test_requests_are_counted(emulator: Emulator, session: aiohttp.ClientSession) -> None:
    emulator.hold()
    waiting = asyncio.create_task(embed(session, "a", "a"))
    await emulator.wait_for_in_flight(1)
    assert emulator.statistics().in_flight == 1
    emulator.release()
    await waiting
    statistics = emulator.statistics()
    assert (statistics.requests, statistics.inputs_answered, statistics.answered["a"]) == (1, 2, 2)


async def test_it_ends_promptly_while_requests_are_held_back() -> None:
    async with asyncio.timeout(5):
        async with Emulator() as emulator, aiohttp.ClientSession(emulator.url) as session:
            emulator.hold()
            headers = {"Api-Key": emulator.api_key, "X-Pinecone-Api-Version": "2025-10"}
            waiting = asyncio.create_task(embed(session, "a", headers=headers))
            await emulator.wait_for_in_flight(1)
            await emulator.aclose()
            with pytest.raises(aiohttp.ClientError):
                await waiting
