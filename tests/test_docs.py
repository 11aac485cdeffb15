"""Every Python block of the README, the docs and the public docstrings runs, against the emulator."""

import asyncio
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import pinecone_embed_async
import pinecone_embed_async.emulator
from pinecone_embed_async import EmbedError
from pinecone_embed_async.emulator import Emulator
from tests.forks import Forks, forks_in
from tests.index import Index
from tests.pages import BLOCK, DOCS, FASTAPI, JOBS_TO_INDEX, PAGES, RAY, ROOT, TABLES, TUTORIAL, blocks_of
from tests.processes import environment_of, run_program

BLOCKS = [
    pytest.param(block, id=f"{path.name}-{number}")
    for path in PAGES
    if path not in {TUTORIAL, JOBS_TO_INDEX, TABLES, FASTAPI}
    for number, block in enumerate(blocks_of(path.read_text()))
    if RAY not in block
]


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with forks_in(tmp_path_factory.mktemp("forks")) as running:
        yield running


@pytest.mark.parametrize("block", BLOCKS)
async def test_a_block_runs_as_printed(block: str, forks: Forks, emulator: Emulator, tmp_path: Path) -> None:
    async with Index() as index:
        await forks.run(emulator, block, tmp_path, {"PINECONE_INDEX_HOST": index.url})
    if "batch_upsert" in block:
        assert len(index.documents) == 1000
        assert all(document.keys() == {"_id", "embedding", "body"} for document in index.documents.values())
    elif "upsert" in block:
        assert len(index.vectors) == 1000
        # Four tasks, and the SDK makes three requests of 96 records.
        assert index.max_in_flight <= 4 * 3


async def test_a_step_that_a_busy_machine_made_slow_is_no_complaint(emulator: Emulator) -> None:
    assert await run_program(emulator, "import asyncio, time\nasync def main(): time.sleep(0.15)\nasyncio.run(main())") == ""


def docstrings() -> Iterator[tuple[str, str]]:
    for module in (pinecone_embed_async, pinecone_embed_async.emulator):
        yield module.__name__, module.__doc__ or ""
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.isclass(value) and not inspect.isfunction(value):
                continue
            yield name, value.__doc__ or ""
            members = vars(value) if inspect.isclass(value) else {}
            yield from ((f"{name}.{own}", member.__doc__ or "") for own, member in members.items() if own[0] != "_")


# What the reference says that its examples begin with.
OPENING = """
import asyncio
from pinecone_embed_async import *
from pinecone_embed_async.emulator import *

async def main():
    texts = ["first text", "second text"]
    async with EmbedClient("multilingual-e5-large") as client:
        async def example():
"""
CLOSING = """
        await example()
asyncio.run(main())
"""
EXAMPLES = [
    pytest.param(example, id=f"{name}-{number}")
    for name, docstring in docstrings()
    for number, example in enumerate(blocks_of(inspect.cleandoc(docstring)))
]


@pytest.mark.parametrize("example", EXAMPLES)
async def test_an_example_of_a_docstring_runs(example: str, forks: Forks, emulator: Emulator, tmp_path: Path) -> None:
    await forks.run(emulator, OPENING + textwrap.indent(example, " " * 12) + CLOSING, tmp_path)


def test_the_examples_are_found() -> None:
    names = [param.id for param in EXAMPLES]
    assert {"EmbedClient-0", "EmbedClient.stream-0", "EmbedError-0", "SharedQuota-0", "Emulator.inject-0"} <= set(names)


def test_the_reference_says_what_its_examples_begin_with() -> None:
    said = (DOCS / "reference.md").read_text()
    assert all(f"`{line.strip()}`" in said for line in OPENING.splitlines() if "import *" in line or "Client" in line)


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="from 3.13 on `python -m asyncio` reads lines from a terminal only")
async def test_the_tutorial_prints_what_it_says_when_it_is_copied_line_by_line(tmp_path: Path) -> None:
    blocks = BLOCK.findall(TUTORIAL.read_text())
    lines = "".join(code for language, code in blocks if language == "python")
    printed = "".join(code for language, code in blocks if language == "text")
    python = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "asyncio"),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await python.communicate(lines.encode())
    # It talks on standard error, and prompts on standard output.
    assert "Error" not in err.decode()
    answers = re.sub(r"^(?:>>> |\.\.\. )*", "", out.decode(), flags=re.MULTILINE)
    assert [line for line in answers.splitlines() if line] == printed.splitlines()


def test_every_error_is_on_the_page_of_errors_with_cause_and_cure() -> None:
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|(.+)\|$", (DOCS / "errors.md").read_text(), re.MULTILINE)
    public = [getattr(pinecone_embed_async, name) for name in pinecone_embed_async.__all__]
    errors = {value.__name__ for value in public if inspect.isclass(value) and issubclass(value, EmbedError)}
    assert {name for name, _, _ in rows} == errors
    assert all(len(cause.split()) > 3 and len(cure.split()) > 3 for _, cause, cure in rows)


async def test_the_page_of_the_command_lines_help_is_what_it_says(emulator: Emulator) -> None:
    script = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "scripts" / "command_line_help.py")),
        env=environment_of(emulator) | {"COLUMNS": "171", "FORCE_COLOR": "1"},
        stdout=subprocess.PIPE,
    )
    out, _ = await script.communicate()
    assert (DOCS / "command-line-help.md").read_text() == out.decode(), "`make help-page` writes it"


LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors_of(page: Path) -> set[str]:
    """The anchors that a page's headings get: in lower case, hyphens for blanks, nothing else that is no word."""
    headings = re.findall(r"^#+ +(.+)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(BLOCK.sub("", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), f"{page.name} links {link}"
        assert target.is_relative_to(ROOT), f"{page.name} links {link}"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name} links {link}"


def test_the_figures_of_the_readme_are_those_of_the_benchmarks() -> None:
    line = (ROOT / "README.md").read_text().partition("<!-- benchmarks: short -->")[2].partition("<!-- ")[0]
    page = (DOCS / "benchmarks.md").read_text()
    measured = page.partition("<!-- benchmarks: dense-1024-half -->")[2].partition("<!-- ")[0].splitlines()

    def figures_of(way: str) -> tuple[str, str, float]:
        [row] = [line for line in measured if line.startswith(f"| {way} |")]
        _, _, speed, ratio, cpu, *_ = (cell.strip() for cell in row.split("|"))
        return speed.split()[0], ratio, float(cpu)

    speed, ratio, cpu = figures_of("EmbedClient (native)")
    assert line.strip().startswith(f"{speed} inputs/s on two cores: {ratio} times the rate of the official SDK")
    others = [figures_of(way)[2] for way in ("official SDK, to float32", "baseten, embed (own wire)")]
    assert re.findall(r"(\d+)% of its CPU", line) == [f"{100 * cpu / other:.0f}" for other in others]
