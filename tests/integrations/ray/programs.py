"""Programs in interpreters of their own that join a cluster."""

import asyncio
import subprocess
import sys
from pathlib import Path

from pinecone_embed_async.emulator import Emulator
from tests.integrations.ray.conftest import Cluster
from tests.processes import environment_of

WARNINGS = ("-W", "error", "-W", "ignore::DeprecationWarning:ray.data.context")
"""Warnings are errors, but for those that Ray Data's own context gives when it is made."""


async def run_on(cluster: Cluster, emulator: Emulator, *arguments: str, cwd: Path | None = None) -> str:
    """Run Python in development mode with arguments, against an emulator; it must end well. Gives what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", *WARNINGS, *arguments),
        env={**environment_of(emulator), "RAY_ADDRESS": cluster.address, "RAY_AUTH_MODE": "disabled"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = out.decode()
    assert process.returncode == 0, text
    return text
