import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import DenseEmbeddings, Failure, ResponseError, SparseEmbeddings, TransportError, Usage
from pinecone_embed_async._collector import Collector
from pinecone_embed_async._plan import Distinct
from pinecone_embed_async._results import SPREAD_BYTES, DenseRows, Dimension, SparseRows
from pinecone_embed_async._wire import SparseBlock


def sparse() -> SparseEmbeddings:
    rows = SparseRows(3)
    block = SparseBlock(np.array([1]), np.array([9], np.uint32), np.array([0.5], np.float32), [["nine"]])
    rows.put(np.array([2]), block)
    rows.put(np.array([0]), SparseBlock(np.array([2]), np.array([4, 5], np.uint32), np.array([1, 2], np.float32), None))
    return rows.finish(model="m", usage=Usage(), failures=(), embedded=np.array([True, False, True]))


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


def test_records_leave_out_what_is_not_embedded() -> None:
    assert sparse().to_records(["a", "b", "c"], metadata=[{"k": 1}, None, None]) == [
        {"id": "a", "metadata": {"k": 1}, "sparse_values": {"indices": [4, 5], "values": [1.0, 2.0]}},
        {"id": "c", "sparse_values": {"indices": [9], "values": [0.5]}},
    ]
    dense = DenseEmbeddings(np.ones((1, 2), np.float32), model="m", usage=Usage())
    assert dense.to_records(["a"]) == [{"id": "a", "values": [1.0, 1.0]}]
    with pytest.raises(ValueError, match="as many ids"):
        dense.to_records([])
    with pytest.raises(ValueError, match="as many metadata"):
        dense.to_records(["a"], metadata=[])


def test_inputs_neither_embedded_nor_failed_are_not_tried() -> None:
    failure = Failure(range(1, 2), TransportError("cut"))
    embedded = np.array([True, False, False])
    rows = DenseRows(3, Dimension(2))
    rows.rows(0, 1, 2)[:] = 1
    result = rows.finish(model="m", usage=Usage(), failures=(failure,), embedded=embedded)
    assert result.not_tried.tolist() == [2]
    assert np.isnan(result.vectors[1:]).all()
    assert "missing=2" in repr(result)


def test_an_answer_of_another_dimension_than_the_earlier_ones_is_refused() -> None:
    rows = DenseRows(2, Dimension(None))
    rows.rows(0, 1, 3)
    with pytest.raises(ResponseError, match="expected 3 numbers a row"):
        rows.rows(1, 2, 4)


def test_usage_counts_answers_that_do_not_say_what_they_cost() -> None:
    assert Usage().plus(7).plus(None) == Usage(total_tokens=7, requests=2, unreported=1)


def test_reprs_show_counts_and_no_values() -> None:
    assert "0.5" not in repr(sparse()) + repr(sparse()[2])


def spread(names: list[int], dimension: int) -> tuple[DenseEmbeddings, int]:
    """Rows of distinct names, spread to all of them; and in how many steps."""
    distinct = Distinct(len(names))
    distinct.add(map(str, names))
    collector = Collector(0, len(distinct.texts), Dimension(dimension), len(names))
    collector._dense.rows(0, len(distinct.texts), dimension)[:] = np.array(distinct.texts, np.float32)[:, None]
    collector.account.embedded(0, len(distinct.texts))
    result = collector.finish("m", "dense")
    assert distinct.positions is not None
    steps, count = collector.spread(result, distinct.positions), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert isinstance(end.value, DenseEmbeddings)
            return end.value, count
        count += 1


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.sampled_from([2, SPREAD_BYTES // 4, SPREAD_BYTES // 12]))
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
    assert steps >= 4000 * 4096 // SPREAD_BYTES
