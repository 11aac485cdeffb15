"""Cuts answers that arrive in pieces into rows, which are written to the matrix, and the bytes between the rows.

The first `[` of a dense answer opens `data`, and each of the next `count` ones opens a row, which ends at the next `]`.
The bytes between the rows later show whether this was right. Two classes do the same: `MsgspecRows` cuts out each row and
lets msgspec convert it; `NativeRows` uses the native module.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec
import numpy as np

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._wire.strict_json import MOST_BYTES

if TYPE_CHECKING:
    from numpy.typing import NDArray

DecoderName = Literal["native", "msgspec"]

LONGEST_ROW = 20_000
"""Maximum length of a first row for which the matrix is allocated at once: the largest dimension of an index. An answer with
longer rows is validated whole."""

_UNREADABLE = (msgspec.DecodeError, ResponseError, ValueError, TypeError, RuntimeError)
"""Errors of an invalid row. A `ResponseError` means that the matrix has another dimension."""


class RowSource(Protocol):
    """Provides the matrix to which the rows of an answer are written."""

    def rows(self, dimension: int) -> NDArray[np.float32]:
        """The matrix, float32 of shape (inputs of the request, dimension).

        Raises:
            ResponseError: an earlier answer had another dimension.
        """


class _Rows:
    """The rows of an answer, as far as they have arrived.

    Args:
        count: number of rows expected.
        dimension: numbers per row expected; `None` if the first row decides.
        source: provides the matrix, once the dimension is known; `None` for a new matrix.

    Attributes:
        name: name of the decoder.
        releases_lock: whether `read` releases the GIL.
        is_usual: whether every row so far is an array of numbers of the right length; otherwise no more is read.
        matrix: the matrix: float32, shape (count, dimension); `None` before it is needed.
        row: number of rows written to the matrix.
        bytes_behind: number of bytes after the last row of the answer; 0 until that row is written.
    """

    name: DecoderName
    releases_lock: bool

    def __init__(self, count: int, dimension: int | None, source: RowSource | None) -> None:
        self._count = count
        self._dimension = dimension
        self._source = source
        self.is_usual = True
        self.matrix: NDArray[np.float32] | None = None
        self.row = 0
        self.bytes_behind = 0

    def _new_matrix(self, length: int) -> NDArray[np.float32]:
        """The matrix for rows of `length` numbers, or of the expected dimension, if it is known."""
        if self._dimension is None and length > LONGEST_ROW:
            raise ValueError(f"a first row must have at most {LONGEST_ROW} numbers, got {length}")
        dimension = length if self._dimension is None else self._dimension
        return np.empty((self._count, dimension), np.float32) if self._source is None else self._source.rows(dimension)


class MsgspecRows(_Rows):
    """Cuts out each row and lets msgspec convert it; the list of floats of a row is freed before the next one is created.

    Attributes:
        gaps: the bytes before each written row, including the brackets around rows.
    """

    name = "msgspec"
    releases_lock = False

    def __init__(self, count: int, dimension: int | None, source: RowSource | None) -> None:
        super().__init__(count, dimension, source)
        self._is_in_data = False
        # The parts so far of the next gap, and of a row that will end in a later piece.
        self._gap: list[bytes] = []
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self.gaps: list[bytes] = []

    @property
    def rest(self) -> bytes:
        """The bytes after the last written row, without those of `kept`."""
        return b"".join(self._gap)

    @property
    def kept(self) -> bytes:
        """The bytes of an unfinished or unusual row, from its opening bracket on."""
        return b"".join(self._partial)

    @property
    def is_finite(self) -> bool:
        """Whether all numbers written are finite; a number beyond float32's range silently becomes an infinity."""
        return self.matrix is None or bool(np.isfinite(self.matrix).all())

    def read(self, pieces: tuple[bytes, ...], position: int, most: int) -> tuple[int, int]:
        """Write the rows of the next piece to the matrix, and keep the start of a row that does not end in it.

        Args:
            pieces: the next pieces, at least one; the first may have been read in part.
            position: where to continue in the first piece.
            most: number of bytes after which no further row is started.

        Returns:
            The number of pieces read completely, and the position in the next one.
        """
        piece = pieces[0]
        if not self._is_in_data:
            position = self._find_data(piece, position)
        with np.errstate(over="ignore"):
            if self._partial:
                position = self._end_row(piece, position)
            elif self.row < self._count:
                position = self._place_rows(piece, position, min(len(piece), position + most))
        if self.row == self._count:
            self._gap.append(piece[position:])
            self.bytes_behind += len(piece) - position
            position = len(piece)
        return (1, 0) if position == len(piece) else (0, position)

    def stop(self) -> None:
        """End a `read` that runs in another thread: never here, because it would hold the GIL."""

    def _find_data(self, piece: bytes, position: int) -> int:
        opening = piece.find(b"[", position)
        after = opening + 1 or len(piece)
        self._gap.append(piece[position:after])
        self._is_in_data = opening >= 0
        return after

    def _place_rows(self, piece: bytes, position: int, stop: int) -> int:
        """Write the complete rows of a piece to the matrix, and keep the start of the next."""
        find, gaps = piece.find, self.gaps
        row, count, matrix = self.row, self._count, self.matrix
        while position < stop and row < count:
            opening = find(b"[", position)
            if opening < 0:
                self._gap.append(piece[position:])
                position = len(piece)
                break
            end = find(b"]", opening)
            if end < 0:
                self._gap.append(piece[position:opening])
                self._partial.append(piece[opening:])
                self._partial_bytes = len(piece) - opening
                position = len(piece)
                break
            if end - opening > MOST_BYTES:
                self.is_usual = False
                break
            try:
                values = floats_of(piece[opening : end + 1])
                if matrix is None:
                    matrix = self.matrix = self._new_matrix(len(values))
                _place(matrix, row, values)
            except _UNREADABLE:
                self.is_usual = False
                break
            gap = piece[position : opening + 1]
            if self._gap:
                gap = b"".join([*self._gap, gap])
                self._gap.clear()
            gaps.append(gap)
            row += 1
            position = end
        self.row = row
        return position

    def _end_row(self, piece: bytes, position: int) -> int:
        """Write a row that began in an earlier piece, if it ends in this one."""
        end = piece.find(b"]", position)
        if end < 0:
            self._partial.append(piece[position:])
            self._partial_bytes += len(piece) - position
            if self._partial_bytes > MOST_BYTES:
                self.is_usual = False
            return len(piece)
        partial, self._partial = self._partial, []
        row = b"".join([*partial, piece[position : end + 1]])
        self._place_rows(row, 0, 1)
        if not self.is_usual:
            self._partial = partial
            return position
        return end


class NativeRows(_Rows):
    """Lets the native module cut out the rows and convert them, a whole piece at a time.

    `read` may be called in a thread. While the module works, it does not hold the GIL, and any other use of this object
    raises a `RuntimeError`.

    Args:
        count: see `_Rows`, like the next two.
        dimension: numbers per row expected.
        source: provides the matrix.
        portable: do not use SIMD instructions that only some processors have.
    """

    name = "native"
    releases_lock = True

    def __init__(self, count: int, dimension: int | None, source: RowSource | None, *, portable: bool = False) -> None:
        super().__init__(count, dimension, source)
        from pinecone_embed_async._wire import _native  # noqa: PLC0415 - optional, and imported only where it is used

        self._reader = _native.RowReader(count, MOST_BYTES, portable=portable)
        self._odd, self._too_long = _native.ODD, _native.TOO_LONG
        self.is_finite = True

    @property
    def gaps(self) -> list[bytes]:
        """See `MsgspecRows`."""
        return self._reader.gaps

    @property
    def rest(self) -> bytes:
        """See `MsgspecRows`."""
        return self._reader.rest

    @property
    def kept(self) -> bytes:
        """See `MsgspecRows`."""
        return self._reader.kept

    def read(self, pieces: tuple[bytes, ...], position: int, most: int) -> tuple[int, int]:
        """See `MsgspecRows`; several pieces may be read."""
        if self.matrix is None and self._dimension is not None:
            self._attach(self._dimension)
        outcome, done, position = self._reader.read(pieces, position, most)
        try:
            if outcome == self._odd:
                if self.matrix is None:
                    # The row is decoded by the next call, perhaps in a thread: the first write to new memory takes long.
                    self._attach(self._reader.kept_numbers)
                else:
                    self._place(self.matrix)
            self.is_usual = outcome != self._too_long
        except _UNREADABLE:
            self.is_usual = False
            # The kept row's closing bracket, where the module stops, is part of `kept`.
            position += 1
        self.row = self._reader.row
        if self.row == self._count:
            self.bytes_behind = self._reader.rest_length
        return done, position

    def stop(self) -> None:
        """See `MsgspecRows`."""
        self._reader.stop()

    def _attach(self, length: int) -> None:
        self.matrix = self._new_matrix(length)
        self._reader.attach(self.matrix)

    def _place(self, matrix: NDArray[np.float32]) -> None:
        """Convert the kept row, which is odd, and write it to the matrix."""
        row = self._reader.row
        with np.errstate(over="ignore"):
            _place(matrix, row, floats_of(self._reader.kept))
        self.is_finite &= bool(np.isfinite(matrix[row]).all())
        self._reader.accept()


def _place(matrix: NDArray[np.float32], row: int, values: NDArray[np.float64]) -> None:
    # Checked here, because NumPy would broadcast a single number to the whole row.
    if not len(values) or len(values) != matrix.shape[1]:
        raise ValueError(f"expected {matrix.shape[1]} numbers, got {len(values)}")
    matrix[row] = values


_list_of_floats = msgspec.json.Decoder(list[float]).decode


def floats_of(row: bytes) -> NDArray[np.float64]:
    """The numbers of a JSON array; raises one of `_UNREADABLE` for anything else."""
    values = _list_of_floats(row)
    # For 1024 values, this is three times as fast as np.fromiter and four times as fast as np.array.
    return np.frombuffer(struct.pack(f"{len(values)}d", *values))
