"""Every Python block of the README and the docs runs, against the emulator."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.test_lifecycle import environment_of

ROOT = Path(__file__).parent.parent
BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))
]


@pytest.mark.parametrize("block", BLOCKS)
async def test_a_block_runs_as_printed(block: str, emulator: Emulator) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", block),
        env=environment_of(emulator),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert (process.returncode, err.decode()) == (0, "")
