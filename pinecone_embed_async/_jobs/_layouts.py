"""Layouts of the files that an index imports, made from a job's parts. Plain decisions, no files.

The service's page on importing data (https://docs.pinecone.io/guides/index-data/import-data) says: a directory for each
namespace, `__default__` for the default one; in it JSON lines for a document index, and for a legacy vector index
(https://docs.pinecone.io/guides/legacy/vectors-api/import-vectors) Parquet files with the columns below.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._jobs._kept import RESERVED, json_value
from pinecone_embed_async._jobs._sources import BadRow, Row

DEFAULT_NAMESPACE = "__default__"

MOST_METADATA_BYTES = 40 * 1024
"""Of a record, as JSON text (the service's limit of 40 KB)."""

MOST_ID_CHARACTERS = 512
"""Of a record or a document, ASCII (the service's limit)."""

_ID = "_id"


class LayoutName(StrEnum):
    """What a job's folder holds."""

    TABLE = "table"
    DOCUMENTS = "documents"
    VECTORS = "vectors"


class Layout(Struct, frozen=True):
    """The files beside a job's table.

    Attributes:
        name: Which ones.
        namespace: The namespace of the index, and the name of their folder.
        vector_field: The field of the vector in documents.
    """

    name: LayoutName
    namespace: str = DEFAULT_NAMESPACE
    vector_field: str = "vector"

    @property
    def suffix(self) -> str:
        """The suffix of its files."""
        return ".jsonl" if self.name is LayoutName.DOCUMENTS else ".parquet"


def check_layout(layout: Layout, keep: Iterable[str]) -> None:
    """Check that a layout can be written.

    Raises:
        ConfigurationError: The namespace cannot be a folder, or two fields of a document have one name.
    """
    name = layout.namespace
    is_default = name == DEFAULT_NAMESPACE
    if not re.fullmatch(r"[!-.0-~]{1,100}", name) or (name[0] in "._" and not is_default) or name.startswith("part-"):
        raise ConfigurationError(
            f"--namespace must be 1 to 100 ASCII characters without blanks and /, not beginning with . or _, got {name!r}"
        )
    if layout.name is LayoutName.DOCUMENTS:
        taken = {_ID, layout.vector_field}
        if len(taken) == 1 or not layout.vector_field or layout.vector_field.startswith(("_", "$")):
            raise ConfigurationError(
                f"--vector-field must be a field's name not beginning with _ or $, got {layout.vector_field!r}"
            )
        for field in keep:
            if field in taken or field.startswith(("_", "$")):
                raise ConfigurationError(
                    f"--keep {field}: a document has _id and {layout.vector_field} of its own, and its fields do not begin "
                    "with _ or $"
                )


def fitting_rows(rows: Iterable[Row | BadRow], layout: Layout, names: Sequence[str]) -> Iterator[Row | BadRow]:
    """Yield rows; those that an index would refuse as rows that cannot be embedded."""
    is_limited = layout.name is LayoutName.VECTORS
    for row in rows:
        if isinstance(row, BadRow):
            yield row
            continue
        fault = _id_fault(row.id)
        if fault is None and is_limited and row.kept:
            size = len(_metadata(zip(names, row.kept, strict=True)))
            if size > MOST_METADATA_BYTES:
                fault = f"its kept fields are {size:,} bytes of metadata, and an index takes {MOST_METADATA_BYTES:,}"
        yield row if fault is None else BadRow(row.source, row.line, row.number, fault, fault)


def _id_fault(row_id: str) -> str | None:
    if not row_id.isascii() or "\0" in row_id:
        return "its id is not ASCII, and an index takes no other"
    if len(row_id) > MOST_ID_CHARACTERS:
        return f"its id has {len(row_id):,} characters, and an index takes {MOST_ID_CHARACTERS}"
    return None


def _kept_values(table: Any) -> list[dict[str, Any]]:
    """For each row its kept fields as JSON has them, without null ones."""
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
    """A value as metadata may have it: text, a number, true or false, or a list of texts; others as JSON text."""
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    return msgspec.json.encode(value).decode() if isinstance(value, list | dict) else value


def with_terms(table: Any) -> Any:
    """The rows of a table that an index takes: a sparse vector without terms would be refused, and its batch with it."""
    if "vector" in table.column_names:
        return table
    return table.filter(pc.greater(pc.list_value_length(table["indices"]), 0))


def documents_of(table: Any, vector_field: str) -> bytes:
    """The rows of a part as documents, a line of JSON each: `_id`, the vector, the kept fields."""
    encode = msgspec.json.Encoder().encode
    vectors = _vectors(table)
    ids = table["id"].to_pylist()
    lines = [
        encode({_ID: row_id, vector_field: vector, **kept})
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
    """The rows of a part as a table that a legacy vector index imports: `id`, `values` or `sparse_values`, `metadata`."""
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
