"""The decoders that are tested, and what reads a body with one, in one piece or in many."""

import functools
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from pinecone_embed_async._wire import Answer, Decoder, DecoderName, StreamingDecoder, choose_decoder
from pinecone_embed_async._wire.decoding import DECODERS as NAMES
from pinecone_embed_async._wire.decoding import installed_decoders

PORTABLE = "native, portable"
DECODERS = (*NAMES, PORTABLE)
"""All of them, and the native one without the processor's special instructions."""

NEEDS_NATIVE = pytest.mark.skipif(
    "native" not in installed_decoders(), reason="the native module is not built: it needs a C compiler"
)


def decoder_of(name: str) -> Decoder:
    """The decoder of that name; skips the test if it is not installed."""
    plain = cast("DecoderName", name.partition(",")[0])
    if plain not in installed_decoders():
        pytest.skip(f"the decoder {plain!r} is not installed: it needs a C compiler")
    decoder = choose_decoder(plain)
    if name == PORTABLE:
        return decoder._replace(reader=cast("Any", functools.partial(cast("Any", decoder.reader), portable=True)))
    return decoder


def installed() -> dict[str, Decoder]:
    """All decoders that are installed."""
    return {name: decoder_of(name) for name in DECODERS if name.partition(",")[0] in installed_decoders()}


class RowsOf:
    """Asks a function for the matrix."""

    def __init__(self, rows: Callable[[int], NDArray[np.float32]]) -> None:
        self._rows = rows

    def rows(self, dimension: int) -> NDArray[np.float32]:
        return self._rows(dimension)


def decode(decoder: Decoder, body: bytes, *, cuts: tuple[int, ...] = (), most: int | None = None, **asked: Any) -> Answer:
    """Read a body.

    Args:
        decoder: reads it.
        body: cut before each of `cuts`.
        cuts: positions, ascending.
        most: bytes to decode after each piece; `None` for none before the end.
        asked: what `StreamingDecoder` takes.
    """
    reading = StreamingDecoder(
        decoder, **{**asked, "rows": RowsOf(asked["rows"]) if callable(asked["rows"]) else asked["rows"]}
    )
    for begin, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
        reading.add(body[begin:end])
        if most is not None:
            reading.decode(most)
    return finished(reading)


def finished(reading: StreamingDecoder) -> Answer:
    """Validate an answer in one step."""
    answer = reading.finish()
    assert answer is not None
    return answer
