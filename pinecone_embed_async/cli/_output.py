"""Output of the command line: one safe line at a time. Needs only the standard library."""

import contextlib
import json
import os
import sys
import unicodedata
from typing import Any, TextIO

PROGRAM = "pinecone-embed"


def printable(text: str) -> str:
    """Make a text from data or from a service safe for a terminal, as one line.

    White space of any kind becomes single spaces; characters that control a terminal or the writing direction are escaped.
    """
    line = " ".join(text.split())
    return "".join(character if _is_harmless(character) else ascii(character)[1:-1] for character in line)


def print_line(text: str) -> None:
    """Write one line to standard error, where everything but a command's result goes; if that is possible."""
    if sys.stderr is not None:
        # The terminal may be gone, after SIGHUP it is.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()


def print_error(message: str) -> None:
    """Write one line about an error, without the API key, whatever the message says."""
    print_line(f"{PROGRAM}: {without_key(message)}")


def print_event(event: str, **fields: Any) -> None:
    """Write an event as one line of JSON to standard output.

    Raises:
        OSError: It cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.write(f"{json.dumps({'event': event, **fields})}\n")
        sys.stdout.flush()


def print_end(status: int, message: str | None) -> None:
    """Write the last event of a run that could not begin; if that is possible."""
    with contextlib.suppress(OSError, ValueError):
        print_event("end", status=status, message=None if message is None else without_key(message))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is a terminal; it may be closed."""
    return stream is not None and stream.isatty()


def without_key(message: str) -> str:
    """The message without the API key, should it hold it."""
    key = os.environ.get("PINECONE_API_KEY", "").strip()
    return message.replace(key, "<the API key>") if key else message


def _is_harmless(character: str) -> bool:
    # Cc and Cf are controls, Cs lone surrogates (a file name that is not UTF-8), Co and Cn have no agreed look.
    return (character.isascii() and character.isprintable()) or unicodedata.category(character)[0] != "C"
