"""Builds the result of a range of inputs: the rows, the usage, and the outcome of each input."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._errors import Failure, kind_of
from pinecone_embed_async._log import IN_OUTCOME, logger
from pinecone_embed_async._results import DenseEmbeddings, DenseRows, Usage, sparse_of_blocks

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._cache import Found
    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._results import Dimension, SparseEmbeddings
    from pinecone_embed_async._wire import Answer, SparseBlock, VectorType

_NO_USAGE = Usage()


class ResultBuilder:
    """Builds the result of a contiguous range of inputs from answers, cached rows and failures.

    Each input ends up embedded, failed, or not tried.

    Args:
        start: position of the first input in the call.
        count: number of inputs.
        dimension: numbers per row; several builders may share the object.
        room: number of rows of the finished result, more than `count` if equal inputs were merged; `None` for `count`.

    Attributes:
        start: position of the first input in the call.
        usage: usage billed for the answers.
        embedded_count: inputs embedded so far.
        failed_count: inputs failed so far.
        cached_count: inputs whose rows came from the cache; they count as embedded.
    """

    def __init__(self, start: int, count: int, dimension: Dimension, room: int | None = None) -> None:
        self.start = start
        self._dense = DenseRows(count if room is None else room, dimension)
        self._blocks: list[tuple[NDArray[np.intp], SparseBlock]] = []
        self._embedded = np.zeros(count, np.bool_)
        self._failures: list[Failure] = []
        self.usage = _NO_USAGE
        self.embedded_count = 0
        self.failed_count = 0
        self.cached_count = 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.embedded_count} of {len(self._embedded)} embedded, {self.failed_count} failed>"

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if still unknown."""
        return self._dense.dimension.value

    @property
    def is_settled(self) -> bool:
        """Whether every input is embedded or failed."""
        return self.embedded_count + self.failed_count == len(self._embedded)

    @property
    def is_complete(self) -> bool:
        """Whether every input is embedded."""
        return self.embedded_count == len(self._embedded)

    def untried(self) -> Sequence[int]:
        """The rows of the inputs that are neither embedded nor failed; a range if that is all of them."""
        if not self.embedded_count and not self.failed_count:
            return range(len(self._embedded))
        are_untried = ~self._embedded
        for failure in self._failures:
            are_untried[np.asarray(failure.indices, np.intp)] = False
        rows: list[int] = np.flatnonzero(are_untried).tolist()
        return rows

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix to write an answer to: the rows of its inputs; a new one if these are not contiguous, or for a probe.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        positions = request.positions
        if isinstance(positions, range) and not request.is_probe:
            request.matrix = self._dense.matrix(dimension)[positions.start - self.start : positions.stop - self.start]
        else:
            self._dense.dimension.settle(dimension)
            request.matrix = np.empty((len(positions), dimension), np.float32)
        return request.matrix

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Add the usage of an answer; its dense rows are in the request's matrix."""
        request.billed, request.sparse = answer.total_tokens, answer.sparse
        self.usage = self.usage.plus(answer.total_tokens)

    def embedded(self, request: PlannedRequest) -> None:
        """Store the rows of an answered request."""
        rows = self._rows_of(request)
        if request.sparse is not None:
            self._blocks.append((np.asarray(rows, np.intp), request.sparse))
        elif request.matrix is not None and not isinstance(rows, range):
            self._dense.matrix(request.matrix.shape[1])[rows] = request.matrix
        # A slice is written twice as fast as a range of positions.
        self._embedded[slice(rows.start, rows.stop) if isinstance(rows, range) else rows] = True
        self.embedded_count += len(request.texts)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Record that a request failed for good."""
        first, last = request.positions[0], request.positions[-1]
        told = first, last + 1, error.attempts, kind_of(error)
        logger.warning("inputs %d:%d failed after %d attempts: %s", *told, extra=IN_OUTCOME)
        self.fail(self._rows_of(request), error)

    def fail(self, rows: Sequence[int], error: EmbedError) -> None:
        """Record the failure of the inputs of these rows."""
        self.failed_count += len(rows)
        self._failures.append(Failure(rows, error))

    def found(self, found: Found, rows: NDArray[np.intp]) -> None:
        """Add vectors found in the cache for the inputs of these rows.

        Raises:
            ResponseError: earlier rows had another dimension.
        """
        if found.dense is not None:
            self._dense.matrix(found.dense.shape[1])[rows] = found.dense
        if found.sparse is not None:
            self._blocks.append((rows, found.sparse))
        self._embedded[rows] = True
        self.embedded_count += len(rows)
        self.cached_count += len(rows)

    def failures(self) -> tuple[Failure, ...]:
        """The failures, sorted by their first input."""
        return tuple(sorted(self._failures, key=lambda failure: failure.indices[0]))

    def first_error(self) -> EmbedError | None:
        """The error of the first failed input; `None` if none failed."""
        failures = self.failures()
        return failures[0].error if failures else None

    @types.coroutine
    def finish(
        self, model: str, vector_type: VectorType | None, positions: NDArray[np.intp] | None = None
    ) -> Generator[None, None, DenseEmbeddings | SparseEmbeddings]:
        """Build the result in small steps; rows that were not embedded are NaN, or empty if sparse.

        Awaited, it takes one step per event loop iteration: its bare yields are what `asyncio.sleep(0)` consists of.

        Args:
            model: name of the model.
            vector_type: type of the rows.
            positions: for each row of the result, the row to copy; `None` if each input has its own row.
        """
        embedded = self._embedded
        others: dict[str, Any] = {"model": model, "usage": self.usage, "failures": self.failures()}
        if vector_type == "sparse":
            sparse = yield from sparse_of_blocks(self._blocks, embedded, **others)
            return sparse if positions is None else (yield from sparse.spread_in_steps(positions))
        if not self.is_complete:
            yield from self._dense.blank(np.flatnonzero(~embedded))
        dense = DenseEmbeddings(self._dense.matrix()[: len(embedded)], embedded=embedded, **others)
        return dense if positions is None else dense.taken(positions, (yield from self._dense.spread(positions)), self.usage)

    def _rows_of(self, request: PlannedRequest) -> Sequence[int]:
        positions = request.positions
        if isinstance(positions, range):
            return range(positions.start - self.start, positions.stop - self.start)
        return [position - self.start for position in positions]
