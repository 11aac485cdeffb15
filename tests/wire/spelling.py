"""Writes JSON in all valid spellings, reads it back with the standard library, and corrupts it."""

import json
import math
import sys
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

DEEPEST = 3000
"""Levels of nesting that are parsed at all; every decoder has given up far before."""
DEEPEST_ANSWER = 100
"""Levels of nesting that an answer may have."""


@dataclass(frozen=True)
class Token:
    """Anything written verbatim: a number, a literal, or invalid JSON."""

    text: bytes


@dataclass
class Object:
    """A JSON object as its pairs, so that a key may occur twice; a key may be a `Token`."""

    pairs: list[tuple[Any, Any]]


def tree_of(value: Any) -> Any:
    """A tree whose objects are `Object`s and whose numbers and literals are `Token`s."""
    if isinstance(value, dict):
        return Object([(key, tree_of(inner)) for key, inner in value.items()])
    if isinstance(value, list):
        return [tree_of(inner) for inner in value]
    return value if isinstance(value, str | Token) else Token(json.dumps(value).encode())


# Drawing: by a seeded generator, for hypothesis's own choices, one for every quotation mark, would take too long.

NUMBERS = (b"0", b"-0", b"-1.5", b"1E+2", b"1e999", b"9" * 5000, b"18446744073709551616")
STRINGS = ("", "a", "é", "\U0001f600", 'a"b\\', "\x7f", "\u2028", "\x00\n", "[{", "}]", "data")
KNOWN_KEYS = ("model", "vector_type", "data", "usage", "values", "sparse_values", "sparse_indices", "sparse_tokens")
OTHER_KEYS = ("x", "", "é", "\U0001f600", 'a"b\\', "Data", "data ", "values\x00", "[", "models")


def anything(draws: Random, levels: int = 3) -> Any:
    """The tree of any well-formed value."""
    kind = draws.randrange(5 if levels else 3)
    if kind == 0:
        return Token(draws.choice((*NUMBERS, b"null", b"true", b"false")))
    if kind <= 2:
        return draws.choice(STRINGS)
    if kind == 3:
        return [anything(draws, levels - 1) for _ in range(draws.randrange(3))]
    keys = (*KNOWN_KEYS, "total_tokens", *OTHER_KEYS)
    return Object([(draws.choice(keys), anything(draws, levels - 1)) for _ in range(draws.randrange(3))])


# Writing.


def _string(text: str, draws: Random | None) -> bytes:
    if draws is None or draws.random() < 0.6:
        return json.dumps(text).encode()
    if draws.random() < 0.3:
        return json.dumps(text, ensure_ascii=False).encode()
    at = draws.randint(0, len(text))
    units = text[at:].encode("utf-16-be")
    escapes = "".join(f"\\u{units[place]:02x}{units[place + 1]:02X}" for place in range(0, len(units), 2))
    return json.dumps(text[:at]).encode()[:-1] + escapes.encode() + b'"'


def write(tree: Any, draws: Random | None = None) -> bytes:
    """Write a tree, with random white space and escapes if `draws` is given, else plainly."""

    def space() -> bytes:
        return b"" if draws is None else draws.choice((b"", b"", b"", b" ", b"\n", b"\r\n\t "))

    def each(parts: list[bytes], opening: bytes, closing: bytes) -> bytes:
        return opening + space() + (space() + b"," + space()).join(parts) + space() + closing

    def one(node: Any) -> bytes:
        if isinstance(node, Token):
            return node.text
        if isinstance(node, str):
            return _string(node, draws)
        if isinstance(node, Object):
            return each([one(key) + space() + b":" + space() + one(inner) for key, inner in node.pairs], b"{", b"}")
        return each([one(inner) for inner in node], b"[", b"]")

    return space() + one(tree) + space()


def objects_in(tree: Any) -> list[Object]:
    """All objects of a tree, the outermost first."""
    if isinstance(tree, Object):
        return [tree, *(found for _, inner in tree.pairs for found in objects_in(inner))]
    return [found for inner in tree for found in objects_in(inner)] if isinstance(tree, list) else []


def lists_in(tree: Any) -> list[list[Any]]:
    """All arrays of a tree."""
    if isinstance(tree, Object):
        return [found for _, inner in tree.pairs for found in lists_in(inner)]
    return [tree, *(found for inner in tree for found in lists_in(inner))] if isinstance(tree, list) else []


def spell(tree: Any, draws: Random) -> bytes:
    """Write a tree with other white space, key order and key spelling, and with unknown keys."""
    for found in objects_in(tree):
        if draws.random() < 0.5:
            # May occur twice, since it has no meaning.
            found.pairs += [(draws.choice(OTHER_KEYS), anything(draws)) for _ in range(draws.randrange(3))]
        if draws.random() < 0.5:
            draws.shuffle(found.pairs)
    return write(tree, draws)


# Spoiling.

ODD_TOKENS = (
    *(b"NaN", b"-NaN", b"Infinity", b"-Infinity", b"nan", b"1e39", b"-1e39", b"1e400", b"1e-400", b"-0", b"-0.0", b"0e9"),
    *(b"1e99999999999999999999", b"9" * 30, b"9" * 400, b"-" + b"9" * 5000, b"0." + b"3" * 900, b"1." + b"0" * 50 + b"1"),
    *(b"4294967295", b"4294967296", b"-1", b"1.0", b"9223372036854775808", b"-9223372036854775809", b"18446744073709551616"),
    *(b"01", b"1.", b".5", b"+1", b"-", b"1e", b"0x1", b"1_0", b"\xd9\xa1", b"3.4028235677973366e38", b"2.5e-324", b"1e-46"),
    # Where float32 ends, above and below, and just beside; the same for float64; halfway between two of float32's.
    *(b"3.40282346638528859e38", b"340282356779733661637539395458142568447", b"340282356779733661637539395458142568448"),
    *(
        b"-340282346638528859811704183484516925440",
        b"1.401298464324817e-45",
        b"7.006492321624085e-46",
        b"7.00649232162409e-46",
    ),
    *(b"1.7976931348623157e308", b"1.7976931348623159e308", b"4.9406564584124654e-324", b"2.4703282292062327e-324"),
    *(b"16777217", b"16777217.0000000000000000000000001", b"1.00000005960464477539062500001", b"0.1e1", b"1E-0", b"-0e-0"),
    *(b"1" + b"0" * 310 + b"e-310", b"0." + b"0" * 330 + b"1e330", b"1e-99999999999999999999", b"0e99999999999999999999"),
    *(b"null", b"true", b'"0.5"', b"[]", b"{}", b"", b"[[0.5]]", b'{"values":[1]}', b"5e-324", b"2.2250738585072011e-308"),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b'"\\x"', b'"\x01"', b'"\\u12"', b'"\x00"', b"7.0"),
)


def nested(levels: int) -> Token:
    """An array in an array, and so on."""
    return Token(b"[" * levels + b"]" * levels)


def nested_objects(levels: int) -> Token:
    """An object in an object, and so on."""
    return Token(b'{"values":' * levels + b"1" + b"}" * levels)


ODD_KEYS = tuple(
    map(Token, (b'"\\ud800"', b'"\\ude00\\ud83d"', b'"\xff"', b'"\xed\xa0\x80"', b'"\x01"', b'"\\x"', b"x", b"1"))
)


def nest(tree: Any, draws: Random) -> None:
    """Insert a value nested about as deeply as allowed."""
    deep = draws.choice((nested, nested_objects))(draws.randint(94, 102))
    chosen = draws.choice(objects_in(tree))
    chosen.pairs.insert(draws.randint(0, len(chosen.pairs)), (draws.choice(OTHER_KEYS), deep))


def _odd(draws: Random) -> Any:
    kind = draws.random()
    if kind < 0.6:
        return Token(draws.choice(ODD_TOKENS))
    if kind < 0.95:
        return anything(draws)
    return draws.choice((nested, nested_objects))(draws.choice((3, *range(95, 103), 400, 990, 20_000)))


def spoil_tree(tree: Any, draws: Random) -> None:
    """Spoil a tree in one place: a node replaced, doubled, left out, renamed or put a level deeper."""
    objects = [found for found in objects_in(tree) if found.pairs]
    lists = [found for found in lists_in(tree) if found]
    if lists and (not objects or draws.random() < 0.5):
        chosen = draws.choice(lists)
        at = draws.randrange(len(chosen))
        changed = (chosen[at], chosen[at]), (), (_odd(draws),), (_odd(draws), chosen[at]), ([chosen[at]],)
        chosen[at : at + 1] = draws.choice(changed)
    elif objects:
        pairs = draws.choice(objects).pairs
        at = draws.randrange(len(pairs))
        key, old = pairs[at]
        change = draws.choice(("replace", "double", "double", "drop", "rename", "nest", "odd key"))
        if change == "odd key":
            pairs.insert(at, (draws.choice(ODD_KEYS), anything(draws)))
        elif change == "double":
            pairs.insert(draws.randint(0, len(pairs)), (key, draws.choice((old, _odd(draws)))))
        elif change == "drop":
            del pairs[at]
        else:
            new = {"replace": (key, _odd(draws)), "rename": (draws.choice(KNOWN_KEYS), old), "nest": (key, [old])}
            pairs[at] = new[change]


PIECES = (
    *(b'"', b"[", b"]", b"{", b"}", b",", b":", b"1", b"e9", b"-", b".", b" ", b"\\", b"\\u", b"\\ud800", b"\x00", b"\xff"),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b'"values":', b'"data":', b'"x":1,', b"NaN", b"1e39", b"null", b"true"),
    *(b"0" * 30, b"]" * 50),
)
LONG_PIECES = (b"[" * 5000, b'{"":' * 5000, b"9" * 5000)


def spoil_bytes(body: bytes, other: bytes, draws: Random) -> bytes:
    """Spoil a body in one place: flipped, inserted, replaced, deleted, cut off, doubled, or taken from another body."""
    at = draws.choice((0, len(body), *(draws.randint(0, len(body)) for _ in range(6))))
    end = min(len(body), at + draws.choice((1, 3, 40)))
    piece = draws.choice(PIECES if draws.random() < 0.97 else LONG_PIECES)
    flipped = bytes(byte ^ (1 << draws.randrange(8)) for byte in body[at : at + 1])
    changed = (
        *(body[:at] + flipped + body[at + 1 :], body[:at] + piece + body[at:], body[:at] + piece + body[end:]),
        *(body[:at] + body[end:], body[:at], body[:end] + body[at:], body[:at] + other[draws.randint(0, len(other)) :]),
    )
    return draws.choice(changed)


# Reading, independently.


@dataclass(frozen=True)
class Contents:
    """What the standard library reads in an answer under the documented rules.

    Attributes:
        vector_type: of the answer.
        rows: float32 bytes of each row's values.
        indices: of each sparse row.
        tokens: of each sparse row; `None` if no row has any.
        total_tokens: `None` if the answer does not say.
        model: `None` if the answer does not say.
    """

    vector_type: str
    rows: list[bytes]
    indices: list[list[int]]
    tokens: list[list[str]] | None
    total_tokens: int | None
    model: str | None


class RefusedError(Exception):
    """The rules refuse the body."""


@dataclass(frozen=True)
class _Number:
    text: str

    @property
    def is_whole(self) -> bool:
        return self.text.lstrip("-").isdecimal()

    @property
    def value(self) -> float:
        if not self.is_whole:
            return float(self.text)
        return float(int(self.text)) if len(self.text) < 300 else math.inf


def _refuse(condition: object) -> None:
    if condition:
        raise RefusedError


def _no_constant(name: str) -> None:
    raise RefusedError(name)


def depth_of(body: bytes) -> int:
    """Levels of nesting, ignoring brackets in strings."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in body:
        if in_string:
            in_string = escaped or byte != 0x22
            escaped = byte == 0x5C and not escaped
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest


def parse(body: bytes) -> Any:
    """The pairs of a body; bytes that are not UTF-8 are kept as they are within strings.

    Raises:
        RefusedError: it is no JSON.
    """
    _refuse(depth_of(body) > DEEPEST or body.startswith(b"\xef\xbb\xbf"))
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(before + 2 * DEEPEST)
    try:
        return json.loads(
            body.decode("utf-8", "surrogateescape"),
            object_pairs_hook=Object,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_no_constant,
        )
    except ValueError as error:
        raise RefusedError from error
    finally:
        sys.setrecursionlimit(before)


def _only(tree: Any, *known: str) -> dict[str, Any]:
    _refuse(not isinstance(tree, Object))
    keys = [key for key, _ in tree.pairs if key in known]
    _refuse(len(set(keys)) != len(keys))
    return dict(tree.pairs)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def _floats(values: Any) -> bytes:
    _refuse(not isinstance(values, list) or not all(isinstance(value, _Number) for value in values))
    with np.errstate(over="ignore"):
        row = np.array([value.value for value in values], np.float64).astype(np.float32)
    _refuse(not np.isfinite(row).all())
    return row.tobytes()


def _whole(value: Any) -> int:
    _refuse(not isinstance(value, _Number) or not value.is_whole or len(value.text) > 4000)
    return int(value.text)


def _total_tokens(usage: Any) -> int | None:
    if not isinstance(usage, Object):
        return None
    found = _only(usage, "total_tokens").get("total_tokens")
    is_count = isinstance(found, _Number) and found.is_whole and len(found.text) < 4000 and 0 <= int(found.text) <= 2**53
    return int(found.text) if is_count and isinstance(found, _Number) else None


def _strings_in(tree: Any) -> list[str]:
    if isinstance(tree, Object):
        return [text for key, inner in tree.pairs for text in (key, *_strings_in(inner))]
    if isinstance(tree, list):
        return [text for inner in tree for text in _strings_in(inner)]
    return [tree] if isinstance(tree, str) else []


def read_answer(body: bytes, *, count: int, vector_type: str | None, dimension: int | None) -> Contents:
    """Read an answer with the standard library, by the endpoint's reference and the rules for what JSON leaves open.

    The rules: strict UTF-8, no NaN, no half of a surrogate pair, no known key twice, a hundred levels of nesting; numbers of
    any length, those that are embeddings finite in float32. Beyond the reference, an embedding that is there is taken
    though `model`, `usage` or an item's `vector_type` is missing or odd, or `sparse_tokens` is null: it is paid for.

    Raises:
        RefusedError: it is no such answer.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise RefusedError from error
    _refuse(depth_of(body) > DEEPEST_ANSWER)
    tree = parse(body)
    _refuse(not all(map(_is_text, _strings_in(tree))))
    top = _only(tree, "model", "vector_type", "data", "usage")
    kind = top.get("vector_type")
    _refuse(kind != vector_type if vector_type is not None else kind not in ("dense", "sparse"))
    _refuse("model" in top and not _is_text(top["model"]))
    data = top.get("data")
    _refuse(not isinstance(data, list) or len(data) != count)
    rows: list[bytes] = []
    indices: list[list[int]] = []
    tokens: list[list[str]] = []
    for item in data or ():
        if kind == "dense":
            rows.append(_floats(_only(item, "values", "vector_type").get("values")))
            _refuse(len(rows[-1]) != (len(rows[0]) if dimension is None else 4 * dimension) or not rows[-1])
            continue
        pairs = _only(item, "sparse_values", "sparse_indices", "sparse_tokens", "vector_type")
        rows.append(_floats(pairs.get("sparse_values")))
        found = pairs.get("sparse_indices")
        _refuse(not isinstance(found, list))
        indices.append([_whole(index) for index in found or ()])
        _refuse(not all(0 <= index < 2**32 for index in indices[-1]) or 4 * len(indices[-1]) != len(rows[-1]))
        words = pairs.get("sparse_tokens") or []
        _refuse(not isinstance(words, list) or not all(map(_is_text, words)) or (words and len(words) != len(indices[-1])))
        _refuse(pairs.get("sparse_tokens", []) not in (None, words))
        tokens.append(words)
    total_tokens = _total_tokens(top.get("usage"))
    return Contents(str(kind), rows, indices, tokens if any(tokens) else None, total_tokens, top.get("model"))
