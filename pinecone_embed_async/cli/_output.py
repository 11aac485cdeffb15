"""Output of the command line, one safe line at a time. Needs only the standard library."""

import contextlib
import json
import os
import sys
import unicodedata
from typing import Any, TextIO

PROGRAM = "pinecone-embed"


def printable(text: str) -> str:
    """Make text from data or a service safe for a terminal, as one line.

    White space becomes single spaces; characters that control a terminal or the writing direction are escaped.
    """
    line = " ".join(text.split())
    return "".join(character if _is_harmless(character) else ascii(character)[1:-1] for character in line)


def print_line(text: str) -> None:
    """Write one line to standard error, which takes everything except a command's result; ignore a failure."""
    if sys.stderr is not None:
        # The terminal may be gone, for instance after SIGHUP.
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()


def print_error(message: str) -> None:
    """Write one line about an error; the API key is removed from the message."""
    print_line(f"{PROGRAM}: {without_key(message)}")


def print_event(event: str, **fields: Any) -> None:
    """Write an event as one line of JSON to standard output.

    Raises:
        OSError: Standard output cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.write(f"{json.dumps({'event': event, **fields})}\n")
        sys.stdout.flush()


def print_end(status: int, message: str | None) -> None:
    """Write the last event of a run that could not start; ignore a failure."""
    with contextlib.suppress(OSError, ValueError):
        print_event("end", status=status, message=None if message is None else without_key(message))


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a standard stream is open and a terminal."""
    return stream is not None and stream.isatty()


def without_key(message: str) -> str:
    """The message with the API key replaced."""
    key = os.environ.get("PINECONE_API_KEY", "").strip()
    return message.replace(key, "<the API key>") if key else message


def _is_harmless(character: str) -> bool:
    # Cc and Cf are controls, Cs lone surrogates (from a file name that is not UTF-8); Co and Cn have no agreed appearance.
    return (character.isascii() and character.isprintable()) or unicodedata.category(character)[0] != "C"
