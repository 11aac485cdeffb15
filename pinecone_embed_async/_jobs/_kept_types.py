"""Types of kept columns: finds one that holds every value unchanged, if there is one. Pure: no files."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
from pyarrow import types as of

EXACT_IN_DOUBLE = 2**53
"""Integers up to this one are exact as float64 (IEEE 754)."""

_INT64, _UINT64 = range(-(2**63), 2**63), range(2**64)
_UNITS = ("s", "ms", "us", "ns")
_MOST_DIGITS_128, _MOST_DIGITS_256 = 38, 76


class Span(NamedTuple):
    """The lowest and highest value seen of a type, as integers."""

    low: int
    high: int


Seen = Mapping[Any, Span | None]
"""The types of a column's values, with the span of each 64-bit type; `None` means any value the type can hold."""


def common_type(seen: Seen) -> Any:
    """Return a type that holds all values of these types unchanged; `None` if there is none.

    All text types are merged, integers are widened, and a column of nulls goes with any other.
    """
    types = {kind: span for kind, span in seen.items() if not of.is_null(kind)}
    if not types:
        return pa.null()
    if len(types) == 1:
        return next(iter(types))
    plain = {(kind.value_type if of.is_dictionary(kind) else kind): span for kind, span in types.items()}
    if len(plain) == 1:
        return next(iter(plain))
    return next((join(plain) for is_one, join in _FAMILIES if all(map(is_one, plain))), None)


def _is_text(kind: Any) -> bool:
    return bool(of.is_string(kind) or of.is_large_string(kind) or of.is_string_view(kind))


def _is_bytes(kind: Any) -> bool:
    return bool(of.is_binary(kind) or of.is_large_binary(kind) or of.is_fixed_size_binary(kind) or of.is_binary_view(kind))


def _is_number(kind: Any) -> bool:
    return bool(of.is_integer(kind) or of.is_floating(kind))


def _is_list(kind: Any) -> bool:
    return bool(of.is_list(kind) or of.is_large_list(kind) or of.is_fixed_size_list(kind))


def _limits(kind: Any, span: Span | None) -> Span:
    if span is not None:
        return span
    if of.is_unsigned_integer(kind):
        return Span(0, 2**kind.bit_width - 1)
    return Span(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)


def _numbers(types: Seen) -> Any:
    whole = {kind: _limits(kind, span) for kind, span in types.items() if of.is_integer(kind)}
    broken = [kind for kind in types if of.is_floating(kind)]
    low = min((span.low for span in whole.values()), default=0)
    high = max((span.high for span in whole.values()), default=0)
    if broken:
        if not whole:
            return max(broken, key=lambda kind: kind.bit_width)
        return pa.float64() if low >= -EXACT_IN_DOUBLE and high <= EXACT_IN_DOUBLE else None
    if len({of.is_unsigned_integer(kind) for kind in whole}) == 1:
        return max(whole, key=lambda kind: kind.bit_width)
    if low in _INT64 and high in _INT64:
        return pa.int64()
    return pa.uint64() if low in _UINT64 else None


def _finest(make: Callable[[str], Any]) -> Callable[[Seen], Any]:
    def join(types: Seen) -> Any:
        unit = max((kind.unit for kind in types), key=_UNITS.index)
        for kind, span in types.items():
            factor = 1000 ** (_UNITS.index(unit) - _UNITS.index(kind.unit))
            if any(bound * factor not in _INT64 for bound in _limits(kind, span)):
                return None
        return make(unit)

    return join


def _timestamps(types: Seen) -> Any:
    zones = {kind.tz for kind in types}
    return None if len(zones) > 1 else _finest(lambda unit: pa.timestamp(unit, next(iter(zones))))(types)


def _times(types: Seen) -> Any:
    # A day has 8.64e13 nanoseconds, so no unit overflows.
    unit = max((kind.unit for kind in types), key=_UNITS.index)
    return pa.time64(unit) if unit in {"us", "ns"} else pa.time32(unit)


def _decimals(types: Seen) -> Any:
    scale = max(kind.scale for kind in types)
    digits = max(kind.precision - kind.scale for kind in types) + scale
    if digits > _MOST_DIGITS_256:
        return None
    return pa.decimal128(digits, scale) if digits <= _MOST_DIGITS_128 else pa.decimal256(digits, scale)


def _lists(types: Seen) -> Any:
    # The spans of the elements are not known.
    inside = common_type(dict.fromkeys(kind.value_type for kind in types))
    return None if inside is None else pa.list_(inside)


def _structs(types: Seen) -> Any:
    names = {tuple(field.name for field in kind) for kind in types}
    if len(names) > 1:
        return None
    fields = {name: common_type({kind.field(name).type: None for kind in types}) for name in next(iter(names))}
    return None if None in fields.values() else pa.struct(list(fields.items()))


_FAMILIES: Sequence[tuple[Callable[[Any], bool], Callable[[Seen], Any]]] = (
    (_is_text, lambda _types: pa.string()),
    (_is_number, _numbers),
    (_is_bytes, lambda _types: pa.binary()),
    (of.is_timestamp, _timestamps),
    (of.is_date, lambda _types: pa.date64()),
    (of.is_time, _times),
    (of.is_duration, _finest(pa.duration)),
    (of.is_decimal, _decimals),
    (_is_list, _lists),
    (of.is_struct, _structs),
)
