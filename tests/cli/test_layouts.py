"""From a job to an index: by the command line, and by the programs of the page about it."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from pyarrow import dataset, parquet

from pinecone_embed_async.emulator import Emulator
from tests.cli.program import ROOT, in_thread
from tests.index import Index
from tests.pages import JOBS_TO_INDEX, blocks_of
from tests.processes import environment_of

DOCUMENTS, VECTORS = blocks_of(JOBS_TO_INDEX.read_text())
DENSE = ("--model", "llama-text-embed-v2", "--dimension", 384)
SPARSE = ("--model", "pinecone-sparse-english-v0")


def source_of(path: Path, first: int, count: int) -> Path:
    rows = [{"text": f"text number {n}", "id": f"k{n}", "year": n or None} for n in range(first, first + count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def program(code: str, folder: Path, emulator: Emulator, index: Index) -> int | None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code),
        cwd=folder,
        env={**environment_of(emulator), "PINECONE_INDEX_HOST": index.url, "PYTHONPATH": str(ROOT)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    print(err.decode())  # noqa: T201 - shown if the test fails
    return process.returncode


@pytest.mark.parametrize("model", [DENSE, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize(("layout", "code"), [("documents", DOCUMENTS), ("vectors", VECTORS)])
async def test_every_row_gets_into_the_index_once_also_when_it_is_resumed_and_when_rows_are_added(
    tmp_path: Path, emulator: Emulator, model: tuple[object, ...], layout: str, code: str
) -> None:
    source, out = source_of(tmp_path / "in.jsonl", 0, 700), tmp_path / "books"
    options = ("--out", out, "--id-field", "id", "--keep", "year", "-q", "--layout", layout, "--namespace", "books", *model)
    assert await in_thread(emulator, source, *options) == 0
    async with Index() as index:
        # Small batches, so that the error comes after some of them.
        index.fails_at = 4 if layout == "documents" else 10
        assert await program(code, tmp_path, emulator, index) in {0, 1}
        index.fails_at = 0
        assert await program(code, tmp_path, emulator, index) == 0
        stored = {**index.vectors, **index.documents}
        assert set(stored) == {("books", f"k{n}") for n in range(700)}
        before = index.delivered.total()
        assert await in_thread(emulator, source_of(tmp_path / "more.jsonl", 700, 50), *options, "--append") == 0
        assert await program(code, tmp_path, emulator, index) == 0
        # What was there already is not sent again.
        assert index.delivered.total() - before == 50
        stored = {**index.vectors, **index.documents}
    table = dataset.dataset(out / "_table", format="parquet").to_table().sort_by("row").to_pylist()
    assert len(table) == len(stored) == 750
    for row in table:
        found = stored["books", row["id"]]
        year = found.get("year") if layout == "documents" else found.get("metadata", {}).get("year")
        assert year == row["year"]
        if model is DENSE:
            assert found["vector" if layout == "documents" else "values"] == row["vector"]
        else:
            pair = {"indices": row["indices"], "values": row["values"]}
            assert found["vector" if layout == "documents" else "sparseValues"] == pair


@pytest.mark.parametrize(("layout", "code"), [("documents", DOCUMENTS), ("vectors", VECTORS)])
async def test_a_file_that_was_written_anew_gets_into_the_index_as_a_whole(
    tmp_path: Path, emulator: Emulator, layout: str, code: str
) -> None:
    options = ("--out", tmp_path / "books", "--id-field", "id", "-q", "--layout", layout, "--namespace", "books", *DENSE)
    async with Index() as index:
        for first in (0, 20):
            source = source_of(tmp_path / "in.jsonl", first, 20)
            assert await in_thread(emulator, source, *options, "--overwrite") == 0
            assert await program(code, tmp_path, emulator, index) == 0
        assert set({**index.vectors, **index.documents}) == {("books", f"k{n}") for n in range(40)}


async def test_both_layouts_read_back_as_the_page_says(tmp_path: Path, emulator: Emulator) -> None:
    source = source_of(tmp_path / "in.jsonl", 0, 20)
    for layout in ("documents", "vectors"):
        options = ("--out", tmp_path / layout, "--id-field", "id", "--keep", "year", "-q", "--layout", layout, *DENSE)
        assert await in_thread(emulator, source, *options) == 0
    [documents] = (tmp_path / "documents" / "__default__").iterdir()
    first = json.loads(documents.read_text().splitlines()[1])
    assert (documents.name, first["_id"], first["year"], len(first["vector"])) == ("part-00000.jsonl", "k1", 1, 384)
    [vectors] = (tmp_path / "vectors" / "__default__").iterdir()
    row = parquet.ParquetFile(vectors).read().to_pylist()[1]
    assert (vectors.name, row["id"], row["metadata"], row["values"]) == (
        "part-00000.parquet",
        "k1",
        '{"year":1}',
        first["vector"],
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--namespace", "a"), "--namespace and --vector-field are for --layout"),
        (("--layout", "vectors", "--namespace", "a/b"), "--namespace must be"),
        (("--layout", "documents", "--vector-field", "_id"), "--vector-field must be"),
    ],
)
async def test_layouts_that_cannot_be_are_misuse(
    tmp_path: Path, emulator: Emulator, options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = source_of(tmp_path / "in.jsonl", 0, 2)
    assert await in_thread(emulator, source, "--out", tmp_path / "out", *options) == 2
    assert said in capsys.readouterr().err
