"""Equal texts are sent once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Distinct:
    """The distinct texts of a call.

    Args:
        texts: the call's inputs.

    Attributes:
        texts: each text once, in the order of its first occurrence.
        positions: intp, shape (inputs,): for each input, the position of its text in `texts`.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        first: dict[str, int] = {}
        self.positions: NDArray[np.intp] = np.fromiter(
            (first.setdefault(text, len(first)) for text in texts), np.intp, len(texts)
        )
        self.texts: list[str] = list(first)

    def __repr__(self) -> str:
        return f"<Distinct {len(self.texts)} of {len(self.positions)}>"
