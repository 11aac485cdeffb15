import asyncio
import pickle
import random
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pinecone_embed_async import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    InputError,
    MockTransport,
    NotFoundError,
    Progress,
    Quota,
    ResponseError,
    RetryPolicy,
    ServiceError,
    SparseEmbeddings,
    SparseVector,
    TransportError,
)
from pinecone_embed_async._errors import ConnectionProblem
from pinecone_embed_async.emulator import Emulator, ServiceQuota
from tests.clients import E5, QUICK, SPARSE, dense_client
from tests.clock import FakeClock
from tests.service import Service, dense_answer, status


@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_ten_thousand_inputs_come_back_in_order_whatever_was_answered_first(model: str) -> None:
    texts = [f"document {number % 97} about things" for number in range(10_000)]
    draws = random.Random(1)
    async with (
        Emulator(latency=lambda _: draws.uniform(0, 0.05)) as emulator,
        EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url) as client,
    ):
        result = await client.embed(texts, input_type="passage")
        assert emulator.statistics().requests == result.usage.requests == -(-10_000 // 96)
        emulator.latency = 0.0
        alone = {text: (await client.embed(text, input_type="passage"))[0] for text in texts[:97]}
    assert len(result) == 10_000
    for text, row in zip(texts, result, strict=True):
        expected = alone[text]
        if isinstance(row, SparseVector):
            assert isinstance(expected, SparseVector)
            np.testing.assert_array_equal(row.indices, expected.indices)
            np.testing.assert_array_equal(row.values, expected.values)
        else:
            np.testing.assert_array_equal(row, expected)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=30), max_size=40), st.integers(1, 9))
async def test_any_split_gives_what_one_by_one_gives(texts: list[str], size: int) -> None:
    async with Emulator() as emulator, dense_client(emulator, max_batch_size=size) as client:
        result = await client.embed(texts, input_type="query")
        assert result.vectors.shape == (len(texts), 1024)
        for text, vector in list(zip(texts, result, strict=True))[:4]:
            np.testing.assert_array_equal((await client.embed(text, input_type="query")).vectors[0], vector)


async def test_never_more_requests_in_flight_than_the_client_allows(emulator: Emulator) -> None:
    async with dense_client(emulator, max_concurrency=3, max_batch_size=1) as client:
        emulator.hold()
        calls = [asyncio.create_task(client.embed(["a"] * 10, input_type="passage")) for _ in range(2)]
        await emulator.wait_for_in_flight(3)
        assert client.statistics().in_flight == 3
        emulator.release()
        await asyncio.gather(*calls)
    assert emulator.statistics().max_in_flight == 3


async def test_no_permit_is_held_during_a_backoff() -> None:
    clock = FakeClock()
    async with Service(status(503)) as service, service.client(max_concurrency=1, clock=clock, draw=lambda: 1.0) as client:
        backing_off = asyncio.create_task(client.embed("a"))
        while not clock.slept:  # noqa: ASYNC110 - the clock is a fake, and has no event
            await asyncio.sleep(0)
        assert client.statistics().in_flight == 0
        # The only permit is free for another call.
        await client.embed("b")
        assert not backing_off.done()
        clock.advance(clock.slept[0])
        await backing_off
        assert clock.slept == [QUICK.initial_backoff]
        assert clock.pending == 0


async def test_an_empty_list_makes_no_request(client: EmbedClient[DenseEmbeddings], emulator: Emulator) -> None:
    result = await client.embed([], input_type="passage")
    assert result.vectors.shape == (0, 1024)
    assert emulator.statistics().requests == 0


async def test_sparse_tokens_are_kept_where_they_are_asked_for(sparse_client: EmbedClient[SparseEmbeddings]) -> None:
    result = await sparse_client.embed(["alpha beta", ""], input_type="passage", parameters={"return_tokens": True})
    assert result.tokens is not None
    assert sorted(result.tokens[0]) == ["alpha", "beta"]
    assert len(result[0]) == 2
    assert (await sparse_client.embed("alpha", input_type="passage")).tokens is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input_type": "document"},
        {"input_type": "query", "parameters": {"input_type": "passage"}},
        {"input_type": "query", "parameters": {"x": object()}},
    ],
)
async def test_parameters_that_cannot_work_are_refused_before_anything_is_sent(
    client: EmbedClient[DenseEmbeddings], emulator: Emulator, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError):
        await client.embed("a", **options)
    with pytest.raises(InputError):
        await client.embed(["a", 5], input_type="query")  # type: ignore[list-item]
    assert emulator.statistics().requests == 0


async def test_an_unknown_model_is_left_to_the_service(emulator: Emulator) -> None:
    async with EmbedClient("brand-new", api_key=emulator.api_key, base_url=emulator.url) as client:
        with pytest.raises(NotFoundError):
            await client.embed("a")


async def test_the_job_is_finished_under_an_unknown_quota_smaller_than_it() -> None:
    quota = ServiceQuota(tokens_per_window=1500, window=1.0)
    texts = [f"text number {number} has a few words" for number in range(400)]
    paced = Quota(window=1.0)
    async with Emulator(quota=quota) as emulator, dense_client(emulator, max_batch_size=20, quota=paced) as client:
        result = await client.embed(texts, input_type="passage")
        statistics = client.statistics()
    assert result.embedded.all()
    assert result.usage.total_tokens > 1500
    assert statistics.rejections > 0
    assert max(emulator.statistics().answered.values()) == 1


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 520, 529])
async def test_passing_statuses_are_tried_again(code: int) -> None:
    async with Service(status(code), status(code)) as service, service.client() as client:
        assert (await client.embed("a")).vectors.tolist() == [[1.0]]
        assert len(service.requests) == 3
        assert client.statistics().retries == 2


@pytest.mark.parametrize("code", [400, 402, 405, 409, 413, 422, 501, 307])
async def test_final_statuses_are_not(code: int) -> None:
    async with Service(status(code)) as service, service.client() as client:
        with pytest.raises(EmbedError):
            await client.embed("a")
        assert len(service.requests) == 1


@pytest.mark.parametrize(("options", "attempts"), [({}, 1), ({"retry": QUICK}, 3)])
async def test_a_wrong_set_up_of_connections_is_tried_again_only_if_the_caller_says_so(
    options: dict[str, Any], attempts: int
) -> None:
    def fail(_: object) -> Any:
        raise TransportError("no certificate", problem=ConnectionProblem.SETUP)

    async with EmbedClient(E5, api_key="k", transport=MockTransport(fail), **options) as client:
        with pytest.raises(TransportError) as caught:
            await client.embed("a", input_type="query")
    assert caught.value.attempts == attempts


async def test_attempts_are_bounded_and_counted_in_the_error() -> None:
    async with Service(last=status(503)) as service, service.client() as client:
        with pytest.raises(ServiceError, match="after 3 attempts") as caught:
            await client.embed("a")
        assert len(service.requests) == 3
    assert caught.value.attempts == 3


@pytest.mark.parametrize(("fault", "count"), [("closed_before_headers", 0), ("cut_off_body", 1)])
async def test_a_connection_that_is_lost_costs_an_unreadable_answer_only_behind_the_start_of_one(
    emulator: Emulator, fault: str, count: int
) -> None:
    async with dense_client(emulator, retry=QUICK) as client:
        emulator.inject(fault)
        await client.embed("a", input_type="query")
        assert (client.statistics().retries, client.statistics().unreadable_answers) == (1, count)


async def test_a_list_of_models_that_cannot_be_read_was_not_billed_and_is_not_counted() -> None:
    garbled = web.Response(body=b"no gzip", headers={"Content-Encoding": "gzip"})
    async with Service(lambda: garbled) as service, service.client(retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(TransportError, match="gzip"):
            await client.list_models()
        assert client.statistics().unreadable_answers == 0


async def test_unreadable_answers_are_tried_again_and_counted() -> None:
    async with Service(lambda: web.Response(text="{"), lambda: dense_answer(1, 2)) as service, service.client() as client:
        await client.embed("a")
        assert client.statistics().unreadable_answers == 2
    async with Service(lambda: dense_answer(1, 2), last=lambda: dense_answer(1, 2)) as service, service.client() as client:
        with pytest.raises(ResponseError, match="expected 1 embeddings, got 2"):
            await client.embed("a")


async def test_an_answer_whose_bill_cannot_be_read_goes_on_counting_for_the_tokens_of_its_request() -> None:
    def used() -> int:
        (quota,) = client.statistics().quotas
        return quota.used

    reserved: list[int] = []

    def answer() -> web.Response:
        reserved.append(used())
        return web.Response(text="{")

    options: dict[str, Any] = {"quota": 1000, "retry": RetryPolicy(max_attempts=1)}
    async with Service(last=answer) as service, service.client(**options) as client:
        with pytest.raises(ResponseError):
            await client.embed("text " * 20)
        assert [used()] == reserved
        assert used() >= 10


async def test_an_error_envelope_with_status_200_is_that_error() -> None:
    body = {"status": 401, "error": {"code": "UNAUTHENTICATED", "message": "no"}}
    async with Service(lambda: web.json_response(body)) as service, service.client() as client:
        with pytest.raises(AuthenticationError):
            await client.embed("a")


async def test_an_answer_larger_than_allowed_is_refused_also_when_it_is_compressed() -> None:
    def bomb() -> web.Response:
        response = web.Response(body=b" " * 3_000_000, content_type="application/json")
        response.enable_compression()
        return response

    async with Service(last=bomb) as service, service.client(max_answer_bytes=100_000) as client:
        with pytest.raises(ResponseError, match="larger than max_answer_bytes"):
            await client.embed("a")


async def test_an_answer_that_does_not_come_is_given_up_after_the_attempts_time(emulator: Emulator) -> None:
    emulator.hold()
    async with dense_client(emulator, attempt_timeout=0.05, retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(TransportError, match=r"no complete answer within 0\.05 s"):
            await client.embed("a", input_type="query")


async def test_cancelling_a_call_leaves_nothing_behind(emulator: Emulator) -> None:
    emulator.hold()
    async with dense_client(emulator, max_batch_size=1, max_concurrency=2) as client:
        call = asyncio.create_task(client.embed(["a"] * 9, input_type="query"))
        await emulator.wait_for_in_flight(2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert client.statistics().in_flight == client.statistics().waiting == 0
        emulator.release()
        assert len(await client.embed(["a"] * 3, input_type="query")) == 3


async def test_progress_tells_of_every_request_and_its_own_errors_pass_through(emulator: Emulator) -> None:
    seen: list[Progress] = []
    async with dense_client(emulator, max_batch_size=2) as client:
        await client.embed(["a"] * 5, input_type="query", progress=seen.append)
        assert [(progress.done, progress.total) for progress in seen][-1] == (5, 5)
        assert len(seen) == 3

        def broken(_: Progress) -> None:
            raise KeyError("mine")

        with pytest.raises(EmbedError, match="`progress` raised KeyError") as caught:
            await client.embed("a", input_type="query", progress=broken)
        assert isinstance(caught.value.__cause__, KeyError)


async def test_models_are_listed_and_described(client: EmbedClient[DenseEmbeddings]) -> None:
    names = {model.model: model for model in await client.list_models()}
    assert names[E5].max_batch_size == 96
    assert (await client.describe_model()).default_dimension == 1024
    with pytest.raises(NotFoundError):
        await client.describe_model("no such/model")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("multilingual-e5-lage", E5),
        ("llama-text-embed", "llama-text-embed-v2"),
        ("pinecone-sparse-multilingual", "pinecone-sparse-multilingual-v0"),
        ("gpt-4", None),
    ],
)
async def test_a_model_that_is_not_found_is_named_with_the_nearest_that_is_known(
    emulator: Emulator, client: EmbedClient[DenseEmbeddings], name: str, nearest: str | None
) -> None:
    said = f"Model {name} not found; did you mean {nearest!r}?" if nearest else f"Model {name} not found."
    async with EmbedClient(name, api_key=emulator.api_key, base_url=emulator.url) as misspelt:
        for call in (
            lambda: misspelt.embed(["a", "b"], input_type="query"),
            lambda: misspelt.embed_one("a", input_type="query"),
            misspelt.describe_model,
            lambda: client.describe_model(name),
        ):
            with pytest.raises(NotFoundError) as caught:
                await call()
            assert (caught.value.message, caught.value.nearest) == (said, nearest)
            assert f"404 NOT_FOUND: {said}" in str(caught.value)
            copied = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - it is its own
            assert (str(copied), copied.nearest) == (str(caught.value), nearest)


async def test_a_known_model_that_is_not_found_is_no_slip_of_the_pen() -> None:
    async with Emulator() as emulator:
        emulator.inject("status=404")
        async with EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url) as client:
            with pytest.raises(NotFoundError) as caught:
                await client.embed("a", input_type="query")
    assert caught.value.nearest is None


async def test_a_model_known_by_name_alone_gives_sparse_vectors_and_is_looked_up(emulator: Emulator) -> None:
    name = "pinecone-sparse-multilingual-v0"
    async with EmbedClient(name, api_key=emulator.api_key, base_url=emulator.url) as client:
        assert client.estimate(["x" * 10_000], input_type="query").tokens == 2048
        rows = await client.embed(["a text", "another"], input_type="passage")
        assert isinstance(rows, SparseEmbeddings)
        assert emulator.statistics().model_requests == 1
        assert client.estimate(["x" * 10_000], input_type="query").tokens == 512
        with pytest.raises(ConfigurationError, match="from the service's description"):
            await client.embed("a")
    with pytest.raises(ConfigurationError, match="vector_type must be 'sparse'"):
        EmbedClient(name, vector_type="dense", api_key="k")


async def test_the_first_answer_sets_the_dimension_of_an_unknown_model() -> None:
    async with Service() as service, service.client(max_batch_size=1) as client:
        assert (await client.embed(["a", "b", "c"])).vectors.shape == (3, 1)


async def test_the_source_is_named_in_the_user_agent() -> None:
    async with Service() as service, service.client(source_tag="My Tool") as client:
        await client.embed("a")
        agent = service.requests[0].headers["User-Agent"]
    assert agent.startswith("pinecone-embed-async/")
    assert agent.endswith("source_tag=my_tool")


async def test_the_deadline_holds_while_the_inputs_are_read(emulator: Emulator) -> None:
    async def texts() -> AsyncIterator[str]:
        yield "one"
        await asyncio.Event().wait()

    async with dense_client(emulator) as client:
        with pytest.raises(DeadlineExceededError, match="while its inputs were read"):
            await client.embed(texts(), input_type="passage", timeout=0.05)
    assert emulator.statistics().requests == 0


async def test_a_time_out_of_the_inputs_own_is_no_deadline_of_the_call(emulator: Emulator) -> None:
    async def texts() -> AsyncIterator[str]:
        yield "one"
        raise TimeoutError("the source's own")

    async with dense_client(emulator) as client:
        with pytest.raises(TimeoutError, match="the source's own") as raised:
            await client.embed(texts(), input_type="passage", timeout=60)
    assert type(raised.value) is TimeoutError
    assert emulator.statistics().requests == 0


async def test_a_text_of_a_megabyte_is_sent_whole_and_cut_by_the_service(emulator: Emulator) -> None:
    long = "word " * 200_000
    sent: list[int] = []

    def note(text: str) -> bool:
        sent.append(len(text))
        return False

    emulator.reject = note
    async with dense_client(emulator) as client:
        result = await client.embed([long, "short"], input_type="passage", parameters={"truncate": "END"})
        assert client.estimate([long, "short"], input_type="passage").over_length == 1
    assert result.embedded.all()
    assert result.usage.total_tokens < 600
    assert sorted(sent) == [len("short"), len(long)]
