"""Transports that a caller passes to a client, and the mock transport."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

import aiohttp
import numpy as np
import pytest

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    MockResponse,
    MockTransport,
    RateLimitError,
    ServiceError,
    TransportError,
    TransportRequest,
)
from tests.clients import QUICK
from tests.clock import FakeClock, settle
from tests.silence import KEY, TEXTS, assert_frames_are_silent, assert_silent

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
    from yarl import URL  # noqa: PLC0415

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
