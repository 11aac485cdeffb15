"""The command line `pinecone-embed`.

`cli` runs one command as a plain function; `main` is what the installed script calls. Typer, rich and pyarrow come with the
extra `cli` and are imported only when a command needs them, so that without them the user sees one clear line instead of a
traceback.
"""

import contextlib
import io
import logging
import os
import sys

from pinecone_embed_async.cli._output import print_error
from pinecone_embed_async.cli._signals import Stopped, status_of_stop, stoppable
from pinecone_embed_async.cli._statuses import missing_extra


def cli(*arguments: str) -> int:
    """Run one command, for example `cli("embed", "docs.txt", "--out", "docs.parquet")`.

    Returns:
        The exit status; docs/command-line.md lists them.
    """
    try:
        # Imported here, so that a missing dependency can be reported.
        from pinecone_embed_async.cli._app import run  # noqa: PLC0415
    except ModuleNotFoundError as error:
        message = missing_extra(error)
        if message is None:
            raise
        print_error(message)
        return 1
    return run(arguments)


def main() -> None:
    """Run the command the process was started with, and exit with its status."""
    _open_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A docstring or an id may contain characters that the terminal's encoding lacks.
            stream.reconfigure(errors="backslashreplace")
    # Log lines of asyncio would disrupt the progress display; the library's own warnings are shown by the commands.
    logging.getLogger().addHandler(logging.NullHandler())
    sys.meta_path.insert(0, _NoPandas)
    try:
        with stoppable():
            status = cli(*sys.argv[1:])
    except (Stopped, KeyboardInterrupt) as stop:
        # A signal arrived while a command's modules were still being imported.
        status = status_of_stop(stop)
    sys.exit(_flushed(status))


class _NoPandas:
    """Hides pandas, which pyarrow would otherwise import, if installed, before making its first array.

    A command gives pyarrow no object of pandas, and the import would take as long as all others together.
    """

    @staticmethod
    def find_spec(name: str, _path: object, _target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("no command uses it", name=name)


def _open_standard_descriptors() -> None:
    # Otherwise the next file or socket to be opened would become standard input or output.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _flushed(status: int) -> int:
    """Flush standard output, and return the exit status, which changes if that fails."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Otherwise the interpreter would report the same error again when it closes the stream.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        # A broken pipe is no error: the reader has what it wanted.
        if not isinstance(error, BrokenPipeError):
            print_error(f"standard output cannot be written: {error.strerror or error}")
            return status or 1
    return status
