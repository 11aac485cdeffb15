"""How jobs end that wait for standard input, and those whose standard output has lost its reader or is full."""

import asyncio
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Self

import pytest

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async.cli import cli
from pinecone_embed_async.cli._figures import Advance
from pinecone_embed_async.cli._progress import showing
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import PROGRAM, ROOT, in_thread, start, table_of, write_texts
from tests.processes import environment_of

OPTIONS = ("--format", "txt", "--batch-size", 1, "--quiet")


class Pipe:
    """A pipe at standard input that stays open until the block ends."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self._patched = patched

    def __enter__(self) -> Self:
        reading, self._writing = os.pipe()
        self._stream = os.fdopen(reading)
        self._patched.setattr(sys, "stdin", self._stream)
        return self

    def write(self, given: bytes) -> None:
        os.write(self._writing, given)

    def close(self) -> None:
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1

    def __exit__(self, *_: object) -> None:
        self.close()
        self._stream.close()


async def test_a_time_limit_ends_a_run_that_waits_for_standard_input(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with Pipe(monkeypatch) as pipe:
        pipe.write(b"one\n")
        running = asyncio.create_task(in_thread(emulator, "-", "--out", out, *OPTIONS, "--timeout", 1))
        assert await running == 6
    assert "the time limit of --timeout has passed; finished rows are kept" in capsys.readouterr().err
    with Pipe(monkeypatch) as pipe:
        pipe.write(b"one\ntwo\n")
        pipe.close()
        assert await in_thread(emulator, "-", "--out", out, *OPTIONS) == 0
    assert table_of(out)["row"].to_pylist() == [0, 1]


async def test_an_error_ends_a_run_that_waits_for_standard_input(
    tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Pipe(monkeypatch) as pipe:
        pipe.write(b"one\n")
        monkeypatch.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
        monkeypatch.setenv("PINECONE_API_KEY", "wrong-key")
        assert await asyncio.to_thread(cli, "embed", "-", "--out", str(tmp_path / "out"), *map(str, OPTIONS)) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_one_signal_ends_a_run_that_waits_for_standard_input(
    tmp_path: Path, emulator: Emulator, number: signal.Signals
) -> None:
    process = await start(emulator, "-", "--out", tmp_path / "out", *OPTIONS, stdin=asyncio.subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"one\n")
    await emulator.wait_for_answers(1)
    process.send_signal(number)
    # Its standard input stays open.
    assert await process.wait() == 128 + number
    process.stdin.close()


async def test_a_program_that_reads_only_the_first_events_does_not_make_a_job_fail(
    tmp_path: Path, emulator: Emulator
) -> None:
    # Long enough for an event about the progress.
    emulator.latency = 1.5
    source, out = write_texts(tmp_path / "in.txt", 2), tmp_path / "out"
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "embed", str(source), "--out", str(out), "--json"),
        env={**environment_of(emulator), "PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert json.loads(await asyncio.to_thread(stream.readline))["event"] == "start"
    _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    assert table_of(out)["row"].to_pylist() == [0, 1]


def test_events_that_cannot_be_written_end_the_display_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    uncaught: list[object] = []
    monkeypatch.setattr(threading, "excepthook", uncaught.append)
    tried = threading.Event()

    class Full:
        interval = 0.001

        def show(self, progress: Advance) -> None:
            tried.set()
            raise OutputError("standard output cannot be written: No space left on device")

        def warn(self, message: str) -> None: ...

        def close(self) -> None: ...

    with showing(Full(), Advance(0, 0, 9)):
        assert tried.wait(30)
    assert not uncaught
