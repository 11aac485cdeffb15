import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from pinecone_embed_async._cache import Found
from pinecone_embed_async._cache.values import decode_values, encode_dense, encode_sparse
from pinecone_embed_async._wire import SparseBlock

FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=32)
MATRICES = arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=FLOATS)


@st.composite
def sparse_blocks(draw: st.DrawFn) -> SparseBlock:
    lengths = np.array(draw(st.lists(st.integers(0, 5), min_size=1, max_size=6)), np.int64)
    terms = int(lengths.sum())
    indices = draw(arrays.arrays(np.uint32, terms, elements=st.integers(0, 2**32 - 1)))
    return SparseBlock(lengths, indices, draw(arrays.arrays(np.float32, terms, elements=FLOATS)), None)


def with_gaps(values: list[bytes], gaps: set[int]) -> list[bytes | None]:
    return [None if row in gaps else value for row, value in enumerate(values)]


@given(MATRICES, st.sets(st.integers(0, 6)))
def test_dense_rows_come_back_bit_by_bit(matrix: NDArray[np.float32], gaps: set[int]) -> None:
    found = decode_values(with_gaps(encode_dense(matrix), gaps), "dense", matrix.shape[1])
    expected = [row for row in range(len(matrix)) if row not in gaps]
    assert found.rows.tolist() == expected
    assert sorted([*found.rows.tolist(), *found.missing.tolist()]) == list(range(len(matrix)))
    if expected:
        assert found.dense is not None
        assert found.dense.dtype == np.float32
        assert found.dense.tobytes() == matrix[expected].tobytes()
    else:
        assert found.vector_type is None


@given(sparse_blocks(), st.sets(st.integers(0, 5)))
def test_sparse_rows_come_back_bit_by_bit(block: SparseBlock, gaps: set[int]) -> None:
    found = decode_values(with_gaps(encode_sparse(block), gaps), "sparse", None)
    expected = [row for row in range(len(block.lengths)) if row not in gaps]
    assert found.rows.tolist() == expected
    ends = np.cumsum(block.lengths)
    terms = [term for row in expected for term in range(ends[row] - block.lengths[row], ends[row])]
    if expected:
        assert found.sparse is not None
        assert found.sparse.lengths.tolist() == block.lengths[expected].tolist()
        assert found.sparse.indices.tobytes() == block.indices[terms].tobytes()
        assert found.sparse.values.tobytes() == block.values[terms].tobytes()
        assert found.sparse.tokens is None


def with_a_flipped_bit(values: list[bytes], data: st.DataObject) -> tuple[list[bytes | None], int]:
    """The values with one bit flipped, and the row of that bit."""
    broken = data.draw(st.integers(0, len(values) - 1))
    value = bytearray(values[broken])
    bit = data.draw(st.integers(0, 8 * len(value) - 1))
    value[bit // 8] ^= 1 << bit % 8
    return [*values[:broken], bytes(value), *values[broken + 1 :]], broken


@given(MATRICES, st.data())
def test_a_flipped_bit_loses_only_its_row(matrix: NDArray[np.float32], data: st.DataObject) -> None:
    values, broken = with_a_flipped_bit(encode_dense(matrix), data)
    found = decode_values(values, "dense", matrix.shape[1])
    assert found.missing.tolist() == [broken]


@given(sparse_blocks(), st.data())
def test_a_flipped_bit_loses_only_its_sparse_row(block: SparseBlock, data: st.DataObject) -> None:
    values, broken = with_a_flipped_bit(encode_sparse(block), data)
    assert decode_values(values, "sparse", None).missing.tolist() == [broken]


@given(st.lists(st.one_of(st.none(), st.binary(max_size=40)), max_size=5), st.sampled_from(["dense", "sparse", None]))
def test_an_invalid_value_is_not_found(values: list[bytes | None], kind: str | None) -> None:
    found = decode_values(values, kind, None)  # type: ignore[arg-type]
    assert (len(found.rows), found.count, found.vector_type) == (0, len(values), None)
    assert found.refused.total() == len(values) - values.count(None), "each is counted once"


DENSE = encode_dense(np.ones((2, 3), np.float32))
SPARSE = encode_sparse(SparseBlock(np.array([1]), np.array([7], np.uint32), np.array([1], np.float32), None))


@pytest.mark.parametrize(
    ("values", "vector_type", "dimension", "rows"),
    [
        (DENSE + SPARSE, "dense", None, [0, 1]),
        (DENSE + SPARSE, "sparse", None, [2]),
        (DENSE + SPARSE, None, None, [0, 1]),
        (SPARSE + DENSE, None, None, [0]),
        (DENSE, "dense", 4, []),
        (DENSE + encode_dense(np.ones((1, 4), np.float32)), "dense", 4, [2]),
        (DENSE + encode_dense(np.ones((1, 4), np.float32)), None, None, [0, 1]),
        ([bytes(20)], "dense", None, []),
        ([bytes(len(DENSE[0]))], "dense", 3, []),
        ([bytes(16)], "sparse", None, []),
        ([SPARSE[0][:8], *SPARSE, SPARSE[0][:-4]], "sparse", None, [1]),
        ([], None, None, []),
    ],
)
def test_only_the_expected_vector_type_and_dimension_are_found(
    values: list[bytes], vector_type: str | None, dimension: int | None, rows: list[int]
) -> None:
    found = decode_values(values, vector_type, dimension)  # type: ignore[arg-type]
    assert found.rows.tolist() == rows
    assert found.refused.total() == len(values) - len(rows), "each of the others is counted once"


def test_refused_values_are_counted_by_reason() -> None:
    infinite = encode_dense(np.full((2, 3), np.inf, np.float32))
    found = decode_values([7, "a", None, *infinite, b"damaged", *DENSE], "dense", 3)
    assert found.rows.tolist() == [6, 7]
    assert +found.refused == {"are not bytes": 2, "hold numbers that are not finite": 2, "are damaged": 1}


def test_tokens_are_left_out_of_values() -> None:
    block = SparseBlock(np.array([1]), np.array([7], np.uint32), np.array([1], np.float32), [["secret"]])
    assert encode_sparse(block) == SPARSE


def test_its_repr_shows_counts() -> None:
    assert repr(Found(3, np.array([1]))) == "<Found 1 of 3>"
