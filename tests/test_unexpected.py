"""What nobody foresaw inside one request fails that request's inputs, and nothing else."""

import asyncio
import contextlib
import copy
import json
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from pinecone_embed_async import DenseEmbeddings, EmbedClient, EmbedError
from pinecone_embed_async._models import DEFAULT_MAX_BATCH_SIZE, DEFAULT_MAX_SEQUENCE_LENGTH
from pinecone_embed_async._planning import Learned, Load, PlannedRequest, RequestPlanner
from pinecone_embed_async._sending import attempts as _engine
from pinecone_embed_async.emulator import Emulator
from tests.clients import QUICK, dense_client
from tests.service import Service

TEXTS = [f"text number {number}" for number in range(6)]
BAD = TEXTS[2]
SAID = f"cannot learn from {BAD!r} with the key pcsk_secret"


class BugError(Exception):
    """Of a type of its own, which takes no message."""

    def __str__(self) -> str:
        return SAID


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """Raised when the client learns from the acceptance of a request with the bad text."""
    bugs: list[BaseException] = [OverflowError(SAID)]
    requests: list[PlannedRequest] = []
    embedded = RequestPlanner.embedded

    def note(self: RequestPlanner, request: PlannedRequest) -> None:
        requests.append(request)
        embedded(self, request)

    def learn(self: Learned, load: Load, parameters: bytes) -> None:
        if BAD in requests[-1].texts:
            raise bugs[0]

    monkeypatch.setattr(RequestPlanner, "embedded", note)
    monkeypatch.setattr(Learned, "accepted", learn)
    return bugs


def client_of(emulator: Emulator) -> EmbedClient[DenseEmbeddings]:
    return dense_client(emulator, parameters={"input_type": "passage"}, retry=QUICK, max_batch_size=2)


def check(error: EmbedError, kind: str) -> None:
    assert type(error) is EmbedError
    assert kind in str(error)
    assert error.__cause__ is not None
    told = error, error.__cause__, copy.copy(error)
    for shown in (text for one in told for text in (str(one), repr(one))):
        assert BAD not in shown
        assert "pcsk_secret" not in shown
    assert error.__cause__.__traceback__ is None


@pytest.mark.parametrize(
    "fault", [OverflowError(SAID), BugError(), KeyError(SAID), ExceptionGroup(SAID, [ValueError(SAID)])]
)
async def test_an_exception_inside_a_request_fails_its_inputs_and_keeps_the_rest(
    bug: list[BaseException], fault: Exception
) -> None:
    bug[0] = fault
    async with Emulator(api_key="pcsk_secret") as emulator, client_of(emulator) as client:
        result = await client.embed(TEXTS, on_error="return")
        (failure,) = result.failures
        assert list(failure.indices) == [2, 3]
        assert result.embedded.tolist() == [True, True, False, False, True, True]
        assert np.isfinite(result.vectors[[0, 1, 4, 5]]).all()
        check(failure.error, type(fault).__name__)
        assert "in embedded" in str(failure.error)  # where it was raised, or was last seen in the package
        with pytest.raises(EmbedError) as caught:
            await client.embed(TEXTS)
        check(caught.value, type(fault).__name__)
        assert caught.value.partial is not None


async def test_an_exception_while_an_acceptance_is_learned_from_keeps_no_permit(bug: list[BaseException]) -> None:
    async with (
        Emulator(api_key="pcsk_secret") as emulator,
        dense_client(emulator, parameters={"input_type": "passage"}, max_concurrency=1) as client,
        asyncio.timeout(10),
    ):
        with pytest.raises(EmbedError):
            await client.embed(BAD)
        assert client.statistics().in_flight == 0
        assert len(await client.embed(TEXTS[0])) == 1


async def test_an_exception_while_a_request_is_encoded_shows_no_secret_and_costs_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def encode(*_: object) -> bytes:
        raise ValueError(SAID)

    monkeypatch.setattr(_engine, "encode_request", encode)
    async with Emulator(api_key="pcsk_secret") as emulator, client_of(emulator) as client:
        with pytest.raises(EmbedError) as caught:
            await client.embed(BAD)
        statistics = client.statistics()
    assert (statistics.attempts, statistics.in_flight, [quota.used for quota in statistics.quotas]) == (0, 0, [0])
    check(caught.value, "ValueError")
    assert "'<input 0>' with the key <api key>" in str(caught.value)


async def test_a_builtin_exception_is_chained_as_its_own_type(bug: list[BaseException]) -> None:
    async with Emulator(api_key="pcsk_secret") as emulator, client_of(emulator) as client:
        with pytest.raises(EmbedError) as caught:
            await client.embed(BAD)
        assert type(caught.value.__cause__) is OverflowError
        assert "<input 0>" in str(caught.value.__cause__)


async def test_the_batches_of_a_stream_without_it_are_delivered(bug: list[BaseException]) -> None:
    async with (
        Emulator(api_key="pcsk_secret") as emulator,
        client_of(emulator) as client,
        client.stream(TEXTS, on_error="return") as batches,
    ):
        embedded = {batch.start: batch.embeddings.embedded.all() async for batch in batches}
    assert embedded == {0: True, 2: False, 4: True}


async def test_a_single_call_is_told_by_an_error_of_its_own(bug: list[BaseException]) -> None:
    async with Emulator(api_key="pcsk_secret") as emulator, client_of(emulator) as client:
        with pytest.raises(EmbedError) as caught:
            await client.embed_one(BAD)
        check(caught.value, "OverflowError")
        assert (await client.embed_one(TEXTS[0])).shape == (1024,)


async def test_a_builtin_exception_that_needs_more_than_a_message_is_told_too(bug: list[BaseException]) -> None:
    bug[0] = UnicodeDecodeError("utf-8", b"\xff", 0, 1, SAID)
    async with Emulator(api_key="pcsk_secret") as emulator, client_of(emulator) as client, asyncio.timeout(10):
        for call in (client.embed_one(BAD), client.embed(BAD)):
            with pytest.raises(EmbedError) as caught:
                await call
            check(caught.value, "UnicodeDecodeError")
            assert "UnicodeDecodeError" in str(caught.value.__cause__)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_passes(bug: list[BaseException], end: type[BaseException]) -> None:

    bug[0] = end()

    async def main() -> None:
        async with Emulator(api_key="pcsk_secret") as emulator, client_of(emulator) as client:
            # asyncio lets it out at once, and raises it here again while the loop is closed.
            with contextlib.suppress(end):
                await client.embed(TEXTS)

    with pytest.raises(end):
        asyncio.run(main())


@pytest.mark.parametrize("total", ["1" + "0" * 309, "1" + "0" * 5000, str(2**60), "-1", "1e309", "true", "[]"])
async def test_a_bill_that_is_no_sensible_number_is_none(total: str) -> None:
    body = (
        json.dumps({"model": "m", "vector_type": "dense", "data": [{"values": [1.0]}]})[:-1]
        + f', "usage": {{"total_tokens": {total}}}}}'
    )
    async with (
        Service(last=lambda: web.Response(text=body, content_type="application/json")) as service,
        service.client() as client,
    ):
        result = await client.embed(["a"])
        assert (result.usage.total_tokens, result.usage.unreported) == (0, 1)
        assert (await client.embed_one("a")).tolist() == [1.0]


@pytest.mark.parametrize("figure", [2**31, 10**309])
async def test_figures_of_a_description_that_make_no_sense_are_not_used(figure: int) -> None:
    described: dict[str, Any] = {"model": "one-number", "type": "embed", "vector_type": "dense"}
    described |= {"max_batch_size": figure, "max_sequence_length": figure, "default_dimension": figure}
    async with (
        Service(lambda: web.json_response(described)) as service,
        service.client(look_up_model=True) as client,
    ):
        assert (await client.embed(["a"])).vectors.tolist() == [[1.0]]
        assert client.estimate("x" * 100_000).tokens == DEFAULT_MAX_SEQUENCE_LENGTH
        assert client.estimate(["a"] * (DEFAULT_MAX_BATCH_SIZE + 1)).requests == 2
