"""Kept columns of Parquet files that hold the text or the id as well."""

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._sources import Columns
from pinecone_embed_async._jobs._templates import FieldText, TextSource, parse_template
from tests.jobs.by_hand import Service, run

NS = 1_600_000_000_000_000_001
BODIES = [f"text {number}" for number in range(3)]

VALUES = [
    pa.array([NS, None, 0], pa.timestamp("ns")),
    pa.array([1, None, 3], pa.timestamp("us", "UTC")),
    pa.array([1, None, 3], pa.duration("ns")),
    pa.array([1, None, 3], pa.time64("ns")),
    pa.array([1, None, 3], pa.int16()),
    pa.array([1.5, None, 3], pa.float32()),
    pa.array([b"\xff", None, b""], pa.binary()),
    pa.array(["a", None, ""], pa.large_string()),
    pa.array(["a", None, "a"], pa.string()).dictionary_encode(),
    pa.array([b"\xff", None, b"a"], pa.binary()).view(pa.string()),
    pa.array([[NS], None, []], pa.list_(pa.timestamp("ns"))),
    pa.array([[("k", NS)], None, []], pa.map_(pa.string(), pa.timestamp("ns"))),
    pa.array([{"at": NS}, None, {"at": None}], pa.struct({"at": pa.timestamp("ns")})),
]


def table(path: Path, columns: dict[str, pa.Array]) -> Path:
    parquet.write_table(pa.table(columns), path)
    return path


def kept(source: Path, *names: str) -> list[pa.ChunkedArray]:
    written = dataset.dataset(source.parent / "out", format="parquet").to_table().sort_by("row")
    return [written[name].combine_chunks() for name in names]


@pytest.mark.parametrize("values", VALUES, ids=lambda array: str(array.type))
@pytest.mark.parametrize("text", [FieldText("doc.body"), parse_template("{doc.body}")])
def test_a_field_beside_the_text_in_a_struct_keeps_its_type_and_values(
    tmp_path: Path, values: pa.Array, text: TextSource
) -> None:
    doc = pa.StructArray.from_arrays([pa.array(BODIES), values], ["body", "value"])
    source, service = table(tmp_path / "in.parquet", {"doc": doc, "value": values}), Service()
    job = run(source, service, columns=Columns(text=text, keep=("doc.value", "value")))
    beside, alone = kept(source, "doc.value", "value")
    assert (beside.type, alone.type) == (alone.type, parquet.read_schema(source).field("value").type)
    assert beside.equals(alone)
    assert (service.sent, job.take_warnings()) == (BODIES, [])


def test_the_text_and_the_id_keep_their_types_as_well(tmp_path: Path) -> None:
    columns = {"doc_id": pa.array([1, 2, 3], pa.int16()), "text": pa.array(BODIES, pa.large_string())}
    source, service = table(tmp_path / "in.parquet", columns), Service()
    run(source, service, columns=Columns(id="doc_id", keep=("doc_id", "text")))
    assert kept(source, "id") == [pa.array(["1", "2", "3"])]
    assert kept(source, "doc_id", "text") == list(columns.values())


def test_a_struct_that_holds_the_text_and_the_id_is_kept_whole(tmp_path: Path) -> None:
    doc = pa.StructArray.from_arrays([pa.array(BODIES), pa.array([1, 2, 3], pa.int16())], ["body", "id"])
    source, service = table(tmp_path / "in.parquet", {"doc": doc}), Service()
    run(source, service, columns=Columns(text=FieldText("doc.body"), id="doc.id", keep=("doc",)))
    assert kept(source, "id", "doc") == [pa.array(["1", "2", "3"]), doc]


@pytest.mark.parametrize("keep", [(), ("doc.body",)])
@pytest.mark.parametrize(
    ("bodies", "told"),
    [
        (pa.array(["text 0", None]), r"in\.parquet:2: the field 'doc\.body' is not text but null"),
        (pa.array([b"text 0", b"\xff"]).view(pa.string()), r"in\.parquet:2: the field 'doc\.body' is not UTF-8"),
        (pa.array([1, NS], pa.timestamp("ns")), "2 rows cannot be embedded: .* is not text but of the type "),
    ],
)
def test_a_text_that_is_none_is_told_with_its_row_before_anything_is_sent(
    tmp_path: Path, bodies: pa.Array, told: str, keep: tuple[str, ...]
) -> None:
    doc = pa.StructArray.from_arrays([bodies, pa.array([NS, NS], pa.timestamp("ns"))], ["body", "when"])
    source, service = table(tmp_path / "in.parquet", {"doc": doc}), Service()
    with pytest.raises(SourceError, match=told):
        run(source, service, columns=Columns(text=FieldText("doc.body"), keep=keep))
    assert service.sent == []


def test_text_that_is_not_utf8_has_a_value_as_json_too(tmp_path: Path) -> None:
    values = pa.array([b"\xff", b"b"]).view(pa.string())
    source, service = tmp_path / "in", Service()
    source.mkdir()
    table(source / "a.parquet", {"text": pa.array(BODIES[:2]), "value": values})
    table(source / "b.parquet", {"text": pa.array(BODIES[2:]), "value": pa.array([2], pa.int64())})
    run(source, service, columns=Columns(keep=("value",)))
    assert [each.to_pylist() for each in kept(source, "value")] == [['"\\\\xff"', '"b"', "2"]]
