import asyncio
import configparser
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from pinecone_embed_async import __version__
from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import EmulatedModel, Emulator, ServiceQuota
from pinecone_embed_async.emulator._models import MODELS
from tests.cli.program import in_thread
from tests.processes import environment_of

QUIET = ("--emulator", "--quiet")

DENSE, SPARSE = (next(model for model in MODELS if model.vector_type == kind) for kind in ("dense", "sparse"))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("".join(f"line {number}\n" for number in range(200)))
    return path


def embed(*arguments: object) -> int:
    return cli("embed", *map(str, arguments), *QUIET)


def test_lines_become_a_parquet_table_of_fixed_size_vectors(texts: Path, tmp_path: Path) -> None:
    assert embed(texts, "--out", tmp_path / "out.parquet") == 0
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "vector"]
    assert table.num_rows == 200
    assert table.schema.field("vector").type.list_size == 1024


def test_all_formats_give_the_same_rows(texts: Path, tmp_path: Path) -> None:
    lines = texts.read_text().splitlines()
    jsonl, table = tmp_path / "in.jsonl", tmp_path / "in.csv"
    jsonl.write_text("".join(json.dumps({"body": line, "key": f"k{n}"}) + "\n" for n, line in enumerate(lines)))
    table.write_text("key,body\n" + "".join(f"k{n},{line}\n" for n, line in enumerate(lines)))
    assert embed(texts, "--out", tmp_path / "a.npy") == 0
    fields = ("--text-field", "body", "--id-field", "key")
    assert embed(jsonl, *fields, "--out", tmp_path / "b.jsonl") == 0
    assert embed(table, *fields, "--out", tmp_path / "c.parquet") == 0
    expected = np.load(tmp_path / "a.npy")
    records = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [record["id"] for record in records] == [f"k{n}" for n in range(200)]
    np.testing.assert_array_equal(np.array([record["vector"] for record in records], np.float32), expected)
    read = parquet.read_table(tmp_path / "c.parquet")
    np.testing.assert_array_equal(np.array(read["vector"].to_pylist(), np.float32), expected)


def test_sparse_rows_are_lists_of_indices_and_values_with_tokens_on_request(texts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    model = ("--model", "pinecone-sparse-english-v0", "--parameter", "return_tokens=true")
    assert embed(texts, "--out", out, *model) == 0
    row = parquet.read_table(out).to_pylist()[7]
    assert sorted(row["tokens"]) == ["7", "line"]
    assert len(row["indices"]) == len(row["values"]) == 2
    assert embed(texts, "--out", tmp_path / "out.jsonl", *model) == 0
    first = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert sorted(first["tokens"]) == ["0", "line"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.jsonl", b'{"text": "a"}\n{"text": \n', "in.jsonl:2: not JSON"),
        ("in.jsonl", b'{"body": "a"}\n', "in.jsonl:1: no field 'text'"),
        ("in.jsonl", b'{"text": 5}\n', "in.jsonl:1: the field 'text' is not text"),
        ("in.txt", b"fine\n\xff\n", "in.txt:2: not UTF-8"),
        ("in.csv", b"body\na\n", "in.csv:1: no column 'text'"),
        ("in.csv", b"text,b\na\n", "in.csv:2: 1 fields"),
    ],
)
def test_input_that_cannot_be_read_is_one_line_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    assert embed(tmp_path / name, "--out", tmp_path / "out.npy") == 5
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.npy").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", "in.pdf", "--out", "out.npy", *QUIET),
        ("embed", "in.txt", "--out", "out.pdf", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--model", "pinecone-sparse-english-v0", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--input-type", "document", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--parameter", "novalue", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--no-such-option"),
        ("embed", "in.txt", "--out", "out.npy", "--keep", "x", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--json", *QUIET),
        ("embed", "in.txt", "--out", "out", "--text", "{a", *QUIET),
        ("embed", "in.txt", "--out", "out", "--text", "{a}", "--text-field", "a", *QUIET),
        ("embed", "in.txt", "--out", "out", "--append", "--overwrite", *QUIET),
        ("embed", "in.txt", "--out", "out", "--keep", "vector", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--parameter", "input_type=1", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--parameter", "a=1", "--parameter", "a=2", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--parameter", "a=text", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--timeout", "0", *QUIET),
        ("embed", "in.txt", "--out", "out.npy", "--base-url", "https://else.where", *QUIET),
        ("demo", "--model", "pinecone-sparse-english-v0"),
        ("emulator", "--fault", "nonsense"),
        ("models", "--emulator"),
        ("check", "--emulator", "--base-url", "https://else.where"),
        ("nonsense",),
    ],
)
def test_misuse_is_one_line_and_status_2(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("a\n")
    assert cli(*arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path("out.npy").exists()


def test_a_missing_file_and_a_missing_key_have_their_statuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(tmp_path / "none.txt", "--out", tmp_path / "out.npy") == 5
    (tmp_path / "in.txt").write_text("a\n")
    assert cli("embed", str(tmp_path / "in.txt"), "--out", str(tmp_path / "out.npy")) == 3
    assert "PINECONE_API_KEY" in capsys.readouterr().err


def test_an_error_that_nobody_foresaw_is_one_line_too(texts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(texts, "--out", "no\0name.npy") == 1
    # The rest is the interpreter's, and differs from version to version.
    assert re.fullmatch(r"pinecone-embed: unexpected ValueError: .*embedded null .*\n", capsys.readouterr().err)


def test_no_command_is_answered_with_the_help_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli() == 2
    assert "--version" in capsys.readouterr().out


async def test_an_address_that_cannot_be_listened_on_is_one_line(
    emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    port = emulator.url.rpartition(":")[2]
    assert await asyncio.to_thread(cli, "emulator", "--port", port) == 1
    assert capsys.readouterr().err.startswith(f"pinecone-embed: cannot listen on 127.0.0.1 port {port}: ")


@pytest.mark.parametrize(
    ("before", "status", "said"),
    [
        ("sys.modules['typer'] = None", 1, "pinecone-embed: the command line needs typer; install it with: "),
        # A module of its own that is missing is no extra that could be installed.
        ("sys.modules['pinecone_embed_async.cli._app'] = None", 1, "Traceback"),
        ("sys.meta_path.insert(0, Interrupt())", 130, ""),
    ],
)
def test_what_goes_wrong_while_a_command_is_imported_has_its_status(before: str, status: int, said: str) -> None:
    code = f"""
import sys

class Interrupt:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            raise KeyboardInterrupt

{before}
from pinecone_embed_async.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (status, "")
    assert ended.stderr.startswith(said) if said else not ended.stderr


@pytest.mark.parametrize("command", ["models", "--version"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_gone_away_is_nothing_to_complain_of(command: str, unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "pinecone_embed_async.cli", command],
        stdout=writing,
        stderr=subprocess.PIPE,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writing)
    assert (ended.returncode in {0, 1}, ended.stderr) == (True, b"")


def test_a_standard_output_that_is_closed_is_nothing_to_complain_of_either() -> None:
    ended = subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" -m pinecone_embed_async.cli --version >&-', sys.executable],
        stderr=subprocess.PIPE,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")


async def test_a_run_that_embeds_nothing_writes_nothing(
    texts: Path, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.npy"
    out.write_bytes(b"as before")
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
    monkeypatch.setenv("PINECONE_API_KEY", "wrong")
    assert await asyncio.to_thread(cli, "embed", str(texts), "--out", str(out), "--quiet") == 3
    assert f"nothing was embedded, so {out} is not written: " in capsys.readouterr().err
    assert out.read_bytes() == b"as before"


@pytest.mark.parametrize(
    ("model", "status", "said"),
    [
        (replace(SPARSE, name="new-sparse"), 2, "new-sparse gives sparse vectors, and a .npy file holds only dense ones"),
        (replace(DENSE, name="new-dense"), 0, ""),
        # The service does not know it either, which the request finds out.
        (None, 3, "nothing was embedded"),
    ],
)
async def test_a_model_not_known_by_name_is_asked_about_before_its_vectors_go_into_a_table_of_numbers(
    model: EmulatedModel | None,
    status: int,
    said: str,
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out.npy"
    async with Emulator(models=() if model is None else (model,)) as emulator:
        monkeypatch.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
        monkeypatch.setenv("PINECONE_API_KEY", emulator.api_key)
        name = "new" if model is None else model.name
        arguments = ("embed", str(texts), "--out", str(out), "--quiet", "--model", name)
        assert await asyncio.to_thread(cli, *arguments) == status
        assert bool(emulator.statistics().requests) == (status != 2)
    assert said in capsys.readouterr().err
    assert out.exists() == (status == 0)


def test_models_are_listed_known_and_live(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ((), ("--live", "--emulator")):
        assert cli("models", *arguments) == 0
        out = capsys.readouterr().out
        assert "multilingual-e5-large" in out
        assert "2048" in out
        assert "pinecone-sparse-multilingual-v0" in out


def test_the_demo_finds_docstrings_with_the_words_of_the_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("demo", "read a configuration file of sections and options")
    assert cli(*command) == 0
    captured = capsys.readouterr()
    assert "configparser" in captured.out
    assert len(captured.out.splitlines()) == 6
    assert "inputs/s" in captured.err
    # A small library is enough to see that only what is said beside the result is left out.
    (tmp_path / "configparser.py").write_bytes(Path(configparser.__file__).read_bytes())
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path))
    assert cli(*command) == 0
    captured = capsys.readouterr()
    assert "inputs/s" in captured.err
    assert cli(*command, "--quiet") == 0
    assert capsys.readouterr() == (captured.out, "")


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli("--version") == 0
    assert __version__ in capsys.readouterr().out
    for command in ("embed", "estimate", "models", "check", "emulator", "demo"):
        assert cli(command, "--help") == 0
        assert "--help" in capsys.readouterr().out


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PINECONE")}
    return subprocess.Popen(
        [sys.executable, "-m", "pinecone_embed_async.cli", *map(str, arguments)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, **options.pop("env", {})},
        **options,
    )


async def test_ctrl_c_leaves_no_half_written_output(texts: Path, tmp_path: Path, emulator: Emulator) -> None:
    emulator.hold()
    job = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pinecone_embed_async.cli", "embed", str(texts), "--out", str(tmp_path / "out.npy"), "-q"),
        env=environment_of(emulator),
        stderr=asyncio.subprocess.PIPE,
    )
    await emulator.wait_for_in_flight(3)
    job.send_signal(signal.SIGINT)
    _, err = await job.communicate()
    assert (job.returncode, err) == (130, b"")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_standard_input_is_read(tmp_path: Path) -> None:
    with start("embed", "-", "--format", "txt", "--out", tmp_path / "out.npy", *QUIET, stdin=subprocess.PIPE) as job:
        _, err = job.communicate("one\ntwo\n", timeout=30)
    assert (job.returncode, err) == (0, "")
    assert np.load(tmp_path / "out.npy").shape == (2, 1024)


def test_rows_that_fail_are_listed_and_the_others_written(tmp_path: Path, texts: Path) -> None:
    with start("emulator", "--reject", "line 150") as emulator:
        assert emulator.stdout is not None
        exports = [emulator.stdout.readline().split(" ", 1)[1].strip().split("=", 1) for _ in range(2)]
        with start("embed", texts, "--out", tmp_path / "out.jsonl", "--batch-size", 50, env=dict(exports)) as job:
            _, err = job.communicate(timeout=30)
        emulator.send_signal(signal.SIGINT)
        emulator.communicate(timeout=30)
    assert job.returncode == 1
    assert "1 of 200 rows are missing" in err
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 199
    failures = [json.loads(line) for line in (tmp_path / "out.jsonl.failures.jsonl").read_text().splitlines()]
    assert [failure["row"] for failure in failures] == [150]
    assert failures[0]["error"] == "InvalidRequestError"


async def test_with_a_cache_what_was_paid_for_is_not_sent_again(texts: Path, tmp_path: Path, emulator: Emulator) -> None:
    cache = tmp_path / "vectors.cache"
    arguments = (str(texts), "--quiet", "--cache", str(cache))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pinecone_embed_async.cli", "embed", *arguments, "--out", str(tmp_path / "first.npy")),
        env=environment_of(emulator),
    )
    assert await process.wait() == 0
    for out in ("second.npy", "folder/"):
        assert emulator.statistics().answered == {f"line {number}": 1 for number in range(200)}
        # A folder's slash says that it is one.
        assert await in_thread(emulator, *arguments, "--out", f"{tmp_path}/{out}") == 0
    assert emulator.statistics().answered == {f"line {number}": 1 for number in range(200)}
    np.testing.assert_array_equal(np.load(tmp_path / "first.npy"), np.load(tmp_path / "second.npy"))
    assert parquet.read_table(next((tmp_path / "folder").glob("*.parquet"))).num_rows == 200


def test_a_cache_that_cannot_be_is_told_before_anything_is_read(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "k")
    out = ("embed", str(texts), "--out", str(tmp_path / "out"))
    assert cli(*out, "--cache", str(tmp_path / "missing" / "vectors.cache")) == 2
    assert "existing folder" in capsys.readouterr().err
    assert cli(*out, "--cache", str(tmp_path / "vectors.cache"), "--emulator") == 2
    assert "--emulator" in capsys.readouterr().err


async def test_jobs_with_one_quota_file_stay_within_it_together(texts: Path, tmp_path: Path) -> None:
    # As many tokens as the emulator counts for one job, so that the second one has to wait.
    quota = ServiceQuota(tokens_per_window=800, window=60.0)
    async with Emulator(quota=quota) as emulator:
        file = str(tmp_path / "quota.db")
        program = (
            sys.executable,
            "-m",
            "pinecone_embed_async.cli",
            "embed",
            "--quiet",
            "--quota",
            "800",
            "--quota-file",
            file,
        )
        folders = [tmp_path / "first", tmp_path / "second"]
        processes = [
            await asyncio.create_subprocess_exec(
                *(*program, str(texts), "--out", str(folder), "--timeout", "3"), env=environment_of(emulator)
            )
            for folder in folders
        ]
        ends = [await process.wait() for process in processes]
        statistics = emulator.statistics()
        assert statistics.by_status.get(429, 0) == 0
        # The time is over before there is more: for both, or for the one that had started later.
        assert statistics.tokens_billed > 700
        assert sorted(ends) in ([6, 6], [0, 6])


def test_a_quota_file_that_cannot_be_is_told_before_anything_is_read(
    texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "k")
    out = ("embed", str(texts), "--out", str(tmp_path / "out.npy"))
    assert cli(*out, "--quota-file", str(tmp_path / "missing" / "quota.db")) == 2
    assert "existing folder" in capsys.readouterr().err
    assert cli(*out, "--quota-file", str(tmp_path / "quota.db"), "--emulator") == 2
    assert "--emulator" in capsys.readouterr().err
    (tmp_path / "notes.db").write_text("a note, and not a short one " * 9)
    assert cli(*out, "--quota-file", str(tmp_path / "notes.db"), "--base-url", "http://127.0.0.1:9") == 2
    assert "another program" in capsys.readouterr().err
    job = ("embed", str(texts), "--out", str(tmp_path / "folder"), "--base-url", "http://127.0.0.1:9")
    assert cli(*job, "--quota-file", str(tmp_path / "notes.db")) == 2
    assert "another program" in capsys.readouterr().err
