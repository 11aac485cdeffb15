"""A journal: checksummed records appended to a file. Opening it again finds torn and damaged records.

A record is a 16-byte header (magic, CRC-32 of length and content, length), the content, and zeros up to a multiple of
8 bytes, so that contents are aligned when they are read in place.
"""

import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Self

from pinecone_embed_async._jobs._files import open_own

_MAGIC = b"PEJ1"
_HEADER = struct.Struct("<4sIQ")
_ALIGNMENT = 8


class Span(NamedTuple):
    """Position of a record's content in the file, in bytes."""

    start: int
    length: int


class Scan(NamedTuple):
    """The contents of a journal.

    Attributes:
        spans: The intact records, in order.
        end: Where the last of them ends; anything after it is a torn write.
        damaged: Stretches before `end` without an intact record, as start and stop.
    """

    spans: list[Span]
    end: int
    damaged: list[tuple[int, int]]


class Journal:
    """A journal open for appending. Only one thread may use it at a time.

    Opening truncates the remains of an interrupted write after the last intact record.

    Args:
        path: The file; created if it is missing.

    Attributes:
        path: As given.
        found: Its contents when it was opened.
        spans: Its records now.

    Raises:
        OSError: The file system refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = open_own(path, "ab", buffering=0)
        try:
            self.found = scan(path)
            if self._file.tell() > self.found.end:
                self._file.truncate(self.found.end)
        except BaseException:
            self._file.close()
            raise
        self._end = self.found.end
        self.spans = list(self.found.spans)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def append(self, content: Any) -> None:
        """Write a record, which counts only after `sync`.

        Args:
            content: Bytes or a buffer.

        Raises:
            OSError: The file system refused an operation; nothing more may be appended.
        """
        view = memoryview(content).cast("B")
        length = len(view)
        header = _HEADER.pack(_MAGIC, zlib.crc32(view, _checksum_of_length(length)), length)
        start = self._end + _HEADER.size
        _write(self._file, [memoryview(header), view, memoryview(bytes(-length % _ALIGNMENT))])
        self._end = start + length + -length % _ALIGNMENT
        self.spans.append(Span(start, length))

    def sync(self) -> None:
        """Sync all appended records to the disk.

        Raises:
            OSError: The sync failed; records appended since the last one may be lost.
        """
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def scan(path: Path) -> Scan:
    """Find the intact records of a journal.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    if not size:
        return Scan([], 0, [])
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _scan(data)


def _scan(data: mmap.mmap) -> Scan:
    spans: list[Span] = []
    damaged: list[tuple[int, int]] = []
    end = 0
    for start, stop, span in _whole_records(data):
        if start > end:
            damaged.append((end, start))
        spans.append(span)
        end = stop
    return Scan(spans, end, damaged)


def _whole_records(data: mmap.mmap) -> Iterator[tuple[int, int, Span]]:
    at = 0
    with memoryview(data) as view:
        while at >= 0:
            span = _record_at(view, at)
            if span is None:
                # Search for the next record, since the length of this one cannot be trusted.
                at = data.find(_MAGIC, at + 1)
            else:
                stop = span.start + span.length + -span.length % _ALIGNMENT
                yield at, stop, span
                at = stop


def _record_at(view: memoryview, at: int) -> Span | None:
    start = at + _HEADER.size
    if start > len(view):
        return None
    magic, checksum, length = _HEADER.unpack_from(view, at)
    if magic != _MAGIC or start + length + -length % _ALIGNMENT > len(view):
        return None
    with view[start : start + length] as content:
        return Span(start, length) if zlib.crc32(content, _checksum_of_length(length)) == checksum else None


def _checksum_of_length(length: int) -> int:
    return zlib.crc32(length.to_bytes(8, "little"))


def _write(file: BinaryIO, parts: list[memoryview]) -> None:
    # One call may write less than it is given, for instance when the disk is nearly full.
    while parts:
        written = os.writev(file.fileno(), parts)
        while parts and written >= len(parts[0]):
            written -= len(parts.pop(0))
        if written:
            parts[0] = parts[0][written:]
