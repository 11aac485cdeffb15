"""Peak memory of a stream: a million short inputs must not need more than ten thousand do.

    python benchmarks/memory.py
    python benchmarks/memory.py --inputs 10000,1000000 --json figures.json

Each length is streamed in a process of its own, against one server, in one run. Every row is compared with the
server's vector and thrown away. Exit status 1 when a row is wrong or a process fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from competitors import API_KEY
from harness import BenchmarkError, Server, describe_machine, running_server
from measure import peak_memory
from seeded import NUMBER_WIDTH, PERIOD, Load, dense_vectors

from pinecone_embed_async import EmbedClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SLOWEST = 500
"""Inputs per second below which a process is given up."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", default="10000,1000000", help="lengths, separated by commas (default 10000,1000000)")
    parser.add_argument("--decoder", choices=("msgspec", "simdjson"), default="msgspec")
    parser.add_argument("--unordered", action="store_true", help="take the batches as they are done")
    parser.add_argument("--json", metavar="FILE", help="write everything as JSON; - for standard output")
    parser.add_argument("--measure", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        lengths = [int(length) for length in options.inputs.split(",")]
    except ValueError:
        parser.error("--inputs: whole numbers, separated by commas")
    if not all(1 <= length <= 10_000_000 for length in lengths):
        parser.error("--inputs: between 1 and 10,000,000")
    if options.measure:
        figures = asyncio.run(stream(options.measure, lengths[0], options.decoder, ordered=not options.unordered))
        print(json.dumps(figures))
        return 0
    try:
        with running_server(Load(1024, "half", 2)) as server:
            runs = [run(server, length, options.decoder, unordered=options.unordered) for length in lengths]
    except BenchmarkError as error:
        print(f"memory: {error}", file=sys.stderr)
        return 1
    report = {
        "benchmark": "memory",
        "machine": describe_machine(),
        "settings": {"decoder": options.decoder, "ordered": not options.unordered},
        "runs": runs,
    }
    table = sys.stderr if options.json == "-" else sys.stdout
    for one in runs:
        more = (one["peak_bytes"] - runs[0]["peak_bytes"]) / 2**20
        print(
            f"{one['inputs']:>10,} inputs: peak {one['peak_bytes'] / 2**20:6.1f} MiB"
            f" ({more:+.1f}), {one['inputs'] / one['seconds']:,.0f} inputs/s",
            file=table,
        )
    if options.json == "-":
        print(json.dumps(report, indent=2))
    elif options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


def run(server: Server, inputs: int, decoder: str, *, unordered: bool) -> dict[str, Any]:
    """Stream `inputs` in a process of its own.

    Raises:
        BenchmarkError: It failed or took too long.
    """
    command = [sys.executable, __file__, "--measure", server.url, "--inputs", str(inputs), "--decoder", decoder]
    try:
        process = subprocess.run(
            [*command, *(["--unordered"] if unordered else [])],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 + inputs / SLOWEST,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchmarkError(f"{inputs:,} inputs: stopped after {error.timeout:.0f} s") from error
    if process.returncode:
        raise BenchmarkError(f"{inputs:,} inputs: exit status {process.returncode}\n{process.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(process.stdout)
    return figures


async def stream(url: str, inputs: int, decoder: Any, *, ordered: bool) -> dict[str, Any]:
    """Stream numbered inputs and compare every row."""
    load = Load(1024, "half", 2)
    expected = dense_vectors(load)

    def source() -> Iterator[str]:
        return (f"{number:0{NUMBER_WIDTH}} a short input" for number in range(inputs))

    started, rows = time.perf_counter(), 0
    async with (
        EmbedClient(load.model, vector_type="dense", api_key=API_KEY, base_url=url, decoder=decoder) as client,
        client.stream(source(), input_type="passage", ordered=ordered) as batches,
    ):
        async for batch in batches:
            numbers = np.arange(batch.start, batch.start + len(batch)) % PERIOD
            if not np.array_equal(batch.vectors, expected[numbers]):
                raise BenchmarkError(f"the rows from {batch.start} on are not the vectors of their inputs")
            rows += len(batch)
    if rows != inputs:
        raise BenchmarkError(f"{rows:,} rows for {inputs:,} inputs")
    return {"inputs": inputs, "seconds": time.perf_counter() - started, "peak_bytes": peak_memory()}


if __name__ == "__main__":
    sys.exit(main())
