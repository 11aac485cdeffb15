"""The outcome of each input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._errors import EmbedError, Failure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_NOT_TRIED, _EMBEDDED, _FAILED = 0, 1, 2


class Outcomes:
    """The outcome of each input of a contiguous range: embedded, failed, or not tried.

    Args:
        count: number of inputs. Positions are relative to the first.

    Attributes:
        embedded_count: inputs embedded so far.
        failed_count: inputs failed so far.
    """

    def __init__(self, count: int) -> None:
        self._state = np.zeros(count, np.uint8)
        self._failures: list[tuple[int, int, EmbedError]] = []
        self._refused: tuple[Failure, ...] = ()
        self._positions: NDArray[np.intp] | None = None
        self.embedded_count = 0
        self.failed_count = 0

    def __repr__(self) -> str:
        return f"<Outcomes {self.embedded_count} of {len(self._state)} embedded, {self.failed_count} failed>"

    @property
    def is_settled(self) -> bool:
        """Whether every input is embedded or failed."""
        return self.embedded_count + self.failed_count == len(self._state)

    def refuse(self, failures: tuple[Failure, ...]) -> None:
        """Note inputs that failed before anything was sent; `limit_to` must then be called with the others."""
        self._refused = failures
        for failure in failures:
            self._state[np.asarray(failure.indices, np.intp)] = _FAILED
            self.failed_count += len(failure.indices)

    def limit_to(self, positions: NDArray[np.intp]) -> None:
        """Note that all inputs but these and the refused are embedded.

        From now on positions are indices into these.
        """
        self._state[self._state != _FAILED] = _EMBEDDED
        self._state[positions] = _NOT_TRIED
        self.embedded_count = len(self._state) - len(positions) - self.failed_count
        self._positions = positions

    def embedded(self, start: int, stop: int) -> None:
        """Note that the rows of inputs `start` to `stop` are in place."""
        self._state[self._at(start, stop)] = _EMBEDDED
        self.embedded_count += stop - start

    def failed(self, start: int, stop: int, error: EmbedError) -> None:
        """Note that inputs `start` to `stop` failed for good."""
        self._state[self._at(start, stop)] = _FAILED
        self.failed_count += stop - start
        self._failures.append((start, stop, error))

    def embedded_mask(self) -> NDArray[np.bool_]:
        """Bool, shape (inputs,): whether each input is embedded."""
        mask: NDArray[np.bool_] = self._state == _EMBEDDED
        return mask

    def failures(self) -> tuple[Failure, ...]:
        """The failures, sorted by position."""
        failures = [Failure(self._indices(start, stop), error) for start, stop, error in self._failures]
        return tuple(sorted([*self._refused, *failures], key=lambda failure: failure.indices[0]))

    def first_error(self) -> EmbedError | None:
        """The error of the lowest failed input; `None` if none failed."""
        failures = self.failures()
        return failures[0].error if failures else None

    def _at(self, start: int, stop: int) -> slice | NDArray[np.intp]:
        return slice(start, stop) if self._positions is None else self._positions[start:stop]

    def _indices(self, start: int, stop: int) -> Sequence[int]:
        return range(start, stop) if self._positions is None else self._positions[start:stop].tolist()
