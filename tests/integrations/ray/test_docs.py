"""The blocks of the docs with the adapter to Ray run as printed, on a cluster and against the emulator."""

from pathlib import Path

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.integrations.ray.conftest import Cluster
from tests.integrations.ray.programs import run_on
from tests.pages import PAGES, RAY, blocks_of

BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in PAGES
    for number, block in enumerate(blocks_of(path.read_text()))
    if RAY in block
]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", BLOCKS)
async def test_a_block_runs_as_printed(block: str, cluster: Cluster, emulator: Emulator, tmp_path: Path) -> None:
    out = await run_on(cluster, emulator, "-c", block, cwd=tmp_path)
    assert "vector" in out
    assert emulator.statistics().inputs_answered == 1000
