"""Hands the callers of a joined request what is theirs, each as soon as it is there."""

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

    from pinecone_embed_async._coalesce._gather import Batch, Seat
    from pinecone_embed_async._plan import PlannedRequest
    from pinecone_embed_async._results import Dimension
    from pinecone_embed_async._telemetry import ObservedCall
    from pinecone_embed_async._wire import Answer, SparseBlock

_NAMED_INPUT = re.compile(r"<input (\d+)>")


class Answers:
    """Takes the answers for a batch and what became of the texts that have none.

    It is what a ledger and an engine take for the outcomes and the rows. Each caller gets arrays of its own, or an error
    of its own, so that none keeps alive or changes what another has.

    Args:
        batch: whose callers wait.
        dimension: numbers per row.
        counted: called with the vectors that a request gave, once they are handed over.

    Attributes:
        closed_by: the error with which the client was closed; `None` if it was not. What a text met before then is the
            cause of its failure, but no more what its caller is to be told first.
    """

    def __init__(self, batch: Batch, dimension: Dimension, counted: Callable[[int], None] = lambda _: None) -> None:
        # The callers that leave meanwhile leave these lists, too.
        self._seats = list(batch.seats.values())
        self._dimension = dimension
        self._counted = counted
        self._rows: dict[int, NDArray[np.float32]] = {}
        self._blocks: dict[int, SparseBlock] = {}
        self._unsettled = len(self._seats)
        self.closed_by: EmbedError | None = None

    def __repr__(self) -> str:
        return f"<Answers, {self._unsettled} of {len(self._seats)} texts unsettled>"

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""
        return self._dimension.value

    @property
    def calls(self) -> tuple[ObservedCall, ...]:
        """The calls that still wait for it, as the hooks know them."""
        seats = (seat for sharing in self._seats for seat in sharing if seat.outcome is None)
        return tuple(seat.call for seat in seats if seat.call is not None)

    @property
    def is_settled(self) -> bool:
        """Whether every text is embedded or failed."""
        return not self._unsettled

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """A matrix for the rows of a request, out of which the callers' own are copied.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        matrix: NDArray[np.float32] = np.empty((len(request.texts), dimension), np.float32)
        if not request.is_probe:
            self._dimension.settle(dimension)
            self._rows[request.start] = matrix
        return matrix

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """The positions of its inputs, if they are not side by side."""
        return request.positions if request.holes else None

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Keep the rows of an answer if they are sparse; dense ones are in place."""
        if answer.sparse is not None and not request.is_probe:
            self._blocks[request.start] = answer.sparse

    def embedded(self, request: PlannedRequest) -> None:
        """Hand over the rows of a request."""
        block = self._blocks.pop(request.start, None)
        matrix = self._rows.pop(request.start, None)
        sparse_row = _rows_of(block) if block is not None else None
        handed_over = 0
        for row, position in enumerate(request.positions):
            for seat in self._seats[position]:
                if seat.outcome is None:
                    handed_over += 1
                    if sparse_row is not None:
                        seat.settle(sparse_row(row))
                    elif matrix is not None:
                        seat.settle(matrix[row].copy())
        # At the end: should anything before have failed, the request is told of as failed.
        self._unsettled -= len(request.texts)
        if handed_over:
            self._counted(handed_over)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Give each caller of a request that failed for good the error as its own."""
        logger.warning("joined inputs %d:%d failed after %d attempts: %s", *_described(request, error))
        self._unsettled -= len(request.texts)
        self._rows.pop(request.start, None)
        for position in request.positions:
            for seat in self._seats[position]:
                seat.settle(self._error_of(error, position))

    def out_of_time(self, seat: Seat, error: EmbedError) -> None:
        """Give one caller the error of its own deadline."""
        position = self.position_of(seat)
        seat.settle(own_error(error, position, is_failure=error.attempts > 0))

    def position_of(self, seat: Seat) -> int:
        """Where a caller's text is in the request."""
        return next(position for position, seats in enumerate(self._seats) if seat in seats)

    def give_up(self, error: EmbedError) -> None:
        """Give the callers whose texts were not tried the error that ended the job."""
        for position, seats in enumerate(self._seats):
            for seat in seats:
                seat.settle(own_error(error, position, is_failure=False))

    def break_off(self, fault: BaseException | None) -> None:
        """Give the callers that still wait an error of this package's own doing."""
        for seats in self._seats:
            for seat in seats:
                if seat.outcome is None:
                    seat.settle(unexpected_error(fault or RuntimeError()))

    def _error_of(self, error: EmbedError, position: int) -> EmbedError:
        own = own_error(error, position, is_failure=True)
        if self.closed_by is None:
            return own
        closed = own_error(self.closed_by, position, is_failure=False)
        closed.failures = (Failure((0,), own),)
        return closed


def own_error(error: EmbedError, position: int, *, is_failure: bool) -> EmbedError:
    """The error for the caller of one text of a joined request, sharing nothing with those of the others.

    Args:
        error: that several may have met.
        position: of the text in the joined request, by which messages name it; for its caller it is input 0.
        is_failure: whether it is about this text, rather than having kept it from being tried.
    """
    own = copy.copy(error)
    own.partial = own.batch = None
    own.__cause__ = copy.copy(error.__cause__)
    own.args = (_renamed(error.message, position), *error.args[1:])
    own.failures = (Failure((0,), own),) if is_failure else ()
    if isinstance(own, ApiError):
        own.details = _renamed(own.details, position)
    if hasattr(error, "__notes__"):
        own.__notes__ = list(error.__notes__)
    return own


def _renamed(value: Any, position: int) -> Any:
    """The words of the service, in which the inputs are called by their positions in the joined request."""
    if isinstance(value, str):
        return _NAMED_INPUT.sub(lambda found: "<input 0>" if int(found[1]) == position else "<another input>", value)
    if isinstance(value, dict):
        return {_renamed(key, position): _renamed(item, position) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, position) for item in value]
    return value


def _described(request: PlannedRequest, error: EmbedError) -> tuple[int, int, int, str]:
    return request.start, request.stop, error.attempts, kind_of(error)


def _rows_of(block: SparseBlock) -> Callable[[int], SparseVector]:
    ends = np.cumsum(block.lengths).tolist()

    def own(row: int) -> SparseVector:
        start, stop = ends[row - 1] if row else 0, ends[row]
        tokens = None if block.tokens is None else list(block.tokens[row])
        return SparseVector(block.indices[start:stop].copy(), block.values[start:stop].copy(), tokens)

    return own
