"""Validates answers: whole, item by item, or only the frame if the rows are already in the matrix."""

from __future__ import annotations

import functools
import re
import secrets
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._wire.strict_json import (
    DEEPEST,
    MOST_BYTES,
    TOO_MUCH_BESIDE,
    check_form,
    describe,
    has_each_key_once,
    occurrences,
    pairs_of,
    refuse_duplicates,
)
from pinecone_embed_async._wire.structs import DenseItem, SparseItem
from pinecone_embed_async._wire.usage import billed_tokens, check_usage

_T = TypeVar("_T")

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._wire.rows import RowSource
    from pinecone_embed_async._wire.structs import VectorType


@dataclass(frozen=True, slots=True, repr=False)
class SparseBlock:
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


_FIRST_PLACEHOLDER = secrets.randbits(52)
"""Placeholder of the first row; the others count up from it. It is random and never leaves the process, so that an answer
cannot contain it elsewhere, and all of them fit into the 53 bits of a float."""

_READ_AT_ONCE = 2**16
"""Bytes of items that are Python objects at a time: little memory, but enough to make the overhead of the calls small."""

_SMALL = 2**18
"""Maximum size in bytes of a sparse answer whose items all become objects at once, in one pass instead of two. The answer to
a request of 96 short texts has about 130 KiB."""


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
        small = None if vector_type == "dense" or len(body) > _SMALL else _sparse_of(body, count)
        self._top = small or _top_of(body, count)
        self._kind = _kind_of(self._top.vector_type, vector_type)
        # Number of items read, and of items checked key by key.
        self._read = self._checked = 0
        self._is_plain = False
        # Number of quotation marks read, and values kept raw.
        self._marks = 0
        self._raws: list[Raw] = []
        self._lengths: list[int] = []
        # float32, row after row, and uint32.
        self._values = array("f")
        self._indices = array("I")
        self._tokens: list[list[str]] = []
        if small is not None:
            self._read_sparse(small.data)
            # Free the objects, which take many times the memory of the body.
            small.data = []
            self._note_read(count)
            if not self.is_done:
                self._top = _top_of(body, count)

    @property
    def is_done(self) -> bool:
        """Whether all items are validated."""
        return self._checked == self._count

    def judge(self, most: int) -> None:
        """Validate further items.

        Args:
            most: number of bytes after which no further item is started.
        """
        while most > 0 and not self.is_done:
            if self._read == self._count:
                text = bytes(self._top.data[self._checked])
                most -= len(text)
                self._check(text)
                self._checked += 1
                continue
            texts = self._next_items(min(most, _READ_AT_ONCE))
            most -= sum(map(len, texts))
            if self._kind == "dense":
                self._read_dense(_decode_items(_DENSE_ITEMS, texts, self._read))
            else:
                self._read_sparse(_decode_items(_SPARSE_ITEMS, texts, self._read))
            self._note_read(len(texts))

    def finish(self, rows: RowSource) -> Answer:
        """Validate the answer as a whole; all its items must have been validated.

        Args:
            rows: provides the matrix (count, dimension) for dense rows; may raise `ResponseError`.
        """
        if not self._is_plain:
            self._check_beside()
        check_usage(self._top.usage)
        model = None if self._top.model is UNSET else self._top.model
        billed = billed_tokens(self._top.usage)
        if self._kind == "sparse":
            return Answer("sparse", model, billed, self._sparse_block())
        self._write_rows(rows)
        return Answer("dense", model, billed)

    def _next_items(self, size: int) -> list[bytes]:
        """The next unread items, with at least `size` bytes together if there are so many."""
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

    def _read_dense(self, items: Sequence[DenseItem]) -> None:
        self._raws += [item.vector_type for item in items if item.vector_type is not UNSET]
        self._marks += 2 * len(items)
        for item in items:
            self._lengths.append(len(item.values))
            self._values.fromlist(item.values)

    def _read_sparse(self, items: Sequence[SparseItem]) -> None:
        self._raws += [item.vector_type for item in items if item.vector_type is not UNSET]
        for position, item in enumerate(items, self._read):
            indices, values, tokens = item.sparse_indices, item.sparse_values, item.sparse_tokens
            length = len(indices)
            if len(values) != length:
                raise ResponseError(f"{length} indices but {len(values)} values at `$.data[{position}]`")
            if tokens and len(tokens) != length:
                raise ResponseError(f"{length} indices but {len(tokens)} tokens at `$.data[{position}].sparse_tokens`")
            self._marks += 4 if tokens is UNSET else 6 + 2 * len(tokens or ())
            self._lengths.append(length)
            self._values.fromlist(values)
            self._indices.fromlist(indices)
            self._tokens.append(tokens or [])

    def _note_read(self, items: int) -> None:
        self._read += items
        if self._read == self._count:
            self._is_plain = _is_plain(self._body, self._marks, self._raws, self._top)
            if self._is_plain or _is_plain(self._data(), self._marks, self._raws):
                self._checked = self._count

    def _check(self, text: bytes) -> None:
        check_form(text, levels_above=2)
        if not has_each_key_once(text):
            known = (DenseItem if self._kind == "dense" else SparseItem).__struct_fields__
            refuse_duplicates(pairs_of(text), known, f"$.data[{self._checked}]")

    def _data(self) -> bytes:
        return bytes(_DATA.decode(self._body).data)

    def _check_beside(self) -> None:
        data = self._data()
        if len(self._body) - len(data) > MOST_BYTES:
            raise ResponseError(TOO_MUCH_BESIDE)
        before, _, after = self._body.partition(data)
        # If the bytes of `data` occur twice in the body, check the whole body.
        beside = self._body if data in after else before + b"[]" + after
        check_form(beside)
        refuse_duplicates(pairs_of(beside), _Top.__struct_fields__, "$")

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
    # A placeholder in each array shows that the array is where it should be.
    numbers = range(_FIRST_PLACEHOLDER, _FIRST_PLACEHOLDER + len(deciding))
    frame = b"".join([b"%b%d" % pair for pair in zip(deciding, numbers, strict=True)]) + end
    if len(frame) > MOST_BYTES:
        return None
    try:
        answer = _DENSE.decode(frame)
        if answer.vector_type != "dense" or [item.values for item in answer.data] != [[number] for number in numbers]:
            return None
        _check_frame(frame, answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ResponseError):
        return None
    return Answer("dense", None if answer.model is UNSET else answer.model, billed_tokens(answer.usage))


def _check_frame(frame: bytes, answer: _DenseTop) -> None:
    own_types = [item.vector_type for item in answer.data if item.vector_type is not UNSET]
    check_usage(answer.usage)
    if _is_plain(frame, 2 * len(answer.data), own_types, answer):
        return
    check_form(frame)
    top = pairs_of(frame)
    refuse_duplicates(top, _Top.__struct_fields__, "$")
    for position, pairs in enumerate(dict(top)["data"]):
        refuse_duplicates(pairs, DenseItem.__struct_fields__, f"$.data[{position}]")


# Parts of an answer.


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
    usage: Raw = Raw()
    """Empty if the answer has none."""


class _DenseTop(_Top):
    data: list[DenseItem]


class _SparseTop(_Top):
    data: list[SparseItem]


_ITEMS = msgspec.json.Decoder(_Items)
_DATA = msgspec.json.Decoder(_Data)
_DENSE = msgspec.json.Decoder(_DenseTop)
_DENSE_ITEMS = msgspec.json.Decoder(list[DenseItem])
_SPARSE = msgspec.json.Decoder(_SparseTop)
_SPARSE_ITEMS = msgspec.json.Decoder(list[SparseItem])


@functools.lru_cache(maxsize=128)
def _top_decoder(count: int) -> msgspec.json.Decoder[_Top]:
    items = tuple.__class_getitem__((Raw,) * count)
    return msgspec.json.Decoder(msgspec.defstruct("_TopOfSome", [("data", items)], bases=(_Top,)))


def _top_of(body: bytes, count: int) -> _Top:
    problem = ""
    try:
        return _top_decoder(count).decode(body)
    # RecursionError: the JSON is nested too deeply for the interpreter's stack.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = describe(error)
    got = _count_items(body)
    if got == count and len(body) <= MOST_BYTES:
        refuse_duplicates(pairs_of(body), _Top.__struct_fields__, "$")
    elif got not in (0, count):
        problem = f"the answer cannot be read: expected {count} embeddings, got {got} at `$.data`"
    # Raised here, outside the `except` block, because a UnicodeDecodeError holds the body and must not be chained.
    raise ResponseError(problem)


def _sparse_of(body: bytes, count: int) -> _SparseTop | None:
    """A sparse answer with all its items; `None` if it is something else, which `_top_of` then reports."""
    try:
        top = _SPARSE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return top if top.vector_type == "sparse" and len(top.data) == count else None


_MANY_BRACES = 10_000


def _count_items(body: bytes) -> int:
    """Number of items in `data`; 0 if it cannot be determined or might be huge."""
    if body.count(b"{") > _MANY_BRACES:
        return 0
    try:
        return len(_ITEMS.decode(body).data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0


def _kind_of(got: str | UnsetType, wanted: VectorType | None) -> VectorType:
    if got not in ("dense", "sparse") and (got is UNSET or wanted is None):
        raise ResponseError('the answer must have vector_type "dense" or "sparse" at `$.vector_type`')
    if wanted is not None and got != wanted:
        shown = got if got in ("dense", "sparse") else "unknown"
        raise ResponseError(f"expected {wanted} embeddings, got an answer of {shown} kind at `$.vector_type`")
    return "dense" if got == "dense" else "sparse"


_PLACE = re.compile(r"`\$\[(\d+)\]")
"""How msgspec's errors name an item of a list."""


def _decode_items(decoder: msgspec.json.Decoder[list[_T]], texts: Sequence[bytes], start: int) -> list[_T]:
    problem = ""
    try:
        return decoder.decode(b"[" + b",".join(texts) + b"]")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        problem = _PLACE.sub(lambda found: f"`$.data[{start + int(found[1])}]", describe(error))
    raise ResponseError(problem)


# Checks of the parts that msgspec skips. msgspec silently keeps only the last of several equal keys. But each known key and
# each text accounts for two quotation marks, so if there are no more marks than those, nothing was dropped.


def _is_plain(text: bytes, marks: int, own_types: Sequence[Raw], top: _Top | None = None) -> bool:
    """Whether msgspec has read the whole text, skipping nothing.

    Args:
        text: an item, all items, or an answer.
        marks: number of quotation marks in the items' keys and texts, without their `vector_type`.
        own_types: the `vector_type` of items that have one.
        top: the answer; `None` for items without their answer.
    """
    marks += 2 * len(own_types)
    raws = b"".join(own_types)
    if top is not None:
        # Quotation marks of the key `data`, of `vector_type` with its text, and of `model`.
        marks += 6 if top.model is UNSET else 10
        usage = bytes(top.usage)
        marks += 2 if usage else 0
        raws += usage
    return (
        marks + raws.count(b'"') == occurrences(text, b'"')
        and raws.isascii()
        and raws.count(b"[") + raws.count(b"{") < DEEPEST - 4
    )
