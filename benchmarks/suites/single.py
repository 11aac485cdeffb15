"""How long a single text takes, alone and among a thousand at once, beside hand-written code.

All ways run in one process and alternate, so that drift affects all alike.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Literal

import aiohttp
import msgspec
import numpy as np

from benchmarks.competitors import API_KEY, HEADERS, MODULE, READ_BUFFER
from benchmarks.competitors.hand import encode_with_json, with_json, with_msgspec, with_simdjson
from benchmarks.figures import percentile
from benchmarks.harness import BenchmarkError, Server, run_module, running_server
from benchmarks.seeded import PERIOD, dense_vectors, texts
from benchmarks.settings import MAIN_LOAD
from benchmarks.tables import Table, number
from pinecone_embed_async import EmbedClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    import numpy.typing as npt

    from benchmarks.competitors.hand import Write
    from benchmarks.settings import Settings

    Single = Callable[[str], Awaitable[npt.NDArray[np.float32]]]

CALLS, CROWDS, CROWD = 1000, 5, 1000
DECODERS: tuple[Literal["msgspec", "native"], ...] = ("msgspec", "native")
"""Only public names are used, since the package may be an older one."""
BARE = {"msgspec": "msgspec", "native": "simdjson", "simdjson": "simdjson"}
"""The fastest decoder for hand-written code, by the client's decoder."""
LIMIT = 600.0
"""Time limit of the whole in seconds."""


def _client_ways(client: EmbedClient[Any], decoder: str) -> dict[str, Single]:
    async def one(text: str) -> npt.NDArray[np.float32]:
        vector: npt.NDArray[np.float32] = await client.embed_one(text, parameters=MAIN_LOAD.parameters)
        return vector

    async def many(text: str) -> npt.NDArray[np.float32]:
        result = await client.embed(text, parameters=MAIN_LOAD.parameters)
        vector: npt.NDArray[np.float32] = result[0]
        return vector

    return {f"embed_one ({decoder})": one, f"embed of one text ({decoder})": many}


def _by_hand(session: aiohttp.ClientSession, write: Write, encode: Callable[[Any], bytes]) -> Single:
    async def bare(text: str) -> npt.NDArray[np.float32]:
        request = {"model": MAIN_LOAD.model, "inputs": [{"text": text}], "parameters": MAIN_LOAD.parameters}
        async with session.post("/embed", data=encode(request)) as response:
            response.raise_for_status()
            body = await response.read()
        rows = np.empty((1, MAIN_LOAD.dimension), np.float32)
        write(body, rows)
        vector: npt.NDArray[np.float32] = rows[0]
        return vector

    return bare


def bare_name(decoder: str) -> str:
    """Return the name of the bare post with a decoder."""
    return f"bare aiohttp + {decoder}"


async def open_ways(stack: AsyncExitStack, url: str, concurrency: int) -> dict[str, Single]:
    """Open the ways to measure, by name."""
    ways: dict[str, Single] = {}
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            url,
            headers=HEADERS,
            connector=aiohttp.TCPConnector(limit=concurrency),
            read_bufsize=READ_BUFFER,
        )
    )
    encode = msgspec.json.Encoder().encode
    for decoder in DECODERS:
        if decoder == "msgspec" or importlib.util.find_spec(MODULE):
            client: EmbedClient[Any] = EmbedClient(
                MAIN_LOAD.model, api_key=API_KEY, base_url=url, max_concurrency=concurrency, decoder=decoder
            )
            ways |= _client_ways(await stack.enter_async_context(client), decoder)
    if importlib.util.find_spec("simdjson"):
        ways[bare_name("simdjson")] = _by_hand(session, with_simdjson(), encode)
    ways[bare_name("msgspec")] = _by_hand(session, with_msgspec(MAIN_LOAD.dimension), encode)
    ways[bare_name("json")] = _by_hand(session, with_json(), encode_with_json)
    return ways


async def measure_alone(
    ways: Mapping[str, Single], passages: Sequence[str], expected: npt.NDArray[np.float32]
) -> dict[str, Any]:
    """Milliseconds of sequential calls, alternating between the ways: wall time, and this process's CPU time."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for place, passage in enumerate(passages):
        turn = place % len(names)
        for name in (*names[turn:], *names[:turn]):
            used_before, started = time.process_time(), time.perf_counter()
            vector = await ways[name](passage)
            taken[name].append(1000 * (time.perf_counter() - started))
            used[name].append(1000 * (time.process_time() - used_before))
            check(name, vector, expected[place % PERIOD])
    return {
        name: {"p50": statistics.median(times), "p99": percentile(times, 99), "cpu_p50": statistics.median(used[name])}
        for name, times in taken.items()
    }


async def measure_crowd(
    ways: Mapping[str, Single], server: Server, passages: Sequence[str], expected: npt.NDArray[np.float32], rounds: int
) -> dict[str, Any]:
    """Milliseconds until the last of many concurrent calls is answered, and the requests they made."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    requests: dict[str, float] = {}
    for _ in range(rounds):
        for name, single in ways.items():
            before = server.statistics()["embed_requests"]
            started = time.perf_counter()
            vectors = await asyncio.gather(*map(single, passages))
            taken[name].append(1000 * (time.perf_counter() - started))
            requests[name] = server.statistics()["embed_requests"] - before
            for place, vector in enumerate(vectors):
                check(name, vector, expected[place % PERIOD])
    return {name: {"median": statistics.median(times), "requests": requests[name]} for name, times in taken.items() if times}


def check(name: str, vector: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    """Compare a vector with the server's.

    Raises:
        BenchmarkError: They differ.
    """
    if vector.dtype != np.float32 or not np.array_equal(vector, expected):
        raise BenchmarkError(f"{name}: did not return the vector of its input")


async def measure_here(url: str, calls: int, crowds: int, crowd: int, concurrency: int) -> dict[str, Any]:
    """Warm everything up and measure, in this process."""
    passages, expected = texts(max(calls, crowd), MAIN_LOAD.seed), dense_vectors(MAIN_LOAD)
    server = Server(url)
    async with AsyncExitStack() as stack:
        ways = await open_ways(stack, url, concurrency)
        await measure_alone(ways, passages[:50], expected)
        if crowds:
            await measure_crowd(ways, server, passages[:crowd], expected, 1)
        alone = await measure_alone(ways, passages[:calls], expected)
        crowded = await measure_crowd(ways, server, passages[:crowd], expected, crowds)
    return {"crowd": crowd, "calls": calls, "ways": {name: {**alone[name], "crowd": crowded.get(name)} for name in ways}}


def run(
    server: Server, calls: int, *, crowds: int, crowd: int, concurrency: int, checkout: str | None = None
) -> dict[str, Any]:
    """Measure in a separate process; with `crowds=0`, only sequential calls."""
    arguments = [server.url, *map(str, (calls, crowds, crowd, concurrency))]
    said = run_module("suites.single", arguments, limit=LIMIT, who="single", checkout=checkout)
    figures: dict[str, Any] = json.loads(said)
    return figures


def measure(settings: Settings) -> dict[str, Any]:
    """Measure for the tables and plots."""
    calls, crowd = max(10, round(CALLS * settings.scale)), max(10, round(CROWD * settings.scale))
    crowds = min(CROWDS, settings.rounds)
    with running_server(MAIN_LOAD) as server:
        return run(server, calls, crowds=crowds, crowd=crowd, concurrency=settings.concurrency)


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of single calls."""
    rows = []
    for name, figures in part["ways"].items():
        decoder = next((decoder for decoder in BARE if decoder in name), "json")
        base = part["ways"].get(bare_name(BARE.get(decoder, decoder)), part["ways"][bare_name("json")])
        crowd = figures["crowd"]
        rows.append(
            (
                name,
                number(figures["p50"], 2),
                number(figures["p50"] / base["p50"], 2),
                number(figures["p99"], 2),
                number(crowd["median"], 0),
                number(crowd["median"] / base["crowd"]["median"], 2),
                number(crowd["requests"], 0),
            )
        )
    header = ("way", "alone, p50 ms", "× bare", "p99 ms", f"{part['crowd']:,} at once, ms", "× bare", "requests")
    return [
        Table(
            f"A single text; × is against the bare post with the same decoder, {part['calls']:,} calls", header, tuple(rows)
        )
    ]


if __name__ == "__main__":
    url_, *numbers = sys.argv[1:]
    print(json.dumps(asyncio.run(measure_here(url_, *map(int, numbers)))))
