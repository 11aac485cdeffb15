"""Finds rows with equal texts: one of them is sent, the others are copies of it. Pure: no files."""

import hashlib
import secrets
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pinecone_embed_async._jobs._rowset import RowNumbers

_DIGEST_BYTES = 16
"""128 bits: the chance that any two different texts among ten million have the same digest is 1 in 10**24."""

# States of a row as a possible source, best first.
_DONE, _FAILED, _WANTED, _OTHER = range(4)


class Copies(NamedTuple):
    """Rows that need not be sent, because another row has the same text.

    Attributes:
        rows: Their row numbers, ascending; int64.
        sources: For each, the row it is a copy of: an embedded one if there is one, else a failed one, else the first that
            will be sent; int64.
    """

    rows: RowNumbers
    sources: RowNumbers


NO_COPIES = Copies(np.empty(0, np.int64), np.empty(0, np.int64))


class TextDigests:
    """Digests of the texts of consecutive rows: 16 bytes a row, plus 45 while copies are being found."""

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
        """Add a row without a text, which has no copies."""
        self._digests += secrets.token_bytes(_DIGEST_BYTES)

    def repeated(self) -> int:
        """How many rows repeat the text of an earlier row."""
        halves = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        return len(halves) - len(np.unique(halves, axis=0)) if len(halves) else 0

    def copies(
        self, first_row: int, *, done: npt.NDArray[np.bool_], failed: npt.NDArray[np.bool_], wanted: npt.NDArray[np.bool_]
    ) -> Copies:
        """Choose which of the wanted rows are copies.

        Args:
            first_row: The number of the first row added.
            done: Which rows are embedded; bool, shape (rows,).
            failed: Which rows failed and are not retried; same shape.
            wanted: Which rows are to be embedded, none of those above; same shape.
        """
        if not len(self):
            return NO_COPIES
        halves = np.frombuffer(self._digests, np.uint64).reshape(-1, 2)
        # Sort equal digests together, lowest row first.
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
        # State and row as one number, so that the minimum is the best state and, within it, the lowest row.
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
