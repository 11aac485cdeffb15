"""Decodes the rows of dense answers without the interpreter's lock; in C, see the folder `native`."""

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

READ: Final[int]
"""The pieces have been read, or as much of them as was asked for."""
ODD: Final[int]
"""A whole row is kept that the caller must place: there is no matrix yet, or it is not plain."""
TOO_LONG: Final[int]
"""A row has more bytes than any may have."""

class RowReader:
    """Cuts an answer into its rows, which it writes to their places, and the bytes between them.

    One thread at a time may use it, but for `stop`; any other use meanwhile raises `RuntimeError`. `read` runs without the
    interpreter's lock.
    """

    def __new__(cls, count: int, longest: int, *, portable: bool = False) -> Self:
        """A reader of `count` rows of up to `longest` bytes; `portable` forgoes the processor's special instructions."""

    def read(self, pieces: tuple[bytes, ...], position: int, most: int, /) -> tuple[int, int, int]:
        """Read pieces, the first from a position on; no row is started once `most` bytes are read.

        Returns:
            The outcome, the number of pieces read whole, and the position in the next one.
        """

    def stop(self) -> None:
        """End a `read` in another thread within 256 KiB; later ones read no more than that."""

    def attach(self, matrix: NDArray[np.float32], /) -> None:
        """Write the rows to this float32 matrix (count, dimension), which is kept alive."""

    def accept(self) -> None:
        """Count the kept row as done."""

    @property
    def count(self) -> int:
        """Rows wanted."""

    @property
    def row(self) -> int:
        """Rows done."""

    @property
    def is_portable(self) -> bool:
        """Whether it forgoes the processor's special instructions."""

    @property
    def gaps(self) -> list[bytes]:
        """The bytes before each row that is done; the brackets around rows belong to them."""

    @property
    def rest(self) -> bytes:
        """The bytes after the last row that is done, without those of a kept row."""

    @property
    def rest_length(self) -> int:
        """Their number."""

    @property
    def kept(self) -> bytes:
        """A row that is not done, from its opening bracket on."""

    @property
    def kept_numbers(self) -> int:
        """Number of its numbers if it is an array of numbers: one more than its commas."""
