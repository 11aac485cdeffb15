"""Does a job's memory grow with its rows? Runs the command line, from JSON lines to a folder, with more and more rows.

    python -m benchmarks.job_growth
    python -m benchmarks.job_growth 10000 100000

Each job runs in its own process against the benchmarks' server, which answers at once. A million rows need 10 GB of disk for
some minutes. The memory is the peak resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pyarrow import dataset

from benchmarks.competitors import API_KEY
from benchmarks.harness import BenchmarkError, describe_machine, running_server
from benchmarks.seeded import texts
from benchmarks.settings import MAIN_LOAD

ROWS = (10_000, 100_000, 1_000_000)
INTERVAL = 0.1
"""Seconds between two readings of the memory; the system keeps the peak."""


def _peak_of(process: int) -> float:
    """The peak resident memory of a process, in MiB."""
    [line] = [line for line in Path(f"/proc/{process}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def measure(rows: int, url: str, folder: Path) -> dict[str, float]:
    """Run one job and return its figures."""
    source, out = folder / "in.jsonl", folder / "out"
    with source.open("w") as file:
        for place, text in enumerate(texts(rows, MAIN_LOAD.seed)):
            file.write(json.dumps({"id": f"id-{place}", "year": 1970 + place % 50, "text": text}) + "\n")
    options = [f"--{name.replace('_', '-')}={value}" for name, value in MAIN_LOAD.parameters.items()]
    options += [f"--model={MAIN_LOAD.model}", f"--base-url={url}", f"--out={out}", "--id-field=id", "--keep=year", "--json"]
    with (folder / "events").open("w") as events:
        job = subprocess.Popen(
            [sys.executable, "-m", "pinecone_embed_async.cli", "embed", str(source), *options],
            env={**os.environ, "PINECONE_API_KEY": API_KEY},
            stdout=events,
        )
    peak = 0.0
    while job.poll() is None:
        try:
            peak = _peak_of(job.pid)
        except (OSError, ValueError):
            # It has ended.
            continue
        time.sleep(INTERVAL)
    end = json.loads((folder / "events").read_text().splitlines()[-1])
    if job.returncode or dataset.dataset(out, format="parquet").count_rows() != rows:
        raise BenchmarkError(f"the job of {rows:,} rows ended with status {job.returncode}: {end['message']}")
    return {"rows_per_second": rows / end["seconds"], "peak_mib": peak}


def main() -> None:
    """Measure, and print a line for each job."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.job_growth", description="A job's memory and rate, by rows.")
    parser.add_argument("rows", nargs="*", type=int, default=ROWS, help=f"rows of each job; default: {ROWS}")
    wanted = parser.parse_args().rows
    print(describe_machine())
    with running_server(MAIN_LOAD) as server:
        for rows in wanted:
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(rows, server.url, Path(folder))
            told = f"{figures['rows_per_second']:>7,.0f} rows/s  peak {figures['peak_mib']:,.0f} MiB"
            print(f"{rows:>9,} rows  {told}", flush=True)


if __name__ == "__main__":
    main()
