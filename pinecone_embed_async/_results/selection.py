"""Indexing of results: the accepted indices, and the rows they select."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pinecone_embed_async._checks import short
from pinecone_embed_async._inputs import is_missing

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SupportsArray(Protocol):
    """Anything NumPy can convert to an array: a NumPy array, or a series of pandas, polars or Arrow."""

    def __array__(self) -> NDArray[Any]:
        """The values as an array."""


# Not any sequence, because NumPy reads a tuple as one index per dimension.
Rows = slice | list[int] | list[bool] | range | SupportsArray
"""Several rows: a slice, a mask with one bool per input, or positions, which may be negative and repeated."""


def selected(given: object, count: int) -> int | slice | NDArray[np.intp]:
    """The rows that an index of a result selects.

    Args:
        given: the index. The labels of a series are ignored.
        count: rows of the result.

    Returns:
        One position, a slice, or an array of positions from 0, intp.

    Raises:
        IndexError: a position is out of range, or a mask is not as long as the result.
        TypeError: `given` is not a valid index.
    """
    if isinstance(given, slice):
        return given
    if not isinstance(given, bool) and getattr(given, "shape", ()) == ():
        with contextlib.suppress(TypeError):
            row = operator.index(given)  # type: ignore[arg-type]
            if not -count <= row < count:
                raise _out_of_range(row, count)
            return row % count
    array = _as_array(given)
    if array.dtype.kind == "b":
        if len(array) != count:
            raise IndexError(f"a mask must have one bool for each of the {count:,} rows, got {len(array):,}")
        return np.flatnonzero(array)
    outside = (array < -count) | (array >= count)
    if outside.any():
        raise _out_of_range(array[outside][0], count)
    positions: NDArray[np.intp] = array.astype(np.intp) % count
    return positions


def _as_array(given: object) -> NDArray[Any]:
    """A one-dimensional array of bools or integers.

    Raises:
        TypeError: `given` cannot be converted to one.
    """
    if not hasattr(given, "__array__"):
        if not isinstance(given, Sequence) or isinstance(given, (tuple, str, bytes)):
            cure = ": pass a list" if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else ""
            raise _no_rows(f"{short(given) if isinstance(given, bool) else f'a {type(given).__name__}'}{cure}")
        if len({isinstance(value, (bool, np.bool_)) for value in given}) > 1:
            raise _no_rows("a mix of bools and others")
    try:
        array = np.asarray(given)
    except ValueError:
        raise _no_rows("rows of several lengths") from None
    if array.ndim != 1:
        raise _no_rows(f"{array.dtype} of shape {array.shape}")
    if not len(array) and array.dtype.kind != "b":
        return np.empty(0, np.intp)
    if array.dtype.kind == "O":
        return _of_objects(array.tolist())
    if array.dtype.kind not in "biu":
        raise _no_rows(f"{array.dtype}{': convert them with .astype(int)' if array.dtype.kind == 'f' else ''}")
    return array


def _of_objects(values: list[Any]) -> NDArray[Any]:
    if any(map(is_missing, values)):
        raise _no_rows("missing values: fill them first, mask.fillna(False) for example")
    if all(isinstance(value, (bool, np.bool_)) for value in values):
        return np.array(values, np.bool_)
    if all(isinstance(value, Integral) and not isinstance(value, bool) for value in values):
        # Python's own integers, because they may be too large for NumPy's.
        return np.array([int(value) for value in values], object)
    raise _no_rows("values of other types")


def _no_rows(got: str) -> TypeError:
    return TypeError(f"an index must be an integer, a slice, or a list or array of integers or one bool per row, got {got}")


def _out_of_range(row: object, count: int) -> IndexError:
    if not count:
        return IndexError(f"an empty result has no row {row}")
    return IndexError(f"rows must be from {-count} to {count - 1}, got {row}")
