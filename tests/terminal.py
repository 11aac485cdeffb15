"""Programs with a terminal as their standard error."""

import asyncio
import os
import pty
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping

from pinecone_embed_async.emulator import Emulator
from tests.pages import ROOT
from tests.processes import environment_of


async def drawn_by(emulator: Emulator, code: str, *, environment: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Run code in an interpreter of its own; gives what it drew on its terminal, and what it printed."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", code),
        env={**environment_of(emulator), "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    drawn = bytearray()

    def read() -> None:
        # The system ends reading with an error once nobody writes any more.
        try:
            while piece := os.read(ours, 2**16):
                drawn.extend(piece)
        except OSError:
            pass

    reading = threading.Thread(target=read)
    reading.start()
    out, _ = await process.communicate()
    reading.join()
    os.close(ours)
    assert process.returncode == 0, drawn.decode()
    return drawn.decode(), out.decode()
