"""Encodes vectors as bytes, and decodes them.

A value is a sequence of little-endian words of four bytes: a mark, a check word and the vector. A dense vector is its
float32 numbers, a sparse one its uint32 indices followed by as many float32 values. The check word makes the sum of all
words 0 modulo 2**32, which is quick to verify for thousands of values at once. A damaged value counts as a miss.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._results import flat_positions
from pinecone_embed_async._wire import SparseBlock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._wire import VectorType

_WORD = np.dtype("<u4")
_NUMBER = np.dtype("<f4")
_HEAD = 2
_HEADER = Struct("<II")
"""The mark and the check word."""

_DENSE_MARK = int.from_bytes(b"PED1", "little")
_SPARSE_MARK = int.from_bytes(b"PES1", "little")
_MARKS: Mapping[bytes, VectorType] = {b"PED1": "dense", b"PES1": "sparse"}


@dataclass(frozen=True, slots=True, repr=False)
class Found:
    """The vectors found in a cache for some texts.

    Attributes:
        count: number of texts looked up.
        rows: ascending indices of the texts found: intp, shape (found,).
        dense: the vectors if they are dense: float32, shape (found, dimension).
        sparse: the vectors if they are sparse.
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
        """Ascending indices of the texts not found: intp."""
        missing = np.ones(self.count, np.bool_)
        missing[self.rows] = False
        return np.flatnonzero(missing)


def encode_dense(matrix: NDArray[np.float32]) -> list[bytes]:
    """Encode each row of a float32 matrix as a value."""
    numbers = np.ascontiguousarray(matrix, _NUMBER)
    checks = -(numbers.view(_WORD).sum(axis=1, dtype=np.uint32) + np.uint32(_DENSE_MARK))
    return [_HEADER.pack(_DENSE_MARK, check) + row.tobytes() for check, row in zip(checks.tolist(), numbers, strict=True)]


def encode_sparse(block: SparseBlock) -> list[bytes]:
    """Encode each row of a sparse answer as a value, without its tokens, which are parts of the text."""
    values = []
    indices, numbers = block.indices.astype(_WORD), block.values.astype(_NUMBER).view(_WORD)
    for start, stop in pairwise([0, *np.cumsum(block.lengths).tolist()]):
        words = np.concatenate([indices[start:stop], numbers[start:stop]])
        check = -(int(words.sum(dtype=np.uint32)) + _SPARSE_MARK) % 2**32
        values.append(_HEADER.pack(_SPARSE_MARK, check) + words.tobytes())
    return values


NOT_BYTES = "are not bytes"
DAMAGED = "are damaged"
OF_ANOTHER_KIND = "are of the other vector type, dense or sparse"
OF_ANOTHER_DIMENSION = "have another dimension"
NOT_FINITE = "hold numbers that are not finite"


def decode_values(values: Sequence[Any], vector_type: VectorType | None, dimension: int | None) -> Found:
    """Decode the values that are undamaged, finite and of the expected vector type and dimension.

    Args:
        values: unchecked values from a cache; `None` for missing ones.
        vector_type: expected vector type; `None` for that of the first undamaged value.
        dimension: expected numbers per dense vector; `None` for that of the first such vector.
    """
    refused: Counter[str] = Counter()
    fitting: dict[int, bytes] = {}
    for row, value in enumerate(values):
        if value is None:
            continue
        taken = value if type(value) is bytes else _bytes_of(value)
        if taken is None:
            refused[NOT_BYTES] += 1
            continue
        kind, numbers = _MARKS.get(taken[:4]), len(taken) // 4 - _HEAD
        # The head and each term of a sparse vector have eight bytes.
        if kind is None or len(taken) % (4 if kind == "dense" else 8):
            refused[DAMAGED] += 1
        elif kind != (vector_type := vector_type or kind):
            refused[OF_ANOTHER_KIND] += 1
        # A vector without numbers is invalid.
        elif kind == "dense" and (numbers <= 0 or numbers != (dimension := dimension or numbers)):
            refused[OF_ANOTHER_DIMENSION] += 1
        else:
            fitting[row] = taken
    if not fitting:
        return Found(len(values), np.empty(0, np.intp), refused=refused)
    return _decode(len(values), fitting, refused, is_dense=vector_type == "dense")


def _decode(count: int, values: Mapping[int, bytes], refused: Counter[str], *, is_dense: bool) -> Found:
    """Decode values whose size fits their vector type."""
    rows = np.array(list(values), np.intp)
    words = np.frombuffer(b"".join(values.values()), _WORD)
    sizes = np.array([len(value) // 4 for value in values.values()], np.int64)
    starts = np.cumsum(sizes) - sizes
    terms = (sizes - _HEAD) // (1 if is_dense else 2)
    if is_dense:
        numbers = words.reshape(len(rows), -1)[:, _HEAD:].view(_NUMBER)
        is_finite = np.isfinite(numbers).all(axis=1)
    else:
        numbers = words[flat_positions(starts + _HEAD + terms, terms)].view(_NUMBER)
        is_finite = np.bincount(np.repeat(np.arange(len(rows)), terms), ~np.isfinite(numbers), len(rows)) == 0
    is_whole = np.add.reduceat(words, starts, dtype=np.uint32) == 0
    is_good = is_whole & is_finite
    refused[DAMAGED] += int(np.count_nonzero(~is_whole))
    refused[NOT_FINITE] += int(np.count_nonzero(is_whole & ~is_finite))
    if not is_good.any():
        return Found(count, rows[is_good], refused=refused)
    if is_dense:
        return Found(count, rows[is_good], dense=numbers[is_good].astype(np.float32, copy=False), refused=refused)
    indices = words[flat_positions(starts + _HEAD, terms)]
    kept = np.repeat(is_good, terms)
    block = SparseBlock(
        terms[is_good],
        indices[kept].astype(np.uint32, copy=False),
        numbers[kept].astype(np.float32, copy=False),
        None,
    )
    return Found(count, rows[is_good], sparse=block, refused=refused)


def _bytes_of(value: object) -> bytes | None:
    """A bytes-like value as `bytes`, because its own class may slice and compare differently; `None` for anything else."""
    try:
        view = memoryview(value)  # type: ignore[arg-type]
        # The bytes of an array of objects are only addresses.
        return None if "O" in view.format else view.tobytes()
    except Exception:  # noqa: BLE001 - a foreign class may raise anything from its buffer
        return None
