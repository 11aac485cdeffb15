"""Builds the result of a range of inputs: rows, usage, and the outcome of each input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._calls.outcomes import Outcomes
from pinecone_embed_async._errors import kind_of
from pinecone_embed_async._log import logger
from pinecone_embed_async._results import DenseEmbeddings, DenseRows, SparseRows, Usage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._cache import Found
    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._results import Dimension, SparseEmbeddings
    from pinecone_embed_async._wire import Answer, VectorType


class ResultBuilder:
    """Builds the result of a contiguous range of inputs from answers, cached rows and failures.

    Args:
        start: position of the first input in the call.
        count: number of inputs.
        dimension: numbers per row; several builders may share it.
        room: number of rows after spreading; `None` if the rows will not be spread.

    Attributes:
        account: outcome of each input.
        usage: usage billed for the answers.
        cached_count: inputs whose rows came from the cache.
    """

    def __init__(self, start: int, count: int, dimension: Dimension, room: int | None = None) -> None:
        self._start = start
        self._dense = DenseRows(count, dimension, room)
        self._sparse = SparseRows(count)
        self._positions: NDArray[np.intp] | None = None
        self._scattered: dict[int, NDArray[np.float32]] = {}
        self.account = Outcomes(count)
        self.usage = Usage()
        self.cached_count = 0

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if still unknown."""
        return self._dense.dimension.value

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The part of the matrix for the inputs of a request; a throw-away matrix for a probe.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        if request.is_probe:
            return np.empty((len(request.texts), dimension), np.float32)
        # Left by an earlier attempt, which may have had other inputs.
        self._scattered.pop(request.start, None)
        if self._positions is None and not request.holes:
            return self._dense.rows(request.start - self._start, request.stop - self._start, dimension)
        # Its rows are not contiguous: they are copied into place once all have arrived.
        self._dense.dimension.settle(dimension)
        matrix = self._scattered[request.start] = np.empty((len(request.texts), dimension), np.float32)
        return matrix

    def found(self, found: Found, start: int = 0) -> None:
        """Add rows found in the cache, for the inputs from row `start` on.

        Raises:
            ResponseError: earlier rows had another dimension.
        """
        if found.dense is not None:
            self._dense.put(found.rows + start, found.dense)
        if found.sparse is not None:
            self._sparse.put(found.rows + start, found.sparse)
        self.cached_count += len(found.rows)

    def limit_to(self, positions: NDArray[np.intp]) -> None:
        """Note that the rows of all inputs but these are settled. From now on requests carry only these, in this order."""
        self._positions = positions
        self.account.limit_to(positions)

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """The positions of a request's inputs in the call; `None` if they are contiguous."""
        if (self._positions is None and not request.holes) or request.is_probe:
            return None
        positions: list[int] = (self._rows_of(request) + self._start).tolist()
        return positions

    def _rows_of(self, request: PlannedRequest) -> NDArray[np.intp]:
        rows = np.array(request.positions, np.intp) - self._start
        return rows if self._positions is None else self._positions[rows]

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Add the usage of an answer, and store its rows if they are sparse; dense ones are in place."""
        self.usage = self.usage.plus(answer.total_tokens)
        if answer.sparse is not None and not request.is_probe:
            self._sparse.put(self._rows_of(request), answer.sparse)

    def embedded(self, request: PlannedRequest) -> None:
        """Note that the rows of a request are in place."""
        matrix = self._scattered.pop(request.start, None)
        if matrix is not None:
            self._dense.put(self._rows_of(request), matrix)
        for start, stop in request.runs:
            self.account.embedded(start - self._start, stop - self._start)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Note that a request failed for good."""
        self._scattered.pop(request.start, None)
        rows = self._rows_of(request) + self._start
        logger.warning("inputs %d:%d failed after %d attempts: %s", rows[0], rows[-1] + 1, error.attempts, kind_of(error))
        for start, stop in request.runs:
            self.account.failed(start - self._start, stop - self._start, error)

    def finish(
        self, model: str, vector_type: VectorType | None, positions: NDArray[np.intp] | None = None
    ) -> Generator[None, None, DenseEmbeddings | SparseEmbeddings]:
        """Build the result in small steps; rows that were not embedded are NaN, or empty if sparse.

        Args:
            model: name of the model.
            vector_type: type of the rows.
            positions: for each row of the result, the row to copy; `None` if nothing is to be spread.
        """
        outcomes = self.account
        failures, embedded = outcomes.failures(), outcomes.embedded_mask()
        if vector_type == "sparse":
            sparse = yield from self._sparse.finish(model=model, usage=self.usage, failures=failures, embedded=embedded)
            return sparse if positions is None else (yield from sparse.spread_in_steps(positions))
        dense = yield from self._dense.finish(model=model, usage=self.usage, failures=failures, embedded=embedded)
        return dense if positions is None else dense.spread(positions, (yield from self._dense.spread(positions)))
