"""Decoding alone: milliseconds per body, in one process without a server; the client's decoders and bare libraries.

The client's decoders are measured in two threads as well, which decode as many bodies each as one thread does before.
"""

from __future__ import annotations

import importlib.util
import json
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.competitors.hand import with_json, with_msgspec, with_simdjson
from benchmarks.harness import run_module
from benchmarks.seeded import MAX_BATCH, dense_vectors
from benchmarks.server import Service
from benchmarks.settings import MAIN_LOAD
from benchmarks.tables import Table, number
from pinecone_embed_async._sending.attempts import SLICE_BYTES, THREAD_BYTES
from pinecone_embed_async._wire import StreamingDecoder, choose_decoder
from pinecone_embed_async._wire.decoding import installed_decoders

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from benchmarks.settings import Settings
    from pinecone_embed_async._wire import Decoder

REPEATS = 40
SIMDJSON = "simdjson, whole, to float32"
BODIES = 8
"""Number of bodies that each thread decodes per measurement: enough to make the start of the threads negligible."""
PIECE = 128 * 1024
"""Largest pieces in which aiohttp delivers a body, in bytes."""


def full_body() -> bytes:
    """Return the body of one full answer."""
    request = {"model": MAIN_LOAD.model, "inputs": [{"text": f"{number_:08}"} for number_ in range(MAX_BATCH)]}
    pieces = Service(MAIN_LOAD).answer(b"POST /embed", memoryview(msgspec.json.encode(request)))
    return b"".join(pieces[1:])


class _Matrix:
    """Holds the matrix that rows are written to."""

    def __init__(self, matrix: npt.NDArray[np.float32]) -> None:
        self._matrix = matrix

    def rows(self, _: int) -> npt.NDArray[np.float32]:
        """The matrix, for any dimension."""
        return self._matrix


def own_title(name: str) -> str:
    """The title of one of the client's decoders."""
    return f"EmbedClient's {name} decoder"


def as_it_arrives(decoder: Decoder, body: bytes, rows: npt.NDArray[np.float32]) -> None:
    """Decode with one of the client's decoders, fed as the client feeds it."""
    most = THREAD_BYTES if decoder.releases_lock else SLICE_BYTES
    stream = StreamingDecoder(
        decoder, count=MAX_BATCH, vector_type="dense", dimension=MAIN_LOAD.dimension, rows=_Matrix(rows)
    )
    for start in range(0, len(body), PIECE):
        stream.add(body[start : start + PIECE])
        if stream.undecoded >= most:
            stream.decode(most)
    stream.finish()


def ways() -> dict[str, Callable[[bytes, npt.NDArray[np.float32]], None]]:
    """Return the ways of decoding, by title."""
    found: dict[str, Any] = {}
    for name in installed_decoders():
        decoder = choose_decoder(name)
        found[own_title(name)] = lambda body, rows, decoder=decoder: as_it_arrives(decoder, body, rows)
    found["msgspec, whole, to float32"] = with_msgspec(MAIN_LOAD.dimension)
    if importlib.util.find_spec("simdjson"):
        found[SIMDJSON] = with_simdjson()
    found["json, to float32"] = with_json()
    lists = msgspec.json.Decoder(dict[str, Any]).decode
    found["msgspec, to lists"] = lambda body, _: lists(body)
    found["json, to lists"] = lambda body, _: json.loads(body)
    if importlib.util.find_spec("orjson"):
        import orjson  # noqa: PLC0415 - comes with the official SDK

        found["orjson, to lists"] = lambda body, _: orjson.loads(body)
    return found


def speed_ups(body: bytes, repeats: int) -> dict[str, float]:
    """Bodies per second with two threads, as a multiple of one thread, for each of the client's decoders; medians."""
    found: dict[str, list[float]] = {}
    matrices = [np.zeros((MAX_BATCH, MAIN_LOAD.dimension), np.float32) for _ in range(2)]
    with ThreadPoolExecutor(2) as executor:
        for name in installed_decoders() * repeats:
            decoder = choose_decoder(name)

            def decode(rows: npt.NDArray[np.float32], decoder: Decoder = decoder) -> None:
                for _ in range(BODIES):
                    as_it_arrives(decoder, body, rows)

            def seconds(given: Sequence[npt.NDArray[np.float32]], decode: Callable[..., None] = decode) -> float:
                started = time.perf_counter()
                list(executor.map(decode, given))
                return time.perf_counter() - started

            found.setdefault(name, []).append(2 * seconds(matrices[:1]) / seconds(matrices))
    return {name: statistics.median(ratios) for name, ratios in found.items()}


def measure_here(repeats: int) -> dict[str, Any]:
    """Measure all ways in turn in this process; return medians, in milliseconds and as ratios."""
    body = full_body()
    expected = dense_vectors(MAIN_LOAD)[:MAX_BATCH]
    measured = ways()
    taken: dict[str, list[float]] = {title: [] for title in measured}
    for repeat in range(repeats + 1):
        for title, decode in measured.items():
            rows = np.zeros((MAX_BATCH, MAIN_LOAD.dimension), np.float32)
            started = time.perf_counter()
            decode(body, rows)
            taken[title].append(1000 * (time.perf_counter() - started))
            if not repeat and "lists" not in title and not np.array_equal(rows, expected):
                raise ValueError(f"{title} must return the server's rows, got others")
    # The first repeat is a warm-up.
    taken_once = {title: statistics.median(islice(times, 1, None)) for title, times in taken.items()}
    return {"ms_per_body": taken_once, "two_threads": speed_ups(body, max(1, repeats // 4))}


def measure(settings: Settings) -> dict[str, Any]:
    """Measure in a separate process."""
    repeats = max(3, round(REPEATS * min(1.0, settings.scale)))
    said = run_module("suites.decoding", [str(repeats)], limit=300, who="decoding")
    return {"repeats": repeats, **json.loads(said.splitlines()[-1])}


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of decoders."""
    speed_up = {own_title(name): ratio for name, ratio in part["two_threads"].items()}
    rows = tuple(
        (title, number(taken, 2), number(speed_up[title], 2) if title in speed_up else "–")
        for title, taken in part["ms_per_body"].items()
    )
    head = ("way", "ms/body", "two threads, × one")
    return [Table(f"Decoding alone, {MAX_BATCH} × {MAIN_LOAD.dimension} half-precision numbers", head, rows)]


if __name__ == "__main__":
    print(json.dumps(measure_here(int(sys.argv[1]))))
