"""What is left out of one output file and of an estimate: rows that cannot be embedded, files that are not read."""

import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from pinecone_embed_async.cli import cli

SMALL = ("--model", "llama-text-embed-v2", "--dimension", "384", "--emulator")
SKIP = ("--on-bad-row", "skip")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a", "k": 1}\n{"text": null, "k": 2}\nnonsense\n{"text": "d", "k": 1}\n')
    return path


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "npy"])
def test_one_file_leaves_them_out_on_request_and_lists_them_without_their_content(
    source: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = source.with_name(f"out.{suffix}")
    assert cli("embed", str(source), "--out", str(out), *SMALL, *SKIP) == 0
    assert capsys.readouterr().err.endswith("; 2 skipped\n")
    listed = [json.loads(line) for line in out.with_name(f"{out.name}.failures.jsonl").read_text().splitlines()]
    assert [(each["row"], each["line"], each["error"], each["id"]) for each in listed] == [
        (1, 2, "SkippedRow", None),
        (2, 3, "SkippedRow", None),
    ]
    assert "nonsense" not in str(listed)
    if suffix == "npy":
        vectors = np.load(out)
        assert vectors.shape == (4, 384)
        assert np.isnan(vectors).all(1).tolist() == [False, True, True, False]
        assert not np.array_equal(vectors[0], vectors[3])
        return
    rows = parquet.read_table(out).to_pylist() if suffix == "parquet" else map(json.loads, out.read_text().splitlines())
    assert [row["id"] for row in rows] == ["0", "3"]


def test_of_one_file_they_are_counted_and_named_before_anything_is_sent(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = source.with_name("out.jsonl")
    assert cli("embed", str(source), "--out", str(out), *SMALL) == 5
    said = capsys.readouterr().err
    assert "2 rows cannot be embedded: " in said
    assert "in.jsonl:2: " in said
    assert "in.jsonl:3: " in said
    assert said.count("\n") == 1
    assert not out.exists()


def test_an_input_of_such_rows_alone_is_an_empty_file(tmp_path: Path) -> None:
    source, out = tmp_path / "in.txt", tmp_path / "out.npy"
    source.write_bytes(b"\xff\n\xff\n")
    assert cli("embed", str(source), "--out", str(out), *SMALL, *SKIP, "-q") == 0
    assert np.isnan(np.load(out)).all()
    assert np.load(out).shape == (2, 384)


def test_rows_with_one_id_are_counted_or_refused_for_one_file_too(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = source.with_name("out.jsonl")
    options = ("embed", str(source), "--out", str(out), *SMALL, *SKIP, "--id-field", "k", "-q")
    assert cli(*options) == 0
    assert "1 row has the id of an earlier row; --unique-ids makes this an error" in capsys.readouterr().err
    out.unlink()
    assert cli(*options, "--unique-ids") == 5
    assert "--unique-ids was given" in capsys.readouterr().err
    assert not out.exists()


def test_an_estimate_counts_them_or_is_an_error(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("estimate", str(source)) == 5
    assert "2 rows cannot be embedded: " in capsys.readouterr().err
    assert cli("estimate", str(source), *SKIP, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["inputs"], told["skipped"]) == (2, 2)
    assert cli("estimate", str(source), *SKIP) == 0
    assert "rows left out" in capsys.readouterr().out


def test_an_estimate_takes_blank_texts_as_embedding_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.txt"
    source.write_text("a\n \nb\n")
    assert cli("estimate", str(source), "--no-blank", *SKIP, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["inputs"], told["skipped"]) == (2, 1)


@pytest.mark.parametrize("command", [("embed", "--out", "out.jsonl", *SMALL), ("estimate",)])
def test_files_of_a_folder_that_are_not_read_are_named(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    Path("in/a.txt").write_text("a\n")
    Path("in/b.pdf").touch()
    assert cli(*command, "in") == 0
    assert "skipped files of unknown formats: in/b.pdf\n" in capsys.readouterr().err
