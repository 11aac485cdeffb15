"""Encodes vectors as bytes, and decodes them.

A value is a run of little-endian words of four bytes: a mark, a check word and the vector, which is float32 numbers, or
uint32 indices followed by as many float32 values. The check word makes the sum of all words 0 modulo 2**32, which is
quick to verify for thousands of values at once. A damaged value counts as a miss.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._wire import SparseBlock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._wire import VectorType

_WORD = np.dtype("<u4")
_HEAD = 2
_DENSE_MARK = int.from_bytes(b"PED1", "little")
_SPARSE_MARK = int.from_bytes(b"PES1", "little")
_MARKS: Mapping[bytes, VectorType] = {b"PED1": "dense", b"PES1": "sparse"}


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """The vectors found in a cache for some texts.

    Attributes:
        count: texts looked up.
        rows: int (found,), ascending: indices of the texts found.
        dense: float32 (found, dimension), if they are dense.
        sparse: the rows, if they are sparse.
        refused: number of unusable values by reason.
    """

    count: int
    rows: NDArray[np.intp]
    dense: NDArray[np.float32] | None = None
    sparse: SparseBlock | None = None
    refused: Counter[str] = field(default_factory=Counter)

    def __repr__(self) -> str:
        return f"<Found {len(self.rows)} of {self.count}>"

    @property
    def vector_type(self) -> VectorType | None:
        """The vector type; `None` if no vectors were found."""
        return "dense" if self.dense is not None else "sparse" if self.sparse is not None else None

    @property
    def missing(self) -> NDArray[np.intp]:
        """Int, ascending: indices of the texts not found."""
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
    """A value for each row of a sparse answer, without its tokens, which are parts of the text."""
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


NOT_BYTES = "are not bytes"
DAMAGED = "are damaged"
OF_ANOTHER_KIND = "are of the other vector type, dense or sparse"
OF_ANOTHER_DIMENSION = "have another dimension"
NOT_FINITE = "hold numbers that are not finite"


def decode_values(values: Sequence[Any], vector_type: VectorType | None, dimension: int | None) -> Found:
    """The vectors that are whole, finite and of the expected vector type and dimension.

    Args:
        values: unchecked values from a cache; `None` for missing ones.
        vector_type: expected vector type; `None` for that of the first value.
        dimension: expected numbers per dense vector; `None` for that of the first value.
    """
    refused: Counter[str] = Counter()
    whole: dict[int, bytes] = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        taken = value if type(value) is bytes else _bytes_of(value)
        if taken is None:
            refused[NOT_BYTES] += 1
        elif taken[:4] in _MARKS and len(taken) % 4 == 0:
            whole[row] = taken
        else:
            refused[DAMAGED] += 1
    if not whole:
        return Found(len(values), np.empty(0, np.intp), refused=refused)
    kind = vector_type or _MARKS[next(iter(whole.values()))[:4]]
    alike = {row: value for row, value in whole.items() if _MARKS[value[:4]] == kind}
    refused[OF_ANOTHER_KIND] += len(whole) - len(alike)
    if kind == "sparse":
        return _decode_sparse(len(values), alike, refused)
    if dimension is None:
        dimension = next((_dimension_of(value) for value in alike.values()), 0)
    return _decode_dense(len(values), alike, dimension, refused)


def _bytes_of(value: object) -> bytes | None:
    """A bytes-like value as `bytes`, since its class may slice and compare in its own way; `None` if it is none."""
    try:
        view = memoryview(value)  # type: ignore[arg-type]
        # The bytes of an array of objects are their addresses.
        return None if "O" in view.format else view.tobytes()
    except Exception:  # noqa: BLE001 - a foreign class may raise anything from its buffer
        return None


def _dimension_of(value: bytes) -> int:
    return len(value) // 4 - _HEAD


def _decode_dense(count: int, values: Mapping[int, bytes], dimension: int, refused: Counter[str]) -> Found:
    # A vector without numbers is invalid.
    fitting = [row for row, value in values.items() if _dimension_of(value) == dimension > 0]
    refused[OF_ANOTHER_DIMENSION] += len(values) - len(fitting)
    found = np.asarray(fitting, np.intp)
    if not fitting:
        return Found(count, found, refused=refused)
    words = np.frombuffer(b"".join([values[row] for row in fitting]), _WORD).reshape(len(fitting), -1)
    is_whole = words.sum(axis=1, dtype=np.uint32) == 0
    vectors = words[:, _HEAD:].view(np.dtype("<f4"))
    is_finite = np.isfinite(vectors).all(axis=1)
    refused[DAMAGED] += int((~is_whole).sum())
    refused[NOT_FINITE] += int((is_whole & ~is_finite).sum())
    is_good = is_whole & is_finite
    if not is_good.all():
        vectors, found = vectors[is_good], found[is_good]
    if not len(found):
        return Found(count, found, refused=refused)
    return Found(count, found, dense=vectors.astype(np.float32, copy=False), refused=refused)


def _decode_sparse(count: int, values: Mapping[int, bytes], refused: Counter[str]) -> Found:
    fitting = [row for row, value in values.items() if len(value) >= 4 * _HEAD and len(value) % 8 == 0]
    refused[DAMAGED] += len(values) - len(fitting)
    found = np.asarray(fitting, np.intp)
    if not fitting:
        return Found(count, found, refused=refused)
    words = np.frombuffer(b"".join([values[row] for row in fitting]), _WORD)
    sizes = np.fromiter((len(values[row]) // 4 for row in fitting), np.int64, len(fitting))
    starts = np.cumsum(sizes) - sizes
    is_whole = np.add.reduceat(words, starts, dtype=np.uint32) == 0
    refused[DAMAGED] += int((~is_whole).sum())
    found, sizes, starts = found[is_whole], sizes[is_whole], starts[is_whole]
    if not len(found):
        return Found(count, found, refused=refused)
    block = _block_of(words, starts, (sizes - _HEAD) // 2)
    is_bad = np.zeros(len(found), np.bool_)
    is_bad[np.repeat(np.arange(len(found)), block.lengths)[~np.isfinite(block.values)]] = True
    if is_bad.any():
        refused[NOT_FINITE] += int(is_bad.sum())
        found, starts, sizes = found[~is_bad], starts[~is_bad], sizes[~is_bad]
        if not len(found):
            return Found(count, found, refused=refused)
        block = _block_of(words, starts, (sizes - _HEAD) // 2)
    return Found(count, found, sparse=block, refused=refused)


def _block_of(words: NDArray[np.uint32], starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> SparseBlock:
    """The rows whose heads begin at `starts` in the words."""
    # Position of each index in the words; a row's values follow its indices, one row length further on.
    ends = np.cumsum(lengths)
    at = np.arange(ends[-1]) + np.repeat(starts + _HEAD - (ends - lengths), lengths)
    indices = words[at].astype(np.uint32, copy=False)
    numbers = words[at + np.repeat(lengths, lengths)].view(np.dtype("<f4")).astype(np.float32, copy=False)
    return SparseBlock(lengths, indices, numbers, None)
