"""What becomes of a call's inputs when some of them, or the whole job, cannot be embedded."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    Failure,
    InputError,
    InvalidRequestError,
    NotFoundError,
    Progress,
    QuotaExceededError,
    ResponseError,
    RetryPolicy,
    ServiceError,
    SparseEmbeddings,
    TransportError,
    Usage,
)
from pinecone_embed_async._results import summed_up
from pinecone_embed_async.emulator import Emulator, Fault, FaultRule
from tests.clients import E5, QUICK, SPARSE, dense_client
from tests.clock import FakeClock, settle
from tests.service import Service, dense_answer, status


def client_of(emulator: Emulator, model: str) -> EmbedClient[Any]:
    return EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url, retry=QUICK)


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_a_mixed_job_fails_exactly_what_cannot_be_embedded(model: str, on_error: Any) -> None:
    rejected = [0, 95, 96, 1000, 1001, 2222, 2999]
    texts = [f"text {index}{' rejected' if index in rejected else ''}" for index in range(3000)]
    # The request that holds input 480 fails for ever.
    broken = range(480, 576)
    emulator = Emulator(
        reject=lambda text: "rejected" in text,
        faults=[FaultRule(Fault("status", "500"), when=lambda request: "text 480" in request.inputs)],
    )
    async with emulator, client_of(emulator, model) as client:
        if on_error == "return":
            partial = await client.embed(texts, input_type="passage", on_error="return")
        else:
            with pytest.raises(InvalidRequestError) as caught:
                await client.embed(texts, input_type="passage")
            assert caught.value.partial is not None
            assert caught.value.failures == caught.value.partial.failures
            assert str(caught.value).startswith("400 INVALID_ARGUMENT: 103 of 3,000 inputs failed; input 0: ")
            assert "(inputs 0, 95, 96, 480, " in str(caught.value)
            assert "inputs failed" not in str(caught.value.failures[0].error)
            partial = caught.value.partial
        emulator.clear_faults()
        good = [index for index in range(3000) if index not in rejected and index not in broken]
        alone = await client.embed([texts[index] for index in good], input_type="passage")
    causes = {index: failure.error for failure in partial.failures for index in failure.indices}
    assert sorted(causes) == sorted({*rejected, *broken})
    assert all(isinstance(causes[index], InvalidRequestError) for index in rejected)
    assert all(isinstance(causes[index], ServiceError) and causes[index].attempts == 3 for index in broken)
    assert np.flatnonzero(partial.embedded).tolist() == good
    assert len(partial.not_tried) == 0
    if isinstance(partial, DenseEmbeddings):
        np.testing.assert_array_equal(partial.vectors[good], alone.vectors)
        assert np.isnan(partial.vectors[sorted(causes)]).all()
    else:
        assert isinstance(partial, SparseEmbeddings)
        for index, vector in zip(good, alone, strict=True):
            np.testing.assert_array_equal(partial[index].indices, vector.indices)
            np.testing.assert_array_equal(partial[index].values, vector.values)
        assert all(len(partial[index].indices) == 0 for index in causes)


async def test_one_culprit_costs_two_requests_a_level_and_one_probe(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "bad"
    async with dense_client(emulator) as client:
        result = await client.embed([*["good"] * 40, "bad", *["good"] * 55], input_type="passage", on_error="return")
        assert emulator.statistics().requests <= 1 + 1 + 2 * 7
        assert list(result.failures[0].indices) == [40]
        before = emulator.statistics().requests
        await client.embed([*["good"] * 40, "bad", *["good"] * 55], input_type="passage", on_error="return")
        assert emulator.statistics().requests - before <= 1 + 2 * 7


async def test_parameters_that_the_service_refuses_fail_the_job_not_its_inputs(emulator: Emulator) -> None:
    emulator.reject = lambda text: "bad" not in text
    async with dense_client(emulator, max_batch_size=10, max_concurrency=2) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.embed(["text"] * 500, input_type="passage")
    assert emulator.statistics().requests <= 5
    assert caught.value.partial is not None
    assert len(caught.value.partial.not_tried) >= 460
    assert "the cause is the parameters or the model" in caught.value.__notes__[0]


async def test_a_probe_is_counted_in_what_was_billed_and_not_in_the_rows(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "bad"
    async with dense_client(emulator) as client:
        result = await client.embed(["bad", "good"], input_type="query", on_error="return")
        assert client.statistics().inputs == 1
        alone = await client.embed("good", input_type="query")
    assert result.usage.total_tokens > alone.usage.total_tokens
    assert result.usage.requests == 2
    np.testing.assert_array_equal(result.vectors[1], alone.vectors[0])


async def test_a_body_too_large_for_the_service_is_halved_and_later_ones_are_smaller(emulator: Emulator) -> None:
    emulator.max_body_bytes = 10_000
    async with dense_client(emulator, max_concurrency=1) as client:
        texts = [f"{index} {'x' * 200}" for index in range(480)]
        result = await client.embed(texts, input_type="passage")
        assert result.embedded.all()
        requests = emulator.statistics().requests
        again = await client.embed(texts, input_type="passage")
        assert emulator.statistics().requests - requests == 480 // 24
    np.testing.assert_array_equal(result.vectors, again.vectors)


async def test_one_input_too_large_for_the_service_fails_alone(emulator: Emulator) -> None:
    emulator.max_body_bytes = 10_000
    async with dense_client(emulator) as client:
        result = await client.embed([*["a"] * 50, "x" * 20_000, *["b"] * 50], input_type="passage", on_error="return")
    assert [list(failure.indices) for failure in result.failures] == [[50]]
    assert result.embedded.sum() == 100


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status=401", AuthenticationError),
        ("status=403", AuthenticationError),
        ("status=404", NotFoundError),
        ("month_quota_spent", QuotaExceededError),
        ("quota_exceeded", QuotaExceededError),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_an_error_of_the_whole_job_keeps_what_is_in_flight(
    emulator: Emulator, fault: str, kind: type[EmbedError], on_error: Any
) -> None:
    name, _, value = fault.partition("=")
    texts = [f"text {index}" for index in range(50)]
    emulator.faults = [FaultRule(Fault(name, value), when=lambda request: "text 2" in request.inputs)]
    emulator.hold()
    async with dense_client(emulator, max_batch_size=1, max_concurrency=4) as client:
        call = asyncio.create_task(client.embed(texts, input_type="passage", on_error=on_error))
        await emulator.wait_for_in_flight(4)
        emulator.release(3)
        while client.statistics().in_flight == 4:  # noqa: ASYNC110 - the client tells of it in no other way
            await asyncio.sleep(0)
        emulator.release()
        if on_error == "return":
            partial = await call
        else:
            with pytest.raises(kind) as caught:
                await call
            assert isinstance(caught.value.partial, DenseEmbeddings)
            partial = caught.value.partial
    assert np.flatnonzero(partial.embedded).tolist() == [0, 1, 3]
    assert [list(failure.indices) for failure in partial.failures] == [[2]]
    assert isinstance(partial.failures[0].error, kind)
    assert partial.not_tried.tolist() == list(range(4, 50))
    assert emulator.statistics().requests == 4


async def test_closing_ends_a_running_call_with_what_it_has(emulator: Emulator) -> None:
    emulator.hold()
    client = dense_client(emulator, max_batch_size=1, max_concurrency=2)
    call = asyncio.create_task(client.embed(["a"] * 9, input_type="query"))
    await emulator.wait_for_in_flight(2)
    closing = asyncio.create_task(client.aclose())
    await settle()
    assert not closing.done()
    emulator.release()
    with pytest.raises(ClosedError, match="before all inputs were embedded") as caught:
        await call
    await closing
    assert caught.value.partial is not None
    assert caught.value.partial.embedded.sum() == 2
    assert len(caught.value.partial.not_tried) == 7
    with pytest.raises(ClosedError):
        await client.embed("a", input_type="query")
    async with client:
        assert len(await client.embed("a", input_type="query")) == 1


async def test_closing_ends_a_backoff_at_once() -> None:
    async with Service(last=status(503)) as service:
        retry = RetryPolicy(initial_backoff=600, max_backoff=600, max_elapsed=6000)
        # On its clock, the grace period for requests in flight never ends.
        client = service.client(retry=retry, draw=lambda: 1.0, clock=FakeClock())
        call = asyncio.create_task(client.embed("a"))
        while not client.statistics().retries:  # noqa: ASYNC110 - the client tells of it in no other way
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await client.aclose()
        with pytest.raises(ClosedError) as caught:
            await call
    assert [type(failure.error) for failure in caught.value.failures] == [ServiceError]


async def test_the_deadline_hands_over_what_was_embedded(emulator: Emulator) -> None:
    emulator.latency = lambda request: 0.0 if "fast" in request.inputs else 60.0
    async with dense_client(emulator, max_batch_size=1, max_concurrency=2) as client:
        with pytest.raises(DeadlineExceededError) as caught:
            await client.embed(["fast", "slow", "slow", "slow", "slow", "slow"], input_type="query", timeout=0.5)
        emulator.latency = 0.0
        await client.embed("after", input_type="query")
        assert client.statistics().in_flight == 0
    assert isinstance(caught.value, TimeoutError)
    partial = caught.value.partial
    assert partial is not None
    assert partial.embedded.tolist() == [True] + [False] * 5
    # Two were on the wire; the others had no attempt.
    assert [list(failure.indices) for failure in partial.failures] == [[1], [2]]
    assert partial.not_tried.tolist() == [3, 4, 5]


async def test_a_deadline_before_the_next_attempt_is_not_waited_for() -> None:
    clock = FakeClock()
    async with Service(last=status(503, Retry_After="60")) as service:
        async with service.client(clock=clock, draw=lambda: 0.0) as client:
            with pytest.raises(DeadlineExceededError, match=r"would start in 60\.0 s.*failed with ServiceError: 503"):
                await client.embed("a", timeout=30)
        assert clock.slept == []


async def test_below_half_its_retry_budget_a_client_sends_one_at_a_time_and_recovers(emulator: Emulator) -> None:
    retry = RetryPolicy(max_attempts=100, initial_backoff=0.0, max_backoff=0.0)
    async with dense_client(emulator, max_batch_size=1, max_concurrency=4, retry=retry) as client:
        in_flight: list[int] = []

        def note(_: object) -> float:
            in_flight.append(client.statistics().in_flight)
            return 0.01

        emulator.latency = note
        emulator.inject(Fault("status", "503"), times=70)
        await client.embed(["a"] * 80, input_type="query")
        assert client.statistics().retry_budget == 100
        assert dense_client(emulator).statistics().retry_budget == 100
    # 30 were left, so the first 20 answers come one by one.
    answered = in_flight[-80:]
    assert set(answered[:20]) == {1}
    assert max(answered[20:]) == 4


async def test_waiting_for_a_limit_does_not_draw_on_the_retry_budget() -> None:
    answers = [status(429, Retry_After="0")] * 3
    async with Service(*answers, last=dense_answer) as service, service.client(draw=lambda: 0.0) as client:
        await client.embed("a")
        assert client.statistics().retry_budget == 100
        assert client.statistics().rejections == 3


async def test_a_limit_of_inputs_told_by_the_service_is_obeyed() -> None:
    body = {
        "status": 400,
        "error": {"code": "INVALID_ARGUMENT", "message": "Input length '5' exceeded inputs limit of 2 for model 'm'"},
    }

    async with Service(lambda: web.json_response(body, status=400), last=lambda: dense_answer(1, 2)) as service:
        async with service.client(max_batch_size=5) as client:
            result = await client.embed(list("abcd"))
            assert result.vectors.ravel().tolist() == [1, 2, 1, 2]
            await client.embed(list("abcd"))
        assert len(service.requests) == 5


@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_equal_texts_are_sent_once_and_every_input_gets_its_row(emulator: Emulator, model: str) -> None:
    emulator.reject = lambda text: text == "bad"
    texts = ["a", "b", "a", "bad", "c", "bad", "a"]
    async with client_of(emulator, model) as client:
        result = await client.embed(texts, input_type="passage", dedupe=True, on_error="return")
        assert max(count for text, count in emulator.statistics().answered.items() if text != "bad") == 1
        plain = await client.embed(texts, input_type="passage", on_error="return")
        with pytest.raises(InvalidRequestError) as caught:
            await client.embed(texts, input_type="passage", dedupe=True)
    assert result.embedded.tolist() == plain.embedded.tolist()
    assert [list(failure.indices) for failure in result.failures] == [[3, 5]]
    assert caught.value.failures[0].indices == [3, 5]
    for one, other in zip(result, plain, strict=True):
        if isinstance(result, DenseEmbeddings):
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_array_equal(one.indices, other.indices)
            np.testing.assert_array_equal(one.values, other.values)


async def test_tokens_follow_their_texts_when_equal_ones_are_sent_once(emulator: Emulator) -> None:
    async with client_of(emulator, SPARSE) as client:
        result = await client.embed(
            ["one word", "other", "one word"], input_type="passage", parameters={"return_tokens": True}, dedupe=True
        )
    assert result.tokens[0] == result.tokens[2]
    assert result.tokens[1] != result.tokens[0]


class KeptInMemory:
    """A cache that keeps vectors in a dict."""

    def __init__(self) -> None:
        self.kept: dict[bytes, bytes] = {}

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.kept.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        self.kept.update(entries)


@pytest.mark.parametrize("model", [E5, SPARSE])
@pytest.mark.parametrize("dedupe", [False, True])
@pytest.mark.parametrize("is_cached", [False, True])
async def test_inputs_that_are_no_texts_fail_alone_where_failures_are_returned(
    model: str, *, dedupe: bool, is_cached: bool, emulator: Emulator
) -> None:
    texts: list[Any] = [f"text {index % 300}" for index in range(1000)]
    # After equal texts, so that without duplicates they have another row.
    texts[303] = texts[400] = float("nan")
    texts[307], texts[308] = 5, ""
    seen: list[Progress] = []
    cache = KeptInMemory() if is_cached else None
    async with EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url, retry=QUICK, cache=cache) as client:
        for _ in range(2):
            result = await client.embed(texts, input_type="passage", on_error="return", dedupe=dedupe, progress=seen.append)
            assert [(list(failure.indices), type(failure.error)) for failure in result.failures] == [
                ([303, 400], InputError),
                ([307], InputError),
            ]
            assert result.not_tried.tolist() == []
            assert np.flatnonzero(~result.embedded).tolist() == [303, 307, 400]
            assert (seen[-1].done + seen[-1].failed, seen[-1].total) == (seen[-1].total, 303 if dedupe else 1000)
            for row in (0, 308, 399, 401, 999):
                alone: Any = await client.embed(texts[row], input_type="passage")
                if isinstance(result, DenseEmbeddings):
                    np.testing.assert_array_equal(result[row], alone[0])
                    assert np.isnan(result[303]).all()
                else:
                    assert isinstance(result, SparseEmbeddings)
                    np.testing.assert_array_equal(result[row].values, alone[0].values)
                    assert len(result[303]) == 0
        nothing = await client.embed([None, 5], input_type="passage", on_error="return", dedupe=dedupe)  # type: ignore[list-item]
        assert len(nothing.failures) == len(nothing) == 2
        if is_cached:
            assert client.statistics().cache_hits > 990 if not dedupe else 290


async def test_the_service_is_told_of_by_the_positions_in_the_call_where_some_inputs_are_none(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "bad"
    async with dense_client(emulator) as client:
        inputs: list[Any] = [None, "good", "bad", None, "good"]
        result = await client.embed(inputs, input_type="passage", on_error="return")
    assert [list(failure.indices) for failure in result.failures] == [[0, 3], [2]]
    assert isinstance(result.failures[1].error, InvalidRequestError)


async def test_an_error_tells_how_many_inputs_failed_and_which(emulator: Emulator) -> None:
    texts = [f"text {index}" for index in range(1000)]
    texts[700] = texts[900] = "too long " * 3000
    async with dense_client(emulator) as client:
        with pytest.raises(InvalidRequestError) as caught:
            await client.embed(texts, input_type="passage", parameters={"truncate": "NONE"})
        assert "2 of 1,000 inputs failed; input 700: " in str(caught.value)
        assert "(inputs 700, 900)" in str(caught.value)
        with pytest.raises(InvalidRequestError) as alone:
            await client.embed(texts[700], input_type="passage", parameters={"truncate": "NONE"})
        assert "inputs failed" not in str(alone.value)
        with pytest.raises(InvalidRequestError) as of_equal:
            await client.embed(texts, input_type="passage", parameters={"truncate": "NONE"}, dedupe=True)
        assert "2 of 1,000 inputs failed; input 700: " in str(of_equal.value)
        async with client.stream(texts, input_type="passage", parameters={"truncate": "NONE"}) as batches:
            told = []
            while True:
                try:
                    await anext(batches)
                except InvalidRequestError as error:
                    told.append(str(error))
                    assert error.batch is not None
                except StopAsyncIteration:
                    break
        assert ["; input 700: " in told[0], "; input 900: " in told[1]] == [True, True]
        assert all("1 of 96 inputs failed" in error for error in told)
        with pytest.raises(AuthenticationError) as ended:
            await EmbedClient(E5, api_key="wrong", base_url=emulator.url).embed(texts, input_type="passage")
        assert "inputs failed" not in str(ended.value)


def page_of_a_proxy() -> web.Response:
    return web.Response(text="<html>Welcome to the hotel's network</html>", content_type="text/html")


async def test_a_job_ends_when_nothing_readable_has_ever_come() -> None:
    async with Service(last=page_of_a_proxy) as service:
        for retry in (None, RetryPolicy(initial_backoff=0.001, max_backoff=0.001)):
            client = service.client(retry=retry, max_batch_size=1)
            with pytest.raises(ResponseError, match="none of 8 answers could be read: check base_url and the proxy"):
                await client.embed([f"text {number}" for number in range(20)])
            # Eight that end the job, and those that were in flight beside them.
            assert client.statistics().attempts <= 8 + 8
            await client.aclose()


async def test_unreadable_answers_behind_one_that_was_read_fail_their_own_inputs_only() -> None:
    async with Service(dense_answer, last=page_of_a_proxy) as service, service.client(max_batch_size=1) as client:
        await client.embed("text")
        result = await client.embed([f"text {number}" for number in range(20)], on_error="return")
        assert [list(failure.indices) for failure in result.failures] == [[number] for number in range(20)]
        assert client.statistics().attempts == 1 + 20 * QUICK.max_attempts


@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_what_equals_a_refused_input_is_not_sent_and_others_have_their_rows(emulator: Emulator, model: str) -> None:
    texts = ["bad" if number % 7 == 3 else f"text {number}" for number in range(400)]
    good = [text for text in texts if text != "bad"]
    bad = [index for index, text in enumerate(texts) if text == "bad"]
    async with client_of(emulator, model) as client:
        plain = await client.embed(good, input_type="passage")
        emulator.reject = lambda text: text == "bad"
        for _ in range(2):
            before = emulator.statistics().requests
            result = await client.embed(texts, input_type="passage", on_error="return")
            assert [index for failure in result.failures for index in failure.indices] == bad
            rows = iter(plain)
            for index, row in enumerate(result):
                if index in bad:
                    continue
                if isinstance(row, np.ndarray):
                    np.testing.assert_array_equal(row, next(rows))
                else:
                    np.testing.assert_array_equal(row.values, next(rows).values)
        # The second time, five requests with nothing bad in them.
        assert emulator.statistics().requests - before == 5
        assert "not sent again" in str(result.failures[0].error)
        assert "bad" not in str(result.failures[0].error)
        with pytest.raises(InvalidRequestError, match="not sent again"):
            await client.embed_one("bad", input_type="passage")
        async with client.stream(["bad", "good", "bad"], input_type="passage", on_error="return") as batches:
            embedded = [row async for batch in batches for row in batch.embeddings.embedded.tolist()]
        assert embedded == [False, True, False]
        async with client.stream(["bad"] * 300, input_type="passage", on_error="return") as batches:
            assert sum([len(batch) async for batch in batches]) == 300


@pytest.mark.parametrize(
    ("given", "failed", "message"),
    [
        ("cut", [0], "cut"),
        ("cut", [0, 1], "2 of 2 inputs failed; input 0: cut (inputs 0, 1)"),
        ("cut", [0, 2], "2 of 3 inputs failed; input 0: cut (inputs 0, 2)"),
        ("input 1 is odd", [1], "1 of 2 inputs failed; input 1 is odd"),
    ],
)
def test_the_error_of_a_call_counts_and_names_its_failed_inputs(given: str, failed: list[int], message: str) -> None:
    error = TransportError(given)
    vectors = np.zeros((failed[-1] + 1, 1), np.float32)
    partial = DenseEmbeddings(vectors, model="m", usage=Usage(), failures=(Failure(failed, error),))
    assert summed_up(error, partial).message == message
    shifted = summed_up(TransportError("cut"), partial, start=10).message
    assert len(vectors) == 1 or f"; input {10 + failed[0]}: cut" in shifted


def test_the_error_of_a_call_keeps_the_other_arguments_of_the_first_one() -> None:
    class OwnError(EmbedError):
        """An error of a transport of the user's own."""

        def __init__(self, message: str, address: str) -> None:
            super().__init__(message)
            self.args = message, address

    error = OwnError("cut", "a.example")
    partial = DenseEmbeddings(np.zeros((2, 1), np.float32), model="m", usage=Usage(), failures=(Failure([1], error),))
    assert summed_up(error, partial).args == ("1 of 2 inputs failed; input 1: cut", "a.example")
