"""Progress of a run on standard error: a bar on a terminal, plain lines elsewhere, and the closing summary.

The client's callback only stores the latest counts; a thread writes them. So a terminal that was stopped with Ctrl-S, or a
pipe that nobody reads, holds up the display and never the event loop.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from pinecone_embed_async import Progress
from pinecone_embed_async.cli._output import print_line

_BAR_INTERVAL = 0.1
_LINE_INTERVAL = 5.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What a finished run did.

    Attributes:
        inputs: Inputs of the run.
        embedded: Those of them that are embedded.
        requests: Requests that were answered with embeddings.
        tokens: Tokens that the service counted.
        retries: Requests sent again.
        seconds: From the first request to the last answer.
    """

    inputs: int
    embedded: int
    requests: int
    tokens: int
    retries: int
    seconds: float

    def __str__(self) -> str:
        """Tell it in one line."""
        some = f"{self.embedded:,} of " if self.embedded < self.inputs else ""
        rate = f", {self.embedded / self.seconds:,.0f} inputs/s" if self.seconds > 0 and self.embedded else ""
        return (
            f"{some}{_count(self.inputs, 'input')}, {_count(self.requests, 'request')}, {_count(self.tokens, 'token')}, "
            f"{_count(self.retries, 'retry', 'retries')}, {self.seconds:.1f} s{rate}"
        )


class _Display(Protocol):
    interval: float

    def show(self, progress: Progress) -> None: ...
    def close(self) -> None: ...


class Reporter:
    """Takes the client's progress and has it shown until it is closed; call it with each `Progress`."""

    def __init__(self, display: _Display | None, total: int) -> None:
        # Shown while nothing is answered yet, which under a spent quota may take a minute.
        self._latest = Progress(done=0, failed=0, total=total, requests=0, tokens=0, retries=0)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if display is not None:
            self._thread = threading.Thread(target=self._run, args=(display,), name="progress", daemon=True)
            self._thread.start()

    def __call__(self, progress: Progress) -> None:
        """Store the latest counts."""
        self._latest = progress

    def close(self) -> None:
        """Stop showing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, display: _Display) -> None:
        # A standard error that was closed or that nobody reads any more ends the display, not the run.
        with contextlib.suppress(OSError, ValueError):
            try:
                while not self._stop.wait(display.interval):
                    display.show(self._latest)
            finally:
                display.close()


@contextlib.contextmanager
def reporting(total: int, *, quiet: bool) -> Iterator[Reporter]:
    """Show the progress of `total` inputs while the block runs: a bar on a terminal, else a line every few seconds."""
    reporter = Reporter(None if quiet or not total else _display(total), total)
    try:
        yield reporter
    finally:
        reporter.close()


def _display(total: int) -> _Display:
    console = Console(stderr=True, soft_wrap=False)
    # Not the console's opinion, which FORCE_COLOR changes: a log file is none the better for a bar in it.
    on_terminal = sys.stderr is not None and sys.stderr.isatty() and not console.is_dumb_terminal
    return _BarDisplay(console, total) if on_terminal else _LineDisplay()


class _BarDisplay:
    interval = _BAR_INTERVAL

    def __init__(self, console: Console, total: int) -> None:
        self._bar = Bar(
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
            _RateColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[tokens]:,} tokens"),
            TextColumn("{task.fields[retries]:,} retries"),
            TextColumn("{task.fields[failed]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._task = self._bar.add_task("", total=total, tokens=0, retries=0, failed="")
        self._bar.start()

    def show(self, progress: Progress) -> None:
        self._bar.update(
            self._task,
            completed=progress.done + progress.failed,
            tokens=progress.tokens,
            retries=progress.retries,
            failed=f"{progress.failed:,} failed" if progress.failed else "",
            refresh=True,
        )

    def close(self) -> None:
        self._bar.stop()


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("– inputs/s" if speed is None else f"{speed:,.0f} inputs/s")


class _LineDisplay:
    interval = _LINE_INTERVAL

    def __init__(self) -> None:
        self._started = time.monotonic()

    def show(self, progress: Progress) -> None:
        finished = progress.done + progress.failed
        rate = finished / max(time.monotonic() - self._started, 1e-9)
        left = f", {((progress.total or finished) - finished) / rate:,.0f} s left" if finished else ""
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        print_line(
            f"{finished:,}/{progress.total:,} inputs{failed}, {rate:,.0f} inputs/s, "
            f"{_count(progress.tokens, 'token')}, {_count(progress.retries, 'retry', 'retries')}{left}"
        )

    def close(self) -> None: ...


def _count(number: int, singular: str, plural: str | None = None) -> str:
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"
