"""What an answer must be: judged as a whole by msgspec, or without its numbers once these are in their places."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._wire._structs import (
    AnswerShape,
    DenseAnswer,
    DenseItem,
    SparseAnswer,
    SparseItem,
)

MOST_TOKENS = 2**53
"""More tokens than any answer is billed, and the largest number that every JSON parser reads the same."""

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._models import VectorType

    RowsFor = Callable[[int], NDArray[np.float32]]
    """Given the dimension, the float32 matrix (inputs of the request, dimension) to write the rows into."""


@dataclass(frozen=True, slots=True, repr=False)
class SparseBlock:
    """The sparse rows of one answer.

    Attributes:
        lengths: int64 (rows,), the number of terms of each row.
        indices: uint32 (terms,), row after row.
        values: float32 (terms,), parallel to `indices`.
        tokens: the terms as text, a list a row; `None` if the answer had none.
    """

    lengths: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    tokens: list[list[str]] | None

    def __repr__(self) -> str:
        return f"<SparseBlock of {len(self.lengths)} rows, {len(self.indices)} terms>"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer holds beside the dense rows, which are in their place already.

    Attributes:
        vector_type: the answer's own.
        model: as the service names it; `None` if it does not.
        total_tokens: billed; `None` if the answer does not say.
        sparse: the rows of a sparse answer; `None` for a dense one.
    """

    vector_type: VectorType
    model: str | None
    total_tokens: int | None
    sparse: SparseBlock | None = None


def decode_whole(body: bytes, *, count: int, vector_type: VectorType | None, dimension: int | None, rows: RowsFor) -> Answer:
    """Judge a body as a whole and write its dense rows into `rows(dimension)`, with msgspec.

    Args:
        body: the whole body, decompressed.
        count: inputs of the request.
        vector_type: the kind expected, or `None` if the answer may tell.
        dimension: numbers per row expected, or `None` if the answer may tell.
        rows: gives the matrix (count, dimension) to write to; it may raise `ResponseError`.

    Raises:
        ResponseError: the body cannot be read or does not match the request; the matrix may have been
            written to in part.
    """
    if vector_type is None:
        vector_type = _vector_type_in(body)
    _check_no_crowd(body, count)
    answer: DenseAnswer | SparseAnswer
    problem = None
    try:
        answer = _DENSE.decode(body) if vector_type == "dense" else _SPARSE.decode(body)
    # RecursionError: nested deeper than the interpreter's stack.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = _describe(error)
    if problem is not None:
        # Raised here, not above: a UnicodeDecodeError holds the body, and must not be chained.
        raise ResponseError(_explain(body, vector_type) or problem)
    _check_vector_type(answer.vector_type, vector_type)
    _check_count(len(answer.data), count)
    _check_duplicates(body, answer)
    model = None if answer.model is UNSET else answer.model
    total_tokens = _total_tokens(answer.usage)
    if isinstance(answer, SparseAnswer):
        return Answer("sparse", model, total_tokens, _sparse_block(answer.data))
    _write_rows([item.values for item in answer.data], dimension, rows)
    return Answer("dense", model, total_tokens)


def judge_frame(gaps: Sequence[bytes], end: bytes) -> Answer | None:
    """Judge a dense answer whose rows are arrays of numbers, by what stands between these arrays.

    Where the same stands before every row but the first, the first two rows decide for all: what leads from inside the
    first item's array into the second item's leads from there into the third's.

    Args:
        gaps: what stands before each row, the brackets around rows included.
        end: what stands behind the last.

    Returns:
        The answer; `None` if anything is wrong with it, and `decode_whole` has to say what.
    """
    deciding = gaps[:2] if len(set(gaps[1:])) == 1 else gaps
    # With a number of ours in each array it is seen that each is where it should be. Nobody can guess it, so that an answer
    # cannot hold it in another place; as a float it is exact.
    first = secrets.randbits(_STAND_IN_BITS)
    numbers = range(first, first + len(deciding))
    frame = b"".join([b"%b%d" % pair for pair in zip(deciding, numbers, strict=True)]) + end
    try:
        answer = _DENSE.decode(frame)
        if answer.vector_type != "dense" or [item.values for item in answer.data] != [[number] for number in numbers]:
            return None
        _check_duplicates(frame, answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ResponseError):
        return None
    return Answer("dense", None if answer.model is UNSET else answer.model, _total_tokens(answer.usage))


_STAND_IN_BITS = 52
"""Of a number that stands in for a row: with as many rows more it has no more than the 53 that a float has."""


def has_more_rows(gaps: Sequence[bytes], end: bytes, count: int) -> bool:
    """Whether an answer has more items than `count`, by its beginning; then it is refused whatever follows.

    Args:
        gaps: what stands before each of the first `count` rows, as `judge_frame` takes it.
        end: the beginning of what stands behind the last of them.
        count: items that it should have.
    """
    closing = end.find(b"}", end.find(b"[") + 1) + 1
    # The first item that should not be there is closed, and then the answer.
    frame = b"".join([b"%b0" % gap for gap in gaps]) + end[:closing] + b"]}"
    return closing > 0 and _count_items(frame) > count


_FEW_BRACES = 1000


def _check_no_crowd(body: bytes, count: int) -> None:
    """Refuse an answer of very many items, before each of them becomes an object of some hundred bytes."""
    if _occurrences(body, b"{") > 2 * count + _FEW_BRACES and (got := _count_items(body)) > count:
        raise ResponseError(f"expected {count} embeddings, got {got} at `$.data`")


def _count_items(body: bytes) -> int:
    """How many items `data` has; 0 if that cannot be told."""
    try:
        return len(_ITEMS.decode(body).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


class _Item(Struct, gc=False):
    pass


class _Items(Struct):
    data: list[_Item]


_ITEMS = msgspec.json.Decoder(_Items)
_DENSE = msgspec.json.Decoder(DenseAnswer)
_SPARSE = msgspec.json.Decoder(SparseAnswer)
_SHAPE = msgspec.json.Decoder(AnswerShape)


def _vector_type_in(body: bytes) -> VectorType:
    problem = None
    try:
        shape = _SHAPE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = _describe(error)
    if problem is not None:
        raise ResponseError(problem)
    if shape.vector_type == "dense":
        return "dense"
    if shape.vector_type == "sparse":
        return "sparse"
    raise ResponseError('the answer has no vector_type "dense" or "sparse" at `$.vector_type`')


def _describe(error: Exception) -> str:
    # msgspec's messages name types and paths, never values.
    if isinstance(error, msgspec.DecodeError):
        return f"the answer cannot be read: {error}"
    if isinstance(error, UnicodeDecodeError):
        return "the answer cannot be read: it is not UTF-8"
    return "the answer cannot be read: it is nested too deeply"


def _explain(body: bytes, wanted: VectorType) -> str | None:
    """Say that a body which did not decode is of the other kind, if it is."""
    try:
        shape = _SHAPE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    other = "sparse" if wanted == "dense" else "dense"
    return _other_kind(other, wanted) if shape.vector_type == other else None


def _other_kind(got: str, wanted: str) -> str:
    shown = got if got in ("dense", "sparse") else "unknown"
    return f"expected {wanted} embeddings, got an answer of {shown} kind at `$.vector_type`"


def _check_vector_type(got: str, wanted: VectorType) -> None:
    if got != wanted:
        raise ResponseError(_other_kind(got, wanted))


def _check_count(got: int, count: int) -> None:
    if got != count:
        raise ResponseError(f"expected {count} embeddings, got {got} at `$.data`")


def _write_rows(data: Sequence[list[float]], dimension: int | None, rows: RowsFor) -> None:
    # All lengths are judged before `rows` is asked: it may take the first answer's dimension for good.
    wanted = len(data[0]) if dimension is None else dimension
    for position, values in enumerate(data):
        if len(values) != wanted:
            raise ResponseError(f"expected {wanted} numbers a row, got {len(values)} at `$.data[{position}].values`")
    if wanted == 0:
        raise ResponseError("the rows are empty at `$.data[0].values`")
    matrix = rows(wanted)
    # A number over float32's range becomes an infinity, quietly, and is found below.
    with np.errstate(over="ignore"):
        for position, values in enumerate(data):
            matrix[position] = values
    if not np.isfinite(matrix).all():
        position = int(np.argmin(np.isfinite(matrix).all(axis=1)))
        column = int(np.argmin(np.isfinite(matrix[position])))
        raise ResponseError(f"a number is out of float32's range at `$.data[{position}].values[{column}]`")


def _sparse_block(data: list[SparseItem]) -> SparseBlock:
    with_tokens = [bool(item.sparse_tokens) for item in data]
    for position, item in enumerate(data):
        if len(item.sparse_values) != len(item.sparse_indices):
            raise ResponseError(
                f"{len(item.sparse_indices)} indices but {len(item.sparse_values)} values at `$.data[{position}]`"
            )
        if with_tokens[position] and len(item.sparse_tokens or ()) != len(item.sparse_indices):
            raise ResponseError(
                f"{len(item.sparse_indices)} indices but {len(item.sparse_tokens or ())} tokens at "
                f"`$.data[{position}].sparse_tokens`"
            )
    lengths = np.fromiter((len(item.sparse_indices) for item in data), np.int64, len(data))
    total = int(lengths.sum())
    indices = np.fromiter((index for item in data for index in item.sparse_indices), np.uint32, total)
    with np.errstate(over="ignore"):
        values = np.fromiter((value for item in data for value in item.sparse_values), np.float32, total)
    if not np.isfinite(values).all():
        term = int(np.argmin(np.isfinite(values)))
        position = int(np.searchsorted(np.cumsum(lengths), term, side="right"))
        column = term - int(lengths[:position].sum())
        raise ResponseError(f"a number is out of float32's range at `$.data[{position}].sparse_values[{column}]`")
    tokens = [list(item.sparse_tokens or ()) for item in data] if any(with_tokens) else None
    return SparseBlock(lengths, indices, values, tokens)


class _TotalTokens(Struct):
    total_tokens: int | UnsetType = UNSET


_USAGE = msgspec.json.Decoder(_TotalTokens)


def _total_tokens(usage: Raw | UnsetType) -> int | None:
    """The tokens billed, or `None` where the answer does not say: that is no reason to pay for it again."""
    if usage is UNSET:
        return None
    try:
        total = _USAGE.decode(usage).total_tokens
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return total if isinstance(total, int) and 0 <= total <= MOST_TOKENS else None


def _occurrences(buffer: bytes | Raw, character: bytes) -> int:
    """How often a byte occurs; numpy is five times as fast as bytes.count, but takes its time to begin."""
    if len(buffer) < 2**16:
        return bytes(buffer).count(character)
    return int(np.count_nonzero(np.frombuffer(buffer, np.uint8) == ord(character)))


_FIELDS: Mapping[type[Struct], tuple[str, ...]] = {
    kind: kind.__struct_fields__ for kind in (DenseAnswer, SparseAnswer, DenseItem, SparseItem)
}


def _check_duplicates(body: bytes, answer: DenseAnswer | SparseAnswer) -> None:
    """Refuse a known key that occurs twice, which JSON parsers settle each in its own way.

    msgspec keeps the last one and tells nobody. But each known key, and each text kept, accounts for two
    quotation marks: if the body has no more than those, nothing was dropped. Otherwise it has keys that are
    not known, escapes, or duplicates, and is looked at key by key.
    """
    marks = 2 + 4  # the key of data; vector_type with its text
    if answer.model is not UNSET:
        marks += 4
    if isinstance(answer.usage, Raw):
        usage = bytes(answer.usage)
        own = usage.count(b'"')
        marks += 2 + own
        # A single key cannot occur twice.
        if own > 2:
            _refuse_duplicates(_pairs(usage), ("total_tokens",), "$.usage")
    # Counted each in one go: there are a hundred items in every answer.
    items = answer.data
    own_types = [item.vector_type for item in items if item.vector_type is not UNSET]
    marks += 2 * len(own_types) + b"".join(own_types).count(b'"')
    if isinstance(answer, SparseAnswer):
        tokens = [item.sparse_tokens for item in answer.data if item.sparse_tokens is not UNSET]
        marks += 4 * len(items) + 2 * len(tokens) + 2 * sum(len(words or ()) for words in tokens)
    else:
        marks += 2 * len(items)
    if marks == _occurrences(body, b'"') or not _dropped_something(body):
        return
    top = _pairs(body)
    _refuse_duplicates(top, _FIELDS[type(answer)], "$")
    kind = SparseItem if isinstance(answer, SparseAnswer) else DenseItem
    for position, pairs in enumerate(dict(top)["data"]):
        _refuse_duplicates(pairs, _FIELDS[kind], f"$.data[{position}]")


def _dropped_something(body: bytes) -> bool:
    """Whether a key may occur twice in the answer or one of its items, keys that are not known included."""
    try:
        top = msgspec.json.decode(body, type=dict[str, Raw])
        items = msgspec.json.decode(top["data"], type=list[dict[str, Raw]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    kept_at_top = sum(2 + _occurrences(value, b'"') for value in top.values())
    kept_in_items = sum(2 + _occurrences(value, b'"') for item in items for value in item.values())
    return kept_at_top != _occurrences(body, b'"') or kept_in_items != _occurrences(top["data"], b'"')


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all its keys, also those that occur twice."""


def _pairs(text: bytes) -> _Pairs:
    problem = None
    try:
        # Numbers are of no interest, and Python refuses integers of more than 4,300 digits.
        value = json.loads(text, object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        problem = "the answer cannot be read: what it holds beside the embeddings is malformed"
    if problem is not None:
        raise ResponseError(problem)
    return value if isinstance(value, _Pairs) else _Pairs()


def _refuse_duplicates(pairs: Iterable[tuple[str, Any]], known: tuple[str, ...], path: str) -> None:
    seen = set()
    for key, _ in pairs:
        if key in seen and key in known:
            raise ResponseError(f"the key {key!r} occurs twice at `{path}`")
        seen.add(key)
