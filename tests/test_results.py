import numpy as np
import pytest

from pinecone_embed_async import DenseEmbeddings, Failure, ResponseError, SparseEmbeddings, TransportError, Usage
from pinecone_embed_async._results import DenseRows, Dimension, SparseRows
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
