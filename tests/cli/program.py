"""The command line in a process of its own, or in a thread of this one; and files for it to read."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import dataset

from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import Emulator
from tests.processes import environment_of

PROGRAM = (sys.executable, "-m", "pinecone_embed_async.cli")
ROOT = Path(__file__).parent.parent.parent


async def start(emulator: Emulator, *arguments: object, **options: Any) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*PROGRAM, "embed", *map(str, arguments)),
        env={**environment_of(emulator), "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **options,
    )


async def run(emulator: Emulator, *arguments: object, **options: Any) -> tuple[int | None, str, str]:
    process = await start(emulator, *arguments, **options)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def children_of(process: int) -> list[int]:
    """The processes that a process has started and that are still there."""
    tasks = Path(f"/proc/{process}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


async def in_thread(emulator: Emulator, *arguments: object) -> int:
    """The command line in a thread of this process, which starts in less time than a process."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PINECONE_CONTROLLER_HOST", emulator.url)
        patched.setenv("PINECONE_API_KEY", emulator.api_key)
        return await asyncio.to_thread(cli, "embed", *map(str, arguments))


def write_texts(path: Path, count: int) -> Path:
    path.write_text("".join(f"text number {number}\n" for number in range(count)))
    return path


def table_of(folder: Path) -> pa.Table:
    return dataset.dataset(folder, format="parquet").to_table().sort_by("row")
