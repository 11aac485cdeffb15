"""Print docs/command-line-help.md: the `--help` output of every command.

python scripts/command_line_help.py > docs/command-line-help.md
"""

import contextlib
import io
import os

import typer

from pinecone_embed_async.cli import cli
from pinecone_embed_async.cli._app import app

WIDTH = 80


def main() -> None:
    """Print the page."""
    print("# The command line's help\n\nWhat `--help` prints; a test keeps this page true.")
    for command in ["", *typer.main.get_group(app).commands]:
        name = f"pinecone-embed {command}".strip()
        print(f"\n## `{name}`\n\n```text\n{help_of(command)}```")


def help_of(command: str) -> str:
    """The help shown on a terminal of `WIDTH` columns without colours.

    Raises:
        SystemExit: the command failed.
    """
    for name in ("FORCE_COLOR", "PY_COLORS", "CLICOLOR_FORCE"):
        os.environ.pop(name, None)
    os.environ.update(COLUMNS=str(WIDTH), NO_COLOR="1", TERM="dumb")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = cli(*command.split(), "--help")
    if status:
        raise SystemExit(status)
    return said.getvalue()


if __name__ == "__main__":
    main()
