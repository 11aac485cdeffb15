"""Delivers the outcomes of a shared request to its callers, each as soon as it is known."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._errors import ApiError, EmbedError, Failure, kind_of, unexpected_error
from pinecone_embed_async._log import logger
from pinecone_embed_async._results import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._calls.coalescer import SharedRequest, Waiter
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._results import Dimension
    from pinecone_embed_async._telemetry import ObservedCall
    from pinecone_embed_async._wire import Answer, SparseBlock

_NAMED_INPUT = re.compile(r"<input (\d+)>")


class SingleResults:
    """The results of a shared request.

    It is the sink and the outcome recorder of the request. Each caller gets its own arrays, or its own error, so that none
    keeps alive or changes those of another.

    Args:
        shared: the request whose callers wait.
        dimension: numbers per row.
        on_delivered: called with the number of vectors delivered from a request.

    Attributes:
        closed_by: the error with which the client was closed; `None` if it was not. Callers whose text fails from then on
            get this error, with the failure in its `failures`.
    """

    def __init__(
        self, shared: SharedRequest, dimension: Dimension, on_delivered: Callable[[int], None] = lambda _: None
    ) -> None:
        # Shared with the request, so that callers that leave are removed here, too.
        self._waiters = list(shared.waiters.values())
        self._dimension = dimension
        self._on_delivered = on_delivered
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._blocks: dict[int, SparseBlock] = {}
        self._unsettled = len(self._waiters)
        self.closed_by: EmbedError | None = None

    def __repr__(self) -> str:
        return f"<SingleResults, {self._unsettled} of {len(self._waiters)} texts unsettled>"

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if still unknown."""
        return self._dimension.value

    @property
    def calls(self) -> tuple[ObservedCall, ...]:
        """The calls that still wait, as the hooks know them."""
        waiters = (waiter for sharing in self._waiters for waiter in sharing if waiter.outcome is None)
        return tuple(waiter.call for waiter in waiters if waiter.call is not None)

    @property
    def is_settled(self) -> bool:
        """Whether every text is embedded or failed."""
        return not self._unsettled

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """A matrix for the rows of a request, from which each caller's row is copied.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        matrix: NDArray[np.float32] = np.empty((len(request.texts), dimension), np.float32)
        if not request.is_probe:
            self._dimension.settle(dimension)
            self._rows[request.start] = matrix
        return matrix

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """The positions of its inputs; `None` if they are contiguous."""
        return request.positions if request.holes else None

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Store the rows of an answer if they are sparse; dense ones are in place."""
        if answer.sparse is not None and not request.is_probe:
            self._blocks[request.start] = answer.sparse

    def embedded(self, request: PlannedRequest) -> None:
        """Deliver the rows of a request."""
        block = self._blocks.pop(request.start, None)
        matrix = self._rows.pop(request.start, None)
        sparse_row = _rows_of(block) if block is not None else None
        delivered = 0
        for row, position in enumerate(request.positions):
            for waiter in self._waiters[position]:
                if waiter.outcome is None:
                    delivered += 1
                    if sparse_row is not None:
                        waiter.settle(sparse_row(row))
                    elif matrix is not None:
                        waiter.settle(matrix[row].copy())
        # Last: if anything above raises, the request is recorded as failed instead.
        self._unsettled -= len(request.texts)
        if delivered:
            self._on_delivered(delivered)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Give each caller of a finally failed request its own copy of the error."""
        logger.warning("joined inputs %d:%d failed after %d attempts: %s", *_log_args(request, error))
        self._unsettled -= len(request.texts)
        self._rows.pop(request.start, None)
        for position in request.positions:
            for waiter in self._waiters[position]:
                waiter.settle(self._error_of(error, position))

    def timed_out(self, waiter: Waiter, error: EmbedError) -> None:
        """Settle one caller with the error of its deadline."""
        position = self.position_of(waiter)
        waiter.settle(own_error(error, position, is_failure=error.attempts > 0))

    def position_of(self, waiter: Waiter) -> int:
        """The position of a caller's text in the request."""
        return next(position for position, waiters in enumerate(self._waiters) if waiter in waiters)

    def not_tried(self, error: EmbedError) -> None:
        """Settle the callers whose texts were not tried with the error that ended the job."""
        for position, waiters in enumerate(self._waiters):
            for waiter in waiters:
                waiter.settle(own_error(error, position, is_failure=False))

    def fail_unexpectedly(self, fault: BaseException | None) -> None:
        """Settle the callers that still wait with an unexpected error of this package."""
        for waiters in self._waiters:
            for waiter in waiters:
                if waiter.outcome is None:
                    waiter.settle(unexpected_error(fault or RuntimeError()))

    def _error_of(self, error: EmbedError, position: int) -> EmbedError:
        own = own_error(error, position, is_failure=True)
        if self.closed_by is None:
            return own
        closed = own_error(self.closed_by, position, is_failure=False)
        closed.failures = (Failure((0,), own),)
        return closed


def own_error(error: EmbedError, position: int, *, is_failure: bool) -> EmbedError:
    """A copy of an error for the caller of one text of a shared request; shares nothing with the other copies.

    Args:
        error: the error, which may concern several texts.
        position: position of the text in the shared request, used in messages; for its caller it is input 0.
        is_failure: whether this text failed, rather than was not tried because of the error.
    """
    own = copy.copy(error)
    own.partial = own.batch = None
    own.__cause__ = copy.copy(error.__cause__)
    own.args = (_renumbered(error.message, position), *error.args[1:])
    own.failures = (Failure((0,), own),) if is_failure else ()
    if isinstance(own, ApiError):
        own.details = _renumbered(own.details, position)
    if hasattr(error, "__notes__"):
        own.__notes__ = list(error.__notes__)
    return own


def _renumbered(value: Any, position: int) -> Any:
    """The service's message with positions in the shared request replaced by those of the caller."""
    if isinstance(value, str):
        return _NAMED_INPUT.sub(lambda found: "<input 0>" if int(found[1]) == position else "<another input>", value)
    if isinstance(value, dict):
        return {_renumbered(key, position): _renumbered(item, position) for key, item in value.items()}
    if isinstance(value, list):
        return [_renumbered(item, position) for item in value]
    return value


def _log_args(request: PlannedRequest, error: EmbedError) -> tuple[int, int, int, str]:
    return request.start, request.stop, error.attempts, kind_of(error)


def _rows_of(block: SparseBlock) -> Callable[[int], SparseVector]:
    ends = np.cumsum(block.lengths).tolist()

    def own(row: int) -> SparseVector:
        start, stop = ends[row - 1] if row else 0, ends[row]
        tokens = None if block.tokens is None else list(block.tokens[row])
        return SparseVector(block.indices[start:stop].copy(), block.values[start:stop].copy(), tokens)

    return own
