"""Rows and their embeddings as Arrow tables: the output's columns and their types."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pinecone_embed_async._errors import ResponseError
from pinecone_embed_async._jobs._kept import kept_array
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, Usage, dense_arrow, list_offsets

Embeddings = DenseEmbeddings | SparseEmbeddings
RowIndices = npt.NDArray[np.intp]


def vector_columns(embeddings: Embeddings, rows: RowIndices) -> dict[str, Any]:
    """The embeddings of some rows as Arrow columns.

    Dense: `vector`, a fixed-size list of float32. Sparse: lists `indices` (uint32), `values` (float32) and, where the
    service sent them, `tokens`.
    """
    # Without a copy if all rows are taken.
    chosen = embeddings if len(rows) == len(embeddings) else embeddings[rows]
    if isinstance(chosen, DenseEmbeddings):
        return {"vector": dense_arrow(chosen.vectors)}
    terms: dict[str, Any] = {"indices": pa.array(chosen.indices), "values": pa.array(chosen.values)}
    if chosen.tokens is not None:
        terms["tokens"] = pa.array([token for row in chosen.tokens for token in row], pa.string())
    offsets = list_offsets(chosen.indptr)
    return {name: pa.ListArray.from_arrays(offsets, flat) for name, flat in terms.items()}


def embeddings_of(table: Any) -> Embeddings:
    """Restore embeddings from the columns of `vector_columns`; every row is embedded."""
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

    Consecutive pieces with embeddings of the same types become one table; its embedding columns have one chunk per piece.

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
    # Column by column, because work per row would hold the interpreter's lock while the event loop waits for it.
    fields = zip(*rows, strict=True) if rows else ([] for _ in Row._fields)
    columns = dict(zip(Row._fields, fields, strict=True))
    arrays = {"id": pa.array(columns["id"], pa.string()), "row": pa.array(columns["number"], pa.int64())}
    schema = [pa.field(name, array.type) for name, array in arrays.items()]
    for place, field in enumerate(kept):
        arrays[field.name] = kept_array([values[place] for values in columns["kept"]], field)
        schema.append(field)
    for name, first in vectors[0].items():
        arrays[name] = pa.chunked_array([each[name] for each in vectors])
        schema.append(pa.field(name, first.type))
    return pa.Table.from_arrays([*arrays.values()], schema=pa.schema(schema))


def check_same_vectors(before: pa.Schema, now: pa.Schema) -> None:
    """Check that new embeddings have the same types as the existing ones.

    Raises:
        ResponseError: The service's answers have changed, for instance in their dimension.
    """
    for name in ("vector", "indices"):
        was, is_now = (schema.field(name).type if name in schema.names else "missing" for schema in (before, now))
        # Compare types, not fields: Parquet and Arrow name the elements of a list differently.
        if was != is_now:
            raise ResponseError(f"the answers changed: {name} was {was} in this output and now is {is_now}")
