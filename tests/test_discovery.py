"""What the service says about a model is asked once, used for splitting and checking, and never a reason to fail."""

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web

from pinecone_embed_async import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedClient,
    InputError,
    ModelInfo,
    ModelParameter,
    NotFoundError,
    SparseEmbeddings,
)
from pinecone_embed_async._models import KNOWN_MODELS, described_model
from pinecone_embed_async.emulator import EmulatedModel, Emulator, Parameter
from tests.clients import QUICK
from tests.service import Service, dense_answer, status

NEW = EmulatedModel(
    "new-model",
    max_batch_size=5,
    max_sequence_length=30,
    default_dimension=8,
    supported_dimensions=(8, 16),
    parameters=(
        Parameter("input_type", "one_of", "string", required=True, allowed_values=("query", "passage")),
        Parameter("dimension", "one_of", "integer", allowed_values=(8, 16), default=8),
        Parameter("strength", "numeric_range", "float", minimum=0, maximum=2, default=1.0),
    ),
)
TEXTS = [f"text number {number}" for number in range(12)]


def client_of(emulator: Emulator, model: str = "new-model", **options: Any) -> EmbedClient[Any]:
    options = {"retry": QUICK, **options}
    return EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url, **options)


async def test_requests_are_split_by_what_the_service_says_after_one_look_up() -> None:
    async with Emulator(models=[NEW]) as emulator, client_of(emulator) as client:
        for _ in range(2):
            await client.embed(TEXTS, input_type="passage")
        async with client.stream(TEXTS, input_type="passage") as batches:
            assert [len(batch) async for batch in batches] == [5, 5, 2]
        await asyncio.gather(*(client.embed_one(text, input_type="passage") for text in TEXTS))
        assert emulator.statistics().by_status == {200: 4 * 3 + 1}
        assert emulator.statistics().model_requests == 1
        told = client.estimate(TEXTS, input_type="passage")
        assert (told.requests, told.over_length) == (3, 0)
        assert client.estimate("x" * 400, input_type="passage").tokens == 30


async def test_a_crowd_asks_once() -> None:
    async with Emulator(models=[NEW]) as emulator, client_of(emulator) as client:
        await asyncio.gather(*(client.embed_one(f"text {number}", input_type="query") for number in range(50)))
        assert emulator.statistics().model_requests == 1
        assert emulator.statistics().requests == 10


async def test_if_the_one_who_asks_is_cancelled_the_next_one_asks() -> None:
    async with Emulator(models=[NEW]) as emulator, client_of(emulator) as client:
        first = asyncio.create_task(client.embed_one("a", input_type="query"))
        second = asyncio.create_task(client.embed_one("b", input_type="query"))
        await asyncio.sleep(0)
        first.cancel()
        await second
        assert first.cancelled()
        with pytest.raises(ConfigurationError, match="from the service's description"):
            await client.embed_one("c", input_type="document")


async def test_parameters_are_checked_before_anything_is_embedded() -> None:
    async with Emulator(models=[NEW]) as emulator:
        for parameters, message in (
            ({}, 'requires input_type: pass input_type="query" or input_type="passage"'),
            ({"input_type": "document"}, "input_type must be one of 'query', 'passage'"),
            ({"input_type": "query", "dimension": 9}, "dimension must be one of 8, 16, got 9"),
            ({"input_type": "query", "strength": 3}, "strength must be from 0 to 2, got 3"),
            ({"input_type": "query", "strength": -0.5}, "strength must be from 0 to 2"),
        ):
            async with client_of(emulator) as client:
                with pytest.raises(ConfigurationError, match=message) as caught:
                    await client.embed(TEXTS, parameters=parameters)
                assert "look_up_model=False" in str(caught.value)
                with pytest.raises(ConfigurationError, match=message):
                    await client.embed_one("a", parameters=parameters)
                with pytest.raises(ConfigurationError, match=message):
                    async with client.stream(TEXTS, parameters=parameters):
                        pass
        assert emulator.statistics().requests == 0
        async with client_of(emulator) as client:
            for dimension in (8, 8.0, 16):
                await client.embed("a", parameters={"input_type": "query", "dimension": int(dimension), "strength": 2})


async def test_the_kind_of_vectors_is_known_before_the_first_answer() -> None:
    model = EmulatedModel("new-sparse", vector_type="sparse")
    async with Emulator(models=[model]) as emulator, client_of(emulator, "new-sparse") as client:
        emulator.inject("wrong_vector_type")
        result = await client.embed("a")
        assert isinstance(result, SparseEmbeddings)
        # The wrong answer was seen to be one.
        assert client.statistics().unreadable_answers == 1


async def test_a_known_model_is_looked_up_only_if_asked_to() -> None:
    optional = Parameter("input_type", "any", "string")
    own = EmulatedModel("multilingual-e5-large", max_batch_size=3, default_dimension=1024, parameters=(optional,))
    async with Emulator(models=[own]) as emulator:
        async with client_of(emulator, own.name, max_batch_size=4) as client:
            await client.embed(TEXTS[:2], input_type="query")
            assert emulator.statistics().model_requests == 0
        async with client_of(emulator, own.name, look_up_model=True) as client:
            # What the service requires counts.
            await client.embed(TEXTS)
            assert emulator.statistics().model_requests == 1
            assert emulator.statistics().requests == 1 + 4


async def test_known_models_are_as_the_service_describes_them(emulator: Emulator) -> None:
    async with client_of(emulator) as client:
        for known in KNOWN_MODELS.values():
            if not known.is_documented:
                continue
            info = await client.describe_model(known.name)
            told = described_model(info)
            assert known.dimension == (info.default_dimension or 0)
            assert known.vector_type == told.vector_type
            assert (known.max_batch_size, known.max_sequence_length) == (told.max_batch_size, told.max_sequence_length)
            assert known.required == told.required
            for name, values in known.choices.items():
                # The service does not list the values of a boolean.
                assert set(values) == set(told.choices.get(name, (True, False)))


async def test_switched_off_nothing_is_asked() -> None:
    async with Emulator(models=[NEW]) as emulator, client_of(emulator, look_up_model=False) as client:
        await client.embed(TEXTS, input_type="query")
        assert emulator.statistics().model_requests == 0


@pytest.mark.parametrize(
    "answer",
    [
        status(500),
        status(429),
        status(404),
        lambda: web.Response(text="<html>"),
        lambda: web.json_response({"model": 5}),
        lambda: web.json_response({"model": "m", "max_batch_size": -1, "max_sequence_length": 0}),
        lambda: web.json_response({"model": "m", "vector_type": "hologram", "supported_parameters": []}),
        lambda: web.json_response({"model": "m", "default_dimension": 77, "vector_type": "dense"}),
    ],
)
async def test_a_look_up_that_fails_or_makes_no_sense_is_no_reason_to_fail(
    answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Service(answer, last=lambda: dense_answer(1.0)) as service:
        async with service.client(look_up_model=None) as client:
            for _ in range(2):
                assert (await client.embed("a")).vectors.tolist() == [[1.0]]
        assert [request.path for request in service.requests] == ["/models/one-number", "/embed", "/embed"]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_debug_log_says_that_a_look_up_failed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pinecone_embed_async")
    async with Service(status(500), last=lambda: dense_answer(1.0)) as service, service.client(look_up_model=None) as client:
        await client.embed("a")
    assert "the service did not describe the model (ServiceError 500); defaults are used" in caplog.messages


async def test_a_service_that_does_not_answer_the_look_up_holds_a_call_up_only_so_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pinecone_embed_async._sending.discovery.LOOK_UP_SECONDS", 0.05)
    caplog.set_level(logging.DEBUG, "pinecone_embed_async")
    never = asyncio.Event()
    asked: asyncio.Queue[None] = asyncio.Queue()

    async def models(_: web.Request) -> web.Response:
        asked.put_nowait(None)
        await never.wait()
        raise AssertionError

    async def embed(_: web.Request) -> web.Response:
        return dense_answer(1.0)

    app = web.Application()
    app.router.add_get("/models/{name}", models)
    app.router.add_post("/embed", embed)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with EmbedClient("m", vector_type="dense", api_key="k", base_url=f"http://127.0.0.1:{port}") as client:
        for _ in range(2):
            assert (await client.embed("a")).vectors.tolist() == [[1.0]]
        assert asked.qsize() == 1
        asked.get_nowait()
    assert "the service did not describe the model within 0.05 s; defaults are used" in caplog.messages
    async with EmbedClient("m", vector_type="dense", api_key="k", base_url=f"http://127.0.0.1:{port}") as client:
        with pytest.raises(DeadlineExceededError):
            await client.embed("a", timeout=0.01)
        # It was the call's time that was over, not the look-up's: the next call asks.
        while not asked.empty():
            asked.get_nowait()
        asking = asyncio.create_task(client.embed("a"))
        async with asyncio.timeout(10):
            await asked.get()
        await client.aclose()
        with pytest.raises(ClosedError):
            await asking
    await runner.cleanup()


async def test_what_is_no_text_or_no_input_at_all_asks_for_nothing() -> None:
    async with Emulator(models=[NEW]) as emulator, client_of(emulator, vector_type="dense") as client:
        assert len(await client.embed([])) == 0
        for call in (client.embed(["a", 5]), client.embed_one(5)):  # type: ignore[list-item, call-overload]
            with pytest.raises(InputError):
                await call
        assert emulator.statistics().by_status == {}


async def test_a_model_that_nobody_knows_is_the_services_to_refuse(emulator: Emulator) -> None:
    async with client_of(emulator, "no/such model") as client:
        with pytest.raises(NotFoundError):
            await client.embed("a")


def parameter(**fields: Any) -> ModelInfo:
    return ModelInfo(model="m", supported_parameters=(ModelParameter(parameter="p", **fields),))


@pytest.mark.parametrize(
    ("info", "good", "bad"),
    [
        (parameter(type="one_of", allowed_values=(1, 2.5)), [1, 1.0, 2.5], [True, "1", 2]),
        (parameter(type="one_of", allowed_values=(2.0,)), [2, 2.0], [3]),
        (parameter(type="one_of", allowed_values=(True,)), [True], [1, 1.0, False]),
        (parameter(type="one_of"), ["anything"], []),
        (parameter(type="numeric_range", min=1), [1, 10**9, "left to the service", True], [0, 0.5]),
        (parameter(type="numeric_range", min=2), [2, True], [1]),
        (parameter(type="numeric_range", max=4.5), [-1, 4.5], [5]),
        (parameter(type="numeric_range"), [0], []),
        (parameter(type="any", required=True), [None], []),
        (ModelInfo(model="m", supported_dimensions=(8,)), [5], []),
    ],
)
def test_descriptions_are_read_as_they_are_meant(info: ModelInfo, good: list[Any], bad: list[Any]) -> None:
    model = described_model(info)
    for value in good:
        model.check({"p": value})
    for value in bad:
        with pytest.raises(ConfigurationError):
            model.check({"p": value})


@pytest.mark.parametrize(
    ("given", "inputs", "tokens"),
    [(None, 96, 2048), (0, 96, 2048), (1, 1, 1), (2**31 - 1, 2**31 - 1, 2**31 - 1), (2**31, 96, 2048)],
)
def test_limits_that_are_missing_or_absurd_are_those_of_an_unknown_model(
    given: int | None, inputs: int, tokens: int
) -> None:
    model = described_model(ModelInfo(model="m", max_batch_size=given, max_sequence_length=given))
    assert (model.max_batch_size, model.max_sequence_length) == (inputs, tokens)


def test_a_model_with_only_a_name_has_the_limits_of_an_unknown_one_and_requires_nothing() -> None:
    named = KNOWN_MODELS["pinecone-sparse-multilingual-v0"]
    assert (named.dimension, named.max_batch_size, named.max_sequence_length) == (0, 96, 2048)
    named.check({})
    assert not named.is_documented


def test_supported_dimensions_are_a_choice_though_no_parameter_says_so() -> None:
    model = described_model(ModelInfo(model="m", supported_dimensions=(8, 16)))
    model.check({"dimension": 16})
    with pytest.raises(ConfigurationError, match="one of 8, 16, got 9"):
        model.check({"dimension": 9})
    described_model(ModelInfo(model="m")).check({"dimension": 9})


def test_the_dimensions_of_a_parameter_count_more_than_the_supported_ones() -> None:
    own = ModelParameter(parameter="dimension", type="one_of", allowed_values=(8,))
    model = described_model(ModelInfo(model="m", supported_dimensions=(16,), supported_parameters=(own,)))
    model.check({"dimension": 8})
    with pytest.raises(ConfigurationError, match="one of 8, got 16"):
        model.check({"dimension": 16})


def test_a_description_is_not_taken_for_the_dimension_of_answers() -> None:
    assert described_model(ModelInfo(model="m", default_dimension=8)).dimension == 0


@pytest.mark.parametrize("name", ["org/model", "ein modell?#%2F", "é"])
async def test_the_name_of_a_model_is_encoded_once_in_a_path(name: str) -> None:
    seen: list[str] = []

    def describe() -> web.Response:
        return web.json_response({"model": name, "type": "embed", "vector_type": "dense"})

    async with Service(describe, describe, last=describe) as service:
        async with EmbedClient(name, api_key="k", base_url=f"{service.url}/at%20home") as client:
            await client.describe_model()
            await client.describe_model("other/model")
        seen = [request.match_info["path"] for request in service.requests]
    assert seen == [f"at home/models/{name}", "at home/models/other/model"]
    assert "%25" not in service.requests[1].raw_path
