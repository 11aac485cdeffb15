"""The progress bar of `progress=True`, in a terminal or a notebook.

A thread draws the bar from the latest counts, so that a blocked terminal, for example after Ctrl-S, does not block the event
loop. rich or tqdm is imported only on use, in that thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sys
import threading
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._log import logger
from pinecone_embed_async._statistics.counts import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

Place = Literal["terminal", "notebook"]

INTERVAL = 0.1
"""Seconds between two updates of the bar."""

LAST_DRAWING = 1.0
"""Maximum seconds that a call waits for the last update, which a blocked terminal would delay for ever."""


class ProgressBar:
    """Shows the progress that it is called with. It draws nothing if there is neither a terminal nor a notebook.

    Raises:
        ConfigurationError: neither rich nor tqdm is installed.
    """

    def __init__(self) -> None:
        # `find_spec` fails for an imported module without a `__spec__`, such as one that a test made.
        installed = [name for name in ("rich", "tqdm") if sys.modules.get(name) or find_spec(name)]
        if not installed:
            raise ConfigurationError(
                "progress=True needs rich or tqdm, but neither is installed: pip install rich, or pass a function"
            )
        self._library = installed[0]
        self._place = _place()

    def __repr__(self) -> str:
        return f"<ProgressBar {self._library}, {self._place or 'nowhere'}>"

    def __call__(self, progress: Progress) -> None:
        """Store the progress for the next update."""
        self._latest = progress

    @contextlib.asynccontextmanager
    async def shown(self, total: int | None) -> AsyncIterator[None]:
        """Draw the bar while the block runs, and a last time when it ends for any reason.

        Args:
            total: number of inputs of the call; `None` if unknown.
        """
        if self._place is None:
            yield
            return
        self._latest = Progress(0, 0, total, 0, 0, 0)
        loop, is_over, is_drawn = asyncio.get_running_loop(), threading.Event(), asyncio.Event()

        def draw() -> None:
            try:
                with contextlib.closing(self._bar(total)) as bar:
                    while not is_over.wait(INTERVAL):
                        bar.show(self._latest)
                    latest = self._latest
                    # The call has ended, so all that was done is the total.
                    bar.show(replace(latest, total=latest.done + latest.failed) if total is None else latest)
            except Exception as fault:  # noqa: BLE001 - a fault of the bar must not end the call
                logger.warning("the progress bar ended: %s", type(fault).__name__)
            # The loop may be closed by now, if the terminal was blocked.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(is_drawn.set)

        # In the caller's context, which tells a notebook the cell.
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(draw,), name="progress bar", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_DRAWING):
                    await is_drawn.wait()
                thread.join()

    def _bar(self, total: int | None) -> _RichBar | _TqdmBar:
        return _TqdmBar(total) if self._library == "tqdm" else _RichBar(total, in_notebook=self._place == "notebook")


class _RichBar:
    def __init__(self, total: int | None, *, in_notebook: bool) -> None:
        from rich import progress  # noqa: PLC0415 - optional, and imported only where it is used
        from rich.console import Console  # noqa: PLC0415 - as above

        self._bar = progress.Progress(
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[note]}"),
            progress.TimeRemainingColumn(),
            # Only the bar's own line; rich must not redirect other output.
            console=Console(stderr=True),
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=total, note="")
        self._handle: Any = None
        if in_notebook:
            from IPython.display import display  # noqa: PLC0415 - as above

            # rich's own notebook support needs ipywidgets.
            self._handle = display(self._bar, display_id=True)  # type: ignore[no-untyped-call]
        else:
            self._bar.start()

    def show(self, progress: Progress) -> None:
        completed, total = progress.done + progress.failed, progress.total
        self._bar.update(self._task, completed=completed, total=total, note=_note(progress))
        if self._handle is None:
            self._bar.refresh()
        else:
            self._handle.update(self._bar)

    def close(self) -> None:
        if self._handle is None:
            self._bar.stop()


class _TqdmBar:
    def __init__(self, total: int | None) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - as above

        # Without the monitor thread that tqdm would start and keep.
        kind: Any = type("tqdm", (tqdm,), {"monitor_interval": 0})
        self._bar = kind(total=total, file=sys.stderr, unit=" inputs", dynamic_ncols=True)

    def show(self, progress: Progress) -> None:
        self._bar.n = progress.done + progress.failed
        self._bar.set_postfix_str(_note(progress))

    def close(self) -> None:
        self._bar.close()


def _note(progress: Progress) -> str:
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    return f"{progress.tokens:,} tokens{failed}"


def _place() -> Place | None:
    """Where the bar can be drawn; `None` if nowhere, because it does not belong in a log file."""
    # Not imported here, because in a notebook it is already imported.
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if hasattr(ipython, "get_ipython") else None
    if getattr(shell, "kernel", None) is not None:
        return "notebook"
    try:
        is_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):
        # Standard error is missing or closed.
        return None
    return "terminal" if is_terminal else None
