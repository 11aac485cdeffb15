"""Vectors as bytes and back.

A value is a run of little-endian words of four bytes: a mark, a check word, and the vector: float32 numbers, or uint32
indices followed by as many float32 values. The check word makes the sum of all words 0 modulo 2**32, which is quick to
verify for thousands of values at once. A value that is not whole is as good as none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._wire import SparseBlock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._models import VectorType

_WORD = np.dtype("<u4")
_HEAD = 2
_DENSE_MARK = int.from_bytes(b"PED1", "little")
_SPARSE_MARK = int.from_bytes(b"PES1", "little")
_MARKS: Mapping[bytes, VectorType] = {b"PED1": "dense", b"PES1": "sparse"}


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """What a cache had of some texts.

    Attributes:
        count: texts looked up.
        rows: int (found,), ascending: which of them were found.
        dense: float32 (found, dimension), if they are dense.
        sparse: the rows, if they are sparse.
    """

    count: int
    rows: NDArray[np.intp]
    dense: NDArray[np.float32] | None = None
    sparse: SparseBlock | None = None

    def __repr__(self) -> str:
        return f"<Found {len(self.rows)} of {self.count}>"

    @property
    def vector_type(self) -> VectorType | None:
        """The kind of the vectors; `None` if none were found."""
        return "dense" if self.dense is not None else "sparse" if self.sparse is not None else None

    @property
    def missing(self) -> NDArray[np.intp]:
        """Int, ascending: which of the texts were not found."""
        missing = np.ones(self.count, np.bool_)
        missing[self.rows] = False
        return np.flatnonzero(missing)


def encode_dense(matrix: NDArray[np.float32]) -> list[bytes]:
    """A value for each row of a float32 matrix."""
    words = np.empty((len(matrix), _HEAD + matrix.shape[1]), _WORD)
    words[:, 0] = _DENSE_MARK
    words[:, 1] = 0
    words[:, _HEAD:] = np.ascontiguousarray(matrix, np.dtype("<f4")).view(_WORD)
    words[:, 1] = -words.sum(axis=1, dtype=np.uint32)
    return [row.tobytes() for row in words]


def encode_sparse(block: SparseBlock) -> list[bytes]:
    """A value for each row of a sparse answer; its tokens, which are parts of the text, are left out."""
    values = []
    numbers = block.values.astype(np.dtype("<f4")).view(_WORD)
    start = 0
    for length in block.lengths.tolist():
        stop = start + length
        head = np.array([_SPARSE_MARK, 0], _WORD)
        words = np.concatenate([head, block.indices[start:stop].astype(_WORD), numbers[start:stop]])
        words[1:2] = -words.sum(dtype=np.uint32, keepdims=True)
        values.append(words.tobytes())
        start = stop
    return values


def decode_values(values: Sequence[bytes | None], vector_type: VectorType | None, dimension: int | None) -> Found:
    """The vectors that are whole and of the kind and dimension expected.

    Args:
        values: as a cache gives them; `None` for what is not there.
        vector_type: the kind expected; `None` to take that of the first one.
        dimension: numbers per dense vector expected; `None` to take that of the first one.
    """
    rows = [row for row, value in enumerate(values) if value is not None and value[:4] in _MARKS]
    if rows:
        first = values[rows[0]] or b""
        if (vector_type or _MARKS[first[:4]]) == "sparse":
            return _decode_sparse(values, rows)
        if dimension is None:
            dimension = next((_dimension_of(value) for row in rows if _is_dense(value := values[row] or b"")), 0)
        return _decode_dense(values, rows, 4 * (_HEAD + dimension))
    return Found(len(values), np.empty(0, np.intp))


def _is_dense(value: bytes) -> bool:
    return _MARKS[value[:4]] == "dense"


def _dimension_of(value: bytes) -> int:
    return len(value) // 4 - _HEAD


def _decode_dense(values: Sequence[bytes | None], rows: list[int], size: int) -> Found:
    fitting = [row for row in rows if len(values[row] or b"") == size] if size > 4 * _HEAD else []
    found = np.asarray(fitting, np.intp)
    if not fitting:
        return Found(len(values), found)
    words = np.frombuffer(b"".join([values[row] or b"" for row in fitting]), _WORD).reshape(len(fitting), -1)
    is_whole = (words[:, 0] == _DENSE_MARK) & (words.sum(axis=1, dtype=np.uint32) == 0)
    if not is_whole.all():
        words, found = words[is_whole], found[is_whole]
    if not len(found):
        return Found(len(values), found)
    vectors = words[:, _HEAD:].view(np.dtype("<f4")).astype(np.float32, copy=False)
    return Found(len(values), found, dense=vectors)


def _decode_sparse(values: Sequence[bytes | None], rows: list[int]) -> Found:
    fitting = [row for row in rows if (size := len(values[row] or b"")) >= 4 * _HEAD and size % 8 == 0]
    found = np.asarray(fitting, np.intp)
    if not fitting:
        return Found(len(values), found)
    words = np.frombuffer(b"".join([values[row] or b"" for row in fitting]), _WORD)
    sizes = np.fromiter((len(values[row] or b"") // 4 for row in fitting), np.int64, len(fitting))
    starts = np.cumsum(sizes) - sizes
    is_whole = (words[starts] == _SPARSE_MARK) & (np.add.reduceat(words, starts, dtype=np.uint32) == 0)
    found, sizes, starts = found[is_whole], sizes[is_whole], starts[is_whole]
    if not len(found):
        return Found(len(values), found)
    lengths = (sizes - _HEAD) // 2
    # Where in the words each index stands; the values stand as far behind their indices as there are terms in the row.
    ends = np.cumsum(lengths)
    at = np.arange(ends[-1]) + np.repeat(starts + _HEAD - (ends - lengths), lengths)
    indices = words[at].astype(np.uint32, copy=False)
    numbers = words[at + np.repeat(lengths, lengths)].view(np.dtype("<f4")).astype(np.float32, copy=False)
    return Found(len(values), found, sparse=SparseBlock(lengths, indices, numbers, None))
