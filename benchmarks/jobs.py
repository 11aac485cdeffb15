"""Does writing keep up? Inputs per second of a job, from a file to Parquet parts, beside those of `client.stream` alone.

    python benchmarks/jobs.py
    python benchmarks/jobs.py --inputs 50000 --rounds 5 --json figures.json

Each measurement is in a process of its own, stream and job in turn, against one server. The stream takes its texts from a
list and drops the vectors. The job reads a `.jsonl` file, keeps a column, journals, syncs and writes parts; its clock runs
from the first row that is read for embedding to the end of the last part. What comes before, the fingerprint and the check
of the input, is told apart. Exit status 1 if the job reaches less than 85% of the stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import BenchmarkError, describe_machine, running_server
from pyarrow import dataset
from seeded import MAX_BATCH, Load, texts

from pinecone_embed_async import EmbedClient
from pinecone_embed_async._jobs import Columns, Fingerprint, find_inputs, open_job, take_fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pinecone_embed_async._jobs import InputPrint, Job, JobProgress, Row

GOAL = 0.85
"""Of the stream's inputs per second."""


def _client(url: str, load: Load) -> EmbedClient[Any]:
    return EmbedClient(load.model, api_key="benchmark", base_url=url, parameters=load.parameters)


async def measure_stream(url: str, load: Load, inputs: Sequence[str]) -> float:
    """Give the seconds that a stream alone takes."""
    async with _client(url, load) as client:
        await client.embed(inputs[: 4 * MAX_BATCH])
        started = time.perf_counter()
        count = 0
        async with client.stream(inputs, ordered=False) as batches:
            async for batch in batches:
                count += len(batch.items)
        seconds = time.perf_counter() - started
    if count != len(inputs):
        raise BenchmarkError(f"the stream gave {count:,} of {len(inputs):,} inputs")
    return seconds


async def measure_job(url: str, load: Load, job: Job) -> float:
    """Give the seconds that a job takes once it is open."""

    def report(_progress: JobProgress) -> None: ...

    async with _client(url, load) as client:
        await client.embed(texts(4 * MAX_BATCH, load.seed))

        def stream(rows: Iterable[Row]) -> Any:
            return client.stream(rows, text=lambda row: row.text, ordered=False, on_error="return", in_thread=True)

        started = time.perf_counter()
        await job.run(stream, report)
        return time.perf_counter() - started


def measure(kind: str, url: str, load: Load, source: Path) -> dict[str, float]:
    """Measure once, in this process."""
    if kind == "stream":
        inputs = [json.loads(line)["text"] for line in source.read_text().splitlines()]
        return {"seconds": asyncio.run(measure_stream(url, load, inputs))}
    files, columns = find_inputs([str(source)]), Columns(id="id", keep=("year",))

    def fingerprint(known: Iterable[InputPrint]) -> Fingerprint:
        parameters = load.parameters
        return take_fingerprint(
            files, columns, service=url, api_version="", model=load.model, parameters=parameters, known=known
        )

    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        started = time.perf_counter()
        with open_job(Path(out), files, columns, fingerprint) as job:
            opening = time.perf_counter() - started
            seconds = asyncio.run(measure_job(url, load, job))
            counts = job.progress().counts
        rows = dataset.dataset(out, format="parquet").count_rows()
    if rows != counts.total:
        raise BenchmarkError(f"the table has {rows:,} of {counts.total:,} rows")
    return {"seconds": seconds, "opening": opening}


def _measured(kind: str, url: str, load: Load, source: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", kind, "--url", url, "--source", str(source)]
    command += ["--dimension", str(load.dimension)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if process.returncode:
        raise BenchmarkError(f"{kind}: {process.stderr.strip()[-2000:]}")
    figures: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    return figures


def run(load: Load, inputs: int, rounds: int) -> dict[str, Any]:
    """Measure both in turn and sum up."""
    with tempfile.TemporaryDirectory() as folder, running_server(load) as server:
        source = Path(folder) / "in.jsonl"
        with source.open("w") as file:
            for number, text in enumerate(texts(inputs, load.seed)):
                file.write(json.dumps({"id": f"id-{number}", "year": 1970 + number % 50, "text": text}) + "\n")
        figures: dict[str, list[dict[str, float]]] = {"stream": [], "job": []}
        for _ in range(rounds):
            for kind, measured in figures.items():
                measured.append(_measured(kind, server.url, load, source))
    ratios = [stream["seconds"] / job["seconds"] for stream, job in zip(figures["stream"], figures["job"], strict=True)]
    return {
        "benchmark": "jobs",
        "machine": describe_machine(),
        "settings": {"inputs": inputs, "rounds": rounds, "dimension": load.dimension},
        "inputs_per_second": {
            kind: statistics.median(inputs / each["seconds"] for each in measured) for kind, measured in figures.items()
        },
        "opening_seconds": statistics.median(each["opening"] for each in figures["job"]),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "goal": GOAL,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=30_000, help="inputs of each measurement (default 30,000)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each (default 5)")
    parser.add_argument("--dimension", type=int, default=1024, help="numbers per vector (default 1024)")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--measure", choices=("stream", "job"), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    load = Load(options.dimension)
    if options.measure:
        print(json.dumps(measure(options.measure, options.url, load, options.source)))
        return 0
    try:
        report = run(load, options.inputs, options.rounds)
    except BenchmarkError as error:
        print(f"jobs: {error}", file=sys.stderr)
        return 1
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n")
    rates = report["inputs_per_second"]
    print(f"stream alone {rates['stream']:,.0f} inputs/s, job {rates['job']:,.0f} inputs/s")
    print(f"ratio {report['ratio']:.2f} ({min(report['ratios']):.2f} to {max(report['ratios']):.2f}), goal {GOAL}")
    print(f"before that, the fingerprint and the check of the input took {report['opening_seconds']:.2f} s")
    return 0 if report["ratio"] >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
