"""The common base of dense and sparse results: usage, failures, records."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from pinecone_embed_async._checks import as_text, short
from pinecone_embed_async._errors import ConfigurationError, EmbedError, Failure, name_positions
from pinecone_embed_async._inputs import is_missing, is_table, plain
from pinecone_embed_async._results.tables import NAME, needed_by

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import TypeAlias

    from numpy.typing import NDArray

    MaybeNone: TypeAlias = Any
    """The type of a `None` that only selections have. A plain `None` would make every caller of `embed` check for it."""

StepsT = TypeVar("StepsT")

SPREAD_BYTES = 2**19
"""Bytes of rows copied per step, which takes a fraction of a millisecond."""


def all_steps(steps: Generator[None, None, StepsT]) -> StepsT:
    """Run all steps of a generator at once, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: StepsT = end.value
            return result


@dataclass(frozen=True, slots=True)
class Usage:
    """Total usage of a call.

    Attributes:
        total_tokens: tokens billed, as reported by the answers.
        requests: requests answered with embeddings.
        unreported: number of these answers that did not report their tokens.
    """

    total_tokens: int = 0
    requests: int = 0
    unreported: int = 0

    def plus(self, total_tokens: int | None) -> Usage:
        """This usage plus one answer; `total_tokens` is `None` if the answer did not report its tokens."""
        return Usage(
            self.total_tokens + (total_tokens or 0),
            self.requests + 1,
            self.unreported + (total_tokens is None),
        )


@dataclass(slots=True, repr=False, eq=False, kw_only=True)
class Embeddings(ABC):
    """Common base of dense and sparse results."""

    model: str
    usage: Usage | MaybeNone
    failures: tuple[Failure, ...] = ()
    # All rows by default.
    embedded: NDArray[np.bool_] = None  # type: ignore[assignment]

    _RECORD_FIELD: ClassVar[str]
    """Name of the vector's field in a record."""

    def __post_init__(self) -> None:
        if self.embedded is None:
            self.embedded = np.ones(self.shape[0], np.bool_)

    def __len__(self) -> int:
        return len(self.embedded)

    @property
    def not_tried(self) -> NDArray[np.intp]:
        """Positions of the inputs that were neither embedded nor failed, because the job ended first."""
        return np.flatnonzero(~self.embedded & (self._causes() < 0))

    def to_records(
        self, ids: Iterable[str], metadata: Iterable[Mapping[str, Any] | None] | None = None
    ) -> list[dict[str, Any]]:
        """Records for `upsert` of the official SDK, with `id`, `values` or `sparse_values`, and `metadata` if passed.

        Rows that are not embedded are left out. So are sparse rows without terms, for example of an empty text, because an
        index refuses the whole upsert for one of them. A logged warning counts them, and `without_terms` lists them.

        Args:
            ids: an id for each input, in the order of the inputs; the labels of a pandas series are ignored.
            metadata: a mapping or `None` for each input, in the same order.

        Raises:
            ConfigurationError: `ids` or `metadata` have no order or not one value per input, or an id is empty or not a
                text. Also a `ValueError`.
        """
        names, extras = _ids(ids, len(self)), _mappings("metadata", metadata, len(self))
        return [
            {"id": names[row]}
            | ({} if extras[row] is None else {"metadata": dict(extras[row])})
            | {self._RECORD_FIELD: self._plain_row(row)}
            for row in self._storable_rows().tolist()
        ]

    def to_documents(
        self,
        ids: Iterable[str],
        *,
        field: str = "vector",
        fields: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> list[dict[str, Any]]:
        """Documents for `documents.batch_upsert` of the official SDK, with `_id`, the vector, and further fields.

        A dense vector is a list of floats, a sparse one `{"indices": [...], "values": [...]}`. The same rows are left out as
        in `to_records`.

        Args:
            ids: an id for each input, in the order of the inputs; the labels of a pandas series are ignored.
            field: name of the vector's field in the index.
            fields: a mapping of further fields, or `None`, for each input, in the same order. Missing values (`None`, NaN)
                are left out.

        Raises:
            ConfigurationError: as for `to_records`; or the name of a field is empty, begins with `_` or `$`, or equals
                `field`. Also a `ValueError`.
        """
        name, names = _field_name("field", field), _ids(ids, len(self))
        given = _mappings("fields", fields, len(self))
        extras = [_document_fields(value or {}, row, name) for row, value in enumerate(given)]
        return [{"_id": names[row], name: self._plain_row(row), **extras[row]} for row in self._storable_rows().tolist()]

    def to_pandas(self, index: Any = None) -> Any:
        """A `pandas.Series` named `vector` with a vector for each input, or `None` if the input is not embedded.

        A dense vector is a float32 array of shape (dimension,), a sparse one `{"indices": ..., "values": ...}` with a uint32
        and a float32 array. All arrays are views of the result. `numpy.stack(series)` builds the dense matrix again.

        Args:
            index: labels of the rows, in the order of the inputs; 0, 1, … by default. pandas assigns columns by label, so
                write `df["vector"] = result.to_pandas(df.index)`.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        with needed_by("to_pandas", "pandas"):
            import pandas as pd  # noqa: PLC0415 - optional, and imported only where it is used
        column = [cell if is_there else None for cell, is_there in zip(self._cells(), self.embedded.tolist(), strict=True)]
        return pd.Series(column, index=index, name=NAME, dtype="object")

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """The number of inputs and of columns."""

    @abstractmethod
    def _plain_row(self, row: int) -> Any:
        """A row as Python numbers, for an upsert."""

    def _storable_rows(self) -> NDArray[np.intp]:
        """Positions of the rows that an index accepts."""
        return np.flatnonzero(self.embedded)

    @abstractmethod
    def _cells(self) -> Iterable[object]:
        """The rows as arrays."""

    def _causes(self) -> NDArray[np.intp]:
        """For each input, the index in `failures` of its failure, or -1: intp, shape (inputs,)."""
        causes = np.full(len(self), -1, np.intp)
        for number, failure in enumerate(self.failures):
            causes[np.asarray(failure.indices, dtype=np.intp)] = number
        return causes

    def _failures_of(self, rows: slice | NDArray[np.intp]) -> tuple[Failure, ...]:
        """The failures of a selection of these rows."""
        if not self.failures:
            return ()
        causes = self._causes()[rows]
        found: dict[int, list[int]] = {}
        for row in np.flatnonzero(causes >= 0).tolist():
            found.setdefault(int(causes[row]), []).append(row)
        return tuple(Failure(positions, self.failures[number].error) for number, positions in found.items())

    def _of_rows(self, rows: slice | NDArray[np.intp], usage: Usage | None) -> dict[str, Any]:
        """What a result of these rows has in common with this one, as arguments of its class."""
        embedded, failures = self.embedded[rows], self._failures_of(rows)
        return {"model": self.model, "usage": usage, "failures": failures, "embedded": embedded}

    def _summary(self) -> str:
        usage, missing = self.usage, len(self) - int(self.embedded.sum())
        bill = "usage=None" if usage is None else f"tokens={usage.total_tokens}, requests={usage.requests}"
        failed = sum(len(failure.indices) for failure in self.failures)
        counts = {"missing": missing, "failed": failed}
        return f"model={self.model!r}, {bill}" + "".join(f", {name}={count}" for name, count in counts.items() if count)


def _one_each(name: str, given: object, count: int) -> list[Any]:
    """A list with one value per input, by position; pandas labels are ignored.

    Raises:
        ConfigurationError: the values have no order, are a single value, or are not as many as the inputs.
    """
    if isinstance(given, Mapping):
        cure = f"pass list(….values()), or [mapping[key] for key in …]: its order need not be that of the {count} inputs"
    elif is_table(given):
        cure = 'pass df["id"]' if name == "ids" else 'pass df.to_dict("records")'
    elif isinstance(given, (set, frozenset)):
        cure = "pass a list, which has an order"
    elif isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(given, Iterable):
        cure = "pass a list"
    else:
        # Bounded, because an iterator may be infinite.
        values = list(islice(given, count + 1))
        if len(values) == count:
            return values
        got = len(values) if len(values) < count else len(given) if isinstance(given, Sized) else "more"
        raise ConfigurationError(f"{name} must have one value for each of the {count} inputs, got {got}")
    kind = type(given).__name__
    raise ConfigurationError(f"{name} must be an iterable with one value for each input, in order, got a {kind}: {cure}")


def _ids(given: object, count: int) -> list[Any]:
    ids = [plain(value) for value in _one_each("ids", given, count)]
    for row, value in enumerate(ids):
        if isinstance(value, str) and value:
            continue
        got = f"{'a missing value, ' if is_missing(value) else ''}{type(value).__name__}"
        cure = ": pass map(str, ids)" if isinstance(value, Integral) else ""
        raise ConfigurationError(
            f"ids must be texts that are not empty, got {'an empty text' if value == '' else got} for input {row}{cure}"
        )
    return ids


def _mappings(name: str, given: object, count: int) -> list[Any]:
    """A mapping or `None` for each input."""
    values = [None] * count if given is None else [plain(value) for value in _one_each(name, given, count)]
    for row, value in enumerate(values):
        if value is not None and not isinstance(value, Mapping):
            got = type(value).__name__
            raise ConfigurationError(f"{name} must be a mapping or None for each input, got {got} for input {row}")
    return values


def _field_name(argument: str, value: object) -> str:
    """Validate the name of a document's field. Source of the rule: the service's page on importing documents.

    Raises:
        ConfigurationError: no field can have this name.
    """
    name = as_text(value)
    if not name or name.startswith(("_", "$")):
        raise ConfigurationError(f"{argument} must be the name of a field, not beginning with _ or $, got {short(value)}")
    return name


def _document_fields(fields: Mapping[Any, Any], row: int, vector: str) -> dict[str, Any]:
    found = {}
    for given, content in fields.items():
        name = _field_name(f"fields of input {row}: each", given)
        if name == vector:
            raise ConfigurationError(
                f"fields of input {row} must not have {name!r}, which is the vector's field: pass another field="
            )
        if not is_missing(content):
            found[name] = content
    return found


def with_outcome(error: EmbedError, partial: Embeddings) -> EmbedError:
    """The error itself, after attaching the embeddings and failures of the call."""
    error.partial = partial
    error.failures = partial.failures
    return error


def summed_up(error: EmbedError, partial: Embeddings, start: int = 0) -> EmbedError:
    """A copy of the first failure's error whose message also counts and lists the failed inputs.

    Args:
        error: error of the first failure.
        partial: result of all inputs.
        start: position of the first input in the call or stream, for the message.
    """
    own = copy.copy(error)
    positions = sorted(start + position for failure in partial.failures for position in failure.indices)
    if len(partial) > 1:
        named = "" if len(positions) == 1 else f" (inputs {name_positions(positions)})"
        first = f"input {positions[0]}"
        message = error.message if error.message.startswith(f"{first} ") else f"{first}: {error.message}"
        own.args = (f"{len(positions):,} of {len(partial):,} inputs failed; {message}{named}", *error.args[1:])
    return with_outcome(own, partial)
