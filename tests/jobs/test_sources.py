import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._inputs import InputFormat, find_inputs
from pinecone_embed_async._jobs._sources import Columns, Row, Stamp, read_rows
from pinecone_embed_async._jobs._templates import parse_template


def rows_of(path: Path, content: bytes, **columns: Any) -> list[Row]:
    path.write_bytes(content)
    return list(read_rows(find_inputs([str(path)]), Columns(**columns)))


def texts_of(path: Path, content: bytes, **columns: Any) -> list[str]:
    return [row.text for row in rows_of(path, content, **columns)]


def test_every_line_of_text_is_a_row_blank_ones_too(tmp_path: Path) -> None:
    assert texts_of(tmp_path / "a.txt", b"one\n\n two \r\nlast") == ["one", "", " two ", "last"]


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    text = "a\u2028b\x0bc\x85d\re"
    assert texts_of(tmp_path / "a.txt", f"{text}\nnext\n".encode()) == [text, "next"]


@pytest.mark.parametrize(("name", "content"), [("a.txt", "x\n"), ("a.jsonl", '{"text": "x"}'), ("a.csv", "text\nx\n")])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, name: str, content: str) -> None:
    assert texts_of(tmp_path / name, content.encode("utf-8-sig")) == ["x"]


def test_rows_are_numbered_over_all_inputs_and_remember_their_line(tmp_path: Path) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "b.JSONL"
    first.write_text("one\ntwo\n")
    second.write_text('\n{"text": "three"}\n')
    files = find_inputs([str(first), str(second)])
    assert list(read_rows(files, first_row=5)) == [
        Row("5", "one", str(first), 1, 5),
        Row("6", "two", str(first), 2, 6),
        Row("7", "three", str(second), 2, 7),
    ]


def test_a_csv_field_may_hold_line_feeds_and_its_row_begins_at_the_first(tmp_path: Path) -> None:
    content = b'id,text\r\na,"one\ntwo, ""three"""\r\n\r\nb,four\r\n'
    found = rows_of(tmp_path / "a.csv", content, id="id")
    assert [(row.id, row.text, row.line) for row in found] == [("a", 'one\ntwo, "three"', 2), ("b", "four", 5)]


def test_a_csv_field_may_be_longer_than_the_readers_default_limit(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert texts_of(tmp_path / "a.csv", f"text\n{long}\n".encode()) == [long]


def test_ids_are_text_or_whole_numbers(tmp_path: Path) -> None:
    content = b'{"text": "a", "id": 7}\n{"text": "b", "id": "x"}\n'
    assert [row.id for row in rows_of(tmp_path / "a.jsonl", content, id="id")] == ["7", "x"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'{"text": "a"}', "a.jsonl:1: no field 'id'; it has 'text'"),
        ("a.jsonl", b'{"text": "a", "id": null}', "a.jsonl:1: the id 'id' is neither text nor a whole number but null"),
        ("a.jsonl", b'{"text": "a", "id": true}', "but true or false"),
        ("a.jsonl", b'{"text": "a", "id": 1.5}', "but a number"),
        ("a.jsonl", b'{"text": "a", "id": ""}', "a.jsonl:1: the id 'id' is empty"),
        ("a.jsonl", b'{"text": ["a"], "id": 1}', "the field 'text' is not text but a list"),
        ("a.jsonl", b'{"text": {}, "id": 1}', "not text but an object"),
        ("a.jsonl", b'"text"', "a.jsonl:1: not a JSON object but text"),
        ("a.jsonl", b'\n{"text": "\\ud800", "id": 1}', "a.jsonl:2: not JSON"),
        ("a.jsonl", b'{"text": NaN}', "a.jsonl:1: not JSON"),
        ("a.jsonl", b"{}", "it has none"),
        ("a.csv", b"", "a.csv: no header"),
        ("a.csv", b"text,text,id\na,b,c\n", "a.csv:1: 2 columns are named 'text'"),
        ("a.csv", b"text\na\n", "a.csv:1: no column 'id'; the header has 'text'"),
        ("a.csv", b'text,id\n"a\nb",1\nc,2,3\n', "a.csv:4: 3 fields, but the header has 2"),
        ("a.csv", b'text,id\n"a"b,1\n', "a.csv:2: not CSV"),
        ("a.csv", b'text,id\nx,1\n"a,2\n', "a.csv:3: not CSV"),
        ("a.csv", b"text,id\na,\xff\n", "a.csv:2: not UTF-8 (byte 0xff)"),
        ("a.txt", b"a\n", "a text file has only the field 'text'"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(SourceError) as raised:
        rows_of(tmp_path / name, content, id="id")
    assert said in str(raised.value)


def test_a_record_with_many_fields_does_not_name_them_all(tmp_path: Path) -> None:
    content = json.dumps({f"field {number}": 1 for number in range(1000)}).encode()
    with pytest.raises(SourceError) as raised:
        rows_of(tmp_path / "a.jsonl", content)
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_a_given_format_holds_for_every_input(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n")
    assert [row.text for row in read_rows(find_inputs([str(path)], format=InputFormat.TXT))] == ["a,b"]


def test_standard_input_is_one_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\n")))
    rows = read_rows(find_inputs(["-"], format=InputFormat.TXT))
    assert next(rows) == Row("0", "one", "standard input", 1, 0)
    with pytest.raises(SourceError, match="standard input:2: not UTF-8"):
        next(rows)


def test_a_closed_standard_input_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="closed"):
        list(read_rows(find_inputs(["-"], format=InputFormat.TXT)))


def gzipped(content: bytes) -> bytes:
    # In two members, as `cat a.gz b.gz` makes them.
    return gzip.compress(content[:7]) + gzip.compress(content[7:])


def zstandard(content: bytes) -> bytes:
    frames = []
    for part in (content[:7], content[7:]):
        sink = pa.BufferOutputStream()
        with pa.CompressedOutputStream(sink, "zstd") as stream:
            stream.write(part)
        frames.append(sink.getvalue().to_pybytes())
    return b"".join(frames)


def parquet_bytes(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, **options)
    return bytes(sink.getvalue().to_pybytes())


TABLE = pa.table({"text": [f"text {number}" for number in range(3000)], "id": list(range(3000))})
CONTENTS = {
    "txt": b"".join(b"text %d\n" % number for number in range(3000)),
    "jsonl": b"".join(b'{"id": %d, "text": "text %d"}\n' % (number, number) for number in range(3000)),
    "csv": b"id,text\n" + b"".join(b"%d,text %d\n" % (number, number) for number in range(3000)),
    "parquet": parquet_bytes(TABLE, row_group_size=700),
}


@pytest.mark.parametrize("suffix", list(CONTENTS))
def test_compressed_files_hold_the_same_rows(tmp_path: Path, suffix: str) -> None:
    content = CONTENTS[suffix]
    plain = [(row.id, row.text, row.line) for row in rows_of(tmp_path / f"a.{suffix}", content)]
    assert [text for _, text, _ in plain] == [f"text {number}" for number in range(3000)]
    for name, compressed in ((f"a.{suffix}.gz", gzipped(content)), (f"a.{suffix}.zst", zstandard(content))):
        assert [(row.id, row.text, row.line) for row in rows_of(tmp_path / name, compressed)] == plain


@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzipped), ("zst", zstandard)])
@pytest.mark.parametrize("name", ["a.txt", "a.parquet"])
def test_a_compressed_file_that_is_cut_short_is_an_error(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes], name: str
) -> None:
    content = compress(CONTENTS[name.partition(".")[2]])
    with pytest.raises(SourceError, match=rf"{name}\.{suffix}"):
        rows_of(tmp_path / f"{name}.{suffix}", content[:-20])
    with pytest.raises(SourceError, match=rf"{name}\.{suffix}"):
        rows_of(tmp_path / f"{name}.{suffix}", b"this is not compressed at all")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (pa.table({"body": ["a"]}), "not exactly one column 'text'; it has 'body'"),
        (pa.table({"text": ["a", None]}), "a.parquet:2: the field 'text' is not text but null"),
        (pa.table({"text": [1, 2]}), "a.parquet:1: the field 'text' is not text but a number"),
    ],
)
def test_a_parquet_file_without_texts_is_told_with_the_row(tmp_path: Path, table: pa.Table, said: str) -> None:
    with pytest.raises(SourceError) as raised:
        rows_of(tmp_path / "a.parquet", parquet_bytes(table))
    assert said in str(raised.value)


def test_what_is_no_parquet_file_is_told(tmp_path: Path) -> None:
    for content in (b"", b"no parquet", CONTENTS["parquet"][:-9]):
        with pytest.raises(SourceError, match=r"a\.parquet: not a readable Parquet file"):
            rows_of(tmp_path / "a.parquet", content)


def test_kept_columns_of_parquet_keep_their_values_exactly(tmp_path: Path) -> None:
    moment = pa.scalar(1, pa.timestamp("ns"))
    table = pa.table({"text": ["a"], "when": pa.array([moment], pa.timestamp("ns"))})
    [row] = rows_of(tmp_path / "a.parquet", parquet_bytes(table), keep=("when", "text"))
    assert row.kept == (moment, pa.scalar("a"))


def test_kept_fields_come_along_and_must_be_there(tmp_path: Path) -> None:
    content = b'{"text": "a", "year": 1999, "tags": ["x"]}\n{"text": "b", "year": null}\n'
    rows = read_rows(find_inputs([str(write(tmp_path / "a.jsonl", content))]), Columns(keep=("year", "tags")))
    assert next(rows).kept == (1999, ["x"])
    with pytest.raises(SourceError, match=r"a\.jsonl:2: no field 'tags'"):
        next(rows)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_a_template_puts_fields_together(tmp_path: Path) -> None:
    template = parse_template(r"{title}\n{{{n}}} {body}")
    content = b'{"title": "t", "body": "b", "n": 7}\n{"title": "t", "n": 8}\n'
    rows = read_rows(find_inputs([str(write(tmp_path / "a.jsonl", content))]), Columns(text=template))
    assert next(rows).text == "t\n{7} b"
    with pytest.raises(SourceError, match=r"a\.jsonl:2: no field 'body'; it has 'title', 'n'"):
        next(rows)
    with pytest.raises(SourceError, match=r"a\.csv:1: no column 'body'"):
        rows_of(tmp_path / "a.csv", b"title,n\nx,1\n", text=template)
    assert texts_of(tmp_path / "a.txt", b"x\n", text=parse_template("passage: {text}")) == ["passage: x"]


def test_a_file_in_another_state_than_it_was_looked_at_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\n")
    state = path.stat()
    files, stamps = find_inputs([str(path)]), {str(path): Stamp(state.st_size, state.st_mtime_ns)}
    assert len(list(read_rows(files, stamps=stamps))) == 1
    path.write_bytes(b"two\n")
    os.utime(path, ns=(0, 0))
    with pytest.raises(SourceError, match=r"a\.txt: it changed while the job was running"):
        list(read_rows(files, stamps=stamps))


def test_a_file_that_grows_while_it_is_read_is_an_error_after_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\ntwo\n")
    rows = read_rows(find_inputs([str(path)]))
    assert next(rows).text == "one"
    with path.open("ab") as file:
        file.write(b"three\n")
    assert next(rows).text == "two"
    with pytest.raises(SourceError, match="it changed"):
        list(rows)


def test_a_file_that_disappears_before_its_turn_is_an_error_after_the_rows_before(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.txt", b"one\n"), write(tmp_path / "b.txt", b"two\n")
    rows = read_rows(find_inputs([str(first), str(second)]))
    assert next(rows).text == "one"
    second.unlink()
    with pytest.raises(SourceError, match=r"b\.txt: No such file"):
        next(rows)
