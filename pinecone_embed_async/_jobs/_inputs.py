"""The files that a job reads: names, folders and globs become a list of files with their formats."""

import glob
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._jobs._errors import SourceError

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"

_READABLE = "name files .txt, .jsonl, .csv or .parquet, with .gz or .zst behind it if compressed, or give --format"


class InputFormat(StrEnum):
    """How the bytes of an input become rows."""

    TXT = "txt"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


class Compression(StrEnum):
    """How the bytes of an input are compressed, by the suffix after that of the format."""

    NONE = ""
    GZIP = "gz"
    ZSTD = "zst"


class InputFile(NamedTuple):
    """One file to read.

    Attributes:
        name: What messages call it: the name as given, or as found in a folder.
        path: Where it is; `None` for standard input.
        format: How it is read.
        compression: How it is compressed.
    """

    name: str
    path: Path | None
    format: InputFormat
    compression: Compression = Compression.NONE


def find_inputs(
    names: Iterable[str],
    *,
    format: InputFormat | None = None,  # noqa: A002 - it is the option's name
    leave_out: Path | None = None,
) -> list[InputFile]:
    """Find the files that the given names stand for, in the given order.

    A folder stands for the files of known formats in it and in its folders, in the order of their paths; names that begin
    with `.` or `_` are skipped, as programs that read tables in folders do. A pattern with `*`, `?` or `[` that is no
    file's name stands for what matches it, in the order of the paths; `**` goes through folders.

    Args:
        names: Files, folders, patterns, and `-` for standard input.
        format: The format of every file; by default that of its suffix.
        leave_out: A folder that is skipped inside the given ones: the output.

    Raises:
        ConfigurationError: A format is unknown, or standard input is named twice.
        SourceError: A folder or a pattern stands for nothing.
    """
    found: list[InputFile] = []
    out = None if leave_out is None else leave_out.resolve()
    for name in names:
        found.extend(_found(name, format, out))
    if sum(file.path is None for file in found) > 1:
        raise ConfigurationError("standard input is named twice; it can be read once")
    return found


def _found(name: str, given: InputFormat | None, out: Path | None) -> Iterator[InputFile]:
    path = Path(name)
    if name == STANDARD_INPUT:
        yield _input_file(name, given)
    elif path.is_dir():
        files = [file for file in _files_within(path, out) if given is not None or _format_of(file) is not None]
        if not files:
            raise SourceError(f"{name}: no files to read in this folder; {_READABLE}")
        yield from (_input_file(str(file), given) for file in files)
    elif glob.has_magic(name) and not path.exists():
        # Not `Path.glob`, which takes no absolute patterns.
        files = sorted(Path(match) for match in glob.iglob(name, recursive=True))  # noqa: PTH207
        if not files:
            raise SourceError(f"{name}: nothing matches this pattern")
        for file in files:
            if not file.is_dir() and not _is_within(file, out):
                yield _input_file(str(file), given)
    else:
        yield _input_file(name, given)


def _files_within(folder: Path, out: Path | None) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if _is_visible(each) and Path(parent, each).resolve() != out)
        yield from (Path(parent, each) for each in sorted(names) if _is_visible(each))


def _is_visible(name: str) -> bool:
    return not name.startswith((".", "_"))


def _is_within(file: Path, folder: Path | None) -> bool:
    return folder is not None and file.resolve().is_relative_to(folder)


def _format_of(path: Path) -> tuple[InputFormat, Compression] | None:
    *_, inner, outer = ("", "", *(suffix.lower().removeprefix(".") for suffix in path.suffixes))
    compression = _compression_of(path)
    try:
        return InputFormat(inner if compression else outer), compression
    except ValueError:
        return None


def _compression_of(path: Path) -> Compression:
    suffix = path.suffix.lower().removeprefix(".")
    return Compression(suffix) if suffix in {Compression.GZIP, Compression.ZSTD} else Compression.NONE


def _input_file(name: str, given: InputFormat | None) -> InputFile:
    shown, path = (STANDARD_INPUT_NAME, None) if name == STANDARD_INPUT else (name, Path(name))
    if given is not None:
        return InputFile(shown, path, given, Compression.NONE if path is None else _compression_of(path))
    found = None if path is None else _format_of(path)
    if found is None:
        raise ConfigurationError(f"{shown}: the format is unknown; {_READABLE}")
    return InputFile(shown, path, *found)
