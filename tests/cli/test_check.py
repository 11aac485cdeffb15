"""`pinecone-embed check`: what it assumes holds for the emulator, and what differs is reported."""

import asyncio
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pinecone_embed_async.cli import cli
from pinecone_embed_async.cli._assumptions import ASSUMPTIONS
from pinecone_embed_async.cli._probes import Reply, Verdict, find, probes_of
from pinecone_embed_async.emulator import MODELS, EmbedRequest, EmulatedModel, Emulator
from pinecone_embed_async.emulator import _server as server

CLAIMS = {assumption.claim for assumption in ASSUMPTIONS}
E5, LLAMA, SPARSE = (next(model for model in MODELS if model.name.startswith(name)) for name in ("multi", "llama", "pine"))


@dataclass
class Checked:
    status: int
    said: str
    printed: dict[str, Any]

    def claims(self, verdict: Verdict) -> set[str]:
        return {row["assumption"] for row in self.printed["assumptions"] if row["verdict"] == verdict}

    def seen(self, claim: str) -> str:
        return next(str(row["seen"]) for row in self.printed["assumptions"] if row["assumption"] == claim)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    async def check(emulator: Emulator, **environment: str) -> Checked:
        environment = {"PINECONE_CONTROLLER_HOST": emulator.url, "PINECONE_API_KEY": emulator.api_key, **environment}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        status = await asyncio.to_thread(cli, "check", "--yes", "--json")
        told = capsys.readouterr()
        return Checked(status, told.err, json.loads(told.out) if told.out else {})

    return check


async def test_every_assumption_holds_for_the_emulator(emulator: Emulator, checked: Callable[..., Any]) -> None:
    found = await checked(emulator)
    assert found.claims(Verdict.HOLDS) == CLAIMS
    assert found.status == 0
    # What it says beforehand is what it takes.
    told = re.match(r"\d+ assumptions take (\d+) requests to \S+ and at most ([\d,]+) tokens\n", found.said)
    assert told is not None
    requests, most = told.groups()
    counted = emulator.statistics()
    assert int(requests) == found.printed["requests"] == counted.requests + counted.model_requests
    assert counted.tokens_billed == found.printed["tokens"] <= int(most.replace(",", "")) < 3_000


def test_a_dry_run_asks_nobody_and_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("check", "--emulator") == 0
    told = capsys.readouterr()
    rows = told.out.splitlines()
    assert len(rows) == 1 + len(ASSUMPTIONS)
    assert all(row.endswith("holds") for row in rows[1:])
    assert rows[0].split() == ["assumption", "expected", "seen"]
    assert f"{len(ASSUMPTIONS)} hold, 0 differ, 0 not seen; " in told.err


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "status", "is_sent"),
    [
        (Terminal("y\n"), 0, True),
        (Terminal("n\n"), 1, False),
        (Terminal(""), 1, False),
        (io.StringIO("y\n"), 2, False),
        (None, 2, False),
    ],
)
async def test_nothing_is_sent_unless_somebody_agrees(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, answer: io.StringIO | None, status: int, is_sent: bool
) -> None:
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
    monkeypatch.setenv("PINECONE_API_KEY", emulator.api_key)
    monkeypatch.setattr("sys.stdin", answer)
    assert await asyncio.to_thread(cli, "check") == status
    assert bool(emulator.statistics().connections_opened) == is_sent


def other(model: EmulatedModel, **changes: Any) -> EmulatedModel:
    return replace(model, **changes)


LIMITS = {f"{E5.name} has these limits"}
OTHER_MODELS = [
    (other(E5, max_batch_size=50), LIMITS),
    (
        other(E5, max_sequence_length=512),
        LIMITS | {"a text that is too long is cut by default, and only the rest is billed"},
    ),
    (other(LLAMA, max_batch_size=100), {f"{LLAMA.name} has these limits", "more than 96 inputs are refused"}),
    (
        other(LLAMA, parameters=LLAMA.parameters[:2]),
        {f"{LLAMA.name} has these parameters", "dimension chooses the dimension"},
    ),
    (
        other(SPARSE, parameters=SPARSE.parameters[:2]),
        {f"max_tokens_per_sequence of {SPARSE.name} is a range", "a sparse vector has as many indices as values and tokens"},
    ),
    (
        other(E5, parameters=E5.parameters[1:]),
        {f"{E5.name} has these parameters", "input_type is required"},
    ),
    (EmulatedModel("no-such-model"), {claim for claim in CLAIMS if claim.startswith("a model that does not exist")}),
    (other(E5, name="bge-reranker-v2-m3"), {"a reranking model does not embed"}),
]


@pytest.mark.parametrize(("model", "differing"), OTHER_MODELS, ids=lambda value: getattr(value, "name", ""))
async def test_a_service_with_other_models_differs(
    checked: Callable[..., Any], model: EmulatedModel, differing: set[str]
) -> None:
    async with Emulator(models=[model]) as emulator:
        found = await checked(emulator)
    assert found.claims(Verdict.DIFFERS) >= differing
    assert found.status == 8
    assert found.claims(Verdict.HOLDS) | found.claims(Verdict.DIFFERS) == CLAIMS


def is_dense(request: EmbedRequest) -> bool:
    return len(request.inputs) == 3 and request.vector_type == "dense"


FIELDS, ORDER = "an answer has the documented fields", next(claim for claim in CLAIMS if "in order" in claim)
DIMENSION = f"a vector of {E5.name} has its dimension"
HALVES, BILLED = next(claim for claim in CLAIMS if "half-precision" in claim), "tokens are billed"
NUMBERS = {FIELDS, ORDER, DIMENSION, HALVES}


@pytest.mark.parametrize(
    ("fault", "differing"),
    [
        ("wrong_count", {ORDER}),
        ("wrong_dimension", {DIMENSION}),
        ("huge_values", {HALVES}),
        ("null_values", NUMBERS | {BILLED}),
        ("missing_usage", {FIELDS, BILLED}),
        ("compressed", {"an answer is not compressed"}),
        ("html_body", NUMBERS | {BILLED, "an answer is JSON"}),
        ("deep_nesting", NUMBERS | {BILLED}),
        ("error_in_200", NUMBERS | {BILLED}),
        ("status=400", NUMBERS | {BILLED, "an answer is JSON", "an answer is not compressed", "an answer has an id"}),
    ],
)
async def test_an_answer_that_is_not_as_assumed_differs(
    emulator: Emulator, checked: Callable[..., Any], fault: str, differing: set[str]
) -> None:
    emulator.inject(fault, when=is_dense)
    found = await checked(emulator)
    assert found.claims(Verdict.DIFFERS) >= differing
    assert found.status == 8


async def test_a_content_that_is_refused_differs_and_says_what_the_service_said(
    emulator: Emulator, checked: Callable[..., Any]
) -> None:
    emulator.reject = lambda text: not text
    found = await checked(emulator)
    assert found.claims(Verdict.DIFFERS) == {"an empty text is embedded like any other"}
    assert found.seen("an empty text is embedded like any other").startswith("400 INVALID_ARGUMENT: Input '' was rejected")


async def test_a_service_that_takes_no_newer_version_differs(
    emulator: Emulator, checked: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "OLDEST_API_VERSION", "2026-07")
    found = await checked(emulator)
    assert found.claims(Verdict.DIFFERS) == {f"API version {year} is accepted" for year in ("2025-04", "2025-10", "2026-04")}


@pytest.mark.parametrize("fault", ["status=503", "rate_limited", "cut_off_body", "lying_gzip"])
async def test_what_was_not_answered_is_not_seen_and_no_difference(
    emulator: Emulator, checked: Callable[..., Any], fault: str
) -> None:
    emulator.inject(fault, when=is_dense)
    found = await checked(emulator)
    assert found.claims(Verdict.UNKNOWN) >= NUMBERS
    assert not found.claims(Verdict.DIFFERS)
    assert found.status == 1


async def test_a_wrong_key_and_a_wrong_address_end_it_with_the_first_request(
    emulator: Emulator, checked: Callable[..., Any]
) -> None:
    found = await checked(emulator, PINECONE_API_KEY="another-key")
    assert (found.status, found.printed) == (3, {})
    assert "401 UNAUTHENTICATED: Invalid API key." in found.said
    assert emulator.statistics().model_requests == 1
    found = await checked(emulator, PINECONE_CONTROLLER_HOST=f"{emulator.url}/elsewhere")
    assert (found.status, found.printed) == (3, {})
    emulator.refuse_connections()
    found = await checked(emulator)
    assert (found.status, found.printed) == (3, {})
    assert "cannot connect" in found.said


async def test_the_key_is_not_printed_whatever_the_service_says(emulator: Emulator, checked: Callable[..., Any]) -> None:
    emulator.reject = lambda text: not text
    emulator.api_key = "was rejected by model"
    found = await checked(emulator, PINECONE_API_KEY="was-rejected")
    assert found.status == 3
    emulator.api_key = "INVALID_ARGUMENT"
    found = await checked(emulator, PINECONE_API_KEY="INVALID_ARGUMENT")
    assert found.seen("an empty text is embedded like any other").startswith("400 <the API key>: ")


@pytest.mark.parametrize("assumption", ASSUMPTIONS, ids=lambda assumption: assumption.claim)
def test_every_assumption_can_turn_out_wrong(assumption: Any) -> None:
    assert find(assumption, Reply(418, {}, b"")).verdict is Verdict.DIFFERS
    body = b'{"status": 400, "error": {"code": "TEAPOT", "message": "short and stout"}}'
    found = find(assumption, Reply(400, {"content-type": "application/json"}, body))
    assert (found.verdict, found.seen) == (Verdict.DIFFERS, "400 TEAPOT: short and stout")


def test_each_request_is_sent_once_and_no_claim_is_made_twice() -> None:
    assert len(CLAIMS) == len(ASSUMPTIONS)
    assert len(probes_of(ASSUMPTIONS)) < len(ASSUMPTIONS)
