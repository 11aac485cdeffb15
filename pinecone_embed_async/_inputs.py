"""Reads the inputs of a call: converts them to plain strings, and reports invalid ones."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from pinecone_embed_async._errors import Failure, InputError, name_positions

Input = str | Mapping[str, Any]
"""One input: a text, or a mapping with the text under `"text"` (other keys are not sent)."""

Inputs = Input | Iterable[Input] | AsyncIterable[Input]
"""The inputs of a call: a single one, or any iterable or async iterable of them."""

SLICE = 1024
"""Inputs checked before yielding to the loop: about 0.3 ms of work on the machine in docs/benchmarks.md."""

_MISSING = "is a missing value: leave missing values out, or fill them"


Faults = dict[str, list[int]]
"""Ascending positions of the invalid inputs of a call, by what is wrong with them."""


def failures_of(faults: Faults) -> tuple[Failure, ...]:
    """The invalid inputs, grouped by what is wrong with them."""
    return tuple(
        Failure(positions, InputError(f"input {positions[0]} {fault}", index=positions[0]))
        for fault, positions in faults.items()
    )


def error_of(faults: Faults, count: int) -> InputError:
    """An error that counts the invalid ones of `count` inputs, of which there must be some, and lists the first few."""
    failures = failures_of(faults)
    positions = sorted(position for failure in failures for position in failure.indices)
    # `faults` has them in the order of their first positions.
    message = failures[0].error.message
    if len(positions) > 1:
        message = f"{len(positions):,} of {count:,} inputs are not texts: {name_positions(positions)}; {message}"
    error = InputError(message, index=positions[0])
    error.failures = failures
    return error


def read_input(value: object, position: int, faults: Faults) -> str:
    """The text of an input; if it is invalid, an empty one, and `faults` tells what is wrong with it."""
    text, fault = _read(value)
    if fault:
        faults.setdefault(fault, []).append(position)
    return text


def text_of(value: object, index: int) -> str:
    """The text of one input as a plain `str`.

    Raises:
        InputError: the value is neither a text nor a mapping with one, or the text cannot be encoded as UTF-8.
    """
    text, fault = _read(value)
    if fault:
        raise InputError(f"input {index} {fault}", index=index)
    return text


def check_iterable(name: str, value: object) -> None:
    """Reject a table, because iterating over one does not give its texts.

    Raises:
        InputError: the value is a table, which iterates over its columns or their names.
    """
    if is_table(value):
        kind = type(value).__name__
        raise InputError(f'{name} must be texts, got a {kind}, which is a table: pass the column with the texts, df["body"]')


def is_table(value: object) -> bool:
    """Whether a value is a table of pandas, Polars, Arrow or the like, judged by its attributes, without importing them."""
    return not isinstance(value, (str, list, tuple, type)) and hasattr(value, "columns") and hasattr(value, "shape")


def plain(value: object) -> object:
    """The value of a text or an Arrow scalar as Python's own type; any other value unchanged."""
    if isinstance(value, str):
        # Not `str(value)`, which returns the name of an enum member.
        return str.__str__(value)
    as_py = getattr(value, "as_py", None)
    return as_py() if callable(as_py) and not isinstance(value, type) else value


def is_missing(value: object) -> bool:
    """Whether a value is missing: `None`, NaN, or their equivalents in pandas."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    # Only NaN is unequal to itself. NumPy's float64 is a subclass of `float`; its smaller floats are not.
    return (isinstance(value, float) or type(value).__name__ in ("float16", "float32")) and value != value  # noqa: PLR0124


def _read(value: object) -> tuple[str, str]:
    """The text of an input, and what is wrong with it; one of the two is empty."""
    if type(value) is not str:
        value = plain(value)
        if isinstance(value, Mapping):
            if "text" not in value:
                return "", 'is a mapping without "text"'
            value = plain(value["text"])
            if not isinstance(value, str):
                missing = f", which {_MISSING}" if is_missing(value) else "; it must be a str"
                return "", f'has "text" of type {type(value).__name__}{missing}'
        elif is_missing(value):
            return "", _MISSING
        elif not isinstance(value, str):
            return "", f'is of type {type(value).__name__}; it must be a str or a mapping with "text"'
    fault = "" if value.isascii() else _surrogates_in(value)
    return ("", fault) if fault else (value, "")


_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")


def _surrogates_in(text: str) -> str:
    """What is wrong with a text that UTF-8 cannot encode; empty for a valid one."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        first = error.start
    else:
        return ""
    pair, lone = _PAIR.search(text), _LONE.search(text)
    if pair is None:
        return (
            f"has a lone surrogate at character {first}, which UTF-8 cannot encode; "
            "decode the source with errors='replace', for example"
        )
    replace = "" if lone is None else ", 'replace'"
    tail = "" if lone is None else f", which also replaces the lone surrogate at character {lone.start()}"
    return (
        f"has a surrogate pair at character {pair.start()}: one character, such as an emoji, in two halves, which UTF-8 "
        f"cannot encode; join them with text.encode('utf-16', 'surrogatepass').decode('utf-16'{replace}){tail}"
    )


def _check_inputs(inputs: object) -> None:
    check_iterable("inputs", inputs)
    if isinstance(inputs, (set, frozenset)):
        raise InputError(
            f"inputs must have an order, because row i belongs to input i, got a {type(inputs).__name__}: pass a list"
        )
    if not isinstance(inputs, (Iterable, AsyncIterable)) or isinstance(inputs, (bytes, bytearray, memoryview)):
        kind = type(inputs).__name__
        raise InputError(f'inputs must be a str, a mapping with "text", or an iterable of those, got {kind}')


def iter_texts(inputs: Input | Iterable[Input]) -> Iterator[str]:
    """Iterate over the checked texts of `inputs`; that of an invalid input is empty.

    Raises:
        InputError: some inputs are invalid; raised at the end.
    """
    _check_inputs(inputs)
    if isinstance(inputs, AsyncIterable):
        raise InputError("inputs must be a synchronous iterable, got an asynchronous one: read it into a list")
    faults: Faults = {}
    count = 0
    for count, value in enumerate((inputs,) if isinstance(inputs, (str, Mapping)) else inputs, 1):
        yield read_input(value, count - 1, faults)
    if faults:
        raise error_of(faults, count)


async def read_inputs(inputs: Inputs) -> tuple[list[str], Faults]:
    """Read and check all `inputs` in order; yields to the event loop every `SLICE` inputs.

    Returns:
        A text for each input, empty for an invalid one; and the faults of these.

    Raises:
        InputError: `inputs` cannot be iterated over as texts. Invalid single inputs are told in the result instead.
    """
    texts: list[str] = []
    faults: Faults = {}
    iterator: Any = None
    values: Any = None
    value: Any = None
    try:
        _check_inputs(inputs)
        if isinstance(inputs, AsyncIterable):
            async for value in inputs:
                texts.append(read_input(value, len(texts), faults))
                if len(texts) % SLICE == 0:
                    # An async iterable may never suspend.
                    await asyncio.sleep(0)
            return texts, faults
        if isinstance(inputs, (str, Mapping)):
            inputs = (inputs,)
        # Copy a list, because the caller may change it while other tasks run.
        iterator = iter(tuple(inputs) if isinstance(inputs, list) else inputs)
        while values := tuple(islice(iterator, SLICE)):
            if set(map(type, values)) == {str} and all(map(str.isascii, values)):
                texts += values
            else:
                texts += [read_input(value, at, faults) for at, value in enumerate(values, len(texts))]
            if len(values) == SLICE:
                await asyncio.sleep(0)
        return texts, faults
    finally:
        # Error reports that include local variables must not show the texts.
        del inputs, texts, iterator, values, value
