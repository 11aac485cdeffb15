"""The whole thing: a corpus over four actors under one quota, one of them killed half-way."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from pinecone_embed_async import EmbedClient
from pinecone_embed_async.emulator import EmulatedModel, Emulator, ServiceQuota
from tests.integrations.ray.conftest import Cluster
from tests.integrations.ray.programs import run_here

ROWS = 12_500
WINDOW = 3.0
WINDOWS = 5
LEASE = 2.0
# Few numbers a vector, so that the test is about requests and rows and not about JSON.
MODEL = EmulatedModel(name="small-model", default_dimension=16, supported_dimensions=(16,))

PROGRAM = """
import sys
import ray.data
from pinecone_embed_async import Quota
from pinecone_embed_async.integrations.ray import ClusterQuota, add_vectors

source, target, tokens, window, lease = sys.argv[1:]
dataset = add_vectors(
    ray.data.read_parquet(source).repartition(target_num_rows_per_block=200),
    "small-model",
    vector_type="dense",
    text="body",
    quota=ClusterQuota(Quota(int(tokens), window=float(window)), name="whole", lease=float(lease)),
    actors=4,
)
dataset.write_parquet(target)
"""


def write_corpus(folder: Path) -> list[str]:
    """A Parquet file of texts of several lengths, all different."""
    texts = [f"document {number}: " + "some more words " * (number * 7 % 9) for number in range(ROWS)]
    folder.mkdir()
    parquet.write_table(pa.table({"id": range(ROWS), "body": texts}), folder / "corpus.parquet")
    return texts


@dataclass
class Watch:
    """When how many tokens had been billed.

    Attributes:
        began: when the first request came; infinity before.
        billed: times, and the tokens that had been billed by then.
    """

    emulator: Emulator
    began: float = float("inf")
    billed: list[tuple[float, int]] = field(default_factory=list)

    async def watch(self) -> None:
        while True:
            seen = self.emulator.statistics()
            if seen.requests:
                self.began = min(self.began, time.monotonic())
                if not self.billed or seen.tokens_billed > self.billed[-1][1]:
                    self.billed.append((time.monotonic(), seen.tokens_billed))
            await asyncio.sleep(0.02)

    async def reached(self, tokens: int) -> None:
        while not self.billed or self.billed[-1][1] < tokens:
            await asyncio.sleep(0.05)

    def used(self, limit: int) -> float:
        """The part of the quota that was used.

        What is over n whole limits can be billed after n windows at the earliest; that over when it was.
        """
        whole = (self.billed[-1][1] - 1) // limit
        at = next(moment for moment, tokens in self.billed if tokens > whole * limit)
        return whole * WINDOW / (at - self.began)


@contextlib.asynccontextmanager
async def watching(emulator: Emulator) -> AsyncIterator[Watch]:
    watch = Watch(emulator)
    task = asyncio.get_running_loop().create_task(watch.watch())
    try:
        yield watch
    finally:
        task.cancel()


def children_of(process: int) -> dict[int, str]:
    """The processes that a process has started, and what they call themselves."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        # It may end meanwhile.
        with contextlib.suppress(OSError):
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            if int(parent) == process:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
    return found


def workers() -> list[int]:
    """The processes of this process's cluster that add vectors."""
    (raylet,) = (process for process, title in children_of(os.getpid()).items() if "/raylet " in title)
    return sorted(process for process, title in children_of(raylet).items() if title.startswith("ray::MapWorker("))


@pytest.mark.timeout(240)
async def test_one_quota_is_used_up_and_every_row_is_there_once_though_an_actor_is_killed(
    cluster: Cluster, tmp_path: Path
) -> None:
    texts = await asyncio.to_thread(write_corpus, tmp_path / "corpus")
    # The tokens of all, by the emulator's own count.
    async with Emulator(models=[MODEL], record_texts=False) as emulator:
        async with EmbedClient(MODEL.name, vector_type="dense", api_key=emulator.api_key, base_url=emulator.url) as client:
            expected = await client.embed(texts)
        limit = expected.usage.total_tokens // WINDOWS
        emulator.quota = ServiceQuota(tokens_per_window=limit, window=WINDOW, kind="sliding")
        emulator.reset_statistics()
        async with watching(emulator) as watch, asyncio.TaskGroup() as group:
            arguments = (str(tmp_path / "corpus"), str(tmp_path / "out"), str(limit), str(WINDOW), str(LEASE))
            group.create_task(run_here(cluster, emulator, PROGRAM, *arguments, cwd=tmp_path))
            await watch.reached(expected.usage.total_tokens // 2)
            found = workers()
            assert len(found) == 4
            os.kill(found[1], signal.SIGKILL)
        seen = emulator.statistics()
    table = parquet.read_table(tmp_path / "out").sort_by("id")
    assert table.column("id").to_pylist() == list(range(ROWS))
    assert table.column("body").to_pylist() == texts
    assert np.array_equal(np.array(table.column("vector").to_pylist(), np.float32), expected.vectors)
    rejected = seen.by_status.get(429, 0) / seen.requests
    used = watch.used(limit)
    sys.stdout.write(f"{used:.1%} used, {rejected:.1%} rejected, {seen.requests} requests, {seen.inputs_answered} inputs\n")
    assert used >= 0.90
    assert rejected <= 0.03


@pytest.mark.timeout(180)
async def test_the_example_reads_embeds_and_writes(cluster: Cluster, emulator: Emulator, tmp_path: Path) -> None:
    rows = {"id": range(300), "body": [f"text {number}" if number % 50 else None for number in range(300)]}
    parquet.write_table(pa.table(rows), tmp_path / "corpus.parquet")
    example = Path(__file__).parents[3] / "examples" / "ray_parquet.py"
    options = ("--text", "body", "--actors", "2", "--quota", "standard", "--rows-per-block", "100")
    paths = (str(tmp_path / "corpus.parquet"), str(tmp_path / "out"))
    await run_here(cluster, emulator, example.read_text(), *paths, *options, cwd=tmp_path)
    table = parquet.read_table(tmp_path / "out").sort_by("id")
    assert table.column_names == ["id", "body", "vector", "error"]
    assert table.column("id").to_pylist() == list(range(300))
    assert [row for row, error in enumerate(table.column("error").to_pylist()) if error is not None] == list(
        range(0, 300, 50)
    )
