"""Embed a file of any length, a text on each line, into a matrix on disk, in bounded memory.

    python examples/bulk_stream.py texts.txt vectors.npy --quota standard

The key is in PINECONE_API_KEY. Row i of the matrix is the vector of line i; rows of lines that cannot be embedded are NaN,
and the exit status is 1 if there are any. `numpy.load("vectors.npy", mmap_mode="r")` reads the matrix. For a job that must
survive a kill use `pinecone-embed embed texts.txt --out folder`.
"""

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pinecone_embed_async import EmbedClient

Plan = Literal["starter", "builder", "standard", "enterprise"]


async def embed_file(source: Path, target: Path, model: str, quota: Plan | None) -> int:
    """Embed each line; return how many could not be."""
    with source.open(encoding="utf-8") as lines:
        count = sum(1 for _ in lines)
    failed = 0
    matrix: np.memmap[tuple[int, int], np.dtype[np.float32]] | None = None
    with source.open(encoding="utf-8") as lines:
        async with (
            EmbedClient(model, vector_type="dense", quota=quota) as client,
            client.stream(
                lines, text=lambda line: line.rstrip("\n"), input_type="passage", on_error="return", in_thread=True
            ) as batches,
        ):
            async for batch in batches:
                if matrix is None:
                    shape = (count, batch.vectors.shape[1])
                    matrix = np.lib.format.open_memmap(target, mode="w+", dtype=np.float32, shape=shape)
                matrix[batch.start : batch.start + len(batch.items)] = batch.vectors
                for failure in batch.failures:
                    failed += len(failure.indices)
                    print(f"lines {[batch.start + row + 1 for row in failure.indices]}: {failure.error}", file=sys.stderr)
            print(f"{count - failed} of {count} lines, {batches.usage.total_tokens} tokens")
    if matrix is not None:
        matrix.flush()
    return failed


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description="Embed each line of a file into a matrix on disk.")
    parser.add_argument("source", type=Path, help="a UTF-8 file with a text on each line")
    parser.add_argument("target", type=Path, help="the .npy file to write")
    parser.add_argument("--model", default="multilingual-e5-large")
    parser.add_argument("--quota", choices=get_args(Plan), help="your plan; learned if left out")
    arguments = parser.parse_args()
    sys.exit(bool(asyncio.run(embed_file(arguments.source, arguments.target, arguments.model, arguments.quota))))


if __name__ == "__main__":
    main()
