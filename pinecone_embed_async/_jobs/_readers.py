"""Reads records from an input: text lines, JSON lines, CSV and Parquet, plain or compressed.

Everything is streamed: at most one line, one CSV record or one Parquet batch is held at a time. A record that cannot be read
is yielded as a `RecordError`, so that the caller can continue after it; an error that makes the whole file unreadable is
raised.
"""

import codecs
import contextlib
import csv
import gzip
import io
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO, NoReturn, Protocol, cast

import msgspec
import pyarrow as pa
from pyarrow import parquet

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._inputs import Compression, InputFile, InputFormat
from pinecone_embed_async._jobs._templates import RecordError, beginnings, kind_of, meant, names_shown

LINE = "text"
"""The only field of a text line."""

UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)
"""Exceptions of file systems, decompressors and the Parquet reader; a `SourceError` is none of these."""

Record = Mapping[str, Any]
Found = Iterator[tuple[int, Record | RecordError]]

_PARQUET_BATCH = 1024


class Wanted(Protocol):
    """The fields to read."""

    @property
    def fields(self) -> tuple[str, ...]:
        """Every needed field, each once."""

    @property
    def keep(self) -> tuple[str, ...]:
        """The fields to carry over to the output with their types."""


def reason_of(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(getattr(error, "strerror", None) or error).split("\n", 1)[0]


def read_txt(raw: BinaryIO, file: InputFile, wanted: Wanted) -> Found:
    """Read text lines, each a record with one field."""
    for name in wanted.fields:
        if name != LINE:
            raise SourceError(f"{file.name}: a text file has only the field {LINE!r}, not {name!r}")
    for number, line in _raw_lines(raw, file):
        try:
            yield number, {LINE: line.decode().removesuffix("\n").removesuffix("\r")}
        except UnicodeDecodeError as error:
            yield number, _not_utf8(error)


def read_jsonl(raw: BinaryIO, file: InputFile, _wanted: Wanted) -> Found:
    """Read one JSON object per line; blank lines are skipped."""
    decode = msgspec.json.Decoder().decode
    for number, line in _raw_lines(raw, file):
        if line.isspace():
            continue
        try:
            record = decode(line)
        except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError) as error:
            if number == 1 and line.strip() in {b"{", b"["}:
                raise _whole_document(file, number) from None
            yield number, _json_fault(line, error)
            continue
        if isinstance(record, dict):
            yield number, record
            continue
        if number == 1 and isinstance(record, list):
            raise _whole_document(file, number)
        yield number, RecordError(f"not a JSON object but {kind_of(record)}")


def _whole_document(file: InputFile, number: int) -> SourceError:
    return SourceError(
        f"{file.name}:{number}: not JSON lines but a list, or a JSON document over several lines; write one object per "
        "line: jq -c '.[]' for a list, jq -c . for objects"
    )


def _json_fault(line: bytes, error: Exception) -> RecordError:
    """Find what is wrong with a line of JSON; msgspec reports some other faults as truncation."""
    if isinstance(error, RecursionError):
        return RecordError("not JSON that can be read: it is nested too deeply")

    def refuse(name: str) -> NoReturn:
        raise RecordError(f"not JSON, which has no {name}; write null")

    try:
        json.loads(line, parse_constant=refuse)
    except RecordError as refused:
        return refused
    except UnicodeDecodeError as fault:
        return _not_utf8(fault)
    except json.JSONDecodeError as fault:
        if fault.pos >= len(fault.doc.rstrip()):
            return RecordError("not JSON: the line ends in the middle of it")
        return RecordError(f"not JSON: {fault.msg.lower()} at character {fault.pos + 1}")
    except ValueError:
        return RecordError("not JSON that can be read: a number is out of range")
    if re.search(rb"\\u[dD][89a-fA-F]", line):
        return RecordError("not JSON that can be read: half of a surrogate pair (\\ud800 to \\udfff) is not text")
    return RecordError("not JSON that can be read: a number is out of range")


def read_csv(raw: BinaryIO, file: InputFile, wanted: Wanted) -> Found:
    """Read a header and records; blank lines are skipped."""
    # The standard library limits a field to 128 KiB as a defence against hostile input; a document may be longer.
    csv.field_size_limit(2**31 - 1)
    # Decoded with surrogateescape, so that a byte that is not UTF-8 spoils only its own record.
    lines = (line.decode(errors="surrogateescape") for _, line in _raw_lines(raw, file))
    reader = csv.reader(lines, strict=True, delimiter=file.delimiter)
    header: list[str] | None = None
    places: list[tuple[str, int]] = []
    before = 0
    while True:
        number = before + 1
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            taken = reader.line_num - before
            if taken > 1 and str(error) == "unexpected end of data":
                raise SourceError(
                    f"{file.name}:{number}: the quote that opens here is never closed, so the {taken:,} lines from here on"
                    " are one row; close it, or double it if it belongs to the text"
                ) from None
            before = reader.line_num
            fault = RecordError(f"not CSV: {error}")
            if header is None:
                raise SourceError(f"{file.name}:{number}: {fault}") from None
            yield number, fault
            continue
        before = reader.line_num
        if not fields:
            continue
        if header is None:
            header = fields
            places = [(name, _column(header, name, f"{file.name}:{number}")) for name in wanted.fields]
            continue
        record = {name: fields[place] for name, place in places} if len(fields) == len(header) else None
        yield (
            number,
            (_undecoded(fields) if record is None or not "".join(fields).isascii() else None)
            or (record or RecordError(f"{len(fields)} fields, but the header has {len(header)}")),
        )
    if header is None:
        raise SourceError(f"{file.name}: no header; a CSV file must begin with the names of its columns")


def _undecoded(fields: list[str]) -> RecordError | None:
    try:
        "\n".join(fields).encode()
    except UnicodeEncodeError as error:
        return RecordError(f"not UTF-8 (byte 0x{ord(error.object[error.start]) & 0xFF:02x})")
    return None


def _column(header: list[str], name: str, where: str) -> int:
    match header.count(name):
        case 0:
            raise SourceError(f"{where}: no column {name!r}{meant(name, header)}; the header has {names_shown(header)}")
        case 1:
            return header.index(name)
        case count:
            raise SourceError(f"{where}: {count} columns are named {name!r}")


def read_parquet(raw: BinaryIO, file: InputFile, wanted: Wanted) -> Found:
    """Read the rows of a table."""
    try:
        with contextlib.ExitStack() as stack:
            seekable = raw
            if file.path is None or file.compression:
                # A Parquet file is read from its end, so it must be seekable. On disk, since memory would have no bound.
                seekable = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(_decompressed(raw, file.compression), seekable)
                seekable.seek(0)
            table = stack.enter_context(parquet.ParquetFile(seekable))
            names = table.schema_arrow.names
            columns = {name: _parquet_column(file, names, name) for name in wanted.fields}
            kept = {columns[name] for name in wanted.keep}
            number = 0
            for batch in table.iter_batches(_PARQUET_BATCH, columns=list(dict.fromkeys(columns.values()))):
                pairs = zip(batch.schema.names, batch.columns, strict=True)
                for row in zip(*[_values(column, is_kept=name in kept) for name, column in pairs], strict=True):
                    number += 1
                    yield number, dict(zip(batch.schema.names, row, strict=True))
    except pa.ArrowException as error:
        raise SourceError(f"{file.name}: not a readable Parquet file: {reason_of(error)}") from error


def _values(column: Any, *, is_kept: bool) -> Iterable[Any]:
    """The values of a column: Arrow scalars if they are kept or one has no Python equivalent, else Python values."""
    if is_kept:
        return cast("Iterable[Any]", column)
    try:
        return cast("Iterable[Any]", column.to_pylist())
    except (ValueError, OverflowError):
        return cast("Iterable[Any]", column)


def _parquet_column(file: InputFile, names: list[str], name: str) -> str:
    """The column that is or contains a field."""
    found = next((column for column in beginnings(name) if names.count(column) == 1), None)
    if found is None:
        raise SourceError(f"{file.name}: not exactly one column {name!r}{meant(name, names)}; it has {names_shown(names)}")
    return found


READERS: dict[InputFormat, Callable[[BinaryIO, InputFile, Wanted], Found]] = {
    InputFormat.TXT: read_txt,
    InputFormat.JSONL: read_jsonl,
    InputFormat.CSV: read_csv,
    InputFormat.TSV: read_csv,
    InputFormat.PARQUET: read_parquet,
}


def _decompressed(raw: BinaryIO, compression: Compression) -> BinaryIO:
    match compression:
        case Compression.GZIP:
            return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
        case Compression.ZSTD:
            # The decompressor closes its source, but the file is checked after that: give it its own descriptor.
            own = os.fdopen(os.dup(raw.fileno()), "rb")
            return io.BufferedReader(pa.CompressedInputStream(own, "zstd"), 2**18)
        case Compression.NONE:
            return raw


def _not_utf8(error: UnicodeDecodeError) -> RecordError:
    return RecordError(f"not UTF-8 (byte 0x{error.object[error.start]:02x})")


def _raw_lines(raw: BinaryIO, file: InputFile) -> Iterator[tuple[int, bytes]]:
    # Split at line feeds only: U+2028 within a text is not a line end.
    number = 0
    try:
        for number, line in enumerate(_decompressed(raw, file.compression), start=1):
            if number > 1:
                yield number, line
                continue
            _check_beginning(line, file)
            first = line.removeprefix(codecs.BOM_UTF8)
            if first:
                yield number, first
    except UNREADABLE as error:
        raise SourceError(f"{file.name}:{number + 1}: {reason_of(error)}") from error


_BEGINNINGS = (
    (codecs.BOM_UTF16_LE, "it is UTF-16, and must be UTF-8: iconv -f UTF-16 -t UTF-8"),
    (codecs.BOM_UTF16_BE, "it is UTF-16, and must be UTF-8: iconv -f UTF-16 -t UTF-8"),
    (b"\x1f\x8b", "it is compressed by gzip; let its name end in .gz"),
    (b"\x28\xb5\x2f\xfd", "it is compressed by Zstandard; let its name end in .zst"),
    (b"PAR1", "it is a Parquet file; let its name end in .parquet, or give --format parquet"),
)


def _check_beginning(line: bytes, file: InputFile) -> None:
    """Check the first line for signs that the file is not of the kind that its format says.

    Raises:
        SourceError: It is of another kind.
    """
    given = " (decompress or convert standard input first)" if file.path is None else ""
    for beginning, what in _BEGINNINGS:
        if line.startswith(beginning):
            raise SourceError(f"{file.name}: {what}{given}")
    if not line.endswith(b"\n") and b"\r" in line.rstrip(b"\r"):
        raise SourceError(f"{file.name}: its lines end with CR alone, and must end with LF: tr '\\r' '\\n'")
