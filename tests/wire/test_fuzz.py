"""Answers and errors spelled in every way and spoiled in every way; `make test-long` runs many more examples of each."""

import json
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from pinecone_embed_async import ApiError, ResponseError
from pinecone_embed_async._wire import (
    Redactor,
    StreamingDecoder,
    VectorType,
    decode_models,
    error_from_envelope,
    error_from_response,
)
from pinecone_embed_async.emulator import Fault, FaultName
from pinecone_embed_async.emulator._answers import Answer as EmulatedAnswer
from pinecone_embed_async.emulator._answers import _sparse_item, dense_items
from pinecone_embed_async.emulator._spoiling import spoil
from tests.wire.__main__ import compare
from tests.wire.bodies import LASTING, answer_of, asked_of, check, decode
from tests.wire.reading import RowsOf
from tests.wire.spelling import STRINGS, Token, parse, read_answer, spell, spoil_bytes, spoil_tree, tree_of, write

pytestmark = pytest.mark.fuzz

# The profile decides how many: 100 of hypothesis's own in CI, see conftest.py for the long run.
MANY = settings(max_examples=4 * settings().max_examples)
SEEDS = st.integers(0, 2**32)
FEW = st.integers(0, 3)


def emulated(draws: Random) -> bytes:
    """A valid answer in the emulator's writing."""
    if draws.random() < 0.5:
        shape = draws.randint(1, 4), draws.randint(1, 20)
        vectors = np.random.default_rng(draws.randrange(1000)).standard_normal(shape).astype(np.float16)
        return EmulatedAnswer("m", "dense", dense_items(vectors), draws.randrange(999)).body()
    words = [[f"word{draws.randrange(9)}" for _ in range(draws.randrange(4))] for _ in range(draws.randint(1, 4))]
    items = tuple(_sparse_item(row, "passage", return_tokens=draws.random() < 0.5) for row in words)
    return EmulatedAnswer("m", "sparse", items, draws.randrange(999)).body()


BODIES, AT_ONCE = 3000, 500


@pytest.mark.parametrize("start", range(0, BODIES, AT_ONCE))
def test_valid_bodies_are_read_to_the_last_bit_and_others_refused(start: int) -> None:
    valid, wrong = compare(range(start, start + AT_ONCE))
    assert not wrong, wrong[0]
    assert AT_ONCE / 5 < valid < AT_ONCE / 2


@MANY
@given(SEEDS)
def test_form_and_extra_keys_make_no_difference(seed: int) -> None:
    draws = Random(seed)
    answer = answer_of(draws)
    asked = asked_of(answer, draws)
    plain = json.dumps(answer).encode()
    body = spell(tree_of(answer), draws)
    right = read_answer(plain, **asked)
    for decoder in LASTING.values():
        for form in (plain, body):
            reading = decode(decoder, form, **asked)
            assert reading is not None
            assert reading == right


@MANY
@given(SEEDS, FEW)
def test_a_spoiled_answer_of_the_emulator_is_read_right_or_refused_and_spoils_no_later_one(seed: int, times: int) -> None:
    draws = Random(seed)
    body = emulated(draws)
    answer = json.loads(body)
    asked = asked_of(answer, draws)
    spoiled = body
    for _ in range(times):
        spoiled = spoil_bytes(spoiled, body, draws)
    check(spoiled, **asked)
    check(body, **asked)
    if answer["vector_type"] == "dense":
        for decoder in LASTING.values():
            reading = StreamingDecoder(
                decoder,
                count=asked["count"],
                vector_type="dense",
                dimension=None,
                rows=RowsOf(lambda dimension: np.zeros((asked["count"], dimension), np.float32)),
            )
            reading.add(body)
            assert reading.finish(0) is not None, "it was not read as it arrived"


# What the fuzz has found.


@pytest.mark.parametrize("place", ["top", "usage", "item", "tokens"])
def test_an_integer_too_long_for_python_beside_the_embeddings_makes_no_difference(place: str) -> None:
    huge = Token(b"9" * 5000)
    item = {"values": [1, 2], **({"x": huge} if place == "item" else {})}
    usage = {
        "total_tokens": 7,
        **({"x": huge} if place == "usage" else {}),
        **({"total_tokens": huge} if place == "tokens" else {}),
    }
    # A second duplicate of an unknown key, so that keys are checked one by one.
    tree = tree_of({"vector_type": "dense", "data": [item], "usage": usage, **({"x": huge} if place == "top" else {})})
    tree.pairs += [("y", Token(b'"z"')), ("y", Token(b'"z"'))]
    check(write(tree), count=1, vector_type="dense", dimension=2)


ITEMS: dict[VectorType, bytes] = {
    "dense": b'{"values":[0.5,0.25],"vector_type":"dense"}',
    "sparse": b'{"sparse_values":[0.5],"sparse_indices":[7],"vector_type":"sparse"}',
}
SPOILABLE = [
    (name, vector_type)
    for name in FaultName
    for vector_type, item in ITEMS.items()
    if Fault(name).applies_to(vector_type) and spoil(Fault(name), EmulatedAnswer("m", vector_type, (item,) * 3, 9))
]


@pytest.mark.parametrize(("name", "vector_type"), SPOILABLE)
def test_the_emulators_spoiled_bodies_are_judged_as_the_rules_say(name: FaultName, vector_type: VectorType) -> None:
    body = spoil(Fault(name), EmulatedAnswer("m", vector_type, (ITEMS[vector_type],) * 3, 9))
    assert body is not None
    for dimension in (None, 2):
        check(body, count=3, vector_type=vector_type, dimension=dimension)
        check(body, count=3, vector_type=None, dimension=dimension)


# Errors.

CODES = ("RESOURCE_EXHAUSTED", "UNAVAILABLE", "INVALID_ARGUMENT", "QUOTA_EXCEEDED", "NEW", "", 8)
TEXT = "a text of some length that is not to be seen"
REDACTOR = Redactor("pcsk_key", [TEXT], [3])
# What is promised: a text is found whole, and in parts of two dozen characters or more. Spoiling may leave shorter ones.
PARTS = [TEXT[at : at + 24] for at in range(len(TEXT) - 23)]
RETRY_AFTER = st.text(max_size=12) | st.from_regex(r"[0-9a-zA-Z :,+-]{0,40}", fullmatch=True)


def envelope_of(draws: Random) -> dict[str, Any]:
    """A valid error envelope."""
    messages = (*STRINGS, "for the current month", "key pcsk_key", TEXT)
    inner: dict[str, Any] = {"code": draws.choice(CODES), "message": draws.choice(messages)}
    if draws.random() < 0.5:
        inner["details"] = draws.choice((None, draws.choice(messages), [1, 2], 7, "pcsk_key"))
    return {"status": draws.choice((400, 401, 404, 409, 429, 500, 503, 200, "x")), "error": inner}


def by_status(status: int, body: bytes, retry_after: str = "") -> ApiError:
    headers = CIMultiDict({"Content-Type": "application/json", "Retry-After": retry_after})
    return error_from_response(status, headers, body, redactor=REDACTOR, now=0)


def summary(error: ApiError | None) -> object:
    return None if error is None else (type(error), str(error), error.status, error.code, repr(error.details))


def check_error(error: ApiError | None) -> None:
    if error is not None:
        assert isinstance(error, ApiError)
        assert error.__cause__ is None
        assert error.__context__ is None
        assert str(error).isprintable()
        assert len(str(error)) < 1000
        assert "pcsk_key" not in str(error) + repr(error.details)
        assert not any(part in str(error) + repr(error.details) for part in PARTS)
        assert error.retry_after is None or 0 <= error.retry_after < 10**15


@MANY
@given(SEEDS)
def test_form_and_extra_keys_make_no_difference_to_an_error(seed: int) -> None:
    draws = Random(seed)
    envelope = envelope_of(draws)
    plain = json.dumps(envelope).encode()
    body = spell(tree_of(envelope), draws)
    assert summary(by_status(429, plain)) == summary(by_status(429, body))
    inside = error_from_envelope(plain, redactor=REDACTOR)
    assert inside is not None
    check_error(inside)
    assert summary(inside) == summary(error_from_envelope(body, redactor=REDACTOR))


@MANY
@given(SEEDS, FEW, FEW, RETRY_AFTER)
def test_a_spoiled_error_is_an_error_with_the_same_status(seed: int, in_tree: int, in_bytes: int, retry_after: str) -> None:
    draws = Random(seed)
    envelope = envelope_of(draws)
    tree = tree_of(envelope)
    for _ in range(in_tree):
        spoil_tree(tree, draws)
    body = write(tree, draws)
    for _ in range(in_bytes):
        body = spoil_bytes(body, json.dumps(envelope).encode(), draws)
    status = draws.choice((101, 204, 302, 400, 401, 404, 429, 500, 503, 599))
    error = by_status(status, body, retry_after)
    check_error(error)
    assert error.status == status
    inside = error_from_envelope(body, redactor=REDACTOR)
    check_error(inside)
    if inside is not None:
        # Invalid JSON is never taken for an envelope.
        parse(body)


@MANY
@given(SEEDS, FEW, FEW)
def test_a_spoiled_list_of_models_is_read_or_refused_by_a_known_error(seed: int, in_tree: int, in_bytes: int) -> None:
    draws = Random(seed)
    parameter = {"parameter": "p", "type": "one_of", "allowed_values": ["a", 1, 0.5, True], "min": 1, "default": "a"}
    model = {"model": "m", "vector_type": "dense", "supported_dimensions": [1, 2], "supported_parameters": [parameter]}
    tree = tree_of({"models": [model, model]})
    for _ in range(in_tree):
        spoil_tree(tree, draws)
    body = write(tree, draws)
    for _ in range(in_bytes):
        body = spoil_bytes(body, body, draws)
    try:
        decode_models(body)
    except ResponseError:
        return
    parse(body)


@pytest.mark.parametrize("character", ["\ufeff", "\u202e", "\u200b", "\u00ad", "\U000e0041", "\xa0", "\ue000", "\u0378"])
def test_characters_that_do_not_show_are_not_in_an_errors_message(character: str) -> None:
    message = f"for the {character}{character}current month"
    error = by_status(429, json.dumps({"error": {"code": "X", "message": message}}, ensure_ascii=False).encode())
    assert str(error).replace("  ", " ") == "429 X: for the current month"
