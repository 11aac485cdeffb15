"""Results of a call: float32 rows or compressed sparse rows, with usage and failures."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pinecone_embed_async._errors import ConfigurationError, EmbedError, Failure, ResponseError, name_positions
from pinecone_embed_async._inputs import is_missing, is_table, plain
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._wire import SparseBlock


@dataclass(frozen=True, slots=True)
class Usage:
    """Total usage of a call's answers.

    Attributes:
        total_tokens: tokens billed, as far as the answers say.
        requests: requests answered with embeddings.
        unreported: how many of these answers did not state their tokens.
    """

    total_tokens: int = 0
    requests: int = 0
    unreported: int = 0

    def plus(self, total_tokens: int | None) -> Usage:
        """This usage plus one more answer's tokens; `None` if the answer did not state them."""
        return Usage(
            self.total_tokens + (total_tokens or 0),
            self.requests + 1,
            self.unreported + (total_tokens is None),
        )


class _Embeddings:
    """Common base of dense and sparse results."""

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
        """Positions of the inputs that were neither embedded nor failed, because the job ended first."""
        is_open = ~self.embedded
        for failure in self.failures:
            is_open[np.asarray(failure.indices, dtype=np.intp)] = False
        return np.flatnonzero(is_open)

    def _spread_failures(self, positions: NDArray[np.intp]) -> tuple[Failure, ...]:
        cause = np.full(len(self), -1, np.intp)
        for number, failure in enumerate(self.failures):
            cause[np.asarray(failure.indices, dtype=np.intp)] = number
        causes = cause[positions]
        # Sorted once, not searched for each failure: there may be as many failures as inputs.
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

    def _records(
        self, ids: Iterable[str], metadata: Iterable[Mapping[str, Any] | None] | None
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows with a vector, each with its record, which has no vector yet."""
        names = [_record_id(value, row) for row, value in enumerate(_one_each("ids", ids, len(self)))]
        given = [None] * len(self) if metadata is None else _one_each("metadata", metadata, len(self))
        extras = [_record_metadata(value, row) for row, value in enumerate(given)]
        for row in np.flatnonzero(self.embedded).tolist():
            record: dict[str, Any] = {"id": names[row]}
            if extras[row] is not None:
                record["metadata"] = extras[row]
            yield row, record


def _one_each(name: str, given: object, count: int) -> list[Any]:
    """A list of the values for the inputs, by position, not by a pandas label.

    Raises:
        ConfigurationError: they have no order, are a single value, or their number is wrong.
    """
    kind = type(given).__name__
    cure = ""
    if isinstance(given, Mapping):
        cure = f"pass list(….values()), or [mapping[key] for key in …]: its order need not be that of the {count} inputs"
    elif is_table(given):
        cure = 'pass df["id"]' if name == "ids" else 'pass df.to_dict("records")'
    elif isinstance(given, (set, frozenset)):
        cure = "pass a list, which has an order"
    elif isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(given, Iterable):
        cure = "pass a list"
    if cure or not isinstance(given, Iterable):
        raise ConfigurationError(f"{name} must be an iterable with one for each input, in their order, got a {kind}: {cure}")
    # Bounded, in case it never ends.
    values = list(islice(given, count + 1))
    if len(values) != count:
        got = len(values) if len(values) < count else len(given) if isinstance(given, Sized) else "more"
        raise ConfigurationError(f"{name} must be as many as inputs: {count} embeddings need as many {name}, got {got}")
    return values


def _record_id(value: object, row: int) -> str:
    given = plain(value)
    if not isinstance(given, str) or not given:
        got = (
            "an empty one" if isinstance(given, str) else f"{'a missing value, ' * is_missing(given)}{type(given).__name__}"
        )
        cure = ": pass map(str, ids)" if isinstance(given, Integral) else ""
        raise ConfigurationError(f"ids must be texts that are not empty, got {got} for input {row}{cure}")
    return given


def _record_metadata(value: object, row: int) -> dict[str, Any] | None:
    given = plain(value)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigurationError(
            f"metadata must be a mapping or None for each input, got {type(given).__name__} for input {row}"
        )
    return dict(given)


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
        model: the call's model.
        usage: usage of the call.
        failures: the failed inputs, grouped by cause.
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
        self, ids: Iterable[str], metadata: Iterable[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Records as the official SDK's `upsert` takes them: `id`, `sparse_values` and, if passed, `metadata`.

        Rows that are not embedded are left out. So are rows without terms, for example of an empty text: an index refuses
        them, together with the other records of the upsert. A logged warning counts them; `without_terms` lists them.

        Args:
            ids: an id for each input, in their order, whatever labels a series of pandas has.
            metadata: a mapping or `None` for each input, in their order.

        Raises:
            ConfigurationError: there are not as many ids or metadata as inputs, they have no order, or an id is no text or
                empty. Also a `ValueError`.
        """
        records = []
        for row, record in self._records(ids, metadata):
            vector = self[row]
            if not len(vector):
                continue
            sparse_values = {"indices": vector.indices.tolist(), "values": vector.values.tolist()}
            records.append({**record, "sparse_values": sparse_values})
        empty = self.without_terms.tolist()
        if empty:
            logger.warning(
                "%d of %d rows have no terms and are left out of the records, for an index refuses them: rows %s",
                len(empty),
                len(self),
                name_positions(empty),
            )
        return records

    @property
    def without_terms(self) -> NDArray[np.intp]:
        """Positions of the inputs embedded without any term of the model."""
        return np.flatnonzero(self.embedded & (np.diff(self.indptr) == 0))

    def spread(self, positions: NDArray[np.intp]) -> SparseEmbeddings:
        """A result of which row i is row `positions[i]` of this one; every row of this one must occur."""
        return all_steps(self.spread_in_steps(positions))

    def spread_in_steps(self, positions: NDArray[np.intp]) -> Generator[None, None, SparseEmbeddings]:
        """Like `spread`, in small steps.

        Args:
            positions: intp, shape (inputs,).
        """
        indptr = np.zeros(len(positions) + 1, np.int64)
        np.cumsum(np.diff(self.indptr)[positions], out=indptr[1:])
        indices, values = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.float32)
        tokens: list[list[str]] | None = None if self.tokens is None else []
        # A row counts one more than its terms, since many rows may have none.
        work = indptr + np.arange(len(indptr))
        start = 0
        while start < len(positions):
            stop = max(start + 1, int(np.searchsorted(work, work[start] + SPREAD_TERMS, side="right")) - 1)
            rows, span = positions[start:stop], slice(indptr[start], indptr[stop])
            # Position in this result of each number of the new one.
            moved = np.repeat(self.indptr[rows] - indptr[start:stop], np.diff(indptr[start : stop + 1]))
            taken = np.arange(span.start, span.stop) + moved
            indices[span] = self.indices[taken]
            values[span] = self.values[taken]
            if tokens is not None and self.tokens is not None:
                tokens += [self.tokens[row] for row in rows.tolist()]
            start = stop
            yield
        return SparseEmbeddings(
            indptr,
            indices,
            values,
            model=self.model,
            usage=self.usage,
            tokens=tokens,
            failures=self._spread_failures(positions),
            embedded=self.embedded[positions],
        )

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
            Float32, shape (inputs, inputs of the other), or (inputs,) for one vector; NaN where a row is not embedded. Other
            memory use is bounded.

        Raises:
            ConfigurationError: `other` is of another model, whose indices are other terms.
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
                f"other must be of model {self.model!r}, got {other.model!r}, whose indices are other terms"
            )
        products = _products(self, other)
        products[~self.embedded] = np.nan
        products[:, ~other.embedded] = np.nan
        return products

    @property
    def vocabulary(self) -> NDArray[np.uint32]:
        """The distinct indices, ascending: uint32."""
        return np.unique(self.indices)

    def compressed(
        self, vocabulary: NDArray[np.uint32] | Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The rows over a given vocabulary: column j stands for `vocabulary[j]`.

        Only results over the same vocabulary may be multiplied. Terms outside it are left out; products with a result whose
        own vocabulary it is are still exact.

        Args:
            vocabulary: distinct indices: `vocabulary` of a result, or of several by `numpy.union1d`.

        Returns:
            `indptr`, int64 (inputs + 1,); columns, int64 (terms,); and values, float32 (terms,).

        Raises:
            ConfigurationError: it holds a value that is not an index, or a duplicate.
        """
        try:
            wanted = np.asarray(vocabulary)
        except ValueError:
            raise ConfigurationError("vocabulary must be one row of integers, got rows of several lengths") from None
        order = np.argsort(wanted, kind="stable") if wanted.ndim == 1 else None
        if order is None or (len(wanted) and wanted.dtype.kind not in "ui"):
            raise ConfigurationError(f"vocabulary must be one row of integers, got {wanted.dtype} of shape {wanted.shape}")
        ascending = wanted[order].astype(np.int64)
        if len(ascending) and (ascending[0] < 0 or ascending[-1] >= 2**32 or not np.diff(ascending).all()):
            raise ConfigurationError("vocabulary must hold indices from 0 to 4294967295, each once")
        if not len(ascending):
            return np.zeros_like(self.indptr), np.empty(0, np.int64), np.empty(0, np.float32)
        at = np.minimum(np.searchsorted(ascending, self.indices), len(ascending) - 1)
        kept = ascending[at] == self.indices
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])[self.indptr]
        return indptr, order[at[kept]], self.values[kept]

    def to_scipy(self, vocabulary: NDArray[np.uint32] | Sequence[int] | None = None) -> Any:
        """A `scipy.sparse.csr_array` of shape (inputs, 2**32), sharing the values.

        A product of two, `a @ b.T`, needs 32 GiB for the columns alone: use `dot`, or one vocabulary for both.

        Args:
            vocabulary: see `compressed`; its length is then the number of columns.

        Raises:
            ModuleNotFoundError: SciPy is not installed.
            ConfigurationError: the vocabulary holds a value that is not an index, or a duplicate.
        """
        from scipy import sparse  # noqa: PLC0415 - optional, and imported only where it is used

        if vocabulary is None:
            columns = self.indices.astype(np.int64)
            return sparse.csr_array((self.values, columns, self.indptr), shape=(len(self), 2**32))
        indptr, columns, values = self.compressed(vocabulary)
        return sparse.csr_array((values, columns, indptr), shape=(len(self), len(vocabulary)))


_PRODUCTS = 2**21
"""Most products of single terms, and scores, in memory at a time."""


def _products(left: SparseEmbeddings, right: SparseEmbeddings) -> NDArray[np.float32]:
    """The products of all rows, summed in float64."""
    products = np.zeros((len(left), len(right)), np.float32)
    # The right result by terms: which rows have each term.
    order = np.argsort(right.indices, kind="stable")
    terms, values = right.indices[order], right.values[order].astype(np.float64)
    rows = np.repeat(np.arange(len(right)), np.diff(right.indptr))[order]
    first = np.searchsorted(terms, left.indices, side="left")
    met = np.searchsorted(terms, left.indices, side="right") - first
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(met)])[left.indptr]
    start = 0
    while start < len(left):
        most = max(1, _PRODUCTS // max(1, len(right)))
        stop = min(
            len(left), start + most, max(start + 1, int(np.searchsorted(ends, ends[start] + _PRODUCTS, side="right")) - 1)
        )
        span = slice(left.indptr[start], left.indptr[stop])
        counts = met[span]
        # Pair each term of these rows with each row of the right result that has it.
        begins = np.cumsum(counts) - counts
        at = np.arange(counts.sum()) + np.repeat(first[span] - begins, counts)
        own_rows = np.repeat(np.arange(stop - start), np.diff(left.indptr[start : stop + 1]))
        places = np.repeat(own_rows, counts) * len(right) + rows[at]
        weights = np.repeat(left.values[span].astype(np.float64), counts) * values[at]
        scores = np.bincount(places, weights, (stop - start) * len(right))
        products[start:stop] = scores.reshape(stop - start, len(right))
        start = stop
    return products


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


StepsT = TypeVar("StepsT")


def all_steps(steps: Generator[None, None, StepsT]) -> StepsT:
    """Run all steps at once; return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: StepsT = end.value
            return result


SPREAD_BYTES = 2**19
"""Bytes of rows copied per step: a fraction of a millisecond."""

SPREAD_TERMS = SPREAD_BYTES // 8
"""The same for sparse rows, in terms of an index and a value each."""


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
        self._whole(vectors.shape[1])[positions] = vectors

    def rows(self, start: int, stop: int, dimension: int) -> NDArray[np.float32]:
        """The part of the matrix for inputs `start` to `stop`.

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
    ) -> Generator[None, None, DenseEmbeddings]:
        """Build the result in small steps; rows that are not embedded become NaN."""
        if self._matrix is None:
            self._matrix = np.empty((self._room, self.dimension.value or 0), np.float32)
        matrix = self._matrix if self._room == self._count else self._matrix[: self._count]
        if np.count_nonzero(embedded) < len(embedded):
            missing = np.flatnonzero(~embedded)
            at_once = max(1, SPREAD_BYTES // max(1, matrix[:1].nbytes))
            for start in range(0, len(missing), at_once):
                if start:
                    yield
                matrix[missing[start : start + at_once]] = np.nan
        return DenseEmbeddings(matrix, model=model, usage=usage, failures=failures, embedded=embedded)

    def spread(self, positions: NDArray[np.intp]) -> Generator[None, None, NDArray[np.float32]]:
        """Copy row `positions[i]` to row i, in place and in small steps, once the result is finished.

        Args:
            positions: intp, shape (room,): every row occurs, first occurrences in the order of the rows.

        Returns:
            The whole matrix, shape (room, dimension).
        """
        matrix = self._matrix
        if matrix is None:
            raise RuntimeError("the result is not finished")
        at_once = max(1, SPREAD_BYTES // max(1, matrix[:1].nbytes))
        moved = positions != np.arange(len(positions))
        first = int(moved.argmax()) if moved.any() else len(positions)
        # From the end: no row moves to before its first position, so no step overwrites a row that a later one needs.
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
        """Add the rows of the inputs at `positions`, ascending and not empty."""
        self._blocks[int(positions[0])] = positions, block

    def finish(
        self, *, model: str, usage: Usage, failures: tuple[Failure, ...], embedded: NDArray[np.bool_]
    ) -> Generator[None, None, SparseEmbeddings]:
        """Build the result in small steps; rows that are not embedded are empty."""
        blocks = [self._blocks[first] for first in sorted(self._blocks)]
        indptr = np.zeros(self._count + 1, np.int64)
        for positions, block in blocks:
            indptr[positions + 1] = block.lengths
        np.cumsum(indptr, out=indptr)
        indices, values = np.empty(indptr[-1], np.uint32), np.empty(indptr[-1], np.float32)
        tokens: list[list[str]] | None = None
        if any(block.tokens is not None for _, block in blocks):
            tokens = [[] for _ in range(self._count)]
        moved = 0
        for positions, block in blocks:
            if moved > SPREAD_TERMS:
                moved = 0
                yield
            moved += len(block.indices)
            starts = indptr[positions]
            place: slice | NDArray[np.int64] = slice(starts[0], starts[0] + len(block.indices))
            if positions[-1] - positions[0] >= len(positions):
                # There are other rows between these, so each number is placed by its row.
                offsets = starts - (np.cumsum(block.lengths) - block.lengths)
                place = np.arange(len(block.indices)) + np.repeat(offsets, block.lengths)
            indices[place], values[place] = block.indices, block.values
            for row, own in zip(positions.tolist(), block.tokens or (), strict=False):
                if tokens is not None:
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
    """The error, with the successful embeddings and the failures of the call attached."""
    error.partial = partial
    error.failures = partial.failures
    return error


def summed_up(error: EmbedError, partial: DenseEmbeddings | SparseEmbeddings, start: int = 0) -> EmbedError:
    """A copy of the first failure's error that also says how many inputs failed, and which.

    Args:
        error: error of the first failure.
        partial: result of all inputs.
        start: position of the first input, for the message.
    """
    own = copy.copy(error)
    positions = sorted(start + position for failure in partial.failures for position in failure.indices)
    if len(partial) > 1:
        named = "" if len(positions) == 1 else f" (inputs {name_positions(positions)})"
        first = f"input {positions[0]}"
        message = error.message if error.message.startswith(f"{first} ") else f"{first}: {error.message}"
        own.args = (f"{len(positions):,} of {len(partial):,} inputs failed; {message}{named}", *error.args[1:])
    return with_outcome(own, partial)
