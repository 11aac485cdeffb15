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
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings
    from pinecone_embed_async._wire import Answer


logger = logging.getLogger("pinecone_embed_async")


class Collector:
    """Takes the answers for a run of inputs, and what became of those that have none.

    Args:
        start: position in the call of the first input.
        count: inputs.
        dimension: numbers per row; `None` if the first answer tells.
    """

    def __init__(self, start: int, count: int, dimension: int | None) -> None:
        self._start = start
        self._dense = DenseRows(count, dimension)
        self._sparse = SparseRows(count)
        self.account = Account(count)
        self.usage = Usage()

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""
        return self._dense.dimension

    def rows(self, start: int, stop: int, dimension: int) -> NDArray[np.float32]:
        """The part of the matrix for inputs `start` to `stop` of the call.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        return self._dense.rows(start - self._start, stop - self._start, dimension)

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Count what an answer has cost, and keep its rows if they are sparse; dense ones are in place."""
        self.usage = self.usage.plus(answer.total_tokens)
        if answer.sparse is not None:
            self._sparse.put(request.start - self._start, answer.sparse)

    def for_probe(self) -> ProbeDestination:
        """Where the row of a probe goes."""
        return ProbeDestination(self)

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


class ProbeDestination:
    """Throws the row of a probe away; what it has cost is counted.

    Args:
        collector: of the call that the probe is sent for.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""
        return self._collector.dimension

    def rows(self, start: int, stop: int, dimension: int) -> NDArray[np.float32]:
        """A matrix that is thrown away."""
        return np.empty((stop - start, dimension), np.float32)

    def answered(self, _: PlannedRequest, answer: Answer) -> None:
        """Count what the probe has cost."""
        self._collector.usage = self._collector.usage.plus(answer.total_tokens)
