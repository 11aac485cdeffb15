"""Results as columns of Arrow, pandas and polars, which are imported only on use."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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


def sparse_arrow(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.float32],
    embedded: NDArray[np.bool_],
) -> Any:
    """Compressed rows as an Arrow array of structs with the lists `indices` and `values`; null where not embedded.

    Raises:
        ConfigurationError: there are more terms than a column can hold.
    """
    with needed_by("to_arrow", "pyarrow"):
        import pyarrow as pa  # noqa: PLC0415 - as above
    offsets = list_offsets(indptr)
    columns = [pa.ListArray.from_arrays(offsets, pa.array(terms)) for terms in (indices, values)]
    mask = None if embedded.all() else pa.array(~embedded)
    return pa.StructArray.from_arrays(columns, ["indices", "values"], mask=mask)


def pandas_series(cells: Iterable[object], embedded: NDArray[np.bool_], index: object) -> Any:
    """A pandas series of Python objects; `None` where not embedded.

    Args:
        cells: one object per row.
        embedded: bool, shape (rows,).
        index: labels of the rows; 0, 1, … by default.
    """
    with needed_by("to_pandas", "pandas"):
        import pandas as pd  # noqa: PLC0415 - as above
    column = [cell if is_there else None for cell, is_there in zip(cells, embedded.tolist(), strict=True)]
    return pd.Series(column, index=index, name=NAME, dtype="object")


def dense_polars(vectors: NDArray[np.float32], embedded: NDArray[np.bool_]) -> Any:
    """Vectors as a polars series of float32 arrays; null where not embedded."""
    with needed_by("to_polars", "polars"):
        import polars as pl  # noqa: PLC0415 - as above
    count, dimension = vectors.shape
    if not dimension or not count:
        kind = pl.Array(pl.Float32, dimension) if dimension else pl.List(pl.Float32)
        return pl.Series(NAME, [None] * count, dtype=kind)
    return _with_nulls(pl.Series(NAME, np.ascontiguousarray(vectors)), embedded)


def sparse_polars(
    indptr: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.float32],
    embedded: NDArray[np.bool_],
) -> Any:
    """Compressed rows as a polars series of structs with the lists `indices` and `values`; null where not embedded."""
    with needed_by("to_polars", "polars"):
        import polars as pl  # noqa: PLC0415 - as above
    # Grouped by polars: a series built row by row takes a hundred times as long.
    rows = pl.Series("row", np.arange(len(embedded)))
    terms = {"row": np.repeat(rows.to_numpy(), np.diff(indptr)), "indices": indices, "values": values}
    lists = pl.DataFrame(terms).group_by("row", maintain_order=True).all()
    table = rows.to_frame().join(lists, on="row", how="left", maintain_order="left").drop("row")
    empty = [pl.lit(pl.Series([[]], dtype=kind)) for kind in table.dtypes]
    filled = [pl.col(name).fill_null(none) for name, none in zip(table.columns, empty, strict=True)]
    return _with_nulls(table.select(filled).to_struct(NAME), embedded)


def _with_nulls(series: Any, embedded: NDArray[np.bool_]) -> Any:
    if embedded.all():
        return series
    import polars as pl  # noqa: PLC0415 - as above

    return pl.select(pl.when(pl.Series(embedded)).then(series).alias(NAME)).to_series()
