"""Rows of text from `.txt`, `.jsonl` and `.csv` files and from standard input."""

import codecs
import contextlib
import csv
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

from pinecone_embed_async._jobs._errors import SourceError

STANDARD_INPUT = "-"
_STANDARD_INPUT_NAME = "standard input"


class InputFormat(StrEnum):
    """How the bytes of an input become rows."""

    TXT = "txt"
    JSONL = "jsonl"
    CSV = "csv"


class Row(NamedTuple):
    """One text to embed, and where it comes from.

    Attributes:
        id: The value of the id field, or the row's number over all inputs, counted from 0.
        text: What is embedded.
        source: The name of the input, as given.
        line: The line on which the row begins, counted from 1.
    """

    id: str
    text: str
    source: str
    line: int


def input_format(name: str) -> InputFormat:
    """Tell the format of an input from the suffix of its name.

    Raises:
        SourceError: The suffix names no format that can be read.
    """
    try:
        return InputFormat(Path(name).suffix.lower().removeprefix("."))
    except ValueError:
        raise SourceError(
            f"{_shown(name)}: the format is unknown; name files .txt, .jsonl or .csv, or give --format"
        ) from None


def read_rows(
    inputs: Sequence[str],
    *,
    format: InputFormat | None = None,  # noqa: A002 - it is the option's name
    text_field: str = "text",
    id_field: str | None = None,
) -> Iterator[Row]:
    """Read the rows of all inputs, one input after the other, in the order of their lines.

    Args:
        inputs: Paths, and `-` for standard input.
        format: The format of every input; by default the suffix of each tells.
        text_field: The field of JSON objects and the column of CSV files that is embedded.
        id_field: The field or column with the id, text or a whole number; lines of `.txt` files have none.

    Raises:
        SourceError: An input cannot be read, with the line where there is one. A format that cannot be told is raised
            before anything is read.
    """
    formats = [format or input_format(name) for name in inputs]
    number = 0
    for name, each in zip(inputs, formats, strict=True):
        shown = _shown(name)
        with _opened(name) as stream:
            for line, given_id, text in _READERS[each](stream, shown, text_field, id_field):
                yield Row(str(number) if given_id is None else given_id, text, shown, line)
                number += 1


def _shown(name: str) -> str:
    return _STANDARD_INPUT_NAME if name == STANDARD_INPUT else name


@contextlib.contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    try:
        if name == STANDARD_INPUT:
            if sys.stdin is None:
                raise SourceError("standard input: it is closed")
            yield sys.stdin.buffer
        else:
            with Path(name).open("rb") as stream:
                yield stream
    except OSError as error:
        raise SourceError(f"{_shown(name)}: {error.strerror or error}") from error


# The line, the id where the input has one, and the text.
_Found = tuple[int, str | None, str]


def _lines(stream: BinaryIO, source: str) -> Iterator[tuple[int, str]]:
    # Decoded line by line, and split at line feeds only: so an error has its line, and U+2028 within a text splits nothing.
    for number, raw in enumerate(stream, start=1):
        try:
            yield number, (raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw).decode()
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            raise SourceError(f"{source}:{number}: not UTF-8 (byte 0x{byte:02x})") from None


def _read_txt(stream: BinaryIO, source: str, _text_field: str, id_field: str | None) -> Iterator[_Found]:
    if id_field is not None:
        raise SourceError(f"{source}: lines of text have no fields, so no id {id_field!r} either")
    for number, line in _lines(stream, source):
        yield number, None, line.removesuffix("\n").removesuffix("\r")


def _read_jsonl(stream: BinaryIO, source: str, text_field: str, id_field: str | None) -> Iterator[_Found]:
    decode = msgspec.json.Decoder().decode
    for number, line in _lines(stream, source):
        if line.isspace():
            continue
        try:
            record = decode(line)
        except msgspec.MsgspecError as error:
            raise SourceError(f"{source}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise SourceError(f"{source}:{number}: not a JSON object but {_kind(record)}")
        text = _field(record, text_field, f"{source}:{number}")
        if not isinstance(text, str):
            raise SourceError(f"{source}:{number}: the field {text_field!r} is not text but {_kind(text)}")
        if id_field is None:
            yield number, None, text
        else:
            yield (
                number,
                _checked_id(_field(record, id_field, f"{source}:{number}"), id_field, f"{source}:{number}"),
                text,
            )


def _read_csv(stream: BinaryIO, source: str, text_field: str, id_field: str | None) -> Iterator[_Found]:
    # The standard library's limit of 128 KiB a field is for hostile input; a document may be longer.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((line for _, line in _lines(stream, source)), strict=True)
    before = 0
    header: list[str] | None = None
    text_at = 0
    id_at: int | None = None
    try:
        for fields in reader:
            number, before = before + 1, reader.line_num
            where = f"{source}:{number}"
            if not fields:
                continue
            if header is None:
                header = fields
                text_at = _column(header, text_field, where)
                id_at = None if id_field is None else _column(header, id_field, where)
            elif len(fields) != len(header):
                raise SourceError(f"{where}: {len(fields)} fields, but the header has {len(header)}")
            elif id_at is None:
                yield number, None, fields[text_at]
            else:
                yield number, _checked_id(fields[id_at], str(id_field), where), fields[text_at]
    except csv.Error as error:
        raise SourceError(f"{source}:{before + 1}: not CSV: {error}") from None
    if header is None:
        raise SourceError(f"{source}: no header; a CSV file begins with the names of its columns")


def _field(record: dict[str, Any], name: str, where: str) -> Any:
    try:
        return record[name]
    except KeyError:
        raise SourceError(f"{where}: no field {name!r}; it has {_names(list(record))}") from None


def _column(header: list[str], name: str, where: str) -> int:
    match header.count(name):
        case 0:
            raise SourceError(f"{where}: no column {name!r}; the header has {_names(header)}")
        case 1:
            return header.index(name)
        case count:
            raise SourceError(f"{where}: {count} columns are named {name!r}")


def _names(names: list[str]) -> str:
    shown = ", ".join(repr(name[:40]) for name in names[:8])
    return f"{shown}, …" if len(names) > 8 else shown or "none"


def _checked_id(value: Any, name: str, where: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise SourceError(f"{where}: the id {name!r} is neither text nor a whole number but {_kind(value)}")
    if not value:
        raise SourceError(f"{where}: the id {name!r} is empty")
    return value


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case _:
            return "an object"


_READERS = {InputFormat.TXT: _read_txt, InputFormat.JSONL: _read_jsonl, InputFormat.CSV: _read_csv}
