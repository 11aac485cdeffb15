"""Kept columns: their types, their values as Arrow arrays, and which become JSON text. Pure: no files."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet
from pyarrow import types as of

from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._jobs._kept_types import Span, common_type
from pinecone_embed_async._jobs._sources import Row

VECTOR_COLUMNS = ("vector", "indices", "values", "tokens")
"""All columns that embeddings can have."""

RESERVED = ("id", "row", *VECTOR_COLUMNS)
"""Names of the output's own columns, which a kept column must not have."""

# Marks columns of JSON text, so that a resumed job continues to write it.
_AS_JSON = {b"pinecone_embed_async": b"json"}

_JSON = "lists, objects or numbers beyond 64 bits"
_PLAIN: dict[type, Any] = {bool: pa.bool_(), float: pa.float64(), str: pa.string()}


def check_kept_names(names: Iterable[str]) -> None:
    """Check that the names of kept columns are unique and not reserved.

    Raises:
        ConfigurationError: A name is given twice, or is that of one of the output's own columns.
    """
    seen: set[str] = set()
    for name in names:
        if name in RESERVED:
            raise ConfigurationError(f"--keep {name}: the output has its own column of this name")
        if name in seen:
            raise ConfigurationError(f"--keep {name}: named twice")
        seen.add(name)


class KeptTypes:
    """Determines the types of the kept columns from the rows it is shown.

    Values from Parquet files keep their types; others are booleans, integers, floats or text. If one type can hold all
    values of a column unchanged, the column gets it. Any other mixture becomes JSON text, as do lists and objects
    from JSON files. A column without values has the type null, which any later type replaces.

    Args:
        names: The columns.
        before: Columns of the existing output, whose values are not seen again.
    """

    def __init__(self, names: Sequence[str], before: Any = None) -> None:
        self._names = names
        self._before = before
        self._seen: list[dict[Any, Span | None]] = [{} for _ in names]
        for name, seen in zip(names, self._seen, strict=True):
            field = pa.field(name, pa.null()) if before is None else before.field(name)
            if not is_json(field) and not of.is_null(field.type):
                seen[field.type] = None

    def show(self, row: Row) -> None:
        """Take a row's values into account."""
        for seen, value in zip(self._seen, row.kept, strict=True):
            if value is None or isinstance(value, pa.NullScalar):
                continue
            kind, number = _PLAIN.get(type(value)), None
            if kind is None:
                kind, number = _type_of(value)
            if number is None:
                seen.setdefault(kind, None)
            elif kind not in seen:
                seen[kind] = Span(number, number)
            elif (span := seen[kind]) is not None and not span.low <= number <= span.high:
                seen[kind] = Span(min(span.low, number), max(span.high, number))

    def schema(self) -> Any:
        """The columns as an Arrow schema, with the types that Parquet returns."""
        return _as_stored(pa.schema([self._field(place) for place in range(len(self._names))]))

    def mixed(self) -> list[str]:
        """Return a sentence about each column that becomes JSON text because no type holds all its values unchanged."""
        found = []
        for place, name in enumerate(self._names):
            was_json = self._before is not None and is_json(self._before.field(name))
            if len(self._seen[place]) > 1 and not was_json and is_json(self._field(place)):
                kinds = ", ".join(sorted(map(str, self._seen[place])))
                found.append(f"the kept column {name!r} becomes JSON text, because no type holds all its values ({kinds})")
        return found

    def _field(self, place: int) -> Any:
        name, seen = self._names[place], self._seen[place]
        if self._before is not None and is_json(self._before.field(name)):
            return self._before.field(name)
        kind = None if _JSON in seen else common_type(seen)
        return json_field(name) if kind is None else pa.field(name, kind)


def _type_of(value: Any) -> tuple[Any, int | None]:
    """The type of a value that is not of a plain type, and its integer value if the type has 64-bit integers."""
    if isinstance(value, pa.Scalar):
        kind = value.type
        if not value.is_valid:
            return kind, 0 if _has_span(kind) else None
        return kind, (_number_of(value) if _has_span(kind) else None)
    if type(value) is int and -(2**63) <= value < 2**63:
        return pa.int64(), value
    return _JSON, None


def _has_span(kind: Any) -> bool:
    return kind in {pa.int64(), pa.uint64()} or bool(of.is_timestamp(kind) or of.is_duration(kind))


def _number_of(value: Any) -> int:
    number = value.as_py() if of.is_integer(value.type) else value.value
    return int(number)


def json_field(name: str) -> Any:
    """Make a column of JSON text."""
    return pa.field(name, pa.string(), metadata=_AS_JSON)


def is_json(field: Any) -> bool:
    """Whether a column holds JSON text."""
    return field.metadata is not None and _AS_JSON.items() <= field.metadata.items()


def kept_of(schema: Any) -> Any:
    """The kept columns of a table's schema."""
    return pa.schema([field for field in schema if field.name not in RESERVED])


def joined(schemas: Sequence[Any]) -> Any:
    """Combine schemas of one job's tables into one that holds all their values: JSON text where any of them has it."""
    first = schemas[0]
    for other in schemas[1:]:
        if kept_of(first) != kept_of(other):
            first = with_kept(first, pa.schema([_joined_field([first.field(f.name), f]) for f in kept_of(other)]))
    return first


def _joined_field(fields: Sequence[Any]) -> Any:
    name = fields[0].name
    kind = None if any(map(is_json, fields)) else common_type(dict.fromkeys(field.type for field in fields))
    return json_field(name) if kind is None else pa.field(name, kind)


def with_kept(schema: Any, kept: Any) -> Any:
    """Replace the kept columns of a schema by the given ones."""
    return pa.schema([kept.field(field.name) if field.name in kept.names else field for field in schema])


def same_columns(left: Any, right: Any) -> bool:
    """Whether the columns have the same types and meanings."""
    pairs = zip(left, right, strict=True)
    return all(one.type == other.type and is_json(one) == is_json(other) for one, other in pairs)


def conformed(table: Any, schema: Any) -> Any:
    """Convert a table's kept columns to those of a schema that can hold all its values."""
    if same_columns(table.schema, schema):
        return table
    for place, (before, now) in enumerate(zip(table.schema, schema, strict=True)):
        if before.type == now.type and is_json(before) == is_json(now):
            continue
        column = table.column(place)
        if is_json(now) and not is_json(before):
            array = pa.chunked_array([_json_texts(list(chunk)) for chunk in column.chunks], pa.string())
        else:
            array = column.cast(now.type)
        table = table.set_column(place, now, array)
    return table


def kept_array(values: Sequence[Any], field: Any) -> Any:
    """The values of a kept column as an array; they must fit its type."""
    kinds = set(map(type, values))
    if any(issubclass(kind, pa.Scalar) for kind in kinds):
        # Arrow raises for a null scalar of a list type.
        values = [None if isinstance(value, pa.Scalar) and not value.is_valid else value for value in values]
    if is_json(field):
        return _json_texts(values)
    types = {value.type if isinstance(value, pa.Scalar) else None for value in values if value is not None}
    if len(types) < 2 and types <= {field.type, None}:
        return pa.array(values, field.type)
    return _cast(values, field.type)


def _cast(values: Sequence[Any], kind: Any) -> Any:
    """Convert values of several types to an array of one type that holds them all."""
    places: dict[Any, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value.type if isinstance(value, pa.Scalar) else None, []).append(place)
    arrays = [pa.array([values[place] for place in where], own or kind).cast(kind) for own, where in places.items()]
    order = np.argsort(np.concatenate([np.array(where, np.int64) for where in places.values()]))
    return pa.concat_arrays(arrays).take(pa.array(order))


def _json_texts(values: Sequence[Any]) -> Any:
    encode = msgspec.json.Encoder().encode
    plain = [_plain(value) if isinstance(value, pa.Scalar) else value for value in values]
    return pa.array([None if value is None else encode(value).decode() for value in plain], pa.string())


def json_value(value: Any, field: Any = None) -> Any:
    """Convert a kept value to a JSON value.

    Args:
        value: An Arrow scalar or a plain value.
        field: Its column; a column of JSON text is decoded.
    """
    plain = _plain(value) if isinstance(value, pa.Scalar) else value
    return msgspec.json.decode(plain) if field is not None and is_json(field) and plain is not None else plain


def _plain(scalar: Any) -> Any:
    """Convert a scalar to a JSON value, exactly; pandas, which Arrow uses for nanoseconds if installed, is not used."""
    kind = scalar.type
    if not scalar.is_valid:
        return None
    if of.is_dictionary(kind):
        return _plain(scalar.value)
    if of.is_struct(kind):
        return {name: _plain(value) for name, value in scalar.items()}
    if of.is_map(kind):
        return [[_plain(entry["key"]), _plain(entry["value"])] for entry in scalar.values]
    if of.is_nested(kind):
        return [_plain(value) for value in scalar.values]
    if of.is_floating(kind):
        number = scalar.as_py()
        # JSON has no NaN or infinity.
        return number if np.isfinite(number) else str(number)
    if of.is_timestamp(kind) and kind.unit == "ns":
        return str(scalar.cast(pa.string())).replace(" ", "T", 1)
    if (of.is_duration(kind) or of.is_time64(kind)) and kind.unit == "ns":
        return str(scalar.cast(pa.string())) if of.is_time64(kind) else f"PT{_seconds(scalar.value)}S"
    return _single(scalar)


def _single(scalar: Any) -> Any:
    """Convert a scalar that is valid and not nested."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        # Parquet does not check that text is UTF-8.
        return scalar.as_buffer().to_pybytes().decode(errors="backslashreplace")
    except (ValueError, OverflowError):
        # Outside the range of Python's dates: use the time since 1970 in the column's unit.
        return scalar.value


def _seconds(nanoseconds: int) -> str:
    sign, (whole, rest) = "-" if nanoseconds < 0 else "", divmod(abs(nanoseconds), 10**9)
    return f"{sign}{whole}" + (f".{rest:09}".rstrip("0") if rest else "")


def _as_stored(schema: Any) -> Any:
    """Convert types to those that Parquet returns; it has no seconds, for instance."""
    return pa.schema([_stored_field(field) for field in schema])


def _stored_field(field: Any) -> Any:
    if is_json(field):
        return field
    file = pa.BufferOutputStream()
    try:
        parquet.write_table(pa.table([pa.array([], field.type)], schema=pa.schema([field])), file)
        return pa.field(field.name, parquet.read_schema(pa.BufferReader(file.getvalue())).field(0).type)
    except pa.ArrowException:
        return json_field(field.name)


class KeptColumns:
    """The kept columns of a running job.

    Attributes:
        schema: Their types; `None` until there are rows.
        is_settled: Whether all values are known to fit.
        warnings: A sentence about each column that became JSON text.
        names: As given.
    """

    def __init__(self, names: Sequence[str], schema: Any, *, is_settled: bool) -> None:
        self.schema = schema
        self.is_settled = is_settled
        self.warnings: list[str] = []
        self.names = names

    def take_in(self, rows: Iterable[Row]) -> bool:
        """Widen the columns to hold the values of these rows; return whether existing columns changed."""
        if self.schema is not None and (self.is_settled or not self.names):
            return False
        types = KeptTypes(self.names, self.schema)
        for row in rows:
            types.show(row)
        schema = types.schema()
        if self.schema is not None and same_columns(schema, self.schema):
            return False
        self.warnings += types.mixed()
        changed, self.schema = self.schema is not None, schema
        return changed
