"""The journal, the parts and the file of failures together, as a job that is killed leaves them."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import dataset, parquet

from pinecone_embed_async import DenseEmbeddings, ResponseError, ServiceError, SparseEmbeddings, Usage
from pinecone_embed_async._jobs import _parts
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._failures import FailedRow, cause_of
from pinecone_embed_async._jobs._folder import OutputFolder, held_folder
from pinecone_embed_async._jobs._kept import KeptTypes, is_json
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._jobs._table import embedded_tables
from tests.disk import full_disk

KEPT = pa.schema([pa.field("year", pa.int64())])


def row(number: int) -> Row:
    return Row(f"id {number}", f"text {number}", "in.txt", number + 1, number, (number * 2,))


def vectors_of(numbers: Sequence[int], dimension: int = 3) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([[number + place / 7 for place in range(dimension)] for number in numbers], np.float32)


def table(numbers: Sequence[int], dimension: int = 3) -> Any:
    embeddings = DenseEmbeddings(vectors_of(numbers, dimension), model="m", usage=Usage())
    return embedded_table([row(number) for number in numbers], embeddings, KEPT)


def embedded_table(rows: Sequence[Row], embeddings: DenseEmbeddings | SparseEmbeddings, kept: pa.Schema) -> Any:
    [made] = embedded_tables([(rows, embeddings)], kept)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    with held_folder(tmp_path / "out") as held:
        yield held


def rows_read(path: Path) -> list[int]:
    read = dataset.dataset(path).to_table()
    numbers: list[int] = read["row"].to_pylist()
    np.testing.assert_array_equal(np.array(read["vector"].to_pylist(), np.float32), vectors_of(numbers))
    assert read["id"].to_pylist() == [f"id {number}" for number in numbers]
    assert read["year"].to_pylist() == [number * 2 for number in numbers]
    return numbers


def test_a_segment_becomes_a_part_sorted_by_row(folder: OutputFolder) -> None:
    with Store(folder) as store:
        store.add([table([7, 9]), table([8, 30])], [])
        store.add([table([1, 2, 3])], [])
        number = store.finish_segment()
        assert number is not None
        store.write_part(number)
    assert sorted(path.name for path in folder.path.iterdir()) == ["_lock", "part-00000.parquet"]
    assert rows_read(folder.path) == [1, 2, 3, 7, 8, 9, 30]
    assert parquet.read_table(folder.path).schema.field("vector").type == pa.list_(pa.field("element", pa.float32()), 3)


def test_parts_grow_with_the_table_so_that_the_last_one_is_a_small_share_of_it(folder: OutputFolder) -> None:
    options = {"bytes_per_part": 400_000, "bytes_of_first_part": 40_000}
    with Store(folder, **options) as store:
        for start in range(0, 20_000, 10):
            store.add([table(range(start, start + 10), dimension=100)], [])
            if store.is_full:
                store.write_part(store.finish_segment() or 0)
        store.write_part(store.finish_segment() or 0)
    *rows, _ = [parquet.read_metadata(folder.part_path(part)).num_rows for part in folder.parts()]
    assert rows == sorted(rows)
    assert rows[0] < 100
    assert rows[-1] > 800
    assert all(count <= max(rows[0], sum(rows[:place]) * 0.3) for place, count in enumerate(rows))
    with Store(folder, **options) as store:
        store.add([table(range(20_000, 20_700), dimension=100)], [])
        # Whoever goes on goes on with their size.
        assert not store.is_full


def test_parts_of_more_rows_than_a_group_are_sorted_over_all_of_them(
    folder: OutputFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parts, "BYTES_PER_GROUP", 8192 * 50)
    shuffled = np.random.default_rng(0).permutation(20_000)
    with Store(folder) as store:
        store.add([table(piece.tolist()) for piece in np.array_split(shuffled, 150)], [])
        store.write_part(store.finish_segment() or 0)
    assert rows_read(folder.path) == list(range(20_000))
    assert parquet.ParquetFile(folder.part_path(0)).num_row_groups > 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_wherever_a_run_is_killed_no_synced_row_is_lost_and_none_is_twice(tmp_path: Path, data: st.DataObject) -> None:
    """Every step leaves a state of the folder behind; a run is killed in one of them and begun again."""
    path = tmp_path / "out"
    shutil.rmtree(path, ignore_errors=True)
    expected: list[int] = []
    for _ in range(data.draw(st.integers(1, 4))):
        with held_folder(path) as folder, Store(folder, rows_per_part=6) as store:
            assert [number for number in range(100) if number in store.done] == sorted(expected)
            for _ in range(data.draw(st.integers(0, 4))):
                numbers = list(range(len(expected), len(expected) + data.draw(st.integers(1, 4))))
                store.add([table(numbers)], [])
                expected += numbers
                if store.is_full:
                    number = store.finish_segment()
                    assert number is not None
                    segment = folder.segment_path(number).read_bytes()
                    match data.draw(st.sampled_from(["done", "before the part", "between"])):
                        case "done":
                            store.write_part(number)
                        case "between":
                            store.write_part(number)
                            # The kill came after the part was renamed and before the segment was removed.
                            folder.segment_path(number).write_bytes(segment)
            # A record that was being written.
            if data.draw(st.booleans()) and store.has_rows:
                with folder.segment_path(store._number).open("ab") as file:
                    file.write(b"PEJ1 torn")
            (path / "_part-0000.partial").write_bytes(b"half a part")
    with held_folder(path) as folder, Store(folder) as store:
        assert not list(path.glob("*.partial"))
        number = store.finish_segment()
        if number is not None:
            store.write_part(number)
    if expected:
        assert sorted(rows_read(path)) == expected
    assert not folder.segments()


def test_a_damaged_record_costs_its_rows_alone_and_is_told(folder: OutputFolder) -> None:
    with Store(folder) as store:
        for numbers in ([0, 1], [2, 3], [4, 5]):
            store.add([table(numbers)], [])
        path = folder.segment_path(0)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with Store(folder) as store:
        assert [number for number in range(6) if number in store.done] == [0, 1, 4, 5]
        assert "the rows in them will be embedded again" in store.warnings[0]
        store.add([table([2, 3])], [])
        store.write_part(store.finish_segment() or 0)
    assert rows_read(folder.path) == [0, 1, 2, 3, 4, 5]


def test_a_part_that_is_damaged_is_told_with_what_to_do(folder: OutputFolder) -> None:
    folder.part_path(0).write_bytes(b"no parquet")
    with pytest.raises(OutputError, match=r"part-00000\.parquet: this part cannot be read.*remove it"):
        Store(folder)


def test_a_part_for_which_there_is_no_space_stays_in_the_journal(folder: OutputFolder) -> None:
    with Store(folder) as store:
        store.add([table(range(1000))], [])
        number = store.finish_segment() or 0
        with full_disk(4096), pytest.raises(OutputError, match="File too large"):
            store.write_part(number)
    assert sorted(path.name for path in folder.path.iterdir()) == ["_journal-00000.log", "_lock"]
    with Store(folder) as store:
        assert len(store.done) == 1000
        store.write_part(store.finish_segment() or 0)
    assert rows_read(folder.path) == list(range(1000))


def test_vectors_of_another_dimension_are_refused(folder: OutputFolder) -> None:
    with Store(folder) as store:
        store.add([table([0])], [])
        with pytest.raises(ResponseError, match="the answers changed: vector was fixed_size_list"):
            store.add([table([1], dimension=4)], [])


def test_sparse_rows_are_lists_of_uint32_and_float32(folder: OutputFolder) -> None:
    embeddings = SparseEmbeddings(
        np.array([0, 2, 2, 3]),
        np.array([5, 2**32 - 1, 7], np.uint32),
        np.array([0.5, 1.5, 2.5], np.float32),
        model="m",
        usage=Usage(),
        tokens=[["a", "b"], [], ["c"]],
        embedded=np.array([True, False, True]),
    )
    with Store(folder) as store:
        store.add([embedded_table([row(0), row(1), row(2)], embeddings, pa.schema([]))], [])
        store.write_part(store.finish_segment() or 0)
    read = dataset.dataset(folder.path).to_table()
    assert read.to_pylist() == [
        {"id": "id 0", "row": 0, "indices": [5, 2**32 - 1], "values": [0.5, 1.5], "tokens": ["a", "b"]},
        {"id": "id 2", "row": 2, "indices": [7], "values": [2.5], "tokens": ["c"]},
    ]
    assert read.schema.field("indices").type.value_type == pa.uint32()
    assert read.schema.field("values").type.value_type == pa.float32()


def test_of_a_group_that_a_full_disk_has_cut_short_the_requests_that_are_whole_are_kept(folder: OutputFolder) -> None:
    batches = [table(range(start, start + 10)) for start in range(0, 100, 10)]
    together = pa.concat_tables(batches)
    with pytest.raises(OutputError, match="File too large"), Store(folder) as store, full_disk(8192):
        store.add([together], [])
    with Store(folder) as store:
        kept = [number for number in range(100) if number in store.done]
        assert kept == list(range(len(kept)))
        assert 20 <= len(kept) < 100
        assert len(kept) % 10 == 0


def failed(number: int, message: str = "overloaded") -> FailedRow:
    return FailedRow(row(number), cause_of(ServiceError(message, status=503)))


def test_failed_rows_are_remembered_until_they_are_done(folder: OutputFolder) -> None:
    with Store(folder) as store:
        store.add([table([0])], [failed(1), failed(2)])
    with folder.failures_path.open("ab") as file:
        file.write(b'{"row": 99, torn')
    with Store(folder) as store:
        assert [number for number in range(100) if number in store.failed] == [1, 2]
        store.add([table([1])], [failed(2, "still overloaded")])
        store.done.add([1])
        store.forget_failures(store.done)
    [line] = folder.failures_path.read_text().splitlines()
    assert line == (
        '{"id":"id 2","row":2,"input":"in.txt","line":3,"error":"ServiceError","message":"503: still overloaded"}'
    )
    with Store(folder) as store:
        store.done.add([2])
        store.forget_failures(store.done)
    assert not folder.failures_path.exists()


def test_the_types_of_kept_columns_are_told_by_their_values() -> None:
    values = [
        (True, 1, 1, "a", 1, None, [1], 2**70),
        (None, 2, 0.5, None, "b", None, {"x": 1}, 1),
    ]
    types = KeptTypes("abcdefgh")
    for kept in values:
        types.show(row(0)._replace(kept=kept))
    schema = types.schema()
    assert [str(field.type) for field in schema] == [
        "bool",
        "int64",
        "double",
        "string",
        "string",
        "null",
        "string",
        "string",
    ]
    assert [is_json(field) for field in schema] == [False, False, False, False, True, False, True, True]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([[1, 2], [], None], pa.list_(pa.int32())),
        ([[("a", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        ([{"a": 1}, {"a": None}, None], pa.struct([("a", pa.int64())])),
        (["x", None, "x"], pa.dictionary(pa.int32(), pa.string())),
        ([None, None, None], pa.null()),
    ],
)
def test_kept_values_of_parquet_come_through_as_they_are_null_ones_too(values: list[Any], kind: Any) -> None:
    given = pa.array(values, kind)
    rows = [row(number)._replace(kept=(value,)) for number, value in enumerate(given)]
    embeddings = DenseEmbeddings(vectors_of(range(3)), model="m", usage=Usage())
    types = KeptTypes(["kept"])
    for each in rows:
        types.show(each)
    assert embedded_table(rows, embeddings, types.schema())["kept"].combine_chunks().equals(given)


def test_two_runs_do_not_hold_one_folder(tmp_path: Path) -> None:
    with (
        held_folder(tmp_path / "out"),
        pytest.raises(OutputError, match=r"another run is writing to this folder \(process \d+\)"),
        held_folder(tmp_path / "out"),
    ):
        pass
    with held_folder(tmp_path / "out"):
        pass


def test_a_file_is_no_folder_for_a_job(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="it is a file"), held_folder(tmp_path / "out"):
        pass
    with pytest.raises(OutputError, match=r"there is no folder .*mkdir -p"), held_folder(tmp_path / "missing" / "out"):
        pass
