"""Jobs as a person starts them: in processes of their own, against the emulator in the test's process."""

import asyncio
import contextlib
import csv
import gzip
import json
import os
import random
import re
import resource
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import ANY

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from pinecone_embed_async._jobs._journal import scan
from pinecone_embed_async._jobs._parts import Segment
from pinecone_embed_async.cli import cli
from pinecone_embed_async.cli._docstrings import read_docstrings
from pinecone_embed_async.emulator import EmbedRequest, Emulator
from tests.cli.forking import Forks, forks
from tests.cli.program import in_thread, run, start, table_of, write_texts


def assert_same_table(left: pa.Table, right: pa.Table) -> None:
    assert left.schema == right.schema
    for name in left.column_names:
        if name == "vector":
            one, other = (np.array(table[name].combine_chunks().flatten()) for table in (left, right))
            np.testing.assert_array_equal(one, other)
        else:
            assert left[name].to_pylist() == right[name].to_pylist()


@pytest.fixture(scope="module")
def forked() -> Iterator[Forks]:
    with forks() as running:
        yield running


def recorded(out: Path) -> int:
    """How many rows are in a job's journal."""
    journal = out / "_journal-00000.log"
    return len(Segment(journal, scan(journal).spans).row_numbers()) if journal.exists() else 0


async def killed_again_and_again(
    forked: Forks, source: Path, out: Path, times: int, emulator: Emulator, *options: object
) -> None:
    """Kill a job at random moments, start it again each time, and see that nothing was sent again that it had recorded."""
    rng = random.Random(20)
    lines = [line for line in source.read_bytes().splitlines() if line != b"\xff"]
    different = len(set(lines)) if "--dedupe" in options else len(lines)
    emulator.reset_statistics()
    left = 0

    def latency(_: EmbedRequest) -> float:
        nonlocal left
        left -= 1
        return 0.03 if left >= 0 else 60

    emulator.latency = latency
    for _ in range(times):
        # So few that it cannot be done before it is killed.
        left = rng.randint(1, 15)
        before = recorded(out)
        job = await forked.start(emulator, source, "--out", out, *options)
        # From its first record on, for a process that is killed before that shows little.
        while recorded(out) == before and not job.ending.done():  # noqa: ASYNC110 - it is another process's file
            await asyncio.sleep(0.03)
        await asyncio.sleep(rng.uniform(0, 0.2))
        job.kill()
        assert await job.ending == (None, "")
    emulator.latency = 0
    rows, sent = recorded(out), emulator.statistics().answered.total()
    assert rows >= times
    assert await forked.run(emulator, source, "--out", out, *options) == (0, "")
    answered = emulator.statistics().answered
    assert len(answered) == len(set(lines))
    assert answered.total() - sent == different - rows
    left_behind = {path.name for path in out.iterdir() if not path.name.startswith("part-")}
    assert left_behind - {"_failures.jsonl", "_table", "__default__"} == {"_job.json", "_lock"}


async def in_thread_with(emulator: Emulator, given: bytes, *arguments: object) -> int:
    """The command line in a thread of this process, with these few bytes at a pipe as its standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading) as stream, pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", stream)
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(given)
        return await in_thread(emulator, "-", *arguments)


SMALL = ("--model", "llama-text-embed-v2", "--dimension", 384, "--batch-size", 16, "--concurrency", 4, "--quiet")


@pytest.mark.timeout(120)
async def test_a_job_killed_twenty_times_ends_with_the_table_of_an_undisturbed_run(
    tmp_path: Path, emulator: Emulator, forked: Forks
) -> None:
    source, undisturbed, killed = write_texts(tmp_path / "in.txt", 6_000), tmp_path / "undisturbed", tmp_path / "killed"
    assert await forked.run(emulator, source, "--out", undisturbed, *SMALL) == (0, "")
    await killed_again_and_again(forked, source, killed, 20, emulator, *SMALL)
    assert table_of(killed)["row"].to_pylist() == list(range(6_000))
    assert_same_table(table_of(killed), table_of(undisturbed))


@pytest.mark.timeout(360)
@pytest.mark.parametrize("times", [6, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("layout", ["table", "documents", "vectors"])
async def test_a_job_that_leaves_out_bad_rows_and_is_killed_ends_with_the_files_of_an_undisturbed_run(
    tmp_path: Path, emulator: Emulator, forked: Forks, layout: str, times: int
) -> None:
    source, undisturbed, killed = tmp_path / "in.txt", tmp_path / "undisturbed", tmp_path / "killed"
    rows = range(300 * times)
    lines = [b"\xff" if number % 50 == 7 else b"text number %d" % number for number in rows]
    source.write_bytes(b"\n".join(lines))
    options = (*SMALL, "--on-bad-row", "skip", "--layout", layout)
    assert await forked.run(emulator, source, "--out", undisturbed, *options) == (0, "")
    await killed_again_and_again(forked, source, killed, times, emulator, *options)
    where = "." if layout == "table" else "_table"
    assert_same_table(table_of(killed / where), table_of(undisturbed / where))
    assert table_of(killed / where)["row"].to_pylist() == [n for n in rows if n % 50 != 7]
    told = [json.loads(line)["row"] for line in (killed / "_failures.jsonl").read_text().splitlines()]
    assert sorted(told) == list(rows[7::50])
    if layout == "documents":
        found = [sorted(rows_of(folder, "jsonl")) for folder in (killed, undisturbed)]
        assert found[0] == found[1]
        assert len(found[0]) == len(rows) - len(rows) // 50
    elif layout == "vectors":
        tables = [dataset.dataset(folder / "__default__", format="parquet").to_table() for folder in (killed, undisturbed)]
        ids = [table["id"].to_pylist() for table in tables]
        assert sorted(ids[0]) == sorted(ids[1])
        assert len(ids[0]) == len(rows) - len(rows) // 50


def rows_of(folder: Path, suffix: str) -> list[str]:
    return [line for file in (folder / "__default__").glob(f"*.{suffix}") for line in file.read_text().splitlines()]


@pytest.mark.timeout(120)
async def test_a_job_that_sends_equal_texts_once_and_is_killed_six_times_ends_with_the_same_table(
    tmp_path: Path, emulator: Emulator, forked: Forks
) -> None:
    source, undisturbed, killed = tmp_path / "in.txt", tmp_path / "undisturbed", tmp_path / "killed"
    source.write_text("".join(f"text number {number % 1_500}\n" for number in range(3_000)))
    assert await forked.run(emulator, source, "--out", undisturbed, *SMALL) == (0, "")
    await killed_again_and_again(forked, source, killed, 6, emulator, *SMALL, "--dedupe")
    assert table_of(killed)["row"].to_pylist() == list(range(3_000))
    assert_same_table(table_of(killed), table_of(undisturbed))


@pytest.mark.parametrize("options", [(), ("--model", "pinecone-sparse-english-v0", "-p", "return_tokens=true")])
async def test_equal_texts_are_sent_once_on_request_and_every_row_has_its_embedding(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str], options: tuple[str, ...]
) -> None:
    source = tmp_path / "in.txt"
    source.write_text("".join(f"text number {number % 10}\n" for number in range(600)))
    assert await in_thread(emulator, source, "--out", tmp_path / "plain", "-q", *options) == 0
    assert await in_thread(emulator, source, "--out", tmp_path / "plain.jsonl", "-q", *options) == 0
    plain = table_of(tmp_path / "plain").to_pylist()
    emulator.reset_statistics()
    assert await in_thread(emulator, source, "--out", tmp_path / "out", "--dedupe", *options) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "590 rows will not be sent, because others have the same texts"
    assert said[-1].startswith("600 of 600 rows embedded, 600 of them in this run, 590 as copies; 0 failed; 1 request,")
    assert table_of(tmp_path / "out").to_pylist() == plain
    assert set(emulator.statistics().answered.values()) == {1}
    assert await in_thread(emulator, source, "--out", tmp_path / "out.jsonl", "--dedupe", "-q", *options) == 0
    assert set(emulator.statistics().answered.values()) == {2}
    assert (tmp_path / "out.jsonl").read_text() == (tmp_path / "plain.jsonl").read_text()
    piped = ("--format", "txt", "--out", tmp_path / "piped", "--dedupe", *options)
    assert await in_thread_with(emulator, source.read_bytes(), *piped) == 0
    assert "590 as copies" in capsys.readouterr().err
    assert set(emulator.statistics().answered.values()) == {3}
    assert table_of(tmp_path / "piped").to_pylist() == plain


async def test_all_formats_of_real_text_give_the_same_table(tmp_path: Path, emulator: Emulator) -> None:
    library = tmp_path / "library"
    library.mkdir()
    # A part of it, since reading the whole takes most of the time.
    for path in sorted(Path(sysconfig.get_path("stdlib")).iterdir())[::6]:
        (library / path.name).symlink_to(path)
    docstrings = read_docstrings(library)
    names, texts = [each.name for each in docstrings], [each.text for each in docstrings]
    records = [{"name": name, "text": text} for name, text in zip(names, texts, strict=True)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    with (tmp_path / "b.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("name", "text"), *zip(names, texts, strict=True)])
    parquet.write_table(pa.table({"name": names, "text": texts}), tmp_path / "c.parquet", row_group_size=100)
    for name in ("a.jsonl", "b.csv", "c.parquet"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        with pa.CompressedOutputStream(str(tmp_path / f"{name}.zst"), "zstd") as stream:
            stream.write((tmp_path / name).read_bytes())
    (tmp_path / "folder").mkdir()
    half = len(records) // 2
    (tmp_path / "folder" / "1.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records[:half]))
    parquet.write_table(pa.table({"name": names[half:], "text": texts[half:]}), tmp_path / "folder" / "2.parquet")
    inputs = [f"{name}{suffix}" for name in ("a.jsonl", "b.csv", "c.parquet") for suffix in ("", ".gz", ".zst")]
    tables = []
    # Small vectors, since it is the rows that may differ.
    options = ("--id-field", "name", "--keep", "name", "-q", "--model", "llama-text-embed-v2", "--dimension", 384)
    for number, name in enumerate([*inputs, "folder", "[ab].jsonl"]):
        out = tmp_path / f"out{number}"
        assert await in_thread(emulator, tmp_path / name, *options, "--out", out) == 0, name
        tables.append(table_of(out))
    assert tables[0]["id"].to_pylist() == tables[0]["name"].to_pylist() == names
    for table in tables[1:]:
        assert_same_table(table, tables[0])


async def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 400), tmp_path / "out"
    emulator.latency = lambda request: 0 if request.number <= 2 else 60
    process = await start(emulator, source, "--out", out)
    await emulator.wait_for_answers(2)
    await emulator.wait_for_in_flight(2)
    while not (out / "_journal-00000.log").stat().st_size:  # noqa: ASYNC110 - another process writes it
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = await process.communicate()
    assert process.returncode == 130
    assert b"96 of 400 rows embedded" in err or b"192 of 400 rows embedded" in err
    assert b"stopped; finished rows are kept; run the same command again to continue" in err
    assert {path.name for path in out.iterdir()} == {"_job.json", "_journal-00000.log", "_lock"}
    emulator.latency = 0
    assert await in_thread(emulator, source, "--out", out) == 0
    assert "of 400 rows are already done" in capsys.readouterr().err
    assert table_of(out)["row"].to_pylist() == list(range(400))


async def test_a_second_run_on_the_same_folder_is_refused(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 100), tmp_path / "out"
    emulator.hold()
    first = await start(emulator, source, "--out", out, "-q")
    await emulator.wait_for_in_flight(1)
    assert await in_thread(emulator, source, "--out", out) == 1
    err = capsys.readouterr().err
    assert f"another run is writing to this folder (process {first.pid})" in err
    assert err.count("\n") == 1
    emulator.release()
    await first.communicate()
    assert first.returncode == 0


async def test_a_disk_that_is_full_ends_the_run_and_nothing_done_is_lost(tmp_path: Path, emulator: Emulator) -> None:
    source, out = write_texts(tmp_path / "in.txt", 2000), tmp_path / "out"

    def limit() -> None:
        # A write beyond this size fails, as one on a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, resource.RLIM_INFINITY))

    status, _, err = await run(emulator, source, "--out", out, "-q", preexec_fn=limit)
    assert status == 7
    assert "_journal-00000.log: File too large; finished rows are kept; fix this and run the same" in err
    assert err.count("\n") == 1
    sent = emulator.statistics().answered
    assert 0 < len(sent) <= 2000
    assert await in_thread(emulator, source, "--out", out, "-q") == 0
    assert table_of(out)["row"].to_pylist() == list(range(2000))
    # What was journaled before the disk was full was not sent again: four megabytes are 1000 rows, about.
    again = emulator.statistics().answered - sent
    assert len(again) < 2000 - 700


async def test_events_are_json_objects_a_line(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 200), tmp_path / "out"
    command = (source, "--out", out, "--json", "--batch-size", 10)
    emulator.reject = lambda text: text.endswith(" 7")
    assert await in_thread(emulator, *command) == 1
    printed = capsys.readouterr()
    first, *_, last = [json.loads(line) for line in printed.out.splitlines()]
    assert first == {"event": "start", "output": str(out), "done": 0, "failed": 0, "total": 200, "duplicates": 0}
    assert (last["event"], last["status"], last["done"] + last["failed"], last["total"]) == ("end", 1, 200, 200)
    assert last["failed"] >= 1
    assert "--retry-failures retries only those" in last["message"]
    assert printed.err.count("\n") == 1
    emulator.reject = None
    assert await in_thread(emulator, *command, "--retry-failures") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["done"], last["failed"], last["message"]) == (200, 0, None)
    assert await in_thread(emulator, *command, "--parameter", "max_tokens_per_sequence=8") == 1
    refused = json.loads(capsys.readouterr().out)
    assert (refused["event"], refused["status"]) == ("end", 1)
    assert "the parameter max_tokens_per_sequence (was not given, now 8)" in refused["message"]


async def test_standard_input_is_a_job_too(tmp_path: Path, emulator: Emulator) -> None:
    out = tmp_path / "out"
    process = await start(emulator, "-", "--format", "txt", "--out", out, stdin=asyncio.subprocess.PIPE)
    _, err = await process.communicate(b"one\ntwo\n")
    assert (process.returncode, b"2 of 2 rows embedded" in err) == (0, True), err
    assert table_of(out)["id"].to_pylist() == ["0", "1"]


async def test_a_second_ctrl_c_ends_a_run_that_waits_for_standard_input(tmp_path: Path, emulator: Emulator) -> None:
    process = await start(
        emulator, "-", "--format", "txt", "--out", tmp_path / "out", "--batch-size", 1, stdin=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(b"one\n")
    await emulator.wait_for_answers(1)
    while process.returncode is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.1)
    # The last signal killed it, or came when it was about to end with the status of an interrupted program.
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    process.stdin.close()
    assert await in_thread_with(emulator, b"one\ntwo\n", "--format", "txt", "--out", tmp_path / "out") == 0
    assert table_of(tmp_path / "out")["row"].to_pylist() == [0, 1]


async def test_rows_that_met_a_wrong_key_are_missing_and_not_failed(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 20), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
        patched.setenv("PINECONE_API_KEY", "wrong-key")
        assert await asyncio.to_thread(cli, "embed", str(source), "--out", str(out), "-q") == 3
    err = capsys.readouterr().err
    assert "401" in err
    assert "fix this and run the same command again to continue" in err
    assert "wrong-key" not in err
    assert await in_thread(emulator, source, "--out", out, "-q") == 0
    assert table_of(out)["row"].to_pylist() == list(range(20))


async def test_a_time_limit_keeps_what_is_done(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 20), tmp_path / "out"
    emulator.latency = 60
    assert await in_thread(emulator, source, "--out", out, "-q", "--timeout", 0.2) == 6
    assert "the time limit of --timeout has passed; finished rows are kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--input-type", "document"), "input_type must be one of 'passage', 'query', got 'document'"),
        (("--model", "llama-text-embed-v2", "--dimension", "7"), "dimension must be one of"),
        (("--base-url", "https://user:secret@host.test"), "base_url must not hold credentials"),
        (("--keep", "vector"), "--keep vector: the output has its own column of this name"),
    ],
)
async def test_options_that_cannot_work_leave_no_job_behind(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 3), tmp_path / "out"
    assert await in_thread(emulator, source, "--out", out, "--json", *options) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert [json.loads(line) for line in printed.out.splitlines()] in ([], [{"event": "end", "status": 2, "message": ANY}])
    assert not (out / "_job.json").exists()
    # Nothing is remembered that the next try would be measured by.
    assert await in_thread(emulator, source, "--out", out, "-q") == 0


async def test_a_pipe_is_refused_because_a_job_reads_its_input_more_than_once(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "in.txt"
    os.mkfifo(pipe)
    assert await in_thread(emulator, pipe, "--out", tmp_path / "out") == 5
    err = capsys.readouterr().err
    assert f"{pipe}: it is not a regular file, and a job reads its input more than once" in err
    # One file out: it is read once, so a pipe will do.
    writing = asyncio.to_thread(pipe.write_text, "one\ntwo\n")
    status, _ = await asyncio.gather(in_thread(emulator, pipe, "--out", tmp_path / "out.npy", "-q"), writing)
    assert status == 0
    assert np.load(tmp_path / "out.npy").shape == (2, 1024)


@pytest.mark.parametrize(
    ("text_format", "given", "wrong", "said"),
    [
        ("txt", b"one\ntwo\n%s\nfour\n", b"\xff", "standard input:3: not UTF-8 (byte 0xff)"),
        ("jsonl", b'{"text": "one"}\n{"text": "two"}\n%s\n{"text": "four"}\n', b'{"text": "thr', "input:3: not JSON"),
        (
            "jsonl",
            b'{"text": "one"}\n{"text": "two"}\n%s\n{"text": "four"}\n',
            b'{"body": "three"}',
            "input:3: no field 'text'",
        ),
        ("csv", b"text,n\none,1\n%s\nfour,2\n", b"two", "input:3: 1 fields, but the header has 2"),
    ],
)
async def test_a_row_that_cannot_be_read_ends_the_run_once_it_comes_and_what_came_before_it_is_kept(
    tmp_path: Path,
    emulator: Emulator,
    capsys: pytest.CaptureFixture[str],
    text_format: str,
    given: bytes,
    wrong: bytes,
    said: str,
) -> None:
    out = tmp_path / "out"
    command = ("--format", text_format, "--out", out, "--quiet")
    assert await in_thread_with(emulator, given % wrong, *command) == 5
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert said in err
    assert "finished rows are kept; fix this and run the same command again" in err
    before = table_of(out)["row"].to_pylist()
    assert before == list(range(1 if text_format == "csv" else 2))
    right = {"txt": b"three", "jsonl": b'{"text": "three"}', "csv": b"three,3"}[text_format]
    assert await in_thread_with(emulator, given % right, *command) == 0
    assert table_of(out)["row"].to_pylist() == list(range(len(before) + 2))
    assert set(emulator.statistics().answered.values()) == {1}


@pytest.mark.parametrize("damage", ["torn", "changed"])
async def test_a_journal_that_a_power_cut_has_spoiled_costs_what_is_spoiled(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 400), tmp_path / "out"
    emulator.latency = lambda request: 0 if request.number <= 4 else 60
    journal = out / "_journal-00000.log"
    process = await start(emulator, source, "--out", out, "--batch-size", 50, "--quiet")
    while not journal.exists() or len(scan(journal).spans) < 4:  # noqa: ASYNC110 - it is another process's file
        await asyncio.sleep(0.01)
    process.kill()
    await process.communicate()
    emulator.latency = 0
    content = bytearray(journal.read_bytes())
    if damage == "torn":
        journal.write_bytes(content[:-1000])
    else:
        content[len(content) // 3] ^= 255
        journal.write_bytes(content)
    assert await in_thread(emulator, source, "--out", out, "--batch-size", 50, "--quiet") == 0
    told = capsys.readouterr().err
    if damage == "torn":
        assert told == ""
    else:
        assert re.search(
            r"_journal-00000\.log: bytes [\d,]+ to [\d,]+ are damaged; the rows .* will be embedded again", told
        )
    assert table_of(out)["row"].to_pylist() == list(range(400))
    answered = emulator.statistics().answered
    assert sum(answered.values()) - len(answered) == 50


def test_an_output_that_may_not_be_written_ends_the_run_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Everything is imported now, for nobody may not read what is installed for root.
    assert cli("embed", str(write_texts(tmp_path / "in.txt", 1)), "--out", str(tmp_path / "out"), "--emulator", "-q") == 0
    who = os.geteuid()
    if who == 0:
        # Without root's right to write everywhere.
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as name:
            source, folder = write_texts(Path(name) / "in.txt", 3), Path(name) / "folder"
            folder.mkdir(mode=0o555)
            for out in (folder, folder / "deeper", folder / "out.npy"):
                assert cli("embed", str(source), "--out", str(out), "--emulator") == 1
                said = capsys.readouterr().err
                assert re.fullmatch(rf"pinecone-embed: {folder}.*[Pp]ermission.*\n", said), said
            assert not list(folder.iterdir())
    finally:
        os.seteuid(who)


async def test_a_source_that_changes_or_disappears_under_way_ends_the_run_and_what_is_done_stays(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = write_texts(tmp_path / "1.txt", 1_000), write_texts(tmp_path / "2.txt", 500)
    content = second.read_bytes()
    small = ("--model", "llama-text-embed-v2", "--dimension", 384, "--batch-size", 20, "--concurrency", 2, "--quiet")
    command = (first, second, *small)
    for number, is_removed in enumerate((False, True)):
        out = tmp_path / f"out{number}"
        emulator.reset_statistics()
        emulator.hold()
        job = asyncio.create_task(in_thread(emulator, *command, "--out", out))
        # It has read ahead into the first file alone.
        await emulator.wait_for_in_flight(2)
        second.unlink()
        if not is_removed:
            second.write_bytes(b"other\n")
        emulator.release()
        assert await job == 5
        err = capsys.readouterr().err
        assert re.search(r"2\.txt: (it changed while the job was running|No such file)", err), err
        assert table_of(out)["row"].to_pylist() == list(range(1_000))
        second.write_bytes(content)
        assert await in_thread(emulator, *command, "--out", out) == 0
        assert capsys.readouterr().err == ""
        assert table_of(out)["row"].to_pylist() == list(range(1_500))
        assert emulator.statistics().answered.total() == 1_500
