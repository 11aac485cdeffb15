"""The file of failed rows and their causes, as JSON lines: appended to during a run, and rewritten without retried rows."""

import contextlib
from array import array
from collections.abc import Iterable, Iterator
from os import fsync
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from pinecone_embed_async._errors import EmbedError
from pinecone_embed_async._jobs._files import file_errors, open_own, replacing
from pinecone_embed_async._jobs._rowset import RowSet
from pinecone_embed_async._jobs._sources import BadRow, Row


class Cause(NamedTuple):
    """Why a row failed: the error's class and message."""

    error: str
    message: str


class FailedRow(NamedTuple):
    """A row that failed or was skipped, and why."""

    row: Row | BadRow
    cause: Cause


SKIPPED = "SkippedRow"
"""Stands for an error's class: the row cannot be embedded and was not sent."""


def skipped_row(row: BadRow) -> FailedRow:
    """The entry for a row that cannot be embedded, without the row's content."""
    return FailedRow(row, Cause(SKIPPED, row.reason))


def cause_of(error: EmbedError) -> Cause:
    """The class and message of an error."""
    return Cause(type(error).__name__, str(error))


class _Line(msgspec.Struct):
    row: int
    error: str | None = None


class _IdLine(msgspec.Struct):
    row: int
    id: str


class _CauseLine(msgspec.Struct):
    row: int
    error: str
    message: str


_Entry = TypeVar("_Entry", _IdLine, _CauseLine)


def failure_line(row: Row | BadRow, error: str | None, message: str) -> bytes:
    """Encode the line about a row that is not embedded: id, row, input, line, and the error's class and message.

    Args:
        row: The row.
        error: The error's class; `None` if the row was not tried.
        message: Why it is not embedded.
    """
    row_id = row.id if isinstance(row, Row) else None
    record = {"id": row_id, "row": row.number, "input": row.source, "line": row.line, "error": error, "message": message}
    return msgspec.json.encode(record) + b"\n"


class FailuresFile:
    """The file of a job's failures. Only one thread may use it at a time.

    Args:
        path: The file; created at the first failure.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read_rows(self) -> tuple[RowSet, RowSet]:
        """Read the numbers of the failed rows and of the skipped rows; an incomplete last line is removed.

        Raises:
            OutputError: The file system refused an operation.
        """
        failed, skipped = RowSet(), RowSet()
        numbers, are_skipped = (np.array(each, np.int64) for each in self._row_numbers())
        last = _are_last(numbers)
        failed.add(numbers[last & (are_skipped == 0)])
        skipped.add(numbers[last & (are_skipped == 1)])
        return failed, skipped

    def _row_numbers(self) -> "tuple[array[int], array[int]]":
        numbers, skipped = array("q"), array("b")
        with file_errors(self._path):
            if self._path.exists():
                with open_own(self._path, "r+b") as file:
                    for line in _whole_lines(file):
                        numbers.append(-1 if line is None else line.row)
                        skipped.append(line is not None and line.error == SKIPPED)
        return numbers, skipped

    def causes(self, rows: RowSet) -> dict[int, Cause]:
        """The causes of those rows in `rows` that are in the file; for a row with several causes, the last.

        Raises:
            OutputError: The file system refused an operation.
        """
        entries = self._entries(_CauseLine)
        return {entry.row: Cause(entry.error, entry.message) for entry in entries if entry.row in rows}

    def ids_before(self, stop: int) -> Iterator[str]:
        """Yield the ids of failed rows with numbers below `stop`, one for each time that a row failed.

        Raises:
            OutputError: The file system refused an operation.
        """
        return (entry.id for entry in self._entries(_IdLine) if entry.row < stop)

    def _entries(self, kind: type[_Entry]) -> Iterator[_Entry]:
        # Lines of another kind are passed over: a row that is left out has no id.
        decoder = msgspec.json.Decoder(kind)
        with file_errors(self._path):
            if self._path.exists():
                with self._path.open("rb") as file:
                    for line in file:
                        with contextlib.suppress(msgspec.MsgspecError):
                            yield decoder.decode(line)

    def append(self, failed: Iterable[FailedRow]) -> None:
        """Add rows and sync the file.

        Raises:
            OutputError: The file system refused an operation.
        """
        lines = b"".join(failure_line(row, *cause) for row, cause in failed)
        if lines:
            with file_errors(self._path), open_own(self._path, "ab") as file:
                file.write(lines)
                file.flush()
                fsync(file.fileno())

    def forget(self, done: RowSet) -> None:
        """Remove the rows that are done and, for rows that failed several times, all causes except the last.

        Raises:
            OutputError: The file system refused an operation.
        """
        numbers = np.array(self._row_numbers()[0], np.int64)
        if not numbers.size:
            return
        keep = [bool(is_last) and int(row) not in done for row, is_last in zip(numbers, _are_last(numbers), strict=True)]
        if all(keep):
            return
        if not any(keep):
            with file_errors(self._path):
                self._path.unlink()
            return
        with (
            file_errors(self._path),
            self._path.open("rb") as file,
            replacing(self._path, prefix="_failures-", private=True) as target,
        ):
            target.writelines(line for line, kept in zip(file, keep, strict=True) if kept)


def _are_last(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    # For each line, whether it is an entry and the last one about its row.
    last = np.zeros(len(numbers), np.bool_)
    last[len(numbers) - 1 - np.unique(numbers[::-1], return_index=True)[1]] = True
    return last & (numbers >= 0)


def _whole_lines(file: BinaryIO) -> Iterator[_Line | None]:
    # Yields `None` for a complete line that is not an entry, for instance because someone edited it.
    decoder = msgspec.json.Decoder(_Line)
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            file.truncate(end)
            return
        end += len(line)
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError:
            yield None
