"""Single calls that share requests, against the emulator."""

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, assert_type

import numpy as np
import pytest
from numpy.typing import NDArray

from pinecone_embed_async import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    InputError,
    InvalidRequestError,
    Quota,
    RetryPolicy,
    ServiceError,
    SparseEmbeddings,
    SparseVector,
    TransportError,
)
from pinecone_embed_async.emulator import Emulator, ServiceQuota
from tests.clients import QUICK, dense_client
from tests.clock import settle
from tests.interrupting import (
    REFERENCE,
    STRIDES,
    TEXTS,
    Bench,
    FirstAttempts,
    cancelled_before_step,
    in_stepping_loop,
    out_of_time_before_step,
    sweep,
)
from tests.processes import run_with_client
from tests.service import Service, dense_answer, status
from tests.silence import MARK, assert_frames_are_silent

AGES = 600.0
"""Seconds that no test takes: who waits for that long does not get through."""


async def gathered(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*calls, return_exceptions=True)


def is_own(array: NDArray[Any], kind: type[np.generic]) -> None:
    assert array.base is None
    assert array.dtype == kind


async def test_a_dense_model_gives_an_array_of_the_callers_own(
    client: EmbedClient[DenseEmbeddings], emulator: Emulator
) -> None:
    vector = await client.embed_one("what is a vector?", input_type="query")
    assert_type(vector, NDArray[np.float32])
    is_own(vector, np.float32)
    np.testing.assert_array_equal(vector, (await client.embed("what is a vector?", input_type="query"))[0])
    first, second = await asyncio.gather(*(client.embed_one({"text": "a"}, input_type="query") for _ in range(2)))
    assert not np.shares_memory(first, second)
    is_own(first, np.float32)
    assert emulator.statistics().answered["a"] == 1


async def test_a_sparse_model_gives_a_vector_of_the_callers_own(sparse_client: EmbedClient[SparseEmbeddings]) -> None:
    texts = ["alpha beta", "gamma", "alpha beta"]
    calls = [sparse_client.embed_one(text, input_type="passage", parameters={"return_tokens": True}) for text in texts]
    vectors = await asyncio.gather(*calls)
    assert_type(vectors, list[SparseVector])
    rows = await sparse_client.embed(texts, input_type="passage", parameters={"return_tokens": True})
    for vector, row in zip(vectors, rows, strict=True):
        is_own(vector.indices, np.uint32)
        is_own(vector.values, np.float32)
        np.testing.assert_array_equal(vector.indices, row.indices)
        np.testing.assert_array_equal(vector.values, row.values)
        assert vector.tokens == row.tokens
    assert vectors[0].tokens is not vectors[2].tokens


async def test_the_kind_of_an_unknown_models_vectors_is_left_open(emulator: Emulator) -> None:
    client = EmbedClient("llama-text-" + "embed-v2", api_key=emulator.api_key, base_url=emulator.url)
    async with client:
        vector = await client.embed_one("a", input_type="query")
    assert_type(vector, NDArray[np.float32] | SparseVector)
    assert isinstance(vector, np.ndarray)


@pytest.mark.parametrize("start", [asyncio.gather, "group", "nested"])
async def test_a_thousand_concurrent_calls_make_at_most_twelve_requests(
    client: EmbedClient[DenseEmbeddings], emulator: Emulator, start: Any
) -> None:
    texts = [f"query {number}" for number in range(1000)]

    async def nested(text: str) -> NDArray[np.float32]:
        return await asyncio.wait_for(client.embed_one(text, input_type="query"), AGES)

    if start == "group":
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(client.embed_one(text, input_type="query")) for text in texts]
        vectors = [task.result() for task in tasks]
    elif start == "nested":
        vectors = await asyncio.gather(*map(nested, texts))
    else:
        vectors = await asyncio.gather(*(client.embed_one(text, input_type="query") for text in texts))
    assert emulator.statistics().requests <= 12
    statistics = client.statistics()
    assert statistics.joined == 1000
    assert statistics.joined_requests == emulator.statistics().requests
    expected = await client.embed(texts, input_type="query")
    np.testing.assert_array_equal(np.stack(vectors), expected.vectors)


async def test_a_lone_call_does_not_wait_for_others(emulator: Emulator) -> None:
    async with dense_client(emulator, max_delay=AGES) as client:
        for _ in range(3):
            await client.embed_one("a", input_type="query")
        emulator.hold()
        bulk = asyncio.create_task(client.embed(["b"] * 100, input_type="passage"))
        await emulator.wait_for_in_flight(2)
        # Other work of the client is no reason to wait, nor are single calls with other parameters.
        others = [asyncio.create_task(client.embed_one("a", input_type=kind)) for kind in ("query", "passage")]
        await emulator.wait_for_in_flight(4)
        emulator.release()
        await asyncio.gather(bulk, *others)


async def test_calls_made_while_one_is_under_way_go_together_once_it_is_answered(emulator: Emulator) -> None:
    async with dense_client(emulator, max_delay=AGES) as client:
        emulator.hold()
        first = asyncio.create_task(client.embed_one("first", input_type="query"))
        await emulator.wait_for_in_flight(1)
        later = []
        for number in range(5):
            later.append(asyncio.create_task(client.embed_one(f"later {number}", input_type="query")))
            await settle()
        assert emulator.statistics().requests == 1
        emulator.release()
        await asyncio.gather(first, *later)
    assert emulator.statistics().requests == 2


async def test_they_do_not_wait_longer_than_the_delay(emulator: Emulator) -> None:
    async with dense_client(emulator, max_delay=0.001) as client:
        emulator.hold()
        calls = [asyncio.create_task(client.embed_one("first", input_type="query"))]
        await emulator.wait_for_in_flight(1)
        calls.append(asyncio.create_task(client.embed_one("second", input_type="query")))
        await emulator.wait_for_in_flight(2)
        emulator.release()
        await asyncio.gather(*calls)


async def test_calls_with_other_parameters_have_a_request_of_their_own(
    client: EmbedClient[DenseEmbeddings], emulator: Emulator
) -> None:
    calls = [client.embed_one("a", input_type=kind) for kind in ("query", "passage") for _ in range(3)]
    vectors = await asyncio.gather(*calls)
    assert emulator.statistics().requests == 2
    for kind, vector in zip(("query", "passage"), (vectors[0], vectors[3]), strict=True):
        np.testing.assert_array_equal(vector, (await client.embed("a", input_type=kind))[0])


async def test_equal_texts_are_sent_once(client: EmbedClient[DenseEmbeddings], emulator: Emulator) -> None:
    await asyncio.gather(*(client.embed_one(f"text {number % 7}", input_type="query") for number in range(500)))
    assert emulator.statistics().requests == 1
    assert set(emulator.statistics().answered.values()) == {1}
    assert client.statistics().joined == 500


@pytest.mark.parametrize(
    ("text", "options", "kind"),
    [
        (5, {}, InputError),
        (b"a", {}, InputError),
        ({"body": "a"}, {}, InputError),
        (["a"], {}, InputError),
        ("a \ud800", {}, InputError),
        ("a", {"input_type": "document"}, ConfigurationError),
        ("a", {"timeout": 0}, ConfigurationError),
        ("a", {"parameters": {"x": object()}}, ConfigurationError),
    ],
)
async def test_what_cannot_be_sent_is_its_callers_own_error(
    client: EmbedClient[DenseEmbeddings], emulator: Emulator, text: Any, options: dict[str, Any], kind: type[EmbedError]
) -> None:
    options = {"input_type": "query", **options}
    before, refused, after = await gathered(
        [
            client.embed_one("before", input_type="query"),
            client.embed_one(text, **options),
            client.embed_one("after", input_type="query"),
        ]
    )
    assert isinstance(refused, kind)
    assert before.shape == after.shape == (1024,)
    assert emulator.statistics().answered == {"before": 1, "after": 1}


async def test_the_empty_text_is_sent(client: EmbedClient[DenseEmbeddings]) -> None:
    assert (await client.embed_one("", input_type="query")).shape == (1024,)


async def test_texts_that_the_service_refuses_fail_their_callers_alone(emulator: Emulator) -> None:
    emulator.reject = lambda text: "bad" in text
    texts = [f"bad {number}" if number in {3, 40, 41} else f"good {number}" for number in range(60)]
    async with dense_client(emulator) as client:
        outcomes = await gathered([client.embed_one(text, input_type="query") for text in texts])
        good = [text for text in texts if "good" in text]
        expected = dict(zip(good, await client.embed(good, input_type="query"), strict=True))
    errors = []
    for text, outcome in zip(texts, outcomes, strict=True):
        if text in expected:
            np.testing.assert_array_equal(outcome, expected[text])
            is_own(outcome, np.float32)
        else:
            assert isinstance(outcome, InvalidRequestError)
            assert "<input 0>" in outcome.message
            assert outcome.partial is None
            assert [tuple(failure.indices) for failure in outcome.failures] == [(0,)]
            errors.append(outcome)
    assert len({id(error) for error in errors}) == 3


async def test_parameters_that_the_service_refuses_are_found_by_one_probe(emulator: Emulator) -> None:
    emulator.reject = lambda _: True
    async with dense_client(emulator) as client:
        outcomes = await gathered([client.embed_one(str(number), input_type="query") for number in range(50)])
    assert emulator.statistics().requests == 2
    assert all("the cause is the parameters or the model" in error.__notes__[0] for error in outcomes)
    assert len({id(error.__notes__) for error in outcomes}) == 50


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("status=503", ServiceError), ("reset_before_headers", TransportError), ("cut_off_body", TransportError)],
)
async def test_an_error_of_the_request_is_given_to_each_caller_as_its_own(
    emulator: Emulator, fault: str, kind: type[EmbedError]
) -> None:
    emulator.faults = fault
    async with dense_client(emulator, retry=QUICK) as client:
        errors = await gathered([client.embed_one(f"text {number}", input_type="query") for number in range(5)])
    assert [type(error) for error in errors] == [kind] * 5
    assert len({id(error) for error in errors}) == 5
    for error in errors:
        assert error.attempts == 3
        assert error.partial is None
        assert [(tuple(failure.indices), failure.error) for failure in error.failures] == [((0,), error)]
        assert str(copy.copy(error)) == str(error)
        assert error.__context__ is error.__cause__ is None


async def test_an_error_and_its_frames_hold_nobodys_text(emulator: Emulator) -> None:
    texts = [f"the {MARK} is mine", f"the {MARK} is theirs"]
    for fault in ("status=503", "status=400", "status=401", "wrong_count"):
        emulator.faults = fault
        async with dense_client(emulator, retry=QUICK) as client:
            for error in await gathered([client.embed_one(text, input_type="query") for text in texts]):
                assert isinstance(error, EmbedError)
                assert_frames_are_silent(error)
    async with dense_client(emulator) as client:
        with pytest.raises(InputError) as refused:
            await client.embed_one(f"{texts[0]} \ud800", input_type="query")
        assert_frames_are_silent(refused.value)
        with pytest.raises(ConfigurationError) as misused:
            await client.embed_one(texts[0], input_type="query", timeout=-1)
        assert_frames_are_silent(misused.value)


async def test_the_quota_of_a_minute_is_waited_for() -> None:
    quota = ServiceQuota(tokens_per_window=300, window=0.3)
    async with (
        Emulator(quota=quota) as emulator,
        dense_client(emulator, max_batch_size=20, quota=Quota(window=0.3)) as client,
    ):
        calls = [client.embed_one(f"text number {number}", input_type="query") for number in range(150)]
        assert len(await asyncio.gather(*calls)) == 150
        assert client.statistics().rejections > 0
    assert max(emulator.statistics().answered.values()) == 1


async def test_a_limit_of_inputs_told_by_the_service_is_obeyed() -> None:
    from aiohttp import web  # noqa: PLC0415 - only here

    body = {
        "status": 400,
        "error": {"code": "INVALID_ARGUMENT", "message": "Input length '4' exceeded inputs limit of 2 for model 'm'"},
    }
    refused = lambda: web.json_response(body, status=400)  # noqa: E731
    async with Service(refused, last=lambda: dense_answer(1, 2)) as service, service.client(max_batch_size=4) as client:
        for _ in range(2):
            vectors = await asyncio.gather(*(client.embed_one(text) for text in "abcd"))
            assert [vector.tolist() for vector in vectors] == [[1], [2], [1], [2]]
    assert len(service.requests) == 5


# Cancelled, out of time, closed.


async def test_one_callers_cancellation_is_its_own(client: EmbedClient[DenseEmbeddings], emulator: Emulator) -> None:
    emulator.hold()
    calls = [asyncio.create_task(client.embed_one(text, input_type="query")) for text in ("a", "b", "a")]
    await emulator.wait_for_in_flight(1)
    calls[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
    emulator.release()
    assert [(await call).shape for call in calls[1:]] == [(1024,), (1024,)]
    assert emulator.statistics().requests == 1


async def test_a_request_that_nobody_waits_for_any_more_is_cancelled(
    client: EmbedClient[DenseEmbeddings], emulator: Emulator
) -> None:
    emulator.hold()
    calls = [asyncio.create_task(client.embed_one(text, input_type="query")) for text in ("a", "b")]
    await emulator.wait_for_in_flight(1)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert client.statistics().in_flight == 0
    assert not [task for task in asyncio.all_tasks() if "joined" in task.get_name()]
    emulator.release()
    await client.embed_one("after", input_type="query")


async def test_a_timeout_ends_its_own_call_alone(client: EmbedClient[DenseEmbeddings], emulator: Emulator) -> None:
    emulator.hold()
    hurried = asyncio.create_task(client.embed_one("a", input_type="query", timeout=0.05))
    patient = asyncio.create_task(client.embed_one("b", input_type="query"))
    with pytest.raises(DeadlineExceededError, match="before the answer came") as caught:
        await hurried
    assert caught.value.attempts == 1
    assert not patient.done()
    emulator.release()
    assert (await patient).shape == (1024,)


async def test_a_deadline_before_the_next_attempt_is_not_waited_for() -> None:
    async with Service(last=status(503, Retry_After="60")) as service, service.client() as client:
        calls = [client.embed_one(text, timeout=30) for text in ("a", "b")]
        errors = await gathered(calls)
    for error in errors:
        assert isinstance(error, DeadlineExceededError)
        assert "after the deadline of the call; the last attempt failed with ServiceError" in str(error)


async def test_closing_ends_calls_after_those_in_flight_had_their_time(emulator: Emulator) -> None:
    emulator.hold()
    client = dense_client(emulator, max_delay=AGES)
    in_flight = asyncio.create_task(client.embed_one("a", input_type="query"))
    await emulator.wait_for_in_flight(1)
    gathering = asyncio.create_task(client.embed_one("b", input_type="query"))
    await settle()
    closing = asyncio.create_task(client.aclose())
    with pytest.raises(ClosedError, match="before the text was embedded"):
        await gathering
    assert not closing.done()
    emulator.release()
    assert (await in_flight).shape == (1024,)
    await closing
    with pytest.raises(ClosedError):
        await client.embed_one("c", input_type="query")
    async with client:
        assert (await client.embed_one("c", input_type="query")).shape == (1024,)


async def test_closing_ends_a_backoff_at_once() -> None:
    async with Service(last=status(503)) as service:
        retry = RetryPolicy(initial_backoff=600, max_backoff=600, max_elapsed=6000)
        client = service.client(retry=retry, draw=lambda: 1.0)
        calls = [asyncio.create_task(client.embed_one(text)) for text in ("a", "b")]
        while not client.statistics().retries:  # noqa: ASYNC110 - the client tells of it in no other way
            await asyncio.sleep(0)
        await client.aclose()
        for call in calls:
            with pytest.raises(ClosedError) as caught:
                await call
            assert [type(failure.error) for failure in caught.value.failures] == [ServiceError]


async def embed_each(bench: Bench, **options: Any) -> None:
    """Each of the texts by a call of its own, in two requests."""
    async with asyncio.TaskGroup() as group:
        calls = {text: group.create_task(bench.client.embed_one(text, **options)) for text in TEXTS}
    for text, call in calls.items():
        np.testing.assert_array_equal(call.result(), REFERENCE[text])


async def embed_each_until_the_deadline(bench: Bench) -> None:
    outcomes = await gathered([bench.client.embed_one(text, timeout=5) for text in TEXTS])
    for text, outcome in zip(TEXTS, outcomes, strict=True):
        if not isinstance(outcome, DeadlineExceededError):
            np.testing.assert_array_equal(outcome, REFERENCE[text])


Round = Callable[[Bench, int], Awaitable[bool]]


async def with_all_of_them_cancelled(bench: Bench, number: int) -> bool:
    return await cancelled_before_step(bench, number, embed_each)


async def with_the_time_running_out(bench: Bench, number: int) -> bool:
    return await out_of_time_before_step(bench, number, embed_each_until_the_deadline)


async def with_the_time_running_out_and_a_cancellation(bench: Bench, number: int) -> bool:
    return await out_of_time_before_step(bench, number, embed_each_until_the_deadline, cancel=True)


async def with_one_of_them_cancelled(bench: Bench, number: int) -> bool:
    bench.emulator.faults = FirstAttempts()
    calls = {text: asyncio.create_task(bench.client.embed_one(text)) for text in TEXTS}
    doomed = calls.pop(TEXTS[number % len(TEXTS)])
    bench.loop.before_step(number, doomed.cancel)
    await asyncio.wait([doomed, *calls.values()])
    was_pending = bench.loop.forget()
    for text, call in calls.items():
        np.testing.assert_array_equal(await call, REFERENCE[text])
    return not was_pending


async def with_the_client_closed(bench: Bench, number: int) -> bool:
    bench.emulator.faults = FirstAttempts()
    closings: list[asyncio.Task[None]] = []
    calls = {text: asyncio.create_task(bench.client.embed_one(text)) for text in TEXTS}
    bench.loop.before_step(number, lambda: closings.append(asyncio.create_task(bench.client.aclose())))
    await asyncio.wait(calls.values())
    was_pending = bench.loop.forget()
    if closings:
        await asyncio.wait(closings)
    for text, call in calls.items():
        error = call.exception()
        assert error is None or isinstance(error, ClosedError)
        if error is None:
            np.testing.assert_array_equal(call.result(), REFERENCE[text])
    return not was_pending


@pytest.mark.parametrize(
    "happens",
    [
        with_all_of_them_cancelled,
        with_one_of_them_cancelled,
        with_the_time_running_out,
        with_the_time_running_out_and_a_cancellation,
        with_the_client_closed,
    ],
)
@pytest.mark.parametrize("stride", STRIDES)
def test_calls_that_share_requests_leave_nothing_behind_whichever_step_it_happens_before(
    happens: Round, stride: int
) -> None:
    async def main(bench: Bench) -> None:
        async def one(number: int) -> bool:
            # Four texts fill a request; two are sent at the end of the turn.
            bench.client = bench.new_client(max_batch_size=4)
            had_that_many = await happens(bench, number)
            bench.nothing_is_left()
            assert not any(single_calls._sent for single_calls in bench.client._runtime._single_calls.values())
            async with bench.client:
                await bench.the_client_works_on()
                await embed_each(bench)
            await bench.all_is_gone_once_it_is_closed()
            return had_that_many

        await sweep(one, stride)

    in_stepping_loop(main)


# Other loops and processes.


async def test_calls_of_two_loops_do_not_meet(emulator: Emulator, client: EmbedClient[DenseEmbeddings]) -> None:
    async def some(name: str) -> list[NDArray[np.float32]]:
        return await asyncio.gather(*(client.embed_one(f"{name} {number}", input_type="query") for number in range(50)))

    emulator.hold()
    here = asyncio.create_task(some("here"))
    there = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(some("there"))))
    await emulator.wait_for_in_flight(2)
    emulator.release()
    vectors = await here + await there
    assert emulator.statistics().requests == 2
    texts = [f"{name} {number}" for name in ("here", "there") for number in range(50)]
    np.testing.assert_array_equal(np.stack(vectors), (await client.embed(texts, input_type="query")).vectors)
    # The other loop has ended: what belonged to it goes when another comes.
    await asyncio.to_thread(lambda: asyncio.run(some("again")))
    assert len(client._runtime._single_calls) == 2


async def test_a_client_joins_in_a_second_run_and_in_a_forked_child(emulator: Emulator) -> None:
    code = """
async def main():
    rows = await asyncio.gather(*(client.embed_one(text, input_type="query") for text in "abc"))
    # In one write: the child prints at the same time.
    print(f"{[row.shape for row in rows]} {client.statistics().joined}\\n", end="", flush=True)

async def parent():
    call = asyncio.create_task(main())
    await asyncio.sleep(0)
    child = os.fork()
    if child == 0:
        asyncio.events._set_running_loop(None)
        asyncio.run(main())
        os._exit(0)
    await call
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

asyncio.run(main())
asyncio.run(main())
asyncio.run(parent())
"""
    lines = (await run_with_client(emulator, code)).splitlines()
    assert [line.rpartition(" ")[0] for line in lines] == ["[(1024,), (1024,), (1024,)]"] * 4
    assert sorted(line.rpartition(" ")[2] for line in lines) == ["3", "6", "9", "9"]


async def test_a_program_that_is_interrupted_during_a_call_says_nothing_of_it(emulator: Emulator) -> None:
    emulator.hold()
    code = """
async def main():
    calls = [asyncio.create_task(client.embed_one(text, input_type="query")) for text in "abc"]
    while not client.statistics().in_flight:
        await asyncio.sleep(0)
    # `asyncio.run` cancels what is left.
asyncio.run(main())
print(client.statistics().in_flight)
"""
    assert await run_with_client(emulator, code) == "0\n"


class TakingTurns:
    """A cache whose answers take some turns of the event loop."""

    def __init__(self, turns: tuple[int, int]) -> None:
        self._turns = turns
        self._values: dict[bytes, bytes] = {}

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        for _ in range(self._turns[0]):
            await asyncio.sleep(0)
        return [self._values.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        for _ in range(self._turns[1]):
            await asyncio.sleep(0)
        self._values.update(entries)


@pytest.mark.lazy_tasks
@pytest.mark.parametrize("turns", [None, (0, 0), (0, 1), (0, 30), (1, 0), (30, 30)])
async def test_callers_that_ask_again_at_once_share_one_request_a_round(turns: tuple[int, int] | None) -> None:
    rounds, callers = 12, 64
    cache = None if turns is None else TakingTurns(turns)
    async with Emulator() as emulator, dense_client(emulator, max_delay=AGES, cache=cache) as client:

        async def ask(caller: int) -> None:
            for number in range(rounds):
                await client.embed_one(f"text {caller} of round {number}", input_type="query")

        await asyncio.gather(*map(ask, range(callers)))
        assert emulator.statistics().requests == rounds
