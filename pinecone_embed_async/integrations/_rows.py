"""Rows of vectors as lists of floats, for frameworks that do not take NumPy arrays."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ROWS_AT_ONCE = 96
"""Rows to convert before the event loop runs again: those of one answer."""


async def as_lists(vectors: NDArray[np.float32]) -> list[list[float]]:
    """The rows of a matrix as lists of floats."""
    lists: list[list[float]] = []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        lists += vectors[start : start + ROWS_AT_ONCE].tolist()
        await asyncio.sleep(0)
    return lists
