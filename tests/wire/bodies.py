"""Draws valid and odd bodies, and compares the results of all decoders with those of `json`."""

import json
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pinecone_embed_async import ResponseError
from pinecone_embed_async._wire import Answer, Decoder, VectorType
from tests.wire.reading import decode as read_with
from tests.wire.reading import installed
from tests.wire.spelling import (
    STRINGS,
    Contents,
    RefusedError,
    nest,
    read_answer,
    spell,
    spoil_bytes,
    spoil_tree,
    tree_of,
    write,
)

# The same decoders throughout: what one body leaves behind must not change how the next is read.
LASTING = installed()


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
    if draws.random() < 0.03:
        del answer["model"]
    return answer


def asked_of(answer: dict[str, Any], draws: Random) -> dict[str, Any]:
    """What a request may know of its answer."""
    vector_type = answer["vector_type"]
    dimension = len(answer["data"][0]["values"]) if vector_type == "dense" else 4
    return {
        "count": len(answer["data"]),
        "vector_type": draws.choice((vector_type, None)),
        "dimension": draws.choice((dimension, None)),
    }


def body_of(seed: int) -> tuple[bytes, dict[str, Any]]:
    """A body and what its request knows of it; one of four is valid."""
    draws = Random(seed)
    answer = answer_of(draws)
    asked = asked_of(answer, draws)
    tree = tree_of(answer)
    kind = draws.choice(("valid", "nested", "asked", "tree", "tree", "bytes", "bytes", "both"))
    if kind == "asked":
        change = draws.choice(("count", "vector_type", "dimension"))
        asked[change] = draws.choice(("dense", "sparse")) if change == "vector_type" else draws.randint(1, 4)
    if kind == "nested":
        nest(tree, draws)
    for _ in range(draws.randint(1, 3) if kind in ("tree", "both") else 0):
        spoil_tree(tree, draws)
    body = spell(tree, draws) if draws.random() < 0.5 else write(tree, draws if draws.random() < 0.5 else None)
    for _ in range(draws.randint(1, 3) if kind in ("bytes", "both") else 0):
        body = spoil_bytes(body, json.dumps(answer).encode(), draws)
    return body, asked


def _cuts(length: int, draws: Random) -> tuple[int, ...]:
    if draws.random() < 0.03:
        return tuple(range(1, length))
    return tuple(sorted(draws.choices(range(length + 1), k=draws.randrange(9))))


def decode(
    decoder: Decoder,
    body: bytes,
    *,
    count: int,
    vector_type: VectorType | None,
    dimension: int | None,
    pieces: Random | None = None,
) -> Contents | None:
    """What a decoder reads; `None` if it raises the expected error; any other error is passed on.

    With `pieces` the body comes in pieces that are drawn, some of them empty, and so much of it is decoded on the way.
    """
    matrix = np.zeros((0, 0), np.float32)

    def rows(wanted: int) -> NDArray[np.float32]:
        nonlocal matrix
        matrix = np.zeros((count, wanted), np.float32)
        return matrix

    refused: ResponseError | None = None
    try:
        cuts = () if pieces is None else _cuts(len(body), pieces)
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
        return Contents("dense", [row.tobytes() for row in matrix], [], None, answer.total_tokens, answer.model)
    bounds = np.cumsum(block.lengths)[:-1]
    return Contents(
        "sparse",
        [row.tobytes() for row in np.split(block.values, bounds)],
        [row.tolist() for row in np.split(block.indices, bounds)],
        block.tokens,
        answer.total_tokens,
        answer.model,
    )


def expected(body: bytes, **asked: Any) -> Contents | None:
    """What the standard library reads; `None` if the rules refuse it."""
    try:
        return read_answer(body, **asked)
    except RefusedError:
        return None


def check(body: bytes, **asked: Any) -> bool:
    """All decoders read what the standard library reads, and refuse what the rules refuse; returns whether it was read.

    The same if the body comes in pieces, cut anywhere.
    """
    right = expected(body, **asked)
    for name, decoder in LASTING.items():
        for pieces in (None, Random(len(body))):
            reading = decode(decoder, body, pieces=pieces, **asked)
            assert reading is None or right is not None, f"{name} accepts what the rules refuse"
            assert reading is not None or right is None, f"{name} refuses what is valid"
            assert reading == right, f"{name} reads something else"
    return right is not None
