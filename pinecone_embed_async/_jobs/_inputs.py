"""Finds the files a job reads: turns names, folders and globs into a list of files with their formats."""

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._jobs._errors import SourceError

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "standard input"

_READABLE = (
    "use file names that end in .txt, .jsonl, .ndjson, .csv, .tsv or .parquet, optionally followed by .gz or .zst, "
    "or give --format"
)


class InputFormat(StrEnum):
    """How the bytes of an input become rows."""

    TXT = "txt"
    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"


class Compression(StrEnum):
    """How the bytes of an input are compressed; the value is the suffix after the format's."""

    NONE = ""
    GZIP = "gz"
    ZSTD = "zst"


_ALIASES = {"ndjson": "jsonl"}
_DELIMITERS = {InputFormat.CSV: ",", InputFormat.TSV: "\t"}


class InputFile(NamedTuple):
    """One file to read.

    Attributes:
        name: The name in messages: as given, or as found in a folder; bytes that are not UTF-8 are escaped.
        path: Where it is; `None` for standard input.
        format: How it is read.
        compression: How it is compressed.
        delimiter: The character between the fields of a `.csv` or `.tsv` file.
    """

    name: str
    path: Path | None
    format: InputFormat
    compression: Compression = Compression.NONE
    delimiter: str = ","

    @property
    def format_name(self) -> str:
        """Format, delimiter and compression as one word; if it changes, the same bytes become other rows."""
        delimiter = "" if self.delimiter == _DELIMITERS.get(self.format, ",") else f"({self.delimiter})"
        return f"{self.format}{delimiter}" + (f".{self.compression}" if self.compression else "")


def find_inputs(
    names: Iterable[str],
    *,
    format: InputFormat | None = None,  # noqa: A002 - it is the option's name
    leave_out: Path | None = None,
    delimiter: str | None = None,
) -> list[InputFile]:
    """Find the files that the names refer to, in the given order.

    A folder means the files of known formats in it and its subfolders, in the order of their paths; names that begin with
    `.` or `_` are skipped, as programs that read tables in folders do. A pattern with `*`, `?` or `[` that is not the name
    of a file means the files that match it, in the order of their paths; `**` matches any number of folders.

    Args:
        names: Files, folders, patterns, and `-` for standard input.
        format: The format of every file; by default, the format of its suffix.
        leave_out: The output, which is skipped in folders and patterns.
        delimiter: The character between the fields of `.csv` and `.tsv` files; by default a comma and a tab.

    Raises:
        ConfigurationError: A format is unknown, standard input is named twice, or the delimiter is invalid.
        SourceError: A folder has no files to read, or no file matches a pattern.
    """
    found: list[InputFile] = []
    out = None if leave_out is None else leave_out.resolve()
    for name in names:
        found.extend(_found(name, format, out))
    if sum(file.path is None for file in found) > 1:
        raise ConfigurationError("standard input is named twice; it can be read only once")
    return found if delimiter is None else _delimited(found, delimiter)


def _delimited(files: list[InputFile], given: str) -> list[InputFile]:
    delimiter = "\t" if given == r"\t" else given
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise ConfigurationError(f"--delimiter must be one character other than a quote or a line break, got {given!r}")
    if not any(file.format in _DELIMITERS for file in files):
        raise ConfigurationError("--delimiter is for .csv and .tsv files, and the input has none")
    return [file._replace(delimiter=delimiter) if file.format in _DELIMITERS else file for file in files]


def passed_over(names: Iterable[str], *, leave_out: Path | None = None) -> list[str]:
    """The files in the given folders that `find_inputs` does not read, because their formats are unknown."""
    out = None if leave_out is None else leave_out.resolve()
    folders = [Path(name) for name in names if name != STANDARD_INPUT and Path(name).is_dir()]
    return [_shown(file) for folder in folders for file in _files_within(folder, out) if _format_of(file) is None]


def given_twice(files: Iterable[InputFile]) -> list[str]:
    """The files that are read more than once, because several of the names refer to them."""
    names: dict[Path, list[str]] = defaultdict(list)
    for file in files:
        if file.path is not None:
            names[file.path.resolve()].append(file.name)
    return [found[0] for found in names.values() if len(found) > 1]


def _shown(path: str | Path) -> str:
    return str(path).encode("utf-8", "backslashreplace").decode()


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
        matches = {Path(match) for match in glob.iglob(name, recursive=True)}  # noqa: PTH207
        files = [match for match in sorted(matches) if not match.is_dir() and not _is_within(match, out)]
        if not files:
            only = "; it matches only folders or the output: name a folder to read the files in it" if matches else ""
            raise SourceError(f"{name}: no file matches this pattern{only}")
        yield from (_input_file(str(file), given) for file in files)
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
        suffix = inner if compression else outer
        return InputFormat(_ALIASES.get(suffix, suffix)), compression
    except ValueError:
        return None


def _compression_of(path: Path) -> Compression:
    suffix = path.suffix.lower().removeprefix(".")
    return Compression(suffix) if suffix in {Compression.GZIP, Compression.ZSTD} else Compression.NONE


def _input_file(name: str, given: InputFormat | None) -> InputFile:
    shown, path = (STANDARD_INPUT_NAME, None) if name == STANDARD_INPUT else (_shown(name), Path(name))
    found = None if path is None else _format_of(path)
    if given is not None:
        found = given, Compression.NONE if path is None else _compression_of(path)
    if found is None:
        raise ConfigurationError(f"{shown}: the format is unknown; {_READABLE}")
    return InputFile(shown, path, *found, _DELIMITERS.get(found[0], ","))
