"""The command line `pinecone-embed`.

`cli` is the whole of it as a plain function; `main` is what the installed script calls. Typer, rich and pyarrow come with
the extra `cli` and are imported when a command runs, so that without them there is one clear line instead of a traceback.
"""

import contextlib
import io
import logging
import os
import sys

from pinecone_embed_async.cli._output import INTERRUPTED, print_error

_EXTRA = ("pyarrow", "rich", "typer")


def cli(*arguments: str) -> int:
    """Run one command, `cli("embed", "docs.txt", "--out", "docs.parquet")` say.

    Returns:
        The exit status: 0, 1 after an error, 2 after misuse, 130 after Ctrl-C.
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A docstring or an id may hold what the terminal's encoding does not.
            stream.reconfigure(errors="backslashreplace")
    # Log lines of the client and asyncio would come between those of the progress; the closing line says what failed.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        status = cli(*sys.argv[1:])
    except KeyboardInterrupt:
        # Ctrl-C while the imports of a command are still running.
        status = INTERRUPTED
    try:
        sys.stdout.flush()
    except (BrokenPipeError, AttributeError):
        # The reader went away; the interpreter would complain about it once more when it closes the stream.
        with contextlib.suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)
