"""Programs that use a cluster: in an interpreter of their own that joins it, or in this one, which has started it."""

import asyncio
import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest

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


async def run_here(cluster: Cluster, emulator: Emulator, code: str, *arguments: str, cwd: Path) -> str:
    """Run code in a thread of this process, whose workers have imported everything before. Gives what it printed."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(said):
        for name, value in {**environment_of(emulator), "RAY_ADDRESS": cluster.address}.items():
            patched.setenv(name, value)
        patched.chdir(cwd)
        patched.setattr(sys, "argv", ["-c", *arguments])
        # Ray sends the functions of the program to its workers, because they belong to no module that can be imported.
        await asyncio.to_thread(exec, compile(code, "<string>", "exec"), {"__name__": "__main__"})
    return said.getvalue()
