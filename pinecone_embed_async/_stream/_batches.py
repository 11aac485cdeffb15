"""The batches of a stream between their reading and their delivery. Plain synchronous code."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from pinecone_embed_async._collector import Collector
from pinecone_embed_async._plan import plan_request
from pinecone_embed_async._results import Dimension, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._cache import Found
    from pinecone_embed_async._errors import EmbedError, Failure
    from pinecone_embed_async._plan import PlannedRequest, RequestLimits
    from pinecone_embed_async._results import DenseEmbeddings
    from pinecone_embed_async._wire import Answer

ItemT = TypeVar("ItemT")
EmbeddingsT = TypeVar("EmbeddingsT")


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddedBatch(Generic[ItemT, EmbeddingsT]):
    """Some of a stream's items, with their embeddings.

    Attributes:
        start: position in the stream of the first item.
        items: what the source gave, in its order.
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
        """What it cost."""
        usage: Usage = self.embeddings.usage
        return usage

    @property
    def failures(self: EmbeddedBatch[Any, Any]) -> tuple[Failure, ...]:
        """The items that failed, each group with its cause; indices are rows of this batch."""
        failures: tuple[Failure, ...] = self.embeddings.failures
        return failures


class OpenBatch:
    """A batch that has been read and not been delivered.

    Attributes:
        start: position in the stream of the first item.
        items: what the source gave.
        collector: takes the answers.
    """

    __slots__ = ("collector", "items", "start")

    def __init__(self, start: int, items: list[Any], dimension: Dimension) -> None:
        self.start = start
        self.items = items
        self.collector = Collector(start, len(items), dimension)

    @property
    def is_complete(self) -> bool:
        """Whether every item is embedded."""
        return self.collector.account.embedded_count == len(self.items)


class Unsent:
    """The requests of a stream that were never sent.

    Args:
        limits: what one request may hold.
    """

    def __init__(self, limits: Callable[[], RequestLimits]) -> None:
        self._limits = limits
        self._requests: deque[PlannedRequest] = deque()

    def add(self, request: PlannedRequest) -> None:
        """Add one behind the others."""
        self._requests.append(request)

    def ahead(self) -> PlannedRequest | None:
        """The next one, which stays the next; `None` if there is none now."""
        return self._requests[0] if self._requests else None

    def take(self, tokens: int | None = None) -> PlannedRequest | None:
        """The next one, cut to `tokens` if it has more; `None` if there is none now, or its first input has more."""
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
        """Forget them."""
        self._requests.clear()


class Batches:
    """Keeps the batches of a stream from when they are read until they are delivered.

    It is what a ledger and an engine take for the outcomes and the rows of the whole stream.

    Args:
        dimension: numbers per row.
        limits: what one request may hold.
        ordered: whether batches are delivered in the order in which they were read, or as they are done.
        looks_up: whether a batch is looked up before it is sent.

    Attributes:
        unsent: the requests that were never sent.
        usage: what all answers so far have cost.
        embedded_count: items embedded so far.
        failed_count: items failed so far.
        cached_count: items whose rows came out of a cache.
    """

    def __init__(
        self, dimension: Dimension, limits: Callable[[], RequestLimits], *, ordered: bool, looks_up: bool = False
    ) -> None:
        self._dimension = dimension
        self._limits = limits
        self._ordered = ordered
        self._looks_up = looks_up
        self._unlooked: deque[PlannedRequest] = deque()
        self.unsent = Unsent(limits)
        self._open: dict[int, OpenBatch] = {}
        self._done: deque[OpenBatch] = deque()
        self.usage = Usage()
        self.embedded_count = 0
        self.failed_count = 0
        self.cached_count = 0

    def __repr__(self) -> str:
        return f"<Batches {len(self)} read ahead, {len(self._done)} done>"

    def __len__(self) -> int:
        """Batches that have been read and not been delivered."""
        return len(self._open)

    @property
    def dimension(self) -> int | None:
        """Numbers per row, as far as known by now."""
        return self._dimension.value

    def add(self, request: PlannedRequest, items: list[Any]) -> None:
        """Add a batch that is to be sent as one request."""
        self._open[request.start] = OpenBatch(request.start, items, self._dimension)
        if self._looks_up:
            self._unlooked.append(request)
        else:
            self.unsent.add(request)

    def next_unlooked(self) -> PlannedRequest | None:
        """The next batch to look up, as a request; `None` if there is none now."""
        return self._unlooked.popleft() if self._unlooked else None

    def looked_up(self, request: PlannedRequest, found: Found) -> None:
        """Take what a cache had of a batch: what it did not have is to be sent."""
        batch = self._open.get(request.start)
        if batch is None:
            # The job has ended meanwhile.
            return
        missing = found.missing
        if len(missing) == found.count:
            self.unsent.add(request)
            return
        batch.collector.found(found)
        batch.collector.limit_to(missing)
        self.embedded_count += len(found.rows)
        self.cached_count += len(found.rows)
        if len(missing):
            texts = [request.texts[row] for row in missing.tolist()]
            self.unsent.add(plan_request(texts, request.start, self._limits(), origin=request.start))
        else:
            self._settle(batch)

    def add_failed(self, start: int, item: Any, error: EmbedError) -> None:
        """Add a batch of a single item that cannot be sent."""
        batch = self._open[start] = OpenBatch(start, [item], self._dimension)
        batch.collector.account.failed(0, 1, error)
        self.failed_count += 1
        self._settle(batch)

    def rows(self, request: PlannedRequest, dimension: int) -> NDArray[np.float32]:
        """The matrix that the rows of a request are written to; one that is thrown away for a probe.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        if request.is_probe:
            return np.empty((len(request.texts), dimension), np.float32)
        return self._open[request.origin].collector.rows(request, dimension)

    def names(self, request: PlannedRequest) -> Sequence[int] | None:
        """The positions in the stream of its inputs, if they are not side by side."""
        return None if request.is_probe else self._open[request.origin].collector.names(request)

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Count what an answer has cost and keep its rows."""
        self.usage = self.usage.plus(answer.total_tokens)
        if not request.is_probe:
            self._open[request.origin].collector.answered(request, answer)

    def embedded(self, request: PlannedRequest) -> None:
        """Note that the rows of a request are in place."""
        self.embedded_count += len(request.texts)
        batch = self._open[request.origin]
        batch.collector.embedded(request)
        self._settle(batch)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        """Note that a request failed for good."""
        self.failed_count += len(request.texts)
        batch = self._open[request.origin]
        batch.collector.failed(request, error)
        self._settle(batch)

    def take(self, accept: Callable[[OpenBatch], bool] = lambda _: True) -> OpenBatch | None:
        """The next batch to deliver; `None` if there is none now.

        Args:
            accept: if the next one is not accepted, there is none now.
        """
        if self._ordered:
            batch = next(iter(self._open.values()), None)
            if batch is None or not batch.collector.account.is_settled or not accept(batch):
                return None
        else:
            if not self._done or not accept(self._done[0]):
                return None
            batch = self._done.popleft()
        del self._open[batch.start]
        return batch

    def drain(self) -> list[OpenBatch]:
        """Take what is left of a job that has ended: first what is complete, then what is not; untried ones go."""
        left = list(self._open.values())
        self._open.clear()
        self._done.clear()
        self.unsent.clear()
        self._unlooked.clear()
        complete = [batch for batch in left if batch.is_complete]
        return complete + [batch for batch in left if not batch.is_complete and _was_tried(batch)]

    def _settle(self, batch: OpenBatch) -> None:
        if not self._ordered and batch.collector.account.is_settled:
            self._done.append(batch)


def _was_tried(batch: OpenBatch) -> bool:
    account = batch.collector.account
    return account.embedded_count + account.failed_count > 0
