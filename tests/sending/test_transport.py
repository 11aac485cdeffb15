"""Transports that a caller passes to a client, and the mock transport."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import logging
import weakref
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, ClassVar, cast

import aiohttp
import numpy as np
import pytest
from yarl import URL

from pinecone_embed_async import (
    ApiError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    InputError,
    MockResponse,
    MockTransport,
    Quota,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    ServiceError,
    TransportError,
    TransportRequest,
)
from pinecone_embed_async._errors import ConnectionProblem
from tests.clients import QUICK
from tests.clock import FakeClock, settle
from tests.silence import KEY, TEXTS, assert_frames_are_silent, assert_silent
from tests.wire.reading import NEEDS_NATIVE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


def lengths(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[len(text["text"]), 1.0] for text in request.json()["inputs"]], tokens=7)


def client_over(answer: Callable[[TransportRequest], Any], **options: Any) -> EmbedClient[DenseEmbeddings]:
    options = {"retry": QUICK, "look_up_model": False, **options}
    return EmbedClient("two", vector_type="dense", api_key=KEY, transport=MockTransport(answer), **options)


async def test_a_function_answers_instead_of_a_service() -> None:
    transport = MockTransport(lengths)
    async with EmbedClient(
        "two", vector_type="dense", api_key="k", transport=transport, max_batch_size=2, look_up_model=False
    ) as client:
        result = await client.embed(["a", "bb", "ccc"])
    assert result.vectors.tolist() == [[1, 1], [2, 1], [3, 1]]
    assert result.usage.total_tokens == 14
    # An eager task is sent before the one that began it.
    first = max(transport.requests, key=lambda request: len(request.json()["inputs"]))
    assert (first.method, str(first.url), first.headers["Api-Key"]) == ("POST", "https://api.pinecone.io/embed", "k")
    assert first.json() == {"model": "two", "inputs": [{"text": "a"}, {"text": "bb"}]}


async def test_a_coroutine_function_may_answer_coalesced_calls_and_streams() -> None:
    async def answer(request: TransportRequest) -> MockResponse:
        await asyncio.sleep(0)
        return lengths(request)

    async with client_over(answer) as client:
        one, other = await asyncio.gather(client.embed_one("a"), client.embed_one("bb"))
        assert (one.tolist(), other.tolist()) == ([1, 1], [2, 1])
        async with client.stream(["a", "bb"]) as batches:
            assert [batch.vectors.tolist() async for batch in batches] == [[[1, 1], [2, 1]]]


async def test_error_responses_become_the_clients_errors() -> None:
    answers: list[MockResponse | Exception] = [
        MockResponse.error(503, "UNAVAILABLE", "not now"),
        MockResponse.error(429, "RESOURCE_EXHAUSTED", "too much", headers={"RETRY-AFTER": "0"}),
        TransportError("the line is dead"),
    ]

    def answer(request: TransportRequest) -> MockResponse:
        met = answers.pop(0) if answers else lengths(request)
        if isinstance(met, Exception):
            raise met
        return met

    async with client_over(answer) as client:
        assert len(await client.embed("a")) == 1
        assert client.statistics().attempts == 4
        assert client.statistics().rejections == 1


async def test_a_header_is_found_in_any_case() -> None:
    def answer(_: TransportRequest) -> MockResponse:
        return MockResponse.error(429, "RESOURCE_EXHAUSTED", "no", headers={"ReTrY-aFtEr": "9", "X-Request-ID": "r-1"})

    async with client_over(answer, retry=None) as client:
        with pytest.raises(EmbedError) as caught:
            await client.embed("a", timeout=0.1)
    assert "429" in str(caught.value)
    assert "would start in 9" in str(caught.value)


async def test_bodies_may_come_in_pieces() -> None:
    def answer(request: TransportRequest) -> MockResponse:
        (body,) = lengths(request).pieces()
        return MockResponse(body=[body[:9], b"", body[9:]])

    async with client_over(answer) as client:
        np.testing.assert_array_equal((await client.embed("abc")).vectors, [[3, 1]])


async def test_the_unread_rest_of_too_large_an_answer_is_discarded() -> None:
    async with client_over(lambda _: MockResponse(body=[b"x" * 600] * 10), max_answer_bytes=1000) as client:
        with pytest.raises(EmbedError, match="larger than max_answer_bytes"):
            await client.embed("a")


async def test_an_answer_may_be_just_as_large_as_allowed() -> None:
    (body,) = MockResponse.embeddings([[1.0]]).pieces()
    for limit, is_refused in ((len(body), False), (len(body) - 1, True)):
        async with client_over(lambda _: MockResponse(body=body), max_answer_bytes=limit) as client:
            result = await client.embed("a", on_error="return")
        assert bool(result.failures) is is_refused


async def iterations_of(pieces: int) -> int:
    """Event loop iterations of a call whose answer comes in so many pieces at once."""

    def answer(request: TransportRequest) -> MockResponse:
        body = b" " * 1000 + lengths(request).pieces()[0]
        return MockResponse(body=[*(body[at : at + 1] for at in range(pieces - 1)), body[pieces - 1 :]])

    async with client_over(answer) as client:
        call, iterations = asyncio.create_task(client.embed("a")), 0
        while not call.done():
            iterations += 1
            await asyncio.sleep(0)
        assert (await call).vectors.tolist() == [[1, 1]]
    return iterations


async def test_an_answer_in_many_pieces_yields_to_the_loop_after_every_256() -> None:
    one = await iterations_of(1)
    assert [await iterations_of(pieces) - one for pieces in (255, 256, 511, 512)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (TimeoutError(), "no complete answer within 7 s"),
        (TimeoutError("mine"), "TimeoutError: mine"),
        (OSError("broken"), "OSError: broken"),
        (OSError(), "OSError:"),
        (TransportError("the line is dead"), "the line is dead"),
    ],
)
async def test_what_a_transport_raises_is_told(fault: Exception, told: str) -> None:
    def answer(_: TransportRequest) -> MockResponse:
        raise fault

    async with client_over(answer, attempt_timeout=7) as client:
        with pytest.raises(TransportError) as caught:
            await client.embed("a")
    assert caught.value.message == told


@pytest.mark.parametrize(("status", "kind"), [(201, ResponseError), (299, ResponseError), (300, ApiError), (199, ApiError)])
async def test_only_a_status_of_success_can_be_an_unreadable_answer(status: int, kind: type[EmbedError]) -> None:
    async with client_over(lambda _: MockResponse(status)) as client:
        with pytest.raises(kind, match=f"HTTP {status}"):
            await client.embed("a")


@pytest.mark.parametrize("fault", [KeyError("k"), OSError("o"), TimeoutError(), TimeoutError("mine"), ValueError(KEY)])
async def test_any_exception_of_a_transport_becomes_a_transport_error_without_secrets(fault: Exception) -> None:
    def answer(_: TransportRequest) -> MockResponse:
        raise fault

    async with client_over(answer) as client:
        with pytest.raises(TransportError) as caught:
            await client.embed(TEXTS)
    assert_silent(caught.value, "the error")
    assert_frames_are_silent(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.attempts == QUICK.max_attempts


class Refusing:
    """Answers 401; the test decides what happens to the body."""

    status = 401
    headers: ClassVar = {"X-Request-Id": "seven"}

    def __init__(self, becomes: Callable[[], Awaitable[bytes]], *, pieces: int = 1) -> None:
        self.becomes = becomes
        self.pieces = [b'{"status": 401, "error": {"code": "UNAUTHENTICATED", "message": "no such key"}}'][:pieces]
        self.sent = 0

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[Any]:
        assert request.method == "POST"
        self.sent += 1
        yield self

    async def read(self) -> bytes:
        return self.pieces.pop() if self.pieces else await self.becomes()


async def stalls() -> bytes:
    never: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    return await never


async def breaks() -> bytes:
    raise OSError("broken")


async def is_cancelled() -> bytes:
    raise asyncio.CancelledError


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize("becomes", [stalls, breaks, is_cancelled])
async def test_the_status_of_an_error_counts_whatever_happens_to_its_body(
    becomes: Callable[[], Awaitable[bytes]], pieces: int
) -> None:
    transport = Refusing(becomes, pieces=pieces)
    # Shorter than the wait for an error's body.
    client = EmbedClient(
        "two", vector_type="dense", api_key=KEY, transport=transport, attempt_timeout=0.05, look_up_model=False, retry=QUICK
    )
    said = "no such key" if pieces else "HTTP 401 with no error message"
    async with client:
        with pytest.raises(AuthenticationError, match=said) as caught:
            await client.embed("a")
    assert (caught.value.request_id, transport.sent) == ("seven", 1)


async def test_the_body_of_an_error_is_read_for_five_seconds() -> None:
    clock = FakeClock()
    client = EmbedClient(
        "two", vector_type="dense", api_key=KEY, transport=Refusing(stalls), look_up_model=False, retry=QUICK, clock=clock
    )
    async with client:
        call = asyncio.create_task(client.embed("a"))
        await settle()
        clock.advance(4.9)
        await settle()
        assert not call.done()
        clock.advance(0.1)
        with pytest.raises(AuthenticationError, match="no such key"):
            await call


async def test_the_body_of_an_error_is_read_only_a_little_beyond_64_kilobytes() -> None:
    pieces: list[bytes] = []

    async def goes_on() -> bytes:
        pieces.append(b"x" if pieces else b"x" * 65_536)
        return pieces[-1]

    async with EmbedClient(
        "two", vector_type="dense", api_key=KEY, transport=Refusing(goes_on, pieces=0), look_up_model=False
    ) as client:
        with pytest.raises(AuthenticationError):
            await client.embed("a")
    assert len(pieces) == 2


async def test_a_cancellation_while_an_errors_body_is_read_is_the_callers() -> None:
    is_reading = asyncio.Event()

    async def stalls_after_saying_so() -> bytes:
        is_reading.set()
        return await stalls()

    async with EmbedClient(
        "two", vector_type="dense", api_key=KEY, transport=Refusing(stalls_after_saying_so), look_up_model=False
    ) as client:
        call = asyncio.create_task(client.embed("a"))
        await is_reading.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_the_status_of_an_error_counts_even_if_discarding_its_body_fails() -> None:
    class Clumsy(MockTransport):
        @contextlib.asynccontextmanager
        async def send(self, request: TransportRequest) -> AsyncIterator[Any]:
            async with super().send(request) as response:
                yield response
            raise OSError("cannot be closed")

    transport = Clumsy(lambda _: MockResponse.error(401, "UNAUTHENTICATED", "no such key"))
    async with EmbedClient("two", vector_type="dense", api_key=KEY, transport=transport, look_up_model=False) as client:
        with pytest.raises(AuthenticationError, match="no such key"):
            await client.embed("a")


class Hanging:
    """Never answers, and counts the waiting requests."""

    def __init__(self) -> None:
        self.waiting = 0
        self.is_waiting = asyncio.Event()

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[Any]:
        self.waiting += 1
        self.is_waiting.set()
        try:
            await asyncio.get_running_loop().create_future()
            yield request
        finally:
            self.waiting -= 1


async def test_closing_the_client_ends_requests_that_hang_in_a_transport() -> None:
    transport = Hanging()
    client = EmbedClient("two", vector_type="dense", api_key="k", transport=transport, look_up_model=False)
    call = asyncio.create_task(client.embed("a"))
    await transport.is_waiting.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert transport.waiting == 0
    transport.is_waiting.clear()
    models = asyncio.create_task(client.list_models())
    await transport.is_waiting.wait()
    await client.aclose()
    with pytest.raises(ClosedError):
        await models
    assert transport.waiting == 0


class Dawdling:
    """Never answers, and closes slowly."""

    def __init__(self) -> None:
        self.waiting = 0
        self.is_closing = asyncio.Event()
        self.may_close = asyncio.Event()

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[Any]:
        self.waiting += 1
        try:
            await asyncio.get_running_loop().create_future()
            yield request
        finally:
            self.is_closing.set()
            await self.may_close.wait()


async def test_closing_the_client_ends_all_requests_in_flight_beside_an_attempt_that_is_timing_out() -> None:
    transport, clock = Dawdling(), FakeClock()
    client = EmbedClient("two", vector_type="dense", api_key="k", transport=transport, clock=clock, attempt_timeout=60)
    calls = []
    for number in range(1, 3):
        calls.append(asyncio.create_task(client.list_models()))
        await settle()
        assert transport.waiting == number
        clock.advance(30)
    # The first has been for 60 s.
    await transport.is_closing.wait()
    try:
        await client.aclose()
    finally:
        transport.may_close.set()
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [ClosedError, ClosedError]


def test_an_invalid_transport_is_rejected() -> None:
    with pytest.raises(ConfigurationError, match="transport must have send, as MockTransport has, got str"):
        EmbedClient("two", api_key="k", transport="http")  # type: ignore[call-overload]


async def test_a_session_beside_a_transport_is_rejected() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError, match="either session or transport"):
            EmbedClient("two", api_key="k", transport=MockTransport(lengths), session=session)


def test_a_request_shows_neither_key_nor_texts() -> None:
    request = TransportRequest("POST", URL("https://a/embed"), {"Api-Key": KEY}, TEXTS[0].encode())
    assert_silent(repr(request), "the repr")


async def test_one_client_with_a_transport_works_in_several_loops() -> None:
    client = client_over(lengths)

    def other() -> int:
        return len(asyncio.run(client.embed(["a"] * 3)))

    assert await asyncio.to_thread(other) == 3
    assert len(await client.embed("a")) == 1
    await client.aclose()


async def test_the_services_error_for_a_failing_model_look_up_comes_through_a_transport() -> None:
    async with client_over(lambda _: MockResponse.error(500, "INTERNAL", "broken")) as client:
        with pytest.raises(ServiceError, match="broken"):
            await client.list_models()


async def test_a_rejection_for_the_month_is_final() -> None:
    text = "You've reached the embedding token limit (5) for model two for the current month."
    async with client_over(lambda _: MockResponse.error(429, "RESOURCE_EXHAUSTED", text)) as client:
        with pytest.raises(EmbedError) as caught:
            await client.embed("a")
    assert not isinstance(caught.value, RateLimitError)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 505, 520])
async def test_the_statuses_of_an_overload_lower_the_limit_of_requests_in_flight(status: int) -> None:
    async with client_over(lambda _: MockResponse(status), retry=RetryPolicy(max_attempts=1)) as client:
        with pytest.raises(ApiError):
            await client.embed("a")
        assert (client.statistics().concurrency < 8) is (status in (502, 503, 504))


async def test_a_pause_is_logged_with_its_length(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    rejection = MockResponse.error(429, "RESOURCE_EXHAUSTED", "no", headers={"Retry-After": "9"})
    async with client_over(lambda _: rejection, draw=lambda: 0.0, retry=RetryPolicy(max_elapsed=1)) as client:
        with pytest.raises(RateLimitError):
            await client.embed("a")
    pauses = [message for message in caplog.messages if "pause" in message]
    assert pauses == ["the service's rate limit is reached; all requests under it pause for 9.0 s"]


async def test_the_last_rejection_names_the_wait_even_if_the_service_asked_for_none() -> None:
    rejection = MockResponse.error(429, "RESOURCE_EXHAUSTED", "no")
    policy = RetryPolicy(max_elapsed=0, initial_backoff=4)
    async with client_over(lambda _: rejection, draw=lambda: 0.5, retry=policy, clock=FakeClock()) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.embed("a")
    assert caught.value.retry_after == 2


async def test_an_answer_that_names_no_usage_counts_no_tokens() -> None:
    answer = MockResponse(json={"model": "m", "vector_type": "dense", "data": [{"values": [1.0]}]})
    async with client_over(lambda _: answer) as client:
        await client.embed("a")
        statistics = client.statistics()
    assert (statistics.answers, statistics.inputs, statistics.tokens) == (1, 1, 0)
    async with client_over(lengths) as client:
        await client.embed(["a", "bb"])
        statistics = client.statistics()
    assert (statistics.answers, statistics.inputs, statistics.tokens) == (1, 2, 7)


class Torn:
    """Breaks off its first answers in the middle."""

    status = 200
    headers: ClassVar[dict[str, str]] = {}

    def __init__(self, times: int) -> None:
        self.times = times
        self.pieces: list[bytes] = []

    @contextlib.asynccontextmanager
    async def send(self, request: TransportRequest) -> AsyncIterator[Any]:
        self.pieces = [b'{"models"', b": []}"]
        yield self

    async def read(self) -> bytes:
        if self.times and len(self.pieces) == 1:
            self.times -= 1
            raise TransportError("cut off")
        return self.pieces.pop(0) if self.pieces else b""


async def test_a_look_up_of_models_whose_answer_breaks_off_begins_again() -> None:
    client = EmbedClient("two", api_key=KEY, transport=Torn(times=2), look_up_model=False, retry=QUICK)
    async with client:
        assert await client.list_models() == []
        statistics = client.statistics()
    assert (statistics.retries, statistics.in_flight, statistics.retry_budget) == (2, 0, 99)


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_service_that_has_answered_a_look_up_of_models_is_set_up_correctly(is_known: bool) -> None:
    def answer(request: TransportRequest) -> MockResponse:
        if request.method == "GET":
            return MockResponse(json={"models": []})
        raise TransportError("not trusted", problem=ConnectionProblem.SETUP)

    clock = FakeClock()
    async with client_over(answer, retry=None, clock=clock) as client:
        if is_known:
            await client.list_models()
        call = asyncio.create_task(client.embed("a"))
        while not call.done():
            await settle()
            clock.advance(1)
        error = call.exception()
    assert isinstance(error, TransportError)
    assert error.attempts == (8 if is_known else 1)
    assert error.ends_job is not is_known


async def test_a_model_is_looked_up_again_after_an_error_and_its_name_is_escaped_once() -> None:
    transport = MockTransport(lambda _: MockResponse.error(503, "UNAVAILABLE", "not now"))
    async with EmbedClient("two", api_key=KEY, transport=transport, look_up_model=False, retry=QUICK) as client:
        with pytest.raises(ServiceError):
            await client.describe_model("a/b c")
        assert client.statistics().in_flight == 0
    assert [request.url.raw_path for request in transport.requests] == ["/models/a%2Fb%20c"] * 3


def test_the_limit_of_requests_in_flight_is_the_lowest_of_all_open_event_loops() -> None:
    answers = [MockResponse(503)]
    client = client_over(lambda request: answers.pop() if answers else lengths(request), max_concurrency=8)
    loops = [asyncio.new_event_loop() for _ in range(2)]
    try:
        lowered = []
        for loop in loops:
            loop.run_until_complete(client.embed("a"))
            lowered.append(client.statistics().concurrency)
        assert lowered[0] == lowered[1] < 8
    finally:
        for loop in loops:
            loop.run_until_complete(client.aclose())
            loop.close()


async def own_loop(client: EmbedClient[DenseEmbeddings]) -> weakref.ref[asyncio.AbstractEventLoop]:
    await client.embed("a")
    await client.embed_one("a")
    return weakref.ref(asyncio.get_running_loop())


def test_a_client_keeps_no_event_loop_that_is_closed() -> None:
    client = client_over(lengths)
    loops = [asyncio.run(own_loop(client)) for _ in range(3)]
    gc.collect()
    assert [loop() is None for loop in loops[:2]] == [True, True]


@pytest.mark.parametrize(("decoder", "places"), [("msgspec", 1), pytest.param("native", 2, marks=NEEDS_NATIVE)])
async def test_as_many_answers_are_decoded_at_a_time_as_the_decoder_can(decoder: Any, places: int) -> None:
    async with client_over(lengths, decoder=decoder) as client:
        state = await client._runtime.engine.network.open()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(places):
            assert repr(state.decode_gate) == "<DecodeGate>"
            await stack.enter_async_context(state.decode_gate.passing("interactive"))
        assert repr(state.decode_gate) == "<DecodeGate, full>"


async def test_an_input_may_have_as_many_tokens_as_the_whole_quota() -> None:
    # At least two tokens, which are the model's own.
    async with client_over(lengths, quota=Quota(2)) as client:
        assert len(await client.embed("ab")) == 1
    async with client_over(lengths, quota=Quota(1)) as client:
        result = await client.embed(["ab", "cd"], on_error="return")
    errors = [failure.error for failure in result.failures]
    assert [error.index for error in errors if isinstance(error, InputError)] == [0, 1]
    assert str(errors[1]).startswith("input 1 has about ")


@pytest.mark.parametrize(
    "options",
    [{"headers": [("a", "b")]}, {"headers": 7}, {"body": 7}, {"body": ["text"]}, {"status": "200"}, {"json": {1, 2}}],
)
def test_a_response_that_cannot_be_made_is_rejected(options: Any) -> None:
    with pytest.raises(ConfigurationError):
        MockResponse(**options)


def test_only_a_function_can_answer() -> None:
    with pytest.raises(ConfigurationError, match="handler"):
        MockTransport("answer")  # type: ignore[arg-type]


def test_a_request_cannot_be_changed() -> None:
    request = TransportRequest("GET", URL("https://a"), {})
    with pytest.raises(FrozenInstanceError):
        request.method = "POST"  # type: ignore[misc]


async def test_a_transport_may_copy_a_request_and_change_its_headers() -> None:
    def answer(request: TransportRequest) -> MockResponse:
        assert "traceparent" not in request.headers
        assert copy.deepcopy(request) == request
        cast("dict[str, str]", request.headers)["traceparent"] = "00-1"
        return MockResponse.embeddings([[0.5] * 1024])

    transport = MockTransport(answer)
    async with EmbedClient("multilingual-e5-large", api_key="any", transport=transport, max_batch_size=1) as client:
        await client.embed(["a", "b"], input_type="passage")
    assert [request.headers["traceparent"] for request in transport.requests] == ["00-1"] * 2
