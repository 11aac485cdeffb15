"""What may be embedded: turns whatever the caller passes into plain strings, or says which one is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, cast

from pinecone_embed_async._errors import InputError

Input = str | Mapping[str, Any]
"""One input: a text, or a mapping with the text under `"text"` (other keys are not sent)."""

Inputs = Input | Iterable[Input] | AsyncIterable[Input]
"""A call's inputs: one, or any iterable or async iterable of them."""

SLICE = 1024
"""Inputs checked before the loop is given back: about 0.3 ms of work on the machine in docs/benchmarks.md."""


def text_of(value: object, index: int) -> str:
    """The text of one input as a plain `str`.

    Raises:
        InputError: it is no text and no mapping with one, or cannot be written as UTF-8.
    """
    if type(value) is str:
        text = value
    elif isinstance(value, str):
        # Not `str(value)`: an enumeration's member, say, would give its name.
        text = str.__str__(value)
    elif isinstance(value, Mapping):
        if "text" not in value:
            raise InputError(f'input {index} is a mapping without "text"', index=index)
        inner = value["text"]
        if not isinstance(inner, str):
            raise InputError(f'input {index} has "text" of type {type(inner).__name__}; it must be a str', index=index)
        text = str.__str__(inner)
    else:
        raise InputError(
            f'input {index} is of type {type(value).__name__}; it must be a str or a mapping with "text"',
            index=index,
        )
    if not text.isascii():
        position = _first_unencodable(text)
        if position is not None:
            raise InputError(
                f"input {index} has a lone surrogate at character {position}, which UTF-8 cannot write; "
                "decode the source with errors='replace', for example",
                index=index,
            )
    return text


def _texts_of(values: tuple[object, ...], start: int) -> Iterable[str]:
    """The texts of some inputs; the one at `values[0]` has index `start`. Plain texts are taken together.

    Raises:
        InputError: as `text_of` does.
    """
    if set(map(type, values)) == {str}:
        plain = cast("tuple[str, ...]", values)
        if all(map(str.isascii, plain)):
            return plain
    return [text_of(value, index) for index, value in enumerate(values, start)]


def _first_unencodable(text: str) -> int | None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def iter_texts(inputs: Input | Iterable[Input]) -> Iterator[str]:
    """The texts of `inputs`, one after the other, each checked.

    Raises:
        InputError: with the index of the first input that is no text.
    """
    if isinstance(inputs, (str, Mapping)):
        yield text_of(inputs, 0)
    elif isinstance(inputs, Iterable) and not isinstance(inputs, (bytes, bytearray, memoryview)):
        for index, value in enumerate(inputs):
            yield text_of(value, index)
    else:
        kind = type(inputs).__name__
        raise InputError(f'inputs are of type {kind}; they must be a str, a mapping with "text", or an iterable of those')


async def read_texts(inputs: Inputs) -> list[str]:
    """Read `inputs` whole, in order, and check every one; gives the loop back every `SLICE` inputs.

    Raises:
        InputError: with the index of the first input that is no text.
    """
    texts: list[str] = []
    value: Any = None
    try:
        if isinstance(inputs, (str, Mapping)):
            texts.append(text_of(inputs, 0))
        elif isinstance(inputs, AsyncIterable):
            async for value in inputs:
                texts.append(text_of(value, len(texts)))
                if len(texts) % SLICE == 0:
                    # An async iterable need not ever suspend.
                    await asyncio.sleep(0)
        elif type(inputs) is list or type(inputs) is tuple:
            # A copy: whoever called may change a list while others have the loop.
            inputs = tuple(inputs)
            for start in range(0, len(inputs), SLICE):
                texts += _texts_of(inputs[start : start + SLICE], start)
                await asyncio.sleep(0)
        elif isinstance(inputs, Iterable) and not isinstance(inputs, (bytes, bytearray, memoryview)):
            for value in inputs:
                texts.append(text_of(value, len(texts)))
                if len(texts) % SLICE == 0:
                    await asyncio.sleep(0)
        else:
            kind = type(inputs).__name__
            raise InputError(
                f'inputs are of type {kind}; they must be a str, a mapping with "text", or an iterable of those'
            )
        return texts
    finally:
        # Whoever reports an error of the source with the locals of its frames is shown no texts.
        del inputs, texts, value
