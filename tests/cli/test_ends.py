"""How a command ends: signals, closed and full standard streams, errors of the service, and what may follow."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import PROGRAM, ROOT, children_of, in_thread, start, table_of, write_texts
from tests.processes import environment_of

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def events_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def journal_of(out: Path) -> bytes:
    path = out / "_journal-00000.log"
    return path.read_bytes() if path.exists() else b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_a_job_which_keeps_what_is_done_and_says_so(
    tmp_path: Path, emulator: Emulator, number: signal.Signals
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 400), tmp_path / "out"
    emulator.latency = lambda request: 0 if request.number <= 2 else 60
    process = await start(emulator, source, "--out", out, "--json")
    await emulator.wait_for_answers(2)
    while not journal_of(out):  # noqa: ASYNC110 - another process's
        await asyncio.sleep(0.01)
    process.send_signal(number)
    printed, err = await process.communicate()
    assert process.returncode == 128 + number
    assert b"stopped; finished rows are kept; run the same command again to continue" in err
    *_, end = events_of(printed.decode())
    assert (end["event"], end["status"]) == ("end", 128 + number)
    assert end["done"] > 0
    emulator.latency = 0
    assert await in_thread(emulator, source, "--out", out, "-q") == 0
    assert table_of(out)["row"].to_pylist() == list(range(400))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_that_was_ignored_at_the_start_stays_ignored(
    tmp_path: Path, emulator: Emulator, number: signal.Signals
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 100), tmp_path / "out"
    emulator.hold()
    process = await start(emulator, source, "--out", out, "-q", preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    await emulator.wait_for_in_flight(1)
    process.send_signal(number)
    emulator.release()
    await process.communicate()
    assert process.returncode == 0


# As a container does: a process 1 that has no handler for a signal does not get it.
AS_PROCESS_1 = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child")
CAN_BE_PROCESS_1 = (
    shutil.which("unshare") is not None and subprocess.run([*AS_PROCESS_1, "true"], check=False).returncode == 0
)

NOT_PROCESS_1 = (
    "only a program that may make a namespace of processes (`unshare --pid`) can be process 1 without a container"
)


async def start_as_process_1(
    emulator: Emulator, *arguments: object, first: bytes = b""
) -> tuple[asyncio.subprocess.Process, int]:
    """The command line, and its process number out here."""
    process = await asyncio.create_subprocess_exec(
        *(*AS_PROCESS_1, *PROGRAM, "embed", *map(str, arguments)),
        env={**environment_of(emulator), "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(first)
    await emulator.wait_for_requests(1)
    [inner] = children_of(process.pid)
    return process, inner


@pytest.mark.skipif(not CAN_BE_PROCESS_1, reason=NOT_PROCESS_1)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_process_1_of_a_container_is_stopped_like_any_other(
    tmp_path: Path, emulator: Emulator, number: signal.Signals
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 100), tmp_path / "out"
    emulator.hold()
    process, inner = await start_as_process_1(emulator, source, "--out", out, "--json")
    os.kill(inner, number)
    printed, err = await process.communicate()
    emulator.release()
    assert process.returncode == 128 + number
    assert b"stopped; finished rows are kept" in err
    assert events_of(printed.decode())[-1]["status"] == 128 + number


@pytest.mark.skipif(not CAN_BE_PROCESS_1, reason=NOT_PROCESS_1)
async def test_process_1_that_waits_for_standard_input_ends_at_a_signal(tmp_path: Path, emulator: Emulator) -> None:
    options = ("--out", tmp_path / "out", "--batch-size", 1, "-q")
    process, inner = await start_as_process_1(emulator, "-", "--format", "txt", *options, first=b"a line\n")
    os.kill(inner, signal.SIGTERM)
    # Its standard input stays open.
    assert await process.wait() == 128 + signal.SIGTERM


STUBBORN = """
import asyncio
from pinecone_embed_async.cli._signals import run_until_stopped, stoppable

async def stay():
    while True:
        print(flush=True)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

with stoppable():
    run_until_stopped(stay())
"""


@pytest.mark.parametrize("starter", [(), *([AS_PROCESS_1] if CAN_BE_PROCESS_1 else [])])
async def test_a_program_that_does_not_stop_ends_at_the_second_signal_as_process_1_too(starter: tuple[str, ...]) -> None:
    command = (*starter, sys.executable, "-c", STUBBORN)
    process = await asyncio.create_subprocess_exec(*command, env=ENVIRONMENT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    for _ in range(2):
        await process.stdout.readline()
        [stubborn] = children_of(process.pid) if starter else [process.pid]
        os.kill(stubborn, signal.SIGTERM)
    # A signal cannot kill process 1, which ends with the status that a shell shows of others.
    assert await process.wait() == (128 + signal.SIGTERM if starter else -signal.SIGTERM)


async def test_a_signal_before_anything_is_sent_ends_with_an_event_too(tmp_path: Path, emulator: Emulator) -> None:
    # It waits for the other end of a pipe when it is stopped.
    process = await start(
        emulator, "-", "--format", "txt", "--out", tmp_path / "out", "--append", "--json", stdin=asyncio.subprocess.PIPE
    )
    while not list(tmp_path.glob("out/_input-*")):  # noqa: ASYNC110 - it is another process's file
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    printed, _ = await process.communicate()
    assert process.returncode == 143
    assert events_of(printed.decode()) == [{"event": "end", "status": 143, "message": "stopped; nothing was written"}]
    assert not list(tmp_path.glob("out/_input-*"))


def shell(command: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    program = " ".join(PROGRAM)
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("PROGRAM", program)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&-", "<&- >&- 2>&-"])
def test_a_job_works_with_its_standard_streams_closed(tmp_path: Path, closed: str) -> None:
    write_texts(tmp_path / "in.txt", 50)
    ended = shell(f"PROGRAM embed in.txt --out out --emulator {closed}", tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert table_of(tmp_path / "out").num_rows == 50


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("embed in.txt --out out --emulator --json >&-", 2, "--json writes to standard output, which is closed"),
        ("embed in.txt --out out --emulator --json >/dev/full", 7, "standard output cannot be written: No space left"),
        ("embed - --format txt --out out --emulator -q <&-", 5, "standard input: it is closed"),
        ("models >&-", 1, "standard output, where the result goes, is closed"),
        ("models >/dev/full", 7, "standard output cannot be written: No space left on device"),
        ("--version >/dev/full", 7, "standard output cannot be written: No space left on device"),
        ("embed --help >/dev/full", 7, "standard output cannot be written: No space left on device"),
        ("estimate in.txt >/dev/full", 7, "standard output cannot be written: No space left on device"),
        ("estimate in.txt >&-", 1, "standard output, where the result goes, is closed"),
    ],
)
def test_a_standard_stream_that_is_of_no_use_is_said_in_one_line(
    tmp_path: Path, command: str, status: int, said: str
) -> None:
    write_texts(tmp_path / "in.txt", 5)
    ended = shell(f"PROGRAM {command}", tmp_path)
    assert said in ended.stderr
    assert (ended.returncode, ended.stderr.count("\n")) == (status, 1)


def test_an_error_that_nobody_foresaw_has_its_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("embed", "in.txt", "--out", "no\0name", "--emulator", "--json") == 1
    *_, end = events_of(capsys.readouterr().out)
    assert (end["event"], end["status"]) == ("end", 1)
    # The rest is the interpreter's, and differs from version to version.
    assert end["message"].startswith("unexpected ValueError: ")


async def test_a_wrong_model_is_said_with_the_nearest_and_the_corrected_command_is_taken(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 5), tmp_path / "out"
    assert await in_thread(emulator, source, "--out", out, "-q", "--model", "multilingual-e5-lage") == 3
    assert "did you mean 'multilingual-e5-large'?" in capsys.readouterr().err
    assert await in_thread(emulator, source, "--out", out, "-q", "--base-url", "http://127.0.0.1:9", "--timeout", 0.2) in {
        3,
        6,
    }
    assert await in_thread(emulator, source, "--out", out, "-q") == 0


async def test_a_spent_quota_has_its_status(tmp_path: Path, emulator: Emulator) -> None:
    emulator.inject("month_quota_spent")
    assert await in_thread(emulator, write_texts(tmp_path / "in.txt", 5), "--out", tmp_path / "out", "-q") == 4


async def test_failures_are_tried_again_only_where_there_are_and_0_means_all(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 40), tmp_path / "out"
    command = (source, "--out", out, "-q", "--batch-size", 10, "--concurrency", 1)
    assert await in_thread(emulator, *command, "--retry-failures") == 1
    assert "there is no job here whose failures can be retried" in capsys.readouterr().err
    emulator.inject("month_quota_spent", when=lambda request: request.number > 1)
    assert await in_thread(emulator, *command) == 4
    assert await in_thread(emulator, *command, "--retry-failures") == 1
    assert "30 rows of the input are not embedded yet" in capsys.readouterr().err
    assert await in_thread(emulator, *command) == 0


async def test_an_input_is_added_three_times_by_the_command_line(tmp_path: Path, emulator: Emulator) -> None:
    out = tmp_path / "out"
    small = ("--model", "llama-text-embed-v2", "--dimension", 384, "-q")
    for number in range(4):
        source = tmp_path / f"{number}.txt"
        source.write_text(f"text of file {number}\nanother of {number}\n")
        more = ("--append",) if number else ()
        for _ in range(2):
            assert await in_thread(emulator, source, "--out", out, *small, *more) == 0
    assert table_of(out)["row"].to_pylist() == list(range(8))
    assert set(emulator.statistics().answered.values()) == {1}


async def test_a_price_is_told_in_the_summary(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_texts(tmp_path / "in.txt", 100)
    for out in ("out", "out.npy"):
        assert await in_thread(emulator, source, "--out", tmp_path / out, "--price-per-million", "1000") == 0
        summary = capsys.readouterr().err.splitlines()[-1]
        tokens = int(summary.split(" tokens")[0].split()[-1].replace(",", ""))
        assert summary.endswith(f", price {tokens / 1000:,.2f}")


def test_a_price_is_told_in_an_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_texts(tmp_path / "in.txt", 100)
    assert cli("estimate", str(source), "--price-per-million", "1000", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["price"], told["price_low"]) == (told["tokens"] / 1000, told["tokens_low"] / 1000)
    assert cli("estimate", str(source), "--price-per-million", "1000") == 0
    assert re.search(rf"price, about +{told['price']:,.2f} \(", capsys.readouterr().out)


async def test_a_run_ends_cleanly_at_the_tokens_that_it_may_cost(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = write_texts(tmp_path / "in.txt", 1_000), tmp_path / "out"
    command = (source, "--out", out, "-q", "--batch-size", 10)
    assert await in_thread(emulator, *command, "--max-tokens", 1_500) == 6
    assert "--max-tokens is reached: " in capsys.readouterr().err
    done = table_of(out).num_rows
    assert 100 < done < 700
    assert await in_thread(emulator, *command) == 0
    assert set(emulator.statistics().answered.values()) == {1}
