"""Programs in interpreters of their own, against the emulator."""

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pinecone_embed_async.emulator import Emulator

_SLOW_STEP = re.compile(r"^Executing <.*> took \d+\.\d+ seconds\n", re.MULTILINE)
"""What asyncio's debug mode says of a step that took over 0.1 s, as any does on a machine that is busy with other work."""


def environment_of(emulator: Emulator) -> dict[str, str]:
    """The environment that points a program at the emulator."""
    return {**os.environ, "PINECONE_CONTROLLER_HOST": emulator.url, "PINECONE_API_KEY": emulator.api_key}


def without_slow_steps(said: str) -> str:
    """What a program said, without the machine's part in it."""
    return _SLOW_STEP.sub("", said)


_CLIENT = """
import asyncio, os
from pinecone_embed_async import EmbedClient
client = EmbedClient("multilingual-e5-large")
"""


async def run_program(
    emulator: Emulator, code: str, cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> str:
    """Run code in development mode, with warnings as errors; it must end well and have nothing to complain of."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", code),
        env={**environment_of(emulator), **(environment or {})},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await process.communicate()
    said = without_slow_steps(err.decode())
    assert (process.returncode, said) == (0, ""), said
    return out.decode()


async def run_with_client(emulator: Emulator, code: str) -> str:
    """Run code that finds a `client` in an interpreter of its own, so that what it says while it ends is seen too."""
    return await run_program(emulator, _CLIENT + code)
