"""Does writing keep up? Inputs per second of a job, from a file to Parquet parts, beside those of `client.stream` alone.

Each measurement has its own process; stream and job take turns, against one server. The stream takes its texts from a list
and drops the vectors. The job reads a `.jsonl` file, keeps a column, journals, syncs and writes parts; its clock runs from
the first row read for embedding to the end of the last part. The time before that, for the fingerprint and the check of the
input, is reported separately.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pyarrow import dataset

from benchmarks.competitors import API_KEY
from benchmarks.harness import BenchmarkError, run_module, running_server
from benchmarks.seeded import MAX_BATCH, texts
from benchmarks.settings import MAIN_LOAD
from benchmarks.tables import Table, number
from pinecone_embed_async import EmbedClient
from pinecone_embed_async._jobs._fingerprint import Fingerprint, take_fingerprint
from pinecone_embed_async._jobs._inputs import find_inputs
from pinecone_embed_async._jobs._job import embedded_rows
from pinecone_embed_async._jobs._opening import open_job
from pinecone_embed_async._jobs._sources import Columns
from pinecone_embed_async._wire.decoding import installed_decoders

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benchmarks.settings import Settings
    from pinecone_embed_async._jobs._fingerprint import InputPrint
    from pinecone_embed_async._jobs._inputs import InputFile
    from pinecone_embed_async._jobs._job import Job, JobProgress
    from pinecone_embed_async._jobs._sources import Row
    from pinecone_embed_async._wire import DecoderName

INPUTS, ROUNDS = 100_000, 5
GOAL = 0.85
"""Least rate, relative to the stream's."""


def _client(url: str, decoder: DecoderName) -> EmbedClient[Any]:
    return EmbedClient(MAIN_LOAD.model, api_key=API_KEY, base_url=url, parameters=MAIN_LOAD.parameters, decoder=decoder)


async def measure_stream(url: str, decoder: DecoderName, inputs: Sequence[str]) -> float:
    """Return the seconds a stream alone takes."""
    async with _client(url, decoder) as client:
        await client.embed(inputs[: 4 * MAX_BATCH])
        started = time.perf_counter()
        count = 0
        async with client.stream(inputs, ordered=False) as batches:
            async for batch in batches:
                count += len(batch.items)
        seconds = time.perf_counter() - started
    if count != len(inputs):
        raise BenchmarkError(f"the stream returned {count:,} of {len(inputs):,} inputs")
    return seconds


async def measure_job(url: str, decoder: DecoderName, job: Job) -> float:
    """Return the seconds a job takes from the first row it reads."""
    started = 0.0

    def clocked(rows: Iterable[Row]) -> Iterator[Row]:
        nonlocal started
        started = time.perf_counter()
        yield from rows

    def report(_progress: JobProgress) -> None: ...

    async with _client(url, decoder) as client:
        await job.run(lambda rows: embedded_rows(client, clocked(rows)), report)
        return time.perf_counter() - started


def measure_here(kind: str, decoder: DecoderName, url: str, source: Path) -> dict[str, float]:
    """Measure once, in this process."""
    if kind == "stream":
        inputs = [json.loads(line)["text"] for line in source.read_text().splitlines()]
        return {"seconds": asyncio.run(measure_stream(url, decoder, inputs))}
    files, columns = find_inputs([str(source)]), Columns(id="id", keep=("year",))

    def fingerprint(given: Sequence[InputFile], known: Iterable[InputPrint]) -> Fingerprint:
        parameters = MAIN_LOAD.parameters
        return take_fingerprint(
            given, columns, service=url, api_version="", model=MAIN_LOAD.model, parameters=parameters, known=known
        )

    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        started = time.perf_counter()
        with open_job(Path(out), files, columns, fingerprint) as job:
            opening = time.perf_counter() - started
            seconds = asyncio.run(measure_job(url, decoder, job))
            counts = job.progress().counts
        rows = dataset.dataset(out, format="parquet").count_rows()
    if rows != counts.total:
        raise BenchmarkError(f"the table has {rows:,} of {counts.total:,} rows")
    return {"seconds": seconds, "opening": opening}


def _measured(kind: str, decoder: str, url: str, source: Path) -> dict[str, float]:
    said = run_module("suites.jobs", [kind, decoder, url, str(source)], limit=600, who=kind)
    figures: dict[str, float] = json.loads(said.splitlines()[-1])
    return figures


def measure(settings: Settings) -> dict[str, Any]:
    """Measure both alternately with each installed decoder, and summarize."""
    inputs = settings.scaled(INPUTS)
    decoders = installed_decoders()
    figures: dict[str, dict[str, list[dict[str, float]]]] = {name: {"stream": [], "job": []} for name in decoders}
    with tempfile.TemporaryDirectory() as folder, running_server(MAIN_LOAD) as server:
        source = Path(folder) / "in.jsonl"
        with source.open("w") as file:
            for place, text in enumerate(texts(inputs, MAIN_LOAD.seed)):
                file.write(json.dumps({"id": f"id-{place}", "year": 1970 + place % 50, "text": text}) + "\n")
        for _ in range(min(ROUNDS, settings.rounds)):
            for decoder, kinds in figures.items():
                for kind, measured in kinds.items():
                    measured.append(_measured(kind, decoder, server.url, source))
    return {"inputs": inputs, "decoders": {name: _summed_up(inputs, **kinds) for name, kinds in figures.items()}}


def _summed_up(inputs: int, stream: Sequence[Mapping[str, float]], job: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    ratios = [alone["seconds"] / beside["seconds"] for alone, beside in zip(stream, job, strict=True)]
    return {
        "inputs_per_second": {
            kind: statistics.median(inputs / each["seconds"] for each in measured)
            for kind, measured in (("stream", stream), ("job", job))
        },
        "opening_seconds": statistics.median(each["opening"] for each in job),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }


def tables(part: Mapping[str, Any]) -> list[Table]:
    """Return the table of stream and job."""
    rows: list[tuple[str, ...]] = []
    for decoder, figures in part["decoders"].items():
        rates, ratios = figures["inputs_per_second"], figures["ratios"]
        between = f"{number(min(ratios), 2)}–{number(max(ratios), 2)}"
        rows += [
            (f"client.stream, rows dropped ({decoder})", number(rates["stream"], 0), number(1.0, 2), "–", number(None, 2)),
            (
                f"a job, from JSON lines to Parquet ({decoder})",
                number(rates["job"], 0),
                number(figures["ratio"], 2),
                between,
                number(figures["opening_seconds"], 2),
            ),
        ]
    header = ("way", "inputs/s", "× stream", "min–max", "before that: fingerprint and check, s")
    return [Table(f"A job beside a stream, {part['inputs']:,} inputs", header, tuple(rows))]


if __name__ == "__main__":
    _kind, _decoder, _url, _source = sys.argv[1:]
    print(json.dumps(measure_here(_kind, cast("DecoderName", _decoder), _url, Path(_source))))
