"""Dense results: a matrix with a row for each input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._results.embeddings import SPREAD_BYTES, Embeddings
from pinecone_embed_async._results.selection import selected
from pinecone_embed_async._results.tables import dense_arrow, dense_polars

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import DTypeLike, NDArray

    from pinecone_embed_async._errors import Failure
    from pinecone_embed_async._results.embeddings import Usage
    from pinecone_embed_async._results.selection import Rows


class DenseEmbeddings(Embeddings):
    """Dense vectors, a row for each input.

    ```python
    passages = await client.embed(texts, input_type="passage")
    query = await client.embed_one(texts[0], input_type="query")
    scores = passages.vectors @ query
    records = passages.to_records([f"id-{row}" for row in range(len(passages))])
    good = passages[scores > 0.5]
    ```

    `result[i]` is the vector of one input. `result[2:5]`, `result[mask]` and `result[[0, 2]]` are results of these inputs; a
    slice shares the memory, a mask or positions copy. `numpy.asarray(result)` is `vectors`.

    Attributes:
        vectors: float32, shape (inputs, dimension); row i belongs to input i, NaN where it is not embedded.
        model: the call's model.
        usage: usage of the call; `None` for a selection of its rows, since a bill cannot be divided.
        failures: the failed inputs, grouped by cause; of a selection, those in it, at their positions there.
        embedded: bool, shape (inputs,): which rows hold a vector.
    """

    __slots__ = ("vectors",)

    _RECORD_FIELD: ClassVar[str] = "values"

    def __init__(
        self,
        vectors: NDArray[np.float32],
        *,
        model: str,
        usage: Usage | None,
        failures: tuple[Failure, ...] = (),
        embedded: NDArray[np.bool_] | None = None,
    ) -> None:
        super().__init__(len(vectors), model, usage, failures, embedded)
        self.vectors = vectors

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, rows: Rows) -> DenseEmbeddings: ...
    def __getitem__(self, rows: int | np.integer[Any] | Rows) -> NDArray[np.float32] | DenseEmbeddings:
        """The vector of one input, float32 of shape (dimension,), a view; or a result of several of the inputs.

        Args:
            rows: a position; or a slice, a mask of one bool for each input, or positions. A series counts by position,
                whatever its labels are.

        Raises:
            IndexError: a position is out of range, or a mask is not as long as the result.
            TypeError: it is no index.
        """
        chosen = selected(rows, len(self))
        if isinstance(chosen, int):
            vector: NDArray[np.float32] = self.vectors[chosen]
            return vector
        return self._taken(chosen, self.vectors[chosen], None)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return iter(self.vectors)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - NumPy's protocol
        return np.array(self.vectors, dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, int]:
        """Inputs, and numbers per vector."""
        count, dimension = self.vectors.shape
        return count, dimension

    def spread(self, positions: NDArray[np.intp], vectors: NDArray[np.float32] | None = None) -> DenseEmbeddings:
        """A result of which row i is row `positions[i]` of this one; every row of this one must occur.

        Args:
            positions: intp, shape (inputs,).
            vectors: the rows of the new result, if they exist already.
        """
        return self._taken(positions, self.vectors[positions] if vectors is None else vectors, self.usage)

    def _taken(self, rows: slice | NDArray[np.intp], vectors: NDArray[np.float32], usage: Usage | None) -> DenseEmbeddings:
        return DenseEmbeddings(
            vectors, model=self.model, usage=usage, failures=self._failures_of(rows), embedded=self.embedded[rows]
        )

    def __repr__(self) -> str:
        return f"<DenseEmbeddings {self.vectors.shape} float32, {self._summary()}>"

    def to_list(self) -> list[list[float] | None]:
        """The vectors as lists of Python's floats; `None` for an input that is not embedded."""
        vectors: list[list[float] | None] = self.vectors.tolist()
        for row in np.flatnonzero(~self.embedded).tolist():
            vectors[row] = None
        return vectors

    def to_arrow(self) -> Any:
        """A `pyarrow.FixedSizeListArray` of float32, (inputs, dimension); null for an input that is not embedded.

        It shares the memory of `vectors`, unless those are every second row, say. Where nothing was embedded by a model of
        unknown dimension it is a `ListArray` of nulls.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
        """
        return dense_arrow(self.vectors, self.embedded)

    def to_polars(self) -> Any:
        """A `polars.Series` named `vector` of dtype `Array(Float32, dimension)`; null for an input that is not embedded.

        Where nothing was embedded by a model of unknown dimension its dtype is `List(Float32)`.

        Raises:
            ModuleNotFoundError: polars is not installed.
        """
        return dense_polars(self.vectors, self.embedded)

    def _plain_row(self, row: int) -> list[float]:
        numbers: list[float] = self.vectors[row].tolist()
        return numbers

    def _storable_rows(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.embedded)

    def _cells(self) -> Iterable[object]:
        return self.vectors


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
