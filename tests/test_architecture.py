"""Imports go down the table of docs/design.md only; third parties keep to their places; `__all__` is what is public."""

import ast
import graphlib
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

import pinecone_embed_async

PACKAGE = Path(pinecone_embed_async.__file__).parent
DESIGN = (PACKAGE.parent / "docs" / "design.md").read_text()
TABLE = re.findall(r"^\| `(\w+)` \|", DESIGN, re.MULTILINE)
MODULES = sorted(path for path in PACKAGE.rglob("*.py"))
TESTS = sorted((PACKAGE.parent / "tests").rglob("*.py"))
THIRD_PARTIES = {
    "aiohttp": {"_sending", "_engine", "_client", "emulator"},
    "yarl": {"_sending", "_engine", "_endpoint", "_client"},
    "msgspec": {
        "_wire",
        "_limits",
        "_stream",
        "_coalesce",
        "_engine",
        "_retry",
        "_client",
        "_jobs",
        "_telemetry",
        "cli",
        "emulator",
    },
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
        "integrations",
        "emulator",
    },
    "tenacity": {"_engine"},
    "simdjson": {"_wire"},
    "scipy": {"_results"},
    "typer": {"cli"},
    "rich": {"cli"},
    "pyarrow": {"_jobs", "integrations"},
    "langchain_core": {"integrations"},
    "opentelemetry": {"integrations"},
    "ray": {"integrations"},
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


def test_no_module_of_tests_imports_from_another() -> None:
    for path in TESTS:
        taken = [name for name in imports_of(path) if re.match(r"tests\.(\w+\.)*test_", name)]
        assert not taken, f"{path.name} imports {taken}: what tests share has a module of its own"


def test_all_is_sorted_and_complete() -> None:
    public = {name for name in vars(pinecone_embed_async) if not name.startswith("_")}
    modules = {"cli", "emulator", "integrations"}
    assert set(pinecone_embed_async.__all__) == (public - modules) | {"__version__"}
    assert pinecone_embed_async.__all__ == sorted(pinecone_embed_async.__all__)


FOLDERS = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent.name != "cli")
NAMED_ANYWHERE = {"aiohttp", "numpy", "yarl"}
"""What any module may name for the type checker alone, since it is installed in any case."""


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.parent.name)
def test_the_init_of_a_folder_re_exports_what_is_public_in_it_and_does_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    others = [ast.unparse(node) for node in tree.body if not isinstance(node, ast.ImportFrom)]
    if path.parent.name == "integrations":
        # Each adapter is imported by itself, for the others' packages may be missing.
        assert (imported, others[1:]) == (set(), [])
        return
    (listed,) = others[1:]
    assert listed.startswith("__all__ = ")
    names = ast.literal_eval(listed.removeprefix("__all__ = "))
    assert set(names) == imported
    assert len(names) == len(imported)


def test_nothing_is_imported_in_a_circle() -> None:
    names = {
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in MODULES
    }
    imports = {
        module: {name if name in names else name.rpartition(".")[0] for name in imports_of(path)} & names.keys()
        for module, path in names.items()
    }
    # Raises a CycleError that names the circle.
    tuple(graphlib.TopologicalSorter(imports).static_order())


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_can_be_read_off_the_source(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            assert all(alias.name != "*" for alias in node.names)
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func).rpartition(".")[2] not in {"import_module", "__import__"}


def test_a_third_party_has_the_places_that_it_needs_and_no_others() -> None:
    named: dict[str, set[str]] = {}
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                heads = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                heads = {(node.module or "").partition(".")[0]}
            else:
                continue
            for head in heads - sys.stdlib_module_names - {PACKAGE.name}:
                named.setdefault(head, set()).add(row_of(path))
    assert named.keys() == THIRD_PARTIES.keys()
    for head, rows in named.items():
        assert THIRD_PARTIES[head] <= rows, f"{head} has a place that it does not need"
        assert head in NAMED_ANYWHERE or rows <= THIRD_PARTIES[head], f"{head} is named outside its place"


BROUGHT_ALONG = {"yarl": "aiohttp"}
"""What another dependency brings along, and is part of its interface."""
NO_DEPENDENCY = {"scipy"}
"""What is taken where it is there, and asked for by no extra."""


def test_a_third_party_is_declared_and_the_design_says_why() -> None:
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for name in extras.keys() - {"dev", "bench", "docs"} for line in extras[name]),
    ]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in wanted}  # type: ignore[index]
    distributions = importlib.metadata.packages_distributions()
    for name in THIRD_PARTIES.keys() - NO_DEPENDENCY:
        sources = {distribution.lower() for distribution in distributions[BROUGHT_ALONG.get(name, name)]}
        assert sources & declared, f"{name} is imported and not declared"
    table = DESIGN.partition("## Dependencies")[2]
    every = {re.match(r"[\w-]+", line)[0] for line in (*wanted, *extras["dev"], *extras["docs"])}  # type: ignore[index]
    for name in every - {"pinecone-embed-async"}:
        assert re.search(rf"\b{name}\b", table), f"{name} has no line in the design's table of dependencies"
