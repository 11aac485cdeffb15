"""Sets of row numbers as bitmaps, one bit per row."""

import numpy as np
import numpy.typing as npt

RowNumbers = npt.NDArray[np.int64]


def are_among(rows: RowNumbers, ascending: RowNumbers) -> npt.NDArray[np.bool_]:
    """Which of `rows` are in `ascending`, a sorted array, by binary search; bool, shape (len(rows),)."""
    if not len(ascending):
        return np.zeros(len(rows), np.bool_)
    found: npt.NDArray[np.bool_] = ascending[np.searchsorted(ascending[:-1], rows)] == rows
    return found


class RowSet:
    """A set of integers, each at least 0, stored as a bitmap: ten million rows take 1.25 MB.

    While one thread adds, others may only test with `in`: a view held by `mask` would make a growing `add` fail.
    """

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __repr__(self) -> str:
        return f"<RowSet of {self._count} rows>"

    def __contains__(self, row: int) -> bool:
        byte = row >> 3
        return byte < len(self._bits) and bool(self._bits[byte] >> (row & 7) & 1)

    def add(self, rows: npt.ArrayLike) -> int:
        """Add row numbers, each at least 0, and return how many are new."""
        numbers: RowNumbers = np.unique(np.asarray(rows, np.int64))
        if not numbers.size:
            return 0
        size = (int(numbers[-1]) >> 3) + 1
        if size > len(self._bits):
            # An eighth more than needed, so that adding rows one by one does not copy each time.
            self._bits.extend(bytes(size + size // 8 - len(self._bits)))
        view = np.frombuffer(self._bits, np.uint8)
        places, masks = numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8)
        new = (view[places] & masks) == 0
        np.bitwise_or.at(view, places[new], masks[new])
        count = int(new.sum())
        self._count += count
        return count

    def discard(self, rows: npt.ArrayLike) -> int:
        """Remove rows, and return how many were in the set."""
        if not self._count:
            return 0
        numbers: RowNumbers = np.unique(np.asarray(rows, np.int64))
        numbers = numbers[(numbers >> 3) < len(self._bits)]
        view = np.frombuffer(self._bits, np.uint8)
        places, masks = numbers >> 3, np.left_shift(1, numbers & 7).astype(np.uint8)
        held = (view[places] & masks) != 0
        np.bitwise_and.at(view, places[held], ~masks[held])
        count = int(held.sum())
        self._count -= count
        return count

    def update(self, other: "RowSet") -> None:
        """Add every row of another set."""
        missing = len(other._bits) - len(self._bits)  # noqa: SLF001 - same class
        self._bits.extend(bytes(max(0, missing)))
        view = np.frombuffer(self._bits, np.uint8)
        view[: len(other._bits)] |= np.frombuffer(other._bits, np.uint8)  # noqa: SLF001 - same class
        self._count = int(np.bitwise_count(view).sum())

    def subtract(self, other: "RowSet") -> None:
        """Remove every row of another set."""
        size = min(len(self._bits), len(other._bits))  # noqa: SLF001 - same class
        if size:
            view = np.frombuffer(self._bits, np.uint8)
            view[:size] &= ~np.frombuffer(other._bits, np.uint8)[:size]  # noqa: SLF001 - same class
            self._count = int(np.bitwise_count(view).sum())

    def copy(self) -> "RowSet":
        """A set of the same rows."""
        other = RowSet()
        other._bits, other._count = bytearray(self._bits), self._count
        return other

    def stop(self) -> int:
        """The number after the highest row; 0 if the set is empty."""
        bits = self._bits.rstrip(b"\0")
        return (len(bits) - 1) * 8 + bits[-1].bit_length() if bits else 0

    def count_between(self, first: int, stop: int) -> int:
        """How many rows from `first` up to but not including `stop` are in the set."""
        return int(self.mask(first, stop).sum())

    def mask(self, first: int, stop: int) -> npt.NDArray[np.bool_]:
        """Which rows from `first` up to but not including `stop` are in the set; bool, shape (stop - first,)."""
        mask = np.zeros(max(0, stop - first), np.bool_)
        if mask.size:
            view = np.frombuffer(self._bits, np.uint8)[first >> 3 : ((stop - 1) >> 3) + 1]
            bits = np.unpackbits(view, bitorder="little")[first & 7 :][: mask.size]
            mask[: bits.size] = bits
        return mask
