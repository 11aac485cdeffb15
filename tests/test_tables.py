"""Results as lists, documents, and columns of Arrow, pandas and polars; each package imported only where it is asked for."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import ConfigurationError, DenseEmbeddings, SparseEmbeddings, Usage
from pinecone_embed_async._results import dense_arrow, list_offsets
from tests.index import Index

EMBEDDED = np.array([True, False, True, True])
IDS = ["a", "b", "c", "d"]


def dense(*, embedded: Any = EMBEDDED) -> DenseEmbeddings:
    vectors = np.array([[1, 2], [np.nan, np.nan], [0.1, 4], [5, 6]], np.float32)
    return DenseEmbeddings(vectors, model="m", usage=Usage(), embedded=embedded.copy())


def sparse(*, embedded: Any = EMBEDDED) -> SparseEmbeddings:
    indptr, indices = np.array([0, 2, 2, 2, 3]), np.array([4, 2**32 - 1, 9], np.uint32)
    values = np.array([1, 2, 0.5], np.float32)
    return SparseEmbeddings(indptr, indices, values, model="m", usage=Usage(), embedded=embedded.copy())


DENSE_LIST = [[1.0, 2.0], None, [float(np.float32(0.1)), 4.0], [5.0, 6.0]]
SPARSE_LIST: list[Any] = [
    {"indices": [4, 2**32 - 1], "values": [1.0, 2.0]},
    None,
    {"indices": [], "values": []},
    {"indices": [9], "values": [0.5]},
]


def test_lists_have_a_row_for_each_input_and_none_for_what_is_not_embedded() -> None:
    assert dense().to_list() == DENSE_LIST
    assert sparse().to_list() == SPARSE_LIST
    assert [type(number) for number in dense()[:1].to_list()[0] or ()] == [float, float]
    assert dense()[:0].to_list() == []
    assert sparse()[:0].to_list() == []


PARTS = [slice(None), slice(1, 3), slice(None, None, -2), slice(0, 0), slice(1, 2), slice(2, 4)]


@pytest.mark.parametrize("rows", PARTS, ids=str)
def test_columns_of_arrow_say_the_same_as_lists(rows: slice) -> None:
    pa = import_module("pyarrow")
    column = dense()[rows].to_arrow()
    assert column.type == pa.list_(pa.float32(), 2)
    assert column.to_pylist() == DENSE_LIST[rows]
    column.validate(full=True)
    column = sparse()[rows].to_arrow()
    assert column.type == pa.struct({"indices": pa.list_(pa.uint32()), "values": pa.list_(pa.float32())})
    assert column.to_pylist() == SPARSE_LIST[rows]
    column.validate(full=True)


def test_vectors_without_a_mask_are_a_column_without_nulls() -> None:
    assert dense_arrow(np.ones((2, 3), np.float32)).to_pylist() == [[1.0] * 3] * 2


def test_columns_of_arrow_share_the_memory() -> None:
    for rows in (slice(None), slice(2, 4)):
        vectors = dense()[rows]
        assert vectors.to_arrow().flatten().to_numpy().size
        flat = vectors.to_arrow().values.to_numpy(zero_copy_only=True)
        assert np.shares_memory(flat, vectors.vectors)
        terms = sparse()[rows]
        assert np.shares_memory(terms.to_arrow().field("values").values.to_numpy(), terms.values)


def test_more_terms_than_a_column_of_arrow_takes_are_refused() -> None:
    large = sparse()
    large.indptr[-1] = 2**31
    with pytest.raises(ConfigurationError, match="at most 2,147,483,647 terms, got 2,147,483,648: convert slices"):
        large.to_arrow()
    assert list_offsets(np.array([0, 2**31 - 1])).to_pylist() == [0, 2**31 - 1]


@pytest.mark.parametrize("rows", PARTS, ids=str)
def test_series_of_polars_say_the_same_as_lists(rows: slice) -> None:
    pl = import_module("polars")
    series = dense()[rows].to_polars()
    assert (series.name, series.dtype) == ("vector", pl.Array(pl.Float32, 2))
    assert series.to_list() == DENSE_LIST[rows]
    series = sparse()[rows].to_polars()
    assert (series.name, series.dtype) == (
        "vector",
        pl.Struct({"indices": pl.List(pl.UInt32), "values": pl.List(pl.Float32)}),
    )
    assert series.to_list() == SPARSE_LIST[rows]


@pytest.mark.parametrize("rows", PARTS, ids=str)
def test_series_of_pandas_have_arrays_and_none(rows: slice) -> None:
    series = dense()[rows].to_pandas()
    assert (series.name, str(series.dtype)) == ("vector", "object")
    assert [cell if cell is None else cell.tolist() for cell in series] == DENSE_LIST[rows]
    assert {cell.dtype for cell in series if cell is not None} <= {np.dtype(np.float32)}
    series = sparse()[rows].to_pandas()
    cells = [cell and {name: terms.tolist() for name, terms in cell.items()} for cell in series]
    assert cells == SPARSE_LIST[rows]


def test_series_of_pandas_share_the_memory_and_stack_to_the_matrix_again() -> None:
    result = dense()[2:]
    series = result.to_pandas()
    assert all(np.shares_memory(cell, result.vectors) for cell in series)
    np.testing.assert_array_equal(np.stack(series), result.vectors)


def test_a_filtered_frame_gets_each_vector_in_its_row() -> None:
    pandas = import_module("pandas")
    frame = pandas.DataFrame({"id": IDS}).iloc[[3, 1, 0, 2]]
    frame["vector"] = dense().to_pandas(frame.index)
    assert [None if cell is None else cell[0] for cell in frame["vector"]] == [1, None, np.float32(0.1), 5]
    with pytest.raises(ValueError, match="Length of values"):
        dense().to_pandas(frame.index[:2])


def test_columns_of_a_model_of_unknown_dimension_are_missing() -> None:
    pa, pl = import_module("pyarrow"), import_module("polars")
    nothing = DenseEmbeddings(np.empty((2, 0), np.float32), model="m", usage=Usage(), embedded=np.zeros(2, np.bool_))
    assert nothing.to_list() == [None, None]
    assert nothing.to_arrow().to_pylist() == [None, None]
    assert nothing.to_arrow().type == pa.list_(pa.float32())
    assert nothing.to_polars().to_list() == [None, None]
    assert nothing.to_polars().dtype == pl.List(pl.Float32)
    assert list(nothing.to_pandas()) == [None, None]


def test_a_column_goes_to_a_file_and_back(tmp_path: Any) -> None:
    pa = import_module("pyarrow")
    from pyarrow import parquet  # noqa: PLC0415 - where it is installed

    both: list[Any] = [dense(), sparse()]
    for number, result in enumerate(both):
        path = tmp_path / f"{number}.parquet"
        parquet.write_table(pa.table({"id": IDS, "vector": result.to_arrow()}), path)
        assert parquet.read_table(path)["vector"].to_pylist() == result.to_list()


METHODS = {"to_arrow": "pyarrow", "to_pandas": "pandas", "to_polars": "polars"}


@pytest.mark.parametrize(("method", "package"), METHODS.items())
def test_a_package_that_is_not_installed_is_named_with_the_cure(
    method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for result in (dense(), sparse()):
        with pytest.raises(ImportError, match=f"{method} needs {package}, which is not installed: pip install {package}"):
            getattr(result, method)()


def test_scipy_is_named_as_well_if_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match="to_scipy needs scipy, which is not installed: pip install scipy"):
        sparse().to_scipy()


def test_only_the_package_that_is_asked_for_is_imported() -> None:
    code = """
import sys
from collections.abc import Callable
import numpy as np
from pinecone_embed_async import DenseEmbeddings, Usage
result = DenseEmbeddings(np.ones((2, 3), np.float32), model="m", usage=Usage())
result[:1], result.to_list(), result.to_records(["a", "b"]), result.to_documents(["a", "b"]), np.asarray(result)
print(sorted({"pandas", "polars", "pyarrow"} & sys.modules.keys()))
result.to_polars()
print(sorted({"pandas", "polars", "pyarrow"} & sys.modules.keys()))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split("\n")[:2] == ["[]", "['polars']"]


def test_documents_have_ids_vectors_and_further_fields() -> None:
    fields: list[Any] = [
        {"title": "A", "year": 1990},
        {"title": "B"},
        None,
        {"title": None, "year": float("nan"), "tags": ["x"]},
    ]
    assert dense().to_documents(IDS, fields=fields) == [
        {"_id": "a", "vector": [1.0, 2.0], "title": "A", "year": 1990},
        {"_id": "c", "vector": DENSE_LIST[2]},
        {"_id": "d", "vector": [5.0, 6.0], "tags": ["x"]},
    ]
    assert dense()[3:].to_documents(["d"], field="embedding") == [{"_id": "d", "embedding": [5.0, 6.0]}]


def test_sparse_documents_leave_out_rows_without_terms_and_tell(caplog: pytest.LogCaptureFixture) -> None:
    assert sparse().to_documents(IDS, field="terms", fields=iter([{"n": 1}] * 4)) == [
        {"_id": "a", "terms": SPARSE_LIST[0], "n": 1},
        {"_id": "d", "terms": SPARSE_LIST[3], "n": 1},
    ]
    assert "1 of 4 rows have no terms and are left out" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ids": ["a"]}, "ids must have one value for each of the 4 inputs, got 1"),
        ({"ids": [1, 2, 3, 4]}, r"got int for input 0: pass map\(str, ids\)"),
        ({"fields": [{}]}, "fields must have one value for each of the 4 inputs, got 1"),
        ({"fields": {"a": 1}}, "fields must be an iterable with one value for each input, in order, got a dict"),
        ({"fields": [{}, 5, {}, {}]}, "fields must be a mapping or None for each input, got int for input 1"),
        ({"fields": [{}, {}, {"vector": 1}, {}]}, "fields of input 2 must not have 'vector', which is the vector's field"),
        ({"fields": [{"_id": "x"}, {}, {}, {}]}, "fields of input 0: each must be the name of a field, .* got '_id'"),
        ({"fields": [{5: "x"}, {}, {}, {}]}, "fields of input 0: each must be the name of a field, .* got 5"),
        ({"field": "_id"}, "field must be the name of a field, not beginning with _ or"),
        ({"field": "$x"}, "field must be the name of a field"),
        ({"field": ""}, "field must be the name of a field"),
        ({"field": None}, "field must be the name of a field"),
    ],
)
def test_documents_that_an_index_would_refuse_are_refused(arguments: dict[str, Any], message: str) -> None:
    for result in (dense(), sparse()):
        with pytest.raises(ConfigurationError, match=message):
            result.to_documents(**{"ids": IDS, **arguments})


@pytest.mark.parametrize("make", [dense, sparse])
async def test_the_official_sdk_takes_the_documents(make: Callable[[], Any]) -> None:
    pinecone = import_module("pinecone")
    documents = make().to_documents(IDS, field="embedding", fields=[{"title": name} for name in IDS])
    async with (
        Index() as server,
        pinecone.AsyncPinecone(api_key="k") as client,
        await client.index(host=server.url) as index,
    ):
        answer = await index.documents.batch_upsert(namespace="n", documents=documents, show_progress=False)
    assert not answer.has_errors
    assert list(server.documents.values()) == documents
    assert len(documents) == (3 if make is dense else 2)
