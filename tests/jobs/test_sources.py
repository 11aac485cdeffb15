import io
import json
import sys
from pathlib import Path

import pytest

from pinecone_embed_async._jobs import InputFormat, Row, SourceError, read_rows


def rows_of(path: Path, content: bytes, **options: str) -> list[Row]:
    path.write_bytes(content)
    return list(read_rows([str(path)], **options))  # type: ignore[arg-type]


def texts_of(path: Path, content: bytes, **options: str) -> list[str]:
    return [row.text for row in rows_of(path, content, **options)]


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
    assert list(read_rows([str(first), str(second)])) == [
        Row("0", "one", str(first), 1),
        Row("1", "two", str(first), 2),
        Row("2", "three", str(second), 2),
    ]


def test_a_csv_field_may_hold_line_feeds_and_its_row_begins_at_the_first(tmp_path: Path) -> None:
    content = b'id,text\r\na,"one\ntwo, ""three"""\r\n\r\nb,four\r\n'
    found = rows_of(tmp_path / "a.csv", content, id_field="id")
    assert [(row.id, row.text, row.line) for row in found] == [("a", 'one\ntwo, "three"', 2), ("b", "four", 5)]


def test_a_csv_field_may_be_longer_than_the_readers_default_limit(tmp_path: Path) -> None:
    long = "x" * 300_000
    assert texts_of(tmp_path / "a.csv", f"text\n{long}\n".encode()) == [long]


def test_ids_are_text_or_whole_numbers(tmp_path: Path) -> None:
    content = b'{"text": "a", "id": 7}\n{"text": "b", "id": "x"}\n'
    assert [row.id for row in rows_of(tmp_path / "a.jsonl", content, id_field="id")] == ["7", "x"]


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
        ("a.txt", b"a\n", "lines of text have no fields"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_by_file_and_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    with pytest.raises(SourceError) as raised:
        rows_of(tmp_path / name, content, id_field="id")
    assert said in str(raised.value)


def test_a_record_with_many_fields_does_not_name_them_all(tmp_path: Path) -> None:
    content = json.dumps({f"field {number}": 1 for number in range(1000)}).encode()
    with pytest.raises(SourceError) as raised:
        rows_of(tmp_path / "a.jsonl", content)
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_formats_are_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"in\.pdf: the format is unknown"):
        list(read_rows([str(tmp_path / "missing.txt"), "in.pdf"]))
    with pytest.raises(SourceError, match="standard input: the format is unknown"):
        list(read_rows(["-"]))


def test_a_given_format_holds_for_every_input(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b\n")
    assert [row.text for row in read_rows([str(path)], format=InputFormat.TXT)] == ["a,b"]


def test_standard_input_is_one_of_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\n\xff\n")))
    rows = read_rows(["-"], format=InputFormat.TXT)
    assert next(rows) == Row("0", "one", "standard input", 1)
    with pytest.raises(SourceError, match="standard input:2: not UTF-8"):
        next(rows)


def test_a_closed_standard_input_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="closed"):
        list(read_rows(["-"], format=InputFormat.TXT))


def test_a_folder_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(SourceError, match="Is a directory"):
        list(read_rows([str(tmp_path / "a.txt")]))
