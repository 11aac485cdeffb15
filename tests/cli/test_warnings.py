"""Warnings of the library, as a command shows them; and files of its own that a command would spoil."""

import json
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from pinecone_embed_async.cli._bar import BarDisplay
from pinecone_embed_async.cli._figures import Advance
from pinecone_embed_async.cli._progress import showing
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import in_thread, write_texts


@contextmanager
def damaged(cache: Path) -> Iterator[str]:
    cache.write_bytes(os.urandom(20_000))
    yield f"the cache {cache} is corrupted"


@contextmanager
def locked(cache: Path) -> Iterator[str]:
    with closing(sqlite3.connect(cache, isolation_level=None)) as other:
        other.execute("pragma locking_mode = exclusive")
        other.execute("begin exclusive")
        yield "could not look vectors up in the cache (OperationalError: database is locked); "


@pytest.mark.parametrize("spoiled", [damaged, locked])
@pytest.mark.parametrize("out", ["again", "again.npy"])
@pytest.mark.parametrize("options", [(), ("--quiet",)])
async def test_a_cache_that_cannot_be_used_is_told(
    tmp_path: Path,
    emulator: Emulator,
    capsys: pytest.CaptureFixture[str],
    spoiled: Callable[[Path], AbstractContextManager[str]],
    out: str,
    options: tuple[str, ...],
) -> None:
    source, cache = write_texts(tmp_path / "in.txt", 20), tmp_path / "c.db"
    assert await in_thread(emulator, source, "--out", tmp_path / "first", "--cache", cache, *options) == 0
    assert "cache" not in capsys.readouterr().err
    with spoiled(cache) as told:
        assert await in_thread(emulator, source, "--out", tmp_path / out, "--cache", cache, *options) == 0
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"pinecone-embed: {told}")]


async def test_a_program_is_told_of_a_cache_that_cannot_be_used_by_an_event(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, cache = write_texts(tmp_path / "in.txt", 20), tmp_path / "c.db"
    with damaged(cache) as told:
        assert await in_thread(emulator, source, "--out", tmp_path / "out", "--cache", cache, "--json") == 0
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["message"].startswith(told) for event in events if event["event"] == "warning"] == [True]
    assert (events[-1]["event"], err) == ("end", "")


async def test_rows_that_fail_are_told_once(tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]) -> None:
    emulator.inject("status=400")
    source = write_texts(tmp_path / "in.txt", 1)
    assert await in_thread(emulator, source, "--out", tmp_path / "out", "--quiet") == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("pinecone-embed: 1 row failed, see ")


async def test_a_command_leaves_the_loggers_as_they_were(tmp_path: Path, emulator: Emulator) -> None:
    loggers = logging.getLogger(), logging.getLogger("pinecone_embed_async")
    before = [(*logger.handlers, logger.level, logger.propagate) for logger in loggers]
    source = write_texts(tmp_path / "in.txt", 1)
    for out in ("out", "out.npy"):
        assert await in_thread(emulator, source, "--out", tmp_path / out) == 0
    assert [(*logger.handlers, logger.level, logger.propagate) for logger in loggers] == before


class Told:
    """A display that says what it was told first."""

    interval = 0.001

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.is_told = threading.Event()

    def show(self, progress: Advance) -> None: ...

    def warn(self, message: str) -> None:
        self.warnings.append(message)
        self.is_told.set()

    def close(self) -> None: ...


def test_a_warning_is_shown_while_the_run_goes_on() -> None:
    display, new = Told(), [["the cache is locked"]]
    with showing(display, Advance(0, 0, 9), take_warnings=lambda: new.pop() if new else []):
        assert display.is_told.wait(30)
    assert display.warnings == ["the cache is locked"]


def test_a_warning_has_a_line_of_its_own_above_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(stderr=True, force_terminal=True, color_system=None, width=80, legacy_windows=False)
    bar = BarDisplay(console, Advance(1, 0, 4))
    bar.warn("the cache is locked")
    bar.show(Advance(2, 0, 4))
    bar.close()
    drawn = capsys.readouterr().err
    before, after = drawn.split("pinecone-embed: the cache is locked\n")
    assert "1/4" in before
    # The bar is erased before the warning is written, and drawn again below it.
    assert before.rsplit("\x1b[2K", 1)[1].strip("\r\x1b[?25h") == ""
    assert "2/4" in after


@pytest.mark.parametrize("option", ["--cache", "--quota-file"])
@pytest.mark.parametrize(
    ("out", "own"),
    [
        ("out", "in.txt"),
        ("out", "out"),
        ("out", "out/own.db"),
        ("out", "link.db"),
        ("out.npy", "in.txt"),
        ("out.npy", "out.npy"),
        ("out.npy", "out.npy.failures.jsonl"),
    ],
)
async def test_a_cache_or_quota_file_that_is_an_input_or_in_the_output_is_refused_before_anything_is_done(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str], option: str, out: str, own: str
) -> None:
    source = write_texts(tmp_path / "in.txt", 2)
    (tmp_path / "link.db").symlink_to(source)
    if own == "out/own.db":
        (tmp_path / "out").mkdir()
    before = {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")}
    assert await in_thread(emulator, source, "--out", tmp_path / out, option, tmp_path / own) == 2
    assert f"{option} {tmp_path / own} is " in capsys.readouterr().err
    assert {path: path.is_file() and path.read_bytes() for path in tmp_path.rglob("*")} == before
    assert emulator.statistics().requests == 0


async def test_one_file_is_not_both_cache_and_quota(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    source, own = write_texts(tmp_path / "in.txt", 2), tmp_path / "own.db"
    assert await in_thread(emulator, source, "--out", tmp_path / "out", "--cache", own, "--quota-file", own) == 2
    assert f"--cache and --quota-file are both {own}" in capsys.readouterr().err
    assert not own.exists()
