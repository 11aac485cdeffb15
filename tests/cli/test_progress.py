"""What a person, a log file and a program see of a run."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TextIO

import pytest

from pinecone_embed_async import EmbedClient, Quota
from pinecone_embed_async.cli._bar import bar, figures, fitted
from pinecone_embed_async.cli._figures import Advance, Pace, duration, pace, with_quota
from pinecone_embed_async.cli._progress import Summary, showing, standard_display
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import PROGRAM, ROOT, in_thread, write_texts
from tests.processes import environment_of

TERMINAL = {"COLUMNS": "160", "TERM": "xterm"}


async def on_a_terminal(
    emulator: Emulator,
    *arguments: object,
    given: bytes | None = None,
    stop_after: int | None = None,
    status: int = 0,
) -> list[str]:
    """Run `embed` with a terminal as its standard error; gives what was drawn there, a picture of the line at a time."""
    with drawn_on_a_terminal() as (theirs, pictures):
        process = await asyncio.create_subprocess_exec(
            *(*PROGRAM, "embed", *map(str, arguments)),
            env={**environment_of(emulator), "PYTHONPATH": str(ROOT), **TERMINAL},
            stdin=None if given is None else asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=theirs,
        )
        theirs.close()
        if stop_after is not None:
            await emulator.wait_for_answers(stop_after)
            process.send_signal(signal.SIGINT)
        await process.communicate(given)
    assert process.returncode == status
    return pictures


async def on_a_terminal_in_thread(
    emulator: Emulator, *arguments: object, environment: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """The same in a thread of this process, which starts in less time than a process."""
    with drawn_on_a_terminal() as (theirs, pictures), pytest.MonkeyPatch.context() as patched:
        for name, value in {**TERMINAL, **environment}.items():
            patched.setenv(name, value)
        patched.setattr(sys, "stderr", theirs)
        status = await in_thread(emulator, *arguments)
    assert status == 0, pictures
    return pictures


@contextlib.contextmanager
def drawn_on_a_terminal() -> Iterator[tuple[TextIO, list[str]]]:
    """A terminal, and the pictures of its line that were drawn until it was closed, which are there after the block."""
    ours, theirs = pty.openpty()
    drawn, pictures = bytearray(), list[str]()

    def draw() -> None:
        # The system ends reading with an error once nobody writes any more.
        try:
            while piece := os.read(ours, 2**16):
                drawn.extend(piece)
        except OSError:
            pass

    drawing = threading.Thread(target=draw)
    drawing.start()
    with os.fdopen(theirs, "w") as terminal:
        yield terminal, pictures
    drawing.join()
    os.close(ours)
    pictures += re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode()))


@pytest.mark.parametrize("out", ["folder", "file.npy"])
async def test_a_bar_tells_how_far_a_run_is_and_how_long_it_takes(tmp_path: Path, emulator: Emulator, out: str) -> None:
    emulator.latency = 0.1
    emulator.inject("status=503")
    source = write_texts(tmp_path / "in.txt", 1_200)
    *pictures, summary, _ = await on_a_terminal_in_thread(
        emulator, source, "--out", tmp_path / out, "--batch-size", 20, "--concurrency", 4
    )
    shape = re.compile(
        r"\d+%  ([\d,]+)/1,200  [\d,]+ inputs/s  \d+ s left  [\d,]+ tokens, [\d,]+/min  1 retry  ━*─*$",
    )
    found = [match for picture in pictures if (match := shape.match(picture))]
    assert len(found) > 5, pictures
    settled = [int(match[1].replace(",", "")) for match in found]
    assert settled == sorted(settled)
    assert 0 < settled[0] < settled[-1]
    assert re.search(r"1,200 (of 1,200 rows embedded|inputs), .*60 requests, [\d,]+ tokens, 1 retry, [\d.]+ s", summary)


async def test_a_bar_without_a_known_end_tells_how_far_it_is(tmp_path: Path, emulator: Emulator) -> None:
    emulator.latency = 0.1
    given = write_texts(tmp_path / "in.txt", 1_200).read_bytes()
    command = ("-", "--format", "txt", "--out", tmp_path / "out", "--batch-size", 20, "--concurrency", 4)
    *pictures, summary, _ = await on_a_terminal(emulator, *command, given=given)
    shape = re.compile(r"[\d,]+  [\d,]+ inputs/s  [\d,]+ tokens, [\d,]+/min  0 retries *$")
    assert len([picture for picture in pictures if shape.match(picture)]) > 5, pictures
    assert not any("left" in picture for picture in pictures)
    assert summary.startswith("1,200 of 1,200 rows embedded, 1,200 of them in this run; 0 failed; 60 requests")


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("environment", [{}, {"NO_COLOR": "1"}])
async def test_a_bar_fits_its_terminal_and_tells_the_most_important_figures(
    tmp_path: Path, emulator: Emulator, width: int, environment: dict[str, str]
) -> None:
    emulator.latency = 0.1
    source = write_texts(tmp_path / "in.txt", 1_000)
    *pictures, _, _ = await on_a_terminal_in_thread(
        *(emulator, source, "--out", tmp_path / "out", "--batch-size", 40, "--concurrency", 4),
        environment={"COLUMNS": str(width), **environment},
    )
    drawn = [picture for picture in pictures if "%" in picture]
    assert len(drawn) > 2
    assert all(len(picture.rstrip()) < width for picture in drawn)
    assert all(re.match(r"\d+%  [\d,]+/1,000  [\d,]+ inputs/s", picture) for picture in drawn)
    # What has no room is left out as a whole.
    assert any("tokens" in picture for picture in drawn) == (width >= 80)
    assert any("retries" in picture for picture in drawn) == (width >= 80)
    assert any("━" in picture for picture in drawn) == (width > 80)


async def test_nothing_of_a_bar_is_left_after_ctrl_c(tmp_path: Path, emulator: Emulator) -> None:
    emulator.latency = 0.2
    source = write_texts(tmp_path / "in.txt", 2_000)
    command = (emulator, source, "--out", tmp_path / "out", "--batch-size", 20, "--concurrency", 2)
    *_, summary, error, last = await on_a_terminal(*command, stop_after=6, status=130)
    assert re.match(r"[\d,]+ of 2,000 rows embedded", summary)
    assert error.startswith("pinecone-embed: stopped; finished rows are kept")
    assert last == ""


async def test_on_a_terminal_that_cannot_draw_there_are_lines(tmp_path: Path, emulator: Emulator) -> None:
    source = write_texts(tmp_path / "in.txt", 50)
    said = await on_a_terminal_in_thread(emulator, source, "--out", tmp_path / "out", environment={"TERM": "dumb"})
    assert re.match(r"50 of 50 rows embedded", said[0])


def test_figures_are_left_out_from_the_last_on_and_the_first_is_cut() -> None:
    told = figures(
        Advance(300, 2, 1_000, tokens=5_000, retries=1, quota=250_000, is_waiting=True, skipped=1), Pace(10.0, 3_000.0, 80.0)
    )
    assert told == [
        *("30%", "303/1,000", "10 inputs/s", "1 min 20 s left", "2 failed", "waiting for the quota"),
        *("5,000 tokens, 3,000 of 250,000/min", "1 retry", "1 skipped"),
    ]
    assert fitted(told, 200) == "  ".join(told)
    assert fitted(told, 30) == "30%  303/1,000  10 inputs/s"
    assert fitted(told, 2) == "30"
    assert figures(Advance(0, 0, None), Pace(0.0, 0.0, None)) == ["0", "0 inputs/s", "0 tokens, 0/min", "0 retries"]


def test_a_bar_is_as_wide_as_there_is_room_or_not_there() -> None:
    assert bar(0.25, 8) == ("━━", "──────")
    assert (bar(1.5, 8), bar(0.5, 7), bar(None, 50)) == (("━" * 8, ""), ("", ""), ("", ""))


async def test_quiet_means_that_nothing_is_drawn(tmp_path: Path, emulator: Emulator) -> None:
    source = write_texts(tmp_path / "in.txt", 20)
    assert await on_a_terminal_in_thread(emulator, source, "--out", tmp_path / "out", "--quiet") == [""]


def test_away_from_a_terminal_there_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    display = standard_display(Advance(100, 0, 1_000))
    assert display.interval == 5
    display.show(Advance(300, 2, 1_000, requests=4, tokens=5_000, retries=1))
    display.show(Advance(300, 0, None, requests=4, tokens=5_000, retries=2))
    display.close()
    one, other = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"302/1,000 inputs, 2 failed, [\d,]+ inputs/s, 5,000 tokens, [\d,]+ tokens/min, 1 retry, 0 s left", one
    )
    assert re.fullmatch(r"300 inputs, [\d,]+ inputs/s, 5,000 tokens, [\d,]+ tokens/min, 2 retries", other)


async def test_programs_are_told_every_second(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.latency = 0.5
    source = write_texts(tmp_path / "in.txt", 40)
    options = ("--batch-size", 10, "--concurrency", 1, "--json")
    assert await in_thread(emulator, source, "--out", tmp_path / "out", *options) == 0
    start, *between, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [start["event"], end["event"]] == ["start", "end"]
    for event in between:
        assert (event["event"], event["total"], event["failed"], event["retries"]) == ("progress", 40, 0, 0)
        assert event["requests"] * 10 == event["done"]
        assert set(event) == set(end) - {"seconds", "status", "message"}
    assert all(
        (event["inputs_per_second"], event["tokens_per_minute"], event["seconds_left"]) == (0, 0, None)
        for event in between
        if not event["done"]
    )
    under_way = [event for event in between if 0 < event["done"] < 40]
    assert under_way
    for event in under_way:
        assert event["inputs_per_second"] > 0
        assert event["tokens_per_minute"] > 0
        assert event["seconds_left"] > 0


def test_a_line_tells_what_the_quota_has_and_whether_it_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    display = standard_display(Advance(0, 0, 1_000))
    display.show(Advance(300, 0, None, tokens=5_000, quota=250_000, is_waiting=True))
    display.close()
    assert "of 250,000 tokens/min, 0 retries, waiting for the quota\n" in capsys.readouterr().err


async def test_a_run_under_a_quota_tells_how_much_of_it_is_used(
    tmp_path: Path, emulator: Emulator, capsys: pytest.CaptureFixture[str]
) -> None:
    emulator.latency = 1.5
    source = write_texts(tmp_path / "in.txt", 20)
    assert await in_thread(emulator, source, "--out", tmp_path / "out", "--json", "--quota", "250,000") == 0
    _, *between, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    quotas = [event["quota"] for event in (*between, end)]
    # Not told before the client is open.
    known = quotas.index(250_000)
    assert quotas == [None] * known + [250_000] * (len(quotas) - known)
    assert all(event["done"] == 0 for event in between[:known])
    assert (end["is_waiting"], end["waited"]) == (False, 0)


async def test_what_a_run_shows_of_the_quota_is_what_the_client_knows(emulator: Emulator) -> None:
    quota = Quota(600, None, None, window=1.0)
    async with EmbedClient(
        "multilingual-e5-large", max_batch_size=10, api_key=emulator.api_key, base_url=emulator.url, quota=quota
    ) as client:
        assert with_quota(Advance(0, 0, 9), client.statistics()) == Advance(0, 0, 9)
        await client.embed([f"text number {number}" for number in range(200)], input_type="passage")
        known = with_quota(Advance(0, 0, 9), client.statistics())
    assert known.quota == 36_000
    assert known.waited > 0.3
    assert not known.is_waiting


@pytest.mark.parametrize("given", ["gold", "0", "-5", "1.5", ""])
async def test_a_quota_is_a_plan_or_tokens(
    tmp_path: Path, emulator: Emulator, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_texts(tmp_path / "in.txt", 2)
    assert await in_thread(emulator, source, "--out", tmp_path / "out", f"--quota={given}") == 2
    assert "--quota must be one of starter, builder, standard, enterprise, or tokens a minute" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["starter", "builder", "standard", "enterprise", "1_000_000"])
async def test_every_plan_is_taken(tmp_path: Path, emulator: Emulator, given: str) -> None:
    source = write_texts(tmp_path / "in.txt", 2)
    assert await in_thread(emulator, source, "--out", tmp_path / "out", "--quota", given) == 0


def test_a_summary_tells_of_waiting_if_there_was_any() -> None:
    summary = Summary(inputs=9, embedded=9, requests=1, tokens=50, retries=0, seconds=130.0, waited=61.0)
    assert "130.0 s (1 min 1 s waiting for the quota), " in str(summary)
    assert "waiting" not in str(Summary(inputs=9, embedded=9, requests=1, tokens=50, retries=0, seconds=1.0))


def test_a_display_that_nobody_reads_does_not_hold_the_run_up() -> None:
    gate, shown = threading.Event(), threading.Event()

    class Stopped:
        interval = 0.001

        def show(self, progress: Any) -> None:
            shown.set()
            gate.wait(30)

        def warn(self, message: str) -> None: ...

        def close(self) -> None: ...

    with showing(Stopped(), Advance(0, 0, 9)) as reporter:
        assert shown.wait(30)
        reporter(Advance(1, 0, 9))
        gate.set()


def test_the_pace_is_that_of_this_run_and_copies_take_no_time() -> None:
    start = Advance(done=100, failed=0, total=1_000, tokens=0)
    assert pace(start, Advance(180, 20, 1_000, tokens=500), 10) == Pace(inputs=10.0, tokens=3_000.0, left=80.0)
    assert pace(start, Advance(180, 20, 1_000, duplicates=300, tokens=500), 10).left == 50.0
    assert pace(start, Advance(180, 20, None, tokens=500), 10).left is None
    # Nothing yet: nobody knows.
    assert pace(start, start, 10) == Pace(0.0, 0.0, None)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (7_300, "2 h 1 min"),
        (4e7, "11,111 h 6 min"),
    ],
)
def test_a_length_of_time_is_as_exact_as_it_is_long(seconds: float, said: str) -> None:
    assert duration(seconds) == said
