"""Progress of a run on standard error: a bar on a terminal, plain lines elsewhere, and the closing summary.

The client's callback only stores the latest counts; a thread writes them. So a terminal stopped with Ctrl-S, or a pipe
without a reader, blocks the display and never the event loop.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console

from pinecone_embed_async import EmbedClient
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async.cli._bar import BarDisplay
from pinecone_embed_async.cli._figures import Advance, counted, duration, of_quota, pace, settled, waited, with_quota
from pinecone_embed_async.cli._output import is_terminal, print_error, print_line

_LINE_INTERVAL = 5.0
_QUIET_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a finished run.

    Attributes:
        inputs: Inputs of the run.
        embedded: How many of them are embedded.
        requests: Requests answered with embeddings.
        tokens: Tokens billed.
        retries: Requests sent again.
        seconds: From the first request to the last answer.
        waited: Seconds of these during which requests waited for the quota.
    """

    inputs: int
    embedded: int
    requests: int
    tokens: int
    retries: int
    seconds: float
    waited: float = 0.0

    def __str__(self) -> str:
        """The summary as one line."""
        some = f"{self.embedded:,} of " if self.embedded < self.inputs else ""
        rate = f", {self.embedded / self.seconds:,.0f} inputs/s" if self.seconds > 0 and self.embedded else ""
        return (
            f"{some}{counted(self.inputs, 'input')}, {counted(self.requests, 'request')}, {counted(self.tokens, 'token')}, "
            f"{counted(self.retries, 'retry', 'retries')}, {self.seconds:.1f} s{waited(self.waited)}{rate}"
        )


class Display(Protocol):
    """Something that shows an advance; called every `interval` seconds."""

    interval: float

    def show(self, progress: Advance) -> None:
        """Show the advance."""

    def warn(self, message: str) -> None:
        """Show a warning."""

    def close(self) -> None:
        """Stop showing."""


class Reporter:
    """Shows a run's progress and warnings in a thread until it is closed; call it with each advance."""

    def __init__(
        self,
        display: Display,
        start: Advance,
        watch: Callable[[Advance], Advance],
        take_warnings: Callable[[], Iterable[str]],
    ) -> None:
        # Shown until the first answer, which may take a minute if the quota is used up.
        self._latest = start
        self._watch = watch
        self._take_warnings = take_warnings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(display,), name="progress", daemon=True)
        self._thread.start()

    def __call__(self, progress: Advance) -> None:
        """Store the latest counts."""
        self._latest = progress

    def close(self) -> None:
        """Stop showing."""
        self._stop.set()
        self._thread.join()

    def _run(self, display: Display) -> None:
        # A standard stream that is closed, full or has lost its reader ends the display, not the run.
        with contextlib.suppress(OSError, ValueError, OutputError):
            try:
                while not self._stop.wait(display.interval):
                    for message in self._take_warnings():
                        display.warn(message)
                    display.show(self._watch(self._latest))
            finally:
                display.close()


@contextlib.contextmanager
def reporting(
    total: int, client: EmbedClient[Any], take_warnings: Callable[[], Iterable[str]], *, quiet: bool
) -> Iterator[Reporter]:
    """Show the progress of `total` inputs while the block runs: a bar on a terminal, else a line every few seconds."""
    start = Advance(done=0, failed=0, total=total)
    display = QuietDisplay() if quiet or not total else standard_display(start)
    with showing(display, start, lambda advance: with_quota(advance, client.statistics()), take_warnings) as reporter:
        yield reporter


@contextlib.contextmanager
def showing(
    display: Display,
    start: Advance,
    watch: Callable[[Advance], Advance] = lambda advance: advance,
    take_warnings: Callable[[], Iterable[str]] = tuple,
) -> Iterator[Reporter]:
    """Show the reporter's advances on a display while the block runs.

    Args:
        display: The display.
        start: The state at the beginning.
        watch: Adds figures that change between answers; called in the display's thread.
        take_warnings: Returns new warnings to show; called in the display's thread.
    """
    reporter = Reporter(display, start, watch, take_warnings)
    try:
        yield reporter
    finally:
        reporter.close()


def standard_display(start: Advance) -> Display:
    """A bar on a terminal, else a line every few seconds. Rates count from `start`."""
    console = Console(stderr=True, soft_wrap=False)
    # Not the console's own check, which FORCE_COLOR overrides: a bar does not belong in a log file.
    on_terminal = is_terminal(sys.stderr) and not console.is_dumb_terminal
    return BarDisplay(console, start) if on_terminal else _LineDisplay(start)


class QuietDisplay:
    """Shows nothing but warnings."""

    interval = _QUIET_INTERVAL

    def show(self, progress: Advance) -> None:
        """Show nothing."""

    def warn(self, message: str) -> None:
        """Print a warning."""
        print_error(message)

    def close(self) -> None:
        """Do nothing."""


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
            f"{settled(progress)} inputs{failed}, {speed.inputs:,.0f} inputs/s, {counted(progress.tokens, 'token')}, "
            f"{speed.tokens:,.0f}{of_quota(progress)} tokens/min, {counted(progress.retries, 'retry', 'retries')}"
            f"{waiting}{left}"
        )

    def warn(self, message: str) -> None:
        print_error(message)

    def close(self) -> None: ...
