"""Output of the command line: one safe line at a time. Needs only the standard library."""

import os
import sys
import unicodedata

PROGRAM = "pinecone-embed"

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 plus the number of the signal, as in shells."""


def printable(text: str) -> str:
    """Make a text from data or from a service safe for a terminal, as one line.

    White space of any kind becomes single spaces; characters that control a terminal or the writing direction are escaped.
    """
    line = " ".join(text.split())
    return "".join(character if _is_harmless(character) else ascii(character)[1:-1] for character in line)


def print_line(text: str) -> None:
    """Write one line to standard error, where everything but a command's result goes."""
    if sys.stderr is not None:
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def print_error(message: str) -> None:
    """Write one line about an error, without the API key, whatever the message says."""
    print_line(f"{PROGRAM}: {without_key(message)}")


def without_key(message: str) -> str:
    """The message without the API key, should it hold it."""
    key = os.environ.get("PINECONE_API_KEY", "").strip()
    return message.replace(key, "<the API key>") if key else message


def _is_harmless(character: str) -> bool:
    # Cc and Cf are controls, Cs lone surrogates (a file name that is not UTF-8), Co and Cn have no agreed look.
    return (character.isascii() and character.isprintable()) or unicodedata.category(character)[0] != "C"
