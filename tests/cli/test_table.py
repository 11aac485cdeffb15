"""Fifty small files, each with its rows, its message, its exit status and its last event."""

import gzip
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from pinecone_embed_async.cli import cli

SKIP = ("--on-bad-row", "skip")
SMALL = ("--model", "llama-text-embed-v2", "--dimension", "384", "--emulator", "--json")


class Case(NamedTuple):
    """A file and what comes of it.

    Attributes:
        name: Its name.
        content: Its bytes, or a table for Parquet.
        rows: The rows of the output, by number; kept values where there are some.
        status: The exit status.
        message: Within the last event's message; empty for none.
        options: Further options.
        warning: Within a warning.
    """

    name: str
    content: bytes | pa.Table
    rows: list[Any]
    status: int = 0
    message: str = ""
    options: tuple[str, ...] = ()
    warning: str = ""


def jsonl(*values: str) -> bytes:
    return "".join(f'{{"text": "a", "kept": {value}}}\n' for value in values).encode()


KEEP = ("--keep", "kept")
CASES = [
    # Text.
    Case("a.txt", b"a\nb\n", [0, 1]),
    Case("a.txt", b"a\r\n\nb", [0, 1, 2]),
    Case("a.txt", b"", []),
    Case("a.txt", b"\xef\xbb\xbf", []),
    Case("a.txt", b"\xef\xbb\xbfa\n", [0]),
    Case("a.txt", b"a\n\xff\nb\n", [], 5, "a.txt:2: not UTF-8 (byte 0xff); --on-bad-row skip leaves such rows out"),
    Case("a.txt", b"a\n\xff\nb\n", [0, 2], options=SKIP),
    Case("a.txt", b"a\n \n\n", [0], options=(*SKIP, "--no-blank")),
    Case("a.txt", b"a\n \n", [], 5, "a.txt:2: the text is empty", ("--no-blank",)),
    Case("a.txt", "aä\n".encode("utf-16"), [], 5, "it is UTF-16, and must be UTF-8: iconv"),
    Case("a.txt", b"a\rb\rc", [], 5, "its lines end with CR alone, and must end with LF"),
    Case("a.txt", gzip.compress(b"a\n"), [], 5, "it is compressed by gzip; let its name end in .gz"),
    Case("a.txt.gz", gzip.compress(b"a\nb\n"), [0, 1]),
    Case("a.txt.gz", b"a\n", [], 5, "a.txt.gz:1: Not a gzipped file"),
    Case("a.txt", b"a\n", [], 5, "a text file has only the field 'text', not 'id'", ("--id-field", "id")),
    # JSON lines.
    Case("a.jsonl", b'{"text": "a"}\n\n{"text": "b"}\n', [0, 1]),
    Case("a.ndjson", b'{"text": "a"}\n', [0]),
    Case("a.jsonl", b"\xef\xbb\xbf", []),
    Case("a.jsonl", b'{"text": null}\n', [], 5, "the field 'text' is not text but null"),
    Case("a.jsonl", b'{"text": null}\n{"text": "b"}\n{"body": "c"}\n7\n{"te\n', [1], options=SKIP),
    Case("a.jsonl", b'{"text": 5}\n' * 12, [], 5, "12 rows cannot be embedded: "),
    Case("a.jsonl", b'{"text": 5}\n' * 12, [], 5, "and 2 more; --on-bad-row skip"),
    Case("a.jsonl", b'{\n  "text": "a"\n}\n', [], 5, "jq -c"),
    Case("a.jsonl", b'[{"text": "a"}]\n', [], 5, "jq -c '.[]'"),
    Case("a.jsonl", b'{"text": "a", "n": NaN}\n', [], 5, "a.jsonl:1: not JSON, which has no NaN; write null"),
    Case("a.jsonl", b'{"text": "a", "n": -Infinity}\n', [], 5, "which has no -Infinity; write null"),
    Case("a.jsonl", b'{"text": "\\ud800"}\n', [], 5, "half of a surrogate pair"),
    Case("a.jsonl", b'{"text": "a"\n', [], 5, "not JSON: the line ends in the middle of it"),
    Case("a.jsonl", b'{"text": "a",}\n', [], 5, "not JSON: "),
    Case("a.jsonl", b'{"text": "a", "n": 1e999}\n', [], 5, "a number is out of range"),
    Case("a.jsonl", b'{"boddy": "a"}\n', [], 5, "no field 'body'; did you mean 'boddy'?", ("--text-field", "body")),
    Case("a.jsonl", b'{"doc": {"body": "a"}}\n', [0], options=("--text-field", "doc.body")),
    Case("a.jsonl", b'{"doc.body": "a", "doc": 1}\n', [0], options=("--text-field", "doc.body")),
    Case("a.jsonl", b'{"doc": {"body": "a"}}\n', [0], options=("--text", "x {doc.body}")),
    Case("a.jsonl", b'{"doc": "a"}\n', [], 5, "no field 'doc.upper'", ("--text-field", "doc.upper")),
    Case(
        "a.jsonl",
        b'{"text": "a", "k": 1}\n{"text": "b", "k": 1}\n',
        [0, 1],
        options=("--id-field", "k"),
        warning="1 row has",
    ),
    Case("a.jsonl", b'{"text": "a", "k": 1}\n' * 2, [], 5, "--unique-ids was given", ("--id-field", "k", "--unique-ids")),
    # Kept columns.
    Case("a.jsonl", jsonl("1", "null", "2"), [1, None, 2], options=KEEP),
    Case(
        "a.jsonl", jsonl("9007199254740993", "1.5"), ["9007199254740993", "1.5"], options=KEEP, warning="'kept' becomes JSON"
    ),
    Case("a.jsonl", jsonl("true", "1"), ["true", "1"], options=KEEP, warning="'kept' becomes JSON text"),
    Case("a.jsonl", jsonl("[1]", "null"), ["[1]", None], options=KEEP),
    Case("a.jsonl", jsonl("18446744073709551616"), ["18446744073709551616"], options=KEEP),
    Case("a.jsonl", b'{"text": "a", "d": {"y": 7}}\n', [7], options=("--keep", "d.y")),
    # CSV.
    Case("a.csv", b"text,n\na,1\nb,2\n", [0, 1]),
    Case("a.tsv", b"text\tn\na\t1\n", [0]),
    Case("a.csv", b"text;n\na;1\n", [0], options=("--delimiter", ";")),
    Case("a.csv", b"boddy,n\na,1\n", [], 5, "no column 'body'; did you mean 'boddy'?", ("--text-field", "body")),
    Case("a.csv", b"text,n\na,1\nb\n\xff,2\nd,4\n", [0, 3], options=SKIP),
    Case("a.csv", b"text,n\na,1\nb\n", [], 5, "a.csv:3: 1 fields, but the header has 2"),
    Case("a.csv", b"", [], 5, "no header"),
    # Parquet.
    Case("a.parquet", pa.table({"text": ["a", None, "c"]}), [0, 2], options=SKIP),
    Case("a.parquet", pa.table({"text": ["a", None]}), [], 5, "a.parquet:2: the field 'text' is not text but null"),
    Case("a.parquet", pa.table({"doc": [{"body": "a", "n": 1}]}), [0], options=("--text-field", "doc.body")),
    Case(
        "a.parquet", pa.table({"doc": [{"body": "a", "n": 1}]}), [1], options=("--text-field", "doc.body", "--keep", "doc.n")
    ),
    Case("a.parquet", b"no parquet", [], 5, "not a readable Parquet file"),
    Case("a.txt", b"PAR1", [], 5, "it is a Parquet file; let its name end in .parquet"),
    # What the options say.
    Case("a.txt", b"a\n", [], 2, "the format is unknown", ("b.pdf",)),
    Case("a.txt", b"a\n", [], 2, "--delimiter must be one character", ("--delimiter", "ab")),
    Case("a.txt", b"a\n", [], 2, "No such option", ("--nonsense",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} {case.content!s:.24} {' '.join(case.options)}")
def test_a_file_has_its_rows_its_message_its_status_and_its_end(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if isinstance(case.content, pa.Table):
        parquet.write_table(case.content, case.name)
    else:
        Path(case.name).write_bytes(case.content)
    assert cli("embed", case.name, "--out", "out", *SMALL, *case.options) == case.status
    said = capsys.readouterr()
    events = [json.loads(line) for line in said.out.splitlines()]
    assert [event["event"] for event in events].count("end") == 1
    assert events[-1]["event"] == "end"
    assert events[-1]["status"] == case.status
    assert case.message in (events[-1]["message"] or "")
    assert bool(case.message) == bool(events[-1]["message"])
    assert said.err.count("\n") == bool(case.message)
    warnings = [event["message"] for event in events if event["event"] == "warning"]
    assert len(warnings) == bool(case.warning)
    assert all(case.warning in warning for warning in warnings)
    if case.status:
        assert not list(tmp_path.glob("out/part-*"))
        return
    read = dataset.dataset("out", format="parquet").to_table().sort_by("row")
    kept = [name for name in read.column_names if name not in {"id", "row", "vector"}]
    assert read[kept[0] if kept else "row"].to_pylist() == case.rows
    assert events[-1]["done"] == len(case.rows)
    assert events[-1]["skipped"] == events[-1]["total"] - len(case.rows)


def test_there_are_fifty_of_them() -> None:
    assert len(CASES) >= 50


def test_a_name_that_is_not_utf8_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = os.fsencode(tmp_path / "in")
    Path(os.fsdecode(folder)).mkdir()
    for name in (b"caf\xe9.txt", b"b.txt"):
        Path(os.fsdecode(folder + b"/" + name)).write_text("a\n")
    Path(os.fsdecode(folder + b"/\xe9.pdf")).touch()
    for _ in range(2):
        assert cli("embed", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *SMALL) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (events[-1]["done"], events[-1]["requests"]) == (2, 0)
    assert [event["message"] for event in events if event["event"] == "warning"] == [
        f"skipped files of unknown formats: {tmp_path}/in/\\udce9.pdf"
    ] * 2
