"""The programs of the page on reading a job's table, in interpreters of their own."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import Emulator
from tests.cli.program import table_of
from tests.pages import TABLES, blocks_of
from tests.processes import run_program

BLOCKS = [block for block in blocks_of(TABLES.read_text()) if "import ray" not in block]
READERS = {"numpy", "pandas", "polars", "duckdb", "pyarrow"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tables that the page speaks of, of several parts."""
    made = tmp_path_factory.mktemp("tables")
    rows = [{"text": f"text number {n}", "id": f"k{n}", "year": 1990 + n % 30} for n in range(3000)]
    (made / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("embed", str(made / "docs.jsonl"), "--id-field", "id", "--keep", "year", "--emulator", "-q")
    assert cli(*options, "--out", str(made / "vectors")) == 0
    assert cli(*options, "--out", str(made / "sparse"), "--model", "pinecone-sparse-english-v0") == 0
    assert len(list((made / "vectors").glob("*.parquet"))) > 1
    return made


def imported_by(block: str) -> set[str]:
    return set(re.findall(r"^(?:import|from) (\w+)", block, re.MULTILINE))


def test_the_page_shows_every_reader() -> None:
    assert set.union(*map(imported_by, BLOCKS)) == READERS
    assert sum("import ray" in block for block in blocks_of(TABLES.read_text())) == 1


def nearest(scores: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[tuple[str, int]]:
    return [(f"k{row}", 1990 + int(row) % 30) for row in np.argsort(-scores, kind="stable")[:3]]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: "-".join(sorted(imported_by(block))))
async def test_a_reader_finds_what_the_page_says(block: str, folder: Path, emulator: Emulator) -> None:
    if '"sparse"' in block:
        rows = table_of(folder / "sparse").to_pylist()
        query = dict(zip(rows[7]["indices"], rows[7]["values"], strict=True))
        products = [sum(query.get(i, 0) * v for i, v in zip(row["indices"], row["values"], strict=True)) for row in rows]
        scores = np.array(products, np.float32)
    else:
        matrix = np.array(table_of(folder / "vectors")["vector"].to_pylist(), np.float32)
        scores = matrix @ matrix[7]
    assert await run_program(emulator, block, folder) == f"{nearest(scores)}\n"
