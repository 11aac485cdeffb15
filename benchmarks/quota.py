"""A job larger than the quota, in real time: the client, the official SDK, and the official SDK under tenacity.

    python -m benchmarks.quota
    python -m benchmarks.quota --window 60 --inputs 8000 --json figures.json
    python -m benchmarks.quota --kind sliding --only given,unknown,tenacity

The service is the emulator in its own process, a new one for each measurement. If the window is shorter than a minute, the
latency and everybody's retry delays are shortened in proportion. The exit status is 1 if the client loses an input or has
more requests rejected than allowed, 2 for misuse. `docs/benchmarks.md` explains the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import string
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.competitors import API_KEY
from benchmarks.emulated import running_emulator
from benchmarks.harness import BenchmarkError, describe_machine, run_module
from benchmarks.seeded import MAX_BATCH
from benchmarks.simulated.client import Corpus
from benchmarks.simulated.service import MODEL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

TOKENS = 250_000
"""Tokens per window: the documented minute of the smallest plan, for `passage` inputs of a dense model."""

INPUT_TOKENS = 95
CONCURRENCY = 8
LATENCY = (0.05, 0.25)
"""Seconds an answer takes if the window is a minute."""

DIMENSION = 384
"""The model's smallest: the cost of encoding and decoding answers does not matter here."""

MINUTE = 60.0
ATTEMPTS = 10
"""Attempts per request under tenacity."""


@dataclass(frozen=True)
class Way:
    """A way of doing the job.

    Attributes:
        title: title in the table.
        text: whether the service's rejections name the limit.
        is_ours: whether it must not lose an input.
        most_rejected: most requests that may be rejected; `None` if nothing is promised for a job of a few windows.
    """

    title: str
    text: bool = True
    is_ours: bool = False
    most_rejected: int | None = None


WAYS = {
    "given": Way("EmbedClient, quota given", is_ours=True, most_rejected=0),
    "unknown": Way("EmbedClient, quota unknown", is_ours=True, most_rejected=CONCURRENCY),
    "no-text": Way("EmbedClient, quota unknown, 429 without text", text=False, is_ours=True),
    "official": Way("official SDK, its own retries"),
    "tenacity": Way("official SDK under tenacity"),
}


def job_texts(count: int) -> list[str]:
    """Different texts of `INPUT_TOKENS` tokens each, by the emulator's count."""
    corpus = Corpus(INPUT_TOKENS - 1, seed=0).texts
    letters = string.ascii_lowercase
    # A word of up to six letters is one token.
    names = ("".join(letters[number // 26**place % 26] for place in range(5)) for number in range(count))
    return [f"{name} {corpus[number % len(corpus)]}" for number, name in enumerate(names)]


# Runs in a competitor's process.


async def run_client(url: str, texts: list[str], window: float, *, is_given: bool) -> int:
    """Embed with the client; return how many inputs have a vector."""
    from pinecone_embed_async import EmbedClient, Quota, RetryPolicy  # noqa: PLC0415 - not in everybody's process

    usual, scale = RetryPolicy(), window / MINUTE
    quota = Quota(TOKENS if is_given else None, window=window)
    retry = RetryPolicy(
        max_elapsed=usual.max_elapsed * scale,
        initial_backoff=usual.initial_backoff * scale,
        max_backoff=usual.max_backoff * scale,
    )
    async with EmbedClient(
        MODEL, api_key=API_KEY, base_url=url, quota=quota, retry=retry, max_concurrency=CONCURRENCY, decoder="msgspec"
    ) as client:
        result: Any = await client.embed(texts, input_type="passage", parameters={"dimension": DIMENSION}, on_error="return")
    return len(result.vectors) - sum(len(failure.indices) for failure in result.failures)


async def run_official(url: str, texts: list[str], window: float, *, under_tenacity: bool) -> int:
    """Embed with the official SDK; return how many inputs have a vector."""
    import tenacity  # noqa: PLC0415 - not in everybody's process
    from pinecone import ApiError, AsyncPinecone, RetryConfig  # noqa: PLC0415 - not in everybody's process

    usual, scale = RetryConfig(), window / MINUTE
    retries = RetryConfig(backoff_factor=usual.backoff_factor * scale, max_wait=usual.max_wait * scale)
    semaphore = asyncio.Semaphore(CONCURRENCY)
    async with AsyncPinecone(api_key=API_KEY, host=url, retry_config=retries) as client:

        async def embed(batch: list[str]) -> int:
            parameters = {"input_type": "passage", "dimension": DIMENSION}
            answer = await client.inference.embed(model=MODEL, inputs=batch, parameters=parameters)
            return len(answer.data)

        send: Callable[[list[str]], Awaitable[int]] = embed
        if under_tenacity:
            send = tenacity.retry(
                wait=tenacity.wait_random_exponential(multiplier=scale, max=60 * scale),
                stop=tenacity.stop_after_attempt(ATTEMPTS),
            )(embed)

        async def bounded(start: int) -> int:
            async with semaphore:
                return await send(texts[start : start + MAX_BATCH])

        outcomes = await asyncio.gather(*map(bounded, range(0, len(texts), MAX_BATCH)), return_exceptions=True)
    for outcome in outcomes:
        cause = outcome.last_attempt.exception() if isinstance(outcome, tenacity.RetryError) else outcome
        if isinstance(cause, BaseException) and not (isinstance(cause, ApiError) and cause.status_code == 429):
            # An error other than the quota would make the comparison unfair.
            raise cause
    return sum(outcome for outcome in outcomes if isinstance(outcome, int))


def run_way(name: str, url: str, inputs: int, window: float) -> dict[str, float]:
    """Do the job one way, in this process."""
    texts = job_texts(inputs)
    runs = {
        "given": lambda: run_client(url, texts, window, is_given=True),
        "unknown": lambda: run_client(url, texts, window, is_given=False),
        "no-text": lambda: run_client(url, texts, window, is_given=False),
        "official": lambda: run_official(url, texts, window, under_tenacity=False),
        "tenacity": lambda: run_official(url, texts, window, under_tenacity=True),
    }
    started = time.perf_counter()
    embedded = asyncio.run(runs[name]())
    return {"seconds": time.perf_counter() - started, "embedded": embedded}


# Runs in the process that compares them.


def measure(name: str, inputs: int, window: float, kind: str, limit: float) -> dict[str, Any]:
    """Do the job one way in a new process against a new service, and return the result.

    Raises:
        BenchmarkError: it failed, took too long, or its count differs from the service's.
    """
    scale = window / MINUTE
    quota = {"tokens_per_window": TOKENS, "window": window, "kind": kind, "text": WAYS[name].text}
    with running_emulator(quota, (LATENCY[0] * scale, LATENCY[1] * scale)) as service:
        arguments = ["--run", name, "--url", service.url, "--inputs", str(inputs), "--window", str(window)]
        figures: dict[str, Any] = json.loads(run_module("quota", arguments, limit=limit, who=name).splitlines()[-1])
        served = service.statistics()
    if figures["embedded"] != served["texts"]:
        raise BenchmarkError(f"{name}: has {figures['embedded']:,} vectors, but {served['texts']:,} inputs were answered")
    windows = math.floor(figures["seconds"] / window) + 1
    return {
        **figures,
        "lost": inputs - figures["embedded"],
        "requests": served["requests"],
        "rejected": served["rejected"],
        "windows": figures["seconds"] / window,
        "used": figures["embedded"] * INPUT_TOKENS / min(inputs * INPUT_TOKENS, TOKENS * windows),
    }


def run(ways: Sequence[str], sizes: Sequence[int], window: float, kind: str) -> list[dict[str, Any]]:
    """Measure all ways one after the other, for each number of inputs."""
    rows = []
    for inputs in sizes:
        least = math.ceil(inputs * INPUT_TOKENS / TOKENS)
        for name in ways:
            figures = measure(name, inputs, window, kind, limit=60 + 12 * least * window)
            rows.append({"way": name, "title": WAYS[name].title, "inputs": inputs, **figures})
            print(f"{inputs:,} inputs: {name} {figures['seconds']:.1f} s, {figures['lost']:,} lost", file=sys.stderr)
    return rows


def problems(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The violated promises, in words."""
    found = []
    for row in rows:
        way = WAYS[row["way"]]
        if way.is_ours and row["lost"]:
            found.append(f"{row['title']}: {row['lost']:,} inputs lost")
        if way.most_rejected is not None and row["rejected"] > way.most_rejected:
            found.append(f"{row['title']}: {row['rejected']} of {row['requests']} requests rejected")
    return found


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the results, one line per way."""
    width = max(len(row["title"]) for row in rows)
    print(
        f"{'':{width}}  {'inputs':>7} {'embedded':>8} {'lost':>6}  {'rejected':>8} {'of':>5}"
        f"  {'seconds':>7} {'windows':>7}  {'used':>5}"
    )
    for row in rows:
        print(
            f"{row['title']:{width}}  {row['inputs']:>7,} {row['embedded']:>8,} {row['lost']:>6,}"
            f"  {row['rejected']:>8} {row['requests']:>5}"
            f"  {row['seconds']:>7.1f} {row['windows']:>7.2f}  {row['used']:>5.0%}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--window", type=float, default=6.0, help="seconds of the service's window (default 6)")
    parser.add_argument(
        "--inputs", default="8000,12000", help="inputs of each job, separated by commas (default 8000,12000)"
    )
    parser.add_argument("--kind", choices=("fixed", "sliding"), default="fixed", help="kind of window (default fixed)")
    parser.add_argument("--only", default=",".join(WAYS), help=f"ways, separated by commas: {', '.join(WAYS)}")
    parser.add_argument("--json", metavar="FILE", help="also write all figures to this file")
    parser.add_argument("--run", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    ways = [name.strip() for name in options.only.split(",")]
    if unknown := [name for name in ways if name not in WAYS]:
        parser.error(f"--only: unknown {', '.join(map(repr, unknown))}; known: {', '.join(WAYS)}")
    try:
        sizes = [int(size) for size in options.inputs.split(",")]
    except ValueError:
        parser.error("--inputs must be whole numbers separated by commas")
    if min(sizes) < 1 or max(sizes) > 1_000_000 or not 1 <= options.window <= MINUTE:
        parser.error("--inputs must be 1 to 1,000,000, --window 1 to 60")
    if options.json is not None and not Path(options.json).absolute().parent.is_dir():
        parser.error(f"--json: there is no folder for {options.json}")
    if options.run is not None:
        print(json.dumps(run_way(options.run, options.url, sizes[0], options.window)))
        return 0
    machine = describe_machine()
    try:
        rows = run(ways, sizes, options.window, options.kind)
    except BenchmarkError as error:
        print(f"quota: {error}", file=sys.stderr)
        return 1
    print_table(rows)
    failed = problems(rows)
    for problem in failed:
        print(f"FAILS: {problem}")
    if options.json is not None:
        report = {
            "benchmark": "quota",
            "machine": machine | {"load_average_after": os.getloadavg()[0]},
            "settings": {"window": options.window, "kind": options.kind, "tokens": TOKENS, "latency": LATENCY},
            "ways": {name: asdict(WAYS[name]) for name in ways},
            "rows": rows,
        }
        Path(options.json).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
