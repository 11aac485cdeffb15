"""What the arguments of the public callables may be, and what is said of those that cannot work."""

import enum
import math
import ssl
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import (
    ConfigurationError,
    EmbedClient,
    EmbedError,
    MockResponse,
    MockTransport,
    Quota,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    RetryPolicy,
    SharedQuota,
    SparseEmbeddings,
    SqliteCache,
    SqliteQuota,
    Usage,
)
from pinecone_embed_async._options import call_options
from pinecone_embed_async._statistics import ProgressBar
from pinecone_embed_async.emulator import Emulator
from tests.clients import E5

LLAMA = "llama-text-embed-v2"


class Nothing:
    """Is of use for no argument, and has no repr."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def client_with(**options: Any) -> EmbedClient[Any]:
    return EmbedClient(**{"model": E5, "api_key": "k", **options})


NO_TEXTS: list[Any] = [5, b"bytes", ["text"], Nothing(), True]
NO_NUMBERS: list[Any] = [0, -1, "8", None, True, math.nan, math.inf, [], Nothing(), np.bool_(True), 1j]
CLIENT_ARGUMENTS: dict[str, list[Any]] = {
    "model": [*NO_TEXTS, "", None, "..", "a\udc80"],
    "vector_type": [*NO_TEXTS, "", "thick"],
    "api_key": NO_TEXTS,
    "base_url": [*NO_TEXTS, 0, [], "ftp://host"],
    "api_version": [*NO_TEXTS, None, "", "2025 10"],
    "input_type": NO_TEXTS,
    "dimension": [*(value for value in NO_NUMBERS if value is not None), 1.5, 512],
    "truncate": NO_TEXTS,
    "parameters": [5, "text", ["input_type"], {5: "a"}, Nothing(), {"a": math.nan}, {"a": [np.float32("inf")]}],
    "quota": [0, -1, 1.5, True, [], "golden", Nothing(), SqliteCache, SqliteQuota],
    "retry": [5, "often", RetryPolicy],
    "max_concurrency": [*NO_NUMBERS, 1.5],
    "max_batch_size": [*(value for value in NO_NUMBERS if value is not None), 1.5],
    "max_answer_bytes": [*NO_NUMBERS, 1.5],
    "attempt_timeout": [*NO_NUMBERS, 10**400],
    "connect_timeout": NO_NUMBERS,
    "max_delay": NO_NUMBERS,
    "session": [5, "session", Nothing()],
    "ssl_context": [5, "context", Nothing()],
    "transport": [5, Nothing()],
    "source_tag": [*NO_TEXTS, "", "a/b"],
    "allow_http": ["no", None, 1, []],
    "decoder": [*NO_TEXTS, "", "json"],
    "hooks": [5, [5], None],
    "cache": [5, Nothing(), SqliteCache],
    "look_up_model": ["no", 1, []],
    "clock": [5, Nothing()],
    "draw": [5, None],
    "executor": [5, Nothing()],
}


@pytest.mark.parametrize("name", CLIENT_ARGUMENTS)
def test_an_argument_of_a_client_that_cannot_work_is_refused_by_its_name(name: str) -> None:
    for value in CLIENT_ARGUMENTS[name]:
        with pytest.raises(ConfigurationError) as caught:
            client_with(**{name: value})
        word = {"api_key": "API key", "hooks": "hook", "parameters": "parameter"}.get(name, name)
        assert word in str(caught.value).replace("api_key", "API key"), (value, str(caught.value))
        assert isinstance(caught.value, ValueError)


CALLS: dict[str, dict[str, list[Any]]] = {
    "embed": {
        "input_type": [*NO_TEXTS, "document"],
        "dimension": [*(value for value in NO_NUMBERS if value is not None), 1.5, 512],
        "truncate": [*NO_TEXTS, "MIDDLE"],
        "parameters": [5, "text", [1], {5: "a"}, {"dimension": math.nan}],
        "timeout": [value for value in NO_NUMBERS if value is not None],
        "on_error": [*NO_TEXTS, None, "ignore", np.array(["raise", "return"])],
        "dedupe": ["no", 1, None, np.array([True, False])],
        "progress": [5, "yes", 1, np.array([True])],
        "priority": [*NO_TEXTS, None, "high", np.array(["bulk"])],
    },
    "embed_one": {
        "input_type": NO_TEXTS,
        "dimension": [0, "8", 512],
        "truncate": NO_TEXTS,
        "parameters": [5, {5: "a"}],
        "timeout": [value for value in NO_NUMBERS if value is not None],
        "priority": [*NO_TEXTS, None, "high"],
    },
    "stream": {
        "text": [5, "body"],
        "window": [*(value for value in NO_NUMBERS if value is not None), 1.5],
        "input_type": NO_TEXTS,
        "dimension": [0, "8", 512],
        "truncate": NO_TEXTS,
        "parameters": [5, {5: "a"}],
        "timeout": [value for value in NO_NUMBERS if value is not None],
        "on_error": [*NO_TEXTS, None, "ignore"],
        "priority": [*NO_TEXTS, None, "high"],
        "progress": [5, "yes", 1, np.array([True])],
        "max_delay": NO_NUMBERS,
    },
    "estimate": {
        "input_type": NO_TEXTS,
        "dimension": [0, "8", 512],
        "truncate": NO_TEXTS,
        "parameters": [5, {5: "a"}],
        "dedupe": ["no", 1, None],
    },
    "describe_model": {"name": [*NO_TEXTS, "", "..", "a\udc80"]},
}


@pytest.mark.parametrize(("call", "name"), [(call, name) for call, names in CALLS.items() for name in names])
async def test_an_argument_of_a_call_that_cannot_work_is_refused_before_anything_is_sent(
    call: str, name: str, emulator: Emulator
) -> None:
    async with EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url) as client:
        for value in CALLS[call][name]:
            arguments: dict[str, Any] = {} if call == "describe_model" else {"input_type": "passage"}
            inputs: tuple[Any, ...] = () if call == "describe_model" else (("a",) if call == "embed_one" else (["a"],))
            with pytest.raises(ConfigurationError, match=name.rstrip("s")):
                result: Any = getattr(client, call)(*inputs, **{**arguments, name: value})
                if hasattr(result, "__await__"):
                    await result
    assert emulator.statistics().requests == 0


DEMAND: dict[str, Any] = {"model": "m", "input_type": "", "tokens": 10, "least": 1}
OUTCOME: dict[str, Any] = {"kind": "accepted", "tokens": 10}
SPARSE = SparseEmbeddings(
    np.array([0, 1]), np.array([3], np.uint32), np.array([1.0], np.float32), model="m", usage=Usage(1, 1)
)
OTHERS: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (lambda value: QuotaDemand(**{**DEMAND, "model": value}), "model", NO_TEXTS),
    (lambda value: QuotaDemand(**{**DEMAND, "tokens": value}), "tokens", [*NO_NUMBERS, 1.5]),
    (lambda value: QuotaDemand(**{**DEMAND, "least": value}), "least", [*NO_NUMBERS, 1.5, 11]),
    (lambda value: QuotaDemand(**DEMAND, priority=value), "priority", [*NO_TEXTS, None, "high", np.array(["bulk"])]),
    (lambda value: QuotaDemand(**DEMAND, flow=value), "flow", [[], {}, ([],), np.array([1])]),
    (lambda value: QuotaDemand(**DEMAND, within=value), "within", [-1, "8", math.nan, [], True]),
    (lambda value: QuotaOutcome(**{**OUTCOME, "kind": value}), "kind", [*NO_TEXTS, None, "lost"]),
    (lambda value: QuotaOutcome(**{**OUTCOME, "tokens": value}), "tokens", [*NO_NUMBERS[1:], 1.5]),
    (lambda value: QuotaOutcome(**OUTCOME, message=value), "message", [*NO_TEXTS, None]),
    (lambda value: QuotaOutcome(**OUTCOME, retry_after=value), "retry_after", [-1, "8", math.nan, [], True]),
    (lambda value: SharedQuota().settle(value, QuotaOutcome("unused", 0)), "grant", [None, 5, QuotaGrant(5), Nothing()]),
    (lambda value: SharedQuota().settle(QuotaGrant(5), value), "outcome", [None, "accepted", Nothing()]),
    (MockResponse, "status", [*NO_NUMBERS, 1.5]),
    (lambda value: MockResponse(json=value), "json", [b"bytes", {5j: 1}, Nothing()]),
    (lambda value: MockResponse(body=value), "body", [None, 5, "text", [5], Nothing()]),
    (lambda value: MockResponse(headers=value), "headers", [5, "text", [1], Nothing()]),
    (MockResponse.embeddings, "vectors", [None, 5, "text", [5], [["a"]], np.array([1])]),
    (SPARSE.compressed, "vocabulary", [5, "text", [1, [2]], [-1], [1, 1], [0.5], Nothing()]),
    (SPARSE.dot, "other", [5, None, [[1]], Nothing()]),
]


@pytest.mark.parametrize(("call", "name", "values"), OTHERS, ids=[name for _, name, _ in OTHERS])
def test_an_argument_of_anything_else_that_cannot_work_is_refused_by_its_name(
    call: Callable[..., Any], name: str, values: list[Any]
) -> None:
    for value in values:
        with pytest.raises(ConfigurationError, match=rf"^{name} must ") as caught:
            call(value)
        assert isinstance(caught.value, ValueError)


async def test_what_a_quota_or_a_cache_is_asked_by_hand_is_checked(tmp_path: Path) -> None:
    async with SqliteCache(tmp_path / "cache.sqlite") as cache:
        for keys in (None, 5, "text", b"key", {b"key": b"value"}):
            with pytest.raises(ConfigurationError, match="keys must be a sequence of bytes"):
                await cache.get_many(keys)  # type: ignore[arg-type]
        for entries in (None, 5, "text", [b"key"]):
            with pytest.raises(ConfigurationError, match="entries must be a mapping of bytes to bytes"):
                await cache.put_many(entries)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="demand must be a QuotaDemand, got dict"):
        await SharedQuota().acquire(DEMAND)  # type: ignore[arg-type]


async def test_a_demand_and_an_outcome_take_numbers_of_numpy() -> None:
    number: Any = np.int64(10)
    quota = SharedQuota(Quota(1000))
    grant = await quota.acquire(QuotaDemand("m", "", number, number, priority=Kind.BULK))  # type: ignore[arg-type]
    assert type(grant.tokens) is int
    quota.settle(grant, QuotaOutcome("accepted", number))
    assert quota.statistics()[0].used == 10


TRANSPORT = MockTransport(lambda request: MockResponse.embeddings([[1.0]] * len(request.json()["inputs"])))
SESSION = SimpleNamespace(connector=None)

PLAN_NAMES = '"starter", "builder", "standard", "enterprise"'


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: client_with(max_concurrency=0), "max_concurrency must be an integer ≥ 1, got 0"),
        (lambda: client_with(attempt_timeout="x"), "attempt_timeout must be a number of seconds > 0, got 'x'"),
        (lambda: client_with(api_key=5), "api_key must be a str, got int"),
        (lambda: client_with(base_url=5), "base_url must be a str, got int"),
        (lambda: client_with(api_version=None), "api_version must be a str, got NoneType"),
        (lambda: client_with(parameters=5), "parameters must be a mapping, got 5"),
        (lambda: client_with(vector_type="thick"), 'vector_type must be "dense" or "sparse", got \'thick\''),
        (lambda: SqliteCache(5), "path must be the path of a file, got 5"),  # type: ignore[arg-type]
        (lambda: SqliteCache("a\0b"), "path must be the path of a file, got 'a\\x00b'"),
        (lambda: MockTransport(5), "handler must be a function, got 5"),  # type: ignore[arg-type]
        (lambda: SharedQuota(draw=5), "draw must be a function, got 5"),  # type: ignore[arg-type]
        (lambda: SharedQuota(clock=5), "clock must have time and call_at, as Clock has, got int"),  # type: ignore[arg-type]
        (lambda: Quota(0), "tokens_per_minute must be an integer ≥ 1, or None to learn it, got 0"),
        (lambda: Quota(window=0), "window must be a number of seconds > 0, got 0"),
        (lambda: QuotaDemand("m", "", 0, 1), "tokens must be an integer ≥ 1, got 0"),
        (lambda: QuotaOutcome("accepted", -1), "tokens must be an integer ≥ 0, got -1"),
        (
            lambda: client_with(quota=[]),
            f"quota must be {PLAN_NAMES}, a number of tokens per minute, a Quota or a SharedQuota, got list",
        ),
        (lambda: client_with(decoder="json"), 'decoder must be "native" or "msgspec", got \'json\''),
        (
            lambda: client_with(session=SESSION, transport=TRANSPORT),
            "pass either session or transport: the transport replaces aiohttp",
        ),
        (
            lambda: client_with(ssl_context=ssl.create_default_context(), transport=TRANSPORT),
            "pass either ssl_context or transport: the transport replaces aiohttp",
        ),
        (lambda: client_with(hooks=5), "hooks must be a list of functions, got int"),
        (lambda: RetryPolicy(max_attempts=True), "max_attempts must be an integer ≥ 1, got True"),
        (lambda: RetryPolicy(initial_backoff=-0.5), "initial_backoff must be a number of seconds ≥ 0, got -0.5"),
        (lambda: RetryPolicy(max_elapsed=math.nan), "max_elapsed must be a number of seconds ≥ 0, got nan"),
    ],
)
def test_a_message_says_what_must_be_so_and_what_was_got(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert str(caught.value) == message


def test_a_session_or_a_context_without_a_transport_is_taken_and_so_is_a_transport_alone(tmp_path: Path) -> None:
    for options in ({"session": SESSION}, {"ssl_context": ssl.create_default_context()}, {"transport": TRANSPORT}):
        client_with(**options)
    client_with(quota=SqliteQuota(tmp_path / "quota"))


@pytest.mark.parametrize(
    ("model", "size", "requests"), [(E5, 200, 3), (E5, 50, 4), ("another-model", 200, 1), ("another-model", 50, 4)]
)
def test_a_batch_is_as_large_as_the_client_says_but_not_larger_than_a_known_model_takes(
    model: str, size: int, requests: int
) -> None:
    client = client_with(model=model, vector_type="dense", max_batch_size=size, look_up_model=False)
    assert client.estimate(["a"] * 200, input_type="passage").requests == requests


async def test_vectors_are_cached_only_by_a_client_with_a_cache(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for cache, requests in ((None, 2), (SqliteCache(tmp_path / "cache"), 1)):
        sent: list[Any] = []

        def answer(request: Any, sent: list[Any] = sent) -> MockResponse:
            sent.append(request)
            return MockResponse.embeddings([[1.0] * 1024])

        async with client_with(cache=cache, transport=MockTransport(answer)) as client:
            for _ in range(2):
                await client.embed("a", input_type="passage")
        assert len(sent) == requests
        if cache is not None:
            await cache.aclose()
    assert caplog.messages == []


@pytest.mark.parametrize("given", [None, False, np.False_])
def test_a_bar_is_made_only_if_it_is_asked_for(given: Any) -> None:
    options: dict[str, Any] = {"timeout": None, "priority": "bulk", "on_error": "raise"}
    parameters: Any = None
    without = call_options(parameters, 0.0, **options, progress=given)
    assert without.progress is None
    truths: list[Any] = [True, np.True_]
    for wanted in truths:
        with_bar = call_options(parameters, 0.0, **options, progress=wanted)
        assert isinstance(with_bar.progress, ProgressBar)


def test_what_may_be_a_key_in_a_wrong_place_is_not_shown() -> None:
    with pytest.raises(EmbedError) as caught:
        client_with(api_key=b"secret")
    assert "secret" not in str(caught.value)


class Kind(enum.StrEnum):
    PASSAGE = "passage"
    BULK = "bulk"
    RETURN = "return"
    MODEL = LLAMA


class Old(enum.Enum):
    PASSAGE = "passage"


class Size(enum.IntEnum):
    SMALL = 512


@pytest.mark.parametrize("kind", [Kind.PASSAGE, np.str_("passage"), Old.PASSAGE])
@pytest.mark.parametrize("size", [np.int64(512), np.uint16(512), np.array(512), Size.SMALL])
async def test_texts_and_numbers_of_numpy_and_enumerations_are_taken(kind: Any, size: Any, emulator: Emulator) -> None:
    whole: Any = np.int64(2)
    seconds: Any = np.float32(30)
    client = client_with(
        model=Kind.MODEL,
        api_key=np.str_(emulator.api_key),
        base_url=np.str_(emulator.url),
        quota=Quota(whole * 10**6, window=seconds),
        retry=RetryPolicy(max_attempts=whole, max_backoff=seconds),
        max_concurrency=whole,
        attempt_timeout=seconds,
        parameters={"truncate": np.str_("END")},
    )
    async with client:
        for parameters, input_type in (({"dimension": size}, kind), ({"dimension": size, "input_type": kind}, None)):
            options: dict[str, Any] = {"timeout": seconds, "on_error": Kind.RETURN, "priority": Kind.BULK}
            result = await client.embed(["a"], input_type=input_type, parameters=parameters, **options)
            assert result.vectors.shape == (1, 512)
        assert (await client.embed_one("a", input_type=kind, parameters={"dimension": size})).shape == (512,)
        assert client.statistics().attempts == 3
        assert [quota.input_type for quota in client.statistics().quotas] == ["passage"]
