"""The inputs and their vectors, which every process of a benchmark computes from one seed.

The server sends these vectors, and each competitor's result is compared with them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

Precision = Literal["half", "full"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Kind = Literal["dense", "sparse"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_BATCH = 96
"""Inputs per request, the limit of every hosted model. Source: the service's documentation."""

PERIOD = 1009
"""Input `i` gets vector `i % PERIOD`. Prime, so that a batch in the wrong place shows."""

NUMBER_WIDTH = 8
"""Every input starts with its own number in this many digits, from which the server knows its vector."""

_SPARSE_TERMS = (16, 97)
_WORDS = (40, 61)
_PASSAGES = 4096


@dataclass(frozen=True)
class Load:
    """The kind of vectors that the server returns.

    Attributes:
        kind: Type of the vectors.
        dimension: Dimension of dense vectors; ignored for sparse ones.
        precision: `half` writes half-precision numbers in full (about 18 characters), as the service does; `full` writes
            single-precision numbers with the digits of a double (about 20 characters).
        seed: Seed of both inputs and vectors.
    """

    kind: Kind = "dense"
    dimension: int = 1024
    precision: Precision = "half"
    seed: int = 2

    @property
    def name(self) -> str:
        """Name on the command line, in the JSON and in tables."""
        return f"dense-{self.dimension}-{self.precision}" if self.kind == "dense" else f"sparse-{self.precision}"

    @property
    def model(self) -> str:
        """A hosted model with such vectors."""
        if self.kind == "sparse":
            return "pinecone-sparse-english-v0"
        return "multilingual-e5-large" if self.dimension == 1024 else "llama-text-embed-v2"

    @property
    def parameters(self) -> dict[str, Any]:
        """The request's `parameters` for passages."""
        extra = {"dimension": self.dimension} if self.model == "llama-text-embed-v2" else {}
        return {"input_type": "passage", **extra}


def texts(count: int, seed: int) -> list[str]:
    """Return `count` different passages of 40 to 60 made-up words, about 300 characters each."""
    generator = np.random.default_rng([seed, 1])
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    words = ["".join(generator.choice(letters, size)) for size in generator.integers(2, 10, 5000)]
    passages = [
        " ".join(words[word] for word in generator.integers(0, len(words), size))
        for size in generator.integers(*_WORDS, min(count, _PASSAGES))
    ]
    return [f"{number:0{NUMBER_WIDTH}d} {passages[number % _PASSAGES]}" for number in range(count)]


def dense_vectors(load: Load) -> npt.NDArray[np.float32]:
    """Return the dense vectors, shape `(PERIOD, dimension)`; their norm is about 1.

    Half-precision and single-precision decimals convert to float32 without rounding, however they are parsed, so results are
    compared for equality.
    """
    generator = np.random.default_rng([load.seed, 2])
    vectors = generator.normal(0.0, load.dimension**-0.5, (PERIOD, load.dimension))
    if load.precision == "half":
        vectors = vectors.astype(np.float16)
    return vectors.astype(np.float32)


class SparseRows(NamedTuple):
    """Sparse vectors, concatenated.

    Attributes:
        lengths: int64 (rows,), the number of terms of each row.
        indices: uint32 (terms,).
        values: float32 (terms,), parallel to `indices`.
    """

    lengths: npt.NDArray[np.int64]
    indices: npt.NDArray[np.uint32]
    values: npt.NDArray[np.float32]

    @classmethod
    def of(cls, indices: Sequence[Sequence[int]], values: Sequence[Sequence[float]]) -> SparseRows:
        """Create flat arrays from the lists of all rows."""
        lengths = np.fromiter(map(len, indices), np.int64, len(indices))
        terms = int(lengths.sum())
        return cls(
            lengths,
            np.fromiter(chain.from_iterable(indices), np.uint32, terms),
            np.fromiter(chain.from_iterable(values), np.float32, terms),
        )


def sparse_vectors(load: Load) -> SparseRows:
    """Return the `PERIOD` sparse vectors; see `dense_vectors` about their numbers."""
    generator = np.random.default_rng([load.seed, 3])
    lengths = generator.integers(*_SPARSE_TERMS, PERIOD)
    terms = int(lengths.sum())
    indices = generator.integers(0, 2**32, terms, dtype=np.uint32)
    values = generator.gamma(2.0, 0.5, terms)
    if load.precision == "half":
        values = values.astype(np.float16)
    return SparseRows(lengths, indices, values.astype(np.float32))
