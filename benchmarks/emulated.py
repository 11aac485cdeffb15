"""The package's emulator in its own process, for benchmarks of quotas and latencies.

The process takes its settings as JSON in its only argument, prints its URL on one line once it listens, answers each line of
standard input with JSON counts of what it has served so far, and ends when standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import API_KEY
from benchmarks.harness import BenchmarkError, running_module
from pinecone_embed_async.emulator import Emulator, ServiceQuota

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


class EmulatedService:
    """A running emulator.

    Args:
        process: the emulator's process.
        url: the emulator's URL.
    """

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def __repr__(self) -> str:
        """Show where it listens."""
        return f"<EmulatedService {self.url}>"

    def statistics(self) -> dict[str, Any]:
        """The counts so far: `requests`, `rejected` (429), `inputs`, `tokens`, `in_flight`, and `texts`, the number of
        different texts answered.

        Raises:
            BenchmarkError: the emulator has ended.
        """  # noqa: D205
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchmarkError("the emulator has no pipes")
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            found: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise BenchmarkError("the emulator has ended; see its output above") from error
        return found


@contextlib.contextmanager
def running_emulator(quota: dict[str, Any] | None, latency: float | tuple[float, float]) -> Iterator[EmulatedService]:
    """Run an emulator while the block runs.

    Args:
        quota: keywords of its `ServiceQuota`; `None` for no quota.
        latency: seconds to delay answers, or a pair to draw between.

    Raises:
        BenchmarkError: the emulator did not start.
    """
    settings = json.dumps({"quota": quota or {}, "latency": latency})
    with running_module("emulated", [settings], who="the emulator") as (process, url):
        yield EmulatedService(process, url)


def _served(emulator: Emulator) -> dict[str, Any]:
    statistics = emulator.statistics()
    return {
        "requests": statistics.requests,
        "rejected": statistics.by_status.get(429, 0),
        "inputs": statistics.inputs_answered,
        "texts": len(statistics.answered),
        "tokens": statistics.tokens_billed,
        "in_flight": statistics.max_in_flight,
    }


async def _serve(settings: dict[str, Any]) -> None:
    latency = settings["latency"]
    quota = ServiceQuota(**settings["quota"])
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    async with Emulator(
        api_key=API_KEY, quota=quota, latency=tuple(latency) if isinstance(latency, list) else latency
    ) as emulator:

        def listen() -> None:
            for _ in sys.stdin:
                loop.call_soon_threadsafe(lambda: print(json.dumps(_served(emulator)), flush=True))
            loop.call_soon_threadsafe(ended.set)

        print(emulator.url, flush=True)
        threading.Thread(target=listen, daemon=True).start()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
