"""What dense and sparse results have in common: usage, failures, records."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from pinecone_embed_async._errors import ConfigurationError, EmbedError, Failure, name_positions
from pinecone_embed_async._inputs import is_missing, is_table, plain

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

StepsT = TypeVar("StepsT")

SPREAD_BYTES = 2**19
"""Bytes of rows copied per step: a fraction of a millisecond."""


def all_steps(steps: Generator[None, None, StepsT]) -> StepsT:
    """Run all steps at once; return their result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: StepsT = end.value
            return result


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


class Embeddings:
    """Common base of dense and sparse results."""

    __slots__ = ("embedded", "failures", "model", "usage")

    def __init__(
        self, count: int, model: str, usage: Usage, failures: tuple[Failure, ...], embedded: NDArray[np.bool_] | None
    ) -> None:
        self.model = model
        self.usage = usage
        self.failures = failures
        self.embedded: NDArray[np.bool_] = np.ones(count, np.bool_) if embedded is None else embedded

    def __len__(self) -> int:
        return len(self.embedded)

    @property
    def not_tried(self) -> NDArray[np.intp]:
        """Positions of the inputs that were neither embedded nor failed, because the job ended first."""
        return np.flatnonzero(~self.embedded & (self._causes() < 0))

    def _causes(self) -> NDArray[np.intp]:
        """For each input its failure's index in `failures`, or -1."""
        causes = np.full(len(self), -1, np.intp)
        for number, failure in enumerate(self.failures):
            causes[np.asarray(failure.indices, dtype=np.intp)] = number
        return causes

    def _spread_failures(self, positions: NDArray[np.intp]) -> tuple[Failure, ...]:
        """The failures of a result of which row i is row `positions[i]` of this one."""
        causes = self._causes()[positions]
        spread: dict[int, list[int]] = {}
        for row in np.flatnonzero(causes >= 0).tolist():
            spread.setdefault(int(causes[row]), []).append(row)
        return tuple(Failure(rows, self.failures[number].error) for number, rows in spread.items())

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
    if isinstance(given, Mapping):
        cure = f"pass list(….values()), or [mapping[key] for key in …]: its order need not be that of the {count} inputs"
    elif is_table(given):
        cure = 'pass df["id"]' if name == "ids" else 'pass df.to_dict("records")'
    elif isinstance(given, (set, frozenset)):
        cure = "pass a list, which has an order"
    elif isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(given, Iterable):
        cure = "pass a list"
    else:
        # Bounded, in case it never ends.
        values = list(islice(given, count + 1))
        if len(values) == count:
            return values
        got = len(values) if len(values) < count else len(given) if isinstance(given, Sized) else "more"
        raise ConfigurationError(f"{name} must be as many as inputs: {count} embeddings need as many {name}, got {got}")
    kind = type(given).__name__
    raise ConfigurationError(f"{name} must be an iterable with one for each input, in their order, got a {kind}: {cure}")


def _record_id(value: object, row: int) -> str:
    given = plain(value)
    if isinstance(given, str) and given:
        return given
    got = f"{'a missing value, ' if is_missing(given) else ''}{type(given).__name__}"
    cure = ": pass map(str, ids)" if isinstance(given, Integral) else ""
    raise ConfigurationError(
        f"ids must be texts that are not empty, got {'an empty one' if given == '' else got} for input {row}{cure}"
    )


def _record_metadata(value: object, row: int) -> dict[str, Any] | None:
    given = plain(value)
    if given is None or isinstance(given, Mapping):
        return None if given is None else dict(given)
    raise ConfigurationError(
        f"metadata must be a mapping or None for each input, got {type(given).__name__} for input {row}"
    )


def with_outcome(error: EmbedError, partial: Embeddings) -> EmbedError:
    """The error, with the successful embeddings and the failures of the call attached."""
    error.partial = partial
    error.failures = partial.failures
    return error


def summed_up(error: EmbedError, partial: Embeddings, start: int = 0) -> EmbedError:
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
