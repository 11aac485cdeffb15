"""Parameters of a model as arguments of the client and of its calls, and a quota as a number."""

from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import ConfigurationError, EmbedClient, MockResponse, MockTransport, Quota, SharedQuota
from pinecone_embed_async.emulator import Emulator
from tests.clients import E5, SPARSE

LLAMA = "llama-text-embed-v2"
ARGUMENTS: dict[str, Any] = {"input_type": "query", "dimension": 384, "truncate": "START"}


def recording(sent: list[dict[str, Any]], model: str = LLAMA, **options: Any) -> EmbedClient[Any]:
    def answer(request: Any) -> MockResponse:
        body = request.json()
        sent.append(body["parameters"])
        return MockResponse.embeddings([[0.5] * int(body["parameters"].get("dimension", 8)) for _ in body["inputs"]])

    return EmbedClient(model, **{"api_key": "k", "transport": MockTransport(answer), "look_up_model": False, **options})


async def every_call(client: EmbedClient[Any], **options: Any) -> None:
    await client.embed(["a"], **options)
    await client.embed_one("a", **options)
    async with client.stream(["a"], **options) as batches:
        assert [batch.start async for batch in batches] == [0]


async def test_arguments_of_a_call_are_parameters_of_its_requests() -> None:
    sent: list[dict[str, Any]] = []
    client = recording(sent)
    await every_call(client, **ARGUMENTS)
    await every_call(client, input_type="query", parameters={"dimension": 384, "truncate": "START"})
    await every_call(client, **ARGUMENTS, parameters=ARGUMENTS)
    assert sent == [ARGUMENTS] * 9
    assert client.estimate(["a"], **ARGUMENTS).inputs == 1


async def test_arguments_of_the_client_hold_for_every_call_unless_it_has_its_own() -> None:
    sent: list[dict[str, Any]] = []
    client = recording(sent, **ARGUMENTS)
    await every_call(client)
    assert sent == [ARGUMENTS] * 3
    await every_call(client, dimension=512, input_type="passage")
    assert sent[3:] == [{**ARGUMENTS, "dimension": 512, "input_type": "passage"}] * 3
    await every_call(client, parameters={"dimension": 1024})
    assert sent[6:] == [{**ARGUMENTS, "dimension": 1024}] * 3
    await every_call(recording(sent, parameters={"truncate": "END"}, dimension=768), input_type="query")
    assert sent[9:] == [{"truncate": "END", "dimension": 768, "input_type": "query"}] * 3


@pytest.mark.parametrize("name", ARGUMENTS)
async def test_an_argument_and_a_parameter_that_say_different_things_are_an_error(name: str) -> None:
    sent: list[dict[str, Any]] = []
    other = {"input_type": "passage", "dimension": 512, "truncate": "END"}[name]
    said = f"{name} is passed twice: {ARGUMENTS[name]!r} and, in parameters, {other!r}"
    with pytest.raises(ConfigurationError, match=said):
        await every_call(recording(sent), **{"input_type": "query", name: ARGUMENTS[name]}, parameters={name: other})
    with pytest.raises(ConfigurationError, match=said):
        recording(sent, **{name: ARGUMENTS[name]}, parameters={name: other})
    assert sent == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimension": 500}, r"dimension must be one of 384, 512, 768, 1024, 2048, got 500"),
        ({"dimension": 0}, "dimension must be an integer ≥ 1, got 0"),
        ({"dimension": "512"}, "dimension must be an integer ≥ 1, got '512'"),
        ({"dimension": 512.5}, "dimension must be an integer ≥ 1, got 512.5"),
        ({"dimension": True}, "dimension must be an integer ≥ 1, got True"),
        ({"truncate": "MIDDLE"}, "truncate must be one of 'END', 'START', 'NONE', got 'MIDDLE'"),
        ({"truncate": 5}, "truncate must be a str, got int"),
    ],
)
async def test_a_value_that_the_model_does_not_take_is_refused_before_anything_is_sent(
    options: dict[str, Any], message: str
) -> None:
    sent: list[dict[str, Any]] = []
    with pytest.raises(ConfigurationError, match=message):
        await every_call(recording(sent), input_type="query", **options)
    with pytest.raises(ConfigurationError, match=message):
        await every_call(recording(sent, **options), input_type="query")
    assert sent == []


@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_a_model_that_is_known_to_have_one_dimension_takes_no_other_unless_it_is_a_parameter(model: str) -> None:
    sent: list[dict[str, Any]] = []
    said = f"model '{model}' takes no dimension; if the service now accepts it, pass parameters=" + r"\{'dimension': 512\}"
    with pytest.raises(ConfigurationError, match=said):
        recording(sent, model, dimension=512)
    with pytest.raises(ConfigurationError, match=said):
        await recording(sent, model).embed(["a"], input_type="query", dimension=512)
    assert sent == []
    await recording(sent, E5).embed(["a"], input_type="query", parameters={"dimension": 512})
    assert sent == [{"input_type": "query", "dimension": 512}]


async def test_only_an_answer_shows_the_dimension_if_a_parameter_asks_for_an_unusual_one() -> None:
    result = await recording([], E5).embed(["a"], input_type="query", parameters={"dimension": 512.0})
    assert result.shape == (1, 512)


async def test_a_model_that_is_not_known_takes_anything() -> None:
    sent: list[dict[str, Any]] = []
    client = recording(sent, "a-model", vector_type="dense")
    await every_call(client, dimension=3, truncate="MIDDLE")
    assert sent == [{"dimension": 3, "truncate": "MIDDLE"}] * 3


def test_an_unknown_model_takes_96_inputs_of_2048_tokens() -> None:
    client = recording([], "a-model", vector_type="dense")
    assert [client.estimate(["a"] * count).requests for count in (96, 97)] == [1, 2]
    assert client.estimate("x" * 10_000).tokens == 2048


@pytest.mark.parametrize(("given", "tokens"), [(1, 1), (1024, 1024), (0, 507), ("1024", 507)])
def test_longer_inputs_that_a_parameter_asks_for_are_estimated(given: Any, tokens: int) -> None:
    client = recording([], E5, input_type="query")
    assert client.estimate("x" * 10_000, parameters={"max_tokens_per_sequence": given}).tokens == tokens


async def test_calls_with_equal_parameters_share_what_was_checked_and_others_do_not(emulator: Emulator) -> None:
    async with EmbedClient(LLAMA, api_key=emulator.api_key, base_url=emulator.url, input_type="query") as client:
        shapes = [(await client.embed("a", dimension=size)).shape[1] for size in (384, 512, None, 384, np.int64(512))]  # type: ignore[arg-type]
        assert shapes == [384, 512, 1024, 384, 512]
        assert [len(await client.embed_one("a", dimension=size)) for size in (384, 512, None)] == [384, 512, 1024]


async def test_parameters_that_only_compare_as_equal_are_sent_as_they_are() -> None:
    sent: list[dict[str, Any]] = []
    client = recording(sent, "a-model", vector_type="dense")
    parameters: dict[str, Any] = {"option": 1}
    for option in (1, True, 1.0, 1, "1", None, 2):
        parameters["option"] = option
        await client.embed("a", parameters=parameters)
    assert [repr(each["option"]) for each in sent] == ["1", "True", "1.0", "1", "'1'", "None", "2"]


async def test_a_text_that_is_too_long_is_cut_or_refused_as_the_argument_says(emulator: Emulator) -> None:
    long = "word " * 3000
    async with EmbedClient(LLAMA, api_key=emulator.api_key, base_url=emulator.url, input_type="passage") as client:
        assert (await client.embed(long, truncate="START")).embedded.all()
        refused = await client.embed([long, "short"], truncate="NONE", on_error="return")
        assert refused.embedded.tolist() == [False, True]


@pytest.mark.parametrize("number", [250_000, np.int64(250_000), np.uint32(250_000)])
async def test_a_number_is_a_quota_of_so_many_tokens_a_minute(number: Any, emulator: Emulator) -> None:
    for quota in (number, Quota(250_000), SharedQuota(number)):
        async with EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, quota=quota) as client:
            await client.embed(["a"], input_type="query")
            [statistics] = client.statistics().quotas
            assert (statistics.limit, statistics.source) == (250_000, "given")


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        (0, "quota must be an integer ≥ 1, got 0"),
        (-5, "quota must be an integer ≥ 1, got -5"),
        (250_000.0, 'quota must be "starter", .*a number of tokens per minute, a Quota or a SharedQuota, got float'),
        (True, "got bool"),
        ("250000", "quota must be \"starter\", .* a number of tokens per minute, a Quota or a SharedQuota, got '250000'"),
    ],
)
def test_what_is_no_quota_is_refused(quota: Any, message: str) -> None:
    for make in (lambda: EmbedClient(E5, api_key="k", quota=quota), lambda: SharedQuota(quota)):
        with pytest.raises(ConfigurationError, match=message):
            make()
