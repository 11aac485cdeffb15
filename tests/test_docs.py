"""Every Python block of the README and the docs runs, against the emulator."""

import re
from pathlib import Path

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.index import Index
from tests.processes import run_program

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
async def test_a_block_runs_as_printed(block: str, emulator: Emulator, tmp_path: Path) -> None:
    async with Index() as index:
        await run_program(emulator, block, tmp_path, {"PINECONE_INDEX_HOST": index.url})
    if "upsert" in block:
        assert len(index.vectors) == 1000
        # Four tasks, and the SDK makes three requests of 96 records.
        assert index.max_in_flight <= 4 * 3


async def test_a_step_that_a_busy_machine_made_slow_is_no_complaint(emulator: Emulator) -> None:
    assert await run_program(emulator, "import asyncio, time\nasync def main(): time.sleep(0.15)\nasyncio.run(main())") == ""
