"""The command line `pinecone-embed`.

`cli` is the whole of it as a plain function; `main` is what the installed script calls. Typer, rich and pyarrow come with
the extra `cli` and are imported when a command runs, so that without them there is one clear line instead of a traceback.
"""

import contextlib
import io
import logging
import os
import sys

from pinecone_embed_async.cli._output import print_error
from pinecone_embed_async.cli._signals import Stopped, status_of_stop, stoppable

_EXTRA = ("pyarrow", "rich", "typer")


def cli(*arguments: str) -> int:
    """Run one command, `cli("embed", "docs.txt", "--out", "docs.parquet")` say.

    Returns:
        The exit status, as docs/command-line.md lists them.
    """
    try:
        # A dependency of it may be missing, and this function reports that.
        from pinecone_embed_async.cli._app import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        print_error(f"the command line needs {error.name}; install it with: pip install 'pinecone-embed-async[cli]'")
        return 1
    return run(arguments)


def main() -> None:
    """Run the command that the process was started with, and exit with its status."""
    _open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A docstring or an id may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    # Log lines of the client and asyncio would come between those of the progress; the closing line says what failed.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        with stoppable():
            status = cli(*sys.argv[1:])
    except (Stopped, KeyboardInterrupt) as stop:
        # A signal while the imports of a command are still running.
        status = status_of_stop(stop)
    sys.exit(_flushed(status))


def _open_standard_descriptors() -> None:
    # The next file or socket that is opened would become standard input or output.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _flushed(status: int) -> int:
    """Flush standard output, and return the exit status, which may be another if that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter would complain about it once more when it closes the stream.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A reader that went away has what it wanted.
        if not isinstance(error, BrokenPipeError):
            print_error(f"standard output cannot be written: {error.strerror or error}")
            return status or 1
    return status
