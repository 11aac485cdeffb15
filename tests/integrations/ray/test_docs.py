"""The blocks of the docs with Ray run as printed, on a cluster and against the emulator."""

import json
from pathlib import Path

import numpy as np
import pytest

from pinecone_embed_async.emulator import Emulator
from tests.cli.program import in_thread, table_of
from tests.integrations.ray.conftest import Cluster
from tests.integrations.ray.programs import run_here
from tests.pages import PAGES, RAY, TABLES, blocks_of

BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in PAGES
    for number, block in enumerate(blocks_of(path.read_text()))
    if RAY in block
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", BLOCKS)
async def test_a_block_runs_as_printed(block: str, cluster: Cluster, emulator: Emulator, tmp_path: Path) -> None:
    out = await run_here(cluster, emulator, block, cwd=tmp_path)
    assert "vector" in out
    assert emulator.statistics().inputs_answered == 1000


@pytest.mark.timeout(180)
async def test_ray_reads_a_jobs_table_as_the_page_says(cluster: Cluster, emulator: Emulator, tmp_path: Path) -> None:
    [block] = [block for block in blocks_of(TABLES.read_text()) if "import ray" in block]
    rows = [{"text": f"text number {n}", "id": f"k{n}", "year": 1990 + n % 30} for n in range(3000)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--id-field", "id", "--keep", "year", "--out", tmp_path / "vectors", "-q")
    assert await in_thread(emulator, tmp_path / "docs.jsonl", *options) == 0
    table = table_of(tmp_path / "vectors").to_pylist()
    matrix = np.array([row["vector"] for row in table], np.float32)
    nearest = np.argsort(-(matrix @ matrix[7]), kind="stable")[:3].tolist()
    out = await run_here(cluster, emulator, block, cwd=tmp_path)
    assert str([(f"k{row}", 1990 + row % 30) for row in nearest]) in out
