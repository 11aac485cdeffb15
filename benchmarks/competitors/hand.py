"""A hand-written client: aiohttp, a semaphore, a decoder, rows written straight into a matrix. No retries, no checks.

With `json` it is the obvious first version. With msgspec and simdjson it is the best we know how to write: msgspec encodes
the requests, aiohttp's read buffer holds half an answer so that reading does not pause thirty times, no list of floats is
converted to an array by itself, and each row is copied to its place in one assignment.
"""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import asynccontextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import msgspec
import numpy as np

from benchmarks.competitors import HEADERS, READ_BUFFER
from benchmarks.seeded import MAX_BATCH, SparseRows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import numpy.typing as npt

    from benchmarks.competitors import Embed, Result, Target

    Write = Callable[[bytes, npt.NDArray[np.float32]], None]
    """Decodes a body into the rows of a matrix."""

    Terms = tuple[Sequence[int], Sequence[float]]
    """The indices and values of a sparse row."""


class _Dense(msgspec.Struct, gc=False):
    values: list[float]


class _DenseAnswer(msgspec.Struct, gc=False):
    data: list[_Dense]


class _Sparse(msgspec.Struct, gc=False):
    sparse_values: list[float]
    sparse_indices: list[int]


class _SparseAnswer(msgspec.Struct, gc=False):
    data: list[_Sparse]


def with_json() -> Write:
    """Decode with the standard library."""

    def write(body: bytes, rows: npt.NDArray[np.float32]) -> None:
        rows[:] = [item["values"] for item in json.loads(body)["data"]]

    return write


def with_msgspec(dimension: int) -> Write:
    """Decode with msgspec; packing a list's doubles is the fastest way we know from a list to an array."""
    decode, pack = msgspec.json.Decoder(_DenseAnswer).decode, struct.Struct(f"{dimension}d").pack

    def write(body: bytes, rows: npt.NDArray[np.float32]) -> None:
        for row, item in enumerate(decode(body).data):
            rows[row] = np.frombuffer(pack(*item.values))

    return write


def with_simdjson() -> Write:
    """Decode with one simdjson parser, which reuses its memory."""
    import simdjson  # noqa: PLC0415 - each competitor imports only its own

    parse = simdjson.Parser().parse

    def write(body: bytes, rows: npt.NDArray[np.float32]) -> None:
        document: Any = parse(body)
        for row, item in enumerate(document["data"]):
            rows[row] = np.frombuffer(item["values"].as_buffer(of_type="d"))

    return write


def encode_with_json(request: Any) -> bytes:
    """Encode with the standard library."""
    return json.dumps(request).encode()


def sparse_with_json(body: bytes) -> list[Terms]:
    """Decode sparse rows with the standard library."""
    return [(item["sparse_indices"], item["sparse_values"]) for item in json.loads(body)["data"]]


def sparse_with_msgspec() -> Callable[[bytes], list[Terms]]:
    """Decode sparse rows with msgspec."""
    decode = msgspec.json.Decoder(_SparseAnswer).decode
    return lambda body: [(item.sparse_indices, item.sparse_values) for item in decode(body).data]


@asynccontextmanager
async def open_embedder(target: Target, decoder: Literal["json", "msgspec", "simdjson"]) -> AsyncIterator[Embed]:
    """Open a session that decodes answers with the given decoder."""
    load = target.load
    write = (
        with_msgspec(load.dimension) if decoder == "msgspec" else with_simdjson() if decoder == "simdjson" else with_json()
    )
    is_plain = decoder == "json"
    decode_sparse = sparse_with_json if is_plain else sparse_with_msgspec()
    encode: Callable[[Any], bytes] = encode_with_json if is_plain else msgspec.json.Encoder().encode
    more: dict[str, Any] = {} if is_plain else {"read_bufsize": READ_BUFFER}
    async with aiohttp.ClientSession(target.url, headers=HEADERS, **more) as session:

        async def post(batch: list[str]) -> bytes:
            request = {"model": load.model, "inputs": [{"text": text} for text in batch], "parameters": load.parameters}
            async with session.post("/embed", data=encode(request)) as response:
                response.raise_for_status()
                return await response.read()

        async def embed(texts: list[str]) -> Result:
            semaphore = asyncio.Semaphore(target.concurrency)
            starts = range(0, len(texts), MAX_BATCH)
            if load.kind == "sparse":

                async def embed_sparse(start: int) -> list[Terms]:
                    async with semaphore:
                        return decode_sparse(await post(texts[start : start + MAX_BATCH]))

                rows = chain.from_iterable(await asyncio.gather(*map(embed_sparse, starts)))
                return SparseRows.of(*zip(*rows, strict=True))
            vectors = np.empty((len(texts), load.dimension), np.float32)

            async def embed_dense(start: int) -> None:
                batch = texts[start : start + MAX_BATCH]
                async with semaphore:
                    write(await post(batch), vectors[start : start + len(batch)])

            await asyncio.gather(*map(embed_dense, starts))
            return vectors

        yield embed
