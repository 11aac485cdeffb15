from __future__ import annotations

import asyncio
import email.utils
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import numpy as np
import pytest

from pinecone_embed_async.emulator import EmbedRequest, EmulatedModel, Emulator, ServiceQuota, _answers, _server
from tests.emulator.asking import E5, LLAMA, SPARSE, Asking, request_body


async def test_a_dense_answer_has_the_documented_shape(ask: Asking) -> None:
    reply = await ask.embed("one", "two")
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert list(reply.json) == ["model", "vector_type", "data", "usage"]
    assert (reply.json["model"], reply.json["vector_type"]) == (E5, "dense")
    assert [item["vector_type"] for item in reply.json["data"]] == ["dense", "dense"]
    assert reply.vectors.shape == (2, 1024)
    assert reply.json["usage"] == {"total_tokens": 6}


async def test_values_are_half_precision_numbers_written_out_in_full(ask: Asking) -> None:
    reply = await ask.embed("The quick brown fox jumps over the lazy dog.")
    halves = reply.vectors.astype(np.float16)
    assert np.array_equal(halves.astype(np.float64), reply.vectors)
    written = reply.body.split(b"[")[2].split(b"]")[0].split(b",")
    assert written == [repr(value).encode() for value in halves[0].tolist()]
    assert 17 < np.mean([len(number) for number in written]) < 21


async def test_a_sparse_answer_has_indices_values_and_tokens_if_asked(ask: Asking) -> None:
    bare = await ask.embed("cat dog", "", model=SPARSE)
    told = await ask.embed("cat dog", model=SPARSE, parameters={"return_tokens": True})
    assert bare.json["vector_type"] == "sparse"
    first, empty = bare.json["data"]
    assert list(first) == ["sparse_values", "sparse_indices", "vector_type"]
    assert len(first["sparse_indices"]) == len(first["sparse_values"]) == 2
    assert empty["sparse_indices"] == []
    assert set(told.json["data"][0]["sparse_tokens"]) == {"cat", "dog"}


@pytest.mark.parametrize("dimension", [384, 512, 768, 1024, 2048])
async def test_the_dimension_is_as_asked_for(ask: Asking, dimension: int) -> None:
    reply = await ask.embed("one", model=LLAMA, parameters={"dimension": dimension})
    assert reply.vectors.shape == (1, dimension)


async def test_an_overlong_input_is_cut_at_the_end_that_truncate_says(ask: Asking) -> None:
    text = "alpha " * 2046
    end = await ask.embed(text, text + "omega", model=LLAMA)
    assert end.json["usage"] == {"total_tokens": 2 * 2048}
    first, second = end.vectors
    assert first @ second > 0.999
    start = await ask.embed("omega " + text, text, model=LLAMA, parameters={"truncate": "START"})
    assert start.vectors[0] @ start.vectors[1] > 0.999
    refused = await ask.embed(text + "omega", model=LLAMA, parameters={"truncate": "NONE"})
    assert (refused.status, refused.code) == (400, "INVALID_ARGUMENT")
    assert (await ask.embed(text, model=LLAMA, parameters={"truncate": "NONE"})).status == 200


async def test_max_tokens_per_sequence_changes_the_length(ask: Asking) -> None:
    reply = await ask.embed("cat " * 1000, model=SPARSE)
    longer = await ask.embed("cat " * 1000, model=SPARSE, parameters={"max_tokens_per_sequence": 2048})
    assert reply.json["usage"] == {"total_tokens": 512}
    assert longer.json["usage"] == {"total_tokens": 1002}


async def test_too_many_inputs_are_refused_in_the_documented_words(ask: Asking) -> None:
    reply = await ask.embed(*["a"] * 101, model=LLAMA)
    assert (reply.status, reply.code) == (400, "INVALID_ARGUMENT")
    assert reply.message == "Input length '101' exceeded inputs limit of 96 for model 'llama-text-embed-v2'"
    assert (await ask.embed(*["a"] * 96)).status == 200


async def test_an_unknown_model_is_not_found(ask: Asking) -> None:
    reply = await ask.embed("a", model="example-model")
    assert (reply.status, reply.code, reply.message) == (404, "NOT_FOUND", "Model example-model not found.")


async def test_a_reranking_model_does_not_embed(ask: Asking) -> None:
    assert (await ask.embed("a", model="bge-reranker-v2-m3")).code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("changed", "status", "code"),
    [
        ({"Api_Key": None}, 401, "UNAUTHENTICATED"),
        ({"Api_Key": "another"}, 401, "UNAUTHENTICATED"),
        ({"X_Pinecone_Api_Version": None}, 400, "INVALID_ARGUMENT"),
        ({"X_Pinecone_Api_Version": "2019-01"}, 400, "INVALID_ARGUMENT"),
        *(
            ({"X_Pinecone_Api_Version": version}, 200, "")
            for version in ("2025-04", "2025-10", "2026-04", "2026-07", "2031-12")
        ),
        *(
            ({"X_Pinecone_Api_Version": version}, 400, "INVALID_ARGUMENT")
            for version in ("2025-03", "2024-10", "2026-13", "2026-00", "2026-7", "2026-07-01", "unstable", "", "٢٠٢٦-٠٧")
        ),
        ({"Content_Type": "text/plain"}, 400, "INVALID_ARGUMENT"),
        ({"Content_Type": None}, 400, "INVALID_ARGUMENT"),
        ({"Content_Type": "application/json; charset=utf-8"}, 200, ""),
    ],
)
async def test_headers_are_checked(ask: Asking, changed: dict[str, str | None], status: int, code: str) -> None:
    reply = await ask.raw(request_body(["a"]), ask.headers(**changed))
    assert reply.status == status
    if code:
        assert reply.code == code
    if status == 401:
        assert reply.message == "Invalid API key."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"inputs":[{"text":"a"}]}',
        b'{"model":"multilingual-e5-large","parameters":{"input_type":"query"}}',
        b'{"model":"multilingual-e5-large","parameters":{"input_type":"query"},"inputs":[]}',
        b'{"model":"multilingual-e5-large","parameters":{"input_type":"query"},"inputs":["a"]}',
        b'{"model":"multilingual-e5-large","parameters":{"input_type":"query"},"inputs":[{"text":1}]}',
        b'{"model":"multilingual-e5-large","parameters":[],"inputs":[{"text":"a"}]}',
        b'{"model":"multilingual-e5-large","inputs":[{"text":"a"}]}',
        b'{"model":"multilingual-e5-large","parameters":null,"inputs":[{"text":"a"}]}',
    ],
    ids=lambda body: body[:30].decode("latin-1"),
)
async def test_a_bad_body_is_an_invalid_argument(ask: Asking, body: bytes) -> None:
    reply = await ask.raw(body)
    assert (reply.status, reply.code) == (400, "INVALID_ARGUMENT")


async def test_a_body_over_the_limit_is_refused_as_a_whole(emulator: Emulator, ask: Asking) -> None:
    emulator.max_body_bytes = 1000
    reply = await ask.embed("a" * 900_000)
    assert (reply.status, reply.code) == (413, "INVALID_ARGUMENT")
    assert (await ask.embed("a")).status == 200


async def test_content_is_refused_while_the_rule_says_so(emulator: Emulator, ask: Asking) -> None:
    emulator.reject = lambda text: "bad" in text
    refused = await ask.embed("good", "a bad one")
    assert (refused.status, refused.code) == (400, "INVALID_ARGUMENT")
    assert "a bad one" in refused.message
    assert emulator.statistics().inputs_answered == 0
    emulator.reject = None
    assert (await ask.embed("good", "a bad one")).status == 200


async def test_models_are_listed_and_filtered(ask: Asking) -> None:
    async def names(query: str) -> set[str]:
        reply = await ask.get(f"/models{query}")
        return {model["model"] for model in reply.json["models"]}

    assert len(await names("")) == 5
    assert await names("?type=embed") == {E5, LLAMA, SPARSE, "pinecone-sparse-multilingual-v0"}
    assert await names("?type=rerank") == {"bge-reranker-v2-m3"}
    assert await names("?type=embed&vector_type=sparse") == {SPARSE, "pinecone-sparse-multilingual-v0"}
    assert (await ask.get("/models?type=chat")).code == "INVALID_ARGUMENT"


async def test_a_model_is_described_with_all_fields(ask: Asking) -> None:
    described: dict[str, Any] = (await ask.get(f"/models/{LLAMA}")).json
    assert described["max_batch_size"] == 96
    assert described["max_sequence_length"] == 2048
    assert described["default_dimension"] == 1024
    assert {parameter["parameter"] for parameter in described["supported_parameters"]} == {
        "input_type",
        "truncate",
        "dimension",
    }
    assert (await ask.get("/models/none")).message == "Model none not found."
    assert (await ask.get("/models", {})).status == 401


async def test_other_paths_and_methods_are_refused_with_an_envelope(ask: Asking) -> None:
    assert (await ask.get("/rerank")).code == "NOT_FOUND"
    assert (await ask.get("/embed")).status == 405


async def test_a_model_may_be_added(session: aiohttp.ClientSession) -> None:
    small = EmulatedModel("small", default_dimension=3, max_batch_size=2)
    async with Emulator(models=[small]) as emulator:
        asking = Asking(emulator, session)
        body = json.dumps({"model": "small", "inputs": [{"text": "a"}]}).encode()
        assert (await asking.raw(body)).vectors.shape == (1, 3)


async def test_a_request_over_the_quota_is_refused_whole_and_a_later_one_served(session: aiohttp.ClientSession) -> None:
    now = [0.0]
    quota = ServiceQuota(tokens_per_window=10, retry_after="seconds")
    async with Emulator(quota=quota, clock=lambda: now[0]) as emulator:
        ask = Asking(emulator, session)
        assert (await ask.embed("a", "b", "c")).status == 200
        now[0] = 12.5
        refused = await ask.embed("a")
        assert (await ask.embed("a", parameters={"input_type": "query"})).status == 200
        assert (refused.status, refused.code) == (429, "RESOURCE_EXHAUSTED")
        assert "max embedding tokens per minute (10) model 'multilingual-e5-large'" in refused.message
        assert refused.headers["Retry-After"] == "48"
        emulator.quota = ServiceQuota(tokens_per_window=10, retry_after="date", text=False)
        again = await ask.embed("a")
        assert again.message == ""
        when = email.utils.parsedate_to_datetime(again.headers["Retry-After"]).timestamp()
        assert 0 <= when - time.time() - 47.5 <= 2
        emulator.quota = ServiceQuota()
        assert (await ask.embed("a")).status == 200
        assert emulator.statistics().by_status == {200: 3, 429: 2}
        assert emulator.statistics().tokens_billed == 9 + 3 + 3


async def test_statistics_count_what_was_answered(emulator: Emulator, ask: Asking) -> None:
    await ask.embed("a", "b", "a")
    await ask.embed("a", model="none")
    await ask.get("/models")
    seen = emulator.statistics()
    assert (seen.requests, seen.model_requests, seen.in_flight, seen.max_in_flight) == (2, 1, 0, 1)
    assert seen.by_status == {200: 2, 404: 1}
    assert (seen.inputs_answered, seen.tokens_billed) == (3, 9)
    assert seen.answered == seen.answered_well == Counter({"a": 2, "b": 1})
    assert (seen.connections_opened, seen.connections_open) == (1, 1)
    emulator.reset_statistics()
    assert emulator.statistics().requests == 0


async def test_held_answers_come_in_the_order_of_their_release(emulator: Emulator, ask: Asking) -> None:
    emulator.hold()
    done: list[str] = []

    async def one(text: str) -> None:
        await ask.embed(text)
        done.append(text)

    async with asyncio.TaskGroup() as group:
        tasks = {}
        for count, text in enumerate("abc", 1):
            tasks[text] = group.create_task(one(text))
            await emulator.wait_for_requests(count)
        await emulator.wait_for_in_flight(3)
        assert [request.inputs for request in emulator.held] == [("a",), ("b",), ("c",)]
        numbers = {request.inputs[0]: request.number for request in emulator.held}
        emulator.release(numbers["c"])
        await tasks["c"]
        emulator.release(numbers["a"])
        await tasks["a"]
        assert done == ["c", "a"]
        emulator.release()
    assert done == ["c", "a", "b"]
    assert emulator.statistics().max_in_flight == 3
    await emulator.wait_for_answers(3)


async def test_a_client_that_leaves_is_no_longer_in_flight(emulator: Emulator, ask: Asking) -> None:
    emulator.hold()
    task = asyncio.create_task(ask.embed("a"))
    await emulator.wait_for_requests(1)
    task.cancel()
    await emulator.wait_until_idle()
    assert emulator.held == ()
    assert emulator.statistics().by_status == {}
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_latency_may_be_drawn_or_given_by_the_request(emulator: Emulator, ask: Asking) -> None:
    order: list[int] = []

    def shuffled(request: EmbedRequest) -> float:
        order.append(request.number)
        return 0.001 * (5 - request.number)

    emulator.latency = shuffled
    await asyncio.gather(*(ask.embed("a") for _ in range(4)))
    assert sorted(order) == [1, 2, 3, 4]
    emulator.latency = (0.0, 0.001)
    assert (await ask.embed("a")).status == 200


def test_drawn_latency_is_the_same_with_every_run() -> None:
    draws = []
    for _ in range(2):
        emulator = Emulator(latency=(0.0, 1.0), seed=7)
        draws.append([emulator._delay(EmbedRequest(number)) for number in range(5)])
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 5


async def test_closing_is_prompt_with_requests_in_flight_and_leaves_nothing(session: aiohttp.ClientSession) -> None:
    before = asyncio.all_tasks()
    emulator = Emulator()
    await emulator.start()
    ask = Asking(emulator, session)
    emulator.hold()
    emulator.inject("stalled_body", times=1)
    tasks = [asyncio.create_task(ask.embed(text)) for text in "abc"]
    await emulator.wait_for_requests(3)
    emulator.release(emulator.held[0].number)
    started = time.monotonic()
    await emulator.aclose()
    assert time.monotonic() - started < 0.5
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, aiohttp.ClientError) for outcome in outcomes)
    assert asyncio.all_tasks() == before
    await emulator.aclose()


async def test_it_may_be_started_again(session: aiohttp.ClientSession) -> None:
    emulator = Emulator()
    with pytest.raises(RuntimeError, match="not started"):
        _ = emulator.url
    for _ in range(2):
        async with emulator:
            assert emulator.url.startswith("http://127.0.0.1:")
            assert (await Asking(emulator, session).embed("a")).status == 200
            with pytest.raises(RuntimeError, match="already"):
                await emulator.start()


async def test_a_port_in_use_is_an_error(emulator: Emulator) -> None:
    port = int(emulator.url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        await Emulator(port=port).start()


def test_its_repr_does_not_show_the_key() -> None:
    assert "secret" not in repr(Emulator(api_key="secret"))


def test_emulators_in_threads_of_their_own_do_not_mix_up_words() -> None:
    async def vectors(number: int) -> Any:
        async with Emulator() as emulator, aiohttp.ClientSession() as session:
            texts = [" ".join(f"w{number}x{text}x{place}" for place in range(30)) for text in range(96)]
            return (await Asking(emulator, session).embed(*texts)).vectors

    before = sys.getswitchinterval()
    # So often that threads which shared anything would meet in it.
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(lambda number: asyncio.run(vectors(number)), range(4)))
    finally:
        sys.setswitchinterval(before)
    for number, found in enumerate(together):
        np.testing.assert_array_equal(found, asyncio.run(vectors(number)))


async def test_one_answer_is_computed_a_turn(emulator: Emulator, ask: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = [0]
    turns: list[int] = []
    compute = _answers.compute

    def counted(*arguments: Any) -> Any:
        turns.append(turn[0])
        return compute(*arguments)

    async def tick() -> None:
        while True:
            turn[0] += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(_server, "compute", counted)
    ticking = asyncio.create_task(tick())
    emulator.hold()
    asked = asyncio.gather(*(ask.embed("a") for _ in range(5)))
    await emulator.wait_for_in_flight(5)
    emulator.release()
    await asked
    ticking.cancel()
    assert len(turns) == len(set(turns)) == 5
