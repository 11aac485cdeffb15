"""Programs in forks of one interpreter that has imported the package, which costs more than most of them do."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pinecone_embed_async.emulator import Emulator
from tests.processes import environment_of, run_program, without_slow_steps

CAN_FORK = sys.platform == "linux"
"""On macOS, the system's libraries do not bear a fork."""

# A fork ends as an interpreter does, so that what is said at its end is seen too.
_PARENT = """
import os, sys, types, warnings
import aiohttp.web, msgspec, pinecone_embed_async

def fork():
    # The threads that it warns of are those of numpy's BLAS, which stops them before a fork.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()

def main():
    for line in sys.stdin.buffer:
        asked = msgspec.json.decode(line)
        if not (child := fork()):
            for name, number in ((os.devnull, 0), (asked["out"], 1), (asked["err"], 2)):
                file = os.open(name, os.O_RDWR | os.O_CREAT)
                os.dup2(file, number)
                os.close(file)
            os.chdir(asked["cwd"])
            os.environ.clear()
            os.environ.update(asked["environment"])
            return asked["code"]
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

if (code := main()) is not None:
    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(compile(code, "<string>", "exec"), sys.modules["__main__"].__dict__)
"""


class Forks:
    """Runs programs in forks of an interpreter in development mode, with warnings as errors."""

    def __init__(self, process: subprocess.Popen[str] | None, folder: Path) -> None:
        self._process = process
        self._folder = folder

    def _run(self, asked: Mapping[str, Any]) -> int:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    async def run(self, emulator: Emulator, code: str, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
        """Run code, which must end well and have nothing to complain of."""
        # What starts itself again by its command line needs an interpreter of its own.
        if self._process is None or "orig_argv" in code:
            return await run_program(emulator, code, cwd, environment)
        out, err = self._folder / "out", self._folder / "err"
        out.write_bytes(b"")
        err.write_bytes(b"")
        asked = {
            "code": code,
            "cwd": str(cwd),
            "environment": {**environment_of(emulator), **(environment or {})},
            "out": str(out),
            "err": str(err),
        }
        status = await asyncio.to_thread(self._run, asked)
        said = without_slow_steps(err.read_text())
        assert (status, said) == (0, ""), said
        return out.read_text()


@contextlib.contextmanager
def forks_in(folder: Path) -> Iterator[Forks]:
    """Start the interpreter; what its forks say is kept in the folder."""
    if not CAN_FORK:
        yield Forks(None, folder)
        return
    command = (sys.executable, "-X", "dev", "-W", "error", "-c", _PARENT)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        yield Forks(process, folder)
    assert process.returncode == 0
