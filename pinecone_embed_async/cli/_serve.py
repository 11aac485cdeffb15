"""`pinecone-embed emulator`: serves a local emulator until Ctrl-C."""

import asyncio

from pinecone_embed_async.cli._output import print_line
from pinecone_embed_async.cli._signals import Stopped, run_until_stopped
from pinecone_embed_async.emulator import Emulator


def serve(emulator: Emulator) -> int:
    """Serve until Ctrl-C, which is the normal end, and return the exit status.

    Raises:
        OSError: The address cannot be bound.
    """
    try:
        run_until_stopped(_serve(emulator))
    except (Stopped, KeyboardInterrupt):
        print_line("stopped")
    return 0


async def _serve(emulator: Emulator) -> None:
    async with emulator:
        # On standard output, so that a script can use it: eval "$(...)", or a first line to wait for.
        print(f"export PINECONE_CONTROLLER_HOST={emulator.url}", flush=True)  # noqa: T201
        print(f"export PINECONE_API_KEY={emulator.api_key}", flush=True)  # noqa: T201
        print_line("serving; press Ctrl-C to stop")
        await asyncio.Event().wait()
