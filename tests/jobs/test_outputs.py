import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pinecone_embed_async import DenseEmbeddings, Failure, ServiceError, SparseEmbeddings, Usage
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._inputs import InputFormat, find_inputs
from pinecone_embed_async._jobs._outputs import check_output, check_space, failures_path, write_output
from pinecone_embed_async._jobs._sources import Row

ROWS = [Row(f"id {number}", f"text {number}", "in.txt", number + 1, number) for number in range(4)]
FAILURE = Failure(range(1, 2), ServiceError("overloaded", status=503))


def dense(*missing: int) -> DenseEmbeddings:
    """Four rows; of the missing ones, row 1 has failed and the others were not tried."""
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3) / np.float32(7)
    embedded = np.array([number not in missing for number in range(4)])
    vectors[~embedded] = np.nan
    failures = (FAILURE,) if 1 in missing else ()
    return DenseEmbeddings(vectors, model="m", usage=Usage(), failures=failures, embedded=embedded)


def sparse(*, tokens: bool) -> SparseEmbeddings:
    """Row 1 has failed, row 2 is embedded and has no terms."""
    return SparseEmbeddings(
        np.array([0, 2, 2, 2, 3]),
        np.array([5, 2**32 - 1, 7], np.uint32),
        np.array([0.5, 1.5, 2.5], np.float32),
        model="m",
        usage=Usage(),
        tokens=[["a", "b"], [], [], ["c"]] if tokens else None,
        failures=(FAILURE,),
        embedded=np.array([True, False, True, True]),
    )


def lines_of(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parquet_holds_ids_and_fixed_size_lists_of_float32(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_output(path, ROWS, dense())
    table = parquet.read_table(path)
    assert table.schema == pa.schema({"id": pa.string(), "vector": pa.list_(pa.float32(), 3)})
    assert table["id"].to_pylist() == [row.id for row in ROWS]
    np.testing.assert_array_equal(np.array(table["vector"].to_pylist(), np.float32), dense().vectors)


def test_parquet_of_more_rows_than_a_group_is_one_table(tmp_path: Path) -> None:
    count = 20_000
    vectors = np.arange(count, dtype=np.float32).reshape(-1, 1)
    rows = [Row(str(number), "", "in.txt", number + 1, number) for number in range(count)]
    path = tmp_path / "out.parquet"
    write_output(path, rows, DenseEmbeddings(vectors, model="m", usage=Usage()))
    assert parquet.ParquetFile(path).num_row_groups == 3
    table = parquet.read_table(path)
    assert table["id"].to_pylist() == [row.id for row in rows]
    assert [value for [value] in table["vector"].to_pylist()] == list(range(count))


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_rows_that_are_not_embedded_are_left_out(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    write_output(path, ROWS, dense(1, 3))
    read = lines_of(path) if suffix == "jsonl" else parquet.read_table(path).to_pylist()
    assert [record["id"] for record in read] == ["id 0", "id 2"]
    np.testing.assert_array_equal(np.array([record["vector"] for record in read], np.float32), dense().vectors[[0, 2]])


def test_a_matrix_keeps_every_row_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    write_output(path, ROWS, dense(1, 3))
    written = np.load(path)
    assert written.dtype == np.float32
    np.testing.assert_array_equal(written, dense(1, 3).vectors)


def test_rows_that_failed_and_rows_not_tried_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_output(path, ROWS, dense(1, 3))
    assert lines_of(failures_path(path)) == [
        {
            "id": "id 1",
            "row": 1,
            "input": "in.txt",
            "line": 2,
            "error": "ServiceError",
            "message": "503: overloaded",
        },
        {
            "id": "id 3",
            "row": 3,
            "input": "in.txt",
            "line": 4,
            "error": None,
            "message": "not tried: the run ended first",
        },
    ]


def test_a_complete_run_removes_the_failures_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "out.npy"
    write_output(path, ROWS, dense(1))
    assert failures_path(path).exists()
    write_output(path, ROWS, dense())
    assert [each.name for each in tmp_path.iterdir()] == ["out.npy"]


@pytest.mark.parametrize("tokens", [False, True])
def test_sparse_rows_are_the_same_in_both_formats(tmp_path: Path, tokens: bool) -> None:
    expected: list[dict[str, Any]] = [
        {"id": "id 0", "indices": [5, 2**32 - 1], "values": [0.5, 1.5], "tokens": ["a", "b"]},
        {"id": "id 2", "indices": [], "values": [], "tokens": []},
        {"id": "id 3", "indices": [7], "values": [2.5], "tokens": ["c"]},
    ]
    if not tokens:
        for record in expected:
            del record["tokens"]
    for suffix in ("jsonl", "parquet"):
        write_output(tmp_path / f"out.{suffix}", ROWS, sparse(tokens=tokens))
    assert lines_of(tmp_path / "out.jsonl") == expected
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.to_pylist() == expected
    assert table.schema.field("indices").type.value_type == pa.uint32()
    assert table.schema.field("values").type.value_type == pa.float32()


def test_sparse_rows_do_not_go_into_a_matrix(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="dense vectors only"):
        write_output(tmp_path / "out.npy", ROWS, sparse(tokens=False))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dimension", [0, 3])
def test_no_rows_are_a_table_without_rows(tmp_path: Path, dimension: int) -> None:
    nothing = DenseEmbeddings(np.empty((0, dimension), np.float32), model="m", usage=Usage())
    for suffix in ("parquet", "npy", "jsonl"):
        write_output(tmp_path / f"out.{suffix}", [], nothing)
    assert parquet.read_table(tmp_path / "out.parquet").column_names == ["id", "vector"]
    assert np.load(tmp_path / "out.npy").shape == (0, dimension)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


class _Interrupting(list[Row]):
    def __getitem__(self, index: Any) -> Any:
        if index == 2:
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_ctrl_c_while_writing_leaves_the_old_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"out.{suffix}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_output(path, _Interrupting(ROWS), dense())
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_replaced_file_keeps_its_permissions_and_its_links(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    real, link = folder / "real.npy", tmp_path / "link.npy"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    write_output(link, ROWS, dense())
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert np.load(real).shape == (4, 3)


def test_a_name_as_long_as_can_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * (255 - len('.npy'))}.npy"
    with pytest.raises(OutputError, match="File name too long"):
        # Its failures have a longer name.
        check_output(path, [])
    path = tmp_path / f"{'x' * (255 - len('.npy.failures.jsonl'))}.npy"
    check_output(path, [])
    write_output(path, ROWS, dense(1))
    assert np.load(path).shape == (4, 3)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("missing/out.npy", "there is no folder"),
        ("folder.npy", "is not a file"),
        ("in.jsonl", "would be replaced"),
        ("blocked.npy", "is not a file"),
    ],
)
def test_an_output_that_cannot_be_is_refused_before(tmp_path: Path, out: str, said: str) -> None:
    (tmp_path / "folder.npy").mkdir()
    (tmp_path / "blocked.npy.failures.jsonl").mkdir()
    (tmp_path / "in.jsonl").touch()
    inputs = find_inputs([str(tmp_path / "in.txt"), "-", str(tmp_path / "in.jsonl")], format=InputFormat.TXT)
    with pytest.raises(OutputError, match=said):
        check_output(tmp_path / out, inputs)


def test_the_failures_of_an_output_are_not_read_by_the_run_that_replaces_them(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    failures_path(out).touch()
    with pytest.raises(OutputError, match="would be replaced"):
        check_output(out, find_inputs([str(failures_path(out))]))


def test_an_output_that_there_is_no_space_for_is_refused_before(tmp_path: Path) -> None:
    check_space(tmp_path / "out.npy", 1000, 1024)
    check_space(tmp_path / "out.npy", 10**15, None)
    for suffix in ("npy", "jsonl", "parquet"):
        with pytest.raises(OutputError, match=r"it needs at least [\d,]+ bytes, and [\d,]+ are free"):
            check_space(tmp_path / f"out.{suffix}", 10**15, 1024)
