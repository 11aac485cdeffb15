"""Reads a body with a decoder, in one piece or in many."""

from typing import Any

from pinecone_embed_async._wire import Answer, Decoder


def decode(decoder: Decoder, body: bytes, *, cuts: tuple[int, ...] = (), most: int | None = None, **asked: Any) -> Answer:
    """Read a body.

    Args:
        decoder: reads it.
        body: cut before each of `cuts`.
        cuts: positions, ascending.
        most: bytes to decode after each piece; `None` for none before the end.
        asked: what `begin` takes.
    """
    reading = decoder.begin(**asked)
    for begin, end in zip((0, *cuts), (*cuts, len(body)), strict=True):
        reading.add(body[begin:end])
        if most is not None:
            reading.decode(most)
    return reading.finish()
