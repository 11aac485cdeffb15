"""What a call gives back: float32 rows, or compressed sparse rows, with what they cost and what failed."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._errors import EmbedError, Failure, ResponseError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._wire import SparseBlock


@dataclass(frozen=True, slots=True)
class Usage:
    """What the answers of a call add up to.

    Attributes:
        total_tokens: tokens billed, as far as the answers say.
        requests: requests that were answered with embeddings.
        unreported: how many of those did not say what they cost.
    """

    total_tokens: int = 0
    requests: int = 0
    unreported: int = 0

    def plus(self, total_tokens: int | None) -> Usage:
        """This usage and one more answered request's; `None` if the answer did not say."""
        return Usage(
            self.total_tokens + (total_tokens or 0),
            self.requests + 1,
            self.unreported + (total_tokens is None),
        )


class _Embeddings:
    """What dense and sparse results have in common."""

    __slots__ = ("embedded", "failures", "model", "usage")

    def __init__(self, model: str, usage: Usage, failures: tuple[Failure, ...], embedded: NDArray[np.bool_]) -> None:
        self.model = model
        self.usage = usage
        self.failures = failures
        self.embedded = embedded

    def __len__(self) -> int:
        return len(self.embedded)

    @property
    def not_tried(self) -> NDArray[np.intp]:
        """Positions of the inputs that were neither embedded nor failed: the job ended before their turn."""
        open_ = ~self.embedded
        for failure in self.failures:
            open_[np.asarray(failure.indices, dtype=np.intp)] = False
        return np.flatnonzero(open_)

    def _spread_failures(self, positions: NDArray[np.intp]) -> tuple[Failure, ...]:
        cause = np.full(len(self), -1, np.intp)
        for number, failure in enumerate(self.failures):
            cause[np.asarray(failure.indices, dtype=np.intp)] = number
        causes = cause[positions]
        # Sorted once, rather than looked through for each failure: there may be as many as inputs.
        order = np.argsort(causes, kind="stable")
        ends = np.searchsorted(causes[order], np.arange(len(self.failures) + 1)).tolist()
        spread = (
            Failure(order[ends[number] : ends[number + 1]].tolist(), failure.error)
            for number, failure in enumerate(self.failures)
        )
        return tuple(sorted(spread, key=lambda failure: failure.indices[0]))

    def _summary(self) -> str:
        missing = len(self) - int(self.embedded.sum())
        tail = f", missing={missing}" if missing else ""
        return f"model={self.model!r}, tokens={self.usage.total_tokens}, requests={self.usage.requests}{tail}"

    def _record_ids(
        self, ids: Sequence[str], metadata: Sequence[Mapping[str, Any] | None] | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        if len(ids) != len(self):
            raise ValueError(f"{len(self)} embeddings need as many ids, got {len(ids)}")
        if metadata is not None and len(metadata) != len(self):
            raise ValueError(f"{len(self)} embeddings need as many metadata, got {len(metadata)}")
        for row in np.flatnonzero(self.embedded).tolist():
            record: dict[str, Any] = {"id": ids[row]}
            if metadata is not None and metadata[row] is not None:
                record["metadata"] = dict(metadata[row] or {})
            yield row, record


class DenseEmbeddings(_Embeddings):
    """Dense vectors, a row for each input.

    ```python
    passages = await client.embed(texts, input_type="passage")
    query = await client.embed_one(texts[0], input_type="query")
    scores = passages.vectors @ query
    records = passages.to_records([f"id-{row}" for row in range(len(passages))])
    ```

    Attributes:
        vectors: float32, shape (inputs, dimension); row i belongs to input i, NaN where it is not embedded.
        model: the model that the call asked for.
        usage: what it cost.
        failures: the inputs that failed, each group with its cause.
        embedded: bool, shape (inputs,): which rows hold a vector.
    """

    __slots__ = ("vectors",)

    def __init__(
        self,
        vectors: NDArray[np.float32],
        *,
        model: str,
        usage: Usage,
        failures: tuple[Failure, ...] = (),
        embedded: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__(model, usage, failures, np.ones(len(vectors), np.bool_) if embedded is None else embedded)
        self.vectors = vectors

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        """The vector of one input: float32, shape (dimension,), a view of `vectors`."""
        vector: NDArray[np.float32] = self.vectors[operator.index(row)]
        return vector

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return iter(self.vectors)

    def spread(self, positions: NDArray[np.intp], vectors: NDArray[np.float32] | None = None) -> DenseEmbeddings:
        """A result of which row i is row `positions[i]` of this one; every row of this one must occur.

        Args:
            positions: intp, shape (inputs,).
            vectors: the rows of that result, if they are there already.
        """
        return DenseEmbeddings(
            self.vectors[positions] if vectors is None else vectors,
            model=self.model,
            usage=self.usage,
            failures=self._spread_failures(positions),
            embedded=self.embedded[positions],
        )

    def __repr__(self) -> str:
        return f"<DenseEmbeddings {self.vectors.shape} float32, {self._summary()}>"

    def to_records(
        self, ids: Sequence[str], metadata: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Records as the official SDK's `upsert` takes them: `id`, `values` and, if given, `metadata`.

        Rows that are not embedded are left out.

        Args:
            ids: an id for each input.
            metadata: a mapping or `None` for each input.

        Raises:
            ValueError: there are not as many ids or metadata as inputs.
        """
        return [{**record, "values": self.vectors[row].tolist()} for row, record in self._record_ids(ids, metadata)]


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """One sparse vector.

    Attributes:
        indices: uint32, shape (terms,).
        values: float32, shape (terms,).
        tokens: the terms as text, where the service sent them.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    tokens: list[str] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"<SparseVector of {len(self)} terms>"


class SparseEmbeddings(_Embeddings):
    """Sparse vectors in compressed rows: row i is `indptr[i]` to `indptr[i + 1]` of the flat arrays.

    ```python
    async with EmbedClient("pinecone-sparse-english-v0") as sparse_client:
        passages = await sparse_client.embed(texts, input_type="passage")
        for row, vector in enumerate(passages):
            print(texts[row], vector.indices, vector.values)
    ```

    Attributes:
        indptr: int64, shape (inputs + 1,).
        indices: uint32, shape (terms,).
        values: float32, shape (terms,).
        tokens: a list of tokens for each row, parallel to its indices; `None` if the service sent none.
        model: the model that the call asked for.
        usage: what it cost.
        failures: the inputs that failed, each group with its cause.
        embedded: bool, shape (inputs,): which rows were answered; the others are empty.
    """

    __slots__ = ("indices", "indptr", "tokens", "values")

    def __init__(
        self,
        indptr: NDArray[np.int64],
        indices: NDArray[np.uint32],
        values: NDArray[np.float32],
        *,
        model: str,
        usage: Usage,
        tokens: list[list[str]] | None = None,
        failures: tuple[Failure, ...] = (),
        embedded: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__(model, usage, failures, np.ones(len(indptr) - 1, np.bool_) if embedded is None else embedded)
        self.indptr = indptr
        self.indices = indices
        self.values = values
        self.tokens = tokens

    def __getitem__(self, row: int) -> SparseVector:
        """The vector of one input; its arrays are views."""
        row = range(len(self))[operator.index(row)]
        start, stop = int(self.indptr[row]), int(self.indptr[row + 1])
        return SparseVector(
            self.indices[start:stop],
            self.values[start:stop],
            None if self.tokens is None else self.tokens[row],
        )

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"<SparseEmbeddings {len(self)} rows, {len(self.indices)} terms, {self._summary()}>"

    def to_records(
        self, ids: Sequence[str], metadata: Sequence[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Records as the official SDK's `upsert` takes them: `id`, `sparse_values` and, if given, `metadata`.

        Rows that are not embedded are left out.

        Args:
            ids: an id for each input.
            metadata: a mapping or `None` for each input.

        Raises:
            ValueError: there are not as many ids or metadata as inputs.
        """
        records = []
        for row, record in self._record_ids(ids, metadata):
            vector = self[row]
            sparse_values = {"indices": vector.indices.tolist(), "values": vector.values.tolist()}
            records.append({**record, "sparse_values": sparse_values})
        return records

    def spread(self, positions: NDArray[np.intp]) -> SparseEmbeddings:
        """A result of which row i is row `positions[i]` of this one; every row of this one must occur."""
        lengths = np.diff(self.indptr)[positions]
        indptr = np.zeros(len(positions) + 1, np.int64)
        np.cumsum(lengths, out=indptr[1:])
        # Where in this result each number of the new one stands.
        taken = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - self.indptr[positions], lengths)
        return SparseEmbeddings(
            indptr,
            self.indices[taken],
            self.values[taken],
            model=self.model,
            usage=self.usage,
            tokens=None if self.tokens is None else [self.tokens[position] for position in positions.tolist()],
            failures=self._spread_failures(positions),
            embedded=self.embedded[positions],
        )

    def to_scipy(self) -> Any:
        """A `scipy.sparse.csr_array` of shape (inputs, 2**32), sharing the values.

        Raises:
            ModuleNotFoundError: SciPy is not installed.
        """
        from scipy import sparse  # noqa: PLC0415 - optional, and imported only where it is used

        columns = self.indices.astype(np.int64)
        return sparse.csr_array((self.values, columns, self.indptr), shape=(len(self), 2**32))


class Dimension:
    """Numbers per row, the same in all answers of a call or stream.

    Args:
        value: if it is known before; else the first answer tells.
    """

    def __init__(self, value: int | None) -> None:
        self.value = value

    def settle(self, dimension: int) -> None:
        """Take the dimension of an answer.

        Raises:
            ResponseError: an earlier answer had another one.
        """
        if self.value is None:
            self.value = dimension
        elif self.value != dimension:
            raise ResponseError(f"expected {self.value} numbers a row, as in earlier answers, got {dimension}")


SPREAD_BYTES = 2**19
"""Of rows that are copied in one go: a fraction of a millisecond."""


class DenseRows:
    """Collects dense answers: one matrix, allocated once, into which each answer is written in place.

    Args:
        count: inputs of the call.
        dimension: numbers per row.
        room: rows that the matrix has room for, if `spread` is to be called.
    """

    def __init__(self, count: int, dimension: Dimension, room: int | None = None) -> None:
        self._count = count
        self._room = count if room is None else room
        self.dimension = dimension
        self._matrix: NDArray[np.float32] | None = None

    def put(self, positions: NDArray[np.intp] | slice, vectors: NDArray[np.float32]) -> None:
        """Copy vectors to the rows at `positions`.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        self._whole(vectors.shape[1])[positions] = vectors

    def rows(self, start: int, stop: int, dimension: int) -> NDArray[np.float32]:
        """The part of the matrix that inputs `start` to `stop` are written to.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        return self._whole(dimension)[start:stop]

    def _whole(self, dimension: int) -> NDArray[np.float32]:
        self.dimension.settle(dimension)
        if self._matrix is None:
            self._matrix = np.empty((self._room, dimension), np.float32)
        return self._matrix

    def finish(
        self, *, model: str, usage: Usage, failures: tuple[Failure, ...], embedded: NDArray[np.bool_]
    ) -> DenseEmbeddings:
        """The result; rows that are not embedded become NaN."""
        if self._matrix is None:
            self._matrix = np.empty((self._room, self.dimension.value or 0), np.float32)
        matrix = self._matrix if self._room == self._count else self._matrix[: self._count]
        if not embedded.all():
            matrix[~embedded] = np.nan
        return DenseEmbeddings(matrix, model=model, usage=usage, failures=failures, embedded=embedded)

    def spread(self, positions: NDArray[np.intp]) -> Generator[None, None, NDArray[np.float32]]:
        """Have row i be what row `positions[i]` is, in place and in small steps, once the result is finished.

        Args:
            positions: intp, shape (room,): every row occurs, and first in the order of the rows.

        Returns:
            The whole matrix, shape (room, dimension).
        """
        matrix = self._matrix
        if matrix is None:
            raise RuntimeError("the result is not finished")
        at_once = max(1, SPREAD_BYTES // max(1, matrix[:1].nbytes))
        moved = positions != np.arange(len(positions))
        first = int(moved.argmax()) if moved.any() else len(positions)
        # From the end: no row comes before its first place, so what a step writes over is not needed by those after it.
        for stop in range(len(positions), first, -at_once):
            start = max(first, stop - at_once)
            matrix[start:stop] = matrix[positions[start:stop]]
            yield
        return matrix


class SparseRows:
    """Collects sparse rows by their positions.

    Args:
        count: inputs of the call.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._blocks: dict[int, tuple[NDArray[np.intp], SparseBlock]] = {}

    def put(self, positions: NDArray[np.intp], block: SparseBlock) -> None:
        """Keep the rows of the inputs at `positions`, ascending and not empty."""
        self._blocks[int(positions[0])] = positions, block

    def finish(
        self, *, model: str, usage: Usage, failures: tuple[Failure, ...], embedded: NDArray[np.bool_]
    ) -> SparseEmbeddings:
        """The result; rows that are not embedded are empty."""
        blocks = [self._blocks[first] for first in sorted(self._blocks)]
        positions = np.concatenate([np.empty(0, np.intp), *(positions for positions, _ in blocks)])
        lengths = np.concatenate([np.empty(0, np.int64), *(block.lengths for _, block in blocks)])
        indices = np.concatenate([np.empty(0, np.uint32), *(block.indices for _, block in blocks)])
        values = np.concatenate([np.empty(0, np.float32), *(block.values for _, block in blocks)])
        indptr = np.zeros(self._count + 1, np.int64)
        indptr[positions + 1] = lengths
        np.cumsum(indptr, out=indptr)
        if (np.diff(positions) < 0).any():
            # Rows out of the cache and answered ones take turns: each number goes to its row's place.
            place = np.arange(len(indices)) + np.repeat(indptr[positions] - (np.cumsum(lengths) - lengths), lengths)
            ordered_indices, ordered_values = np.empty_like(indices), np.empty_like(values)
            ordered_indices[place], ordered_values[place] = indices, values
            indices, values = ordered_indices, ordered_values
        tokens: list[list[str]] | None = None
        if any(block.tokens is not None for _, block in blocks):
            tokens = [[] for _ in range(self._count)]
            for rows, block in blocks:
                for row, own in zip(rows.tolist(), block.tokens or (), strict=False):
                    tokens[row] = own
        return SparseEmbeddings(
            indptr,
            indices,
            values,
            model=model,
            usage=usage,
            tokens=tokens,
            failures=failures,
            embedded=embedded,
        )


def with_outcome(error: EmbedError, partial: DenseEmbeddings | SparseEmbeddings) -> EmbedError:
    """The error with the embeddings that did succeed and the failures of the call in it."""
    error.partial = partial
    error.failures = partial.failures
    return error
