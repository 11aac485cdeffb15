"""Checks that JSON accepted by msgspec is strict: the parts that msgspec skips may be malformed or have duplicate keys."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType

from pinecone_embed_async._errors import ResponseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_BYTES = 2**20
"""Maximum number of bytes of JSON for one embedding, and for everything beside the embeddings. 20,000 numbers, the maximum
of an index, need half of it. Without this limit, a row of short numbers would become objects of sixteen times its size."""

DEEPEST = 100
"""Maximum number of nesting levels; an answer has four."""

TOO_MUCH_BESIDE = "the answer has more than 1 MiB besides its embeddings"
NOT_UTF8 = "the answer cannot be read: it is not UTF-8"
TOO_DEEP = "the answer cannot be read: it is nested too deeply"

_PLACE = re.compile(r"`\$\[(\d+)\]")
"""How msgspec's errors name an item of a list."""

_T = TypeVar("_T")


def decoded(decoder: msgspec.json.Decoder[_T], text: bytes, start: int = 0) -> _T:
    """Decode an answer, or a list of items of one, the first of which has the position `start`.

    Raises:
        ResponseError: the decoder has rejected it.
    """
    problem = ""
    try:
        return decoder.decode(text)
    except msgspec.DecodeError as error:
        # msgspec's messages name types and paths, never values.
        place = _PLACE.sub(lambda found: f"`$.data[{start + int(found[1])}]", str(error))
        problem = f"the answer cannot be read: {place}"
    except UnicodeDecodeError:
        problem = NOT_UTF8
    except RecursionError:
        # Too deep for the interpreter's stack.
        problem = TOO_DEEP
    # Raised here, outside the `except` blocks, because a UnicodeDecodeError holds the body and must not be chained.
    raise ResponseError(problem)


def decoded_or_none(decoder: msgspec.json.Decoder[_T], text: bytes) -> _T | None:
    """Decode JSON; `None` if the decoder rejects it."""
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def occurrences(text: bytes, character: bytes) -> int:
    """Number of occurrences of a byte. NumPy is five times as fast as `bytes.count`, but only for long texts."""
    if len(text) < 2**16:
        return text.count(character)
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(character)))


# msgspec silently keeps only the last of several equal keys. But each known key and each text accounts for two quotation
# marks, so if there are no more marks than those, nothing was dropped.


def is_plain(quotes: int, marks: int, values: Sequence[Raw | UnsetType]) -> bool:
    """Whether msgspec has read everything in a text, skipping nothing.

    Args:
        quotes: number of quotation marks in the text.
        marks: number of quotation marks in what msgspec has read, without `values` and their keys.
        values: the values of keys that are kept raw, if they are there.
    """
    raws = [value for value in values if value is not UNSET]
    raw = b"".join(raws)
    marks += 2 * len(raws) + raw.count(b'"')
    return marks == quotes and raw.isascii() and raw.count(b"[") + raw.count(b"{") < DEEPEST - 4


def is_lossless(text: bytes, value: Struct) -> bool:
    """Whether msgspec has skipped nothing when it decoded a text to this value.

    Args:
        text: the JSON.
        value: what it was decoded to; it keeps nothing raw, and omits defaults when it is encoded.
    """
    encoded = msgspec.json.encode(value)
    # No backslash, because a quotation mark within a string can be spelled with one mark or with none.
    return encoded.count(b'"') == text.count(b'"') and b"\\" not in encoded


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_STEPS = np.zeros(256, np.int8)
_STEPS[[*b"[{"]], _STEPS[[*b"]}"]] = 1, -1


def check_form(text: bytes, levels_above: int = 0) -> None:
    """Reject JSON that msgspec has accepted but whose strings are not UTF-8, or that is nested too deeply."""
    problem = None
    try:
        text.decode()
    except UnicodeDecodeError:
        problem = NOT_UTF8
    if levels_above + text.count(b"[") + text.count(b"{") > DEEPEST:
        steps = _STEPS[np.frombuffer(_STRING.sub(b"", text), np.uint8)]
        if levels_above + steps.cumsum(dtype=np.int32).max() > DEEPEST:
            problem = TOO_DEEP
    if problem is not None:
        raise ResponseError(problem)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as all its pairs, including duplicate keys."""


def pairs_of(text: bytes) -> _Pairs:
    """The pairs of a JSON object; empty if it is another JSON value."""
    problem = None
    try:
        # Numbers do not matter here, and Python refuses integers of more than 4,300 digits.
        value = json.loads(text.decode(), object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        problem = "the answer cannot be read: the part beside the embeddings is malformed"
    if problem is not None:
        raise ResponseError(problem)
    return value if isinstance(value, _Pairs) else _Pairs()


def refuse_duplicates(pairs: Iterable[tuple[str, Any]], known: type[Struct], path: str) -> None:
    """Reject keys of a struct that occur twice."""
    seen = set()
    for key, _ in pairs:
        if key in seen and key in known.__struct_fields__:
            raise ResponseError(f"the key {key!r} occurs twice at `{path}`")
        seen.add(key)


def check_object(text: bytes, known: type[Struct], path: str, levels_above: int = 0) -> None:
    """Reject JSON that msgspec has accepted but that is not strict, or has a key of a struct twice."""
    check_form(text, levels_above)
    refuse_duplicates(pairs_of(text), known, path)
