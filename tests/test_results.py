import itertools
import math
import sys
import tracemalloc
from collections.abc import Generator, Iterator
from dataclasses import FrozenInstanceError
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pinecone_embed_async import (
    ConfigurationError,
    DenseEmbeddings,
    Failure,
    ResponseError,
    SparseEmbeddings,
    TransportError,
    Usage,
)
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._results import DenseRows, Dimension, all_steps, sparse_of_blocks
from pinecone_embed_async._results import sparse as sparse_results
from pinecone_embed_async._wire import SparseBlock
from tests.outcomes import planned


def sparse() -> SparseEmbeddings:
    block = SparseBlock(np.array([1]), np.array([9], np.uint32), np.array([0.5], np.float32), [["nine"]])
    other = SparseBlock(np.array([2]), np.array([4, 5], np.uint32), np.array([1, 2], np.float32), None)
    return put_together([(np.array([2]), block), (np.array([0]), other)], [True, False, True])


def put_together(blocks: list[tuple[NDArray[np.intp], SparseBlock]], embedded: list[bool]) -> SparseEmbeddings:
    return all_steps(sparse_of_blocks(blocks, np.array(embedded), model="m", usage=Usage(), failures=()))


def test_sparse_answers_are_put_in_order_with_empty_rows_between() -> None:
    result = sparse()
    assert result.indptr.tolist() == [0, 2, 2, 3]
    assert result.indices.tolist() == [4, 5, 9]
    assert result.tokens == [[], [], ["nine"]]
    assert len(result[1]) == 0
    assert result[-1].values.tolist() == [0.5]
    assert [len(vector) for vector in result] == [2, 0, 1]
    with pytest.raises(IndexError):
        result[3]


def test_rows_of_an_answer_with_one_row_of_another_between_them_are_put_around_it() -> None:
    blocks = []
    for positions, terms in (([0, 2], [4, 9]), ([1], [5])):
        numbers = np.array(terms)
        block = SparseBlock(np.ones(len(terms), np.int64), numbers.astype(np.uint32), numbers.astype(np.float32), None)
        blocks.append((np.array(positions), block))
    result = put_together(blocks, [True, True, True])
    assert (result.indices.tolist(), result.values.tolist()) == ([4, 5, 9], [4.0, 5.0, 9.0])


def test_a_usage_and_a_sparse_vector_cannot_be_changed_and_are_small() -> None:
    for value, name in ((Usage(), "requests"), (sparse()[0], "indices")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)
        assert not hasattr(value, "__dict__")


def test_records_leave_out_what_is_not_embedded() -> None:
    assert sparse().to_records(["a", "b", "c"], metadata=[{"k": 1}, None, None]) == [
        {"id": "a", "metadata": {"k": 1}, "sparse_values": {"indices": [4, 5], "values": [1.0, 2.0]}},
        {"id": "c", "sparse_values": {"indices": [9], "values": [0.5]}},
    ]
    dense = DenseEmbeddings(np.ones((1, 2), np.float32), model="m", usage=Usage())
    assert dense.to_records(["a"]) == [{"id": "a", "values": [1.0, 1.0]}]
    with pytest.raises(ValueError, match="ids must have one value for each of the"):
        dense.to_records([])
    with pytest.raises(ValueError, match="metadata must have one value for each of the"):
        dense.to_records(["a"], metadata=[])


def test_inputs_neither_embedded_nor_failed_are_not_tried() -> None:
    failure = Failure(range(1, 2), TransportError("cut"))
    embedded = np.array([True, False, False])
    vectors = np.array([[1, 1], [np.nan, np.nan], [np.nan, np.nan]], np.float32)
    result = DenseEmbeddings(vectors, model="m", usage=Usage(), failures=(failure,), embedded=embedded)
    assert result.not_tried.tolist() == [2]
    assert "missing=2" in repr(result)


def test_an_answer_of_another_dimension_than_the_earlier_ones_is_refused() -> None:
    rows = DenseRows(2, Dimension(None))
    rows.matrix(3)
    with pytest.raises(ResponseError, match="expected 3 numbers per row"):
        rows.matrix(4)


def test_rows_of_an_unknown_dimension_have_no_numbers() -> None:
    assert all_steps(ResultBuilder(0, 2, Dimension(None)).finish("m", "dense")).shape == (2, 0)


def test_usage_counts_answers_that_do_not_say_what_they_cost() -> None:
    assert Usage() == Usage(total_tokens=0, requests=0, unreported=0)
    assert Usage().plus(7).plus(None).plus(None) == Usage(total_tokens=7, requests=3, unreported=2)


def test_a_misspelt_attribute_of_a_result_is_an_error() -> None:
    dense = all_steps(ResultBuilder(0, 2, Dimension(3)).finish("m", "dense"))
    for result in (dense, sparse(), sparse()[0], Usage()):
        with pytest.raises((AttributeError, TypeError)):
            setattr(result, "vector", None)  # noqa: B010 - the type checker would refuse the attribute


def test_reprs_show_counts_and_no_values() -> None:
    assert "0.5" not in repr(sparse()) + repr(sparse()[2])


def two_rows() -> DenseEmbeddings:
    return DenseEmbeddings(np.array([[1, 2], [3, 4]], np.float32), model="m", usage=Usage())


def both() -> list[Any]:
    indptr, numbers = np.array([0, 1, 2]), np.array([7, 8])
    sparse_rows = SparseEmbeddings(indptr, numbers.astype(np.uint32), numbers.astype(np.float32), model="m", usage=Usage())
    return [two_rows(), sparse_rows]


class Labelled:
    """Looks like a series of pandas that was shuffled: asked for `[0]`, it gives what is labelled so."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, label: int) -> Any:
        return self._values[-1 - label]


class Endless:
    """Ids that never end."""

    def __iter__(self) -> Iterator[str]:
        return map(str, itertools.count())


@pytest.mark.parametrize("rows", both(), ids=lambda rows: type(rows).__name__)
def test_ids_and_metadata_are_taken_by_position(rows: DenseEmbeddings | SparseEmbeddings) -> None:
    for ids in (Labelled(["a", "b"]), iter(["a", "b"]), np.array(["a", "b"]), {"a": 1, "b": 2}.keys()):
        records = rows.to_records(ids, Labelled([{"of": "a"}, None]))
        assert [(record["id"], record.get("metadata")) for record in records] == [("a", {"of": "a"}), ("b", None)]
        assert {type(record["id"]) for record in records} == {str}


def test_a_series_of_pandas_that_was_filtered_or_shuffled_is_taken_by_position() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"id": ["a", "b", "c"], "about": [{"n": 1}, {"n": 2}, {"n": 3}]})
    shuffled = frame.iloc[[2, 0]]
    for rows in both():
        records = rows.to_records(shuffled["id"], shuffled["about"])
        assert [(record["id"], record["metadata"]["n"]) for record in records] == [("c", 3), ("a", 1)]
        with pytest.raises(ConfigurationError, match=r'ids must be .* got a DataFrame: pass df\["id"\]'):
            rows.to_records(shuffled)
        with pytest.raises(ConfigurationError, match=r'metadata must be .* got a DataFrame: pass df.to_dict\("records"\)'):
            rows.to_records(["a", "b"], shuffled[["about"]])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ({0: "a", 1: "b"}, "ids must be an iterable with one value for each input, in order, got a dict"),
        ({"a", "b"}, "got a set: pass a list, which has an order"),
        ("ab", "got a str: pass a list"),
        (b"ab", "got a bytes: pass a list"),
        (5, "got a int: pass a list"),
        (["a"], "ids must have one value for each of the 2 inputs, got 1"),
        (["a", "b", "c"], "ids must have one value for each of the 2 inputs, got 3"),
        (Endless(), "ids must have one value for each of the 2 inputs, got more"),
        ([1, 2], r"got int for input 0: pass map\(str, ids\)"),
        (["a", np.int64(2)], r"got int64 for input 1: pass map\(str, ids\)"),
        (["a", float("nan")], "got a missing value, float for input 1"),
        (["a", None], "got a missing value, NoneType for input 1"),
        (["a", ""], "got an empty text for input 1"),
        (["a", b"b"], "got bytes for input 1"),
    ],
)
def test_ids_that_cannot_be_the_inputs_are_refused(ids: Any, message: str) -> None:
    for rows in both():
        with pytest.raises(ConfigurationError, match=message) as caught:
            rows.to_records(ids)
        assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"a": 1, "b": 2}, "metadata must be an iterable with one value for each input, in order, got a dict"),
        ([{}], "metadata must have one value for each of the 2 inputs, got 1"),
        ([{}, 5], "metadata must be a mapping or None for each input, got int for input 1"),
        ("ab", "got a str: pass a list"),
    ],
)
def test_metadata_that_cannot_be_the_inputs_are_refused(metadata: Any, message: str) -> None:
    for rows in both():
        with pytest.raises(ConfigurationError, match=message):
            rows.to_records(["a", "b"], metadata)


def test_rows_without_terms_are_left_out_of_records_and_told(caplog: pytest.LogCaptureFixture) -> None:
    indptr = np.array([0, 1, 1, 1, 2])
    embedded = np.array([True, True, False, True])
    numbers = np.array([1, 2])
    rows = SparseEmbeddings(
        indptr, numbers.astype(np.uint32), numbers.astype(np.float32), model="m", usage=Usage(), embedded=embedded
    )
    assert [record["id"] for record in rows.to_records(["a", "b", "c", "d"])] == ["a", "d"]
    assert rows.without_terms.tolist() == [1]
    assert "1 of 4 rows have no terms and are left out of the records, because an index refuses them: rows 1" in caplog.text


def drawn(seed: int, rows: int, *, columns: int = 50) -> SparseEmbeddings:
    draws = np.random.default_rng(seed)
    lengths = draws.integers(0, 12, rows)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    vocabulary = draws.choice(2**32, columns, replace=False) if seed % 2 else np.arange(2**32 - columns, 2**32)
    indices = np.concatenate([draws.choice(vocabulary, length, replace=False) for length in lengths] or [np.empty(0)])
    values = draws.normal(size=len(indices)).astype(np.float32)
    return SparseEmbeddings(indptr, indices.astype(np.uint32), values, model="m", usage=Usage())


def table(rows: SparseEmbeddings, vocabulary: NDArray[Any]) -> NDArray[np.float64]:
    place = {index: column for column, index in enumerate(vocabulary.tolist())}
    dense = np.zeros((len(rows), len(vocabulary)))
    for row, vector in enumerate(rows):
        for index, value in zip(vector.indices.tolist(), vector.values.tolist(), strict=True):
            if index in place:
                dense[row, place[index]] += value
    return dense


@pytest.mark.parametrize("most", [1, 64, 2**21])
@pytest.mark.parametrize("sizes", [(0, 0), (0, 3), (3, 0), (1, 1), (40, 23)])
def test_scores_between_results_are_those_of_the_dense_tables(
    most: int, sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sparse_results, "_PRODUCTS", most)
    for seed in range(4):
        left, right = drawn(seed, sizes[0]), drawn(seed % 2 + 2, sizes[1])
        vocabulary = np.union1d(left.vocabulary, right.vocabulary)
        scores = left.dot(right)
        assert scores.shape == sizes
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, table(left, vocabulary) @ table(right, vocabulary).T, rtol=1e-5, atol=1e-5)
        for row in range(min(2, len(right))):
            np.testing.assert_array_equal(left.dot(right[row]), scores[:, row])


def test_scores_of_rows_that_are_not_embedded_are_nan() -> None:
    scores = sparse().dot(sparse())
    assert np.isnan(scores[1]).all()
    assert np.isnan(scores[:, 1]).all()
    assert scores[[0, 0, 2], [0, 2, 2]].tolist() == [5.0, 0.0, 0.25]


def test_results_of_different_models_have_no_scores() -> None:
    other = drawn(1, 2)
    other.model = "another"
    with pytest.raises(ConfigurationError, match="other must be of model 'm', got 'another'"):
        drawn(1, 2).dot(other)
    with pytest.raises(ConfigurationError, match="other must be SparseEmbeddings or a SparseVector, got ndarray"):
        drawn(1, 2).dot(np.zeros(2))  # type: ignore[arg-type]


def test_a_vocabulary_gives_as_many_columns_in_its_order() -> None:
    for seed in range(4):
        rows = drawn(seed, 30)
        own = np.random.default_rng(seed).permutation(rows.vocabulary)
        vocabularies: list[Any] = [own, own[::2], np.append(own, np.uint32(5)), own.tolist(), []]
        for vocabulary in vocabularies:
            indptr, columns, values = rows.compressed(vocabulary)
            dense = np.zeros((len(rows), len(vocabulary)))
            for row in range(len(rows)):
                span = slice(indptr[row], indptr[row + 1])
                dense[row, columns[span]] = values[span]
            np.testing.assert_allclose(dense, table(rows, np.asarray(vocabulary, np.int64)))


@pytest.mark.parametrize("vocabulary", [[1, 1], [-1], [2**32], [0.5], ["a"], [[1], [2]], 5])
def test_a_vocabulary_that_is_none_is_refused(vocabulary: Any) -> None:
    with pytest.raises(ConfigurationError, match="vocabulary must"):
        drawn(1, 2).compressed(vocabulary)


def test_a_vocabulary_may_hold_every_index_from_0_and_no_other() -> None:
    assert sparse_of([np.array([0], np.uint32)]).compressed([0])[1].tolist() == [0]
    with pytest.raises(ConfigurationError, match="vocabulary must hold indices from 0 to 4294967295"):
        drawn(1, 2).compressed([-1, 5])


def test_scores_take_little_memory_beside_their_own_however_many_products_they_have() -> None:
    left, right = (sparse_of([np.zeros(1, np.uint32)] * rows) for rows in (1500, 2048))
    tracemalloc.start()
    try:
        scores = left.dot(right)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A million products and as many scores at a time, each with a few numbers of 8 bytes; without a limit 94 MiB.
    assert peak - scores.nbytes < 60 * 2**20


def test_columns_for_scipy_are_every_index_there_is_or_a_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_module, scipy = ModuleType("scipy.sparse"), ModuleType("scipy")
    vars(sparse_module)["csr_array"] = lambda arrays, shape: (*arrays, shape)
    vars(scipy)["sparse"] = sparse_module
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    result = sparse()
    values, columns, indptr, shape = result.to_scipy()
    assert shape == (3, 2**32)
    assert values is result.values
    assert (columns.tolist(), indptr.tolist()) == ([4, 5, 9], [0, 2, 2, 3])
    values, columns, indptr, shape = result.to_scipy([9, 4])
    assert shape == (3, 2)
    assert (values.tolist(), columns.tolist(), indptr.tolist()) == ([1.0, 0.5], [1, 0], [0, 1, 1, 2])


@given(st.data())
def test_sparse_rows_are_spread_whatever_is_equal(data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=4), min_size=1, max_size=12))
    positions = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=30))
    result = sparse_of([np.array(row, np.uint32) for row in rows], with_tokens=data.draw(st.booleans()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_results, "SPREAD_TERMS", data.draw(st.integers(1, 20)))
        spread_out = all_steps(result.spread_in_steps(np.array(positions, np.intp)))
    assert [vector.indices.tolist() for vector in spread_out] == [rows[position] for position in positions]
    assert [vector.values.tolist() for vector in spread_out] == [result[position].values.tolist() for position in positions]
    assert [vector.tokens for vector in spread_out] == [result[position].tokens for position in positions]


@pytest.mark.parametrize("terms", [0, 3, 2**16 - 1, 2 * 2**16])
def test_sparse_rows_are_spread_in_small_steps_however_many_terms_they_have(terms: int) -> None:
    result = sparse_of([np.arange(terms, dtype=np.uint32)] * 2)
    # A step copies half a MiB: 65,536 terms, and a row counts as one more.
    positions = np.arange(3 * 2**16 // (terms + 1) + 4) % 2
    steps = sum(1 for _ in result.spread_in_steps(positions))
    at_once = max(1, 2**16 // (terms + 1))
    assert steps == math.ceil(len(positions) / at_once)


def sparse_of(rows: list[NDArray[np.uint32]], *, with_tokens: bool = False) -> SparseEmbeddings:
    indptr = np.cumsum([0, *map(len, rows)])
    values = np.arange(indptr[-1], dtype=np.float32)
    tokens = [[f"{row}"] * len(terms) for row, terms in enumerate(rows)] if with_tokens else None
    return SparseEmbeddings(indptr, np.concatenate(rows), values, model="m", usage=Usage(), tokens=tokens)


def counted(steps: Generator[None, None, Any]) -> tuple[Any, int]:
    """What steps come to, and how often they let others have a turn."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def embed(builder: ResultBuilder, texts: list[str], dimension: int) -> None:
    """Embed the first texts of a builder, each as rows of its number."""
    request = planned(texts, builder)
    builder.rows(request, dimension)[:] = np.array(texts, np.float32)[:, None]
    builder.embedded(request)


def spread(names: list[int], dimension: int) -> tuple[DenseEmbeddings, int]:
    """Rows of distinct names, spread to all of them; and in how many steps."""
    rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
    builder = ResultBuilder(0, len(rows), Dimension(dimension), len(names))
    embed(builder, list(map(str, rows)), dimension)
    result, steps = counted(builder.finish("m", "dense", np.array([rows[name] for name in names])))
    assert isinstance(result, DenseEmbeddings)
    return result, steps


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.sampled_from([2, 2**17, 2**17 // 3]))
def test_rows_are_spread_in_place_whatever_is_equal(names: list[int], dimension: int) -> None:
    names.append(names[0])
    result, _ = spread(names, dimension)
    assert result.vectors[:, 0].tolist() == names
    assert result.vectors[:, -1].tolist() == names
    assert result.embedded.all()


def test_rows_are_spread_in_small_steps_and_without_a_second_matrix() -> None:
    names = [*range(4000), 0]
    tracemalloc.start()
    try:
        result, steps = spread(names, 1024)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert steps == 1, "the rows that are in their places are left there"
    assert peak < 1.2 * result.vectors.nbytes
    names = [0, *range(4000)]
    _, steps = spread(names, 1024)
    # A step copies half a MiB.
    assert steps == math.ceil(4000 / 128)


def test_rows_that_are_not_embedded_are_filled_in_small_steps() -> None:
    builder = ResultBuilder(0, 5000, Dimension(1024))
    embed(builder, ["1"], 1024)
    result, steps = counted(builder.finish("m", "dense"))
    assert steps == math.ceil(4999 / 128)
    assert result.vectors[0].tolist() == [1] * 1024
    assert np.isnan(result.vectors[1:]).all()


def test_rows_larger_than_a_step_are_filled_one_by_one() -> None:
    rows = DenseRows(3, Dimension(2**17 + 1))
    _, steps = counted(rows.blank(np.arange(3)))
    assert steps == 3
    assert np.isnan(rows.matrix()).all()


def test_sparse_answers_are_put_together_in_small_steps_wherever_their_rows_are() -> None:
    terms, count = 100, 4000
    blocks = []
    for start in range(0, count, 200):
        for first in (start, start + 1):
            # As where a cache had every second one.
            positions = np.arange(first, start + 200, 2)
            indices = np.repeat(positions, terms).astype(np.uint32)
            lengths = np.full(len(positions), terms)
            blocks.append((positions, SparseBlock(lengths, indices, indices.astype(np.float32), None)))
    embedded = np.ones(count, np.bool_)
    result, steps = counted(sparse_of_blocks(blocks, embedded, model="m", usage=Usage(), failures=()))
    # A step ends with the seventh of the blocks, of 10,000 terms of 8 bytes each: that is more than half a MiB.
    assert steps == 5
    assert result.indices.tolist() == np.repeat(np.arange(count), terms).tolist()
    assert result.values.tolist() == result.indices.tolist()
