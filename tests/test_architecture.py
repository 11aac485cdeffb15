"""Imports go down the table of docs/design.md only; `__all__` is what is public."""

import ast
import re
import sys
from pathlib import Path

import pytest

import pinecone_embed_async

PACKAGE = Path(pinecone_embed_async.__file__).parent
DESIGN = (PACKAGE.parent / "docs" / "design.md").read_text()
TABLE = re.findall(r"^\| `(\w+)` \|", DESIGN, re.MULTILINE)
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
THIRD_PARTIES = {
    "aiohttp": {"_engine", "_client", "emulator"},
    "yarl": {"_engine", "_endpoint"},
    "msgspec": {"_wire", "_client", "_jobs", "cli", "emulator"},
    "numpy": {
        "_wire",
        "_results",
        "_cache",
        "_plan",
        "_collector",
        "_coalesce",
        "_stream",
        "_estimate",
        "_client",
        "_jobs",
        "cli",
        "emulator",
    },
    "tenacity": {"_engine"},
    "simdjson": {"_wire"},
    "scipy": {"_results"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pyarrow": {"_jobs"},
    "langchain_core": {"integrations"},
    "opentelemetry": {"integrations"},
}


def row_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """The names that a module imports when it runs; imports for the type checker alone make no circle."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_every_module_is_in_the_table() -> None:
    assert {row_of(path) for path in MODULES} == set(TABLE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_table(path: Path) -> None:
    own = row_of(path)
    for name in imports_of(path):
        head, *rest = name.split(".")
        if head == "pinecone_embed_async":
            imported = rest[0] if rest and rest[0] in TABLE else "__init__"
            if imported == own or (own in ("cli", "integrations") and imported == "__init__"):
                continue
            assert own != "emulator", f"the emulator imports {name}"
            assert TABLE.index(imported) > TABLE.index(own), f"{own} imports {name}"
        elif head not in sys.stdlib_module_names:
            assert own in THIRD_PARTIES[head], f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_all_is_sorted_and_complete() -> None:
    public = {name for name in vars(pinecone_embed_async) if not name.startswith("_")}
    modules = {"cli", "emulator", "integrations"}
    assert set(pinecone_embed_async.__all__) == (public - modules) | {"__version__"}
    assert pinecone_embed_async.__all__ == sorted(pinecone_embed_async.__all__)
