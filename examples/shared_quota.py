"""Embed several files, each in a process of its own, under one quota.

    python examples/shared_quota.py corpus/*.txt --quota standard --quota-file quota.db

The key is in PINECONE_API_KEY. Each file has a text on each line; its vectors go to a `.npy` file beside it. A service in
another process may open the same quota file: its interactive calls go before all of these.
"""

import argparse
import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pinecone_embed_async import DenseEmbeddings, EmbedClient, SqliteQuota

Plan = Literal["starter", "builder", "standard", "enterprise"]


async def embed(lines: list[str], quota_file: Path, quota: Plan) -> DenseEmbeddings:
    """Embed lines under the quota in the file, after whatever is interactive in any process."""
    async with (
        SqliteQuota(quota_file, quota) as shared,
        EmbedClient("multilingual-e5-large", quota=shared) as client,
    ):
        return await client.embed(lines, input_type="passage", priority="bulk")


def embed_file(path: Path, quota_file: Path, quota: Plan) -> int:
    """Embed one file, in a process of the pool; return how many tokens it cost."""
    lines = path.read_text(encoding="utf-8").splitlines()
    result = asyncio.run(embed(lines, quota_file, quota))
    np.save(path.with_suffix(".npy"), result.vectors)
    return int(result.usage.total_tokens)


def main() -> None:
    """Start a process for each file, and print what each cost."""
    parser = argparse.ArgumentParser(description="Embed files in several processes that share a quota.")
    parser.add_argument("files", type=Path, nargs="+", help="UTF-8 files with a text on each line")
    parser.add_argument("--quota", choices=get_args(Plan), default="standard", help="your plan")
    parser.add_argument("--quota-file", type=Path, default=Path("quota.db"), help="on a local disk")
    parser.add_argument("--processes", type=int, default=4)
    arguments = parser.parse_args()
    # A fresh interpreter for each: a fork would copy whatever threads and connections there are.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(arguments.processes, len(arguments.files)), mp_context=context) as pool:
        running = {pool.submit(embed_file, path, arguments.quota_file, arguments.quota): path for path in arguments.files}
        for future, path in running.items():
            print(f"{path}: {future.result()} tokens")


if __name__ == "__main__":
    main()
