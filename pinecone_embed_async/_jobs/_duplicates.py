"""Which rows hold equal texts: one of each is sent, the others are its copies. Plain decisions, no files."""

import hashlib
import secrets
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pinecone_embed_async._jobs._rowset import RowNumbers

_DIGEST_BYTES = 16
"""Two different texts among ten million have the same 128 bits with a chance of one in 10**24."""

# States of a row that may be a source, the best first.
_DONE, _FAILED, _WANTED, _OTHER = range(4)


class Copies(NamedTuple):
    """Rows that need not be sent, for another has the same text.

    Attributes:
        rows: Their numbers, ascending; int64.
        sources: For each, the number of the row that it is a copy of: one that is done, else one that failed, else the
            first that is to be sent; int64.
    """

    rows: RowNumbers
    sources: RowNumbers


NO_COPIES = Copies(np.empty(0, np.int64), np.empty(0, np.int64))


class TextDigests:
    """Digests of the texts of a run of rows, at 16 bytes a row; finding the copies takes 45 more for a moment."""

    def __init__(self) -> None:
        self._digests = bytearray()

    def __len__(self) -> int:
        return len(self._digests) // _DIGEST_BYTES

    def __repr__(self) -> str:
        return f"<TextDigests of {len(self)} rows>"

    def add(self, text: str) -> None:
        """Add the text of the next row."""
        self._digests += hashlib.blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()

    def add_none(self) -> None:
        """Add a row that has no text, and so no copies."""
        self._digests += secrets.token_bytes(_DIGEST_BYTES)

    def repeated(self) -> int:
        """How many rows have a text that an earlier one has."""
        halves = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        return len(halves) - len(np.unique(halves, axis=0)) if len(halves) else 0

    def copies(
        self, first_row: int, *, done: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]
    ) -> Copies:
        """Choose which of the wanted rows are copies.

        Args:
            first_row: The number of the first row that was added.
            done: Which rows are embedded; bool, shape (rows,).
            failed: Which rows failed and are not tried again; the same.
            wanted: Which rows are to be embedded; the same, none of those above.
        """
        if not len(self):
            return NO_COPIES
        halves = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        # Equal ones side by side, and among them the lowest row first.
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        is_first = np.zeros(len(order), np.bool_)
        is_first[0] = True
        for half in (0, 1):
            ordered = halves[order, half]
            is_first[1:] |= ordered[1:] != ordered[:-1]
            del ordered
        standing = np.full(len(order), _OTHER, np.int8)
        for which, what in ((wanted, _WANTED), (failed, _FAILED), (done, _DONE)):
            standing[which] = what
        # The best standing and the lowest row of those as one number.
        rank = standing[order].astype(np.int64)
        rank *= len(order)
        rank += order
        best = np.minimum.reduceat(rank, np.flatnonzero(is_first))
        best %= len(order)
        del rank
        sources = np.empty(len(order), np.int64)
        sources[order] = np.repeat(best, np.diff(np.flatnonzero(is_first), append=len(order)))
        rows = np.flatnonzero(wanted & (sources != np.arange(len(order))))
        return Copies(rows + first_row, sources[rows] + first_row)
