"""The files for an index to import: what they hold, and that a kill leaves none of them half or missing."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pinecone_embed_async import AuthenticationError, ConfigurationError
from pinecone_embed_async._jobs import _store
from pinecone_embed_async._jobs._errors import JobChangedError, SourceError
from pinecone_embed_async._jobs._exports import documents_of, vectors_of, with_terms
from pinecone_embed_async._jobs._kept import json_field
from pinecone_embed_async._jobs._layouts import Layout, LayoutName
from pinecone_embed_async._jobs._sources import Columns
from tests.jobs.by_hand import Service, run

DOCUMENTS = Layout(LayoutName.DOCUMENTS, "books", "embedding")
VECTORS = Layout(LayoutName.VECTORS, "books")
COLUMNS = Columns(id="key", keep=("year", "tags"))


@pytest.fixture
def service() -> Service:
    return Service()


def source_of(path: Path, count: int, first: int = 0) -> Path:
    path.write_text(
        "".join(
            json.dumps(
                {
                    "text": f"text {number}",
                    "key": f"k{number}",
                    "year": None if number % 3 == 0 else number,
                    "tags": ["a", "b"] if number % 2 else {"x": [number]},
                }
            )
            + "\n"
            for number in range(first, first + count)
        )
    )
    return path


def documents_in(source: Path) -> list[dict[str, Any]]:
    files = sorted((source.parent / "out" / "books").iterdir())
    return sorted(
        (json.loads(line) for file in files for line in file.read_text().splitlines()), key=lambda each: each["embedding"]
    )


def expected(*numbers: int) -> list[dict[str, Any]]:
    return [
        {
            "_id": f"k{number}",
            "embedding": [float(number)] * 2,
            **({} if number % 3 == 0 else {"year": number}),
            "tags": ["a", "b"] if number % 2 else {"x": [number]},
        }
        for number in numbers
    ]


def test_documents_have_the_id_the_vector_and_the_kept_fields(tmp_path: Path, service: Service) -> None:
    source = source_of(tmp_path / "in.jsonl", 10)
    run(source, service, columns=COLUMNS, layout=DOCUMENTS)
    assert documents_in(source) == expected(*range(10))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_job.json", "_lock", "_table", "books"]
    assert parquet.read_table(tmp_path / "out" / "_table").num_rows == 10


def test_vectors_are_what_an_index_imports(tmp_path: Path, service: Service) -> None:
    source = source_of(tmp_path / "in.jsonl", 10)
    run(source, service, columns=COLUMNS, layout=VECTORS)
    [file] = (tmp_path / "out" / "books").iterdir()
    table = parquet.ParquetFile(file).read()
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("id", "string"),
        ("values", "list<element: float>"),
        ("metadata", "string"),
    ]
    rows = table.to_pylist()
    assert [(row["id"], row["values"]) for row in rows] == [(f"k{number}", [float(number)] * 2) for number in range(10)]
    assert [json.loads(row["metadata"]) for row in rows[:3]] == [
        {"tags": '{"x":[0]}'},
        {"year": 1, "tags": ["a", "b"]},
        {"year": 2, "tags": '{"x":[2]}'},
    ]


@pytest.mark.parametrize("layout", [DOCUMENTS, VECTORS])
def test_sparse_rows_have_indices_and_values_and_those_without_terms_are_left_out(layout: Layout) -> None:
    table = pa.table(
        {
            "id": ["a", "b"],
            "row": [0, 1],
            "indices": pa.array([[5, 2**32 - 1], []], pa.list_(pa.uint32())),
            "values": pa.array([[0.5, 1.5], []], pa.list_(pa.float32())),
        }
    )
    kept = with_terms(table)
    pair = {"indices": [5, 2**32 - 1], "values": [0.5, 1.5]}
    if layout is DOCUMENTS:
        assert json.loads(documents_of(kept, "v")) == {"_id": "a", "v": pair}
    else:
        assert vectors_of(kept).to_pylist() == [{"id": "a", "sparse_values": pair, "metadata": None}]


@pytest.mark.parametrize("layout", [DOCUMENTS, VECTORS])
@pytest.mark.parametrize("killed", ["write_part", "export_part"])
def test_what_a_kill_has_left_out_is_made_by_the_next_run(
    tmp_path: Path, service: Service, layout: Layout, killed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(tmp_path / "in.jsonl", 10)

    def kill(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(BaseException):  # noqa: B017, PT011 - as a kill ends it
        patched.setattr(_store, killed, kill)
        run(source, service, columns=COLUMNS, layout=layout)
    run(source, service, columns=COLUMNS, layout=layout)
    assert service.sent == [f"text {number}" for number in range(10)]
    rows = documents_in(source) if layout is DOCUMENTS else parquet.read_table(tmp_path / "out" / "books").to_pylist()
    assert len(rows) == 10


def test_an_added_input_that_makes_a_column_json_text_makes_the_files_anew(tmp_path: Path, service: Service) -> None:
    source = source_of(tmp_path / "in.jsonl", 4)
    run(source, service, columns=COLUMNS, layout=DOCUMENTS)
    source.write_text('{"text": "text 4", "key": "k4", "year": "MMXX", "tags": null}\n')
    run(source, service, columns=COLUMNS, layout=DOCUMENTS, append=True)
    # Numbers stay numbers.
    assert documents_in(source) == [*expected(*range(4)), {"_id": "k4", "embedding": [4.0, 4.0], "year": "MMXX"}]


def test_a_job_of_another_layout_is_another_job(tmp_path: Path, service: Service) -> None:
    source = source_of(tmp_path / "in.jsonl", 3)
    run(source, service, columns=COLUMNS, layout=DOCUMENTS)
    for other in (None, VECTORS, Layout(LayoutName.DOCUMENTS, "other", "embedding")):
        with pytest.raises(JobChangedError, match=r"the layout \(was documents of books, embedding, now"):
            run(source, service, columns=COLUMNS, layout=other)
    run(source, service, columns=COLUMNS, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_job.json", "_lock", "part-00000.parquet"]
    run(source, service, columns=COLUMNS, layout=VECTORS, overwrite=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_job.json", "_lock", "_table", "books"]


def test_a_folder_of_another_layout_without_a_row_is_nobodys(tmp_path: Path, service: Service) -> None:
    source = source_of(tmp_path / "in.jsonl", 3)
    service.fails_after = 0
    with pytest.raises(AuthenticationError):
        run(source, service, columns=COLUMNS, layout=DOCUMENTS)
    service.fails_after = None
    run(source, service, columns=COLUMNS)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["_job.json", "_lock", "part-00000.parquet"]


@pytest.mark.parametrize(
    ("key", "tags", "said"),
    [
        ("é", "a", "its id is not ASCII"),
        ("k\0", "a", "its id contains a null character"),
        ("k" * 513, "a", "its id has 513 characters, and an index takes at most 512"),
        ("k", "a" * 41_000, "bytes of metadata, and an index takes at most 40,960"),
    ],
)
def test_a_row_that_an_index_would_refuse_is_said_before_anything_is_sent(
    tmp_path: Path, service: Service, key: str, tags: str, said: str
) -> None:
    source = tmp_path / "in.jsonl"
    records = [{"text": "text 0", "key": k, "year": 1, "tags": each} for k, each in ((key, tags), ("fine", "fine"))]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    with pytest.raises(SourceError, match=f"in.jsonl:1: .*{said}"):
        run(source, service, columns=COLUMNS, layout=VECTORS)
    assert service.sent == []
    run(source, service, columns=COLUMNS, layout=VECTORS, skip_bad_rows=True)
    assert len(service.sent) == 1


@pytest.mark.parametrize(
    ("layout", "columns"),
    [
        (Layout(LayoutName.VECTORS, "a/b"), COLUMNS),
        (Layout(LayoutName.VECTORS, "_a"), COLUMNS),
        (Layout(LayoutName.VECTORS, ".."), COLUMNS),
        (Layout(LayoutName.VECTORS, ""), COLUMNS),
        (Layout(LayoutName.DOCUMENTS, "a", "_id"), COLUMNS),
        (Layout(LayoutName.DOCUMENTS, "a", "year"), COLUMNS),
        (Layout(LayoutName.DOCUMENTS, "a"), Columns(keep=("_id",))),
    ],
)
def test_a_layout_that_cannot_be_is_refused(tmp_path: Path, service: Service, layout: Layout, columns: Columns) -> None:
    with pytest.raises(ConfigurationError, match=r"--(namespace|vector-field|keep) "):
        run(source_of(tmp_path / "in.jsonl", 1), service, columns=columns, layout=layout)


def test_a_column_of_json_text_comes_back_as_what_it_was() -> None:
    table = pa.table(
        [["a"], [[1.0, 2.0]], ['{"x":[9007199254740993]}']],
        schema=pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), 2)), json_field("k")]),
    )
    assert json.loads(documents_of(table, "v")) == {"_id": "a", "v": [1.0, 2.0], "k": {"x": [9007199254740993]}}
