"""Puts together what comes of a run of inputs: rows, usage, and the account of what became of each input."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._errors import kind_of
from pinecone_embed_async._plan import Account
from pinecone_embed_async._results import DenseRows, SparseRows, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._models import VectorType
    from pinecone_embed_async._plan import PlannedRequest
    from pinecone_embed_async._results import DenseEmbeddings, Dimension, SparseEmbeddings
    from pinecone_embed_async._wire import Answer


logger = logging.getLogger("pinecone_embed_async")


class Collector:
    """Takes the answers for a run of inputs, and what became of those that have none.

    Args:
        start: position in the call of the first input.
        count: inputs.
        dimension: numbers per row; several collectors may share it.
    """

    def __init__(self, start: int, count: int, dimension: Dimension) -> None:
        self._start = start
        self._dense = DenseRows(count, dimension)
        self._sparse = SparseRows(count)
        self.account = Account(count)
        self.usage = Usage()

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""
        return self._dense.dimension.value

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The part of the matrix for the inputs of a request; a matrix that is thrown away for a probe.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        if request.is_probe:
            return np.empty((len(request.texts), dimension), np.float32)
        return self._dense.rows(request.start - self._start, request.stop - self._start, dimension)

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Count what an answer has cost, and keep its rows if they are sparse; dense ones are in place."""
        self.usage = self.usage.plus(answer.total_tokens)
        if answer.sparse is not None and not request.is_probe:
            self._sparse.put(request.start - self._start, answer.sparse)

    def embedded(self, request: PlannedRequest) -> None:
        """Note that the rows of a request are in place."""
        self.account.embedded(request.start - self._start, request.stop - self._start)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Note that a request failed for good."""
        logger.warning(
            "inputs %d:%d failed after %d attempts: %s", request.start, request.stop, error.attempts, kind_of(error)
        )
        self.account.failed(request.start - self._start, request.stop - self._start, error)

    def finish(self, model: str, vector_type: VectorType | None) -> DenseEmbeddings | SparseEmbeddings:
        """What was embedded; rows that were not are NaN, or empty if sparse."""
        rows = self._sparse if vector_type == "sparse" else self._dense
        account = self.account
        return rows.finish(model=model, usage=self.usage, failures=account.failures(), embedded=account.embedded_mask())
