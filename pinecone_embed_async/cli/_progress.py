"""Progress of a run on standard error: a bar on a terminal, plain lines elsewhere, and the closing summary.

The client's callback only stores the latest counts; a thread writes them. So a terminal stopped with Ctrl-S, or a
pipe without a reader, blocks the display and never the event loop.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from pinecone_embed_async import EmbedClient, Progress, Statistics
from pinecone_embed_async.cli._output import is_terminal, print_line

_BAR_INTERVAL = 0.1
_LINE_INTERVAL = 5.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a finished run.

    Attributes:
        inputs: Inputs of the run.
        embedded: Those of them that are embedded.
        requests: Requests that were answered with embeddings.
        tokens: Tokens that the service counted.
        retries: Requests sent again.
        seconds: From the first request to the last answer.
        waited: Seconds of these in which requests waited for the quota.
    """

    inputs: int
    embedded: int
    requests: int
    tokens: int
    retries: int
    seconds: float
    waited: float = 0.0

    def __str__(self) -> str:
        """Return it as one line."""
        some = f"{self.embedded:,} of " if self.embedded < self.inputs else ""
        rate = f", {self.embedded / self.seconds:,.0f} inputs/s" if self.seconds > 0 and self.embedded else ""
        return (
            f"{some}{counted(self.inputs, 'input')}, {counted(self.requests, 'request')}, {counted(self.tokens, 'token')}, "
            f"{counted(self.retries, 'retry', 'retries')}, {self.seconds:.1f} s{waited(self.waited)}{rate}"
        )


@dataclass(frozen=True, slots=True)
class Advance:
    """How far a run has come.

    Attributes:
        done: Inputs embedded.
        failed: Inputs that failed.
        total: Inputs of the run; `None` while that is not known.
        duplicates: Inputs that are not sent, for another has the same text, and are not copied yet.
        requests: Requests answered.
        tokens: Tokens billed.
        retries: Requests sent again.
        quota: The quota's tokens a minute; `None` while that is not known.
        is_waiting: Whether requests wait for the quota now.
        waited: Seconds in which requests waited for the quota.
        skipped: Inputs that cannot be embedded and were left out.
    """

    done: int
    failed: int
    total: int | None
    duplicates: int = 0
    requests: int = 0
    tokens: int = 0
    retries: int = 0
    quota: int | None = None
    is_waiting: bool = False
    waited: float = 0.0
    skipped: int = 0

    @property
    def settled(self) -> int:
        """Inputs that are embedded, failed or left out."""
        return self.done + self.failed + self.skipped


def with_quota(advance: Advance, statistics: Statistics | None) -> Advance:
    """Add a client's quota to an advance; may be called from any thread."""
    quotas = () if statistics is None else statistics.quotas
    limits = [quota.limit * 60 / quota.window for quota in quotas if quota.limit is not None]
    return replace(
        advance,
        quota=round(sum(limits)) if limits else None,
        is_waiting=any(quota.is_waiting for quota in quotas),
        waited=round(sum(quota.waited for quota in quotas), 1),
    )


def advance_of(progress: Progress) -> Advance:
    """How far a call of the client has come."""
    return Advance(
        progress.done,
        progress.failed,
        progress.total,
        requests=progress.requests,
        tokens=progress.tokens,
        retries=progress.retries,
    )


class Display(Protocol):
    """Shows an advance every `interval` seconds."""

    interval: float

    def show(self, progress: Advance) -> None:
        """Show it."""

    def close(self) -> None:
        """Stop showing."""


class Reporter:
    """Shows the progress of a run in a thread until it is closed; call it with each advance."""

    def __init__(self, display: Display | None, start: Advance, watch: Callable[[Advance], Advance]) -> None:
        # Shown while nothing is answered yet, which under a spent quota may take a minute.
        self._latest = start
        self._watch = watch
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if display is not None:
            self._thread = threading.Thread(target=self._run, args=(display,), name="progress", daemon=True)
            self._thread.start()

    def __call__(self, progress: Advance) -> None:
        """Store the latest counts."""
        self._latest = progress

    def close(self) -> None:
        """Stop showing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, display: Display) -> None:
        # A standard error that is closed or has lost its reader ends the display, not the run.
        with contextlib.suppress(OSError, ValueError):
            try:
                while not self._stop.wait(display.interval):
                    display.show(self._watch(self._latest))
            finally:
                display.close()


@contextlib.contextmanager
def reporting(total: int, client: EmbedClient[Any], *, quiet: bool) -> Iterator[Reporter]:
    """Show the progress of `total` inputs while the block runs: a bar on a terminal, else a line every few seconds."""
    start = Advance(done=0, failed=0, total=total)
    display = None if quiet or not total else standard_display(start)
    with showing(display, start, lambda advance: with_quota(advance, client.statistics())) as reporter:
        yield reporter


@contextlib.contextmanager
def showing(
    display: Display | None, start: Advance, watch: Callable[[Advance], Advance] = lambda advance: advance
) -> Iterator[Reporter]:
    """Show the reporter's advances on a display while the block runs.

    Args:
        display: Shows it; `None` if nothing is shown.
        start: The state at the beginning.
        watch: Adds figures that change without an answer; called in the display's thread.
    """
    reporter = Reporter(display, start, watch)
    try:
        yield reporter
    finally:
        reporter.close()


def standard_display(start: Advance) -> Display:
    """A bar on a terminal, else a line every few seconds. Rates are of what comes after `start`."""
    console = Console(stderr=True, soft_wrap=False)
    # Not the console's opinion, which FORCE_COLOR changes: a bar does not belong in a log file.
    on_terminal = is_terminal(sys.stderr) and not console.is_dumb_terminal
    return _BarDisplay(console, start) if on_terminal else _LineDisplay(start)


@dataclass(frozen=True, slots=True)
class Pace:
    """The pace of a run.

    Attributes:
        inputs: Inputs a second.
        tokens: Tokens a minute.
        left: Seconds until all is sent and answered; `None` while that is not known.
    """

    inputs: float
    tokens: float
    left: float | None


def pace(start: Advance, now: Advance, seconds: float) -> Pace:
    """The pace since `start`, `seconds` ago."""
    settled = now.settled
    rate = max(0, settled - start.settled) / max(seconds, 1e-9)
    # Copying takes next to no time.
    left = None if now.total is None or not rate else max(0, now.total - now.duplicates - settled) / rate
    return Pace(rate, 60 * (now.tokens - start.tokens) / max(seconds, 1e-9), left)


class _BarDisplay:
    interval = _BAR_INTERVAL

    def __init__(self, console: Console, start: Advance) -> None:
        self._bar = Bar(
            BarColumn(bar_width=None),
            TextColumn("{task.fields[settled]}"),
            _RateColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[tokens]}"),
            TextColumn("{task.fields[retries]}"),
            TextColumn("{task.fields[failed]}"),
            TextColumn("{task.fields[waiting]}"),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=console,
            auto_refresh=False,
            transient=True,
            expand=True,
        )
        self._start = start
        self._started = time.monotonic()
        self._task = self._bar.add_task("", total=start.total, completed=start.settled, **self._fields(start))
        self._bar.start()

    def _fields(self, progress: Advance) -> dict[str, Any]:
        speed = pace(self._start, progress, time.monotonic() - self._started)
        return {
            "settled": _settled(progress),
            "tokens": f"{counted(progress.tokens, 'token')}, {speed.tokens:,.0f}{_of_quota(progress)}/min",
            "waiting": "waiting for the quota" if progress.is_waiting else "",
            "retries": counted(progress.retries, "retry", "retries"),
            "failed": f"{progress.failed:,} failed" if progress.failed else "",
            "left": "" if speed.left is None else f"{duration(speed.left)} left",
        }

    def show(self, progress: Advance) -> None:
        self._bar.update(
            self._task,
            total=progress.total,
            completed=progress.settled,
            refresh=True,
            **self._fields(progress),
        )

    def close(self) -> None:
        self._bar.stop()


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("– inputs/s" if speed is None else f"{speed:,.0f} inputs/s")


class _LineDisplay:
    interval = _LINE_INTERVAL

    def __init__(self, start: Advance) -> None:
        self._start = start
        self._started = time.monotonic()

    def show(self, progress: Advance) -> None:
        speed = pace(self._start, progress, time.monotonic() - self._started)
        failed = f", {progress.failed:,} failed" if progress.failed else ""
        left = "" if speed.left is None else f", {duration(speed.left)} left"
        waiting = ", waiting for the quota" if progress.is_waiting else ""
        print_line(
            f"{_settled(progress)} inputs{failed}, {speed.inputs:,.0f} inputs/s, {counted(progress.tokens, 'token')}, "
            f"{speed.tokens:,.0f}{_of_quota(progress)} tokens/min, {counted(progress.retries, 'retry', 'retries')}"
            f"{waiting}{left}"
        )

    def close(self) -> None: ...


def _of_quota(progress: Advance) -> str:
    return "" if progress.quota is None else f" of {progress.quota:,}"


def waited(seconds: float) -> str:
    """A summary's note on the time spent waiting for the quota; empty if there was hardly any."""
    return f" ({duration(seconds)} waiting for the quota)" if seconds >= 1 else ""


def priced(tokens: int, price: float | None) -> str:
    """A summary's note on what tokens cost; empty if no price is given."""
    return "" if price is None else f", price {tokens * price / 1e6:,.2f}"


def _settled(progress: Advance) -> str:
    settled = f"{progress.settled:,}"
    return settled if progress.total is None else f"{settled}/{progress.total:,}"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number and what it counts."""
    return f"{number:,} {singular if number == 1 else plural or f'{singular}s'}"


def duration(seconds: float) -> str:
    """A length of time, the coarser the longer."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, whole = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {whole} s" if whole else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"
