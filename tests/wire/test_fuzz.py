"""Answers and errors spelled in every way and spoiled in every way; `make test-long` runs many more examples of each."""

import json
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict
from numpy.typing import NDArray

from pinecone_embed_async import ApiError, ResponseError
from pinecone_embed_async._models import VectorType
from pinecone_embed_async._wire import (
    DECODERS,
    Answer,
    Decoder,
    Redactor,
    choose_decoder,
    decode_models,
    error_from_envelope,
    error_from_response,
)
from pinecone_embed_async.emulator import Fault, FaultName
from pinecone_embed_async.emulator._answers import Answer as EmulatedAnswer
from pinecone_embed_async.emulator._answers import _sparse_item, dense_items
from pinecone_embed_async.emulator._spoiling import spoil
from tests.wire.reading import decode as read_with
from tests.wire.spelling import (
    STRINGS,
    Contents,
    RefusedError,
    Token,
    parse,
    read_answer,
    spell,
    spoil_bytes,
    spoil_tree,
    tree_of,
    write,
)

pytestmark = pytest.mark.fuzz

# The profile decides how many: 100 of hypothesis's own in CI, see conftest.py for the long run.
MANY = settings(max_examples=4 * settings().max_examples)
# The same decoders throughout: what one body leaves behind must not change how the next is read.
LASTING = {name: choose_decoder(name) for name in DECODERS}

SEEDS = st.integers(0, 2**32)
FEW = st.integers(0, 3)


def number(draws: Random) -> float:
    """A number that float32 can hold, of any size."""
    kind = draws.randrange(4)
    if kind == 0:
        return draws.randint(-(2**60), 2**60)
    if kind == 1:
        return float(draws.choice((0, -0.0, 1e-45, 3.4028234663852886e38, 0.1, 2**53 + 1)))
    return draws.uniform(-1, 1) * 10.0 ** draws.randint(-46, 38)


def answer_of(draws: Random) -> dict[str, Any]:
    """A valid answer, dense or sparse."""
    count = draws.randint(1, 3)
    vector_type = draws.choice(("dense", "sparse"))
    data: list[dict[str, Any]] = []
    terms = draws.randint(1, 3)
    words = draws.choice(("not", "null", "empty", "all"))
    for _ in range(count):
        if vector_type == "dense":
            data.append({"values": [number(draws) for _ in range(terms)]})
            continue
        terms = draws.randrange(3)
        item: dict[str, Any] = {
            "sparse_values": [number(draws) for _ in range(terms)],
            "sparse_indices": [draws.choice((0, draws.randrange(2**32), 2**32 - 1)) for _ in range(terms)],
        }
        if words != "not":
            all_words = [draws.choice(STRINGS) for _ in range(terms)]
            item["sparse_tokens"] = {"null": None, "empty": [], "all": all_words}[words]
        data.append(item)
    for item in data:
        if draws.random() < 0.7:
            item["vector_type"] = draws.choice((vector_type, vector_type, "other", None))
    usage = {"total_tokens": draws.choice((0, 7, 2**70))}
    answer = {"model": draws.choice(STRINGS), "vector_type": vector_type, "data": data, "usage": usage}
    if draws.random() < 0.1:
        del answer["model"]
    return answer


def emulated(draws: Random) -> bytes:
    """A valid answer in the emulator's writing."""
    if draws.random() < 0.5:
        shape = draws.randint(1, 4), draws.randint(1, 20)
        vectors = np.random.default_rng(draws.randrange(1000)).standard_normal(shape).astype(np.float16)
        return EmulatedAnswer("m", "dense", dense_items(vectors), draws.randrange(999)).body()
    words = [[f"word{draws.randrange(9)}" for _ in range(draws.randrange(4))] for _ in range(draws.randint(1, 4))]
    items = tuple(_sparse_item(row, "passage", return_tokens=draws.random() < 0.5) for row in words)
    return EmulatedAnswer("m", "sparse", items, draws.randrange(999)).body()


def decode(
    decoder: Decoder,
    body: bytes,
    *,
    count: int,
    vector_type: VectorType | None,
    dimension: int | None,
    pieces: Random | None = None,
) -> Contents | None:
    """What a decoder reads, `None` if it refuses with the error that it should; any other error comes out.

    With `pieces` the body comes in pieces that are drawn, and so much of it is decoded on the way.
    """
    matrix = np.zeros((0, 0), np.float32)

    def rows(wanted: int) -> NDArray[np.float32]:
        nonlocal matrix
        matrix = np.zeros((count, wanted), np.float32)
        return matrix

    refused: ResponseError | None = None
    try:
        cuts = () if pieces is None else tuple(sorted(pieces.choices(range(len(body) + 1), k=pieces.randrange(9))))
        most = None if pieces is None else pieces.choice((1, 20, 10**9))
        answer = read_with(
            decoder,
            body,
            cuts=cuts,
            most=most,
            count=count,
            vector_type=vector_type,
            dimension=dimension,
            rows=rows,
        )
    except ResponseError as error:
        refused = error
    if refused is None:
        return contents_of(answer, matrix)
    assert refused.__cause__ is None
    assert refused.__context__ is None
    assert str(refused).isprintable()
    assert len(str(refused)) < 500
    return None


def contents_of(answer: Answer, matrix: NDArray[np.float32]) -> Contents:
    block = answer.sparse
    if block is None:
        return Contents("dense", [row.tobytes() for row in matrix], [], None, answer.total_tokens, is_plain=True)
    bounds = np.cumsum(block.lengths)[:-1]
    return Contents(
        "sparse",
        [row.tobytes() for row in np.split(block.values, bounds)],
        [row.tolist() for row in np.split(block.indices, bounds)],
        block.tokens,
        answer.total_tokens,
        is_plain=True,
    )


def expected(body: bytes, **asked: Any) -> Contents | None:
    try:
        return read_answer(body, **asked)
    except RefusedError:
        return None


def check(body: bytes, **asked: Any) -> None:
    """Both decoders read what the standard library reads, or refuse; they agree; what is well-formed is not refused.

    The same if the body comes in pieces, cut anywhere.
    """
    right = expected(body, **asked)
    pieces = Random(len(body))
    readings = [decode(decoder, body, **asked) for decoder in LASTING.values()]
    readings += [decode(decoder, body, pieces=pieces, **asked) for decoder in LASTING.values()]
    for reading in readings:
        if reading is not None:
            assert right is not None, "accepted, though the rules refuse it"
            assert reading == right
        elif right is not None:
            assert not right.is_plain, "refused, though it is well-formed"
    assert len({reading is None for reading in readings}) == 1


def asked_of(answer: dict[str, Any], draws: Random) -> dict[str, Any]:
    """What a request may know of its answer."""
    vector_type = answer["vector_type"]
    dimension = len(answer["data"][0]["values"]) if vector_type == "dense" else 4
    return {
        "count": len(answer["data"]),
        "vector_type": draws.choice((vector_type, None)),
        "dimension": draws.choice((dimension, None)),
    }


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
@given(SEEDS, FEW, FEW)
def test_a_spoiled_answer_is_read_right_or_refused(seed: int, in_tree: int, in_bytes: int) -> None:
    draws = Random(seed)
    answer = answer_of(draws)
    asked = asked_of(answer, draws)
    tree = tree_of(answer)
    for _ in range(in_tree):
        spoil_tree(tree, draws)
    body = write(tree, draws if seed % 2 else None)
    other = json.dumps(answer).encode()
    for _ in range(in_bytes):
        body = spoil_bytes(body, other, draws)
    check(body, **asked)


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
            reading = decoder.begin(
                count=asked["count"],
                vector_type="dense",
                dimension=None,
                rows=lambda dimension: np.zeros((asked["count"], dimension), np.float32),
            )
            reading.add(body)
            reading.decode()
            assert reading._finish_usual() is not None, "it was not read as it arrived"


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
    # Another unknown key twice, so that the keys are looked at one by one.
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
REDACTOR = Redactor("pcsk_key", [TEXT], 3)
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


def told(error: ApiError | None) -> object:
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
    assert told(by_status(429, plain)) == told(by_status(429, body))
    inside = error_from_envelope(plain, redactor=REDACTOR)
    assert inside is not None
    check_error(inside)
    assert told(inside) == told(error_from_envelope(body, redactor=REDACTOR))


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
        # Nothing that is no JSON is taken for an envelope.
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    parse(body)


@pytest.mark.parametrize("character", ["\ufeff", "\u202e", "\u200b", "\u00ad", "\U000e0041", "\xa0", "\ue000", "\u0378"])
def test_characters_that_do_not_show_are_not_in_an_errors_message(character: str) -> None:
    message = f"for the {character}{character}current month"
    error = by_status(429, json.dumps({"error": {"code": "X", "message": message}}, ensure_ascii=False).encode())
    assert str(error).replace("  ", " ") == "429 X: for the current month"
