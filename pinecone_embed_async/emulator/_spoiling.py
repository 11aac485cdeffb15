"""Faults in the body of an answer: turns a correct answer into wrong bytes, without I/O."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async.emulator._faults import FaultName

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async.emulator._answers import Answer
    from pinecone_embed_async.emulator._faults import Fault

HTML_PAGE = (
    b"<!DOCTYPE html>\n<html><head><title>Something is wrong</title></head>"
    b"<body><h1>Something is wrong</h1><hr>proxy</body></html>\n"
)

_NESTED = 100_000

_VALUES = {"dense": b'"values":[', "sparse": b'"sparse_values":['}
_OTHER_ITEMS = {
    "dense": b'{"sparse_values":[0.5,0.25],"sparse_indices":[7,4294967295],"vector_type":"sparse"}',
    "sparse": b'{"values":[0.5,0.25],"vector_type":"dense"}',
}


def _with_item(answer: Answer, change: Callable[[bytes], bytes], *, index: int = -1) -> Answer:
    items = list(answer.items)
    items[index] = change(items[index])
    return replace(answer, items=tuple(items))


def _with_value(answer: Answer, value: bytes) -> bytes:
    """Replace the first value of the middle row; if that row is empty, add the value."""
    opening = _VALUES[answer.vector_type]

    def change(item: bytes) -> bytes:
        before, _, after = item.partition(opening)
        _, separator, rest = after.partition(b"," if b"," in after.partition(b"]")[0] else b"]")
        return before + opening + value + separator + rest

    return _with_item(answer, change, index=len(answer.items) // 2).body()


def _without_last_value(item: bytes) -> bytes:
    opening, bracket, after = item.partition(b"[")
    values, separator, rest = after.partition(b"]")
    return opening + bracket + values.rpartition(b",")[0] + separator + rest


def _with_index(answer: Answer, index: bytes) -> bytes:
    def change(item: bytes) -> bytes:
        before, opening, after = item.partition(b'"sparse_indices":[')
        indices, separator, rest = after.partition(b"]")
        _, comma, others = indices.partition(b",")
        return before + opening + index + comma + others + separator + rest

    # `change` gives an empty row an index, so the row needs a value too.
    def fill(item: bytes) -> bytes:
        return item.replace(b'"sparse_values":[]', b'"sparse_values":[0.5]')

    return _with_item(_with_item(answer, fill), change).body()


def _with_other_type(answer: Answer) -> bytes:
    other = _OTHER_ITEMS[answer.vector_type]
    return replace(
        answer,
        vector_type="sparse" if answer.vector_type == "dense" else "dense",
        items=(other,) * len(answer.items),
    ).body()


def _with_longer_values(answer: Answer) -> bytes:
    def change(item: bytes) -> bytes:
        values, separator, rest = item.partition(b"]")
        return values + (b"0.5" if values.endswith(b"[") else b",0.5") + separator + rest

    return _with_item(answer, change).body()


def _with_data_twice(answer: Answer) -> bytes:
    # In reverse order, so that it matters which of the two is read.
    doubled = replace(answer, items=answer.items[::-1]).body()
    data = doubled[doubled.index(b',"data":[') : doubled.rindex(b',"usage"')]
    body = answer.body()
    end = body.rindex(b',"usage"')
    return body[:end] + data + body[end:]


def _with_extra_keys(answer: Answer) -> bytes:
    extra = b'{"unheard":{"of":[1,"\\u00e9",null,{"values":[1]}]},'
    body = replace(answer, items=tuple(extra + item[1:] for item in answer.items)).body()
    usage = body.rindex(b'"usage":{') + len(b'"usage":{')
    return extra + body[1:usage] + b'"cost":0.5,' + body[usage:]


def _reordered(answer: Answer) -> bytes:
    decoded = msgspec.json.decode(answer.body())
    turned = dict(reversed(list(decoded.items())))
    turned["data"] = [dict(reversed(list(item.items()))) for item in turned["data"]]
    return msgspec.json.encode(turned)


def _with_white_space(answer: Answer) -> bytes:
    return b"\r\n\t " + msgspec.json.format(answer.body(), indent=1) + b" \n\n"


_SPOILERS: dict[FaultName, Callable[[Answer], bytes]] = {
    FaultName.EMPTY_BODY: lambda _: b"",
    FaultName.HTML_BODY: lambda _: HTML_PAGE,
    FaultName.INVALID_JSON: lambda answer: answer.body()[:-1],
    FaultName.GARBAGE_AFTER_JSON: lambda answer: answer.body() + b'{"model":"again"}',
    FaultName.BAD_UTF8: lambda answer: b'{"model":"\xff\xfe' + answer.body()[len(b'{"model":"') :],
    FaultName.DEEP_NESTING: lambda answer: answer.body()[:-1] + b',"extra":' + b"[" * _NESTED + b"]" * _NESTED + b"}",
    FaultName.DUPLICATE_KEYS: _with_data_twice,
    FaultName.NAN_VALUES: lambda answer: _with_value(answer, b"NaN"),
    FaultName.INFINITE_VALUES: lambda answer: _with_value(answer, b"-Infinity"),
    FaultName.HUGE_VALUES: lambda answer: _with_value(answer, b"1e39"),
    FaultName.NULL_VALUES: lambda answer: _with_value(answer, b"null"),
    FaultName.STRING_VALUES: lambda answer: _with_value(answer, b'"0.5"'),
    FaultName.WRONG_COUNT: lambda answer: replace(answer, items=answer.items[:-1]).body(),
    FaultName.EXTRA_COUNT: lambda answer: replace(answer, items=(*answer.items, answer.items[-1])).body(),
    FaultName.WRONG_DIMENSION: lambda answer: replace(answer, items=tuple(map(_without_last_value, answer.items))).body(),
    FaultName.RAGGED_DIMENSION: lambda answer: _with_item(answer, _without_last_value).body(),
    FaultName.MIXED_VECTOR_TYPES: lambda answer: _with_item(answer, lambda _: _OTHER_ITEMS[answer.vector_type]).body(),
    FaultName.WRONG_VECTOR_TYPE: _with_other_type,
    FaultName.INDEX_OUT_OF_RANGE: lambda answer: _with_index(answer, b"4294967296"),
    FaultName.INDEX_NEGATIVE: lambda answer: _with_index(answer, b"-1"),
    FaultName.LENGTHS_DIFFER: _with_longer_values,
    FaultName.MISSING_USAGE: lambda answer: answer.body().rpartition(b'"usage"')[0] + b'"usage":{}}',
    FaultName.EXTRA_KEYS: _with_extra_keys,
    FaultName.REORDERED_KEYS: _reordered,
    FaultName.WHITE_SPACE: _with_white_space,
}


def spoil(fault: Fault, answer: Answer) -> bytes | None:
    """Encode an answer with a fault in its body; `None` if the fault is not in the body.

    A fault of one vector type must not be used with answers of the other (`Fault.applies_to`).
    """
    spoiler = _SPOILERS.get(fault.name)
    return None if spoiler is None else spoiler(answer)
