"""Parts of a result: which inputs an index selects, what they keep of the result, and what no index is."""

import enum
import pickle
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pinecone_embed_async import DenseEmbeddings, Failure, InputError, SparseEmbeddings, TransportError, Usage

COUNT = 7
REFUSED, LOST = InputError("input 1 is bad", index=1), TransportError("lost")
EMBEDDED = np.array([True, False, True, True, False, False, True])
FAILURES = (Failure([1, 5], REFUSED), Failure([4], LOST))
EMPTY_ROW = 3
"""Of the sparse result: embedded, and without terms."""


def dense() -> DenseEmbeddings:
    vectors = np.arange(COUNT * 3, dtype=np.float32).reshape(COUNT, 3)
    vectors[~EMBEDDED] = np.nan
    return DenseEmbeddings(vectors, model="m", usage=Usage(9, 2), failures=FAILURES, embedded=EMBEDDED.copy())


def sparse() -> SparseEmbeddings:
    lengths = np.where(EMBEDDED, np.arange(COUNT) + 1, 0)
    lengths[EMPTY_ROW] = 0
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    indices = np.arange(indptr[-1], dtype=np.uint32)
    tokens = [[f"{row}-{term}" for term in range(length)] for row, length in enumerate(lengths.tolist())]
    return SparseEmbeddings(
        indptr,
        indices,
        indices.astype(np.float32) / np.float32(2),
        model="m",
        usage=Usage(9, 2),
        tokens=tokens,
        failures=FAILURES,
        embedded=EMBEDDED.copy(),
    )


BOTH: list[Callable[[], Any]] = [dense, sparse]


def content(result: Any, row: int) -> object:
    vector = result[row]
    if isinstance(result, DenseEmbeddings):
        return np.nan_to_num(vector, nan=-1).tolist()
    return vector.indices.tolist(), vector.values.tolist(), vector.tokens


def check(result: Any, picked: Any, rows: list[int]) -> None:
    """The result holds these rows of the other, with what became of each."""
    assert type(picked) is type(result)
    assert len(picked) == len(rows)
    assert picked.shape == (len(rows), result.shape[1])
    assert [content(picked, at) for at in range(len(rows))] == [content(result, row) for row in rows]
    assert picked.embedded.tolist() == [bool(result.embedded[row]) for row in rows]
    causes = {index: failure.error for failure in result.failures for index in failure.indices}
    found = {index: failure.error for failure in picked.failures for index in failure.indices}
    assert found == {at: causes[row] for at, row in enumerate(rows) if row in causes}
    assert all(list(failure.indices) == sorted(failure.indices) for failure in picked.failures)
    assert len({id(failure.error) for failure in picked.failures}) == len(picked.failures)
    assert picked.model == "m"
    assert picked.usage is None


SLICES = st.slices(COUNT)
POSITIONS = st.lists(st.integers(-COUNT, COUNT - 1), max_size=12)
MASKS = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT)


@pytest.mark.parametrize("make", BOTH)
@given(rows=SLICES)
def test_a_slice_is_a_result_of_its_inputs(make: Callable[[], Any], rows: slice) -> None:
    result = make()
    check(result, result[rows], list(range(COUNT))[rows])


@pytest.mark.parametrize("make", BOTH)
@given(rows=POSITIONS, as_array=st.sampled_from([list, np.array, lambda rows: np.array(rows, np.int8)]))
def test_positions_are_taken_in_their_order_and_as_often(
    make: Callable[[], Any], rows: list[int], as_array: Callable[[list[int]], Any]
) -> None:
    result = make()
    check(result, result[as_array(rows)], [row % COUNT for row in rows])


@pytest.mark.parametrize("make", BOTH)
@given(mask=MASKS, as_array=st.sampled_from([list, np.array, lambda rows: np.array(rows, object)]))
def test_a_mask_takes_what_it_is_true_for(
    make: Callable[[], Any], mask: list[bool], as_array: Callable[[list[bool]], Any]
) -> None:
    result = make()
    check(result, result[as_array(mask)], [row for row, is_taken in enumerate(mask) if is_taken])


@given(outer=SLICES, mask=st.data())
def test_a_selection_can_be_selected_from(outer: slice, mask: st.DataObject) -> None:
    rows = list(range(COUNT))[outer]
    inner = mask.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    for make in BOTH:
        result = make()
        picked = result[outer][np.array(inner, np.bool_)]
        check(result, picked, [row for row, is_taken in zip(rows, inner, strict=True) if is_taken])
        assert picked.not_tried.tolist() == []


class Row(enum.IntEnum):
    SECOND = 2


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize("row", [2, -5, np.int64(2), np.uint8(2), np.array(2), Row.SECOND])
def test_one_position_is_a_vector(make: Callable[[], Any], row: Any) -> None:
    result = make()
    assert content(result, row) == content(result, 2)
    assert np.shares_memory(result[row] if isinstance(result, DenseEmbeddings) else result[row].values, memory(result))


def memory(result: Any) -> NDArray[Any]:
    found: NDArray[Any] = result.vectors if isinstance(result, DenseEmbeddings) else result.values
    return found


def test_slices_share_the_memory_and_others_copy_it() -> None:
    for result, rows, is_shared in (
        (dense(), slice(2, 5), True),
        (dense(), slice(None, None, -2), True),
        (sparse(), slice(2, 5), True),
        (sparse(), slice(None, None, -2), False),
    ):
        assert np.shares_memory(memory(result[rows]), memory(result)) is is_shared
        for others in ([0, 2], EMBEDDED, np.array([0, 2])):
            assert not np.shares_memory(memory(result[others]), memory(result))


@pytest.mark.parametrize("make", BOTH)
def test_series_count_by_position_whatever_their_labels_are(make: Callable[[], Any]) -> None:
    pandas, polars, pyarrow = map(import_module, ("pandas", "polars", "pyarrow"))
    result = make()
    shuffled = pandas.Series(EMBEDDED, index=range(COUNT)[::-1])
    taken = [0, 2, 3, 6]
    for mask in (shuffled, shuffled.astype("boolean"), polars.Series(EMBEDDED), pyarrow.array(EMBEDDED)):
        check(result, result[mask], taken)
    for rows in (pandas.Series(taken), pandas.Series(taken, dtype="Int64"), polars.Series(taken), pyarrow.array(taken)):
        check(result, result[rows], taken)
    check(result, result[pandas.Index(taken)], taken)
    with pytest.raises(TypeError, match="got missing values: fill them first"):
        result[pandas.Series([True, None] + [False] * 5, dtype="boolean")]
    with pytest.raises(TypeError, match="of shape"):
        result[pandas.DataFrame({"a": EMBEDDED, "b": EMBEDDED})]


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("index", "message"),
    [
        (7, "rows must be from -7 to 6, got 7"),
        (-8, "rows must be from -7 to 6, got -8"),
        (2**70, f"rows must be from -7 to 6, got {2**70}"),
        ([0, 7], "rows must be from -7 to 6, got 7"),
        ([2**70], f"rows must be from -7 to 6, got {2**70}"),
        (np.array([0, 2**63], np.uint64), f"rows must be from -7 to 6, got {2**63}"),
        ([True], "a mask must have one bool for each of the 7 rows, got 1"),
        (np.ones(8, np.bool_), "a mask must have one bool for each of the 7 rows, got 8"),
        (np.empty(0, np.bool_), "a mask must have one bool for each of the 7 rows, got 0"),
    ],
)
def test_an_index_that_is_out_of_range_says_what_may_be(make: Callable[[], Any], index: Any, message: str) -> None:
    with pytest.raises(IndexError, match=f"^{re.escape(message)}$"):
        make()[index]


@pytest.mark.parametrize("make", BOTH)
@pytest.mark.parametrize(
    ("index", "message"),
    [
        ((0, 2), "got a tuple: pass a list"),
        ({0, 2}, "got a set: pass a list"),
        ({0: 2}, "got a dict: pass a list"),
        ((row for row in range(2)), "got a generator: pass a list"),
        ("ab", "got a str"),
        (b"ab", "got a bytes"),
        (True, "got True"),
        (np.True_, "got bool of shape ()"),
        (None, "got a NoneType"),
        (..., "got a ellipsis"),
        (1.0, "got a float"),
        (np.float32(1), "got float32 of shape ()"),
        ([0.0, 2.0], "got float64: convert them with .astype(int)"),
        (np.array([0.5]), "got float64: convert them with .astype(int)"),
        ([[0, 2]], "got int64 of shape (1, 2)"),
        ([[0], [1, 2]], "got rows of several lengths"),
        ([True, 2, 0, 0, 0, 0, 0], "got a mix of bools and others"),
        ([None], "got missing values: fill them first, mask.fillna(False) for example"),
        (["a"], "got <U1"),
        ([object()], "got values of other types"),
    ],
)
def test_what_is_no_index_is_refused_with_a_cure(make: Callable[[], Any], index: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"{re.escape(message)}$"):
        make()[index]


def test_an_empty_result_has_no_rows_and_empty_parts() -> None:
    nothing = dense()[:0]
    with pytest.raises(IndexError, match="an empty result has no row 0"):
        nothing[0]
    for part in (nothing[1:], nothing[[]], nothing[np.empty(0, np.bool_)], sparse()[[]], sparse()[5:2]):
        assert len(part) == 0
        assert part.failures == ()


def test_a_dense_result_is_an_array_at_once_and_without_a_copy() -> None:
    result = dense()
    assert np.asarray(result) is result.vectors
    assert np.array(result, copy=None) is result.vectors
    assert not np.shares_memory(np.array(result), result.vectors)
    assert not np.shares_memory(np.array(result, copy=True), result.vectors)
    assert np.asarray(result, np.float64).dtype == np.float64
    assert np.asarray(result, copy=False) is result.vectors
    with pytest.raises(ValueError, match="copy"):
        np.asarray(result, np.float64, copy=False)
    np.testing.assert_array_equal(np.vstack([result[:1], result[2:3]]), result.vectors[[0, 2]])


@pytest.mark.parametrize("ask", [np.asarray, np.array, lambda result: np.asarray(result, np.float32)])
def test_a_sparse_result_is_no_array_and_says_what_to_use(ask: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match=r"7 rows of 2\*\*32 numbers; use its indices and values, dot\(\), or to_scipy"):
        ask(sparse())


def test_shapes() -> None:
    assert dense().shape == (7, 3)
    assert sparse().shape == (7, 2**32)


def test_a_repr_tells_counts_shape_tokens_and_failures() -> None:
    assert repr(dense()) == "<DenseEmbeddings (7, 3) float32, model='m', tokens=9, requests=2, missing=3, failed=3>"
    assert repr(dense()[1:3]) == "<DenseEmbeddings (2, 3) float32, model='m', usage=None, missing=1, failed=1>"
    assert repr(sparse()) == "<SparseEmbeddings 7 rows, 11 terms, model='m', tokens=9, requests=2, missing=3, failed=3>"


@pytest.mark.parametrize("make", BOTH)
def test_a_selection_can_be_pickled(make: Callable[[], Any]) -> None:
    picked = make()[1:6]
    again = pickle.loads(pickle.dumps(picked))  # noqa: S301 - made here
    assert [content(again, row) for row in range(5)] == [content(picked, row) for row in range(5)]
    assert again.usage is None


def test_scores_of_a_selection_are_those_of_its_rows() -> None:
    result = sparse()
    scores = result.dot(result)
    np.testing.assert_array_equal(result[2:].dot(result), scores[2:])
    np.testing.assert_array_equal(result[[6, 0]].dot(result[::2]), scores[[6, 0]][:, ::2])
