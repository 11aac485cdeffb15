"""Cuts answers that arrive in pieces into rows and the bytes between the rows, and converts rows.

The first `[` of a dense answer opens `data`, and each of the next `count` ones opens a row, which ends at the next `]`.
The bytes between the rows later show whether this was right. Two readers do the same: that of the native module, and
`RowReader`, which converts the rows with msgspec.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec
import numpy as np

from pinecone_embed_async._errors import ResponseError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pinecone_embed_async._wire import _native

DecoderName = Literal["native", "msgspec"]

READ, ODD, TOO_LONG = range(3)
"""Outcomes of `RowReader.read`, as in the native module: the pieces have been read, or as much of them as was asked for; a
whole row is kept, because there is no matrix yet or because the caller must place it; a row is longer than any may be."""


class RowSource(Protocol):
    """Provides the matrix to which the rows of an answer are written."""

    def rows(self, dimension: int) -> NDArray[np.float32]:
        """The matrix, float32 of shape (inputs of the request, dimension).

        Raises:
            ResponseError: an earlier answer had another dimension.
        """


class Decoder(NamedTuple):
    """One way to decode the rows of answers.

    Attributes:
        name: its name.
        releases_lock: whether `read` of its reader releases the GIL.
        reader: makes a reader, for each answer.
    """

    name: DecoderName
    releases_lock: bool
    reader: type[RowReader | _native.RowReader]


class RowReader:
    """Does the same as the native module's `RowReader`, in Python.

    Args:
        count: number of rows expected.
        longest: maximum number of bytes of a row.

    Attributes:
        row: number of rows done.
        gaps: the bytes before each of them, including the brackets around rows.
        rest: the bytes after the last of them, without those of `kept`.
        kept: the bytes of a row that is not done, from its opening bracket on.
    """

    def __init__(self, count: int, longest: int) -> None:
        self._count = count
        self._longest = longest
        self._is_in_data = False
        self._matrix: NDArray[np.float32] | None = None
        self.row = 0
        self.gaps: list[bytes] = []
        self.rest = bytearray()
        self.kept = b""

    @property
    def kept_numbers(self) -> int:
        """Number of numbers in `kept` if it is an array of numbers."""
        return self.kept.count(b",") + 1

    def attach(self, matrix: NDArray[np.float32]) -> None:
        """Write the rows to this matrix from now on."""
        self._matrix = matrix

    def stop(self) -> None:
        """Does nothing, because a `read` in another thread would hold the GIL."""

    # Here, because it takes longer than to place a short row.
    @np.errstate(over="raise")
    def read(self, pieces: tuple[bytes, ...], position: int, most: int) -> tuple[int, int, int]:
        """Convert the rows of the next piece, and write them to the matrix.

        Args:
            pieces: the next pieces, at least one; the first may have been read in part.
            position: where to continue in the first piece.
            most: number of bytes after which no further row is started.

        Returns:
            The outcome, the number of pieces read completely, and the position in the next one: that of the closing bracket
            if a whole row is kept.
        """
        piece = pieces[0]
        end, stop = len(piece), position + most
        while position < end and (self.kept or position < stop):
            if not self.kept:
                found = -1 if self.row == self._count else piece.find(b"[", position)
                if found >= 0 and not self._is_in_data:
                    self._is_in_data, found = True, piece.find(b"[", found + 1)
                after = end if found < 0 else found
                self.rest += piece[position:after]
                position = after
            if not self.kept.endswith(b"]"):
                after = piece.find(b"]", position) + 1 or end
                self.kept += piece[position:after]
                position = after
                if len(self.kept) > self._longest + 1:
                    return TOO_LONG, 0, position
                if not self.kept.endswith(b"]"):
                    continue
                position -= 1
            if self._matrix is None:
                return ODD, 0, position
            try:
                place(self._matrix, self.row, self.kept)
            except UNREADABLE:
                # The caller tries it again to see why.
                return ODD, 0, position
            self.accept()
        return (READ, 1, 0) if position == end else (READ, 0, position)

    def accept(self) -> None:
        """Count the kept row as done."""
        self.gaps.append(bytes(self.rest) + b"[")
        self.rest, self.kept = bytearray(), b""
        self.row += 1


UNREADABLE = (msgspec.DecodeError, ResponseError, ValueError, TypeError, RuntimeError, FloatingPointError)
"""Errors of an invalid row. A `ResponseError` means that the matrix has another dimension."""

_list_of_floats = msgspec.json.Decoder(list[float]).decode


def place(matrix: NDArray[np.float32], row: int, text: bytes) -> None:
    """Convert a JSON array, and write it to a row of the matrix.

    Raises:
        msgspec.DecodeError: it is not an array of numbers.
        ValueError: it has another length.
        FloatingPointError: a number is beyond float32's range, and NumPy is to raise errors for that.
    """
    values = _list_of_floats(text)
    # Checked here, because NumPy would broadcast a single number to the whole row.
    if not values or len(values) != matrix.shape[1]:
        raise ValueError(f"expected {matrix.shape[1]} numbers, got {len(values)}")
    # For 1024 values, this is three times as fast as np.fromiter and four times as fast as np.array.
    matrix[row] = np.frombuffer(struct.pack(f"{len(values)}d", *values))
