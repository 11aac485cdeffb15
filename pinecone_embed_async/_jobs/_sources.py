"""Rows of text from `.txt`, `.jsonl`, `.csv` and `.parquet` files and from standard input, plain or compressed.

Everything is read as a stream: at most a line, a record of a CSV file or a batch of a Parquet file is held at once.
"""

import codecs
import contextlib
import csv
import gzip
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple, cast

import msgspec
import pyarrow as pa
from pyarrow import parquet

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._inputs import Compression, InputFile, InputFormat
from pinecone_embed_async._jobs._templates import FieldText, RecordError, TextSource, field_of, kind_of, names_shown

_PARQUET_BATCH = 1024
_DEFAULT_TEXT = FieldText("text")
# A check of the file's times costs a microsecond.
_ROWS_BETWEEN_LOOKS = 1000


class Row(NamedTuple):
    """One text to embed, and where it comes from.

    Attributes:
        id: The value of the id field, or the row's number.
        text: The text to embed.
        source: The name of the input.
        line: The line on which the row begins, counted from 1; the row within a Parquet file.
        number: Its position over all inputs of the job, counted from 0.
        kept: The values of the columns to keep: of JSON types, or Arrow scalars from Parquet files.
    """

    id: str
    text: str
    source: str
    line: int
    number: int
    kept: tuple[Any, ...] = ()


class Stamp(NamedTuple):
    """The state of a file that changes when it is written to.

    Attributes:
        size: Bytes.
        modified: Nanoseconds since 1970.
    """

    size: int
    modified: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The fields taken from each record.

    Attributes:
        text: The text to embed.
        id: The field with the id, text or a whole number; `None` for the row's number.
        keep: Fields that are carried along.
    """

    text: TextSource = _DEFAULT_TEXT
    id: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Every needed field, each once."""
        return tuple(dict.fromkeys((*self.text.fields, *([] if self.id is None else [self.id]), *self.keep)))


def stamp_of(descriptor: int) -> Stamp:
    """Return the state of an open file."""
    state = os.fstat(descriptor)
    return Stamp(state.st_size, state.st_mtime_ns)


def read_rows(
    files: Iterable[InputFile],
    columns: Columns | None = None,
    *,
    first_row: int = 0,
    stamps: Mapping[str, Stamp] | None = None,
) -> Iterator[Row]:
    """Read the rows of all files, one file after the other, in the order of their lines.

    Args:
        files: The files to read.
        columns: The fields to take from each record; the field `text` by default. A line of a `.txt` file is a record with
            the one field `text`, which is embedded unless there is a template.
        first_row: The number of the first row.
        stamps: The earlier states of files, by name; a file in another state, or one that changes while it is read, is an
            error.

    Raises:
        SourceError: An input cannot be read or has changed, with the line where there is one.
    """
    wanted = columns or Columns()
    number, line = first_row, 0
    for file in files:
        with _opened(file) as raw:
            look = _watch(file, raw, (stamps or {}).get(file.name))
            # A line of text is its own field, whatever the fields of other files are called.
            is_line = file.format is InputFormat.TXT and isinstance(wanted.text, FieldText)
            taken = replace(wanted, text=FieldText(_LINE)) if is_line else wanted
            # Looked up once: this loop and its calls make up the cost of reading a row.
            text_of, id_field, keep, name = taken.text.of, taken.id, taken.keep, file.name
            try:
                for line, record in _READERS[file.format](raw, file, taken):
                    row_id = str(number) if id_field is None else _checked_id(field_of(record, id_field), id_field)
                    kept = tuple([field_of(record, field) for field in keep]) if keep else ()
                    yield Row(row_id, text_of(record), name, line, number, kept)
                    number += 1
                    if number % _ROWS_BETWEEN_LOOKS == 0:
                        look()
            except RecordError as error:
                raise SourceError(f"{file.name}:{line}: {error}") from None
            look()


def read_bytes(file: InputFile) -> Iterator[bytes]:
    """Read the raw bytes of an input, standard input for instance.

    Raises:
        SourceError: It cannot be read.
    """
    with _opened(file) as raw:
        while piece := raw.read(2**20):
            yield piece


@contextlib.contextmanager
def _opened(file: InputFile) -> Iterator[BinaryIO]:
    try:
        if file.path is None:
            if sys.stdin is None:
                raise SourceError(f"{file.name}: it is closed")
            yield sys.stdin.buffer
        else:
            with file.path.open("rb", buffering=2**18) as raw:
                yield raw
    except _UNREADABLE as error:
        raise SourceError(f"{file.name}: {_reason(error)}") from error


# What file systems, decompressors and the Parquet reader raise; a `SourceError` is none of these.
_UNREADABLE = (OSError, EOFError, zlib.error, pa.ArrowException)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).split("\n", 1)[0]


def _watch(file: InputFile, raw: BinaryIO, before: Stamp | None) -> Callable[[], None]:
    """Return a function that raises if the file has changed.

    Raises:
        SourceError: It has changed before it was opened.
    """
    descriptor = raw.fileno() if file.path is not None else None
    # The state of a pipe changes as it is read.
    if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return lambda: None
    expected = before or stamp_of(descriptor)

    def look() -> None:
        if stamp_of(descriptor) != expected:
            raise SourceError(f"{file.name}: it changed while the job was under way")

    look()
    return look


def _decompressed(raw: BinaryIO, compression: Compression) -> BinaryIO:
    match compression:
        case Compression.GZIP:
            return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
        case Compression.ZSTD:
            # It closes its source, and the file is checked after that.
            own = os.fdopen(os.dup(raw.fileno()), "rb")
            return io.BufferedReader(pa.CompressedInputStream(own, "zstd"), 2**18)
        case Compression.NONE:
            return raw


_Record = Mapping[str, Any]
_Found = Iterator[tuple[int, _Record]]
_LINE = "text"


def _lines(raw: BinaryIO, file: InputFile) -> Iterator[tuple[int, str]]:
    # Decoded line by line, so that an error has its line.
    number = 0
    try:
        for number, line in _raw_lines(raw, file):
            yield number, line.decode()
    except UnicodeDecodeError as error:
        raise SourceError(f"{file.name}:{number}: {_not_utf8(error)}") from None


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8 (byte 0x{error.object[error.start]:02x})"


def _raw_lines(raw: BinaryIO, file: InputFile) -> Iterator[tuple[int, bytes]]:
    # Split at line feeds only: U+2028 within a text splits nothing.
    number = 0
    try:
        for number, line in enumerate(_decompressed(raw, file.compression), start=1):
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except _UNREADABLE as error:
        raise SourceError(f"{file.name}:{number + 1}: {_reason(error)}") from error


def _read_txt(raw: BinaryIO, file: InputFile, columns: Columns) -> _Found:
    for name in columns.fields:
        if name != _LINE:
            as_id = f", so no id {name!r} either" if name == columns.id else f" but {_LINE!r}, so no {name!r}"
            raise SourceError(f"{file.name}: lines of text have no fields{as_id}")
    for number, line in _lines(raw, file):
        yield number, {_LINE: line.removesuffix("\n").removesuffix("\r")}


def _read_jsonl(raw: BinaryIO, file: InputFile, _columns: Columns) -> _Found:
    decode = msgspec.json.Decoder().decode
    for number, line in _raw_lines(raw, file):
        if line.isspace():
            continue
        try:
            record = decode(line)
        except UnicodeDecodeError as error:
            raise SourceError(f"{file.name}:{number}: {_not_utf8(error)}") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise SourceError(f"{file.name}:{number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise SourceError(f"{file.name}:{number}: not a JSON object but {kind_of(record)}")
        yield number, record


def _read_csv(raw: BinaryIO, file: InputFile, columns: Columns) -> _Found:
    # The standard library's limit of 128 KiB a field is for hostile input; a document may be longer.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((line for _, line in _lines(raw, file)), strict=True)
    before = 0
    header: list[str] | None = None
    places: list[tuple[str, int]] = []
    try:
        for fields in reader:
            number, before = before + 1, reader.line_num
            where = f"{file.name}:{number}"
            if not fields:
                continue
            if header is None:
                header = fields
                places = [(name, _column(header, name, where)) for name in columns.fields]
            elif len(fields) != len(header):
                raise SourceError(f"{where}: {len(fields)} fields, but the header has {len(header)}")
            else:
                yield number, {name: fields[place] for name, place in places}
    except csv.Error as error:
        raise SourceError(f"{file.name}:{before + 1}: not CSV: {error}") from None
    if header is None:
        raise SourceError(f"{file.name}: no header; a CSV file begins with the names of its columns")


def _column(header: list[str], name: str, where: str) -> int:
    match header.count(name):
        case 0:
            raise SourceError(f"{where}: no column {name!r}; the header has {names_shown(header)}")
        case 1:
            return header.index(name)
        case count:
            raise SourceError(f"{where}: {count} columns are named {name!r}")


def _read_parquet(raw: BinaryIO, file: InputFile, columns: Columns) -> _Found:
    try:
        with contextlib.ExitStack() as stack:
            seekable = raw
            if file.path is None or file.compression:
                # A Parquet file is read from its end. On disk, since in memory it would have no bound.
                seekable = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(_decompressed(raw, file.compression), seekable)
                seekable.seek(0)
            table = stack.enter_context(parquet.ParquetFile(seekable))
            names = table.schema_arrow.names
            for name in columns.fields:
                if names.count(name) != 1:
                    raise SourceError(f"{file.name}: no one column {name!r}; it has {names_shown(names)}")
            as_python = {*columns.text.fields, columns.id}
            number = 0
            for batch in table.iter_batches(_PARQUET_BATCH, columns=list(columns.fields)):
                values = [
                    # Kept columns stay as they are: not every value has an equal in Python.
                    column.to_pylist() if name in as_python else list(column)
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                ]
                for row in zip(*values, strict=True):
                    number += 1
                    yield number, dict(zip(batch.schema.names, row, strict=True))
    except pa.ArrowException as error:
        raise SourceError(f"{file.name}: not a Parquet file that can be read: {_reason(error)}") from error


def _checked_id(value: Any, name: str) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise RecordError(f"the id {name!r} is neither text nor a whole number but {kind_of(value)}")
    if not value:
        raise RecordError(f"the id {name!r} is empty")
    return value


_READERS: dict[InputFormat, Callable[[BinaryIO, InputFile, Columns], _Found]] = {
    InputFormat.TXT: _read_txt,
    InputFormat.JSONL: _read_jsonl,
    InputFormat.CSV: _read_csv,
    InputFormat.PARQUET: _read_parquet,
}
