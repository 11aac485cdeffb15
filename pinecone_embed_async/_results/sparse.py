"""Sparse results: compressed rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, overload

import numpy as np

from pinecone_embed_async._errors import ConfigurationError, name_positions
from pinecone_embed_async._log import logger
from pinecone_embed_async._results.embeddings import SPREAD_BYTES, Embeddings, Usage, all_steps
from pinecone_embed_async._results.selection import selected
from pinecone_embed_async._results.tables import NAME, list_offsets, needed_by, with_nulls

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from pinecone_embed_async._results.selection import Rows
    from pinecone_embed_async._wire import SparseBlock

SPREAD_TERMS = SPREAD_BYTES // 8
"""Terms copied per step: an index and a value of 4 bytes each."""


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """One sparse vector.

    Attributes:
        indices: uint32, shape (terms,).
        values: float32, shape (terms,).
        tokens: the terms as texts, if the service sent them.
    """

    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    tokens: list[str] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"<SparseVector of {len(self)} terms>"


@dataclass(slots=True, repr=False, eq=False)
class SparseEmbeddings(Embeddings):
    """Sparse vectors in compressed rows: row i is `indptr[i]` to `indptr[i + 1]` of the flat arrays.

    ```python
    async with EmbedClient("pinecone-sparse-english-v0") as sparse_client:
        passages = await sparse_client.embed(texts, input_type="passage")
        for row, vector in enumerate(passages):
            print(texts[row], vector.indices, vector.values)
    ```

    `result[i]` is the vector of one input. `result[2:5]`, `result[mask]` and `result[[0, 2]]` are results for these inputs:
    a slice without a step shares the memory of the terms, anything else copies.

    Attributes:
        indptr: int64, shape (inputs + 1,).
        indices: uint32, shape (terms,).
        values: float32, shape (terms,).
        tokens: for each row a list of tokens, parallel to its indices; `None` if the service sent none.
        model: the model of the call.
        usage: usage of the call; `None` for a selection, because the usage of single rows is unknown.
        failures: the failed inputs, grouped by cause; in a selection, only its own, with positions in the selection.
        embedded: bool, shape (inputs,): which rows are embedded; the others are empty.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]
    tokens: list[list[str]] | None = field(default=None, kw_only=True)

    _RECORD_FIELD: ClassVar[str] = "sparse_values"

    @overload
    def __getitem__(self, rows: int | np.integer[Any]) -> SparseVector: ...
    @overload
    def __getitem__(self, rows: Rows) -> SparseEmbeddings: ...
    def __getitem__(self, rows: int | np.integer[Any] | Rows) -> SparseVector | SparseEmbeddings:
        """The vector of one input, whose arrays are views; or a result for several inputs.

        Args:
            rows: a position; or a slice, a mask with one bool per input, or several positions. The labels of a series are
                ignored.

        Raises:
            IndexError: a position is out of range, or a mask is not as long as the result.
            TypeError: `rows` is not a valid index.
        """
        chosen = selected(rows, len(self))
        if isinstance(chosen, int):
            terms = slice(self.indptr[chosen], self.indptr[chosen + 1])
            tokens = None if self.tokens is None else self.tokens[chosen]
            return SparseVector(self.indices[terms], self.values[terms], tokens)
        if isinstance(chosen, slice):
            start, stop, step = chosen.indices(len(self))
            if step == 1:
                part = slice(start, max(start, stop))
                ends, lists = self.indptr[start : part.stop + 1], self.tokens and self.tokens[part]
                terms = slice(ends[0], ends[-1])
                indices, values = self.indices[terms], self.values[terms]
                return SparseEmbeddings(ends - ends[0], indices, values, tokens=lists, **self._of_rows(part, None))
            chosen = np.arange(start, stop, step)
        picked = all_steps(self.spread_in_steps(chosen))
        picked.usage = None
        return picked

    def __iter__(self) -> Iterator[SparseVector]:
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NoReturn:  # noqa: FBT001 - as dense ones
        raise TypeError(
            f"a sparse result cannot become an array: it would have {len(self):,} rows of 2**32 numbers; "
            "use its indices and values, dot(), or to_scipy(vocabulary).toarray()"
        )

    @property
    def shape(self) -> tuple[int, int]:
        """The number of inputs, and 2**32: one column per possible index, as in `to_scipy`."""
        return len(self.indptr) - 1, 2**32

    def __repr__(self) -> str:
        return f"<SparseEmbeddings {len(self)} rows, {len(self.indices)} terms, {self._summary()}>"

    def to_list(self) -> list[dict[str, list[Any]] | None]:
        """The vectors as `{"indices": [...], "values": [...]}` of Python numbers; `None` for an input not embedded."""
        return [self._plain_row(row) if is_there else None for row, is_there in enumerate(self.embedded.tolist())]

    def to_arrow(self) -> Any:
        """A `pyarrow.StructArray` of `indices` (lists of uint32) and `values` (lists of float32); null where not embedded.

        It shares the memory of the terms and leaves out `tokens`.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
            ConfigurationError: there are more than 2**31 - 1 terms.
        """
        with needed_by("to_arrow", "pyarrow"):
            import pyarrow as pa  # noqa: PLC0415 - optional, and imported only where it is used
        offsets = list_offsets(self.indptr)
        columns = [pa.ListArray.from_arrays(offsets, pa.array(terms)) for terms in (self.indices, self.values)]
        mask = None if self.embedded.all() else pa.array(~self.embedded)
        return pa.StructArray.from_arrays(columns, ["indices", "values"], mask=mask)

    def to_polars(self) -> Any:
        """A `polars.Series` named `vector` of structs of `indices`, `List(UInt32)`, and `values`, `List(Float32)`.

        It is null where not embedded and leaves out `tokens`.

        Raises:
            ModuleNotFoundError: polars is not installed.
        """
        with needed_by("to_polars", "polars"):
            import polars as pl  # noqa: PLC0415 - as above
        # Grouped by polars: a series built row by row takes a hundred times as long.
        rows = pl.Series("row", np.arange(len(self)))
        terms = {"row": np.repeat(rows.to_numpy(), np.diff(self.indptr)), "indices": self.indices, "values": self.values}
        lists = pl.DataFrame(terms).group_by("row", maintain_order=True).all()
        table = rows.to_frame().join(lists, on="row", how="left", maintain_order="left").drop("row")
        empty = [pl.lit(pl.Series([[]], dtype=kind)) for kind in table.dtypes]
        filled = [pl.col(name).fill_null(none) for name, none in zip(table.columns, empty, strict=True)]
        return with_nulls(table.select(filled).to_struct(NAME), self.embedded)

    def _plain_row(self, row: int) -> dict[str, list[Any]]:
        terms = slice(self.indptr[row], self.indptr[row + 1])
        return {"indices": self.indices[terms].tolist(), "values": self.values[terms].tolist()}

    def _storable_rows(self) -> NDArray[np.intp]:
        empty = self.without_terms.tolist()
        if empty:
            logger.warning(
                "%d of %d rows have no terms and are left out of the records, because an index refuses them: rows %s",
                len(empty),
                len(self),
                name_positions(empty),
            )
        return np.flatnonzero(self.embedded & (np.diff(self.indptr) > 0))

    def _cells(self) -> Iterable[object]:
        return ({"indices": vector.indices, "values": vector.values} for vector in self)

    @property
    def without_terms(self) -> NDArray[np.intp]:
        """Positions of the inputs whose vector has no terms: intp."""
        return np.flatnonzero(self.embedded & (np.diff(self.indptr) == 0))

    def spread_in_steps(self, positions: NDArray[np.intp]) -> Generator[None, None, SparseEmbeddings]:
        """Build in small steps the result whose row i is row `positions[i]` of this one.

        A caller that picks some rows must drop the result's usage.

        Args:
            positions: intp, shape (inputs,).
        """
        indptr = _ends(np.diff(self.indptr)[positions])
        indices, values = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.float32)
        tokens: list[list[str]] | None = None if self.tokens is None else []
        # Each row counts as one more than its terms, because many rows may have none.
        for start, stop in _spans(indptr + np.arange(len(indptr)), SPREAD_TERMS):
            rows, span = positions[start:stop], slice(indptr[start], indptr[stop])
            taken = flat_positions(self.indptr[rows], np.diff(indptr[start : stop + 1]))
            indices[span] = self.indices[taken]
            values[span] = self.values[taken]
            if tokens is not None and self.tokens is not None:
                tokens += [self.tokens[row] for row in rows.tolist()]
            yield
        return SparseEmbeddings(indptr, indices, values, tokens=tokens, **self._of_rows(positions, self.usage))

    def dot(self, other: SparseEmbeddings | SparseVector) -> NDArray[np.float32]:
        """Scores between the rows of this result and those of another: the dot product over common terms.

        ```python
        async with EmbedClient("pinecone-sparse-english-v0") as sparse_client:
            passages = await sparse_client.embed(texts, input_type="passage")
            query = await sparse_client.embed_one(texts[0], input_type="query")
            print(passages.dot(query).argmax())
        ```

        Args:
            other: a result of the same model, or one vector of `embed_one`.

        Returns:
            Float32, shape (inputs, inputs of `other`), or (inputs,) for one vector; NaN where a row is not embedded. Beyond
            this array, memory use is bounded.

        Raises:
            ConfigurationError: `other` comes from another model, whose indices mean other terms, or is not a sparse result.
        """
        if isinstance(other, SparseVector):
            indptr = np.array([0, len(other)], np.int64)
            alone = SparseEmbeddings(indptr, other.indices, other.values, model=self.model, usage=Usage())
            scores: NDArray[np.float32] = self.dot(alone)[:, 0]
            return scores
        if not isinstance(other, SparseEmbeddings):
            raise ConfigurationError(f"other must be SparseEmbeddings or a SparseVector, got {type(other).__name__}")
        if other.model != self.model:
            raise ConfigurationError(
                f"other must be of model {self.model!r}, got {other.model!r}, whose indices mean other terms"
            )
        products = _products(self, other)
        products[~self.embedded] = np.nan
        products[:, ~other.embedded] = np.nan
        return products

    @property
    def vocabulary(self) -> NDArray[np.uint32]:
        """The distinct indices in ascending order: uint32."""
        return np.unique(self.indices)

    def compressed(
        self, vocabulary: NDArray[np.uint32] | Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The rows over a given vocabulary: column j stands for `vocabulary[j]`.

        Multiply only results over the same vocabulary. Terms outside it are left out; products with a result that has no
        other terms are still exact.

        Args:
            vocabulary: distinct indices: the `vocabulary` of a result, or of several results, joined by `numpy.union1d`.

        Returns:
            `indptr`, int64 (inputs + 1,); columns, int64 (terms,); and values, float32 (terms,).

        Raises:
            ConfigurationError: `vocabulary` holds a duplicate or a value that is not an index.
        """
        try:
            wanted = np.asarray(vocabulary)
        except ValueError:
            raise ConfigurationError("vocabulary must be a flat list of integers, got rows of several lengths") from None
        if wanted.ndim != 1 or (len(wanted) and wanted.dtype.kind not in "ui"):
            raise ConfigurationError(f"vocabulary must be a list of integers, got {wanted.dtype} of shape {wanted.shape}")
        ascending, order = np.unique(wanted.astype(np.int64), return_index=True)
        if len(ascending) < len(wanted) or (len(wanted) and not 0 <= ascending[0] <= ascending[-1] < 2**32):
            raise ConfigurationError("vocabulary must hold indices from 0 to 4294967295, without duplicates")
        kept = np.isin(self.indices, ascending)
        columns = order[np.searchsorted(ascending, self.indices[kept])]
        return _ends(kept)[self.indptr], columns, self.values[kept]

    def to_scipy(self, vocabulary: NDArray[np.uint32] | Sequence[int] | None = None) -> Any:
        """A `scipy.sparse.csr_array` of shape (inputs, 2**32) that shares the values.

        A product of two, `a @ b.T`, needs 32 GiB for the columns alone: use `dot`, or the same vocabulary for both.

        Args:
            vocabulary: see `compressed`; its length is then the number of columns.

        Raises:
            ModuleNotFoundError: SciPy is not installed.
            ConfigurationError: `vocabulary` holds a duplicate or a value that is not an index.
        """
        with needed_by("to_scipy", "scipy"):
            from scipy import sparse  # noqa: PLC0415 - as above
        if vocabulary is None:
            columns = self.indices.astype(np.int64)
            return sparse.csr_array((self.values, columns, self.indptr), shape=(len(self), 2**32))
        indptr, columns, values = self.compressed(vocabulary)
        return sparse.csr_array((values, columns, indptr), shape=(len(self), len(vocabulary)))


_PRODUCTS = 2**21
"""Maximum number of term products and scores in memory at a time."""


def _products(left: SparseEmbeddings, right: SparseEmbeddings) -> NDArray[np.float32]:
    """The products of all rows, summed in float64."""
    products = np.zeros((len(left), len(right)), np.float32)
    # Sort the right result by term, to find the rows with each term.
    order = np.argsort(right.indices, kind="stable")
    terms, values = right.indices[order], right.values[order].astype(np.float64)
    rows = np.repeat(np.arange(len(right)), np.diff(right.indptr))[order]
    first = np.searchsorted(terms, left.indices, side="left")
    met = np.searchsorted(terms, left.indices, side="right") - first
    work = _ends(met)[left.indptr] + len(right) * np.arange(len(left) + 1)
    for start, stop in _spans(work, _PRODUCTS):
        span = slice(left.indptr[start], left.indptr[stop])
        # Pair each term of these rows with each row of the right result that has it.
        at = flat_positions(first[span], met[span])
        own_rows = np.repeat(np.arange(stop - start), np.diff(left.indptr[start : stop + 1]))
        places = np.repeat(own_rows, met[span]) * len(right) + rows[at]
        weights = np.repeat(left.values[span].astype(np.float64), met[span]) * values[at]
        scores = np.bincount(places, weights, (stop - start) * len(right))
        products[start:stop] = scores.reshape(stop - start, len(right))
    return products


def _ends(lengths: NDArray[Any]) -> NDArray[np.int64]:
    """0, and the ends of consecutive runs of these lengths: int64, shape (runs + 1,)."""
    ends = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=ends[1:])
    return ends


def _spans(work: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Start and stop of runs of rows; each run has at most `most` units of work, or is a single row.

    Args:
        work: int64, shape (rows + 1,): units of work before each row, and at the end the total.
        most: maximum units of work per run.
    """
    start = 0
    while start < len(work) - 1:
        stop = max(start + 1, int(np.searchsorted(work, work[start] + most, side="right")) - 1)
        yield start, stop
        start = stop


def flat_positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The positions from `starts[i]` to `starts[i] + lengths[i]`, row after row: int64."""
    ends = np.cumsum(lengths)
    positions: NDArray[np.int64] = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
    return positions


def sparse_of_blocks(
    blocks: Sequence[tuple[NDArray[np.intp], SparseBlock]], embedded: NDArray[np.bool_], **others: Any
) -> Generator[None, None, SparseEmbeddings]:
    """Build a result in small steps from blocks of rows; rows that are not embedded are empty.

    Args:
        blocks: the positions of some inputs, ascending and not empty, with their rows.
        embedded: bool, shape (inputs,).
        others: the model, the usage and the failures of the result.
    """
    lengths = np.zeros(len(embedded), np.int64)
    for positions, block in blocks:
        lengths[positions] = block.lengths
    indptr = _ends(lengths)
    indices, values = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.float32)
    tokens: dict[int, list[str]] = {}
    copied = 0
    for positions, block in blocks:
        terms = len(block.indices)
        start = indptr[positions[0]]
        at: slice | NDArray[np.int64] = slice(start, start + terms)
        if positions[-1] - positions[0] >= len(positions):
            at = flat_positions(indptr[positions], block.lengths)
        indices[at], values[at] = block.indices, block.values
        tokens.update(zip(positions.tolist(), block.tokens or (), strict=False))
        copied += terms
        if copied > SPREAD_TERMS:
            copied = 0
            yield
    lists = [tokens.get(row, []) for row in range(len(embedded))] if tokens else None
    return SparseEmbeddings(indptr, indices, values, tokens=lists, embedded=embedded, **others)
