"""Rows and their embeddings as Arrow tables: the columns of the output and their types."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pinecone_embed_async._errors import ConfigurationError, ResponseError
from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._jobs._templates import kind_of
from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, Usage

Embeddings = DenseEmbeddings | SparseEmbeddings
RowIndices = npt.NDArray[np.intp]

VECTOR_COLUMNS = ("vector", "indices", "values", "tokens")
"""All columns that embeddings may have."""

RESERVED = ("id", "row", *VECTOR_COLUMNS)
"""Names of the output's own columns, which no kept column may have."""

# Set on columns whose values are of several kinds, so that a resumed job goes on as it began.
_AS_JSON = {b"pinecone_embed_async": b"json"}


def vector_columns(embeddings: Embeddings, rows: RowIndices) -> dict[str, Any]:
    """The embeddings of some rows as Arrow columns.

    Dense: `vector`, a fixed-size list of float32. Sparse: `indices` (uint32), `values` (float32), and `tokens` where the
    service sent them, each a list.
    """
    return _dense_columns(embeddings, rows) if isinstance(embeddings, DenseEmbeddings) else _sparse_columns(embeddings, rows)


def _dense_columns(embeddings: DenseEmbeddings, rows: RowIndices) -> dict[str, Any]:
    # Without a copy if all of them are taken.
    vectors = embeddings.vectors if len(rows) == len(embeddings) else embeddings.vectors[rows]
    dimension = vectors.shape[1]
    if not dimension:
        # Nothing was embedded, by a model of unknown dimension; Arrow has no lists of the fixed size 0.
        return {"vector": pa.array([], pa.list_(pa.float32()))}
    return {"vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension)}


def _sparse_columns(embeddings: SparseEmbeddings, rows: RowIndices) -> dict[str, Any]:
    starts, ends = embeddings.indptr[rows], embeddings.indptr[rows + 1]
    offsets = pa.array(np.concatenate(([0], np.cumsum(ends - starts))).astype(np.int32))
    runs = [np.arange(start, end, dtype=np.intp) for start, end in zip(starts, ends, strict=True)]
    taken = np.concatenate([np.empty(0, np.intp), *runs])
    columns = {
        "indices": pa.ListArray.from_arrays(offsets, pa.array(embeddings.indices[taken])),
        "values": pa.ListArray.from_arrays(offsets, pa.array(embeddings.values[taken])),
    }
    if embeddings.tokens is not None:
        texts = [token for index in rows.tolist() for token in embeddings.tokens[index]]
        tokens = pa.array(texts, pa.string())
        columns["tokens"] = pa.ListArray.from_arrays(offsets, tokens)
    return columns


def embeddings_of(table: Any) -> Embeddings:
    """Restore embeddings from the columns of `vector_columns`; all rows are embedded."""
    table = table.combine_chunks()
    if "vector" in table.column_names:
        vectors = _whole(table["vector"]).flatten().to_numpy().reshape(table.num_rows, -1)
        return DenseEmbeddings(vectors, model="", usage=Usage())
    indices = _whole(table["indices"])
    offsets = indices.offsets.to_numpy().astype(np.int64)
    return SparseEmbeddings(
        offsets - offsets[0],
        indices.flatten().to_numpy(),
        _whole(table["values"]).flatten().to_numpy(),
        model="",
        usage=Usage(),
        tokens=table["tokens"].to_pylist() if "tokens" in table.column_names else None,
    )


def _whole(column: Any) -> Any:
    # After `combine_chunks` a column has one chunk, or none if it has no rows.
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def embedded_tables(pieces: Iterable[tuple[Sequence[Row], Embeddings]], kept: pa.Schema) -> list[Any]:
    """The embedded rows as Arrow tables: `id`, `row`, the kept columns, the embeddings.

    Pieces with embeddings of the same types are one table, with one chunk per piece in the columns of the embeddings.

    Args:
        pieces: Rows with their embeddings.
        kept: The columns to keep.
    """
    runs: list[tuple[list[Row], list[dict[str, Any]]]] = []
    like: list[Any] = []
    for rows, embeddings in pieces:
        indices = np.flatnonzero(embeddings.embedded)
        chosen = rows if len(indices) == len(rows) else [rows[index] for index in indices.tolist()]
        vectors = vector_columns(embeddings, indices)
        types = [(name, array.type) for name, array in vectors.items()]
        if not runs or types != like:
            like = types
            runs.append(([], []))
        runs[-1][0].extend(chosen)
        runs[-1][1].append(vectors)
    return [_table_of(rows, vectors, kept) for rows, vectors in runs]


def _table_of(rows: Sequence[Row], vectors: Sequence[Mapping[str, Any]], kept: pa.Schema) -> Any:
    # Column by column: work per row would keep the interpreter's lock from the event loop.
    fields = zip(*rows, strict=True) if rows else ([] for _ in Row._fields)
    columns = dict(zip(Row._fields, fields, strict=True))
    arrays = {"id": pa.array(columns["id"], pa.string()), "row": pa.array(columns["number"], pa.int64())}
    schema = [pa.field(name, array.type) for name, array in arrays.items()]
    for place, field in enumerate(kept):
        arrays[field.name] = _kept_array([values[place] for values in columns["kept"]], field)
        schema.append(field)
    for name, first in vectors[0].items():
        arrays[name] = pa.chunked_array([each[name] for each in vectors])
        schema.append(pa.field(name, first.type))
    return pa.Table.from_arrays([*arrays.values()], schema=pa.schema(schema))


def check_same_vectors(before: pa.Schema, now: pa.Schema) -> None:
    """Check that new embeddings match the existing ones.

    Raises:
        ResponseError: The service's answers have changed, the dimension for instance.
    """
    for name in ("vector", "indices"):
        was, is_now = (schema.field(name).type if name in schema.names else "missing" for schema in (before, now))
        # Types, not field names: Parquet and Arrow name the elements of a list differently.
        if was != is_now:
            raise ResponseError(f"the answers changed: {name} was {was} in this output and now is {is_now}")


def check_kept_names(names: Iterable[str]) -> None:
    """Check that the names of kept columns are unique.

    Raises:
        ConfigurationError: Two have the same name, or one has that of a column of the output.
    """
    seen: set[str] = set()
    for name in names:
        if name in RESERVED:
            raise ConfigurationError(f"--keep {name}: the output has a column of its own with this name")
        if name in seen:
            raise ConfigurationError(f"--keep {name}: named twice")
        seen.add(name)


def _is_int64(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


# By column type, which values fit. A missing value fits every column.
_FITS: dict[Any, Callable[[Any], bool]] = {
    pa.bool_(): lambda value: type(value) is bool,
    pa.int64(): _is_int64,
    pa.float64(): lambda value: type(value) is float or _is_int64(value),
    pa.string(): lambda value: type(value) is str,
}
_NUMBERS = frozenset({pa.int64(), pa.float64()})
_OTHER = "other"


class KeptTypes:
    """Determines the types of the kept columns from the rows that it is shown.

    Values from Parquet files keep their types. Others are true or false, whole numbers, numbers or text; a column with
    values of several of these kinds, of lists or objects, or without values, becomes text in JSON.

    Args:
        names: The columns.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._seen: list[set[Any]] = [set() for _ in names]

    def show(self, row: Row) -> None:
        """Take the values of a row into account."""
        for seen, value in zip(self._seen, row.kept, strict=True):
            if value is not None:
                seen.add(_type_of(value))

    def schema(self) -> Any:
        """The columns as an Arrow schema."""
        return pa.schema([_field(name, seen) for name, seen in zip(self._names, self._seen, strict=True)])


def _type_of(value: Any) -> Any:
    if isinstance(value, pa.Scalar):
        return value.type
    return next((kind for kind, fits in _FITS.items() if fits(value)), _OTHER)


def _field(name: str, seen: set[Any]) -> Any:
    if len(seen) == 1 and _OTHER not in seen:
        return pa.field(name, next(iter(seen)))
    if seen == _NUMBERS:
        return pa.field(name, pa.float64())
    return pa.field(name, pa.string(), metadata=_AS_JSON)


def kept_of(schema: Any) -> Any:
    """The kept columns among those of a table."""
    return pa.schema([field for field in schema if field.name not in RESERVED])


def with_checked_types(rows: Iterable[Row], kept: pa.Schema) -> Iterator[Row]:
    """Yield the rows, each once its kept values are checked against their columns.

    Raises:
        SourceError: A value does not fit, with the file and line.
    """
    checks = [(place, field, _fits(field)) for place, field in enumerate(kept)]
    for row in rows:
        for place, field, fits in checks:
            value = row.kept[place]
            if value is not None and not fits(value):
                given = str(value.type) if isinstance(value, pa.Scalar) else kind_of(value)
                raise SourceError(
                    f"{row.source}:{row.line}: the kept field {field.name!r} is {given}, which does not fit into its "
                    f"column of {field.type}"
                )
        yield row


def _is_json(field: Any) -> bool:
    return field.metadata is not None and _AS_JSON.items() <= field.metadata.items()


def _fits(field: Any) -> Callable[[Any], bool]:
    if _is_json(field):
        return lambda _value: True
    takes = _FITS.get(field.type, lambda _value: False)
    return lambda value: value.type == field.type if isinstance(value, pa.Scalar) else takes(value)


def _kept_array(values: Sequence[Any], field: Any) -> Any:
    if any(issubclass(kind, pa.Scalar) for kind in set(map(type, values))):
        # A scalar of a list that is null makes Arrow raise.
        values = [None if isinstance(value, pa.Scalar) and not value.is_valid else value for value in values]
    if _is_json(field):
        encode = msgspec.json.Encoder().encode
        plain = (value.as_py() if isinstance(value, pa.Scalar) else value for value in values)
        values = [None if value is None else encode(value).decode() for value in plain]
    return pa.array(values, field.type)
