"""Draw docs/job.svg: a job that is stopped and resumed, as a terminal shows it.

    python scripts/draw_job.py docs/job.svg

Both runs are real, in a pseudo-terminal, against an emulator that takes a second per answer and fails three in a hundred.
The text is the docstrings of Python's standard library. The bar is drawn as it was when the first run was half done and when
the second was nine tenths done; the line below it is the last line of the run.
"""

import asyncio
import io
import json
import os
import pty
import re
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import SVG_EXPORT_THEME
from rich.text import Text

from pinecone_embed_async.cli._docstrings import read_docstrings
from pinecone_embed_async.emulator import Emulator

COLUMNS = 64
"""A picture this wide can be read on a phone."""
ARGUMENTS = ("embed", "docs.jsonl", "--text-field", "body", "--id-field", "id", "--out", "vectors")

# rich's default template, without the font that it loads from another host, and with a width at which the text is as large
# as the page's.
SVG = """<svg class="rich-terminal" width="640" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>A job stopped with Ctrl-C and resumed</title>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px;
  line-height: {line_height}px; font-variant-east-asian: full-width; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g></g></svg>
"""


Run = tuple[str, str]
"""The bar at a certain point, and the run's last line."""


async def run_twice() -> tuple[Run, Run]:
    """Run the job, stop it half way, and run it again."""
    with tempfile.TemporaryDirectory() as folder:
        count = write_documents(Path(folder) / "docs.jsonl")
        async with Emulator(latency=1.0, faults="status=503:0.03", record_texts=False) as emulator:
            stopped = await run(folder, emulator, lambda done: done > 0.5 * count, stop=True)
            finished = await run(folder, emulator, lambda done: done > 0.9 * count, stop=False)
    return stopped, finished


def draw(runs: tuple[Run, Run]) -> str:
    """Draw the runs as a terminal shows them, one below the other."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for frame, last in runs:
        console.print(Text.assemble(("$ ", "bold green"), " ".join(("pinecone-embed", *ARGUMENTS))))
        console.print(Text.from_ansi(frame))
        console.print(Text.from_ansi(last))
    # The last line loses its descenders otherwise.
    console.print()
    drawn = console.export_svg(title="", theme=SVG_EXPORT_THEME, code_format=SVG, unique_id="job")
    return "".join(f"{line.rstrip()}\n" for line in drawn.splitlines() if line.strip())


def write_documents(path: Path) -> int:
    """Write the docstrings as JSON lines and count them."""
    docstrings = read_docstrings()
    path.write_text("".join(json.dumps({"id": one.name, "body": one.text}) + "\n" for one in docstrings))
    return len(docstrings)


async def run(folder: str, emulator: Emulator, is_late: Callable[[int], bool], *, stop: bool) -> Run:
    """Run the job in a pseudo-terminal; return the bar at a certain point, and the last line.

    Args:
        folder: the folder with the documents.
        emulator: the emulator to embed with.
        is_late: returns whether to take the bar once this many rows are done.
        stop: whether to press Ctrl-C then.
    """
    ours, theirs = pty.openpty()
    job = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pinecone_embed_async.cli", *ARGUMENTS),
        cwd=folder,
        env={
            **os.environ,
            "PINECONE_CONTROLLER_HOST": emulator.url,
            "PINECONE_API_KEY": emulator.api_key,
            "COLUMNS": str(COLUMNS),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        },
        stdin=theirs,
        stderr=theirs,
        stdout=theirs,
    )
    os.close(theirs)
    written, frame = "", ""
    while more := await asyncio.to_thread(read, ours):
        written += more
        bars = [part for part in re.split(r"[\r\n]", written) if "inputs/s" in part and "━" in part]
        shown = re.search(r"([\d,]+)/[\d,]+", Text.from_ansi(bars[-2]).plain) if len(bars) > 1 else None
        if not frame and shown is not None and is_late(int(shown[1].replace(",", ""))):
            # The last bar may be incomplete; the one before it is whole.
            frame = bars[-2]
            if stop:
                job.send_signal(signal.SIGINT)
    os.close(ours)
    await job.wait()
    return frame, written.rstrip().splitlines()[-1].rpartition("\r")[2]


def read(terminal: int) -> str:
    """The job's next output; empty once it has ended."""
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:
        # On Linux, this means that the other end is closed.
        return ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(asyncio.run(run_twice())))
