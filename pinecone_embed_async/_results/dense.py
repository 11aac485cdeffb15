"""Dense results: a matrix with a row for each input."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._results.embeddings import SPREAD_BYTES, Embeddings

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from pinecone_embed_async._errors import Failure
    from pinecone_embed_async._results.embeddings import Usage


class DenseEmbeddings(Embeddings):
    """Dense vectors, a row for each input.

    ```python
    passages = await client.embed(texts, input_type="passage")
    query = await client.embed_one(texts[0], input_type="query")
    scores = passages.vectors @ query
    records = passages.to_records([f"id-{row}" for row in range(len(passages))])
    ```

    Attributes:
        vectors: float32, shape (inputs, dimension); row i belongs to input i, NaN where it is not embedded.
        model: the call's model.
        usage: usage of the call.
        failures: the failed inputs, grouped by cause.
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
        super().__init__(len(vectors), model, usage, failures, embedded)
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
            vectors: the rows of the new result, if they exist already.
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
        self, ids: Iterable[str], metadata: Iterable[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Records as the official SDK's `upsert` takes them: `id`, `values` and, if passed, `metadata`.

        Rows that are not embedded are left out.

        Args:
            ids: an id for each input, in their order, whatever labels a series of pandas has.
            metadata: a mapping or `None` for each input, in their order.

        Raises:
            ConfigurationError: there are not as many ids or metadata as inputs, they have no order, or an id is no text or
                empty. Also a `ValueError`.
        """
        return [{**record, "values": self.vectors[row].tolist()} for row, record in self._records(ids, metadata)]


class Dimension:
    """Numbers per row, the same in all answers of a call or stream.

    Args:
        value: the dimension; `None` if the first answer decides.
    """

    def __init__(self, value: int | None) -> None:
        self.value = value

    def settle(self, dimension: int) -> None:
        """Set or check the dimension of an answer.

        Raises:
            ResponseError: an earlier answer had another one.
        """
        if self.value is None:
            self.value = dimension
        elif self.value != dimension:
            raise ResponseError(f"expected {self.value} numbers a row, as in earlier answers, got {dimension}")


class DenseRows:
    """Collects dense answers in one matrix, allocated once, into which each answer is written in place.

    Args:
        count: inputs of the call.
        dimension: numbers per row.
        room: rows of the matrix, if `spread` will be called; `count` by default.
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
        self.dimension.settle(vectors.shape[1])
        self._whole()[positions] = vectors

    def rows(self, start: int, stop: int, dimension: int) -> NDArray[np.float32]:
        """The part of the matrix for inputs `start` to `stop`.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        self.dimension.settle(dimension)
        return self._whole()[start:stop]

    def _whole(self) -> NDArray[np.float32]:
        if self._matrix is None:
            self._matrix = np.empty((self._room, self.dimension.value or 0), np.float32)
        return self._matrix

    def finish(
        self, *, model: str, usage: Usage, failures: tuple[Failure, ...], embedded: NDArray[np.bool_]
    ) -> Generator[None, None, DenseEmbeddings]:
        """Build the result in small steps; rows that are not embedded become NaN."""
        matrix = self._whole()[: self._count]
        missing = np.flatnonzero(~embedded)
        at_once = _rows_per_step(matrix)
        for start in range(0, len(missing), at_once):
            matrix[missing[start : start + at_once]] = np.nan
            yield
        return DenseEmbeddings(matrix, model=model, usage=usage, failures=failures, embedded=embedded)

    def spread(self, positions: NDArray[np.intp]) -> Generator[None, None, NDArray[np.float32]]:
        """Copy row `positions[i]` to row i, in place and in small steps, once the result is finished.

        Args:
            positions: intp, shape (room,): every row occurs, first occurrences in the order of the rows.

        Returns:
            The whole matrix, shape (room, dimension).
        """
        matrix = self._whole()
        at_once = _rows_per_step(matrix)
        moved = positions != np.arange(len(positions))
        first = int(moved.argmax()) if moved.any() else len(positions)
        # From the end: no row moves to before its first position, so no step overwrites a row that a later one needs.
        for stop in range(len(positions), first, -at_once):
            start = max(first, stop - at_once)
            matrix[start:stop] = matrix[positions[start:stop]]
            yield
        return matrix


def _rows_per_step(matrix: NDArray[np.float32]) -> int:
    return max(1, SPREAD_BYTES // max(1, matrix[:1].nbytes))
