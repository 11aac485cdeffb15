"""The notebook of the docs, and a bar in a notebook, in kernels of their own."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.pages import DOCS, ROOT
from tests.processes import environment_of

nbclient = import_module("nbclient")
nbformat = import_module("nbformat")

NOTEBOOK = DOCS / "notebook.ipynb"

pytestmark = pytest.mark.timeout(180)


async def run(notebook: Any, emulator: Emulator, tmp_path: Path) -> list[Any]:
    """Run a notebook against the emulator; gives its cells of code, with their outputs."""
    environment = {**environment_of(emulator), "PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path)}
    resources = {"metadata": {"path": str(tmp_path)}}
    client = nbclient.NotebookClient(notebook, timeout=120, resources=resources, coalesce_streams=True)
    await client.async_execute(env=environment)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(cell: Any) -> str:
    """The text of a cell's outputs."""
    return "\n".join(output.text if output.output_type == "stream" else output.data["text/plain"] for output in cell.outputs)


@pytest.fixture
async def cells(emulator: Emulator, tmp_path: Path) -> list[Any]:
    return await run(nbformat.read(NOTEBOOK, 4), emulator, tmp_path)


async def test_the_notebook_embeds_a_column_finds_neighbours_and_draws(cells: list[Any]) -> None:
    _, count, embedding, frame, nearest, selection, drawing, _ = cells
    rows = int(shown(count))
    assert f"{rows}/{rows}" in shown(embedding)
    assert f"<DenseEmbeddings ({rows}, 1024) float32" in shown(embedding)
    assert "vector" in shown(frame)
    assert "NaN" not in shown(frame)
    assert "with" in shown(nearest).splitlines()[1].split()
    assert "usage=None" in shown(selection)
    assert "image/png" in drawing.outputs[0].data


def test_the_notebook_has_no_outputs_in_it() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert {(len(cell["outputs"]), cell["execution_count"]) for cell in cells} == {(0, None)}


OPENING = """
import sys, threading
sys.modules[{missing!r}] = None
from pinecone_embed_async import EmbedClient, EmbedError
client = EmbedClient("multilingual-e5-large", input_type="passage", max_batch_size=4, max_concurrency=2)
texts = [f"text number {{number}}" for number in range(40)]
"""
CALLS = [
    ("await client.embed(texts, progress=True)", "40/40"),
    ("async with client.stream(texts, progress=True) as batches:\n    async for batch in batches:\n        pass", "40"),
    ('try:\n    await client.embed([*texts, "bad"], progress=True)\nexcept EmbedError:\n    pass', "1 failed"),
]


@pytest.mark.parametrize("library", ["rich", "tqdm"])
async def test_each_call_has_its_own_bar_below_its_cell(library: str, emulator: Emulator, tmp_path: Path) -> None:
    emulator.latency = 0.1
    emulator.reject = lambda text: text == "bad"
    opening = OPENING.format(missing="tqdm" if library == "rich" else "rich")
    closing = 'print([thread.name for thread in threading.enumerate() if thread.name == "progress bar"])'
    codes = [opening, *(code for code, _ in CALLS), closing, "await client.aclose()"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])
    _, *calls, threads, _ = await run(notebook, emulator, tmp_path)
    for cell, (_, end) in zip(calls, CALLS, strict=True):
        assert end in shown(cell)
        bars = [output for output in cell.outputs if output.output_type in ("display_data", "stream")]
        assert len(bars) == 1, "one output, drawn again and again"
        assert ("text/html" in bars[0].get("data", {})) is (library == "rich")
    assert shown(threads).strip() == "[]"
