"""Validates answers: whole, item by item, or only the frame if the rows are already in the matrix."""

from __future__ import annotations

import functools
import secrets
from array import array
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._wire.strict_json import (
    MOST_BYTES,
    TOO_MUCH_BESIDE,
    check_form,
    check_object,
    decoded,
    decoded_or_none,
    is_lossless,
    is_plain,
    occurrences,
    pairs_of,
    refuse_duplicates,
)
from pinecone_embed_async._wire.structs import DenseItem, SparseItem

_MaybeRaw: TypeAlias = Raw | UnsetType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._wire.rows import RowSource
    from pinecone_embed_async._wire.structs import VectorType


class SparseBlock(Struct, frozen=True, eq=False):
    """The sparse rows of one answer.

    Attributes:
        lengths: int64, shape (rows,): the number of terms of each row.
        indices: uint32, shape (terms,), row after row.
        values: float32, shape (terms,), parallel to `indices`.
        tokens: the terms as texts, one list per row; `None` if the answer had none.
    """

    lengths: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    tokens: list[list[str]] | None

    def __repr__(self) -> str:
        return f"<SparseBlock of {len(self.lengths)} rows, {len(self.indices)} terms>"


class Answer(Struct, frozen=True):
    """An answer without its dense rows, which are already in the matrix.

    Attributes:
        vector_type: the answer's vector type.
        model: the model's name in the answer; `None` if it has none.
        total_tokens: tokens billed; `None` if the answer does not report them.
        sparse: the rows of a sparse answer; `None` for a dense one.
    """

    vector_type: VectorType
    model: str | None
    total_tokens: int | None
    sparse: SparseBlock | None = None


_PLACEHOLDER = secrets.randbits(52)
_PLACEHOLDER_BYTES = b"%d" % _PLACEHOLDER
"""Placeholder of a row. It is random and never leaves the process, so that an answer cannot contain it elsewhere."""

_READ_AT_ONCE = 2**16
"""Bytes of items held as Python objects at a time: little memory, but enough to make the overhead of the calls small."""

_SMALL = 2**18
"""Maximum size in bytes of a sparse answer whose items all become objects at once, in one pass instead of two, which takes
two thirds of the time. The answer to a request of 96 short texts has about 130 KiB."""


class WholeAnswer:
    """Validates a complete answer a few items at a time, so that only their objects are in memory.

    Args:
        body: the whole body, decompressed.
        count: number of inputs of the request.
        vector_type: expected vector type; `None` if the answer decides.
        dimension: expected numbers per row; `None` if the answer decides.

    Raises:
        ResponseError: from any method, if the body cannot be read or does not match the request.
    """

    def __init__(self, body: bytes, *, count: int, vector_type: VectorType | None, dimension: int | None) -> None:
        self._body = body
        self._count = count
        self._dimension = dimension
        small = None if vector_type == "dense" or len(body) > _SMALL else _small_sparse_of(body, count)
        self._top = small or _top_of(body, count)
        self._kind = _kind_of(self._top.vector_type, vector_type)
        # Number of items read, and of their quotation marks; 0 if the whole answer is plain (see `is_plain`).
        self._read = self._quotes = 0
        self._lengths: list[int] = []
        # float32, row after row, and uint32.
        self._values = array("f")
        self._indices = array("I")
        self._tokens: list[list[str]] = []
        if small is not None:
            self._read_small(small)

    @property
    def is_done(self) -> bool:
        """Whether all items are validated."""
        return self._read == self._count

    def judge(self, most: int) -> None:
        """Validate further items.

        Args:
            most: number of bytes after which no further item is started.
        """
        while most > 0 and not self.is_done:
            texts = self._next_items(min(most, _READ_AT_ONCE))
            joined = b",".join(texts)
            most -= len(joined)
            if self._kind == "dense":
                marks, types = self._read_dense(decoded(_DENSE_ITEMS, b"[%b]" % joined, self._read))
            else:
                marks, types = self._read_sparse(decoded(_SPARSE_ITEMS, b"[%b]" % joined, self._read))
            self._check_items(texts, joined, marks, types)

    def finish(self, rows: RowSource) -> Answer:
        """Validate the answer as a whole; all its items must have been validated.

        Args:
            rows: provides the matrix (count, dimension) for dense rows; may raise `ResponseError`.
        """
        top = self._top
        if self._quotes and not is_plain(occurrences(self._body, b'"') - self._quotes, top.marks, [top.usage]):
            self._check_beside()
        tokens = _billed_tokens(top.usage)
        sparse = None
        if self._kind == "sparse":
            sparse = self._sparse_block()
        else:
            self._write_rows(rows)
        return Answer(self._kind, None if top.model is UNSET else top.model, tokens, sparse)

    def _next_items(self, size: int) -> list[bytes]:
        """The next unread items, of at least `size` bytes in total if that many are left."""
        texts: list[bytes] = []
        for position in range(self._read, self._count):
            text = bytes(self._top.data[position])
            if len(text) > MOST_BYTES:
                raise ResponseError(f"an embedding has more than 1 MiB at `$.data[{position}]`")
            texts.append(text)
            size -= len(text)
            if size <= 0:
                break
        return texts

    def _read_small(self, small: _SparseTop) -> None:
        marks, types = self._read_sparse(small.data)
        # Free the objects, which take many times the memory of the body.
        small.data = []
        if is_plain(occurrences(self._body, b'"'), marks + small.marks, [*types, small.usage]):
            self._read = self._count
        else:
            self._top = _top_of(self._body, self._count)
            texts = self._next_items(len(self._body))
            self._check_items(texts, b",".join(texts), marks, types)

    def _read_dense(self, items: list[DenseItem]) -> tuple[int, list[_MaybeRaw]]:
        """Store items; return the number of their quotation marks, without each `vector_type`, and their vector types."""
        for item in items:
            self._lengths.append(len(item.values))
            self._values.fromlist(item.values)
        return 2 * len(items), [item.vector_type for item in items]

    def _read_sparse(self, items: list[SparseItem]) -> tuple[int, list[_MaybeRaw]]:
        """Store sparse items; see `_read_dense`."""
        marks = 4 * len(items)
        for position, item in enumerate(items, self._read):
            indices, values, tokens = item.sparse_indices, item.sparse_values, item.sparse_tokens
            length = len(indices)
            if len(values) != length:
                raise ResponseError(f"{length} indices but {len(values)} values at `$.data[{position}]`")
            if tokens and len(tokens) != length:
                raise ResponseError(f"{length} indices but {len(tokens)} tokens at `$.data[{position}].sparse_tokens`")
            marks += 0 if tokens is UNSET else 2 + 2 * len(tokens or ())
            self._lengths.append(length)
            self._values.fromlist(values)
            self._indices.fromlist(indices)
            self._tokens.append(tokens or [])
        return marks, [item.vector_type for item in items]

    def _check_items(self, texts: Sequence[bytes], joined: bytes, marks: int, types: Sequence[_MaybeRaw]) -> None:
        """Check the parts of items that msgspec has skipped, and count the items as read."""
        quotes = occurrences(joined, b'"')
        known = DenseItem if self._kind == "dense" else SparseItem
        for position, text in enumerate(() if is_plain(quotes, marks, types) else texts, self._read):
            check_object(text, known, f"$.data[{position}]", levels_above=2)
        self._quotes += quotes
        self._read += len(texts)

    def _check_beside(self) -> None:
        data = bytes(_DATA.decode(self._body).data)
        if len(self._body) - len(data) > MOST_BYTES:
            raise ResponseError(TOO_MUCH_BESIDE)
        before, _, after = self._body.partition(data)
        # If the bytes of `data` occur twice in the body, check the whole body.
        check_object(self._body if data in after else before + b"[]" + after, _Top, "$")

    def _write_rows(self, rows: RowSource) -> None:
        # All lengths are checked before `rows` is called, because it may set the dimension for later answers.
        wanted = self._lengths[0] if self._dimension is None else self._dimension
        for position, length in enumerate(self._lengths):
            if length != wanted:
                raise ResponseError(f"expected {wanted} numbers per row, got {length} at `$.data[{position}].values`")
        if wanted == 0:
            raise ResponseError("the rows are empty at `$.data[0].values`")
        values = self._finite_values("values")
        rows.rows(wanted)[:] = values.reshape(self._count, wanted)

    def _sparse_block(self) -> SparseBlock:
        values, indices = self._finite_values("sparse_values"), np.frombuffer(self._indices, np.uint32)
        tokens = self._tokens if any(self._tokens) else None
        return SparseBlock(np.array(self._lengths, np.int64), indices, values, tokens)

    def _finite_values(self, key: str) -> NDArray[np.float32]:
        values = np.frombuffer(self._values, np.float32)
        # A number beyond float32's range has become an infinity.
        if not np.isfinite(values).all():
            place = int(np.argmin(np.isfinite(values)))
            position = int(np.searchsorted(np.cumsum(self._lengths), place, side="right"))
            column = place - sum(self._lengths[:position])
            raise ResponseError(f"a number is out of float32's range at `$.data[{position}].{key}[{column}]`")
        return values


def judge_frame(gaps: Sequence[bytes], end: bytes | bytearray) -> Answer | None:
    """Validate a dense answer whose rows are arrays of numbers, by the bytes between these arrays.

    If the bytes before all rows except the first are equal, checking two rows is enough: bytes that lead from the first
    item's array into the second's also lead from the second into the third.

    Args:
        gaps: the bytes before each row, including the brackets around rows.
        end: the bytes after the last row.

    Returns:
        The answer; `None` if anything is wrong with it, which `WholeAnswer` then reports.
    """
    deciding = gaps[:2] if len(set(gaps[1:])) == 1 else gaps
    if sum(map(len, deciding)) + len(end) > MOST_BYTES:
        return None
    # Each item must have one placeholder. If there are as many items as placeholders, each array is where it should be.
    frame = _PLACEHOLDER_BYTES.join([*deciding, end])
    try:
        answer = _FRAME.decode(frame)
        if len(answer.data) != len(deciding):
            return None
        if not is_lossless(frame, answer):
            _check_frame(frame)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ResponseError):
        return None
    return Answer("dense", None if answer.model is UNSET else answer.model, answer.usage.total_tokens)


def _check_frame(frame: bytes) -> None:
    check_form(frame)
    top = pairs_of(frame)
    refuse_duplicates(top, _Frame, "$")
    parts = dict(top)
    refuse_duplicates(parts.get("usage", ()), _Usage, "$.usage")
    for position, pairs in enumerate(parts["data"]):
        refuse_duplicates(pairs, _FrameItem, f"$.data[{position}]")


# Parts of an answer.

MOST_TOKENS = 2**53
"""Maximum plausible number of tokens: more than any answer costs, and the largest integer that all JSON parsers read
exactly."""


class _Usage(Struct, frozen=True, omit_defaults=True):
    total_tokens: Annotated[int, Meta(ge=0, le=MOST_TOKENS)] | None = None


class _FrameItem(Struct, gc=False):
    values: tuple[Annotated[int, Meta(ge=_PLACEHOLDER, le=_PLACEHOLDER)]]
    vector_type: str | UnsetType = UNSET


class _Frame(Struct, omit_defaults=True):
    """The frame of a usual dense answer. It omits defaults, as `is_lossless` requires."""

    data: list[_FrameItem]
    vector_type: Literal["dense"]
    model: str | UnsetType = UNSET
    usage: _Usage = _Usage()


class _Item(Struct, gc=False):
    pass


class _Items(Struct):
    data: list[_Item]


class _Data(Struct):
    data: Raw


class _Top(Struct):
    data: Any
    """A tuple of exactly `count` `Raw` items, so that no objects are created for surplus items."""
    vector_type: str | UnsetType = UNSET
    model: str | UnsetType = UNSET
    usage: Raw | UnsetType = UNSET

    @property
    def marks(self) -> int:
        """Number of quotation marks of `data`'s key, and of `vector_type` and `model` with their keys."""
        return 6 if self.model is UNSET else 10


class _SparseTop(_Top):
    data: list[SparseItem]


_USAGE = msgspec.json.Decoder(_Usage)
_ITEMS = msgspec.json.Decoder(_Items)
_DATA = msgspec.json.Decoder(_Data)
_FRAME = msgspec.json.Decoder(_Frame)
_DENSE_ITEMS = msgspec.json.Decoder(list[DenseItem])
_SPARSE = msgspec.json.Decoder(_SparseTop)
_SPARSE_ITEMS = msgspec.json.Decoder(list[SparseItem])


@functools.lru_cache(maxsize=128)
def _top_decoder(count: int) -> msgspec.json.Decoder[_Top]:
    items = tuple.__class_getitem__((Raw,) * count)
    return msgspec.json.Decoder(msgspec.defstruct("_TopOfSome", [("data", items)], bases=(_Top,)))


def _top_of(body: bytes, count: int) -> _Top:
    try:
        return decoded(_top_decoder(count), body)
    except ResponseError as error:
        problem = error.message
    got = _count_items(body)
    if got == count and len(body) <= MOST_BYTES:
        refuse_duplicates(pairs_of(body), _Top, "$")
    elif got not in (0, count):
        problem = f"the answer cannot be read: expected {count} embeddings, got {got} at `$.data`"
    raise ResponseError(problem)


def _small_sparse_of(body: bytes, count: int) -> _SparseTop | None:
    """A sparse answer with all its items; `None` if it is something else, which `_top_of` then reports."""
    top = decoded_or_none(_SPARSE, body)
    return top if top is not None and top.vector_type == "sparse" and len(top.data) == count else None


_MANY_BRACES = 10_000


def _count_items(body: bytes) -> int:
    """Number of items in `data`; 0 if it cannot be determined or might be huge."""
    items = None if body.count(b"{") > _MANY_BRACES else decoded_or_none(_ITEMS, body)
    return 0 if items is None else len(items.data)


def _kind_of(got: str | UnsetType, wanted: VectorType | None) -> VectorType:
    if got not in ("dense", "sparse") and (got is UNSET or wanted is None):
        raise ResponseError('the answer must have vector_type "dense" or "sparse" at `$.vector_type`')
    if wanted is not None and got != wanted:
        shown = got if got in ("dense", "sparse") else "unknown"
        raise ResponseError(f"expected {wanted} embeddings, got an answer of {shown} kind at `$.vector_type`")
    return "dense" if got == "dense" else "sparse"


def _billed_tokens(usage: _MaybeRaw) -> int | None:
    """Tokens billed; `None` if the answer does not report them, which is no reason to reject it and pay again.

    Raises:
        ResponseError: the usage is too large, or has the key twice.
    """
    text = b"" if usage is UNSET else bytes(usage)
    # A single key cannot occur twice.
    if text.count(b'"') > 2:
        if len(text) > MOST_BYTES:
            raise ResponseError(TOO_MUCH_BESIDE)
        refuse_duplicates(pairs_of(text), _Usage, "$.usage")
    found = decoded_or_none(_USAGE, text)
    return None if found is None else found.total_tokens
