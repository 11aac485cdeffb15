"""The progress bar on a terminal: one line that fits, with the most important figures first."""

import time
from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from pinecone_embed_async.cli._figures import Advance, Pace, counted, duration, of_quota, pace, settled
from pinecone_embed_async.cli._output import print_error

_INTERVAL = 0.1
_GAP = "  "
_LEAST_BAR = 8
_MOST_BAR = 60


def figures(progress: Advance, speed: Pace) -> list[str]:
    """The figures of a bar, most important first; the last ones are dropped if there is no room."""
    share = "" if not progress.total else f"{100 * progress.settled // progress.total}%"
    left = "" if speed.left is None else f"{duration(speed.left)} left"
    found = [
        share,
        settled(progress),
        f"{speed.inputs:,.0f} inputs/s",
        left,
        f"{progress.failed:,} failed" if progress.failed else "",
        "waiting for the quota" if progress.is_waiting else "",
        f"{counted(progress.tokens, 'token')}, {speed.tokens:,.0f}{of_quota(progress)}/min",
        counted(progress.retries, "retry", "retries"),
        f"{progress.skipped:,} skipped" if progress.skipped else "",
    ]
    return [figure for figure in found if figure]


def fitted(texts: Sequence[str], width: int) -> str:
    """Join as many of the texts as fit on one line; the first is cut if it alone is too long."""
    line = texts[0][:width]
    for text in texts[1:]:
        if len(line) + len(_GAP) + len(text) > width:
            break
        line += _GAP + text
    return line


def bar(share: float | None, width: int) -> tuple[str, str]:
    """The full and the empty part of a bar, together at most `width` wide; both empty if there is too little room."""
    if share is None or width < _LEAST_BAR:
        return "", ""
    width = min(width, _MOST_BAR)
    full = round(width * min(1.0, max(0.0, share)))
    return "━" * full, "─" * (width - full)


class BarDisplay:
    """A bar that is redrawn with each advance and removed at the end."""

    interval = _INTERVAL

    def __init__(self, console: Console, start: Advance) -> None:
        self._start = self._latest = start
        self._started = time.monotonic()
        # It controls only its own line, and leaves the standard streams alone.
        self._live = Live(
            self, console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start(refresh=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the bar for the terminal's present width."""
        progress = self._latest
        # The last column stays free, since some terminals start a new line after it.
        width = options.max_width - 1
        line = fitted(figures(progress, pace(self._start, progress, time.monotonic() - self._started)), width)
        full, empty = bar(progress.settled / progress.total if progress.total else None, width - len(line) - len(_GAP))
        yield Segment(line + (_GAP if full + empty else ""))
        yield Segment(full, Style(color="green"))
        yield Segment(empty, Style(dim=True))

    def show(self, progress: Advance) -> None:
        """Redraw the bar."""
        self._latest = progress
        self._live.refresh()

    def warn(self, message: str) -> None:
        """Print a warning above the bar."""
        self._live.stop()
        print_error(message)
        self._live.start(refresh=True)

    def close(self) -> None:
        """Remove the bar."""
        self._live.stop()
