"""Jobs in processes that are forks of one which has imported everything, so that starting many costs little more than one.

A fork is killed like any other process. How a process begins and ends is to be seen in those of `tests.cli.program` only.
"""

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pinecone_embed_async.emulator import Emulator

ROOT = Path(__file__).parent.parent.parent


class Job:
    """A job that was started; `ending` gives its exit status, `None` if it was killed, and all that it said."""

    def __init__(self, process: int, ending: asyncio.Task[tuple[int | None, str]]) -> None:
        self._process = process
        self.ending = ending

    def kill(self) -> None:
        # The number is no other process's, since nobody has waited for this one yet.
        os.kill(self._process, signal.SIGKILL)


class Forks:
    """Starts one job after the other; what is left of the one before is ended."""

    def __init__(self, server: socket.socket) -> None:
        self._server = server

    async def start(self, emulator: "Emulator", *arguments: object) -> Job:
        ours, theirs = socket.socketpair()
        told, said = os.pipe()
        with theirs:
            socket.send_fds(self._server, [b"."], [theirs.fileno(), said])
        os.close(said)
        reader, writer = await asyncio.open_connection(sock=ours)
        environment = {"PINECONE_CONTROLLER_HOST": emulator.url, "PINECONE_API_KEY": emulator.api_key}
        writer.write(json.dumps([environment, ["embed", *map(str, arguments)]]).encode() + b"\n")
        process = int(await reader.readline())

        async def end() -> tuple[int | None, str]:
            with os.fdopen(told, "rb") as stream:
                everything = await asyncio.to_thread(stream.read)
            status = await reader.read()
            writer.close()
            await writer.wait_closed()
            return int(status) if status else None, everything.decode()

        return Job(process, asyncio.create_task(end()))

    async def run(self, emulator: "Emulator", *arguments: object) -> tuple[int | None, str]:
        job = await self.start(emulator, *arguments)
        return await job.ending


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.cli.forking", str(theirs.fileno())],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        yield Forks(ours)
    server.wait()


def _serve(requests: socket.socket) -> None:
    if sys.platform == "linux":
        # Elsewhere, what is started while a library is imported may not outlive a fork.
        from pinecone_embed_async.cli import cli  # noqa: PLC0415 - not elsewhere

        with contextlib.redirect_stderr(io.StringIO()):
            cli("embed", "missing.txt", "--out", "missing")
    child = None
    while True:
        _, descriptors, _, _ = socket.recv_fds(requests, 1, 2)
        if child is not None:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        if not descriptors:
            return
        with warnings.catch_warnings():
            # The threads that Python 3.12 warns of are those of numpy's BLAS and of pyarrow, which are ready for a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            requests.close()
            _become_job(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _become_job(control: int, said: int) -> NoReturn:
    from pinecone_embed_async.cli import main  # noqa: PLC0415 - not before the fork, except on Linux

    for standard in (1, 2):
        os.dup2(said, standard)
    os.close(said)
    # Those that are there were made for other descriptors.
    sys.stdout, sys.stderr = (open(standard, "w", 1, closefd=False) for standard in (1, 2))  # noqa: SIM115 - for good
    connection = socket.socket(fileno=control)
    environment, sys.argv[1:] = json.loads(connection.makefile().readline())
    os.environ.update(environment)
    connection.sendall(b"%d\n" % os.getpid())
    status = 1
    try:
        main()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:  # noqa: BLE001 - it is said, as the interpreter would
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(b"%d" % status)
    os._exit(0)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as given:
        _serve(given)
