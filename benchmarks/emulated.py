"""The package's emulator in a process of its own, for benchmarks of quotas and latencies.

Run as a process it takes its settings as JSON in the only argument, prints its URL on one line once it listens, answers each
line of its standard input with what it has served so far, as JSON, and ends when that closes.
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
    """An emulator that is running.

    Args:
        process: that it runs in.
        url: that it listens at.
    """

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self._process = process
        self.url = url

    def __repr__(self) -> str:
        """Show where it listens."""
        return f"<EmulatedService {self.url}>"

    def statistics(self) -> dict[str, Any]:
        """What it has served so far: `requests`, `rejected` (429), `inputs`, `tokens`, `in_flight`, and `texts`, the number
        of different texts that it answered.

        Raises:
            BenchmarkError: it has ended.
        """  # noqa: D205
        if self._process.stdin is None or self._process.stdout is None:
            raise BenchmarkError("the emulator has no pipes")
        try:
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            found: dict[str, Any] = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:
            raise BenchmarkError("the emulator has ended; what it said is above") from error
        return found


@contextlib.contextmanager
def running_emulator(quota: dict[str, Any] | None, latency: float | tuple[float, float]) -> Iterator[EmulatedService]:
    """Start an emulator, and end it whatever happens.

    Args:
        quota: keywords of its `ServiceQuota`; `None` for no quota.
        latency: seconds that answers are held back, or a pair to draw between.

    Raises:
        BenchmarkError: it did not start.
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
