"""Converts rows of a job's parts to what an index imports. Pure: no files."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from pinecone_embed_async._jobs._kept import RESERVED, json_value
from pinecone_embed_async._jobs._layouts import ID, Layout, LayoutName
from pinecone_embed_async._jobs._sources import BadRow, Row

MOST_METADATA_BYTES = 40 * 1024
"""Per record, as JSON text (the service's limit of 40 KB)."""

MOST_ID_CHARACTERS = 512
"""Of the id of a record or document, in ASCII (the service's limit)."""


def fitting_rows(rows: Iterable[Row | BadRow], layout: Layout, names: Sequence[str]) -> Iterator[Row | BadRow]:
    """Yield rows; rows that an index would refuse are yielded as `BadRow`."""
    is_limited = layout.name is LayoutName.VECTORS
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        fault = _id_fault(row.id)
        if fault is None and is_limited and row.kept:
            size = len(_metadata(zip(names, row.kept, strict=True)))
            if size > MOST_METADATA_BYTES:
                fault = f"its kept fields are {size:,} bytes of metadata, and an index takes at most {MOST_METADATA_BYTES:,}"
        yield row if fault is None else BadRow(row.source, row.line, row.number, fault, fault)


def _id_fault(row_id: str) -> str | None:
    if not row_id.isascii():
        return "its id is not ASCII, and an index takes only ASCII ids"
    if "\0" in row_id:
        return "its id contains a null character, which an index does not take"
    if len(row_id) > MOST_ID_CHARACTERS:
        return f"its id has {len(row_id):,} characters, and an index takes at most {MOST_ID_CHARACTERS}"
    return None


def _kept_values(table: Any) -> list[dict[str, Any]]:
    """The kept fields of each row as JSON values, without nulls."""
    fields = [field for field in table.schema if field.name not in RESERVED]
    columns = [[json_value(value, field) for value in table[field.name]] for field in fields]
    return [
        {field.name: value for field, value in zip(fields, row, strict=True) if value is not None}
        for row in (zip(*columns, strict=True) if columns else ((),) * table.num_rows)
    ]


def _metadata(values: Iterable[tuple[str, Any]]) -> bytes:
    plain = {name: _metadata_value(json_value(value)) for name, value in values}
    return msgspec.json.encode({name: value for name, value in plain.items() if value is not None})


def _metadata_value(value: Any) -> Any:
    """Convert a value to one that metadata may have: text, a number, a boolean or a list of texts; others to JSON text."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def with_terms(table: Any) -> Any:
    """Return the rows an index takes: one sparse vector without terms would make it refuse the whole batch."""
    if "vector" in table.column_names:
        return table
    # Not `pyarrow.compute`, whose import takes longer than that of any other module of a job.
    terms = table["indices"].combine_chunks().value_lengths()
    return table.filter(pa.array(np.asarray(terms) > 0))


def documents_of(table: Any, vector_field: str) -> bytes:
    """Encode the rows of a part as documents, one JSON object per line: `_id`, the vector, the kept fields."""
    encode = msgspec.json.Encoder().encode
    vectors = _vectors(table)
    ids = table["id"].to_pylist()
    lines = [
        encode({ID: row_id, vector_field: vector, **kept})
        for row_id, vector, kept in zip(ids, vectors, _kept_values(table), strict=True)
    ]
    return b"".join(line + b"\n" for line in lines)


def _vectors(table: Any) -> Iterator[Any]:
    if "vector" in table.column_names:
        for chunk in table["vector"].chunks:
            if len(chunk):
                yield from chunk.flatten().to_numpy().reshape(len(chunk), -1).tolist()
    else:
        for indices, values in zip(table["indices"].to_pylist(), table["values"].to_pylist(), strict=True):
            yield {"indices": indices, "values": values}


def vectors_of(table: Any) -> Any:
    """Convert a part to the table that a legacy vector index imports: `id`, `values` or `sparse_values`, `metadata`."""
    metadata = [_metadata(row.items()).decode() if row else None for row in _kept_values(table)]
    columns: dict[str, Any] = {"id": table["id"].cast(pa.string())}
    if "vector" in table.column_names:
        columns["values"] = table["vector"].cast(pa.list_(pa.float32()))
    else:
        pair = [table[name].combine_chunks() for name in ("indices", "values")]
        columns["sparse_values"] = pa.StructArray.from_arrays(
            [each.chunk(0) if isinstance(each, pa.ChunkedArray) else each for each in pair], ["indices", "values"]
        )
    return pa.table({**columns, "metadata": pa.array(metadata, pa.string())})
