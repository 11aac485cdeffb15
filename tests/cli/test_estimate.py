"""`pinecone-embed estimate`: the same inputs as `embed`, no key, no request."""

import gzip
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import in_thread

TEXTS = [f"text number {number % 150}" for number in range(200)]


def estimate(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert cli("estimate", *map(str, arguments), "--json") == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    told: dict[str, Any] = json.loads(printed.out)
    return told


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"title": text[:4], "body": text[5:], "text": text}) + "\n" for text in TEXTS))
    return path


def test_it_tells_a_person_what_it_will_cost(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("estimate", str(source)) == 0
    lines = [re.split(r"  +", line.rstrip()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        ["model", "multilingual-e5-large"],
        ["inputs", "200"],
        ["duplicates", "50 (--dedupe would not send them)"],
        ["over the model's length", "0"],
        ["tokens, about", "1,000 (800 to 1,450)"],
        ["requests", "3"],
        [""],
        ["plan", "tokens a minute", "waiting for the quota, about"],
        ["starter", "250,000", "none"],
        ["builder", "250,000", "none"],
        ["standard", "1,000,000", "none"],
        ["enterprise", "1,000,000", "none"],
    ]


def test_it_tells_a_program_the_same_and_each_plans_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = tmp_path / "in.txt"
    long.write_text("".join(f"{'x' * 1990}{number:10}\n" for number in range(2000)) + f"{'y' * 9000}\n")
    told = estimate(capsys, long)
    assert (told["model"], told["inputs"], told["duplicates"], told["over_length"]) == ("multilingual-e5-large", 2001, 0, 1)
    assert told["tokens_low"] < told["tokens"] == 2000 * 502 + 507 < told["tokens_high"]
    assert told["requests"] >= 2001 / 96
    assert told["plans"]["starter"] == {"tokens_per_minute": 250_000, "seconds": 240.0}
    assert told["plans"]["enterprise"] == {"tokens_per_minute": 1_000_000, "seconds": 60.0}
    assert estimate(capsys, long, "--input-type", "query")["plans"]["starter"]["seconds"] == 20 * 60
    sparse = estimate(capsys, long, "--model", "pinecone-sparse-english-v0")
    assert sparse["plans"]["standard"] == {"tokens_per_minute": 3_000_000, "seconds": 0.0}
    assert cli("estimate", str(long), "--input-type", "query") == 0
    assert re.search(r"starter +50,000 +20 min *$", capsys.readouterr().out, re.MULTILINE)


def test_every_form_of_the_inputs_gives_the_same(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = estimate(capsys, source)
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(source.read_bytes()))
    (tmp_path / "c.csv").write_text("body\n" + "".join(f"{text}\n" for text in TEXTS))
    parquet.write_table(pa.table({"text": TEXTS}), tmp_path / "d.parquet")
    for arguments in (
        (tmp_path / "a.txt",),
        (tmp_path / "b.jsonl.gz",),
        (tmp_path / "c.csv", "--text-field", "body"),
        (tmp_path / "d.parquet",),
        (source, "--text", "{title} {body}"),
        (tmp_path / "[a].txt",),
    ):
        assert estimate(capsys, *arguments) == told
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "a.txt").read_bytes())))
    assert estimate(capsys, "-", "--format", "txt") == told
    once = estimate(capsys, source, "--dedupe")
    assert (once["inputs"], once["duplicates"], once["requests"]) == (200, 50, 2)
    assert once["tokens"] < told["tokens"]
    assert estimate(capsys, source, "--batch-size", 10)["requests"] == 20


@pytest.mark.parametrize("options", [(), ("--dedupe",), ("--batch-size", 7)])
async def test_it_is_what_embedding_sends_then(
    source: Path, tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str], options: tuple[object, ...]
) -> None:
    told = estimate(capsys, source, *options)
    assert emulator.statistics().requests == 0
    assert await in_thread(emulator, source, "--out", tmp_path / "out", "-q", *options) == 0
    assert emulator.statistics().requests == told["requests"]
    assert told["tokens_low"] <= emulator.statistics().tokens_billed <= told["tokens_high"]


@pytest.mark.parametrize(
    ("name", "content", "options", "status", "said"),
    [
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', (), 5, "in.jsonl:2: not JSON"),
        ("in.jsonl", b'{"text": "a"}\n{"body": "b"}\n', (), 5, "in.jsonl:2: no field 'text'"),
        ("in.txt", b"a\n\xff\n", (), 5, "in.txt:2: not UTF-8"),
        ("in.txt", b"a\n", ("--input-type", "document"), 2, "input_type must be one of"),
        ("in.txt", b"a\n", ("--text", "{a}", "--text-field", "b"), 2, "give one"),
        ("in.pdf", b"a\n", (), 2, "the format is unknown"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_a_status(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes,
    options: tuple[str, ...],
    status: int,
    said: str,
) -> None:
    (tmp_path / name).write_bytes(content)
    assert cli("estimate", str(tmp_path / name), *options) == status
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert said in printed.err
