"""Dense results: a matrix with one row per input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._results.embeddings import SPREAD_BYTES, Embeddings
from pinecone_embed_async._results.selection import selected
from pinecone_embed_async._results.tables import NAME, dense_arrow, needed_by, with_nulls

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from numpy.typing import DTypeLike, NDArray

    from pinecone_embed_async._results.embeddings import Usage
    from pinecone_embed_async._results.selection import Rows


@dataclass(slots=True, repr=False, eq=False)
class DenseEmbeddings(Embeddings):
    """Dense vectors, one row per input.

    ```python
    passages = await client.embed(texts, input_type="passage")
    query = await client.embed_one(texts[0], input_type="query")
    scores = passages.vectors @ query
    records = passages.to_records([f"id-{row}" for row in range(len(passages))])
    good = passages[scores > 0.5]
    ```

    `result[i]` is the vector of one input. `result[2:5]`, `result[mask]` and `result[[0, 2]]` are results for these inputs:
    a slice shares the memory, a mask or a list of positions copies. `numpy.asarray(result)` is `vectors`.

    Attributes:
        vectors: float32, shape (inputs, dimension); row i belongs to input i and is NaN if the input is not embedded.
        model: the model of the call.
        usage: usage of the call; `None` for a selection, because the usage of single rows is unknown.
        failures: the failed inputs, grouped by cause; in a selection, only its own, with positions in the selection.
        embedded: bool, shape (inputs,): which rows hold a vector.
    """

    vectors: NDArray[np.float32]

    _RECORD_FIELD: ClassVar[str] = "values"

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> NDArray[np.float32]: ...
    @overload
    def __getitem__(self, rows: Rows) -> DenseEmbeddings: ...
    def __getitem__(self, rows: int | np.integer[Any] | Rows) -> NDArray[np.float32] | DenseEmbeddings:
        """The vector of one input, a float32 view of shape (dimension,); or a result for several inputs.

        Args:
            rows: a position; or a slice, a mask with one bool per input, or several positions. The labels of a series are
                ignored.

        Raises:
            IndexError: a position is out of range, or a mask is not as long as the result.
            TypeError: `rows` is not a valid index.
        """
        chosen = selected(rows, len(self))
        if isinstance(chosen, int):
            vector: NDArray[np.float32] = self.vectors[chosen]
            return vector
        return self.taken(chosen, self.vectors[chosen], None)

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return iter(self.vectors)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - NumPy's protocol
        return np.array(self.vectors, dtype, copy=copy)

    @property
    def shape(self) -> tuple[int, int]:
        """The number of inputs, and of numbers per vector."""
        count, dimension = self.vectors.shape
        return count, dimension

    def taken(self, rows: slice | NDArray[np.intp], vectors: NDArray[np.float32], usage: Usage | None) -> DenseEmbeddings:
        """A result for these rows of this one, whose vectors already exist."""
        return DenseEmbeddings(vectors, **self._of_rows(rows, usage))

    def __repr__(self) -> str:
        return f"<DenseEmbeddings {self.vectors.shape} float32, {self._summary()}>"

    def to_list(self) -> list[list[float] | None]:
        """The vectors as lists of Python floats; `None` for inputs that are not embedded."""
        rows = zip(self.vectors.tolist(), self.embedded.tolist(), strict=True)
        return [vector if is_there else None for vector, is_there in rows]

    def to_arrow(self) -> Any:
        """A `pyarrow.FixedSizeListArray` of float32, (inputs, dimension); null for inputs that are not embedded.

        It shares the memory of `vectors` if these are contiguous. If nothing was embedded and the dimension of the model is
        unknown, it is a `ListArray` of nulls.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
        """
        return dense_arrow(self.vectors, self.embedded)

    def to_polars(self) -> Any:
        """A `polars.Series` named `vector` of dtype `Array(Float32, dimension)`; null for inputs that are not embedded.

        If nothing was embedded and the dimension of the model is unknown, the dtype is `List(Float32)`.

        Raises:
            ModuleNotFoundError: polars is not installed.
        """
        with needed_by("to_polars", "polars"):
            import polars as pl  # noqa: PLC0415 - optional, and imported only where it is used
        count, dimension = self.shape
        if not dimension or not count:
            kind = pl.Array(pl.Float32, dimension) if dimension else pl.List(pl.Float32)
            return pl.Series(NAME, [None] * count, dtype=kind)
        return with_nulls(pl.Series(NAME, np.ascontiguousarray(self.vectors)), self.embedded)

    def _plain_row(self, row: int) -> list[float]:
        numbers: list[float] = self.vectors[row].tolist()
        return numbers

    def _cells(self) -> Iterable[object]:
        return self.vectors


class Dimension:
    """The number of numbers per row, the same in all answers of a call or stream.

    Args:
        value: the dimension; `None` if the first answer decides.
    """

    def __init__(self, value: int | None) -> None:
        self.value = value

    def settle(self, dimension: int) -> None:
        """Set the dimension at the first answer, and check it at the others.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        if self.value is None:
            self.value = dimension
        elif self.value != dimension:
            raise ResponseError(f"expected {self.value} numbers per row, as in earlier answers, got {dimension}")


class DenseRows:
    """Collects dense answers in one matrix, which is allocated once and written in place.

    Args:
        room: number of rows to allocate: one for each input, or more if `spread` will be called.
        dimension: numbers per row.
    """

    def __init__(self, room: int, dimension: Dimension) -> None:
        self._room = room
        self.dimension = dimension
        self._matrix: NDArray[np.float32] | None = None

    def matrix(self, dimension: int | None = None) -> NDArray[np.float32]:
        """The matrix with the rows of all inputs, for rows of this dimension.

        Raises:
            ResponseError: an earlier answer had another dimension.
        """
        if dimension is not None:
            self.dimension.settle(dimension)
        if self._matrix is None:
            self._matrix = np.empty((self._room, self.dimension.value or 0), np.float32)
        return self._matrix

    def blank(self, rows: NDArray[np.intp]) -> Generator[None, None, None]:
        """Set rows to NaN, in small steps."""
        matrix = self.matrix()
        at_once = _rows_per_step(matrix)
        for start in range(0, len(rows), at_once):
            matrix[rows[start : start + at_once]] = np.nan
            yield

    def spread(self, positions: NDArray[np.intp]) -> Generator[None, None, NDArray[np.float32]]:
        """Copy row `positions[i]` to row i, in place and in small steps.

        Args:
            positions: intp, shape (room,): contains every row, with first occurrences in ascending order.

        Returns:
            The whole matrix, shape (room, dimension).
        """
        matrix = self.matrix()
        at_once = _rows_per_step(matrix)
        moved = positions != np.arange(len(positions))
        first = int(moved.argmax()) if moved.any() else len(positions)
        # From the end: no row moves towards the start, so no step overwrites a row that a later step needs.
        for stop in range(len(positions), first, -at_once):
            start = max(first, stop - at_once)
            matrix[start:stop] = matrix[positions[start:stop]]
            yield
        return matrix


def _rows_per_step(matrix: NDArray[np.float32]) -> int:
    return max(1, SPREAD_BYTES // max(1, matrix[:1].nbytes))
