"""The batches of a stream from reading to delivery. Plain synchronous code."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._planning import plan_request
from pinecone_embed_async._results import Dimension, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._cache import Found
    from pinecone_embed_async._errors import EmbedError, Failure
    from pinecone_embed_async._planning import PlannedRequest, RequestLimits
    from pinecone_embed_async._results import DenseEmbeddings
    from pinecone_embed_async._wire import Answer

ItemT = TypeVar("ItemT")
EmbeddingsT = TypeVar("EmbeddingsT")


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddedBatch(Generic[ItemT, EmbeddingsT]):
    """Some of a stream's items, with their embeddings.

    Attributes:
        start: position in the stream of the first item.
        items: items of the source, in its order.
        embeddings: a row for each item.
    """

    start: int
    items: Sequence[ItemT]
    embeddings: EmbeddingsT

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"<EmbeddedBatch {self.start}:{self.start + len(self.items)}, {self.embeddings!r}>"

    @property
    def vectors(self: EmbeddedBatch[Any, DenseEmbeddings]) -> NDArray[np.float32]:
        """Float32, shape (items, dimension); row i belongs to `items[i]`. For dense models."""
        return self.embeddings.vectors

    @property
    def usage(self: EmbeddedBatch[Any, Any]) -> Usage:
        """Usage billed for it."""
        usage: Usage = self.embeddings.usage
        return usage

    @property
    def failures(self: EmbeddedBatch[Any, Any]) -> tuple[Failure, ...]:
        """The items that failed, each group with its cause; indices are rows of this batch."""
        failures: tuple[Failure, ...] = self.embeddings.failures
        return failures


class PendingBatch:
    """A batch that was read but not delivered yet.

    Attributes:
        start: position in the stream of the first item.
        items: items of the source.
        builder: builds its result.
    """

    __slots__ = ("builder", "items", "start")

    def __init__(self, start: int, items: list[Any], dimension: Dimension) -> None:
        self.start = start
        self.items = items
        self.builder = ResultBuilder(start, len(items), dimension)

    @property
    def is_complete(self) -> bool:
        """Whether every item is embedded."""
        return self.builder.account.embedded_count == len(self.items)


class PendingRequests:
    """The requests of a stream that were never sent.

    Args:
        limits: limits of one request.
    """

    def __init__(self, limits: Callable[[], RequestLimits]) -> None:
        self._limits = limits
        self._requests: deque[PlannedRequest] = deque()

    def add(self, request: PlannedRequest) -> None:
        """Append a request."""
        self._requests.append(request)

    def ahead(self) -> PlannedRequest | None:
        """The next request, without taking it; `None` if there is none now."""
        return self._requests[0] if self._requests else None

    def take(self, tokens: int | None = None) -> PlannedRequest | None:
        """Take the next request, cut to `tokens` if given; `None` if there is none now, or its first input has more."""
        if not self._requests:
            return None
        if tokens is None:
            return self._requests.popleft()
        head, rest = self._requests[0].cut(tokens, self._limits())
        if head is not None:
            self._requests.popleft()
            if rest is not None:
                self._requests.appendleft(rest)
        return head

    def clear(self) -> None:
        """Drop all requests."""
        self._requests.clear()


class StreamResults:
    """The results of a stream, held in batches from reading to delivery.

    It is the sink and the outcome recorder of the whole stream.

    Args:
        dimension: numbers per row.
        limits: limits of one request.
        ordered: whether batches are delivered in the order of the source, or else as they complete.
        looks_up: whether batches are looked up in the cache before they are sent.

    Attributes:
        pending: requests that were never sent.
        usage: usage billed so far.
        embedded_count: items embedded so far.
        failed_count: items failed so far.
        cached_count: items whose rows came from the cache.
    """

    def __init__(
        self, dimension: Dimension, limits: Callable[[], RequestLimits], *, ordered: bool, looks_up: bool = False
    ) -> None:
        self._dimension = dimension
        self._limits = limits
        self._ordered = ordered
        self._looks_up = looks_up
        self._to_look_up: deque[PlannedRequest] = deque()
        self.pending = PendingRequests(limits)
        self._batches: dict[int, PendingBatch] = {}
        self._done: deque[PendingBatch] = deque()
        self.usage = Usage()
        self.embedded_count = 0
        self.failed_count = 0
        self.cached_count = 0

    def __repr__(self) -> str:
        return f"<StreamResults {len(self)} read ahead, {len(self._done)} done>"

    def __len__(self) -> int:
        """Number of batches read but not delivered."""
        return len(self._batches)

    @property
    def dimension(self) -> int | None:
        """Numbers per row; `None` if still unknown."""
        return self._dimension.value

    def add(self, request: PlannedRequest, items: list[Any]) -> None:
        """Add a batch to send as one request."""
        self._batches[request.start] = PendingBatch(request.start, items, self._dimension)
        if self._looks_up:
            self._to_look_up.append(request)
        else:
            self.pending.add(request)

    def next_to_look_up(self) -> PlannedRequest | None:
        """The next batch to look up, as a request; `None` if there is none now."""
        return self._to_look_up.popleft() if self._to_look_up else None

    def looked_up(self, request: PlannedRequest, found: Found) -> None:
        """Add the rows of a batch found in the cache; the missing ones are to be sent."""
        batch = self._batches.get(request.start)
        if batch is None:
            # The job has ended meanwhile.
            return
        missing = found.missing
        if len(missing) == found.count:
            self.pending.add(request)
            return
        batch.builder.found(found)
        batch.builder.limit_to(missing)
        self.embedded_count += len(found.rows)
        self.cached_count += len(found.rows)
        if len(missing):
            texts = [request.texts[row] for row in missing.tolist()]
            self.pending.add(plan_request(texts, request.start, self._limits(), origin=request.start))
        else:
            self._settle(batch)

    def add_failed(self, start: int, item: Any, error: EmbedError) -> None:
        """Add a batch of one item that cannot be sent."""
        batch = self._batches[start] = PendingBatch(start, [item], self._dimension)
        batch.builder.account.failed(0, 1, error)
        self.failed_count += 1
        self._settle(batch)

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix for the rows of a request; a throw-away matrix for a probe.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        if request.is_probe:
            return np.empty((len(request.texts), dimension), np.float32)
        return self._batches[request.origin].builder.rows(request, dimension)

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """The positions of its inputs in the stream; `None` if they are contiguous."""
        return None if request.is_probe else self._batches[request.origin].builder.names(request)

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Add the usage of an answer, and store its rows."""
        self.usage = self.usage.plus(answer.total_tokens)
        if not request.is_probe:
            self._batches[request.origin].builder.answered(request, answer)

    def embedded(self, request: PlannedRequest) -> None:
        """Note that the rows of a request are in place."""
        self.embedded_count += len(request.texts)
        batch = self._batches[request.origin]
        batch.builder.embedded(request)
        self._settle(batch)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Note that a request failed for good."""
        self.failed_count += len(request.texts)
        batch = self._batches[request.origin]
        batch.builder.failed(request, error)
        self._settle(batch)

    def take(self, accept: Callable[[PendingBatch], bool] = lambda _: True) -> PendingBatch | None:
        """Take the next batch to deliver; `None` if there is none now.

        Args:
            accept: whether the next batch may be delivered now.
        """
        if self._ordered:
            batch = next(iter(self._batches.values()), None)
            if batch is None or not batch.builder.account.is_settled or not accept(batch):
                return None
        else:
            if not self._done or not accept(self._done[0]):
                return None
            batch = self._done.popleft()
        del self._batches[batch.start]
        return batch

    def drain(self) -> list[PendingBatch]:
        """Take the remaining batches of an ended job, complete ones first; untried ones are dropped."""
        remaining = list(self._batches.values())
        self._batches.clear()
        self._done.clear()
        self.pending.clear()
        self._to_look_up.clear()
        complete = [batch for batch in remaining if batch.is_complete]
        return complete + [batch for batch in remaining if not batch.is_complete and _was_tried(batch)]

    def _settle(self, batch: PendingBatch) -> None:
        if not self._ordered and batch.builder.account.is_settled:
            self._done.append(batch)


def _was_tried(batch: PendingBatch) -> bool:
    outcomes = batch.builder.account
    return outcomes.embedded_count + outcomes.failed_count > 0
