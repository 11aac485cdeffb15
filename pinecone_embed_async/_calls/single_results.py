"""Delivers the outcomes of a shared request to its callers, each as soon as it is known."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._errors import ApiError, EmbedError, Failure
from pinecone_embed_async._results import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from pinecone_embed_async._calls.coalescer import Coalescer, SharedRequest, Waiter
    from pinecone_embed_async._errors import DeadlineExceededError
    from pinecone_embed_async._planning import PlannedRequest
    from pinecone_embed_async._results import Dimension
    from pinecone_embed_async._sending import Counters
    from pinecone_embed_async._telemetry import ObservedCall

_NAMED_INPUT = re.compile(r"<input (\d+)>")


class SingleResults(ResultBuilder):
    """The results of a shared request, delivered to its callers as soon as they are known.

    Each caller gets its own arrays, or its own error, so that no caller changes or keeps alive those of another.

    Args:
        shared: the request whose callers wait.
        dimension: numbers per row.
        counters: counts of the client; updated here.
        coalescer: where other callers join the next request.

    Attributes:
        closed_by: the error with which the client was closed; `None` if it is open. A caller whose text fails after that
            gets this error, with the failure in its `failures`.
    """

    def __init__(self, shared: SharedRequest, dimension: Dimension, counters: Counters, coalescer: Coalescer) -> None:
        super().__init__(0, len(shared.waiters), dimension)
        # The same lists as in the request, so that a caller that leaves is removed here too.
        self._waiters = list(shared.waiters.values())
        self._counters = counters
        self._key, self._coalescer = shared.key, coalescer
        self.closed_by: EmbedError | None = None

    @property
    def calls(self) -> tuple[ObservedCall, ...]:
        """The calls that still wait, as hooks see them."""
        return tuple(waiter.call for waiter in self._waiting() if waiter.call is not None)

    @property
    def next_deadline(self) -> float | None:
        """The earliest deadline (a clock time) of the calls that still wait; `None` if none of them has one."""
        return min([waiter.deadline for waiter in self._waiting() if waiter.deadline is not None], default=None)

    def waiting(self) -> AbstractContextManager[None]:
        """See `Callers.waiting`: meanwhile other callers share the next request."""
        return self._coalescer.waiting(self._key, self.next_deadline)

    def dismiss_late(self, until: float, error: DeadlineExceededError) -> bool:
        """End the calls whose deadline is not after `until`; return whether none is left."""
        for waiter in self._waiting():
            if waiter.deadline is not None and waiter.deadline <= until:
                self.timed_out(waiter, error)
        return next(self._waiting(), None) is None

    def _waiting(self) -> Iterator[Waiter]:
        return (waiter for sharing in self._waiters for waiter in sharing if waiter.is_waiting)

    def embedded(self, request: PlannedRequest) -> None:
        """Deliver the rows of an answered request."""
        vector_of = _vectors_of(request)
        delivered = 0
        for row, position in enumerate(request.positions):
            for waiter in self._waiters[position]:
                if waiter.is_waiting:
                    delivered += 1
                    waiter.settle(vector_of(row))
        # Do this last: if anything above raises, the request is recorded as failed instead.
        super().embedded(request)
        if delivered:
            self._counters.joined += delivered
            self._counters.joined_requests += 1

    def fail(self, rows: Sequence[int], error: EmbedError) -> None:
        """Deliver to each caller of these texts its own copy of the error."""
        for row in rows:
            for waiter in self._waiters[row]:
                own = own_error(error, row, is_failure=True)
                if self.closed_by is not None:
                    failure = Failure((0,), own)
                    own = own_error(self.closed_by, row, is_failure=False)
                    own.failures = (failure,)
                waiter.settle(own)
        # Do this last, too: a request that counts as settled leaves nobody waiting.
        super().fail(rows, error)

    def timed_out(self, waiter: Waiter, error: EmbedError) -> None:
        """Settle one caller with the error for its deadline."""
        waiter.settle(own_error(error, self.position_of(waiter), is_failure=error.attempts > 0))

    def position_of(self, waiter: Waiter) -> int:
        """The position of a caller's text in the request."""
        return next(position for position, waiters in enumerate(self._waiters) if waiter in waiters)

    def not_tried(self, error: EmbedError) -> None:
        """Settle the callers that still wait, whose texts were not tried, with the error that ended the request."""
        for waiter in self._waiting():
            waiter.settle(own_error(error, self.position_of(waiter), is_failure=False))


def own_error(error: EmbedError, position: int, *, is_failure: bool) -> EmbedError:
    """A copy of an error for the caller of one text of a shared request; shares nothing with the other copies.

    Args:
        error: the error, which may be about several texts.
        position: position of the text in the shared request; the copy's messages call it input 0.
        is_failure: whether this text failed; if not, the error kept it from being tried.
    """
    own = copy.copy(error)
    own.partial = own.batch = None
    cause = error.__cause__
    # An exception of other code may not be made to be copied.
    own.__cause__ = own_error(cause, position, is_failure=False) if isinstance(cause, EmbedError) else cause
    own.args = (_renumbered(error.message, position), *error.args[1:])
    own.failures = (Failure((0,), own),) if is_failure else ()
    if isinstance(own, ApiError):
        own.details = _renumbered(own.details, position)
    if hasattr(error, "__notes__"):
        own.__notes__ = list(error.__notes__)
    return own


def _renumbered(value: Any, position: int) -> Any:
    """A message or details of the service, with the caller's text renumbered as input 0, and other texts unnumbered."""
    if isinstance(value, str):
        return _NAMED_INPUT.sub(lambda found: "<input 0>" if int(found[1]) == position else "<another input>", value)
    if isinstance(value, dict):
        return {_renumbered(key, position): _renumbered(item, position) for key, item in value.items()}
    if isinstance(value, list):
        return [_renumbered(item, position) for item in value]
    return value


def _vectors_of(request: PlannedRequest) -> Callable[[int], NDArray[np.float32] | SparseVector]:
    """The function that gives a caller's own copy of a row of an answered request."""
    block, matrix = request.sparse, request.matrix
    if block is None:
        return lambda row: matrix[row].copy()  # type: ignore[index]
    ends = np.cumsum(block.lengths).tolist()

    def own(row: int) -> SparseVector:
        start, stop = ends[row - 1] if row else 0, ends[row]
        tokens = None if block.tokens is None else list(block.tokens[row])
        return SparseVector(block.indices[start:stop].copy(), block.values[start:stop].copy(), tokens)

    return own
