"""Reads rows of text from files and standard input, numbered across all inputs."""

import contextlib
import io
import os
import select
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._inputs import InputFile, InputFormat
from pinecone_embed_async._jobs._readers import LINE, READERS, UNREADABLE, Record, reason_of
from pinecone_embed_async._jobs._templates import FieldText, RecordError, TextSource, field_of, kind_of, value_of

_DEFAULT_TEXT = FieldText("text")
# Checking the file's size and time costs a microsecond.
_ROWS_BETWEEN_LOOKS = 1000
_MILLISECONDS_BETWEEN_LOOKS = 100


class Row(NamedTuple):
    """One text to embed and its origin.

    Attributes:
        id: The value of the id field, or the row's number.
        text: The text to embed.
        source: The name of the input.
        line: The line where the row begins, counted from 1; in a Parquet file, the row.
        number: Its position across all inputs of the job, counted from 0.
        kept: The values of the columns to keep: of JSON types, or Arrow scalars from Parquet files.
    """

    id: str
    text: str
    source: str
    line: int
    number: int
    kept: tuple[Any, ...] = ()


class BadRow(NamedTuple):
    """A row that cannot be embedded.

    Attributes:
        source: The name of the input.
        line: As in `Row`.
        number: As in `Row`.
        reason: Why not, without any of its content.
        message: Why not, with its field names.
    """

    source: str
    line: int
    number: int
    reason: str
    message: str

    def __str__(self) -> str:
        """The row's place and why it cannot be embedded."""
        return f"{self.source}:{self.line}: {self.message}"


class Stamp(NamedTuple):
    """The state of a file, which changes when it is written to.

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
        id: The id field, text or an integer; `None` to use the row's number.
        keep: Fields to carry over to the output.
        no_blank: Whether a text without a visible character is an error.
    """

    text: TextSource = _DEFAULT_TEXT
    id: str | None = None
    keep: tuple[str, ...] = ()
    no_blank: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Every needed field, each once."""
        return tuple(dict.fromkeys((*self.text.fields, *([] if self.id is None else [self.id]), *self.keep)))


class StandardInput(io.RawIOBase):
    """Standard input that computes a digest of the bytes read, and whose wait for more can be ended.

    Args:
        digest: The hash object to update.

    Attributes:
        size: How many bytes were read.
    """

    def __init__(self, digest: Any) -> None:
        self.size = 0
        self._function = digest
        self._raw: BinaryIO | None = None
        self._is_at_end = False
        self._is_stopped = False

    @contextlib.contextmanager
    def stopped_by_errors(self) -> Iterator[None]:
        """Context in which an exception ends a wait for input in another thread, which gets a `SourceError` then."""
        try:
            yield
        except BaseException:
            self._is_stopped = True
            raise

    def reader(self, raw: BinaryIO) -> BinaryIO:
        """Return a reader of `raw` that updates the digest."""
        self._raw = raw
        return io.BufferedReader(self, 2**16)

    @property
    def digest(self) -> str | None:
        """The digest in hexadecimal; `None` until the end is reached."""
        return self._function.hexdigest() if self._is_at_end else None

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read the bytes available, waiting for the first."""
        self._wait()
        piece = self._raw.read1(len(buffer)) if self._raw is not None else b""  # type: ignore[attr-defined]
        self._function.update(piece)
        self.size += len(piece)
        self._is_at_end = self._is_at_end or not piece
        buffer[: len(piece)] = piece
        return len(piece)

    def _wait(self) -> None:
        poll = select.poll()
        try:
            poll.register(self._raw.fileno() if self._raw is not None else -1, select.POLLIN)
        except (OSError, ValueError):
            # It has no file descriptor, so reading does not wait.
            return
        while not poll.poll(_MILLISECONDS_BETWEEN_LOOKS):
            if self._is_stopped:
                raise SourceError("standard input: it was waited for when the run ended")


def stamp_of(descriptor: int) -> Stamp:
    """The state of an open file."""
    state = os.fstat(descriptor)
    return Stamp(state.st_size, state.st_mtime_ns)


def read_rows(
    files: Iterable[InputFile],
    columns: Columns | None = None,
    *,
    first_row: int = 0,
    stamps: Mapping[str, Stamp] | None = None,
) -> Iterator[Row]:
    """Read the rows of all files as `read_all_rows` does, but raise for a row that cannot be embedded.

    Raises:
        SourceError: An input cannot be read or has changed; the message names the line if it is known.
    """
    for row in read_all_rows(files, columns, first_row=first_row, stamps=stamps):
        if isinstance(row, BadRow):
            raise SourceError(str(row))
        yield row


def read_all_rows(
    files: Iterable[InputFile],
    columns: Columns | None = None,
    *,
    first_row: int = 0,
    stamps: Mapping[str, Stamp] | None = None,
    source: "StandardInput | None" = None,
) -> Iterator[Row | BadRow]:
    """Read the rows of all files, one file after the other, in the order of their lines.

    Args:
        files: The files to read.
        columns: The fields to take from each record; the field `text` by default. A line of a `.txt` file is a record with
            only the field `text`, which is embedded unless there is a template.
        first_row: The number of the first row.
        stamps: Earlier states of files, by name. A file in another state, or one that changes while it is read, is an
            error.
        source: Wrapper that takes the digest of standard input.

    Raises:
        SourceError: An input as a whole cannot be read or has changed; the message names the line if it is known.
    """
    wanted = columns or Columns()
    number = first_row
    for file in files:
        with opened(file, source) as raw:
            look = _watch(file, raw, (stamps or {}).get(file.name))
            # A text line is its own text field, whatever the text field of other files is called.
            is_line = file.format is InputFormat.TXT and isinstance(wanted.text, FieldText)
            taken = replace(wanted, text=FieldText(LINE)) if is_line else wanted
            # Looked up once, since this loop and its calls dominate the cost of reading a row.
            row_of, name = _row_maker(taken), file.name
            for line, record in READERS[file.format](raw, file, taken):
                try:
                    yield row_of(record, name, line, number)
                except RecordError as error:
                    yield BadRow(name, line, number, error.reason, str(error))
                number += 1
                if number % _ROWS_BETWEEN_LOOKS == 0:
                    look()
            look()


def _row_maker(taken: Columns) -> Callable[[Record | RecordError, str, int, int], Row]:
    text_of, id_field, keep, no_blank = taken.text.of, taken.id, taken.keep, taken.no_blank

    def row_of(record: Record | RecordError, name: str, line: int, number: int) -> Row:
        if isinstance(record, RecordError):
            raise record
        row_id = str(number) if id_field is None else _checked_id(value_of(record, id_field), id_field)
        kept = tuple([field_of(record, field) for field in keep]) if keep else ()
        text = text_of(record)
        if no_blank and not text.strip():
            raise RecordError("the text is empty")
        return Row(row_id, text, name, line, number, kept)

    return row_of


def read_bytes(file: InputFile) -> Iterator[bytes]:
    """Yield the raw bytes of an input.

    Raises:
        SourceError: The input cannot be read.
    """
    with opened(file) as raw:
        while piece := raw.read(2**20):
            yield piece


@contextlib.contextmanager
def opened(file: InputFile, source: "StandardInput | None" = None) -> Iterator[BinaryIO]:
    """Open an input; standard input through `source`.

    Raises:
        SourceError: It cannot be opened, or cannot be read while the block runs.
    """
    try:
        if file.path is None:
            if sys.stdin is None:
                raise SourceError(f"{file.name}: it is closed")
            yield sys.stdin.buffer if source is None else source.reader(sys.stdin.buffer)
        else:
            with file.path.open("rb", buffering=2**18) as raw:
                yield raw
    except UNREADABLE as error:
        raise SourceError(f"{file.name}: {reason_of(error)}") from error


def _watch(file: InputFile, raw: BinaryIO, before: Stamp | None) -> Callable[[], None]:
    """Return a function that raises if the file has changed.

    Raises:
        SourceError: It changed before it was opened.
    """
    descriptor = raw.fileno() if file.path is not None else None
    # A pipe's state changes as it is read.
    if descriptor is None or not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return lambda: None
    expected = before or stamp_of(descriptor)

    def look() -> None:
        if stamp_of(descriptor) != expected:
            raise SourceError(f"{file.name}: it changed while the job was running")

    look()
    return look


def _checked_id(value: Any, name: str) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is not str:
        raise RecordError(f"the id {name!r} is neither text nor a whole number but {kind_of(value)}")
    if not value:
        raise RecordError(f"the id {name!r} is empty")
    return value
