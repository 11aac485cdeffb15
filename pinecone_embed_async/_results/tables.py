"""What results need to become columns of Arrow, pandas and polars, which are imported only on use."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

NAME = "vector"
"""Name of the column, the same as in the tables of a job."""

MOST_TERMS = 2**31 - 1
"""Maximum number of terms in an Arrow list column, whose offsets are int32. Source: the Arrow columnar format."""


@contextmanager
def needed_by(method: str, package: str) -> Iterator[None]:
    """Import an optional package in the block, for a method that needs it.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as missing:
        message = f"{method} needs {package}, which is not installed: pip install {package}"
        raise ModuleNotFoundError(message, name=package) from missing


def dense_arrow(vectors: NDArray[np.float32], embedded: NDArray[np.bool_] | None = None) -> Any:
    """Vectors as an Arrow array of fixed-size lists, which shares their memory if they are contiguous.

    Args:
        vectors: float32, shape (rows, dimension).
        embedded: bool, shape (rows,): which rows are not null; all of them by default.
    """
    with needed_by("to_arrow", "pyarrow"):
        import pyarrow as pa  # noqa: PLC0415 - optional, and imported only where it is used
    count, dimension = vectors.shape
    if not dimension:
        # Nothing was embedded and the dimension is unknown; Arrow has no lists of fixed size 0.
        return pa.nulls(count, pa.list_(pa.float32()))
    mask = None if embedded is None or embedded.all() else pa.array(~embedded)
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension, mask=mask)


def list_offsets(indptr: NDArray[np.int64]) -> Any:
    """The offsets of Arrow lists: int32, shape (rows + 1,).

    Raises:
        ConfigurationError: there are more terms than a column can hold.
    """
    import pyarrow as pa  # noqa: PLC0415 - as above

    if indptr[-1] > MOST_TERMS:
        raise ConfigurationError(
            f"an Arrow column must have at most {MOST_TERMS:,} terms, got {int(indptr[-1]):,}: convert slices of the result"
        )
    return pa.array(indptr.astype(np.int32))


def with_nulls(series: Any, embedded: NDArray[np.bool_]) -> Any:
    """A polars series that is null where not embedded."""
    if embedded.all():
        return series
    import polars as pl  # noqa: PLC0415 - as above

    return pl.select(pl.when(pl.Series(embedded)).then(series).alias(NAME)).to_series()
