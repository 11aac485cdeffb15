"""Finds equal texts, so that each text is sent only once."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


class Deduplicator:
    """The distinct texts of a call."""

    def __init__(self) -> None:
        self._first: dict[str | int, int] = {}
        self._positions = array("q")

    def __repr__(self) -> str:
        return f"<Deduplicator {len(self._first)} of {len(self._positions)}>"

    def add(self, keys: Iterable[str | int]) -> None:
        """Add the keys of the next inputs: the text of an input, or a number if it has none."""
        first = self._first
        positions = [first.setdefault(key, len(first)) for key in keys]
        self._positions.fromlist(positions)

    @property
    def keys(self) -> list[str | int]:
        """The distinct keys, in order of first occurrence."""
        return list(self._first)

    @property
    def positions(self) -> NDArray[np.intp] | None:
        """The index in `keys` of each input's key: intp, shape (inputs,); `None` if all keys are distinct."""
        return None if len(self._first) == len(self._positions) else np.array(self._positions, np.intp)
