"""The batches of a stream, from reading to delivery. Plain synchronous code."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._planning import PlannedRequest
from pinecone_embed_async._results import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._cache import Found
    from pinecone_embed_async._errors import EmbedError, Failure
    from pinecone_embed_async._planning import LearnedLimits, PackedTexts
    from pinecone_embed_async._results import DenseEmbeddings, Dimension
    from pinecone_embed_async._wire import Answer

ItemT = TypeVar("ItemT")
EmbeddingsT = TypeVar("EmbeddingsT")


@dataclass(frozen=True, slots=True, repr=False)
class EmbeddedBatch(Generic[ItemT, EmbeddingsT]):
    """Some of a stream's items, with their embeddings.

    Attributes:
        start: position of the first item in the stream.
        items: items of the source, in its order.
        embeddings: the result, with one row per item.
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
        """Usage billed for the batch."""
        usage: Usage = self.embeddings.usage
        return usage

    @property
    def failures(self: EmbeddedBatch[Any, Any]) -> tuple[Failure, ...]:
        """The failed items, grouped by cause; indices are rows of this batch."""
        failures: tuple[Failure, ...] = self.embeddings.failures
        return failures


class PendingBatch(ResultBuilder):
    """A batch of a stream that was read but not delivered yet.

    Args:
        batches: the stream's batches, which count the outcomes of this one.
        start: position of the first item in the stream.
        items: items of the source.

    Attributes:
        items: items of the source.
    """

    def __init__(self, batches: StreamBatches, start: int, items: list[Any]) -> None:
        super().__init__(start, len(items), batches.dimension)
        self._batches = batches
        self.items = items

    def answered(self, request: PlannedRequest, answer: Answer) -> None:
        """Add the usage of an answer to the batch and to the stream."""
        super().answered(request, answer)
        self._batches.usage = self._batches.usage.plus(answer.total_tokens)

    def embedded(self, request: PlannedRequest) -> None:
        """Store the rows of an answered request."""
        super().embedded(request)
        self._batches.embedded_count += len(request.texts)

    def fail(self, rows: Sequence[int], error: EmbedError) -> None:
        """Record the failure of the items of these rows."""
        super().fail(rows, error)
        self._batches.failed_count += len(rows)

    def found(self, found: Found, rows: NDArray[np.intp]) -> None:
        """Add vectors found in the cache for the items of these rows."""
        super().found(found, rows)
        self._batches.cached_count += len(rows)
        self._batches.embedded_count += len(rows)


class StreamBatches:
    """The batches of a stream, from reading to delivery, and its inputs that are not sent yet.

    Args:
        dimension: numbers per row.
        limits: limits of one request.
        ordered: whether batches are delivered in the order of the source rather than as they complete.
        looks_up: whether batches are looked up in the cache before they are sent.

    Attributes:
        dimension: numbers per row.
        usage: usage billed so far.
        embedded_count: items embedded so far.
        failed_count: items failed so far.
        cached_count: items whose rows came from the cache.
    """

    def __init__(self, dimension: Dimension, limits: LearnedLimits, *, ordered: bool, looks_up: bool) -> None:
        self.dimension = dimension
        self._limits = limits
        self._ordered = ordered
        self._looks_up = looks_up
        self._to_look_up: deque[PlannedRequest] = deque()
        self._to_send: deque[PlannedRequest] = deque()
        self._batches: dict[int, PendingBatch] = {}
        self.usage = Usage()
        self.embedded_count = 0
        self.failed_count = 0
        self.cached_count = 0

    def __repr__(self) -> str:
        return f"<StreamBatches {len(self)} read ahead>"

    def __len__(self) -> int:
        """Number of batches that were read but not delivered."""
        return len(self._batches)

    def add(self, packed: PackedTexts, items: list[Any]) -> None:
        """Add a batch to send as one request."""
        batch = self._batches[packed.start] = PendingBatch(self, packed.start, items)
        positions = range(packed.start, packed.start + len(items))
        request = PlannedRequest(packed.texts, positions, packed.load, self._limits, batch)
        (self._to_look_up if self._looks_up else self._to_send).append(request)

    def add_failed(self, start: int, item: Any, error: EmbedError) -> None:
        """Add a batch of one item that cannot be sent."""
        batch = self._batches[start] = PendingBatch(self, start, [item])
        batch.fail([0], error)

    def next_to_look_up(self) -> PlannedRequest | None:
        """The request of the next batch to look up in the cache; `None` if there is none now."""
        return self._to_look_up.popleft() if self._to_look_up else None

    def looked_up(self, request: PlannedRequest, found: Found) -> None:
        """Add the rows of a batch found in the cache, and queue the missing ones for sending."""
        batch = self._batches.get(request.positions[0])
        if batch is None:
            # The job has ended meanwhile.
            return
        missing = found.missing.tolist()
        if len(missing) < found.count:
            batch.found(found, found.rows)
            if not missing:
                return
            request = request.only(missing)
        self._to_send.append(request)

    def take(self) -> PlannedRequest | None:
        """Take the next request to send; `None` if there is none now."""
        return self._to_send.popleft() if self._to_send else None

    def give_back(self, rest: PlannedRequest) -> None:
        """Give back what was cut off from the request taken last."""
        self._to_send.appendleft(rest)

    def next_done(self, *, only_complete: bool = False) -> PendingBatch | None:
        """Take the next batch to deliver, of several that are done the first of the source; `None` if there is none now.

        Args:
            only_complete: whether to take only a batch that is fully embedded.
        """
        for batch in self._batches.values():
            if batch.is_complete or (batch.is_settled and not only_complete):
                del self._batches[batch.start]
                return batch
            if self._ordered:
                break
        return None

    def drain(self) -> list[PendingBatch]:
        """Take the remaining batches of an ended job, complete ones first; drop those that were never tried."""
        tried = [batch for batch in self._batches.values() if batch.embedded_count + batch.failed_count]
        for container in (self._batches, self._to_send, self._to_look_up):
            container.clear()
        return sorted(tried, key=lambda batch: not batch.is_complete)
