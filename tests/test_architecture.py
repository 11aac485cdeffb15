"""The tables of docs/design.md are true of the source: its imports and names; `__all__` is what is public."""

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
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
LAYERS = [name for layer in CONTRACTS[0]["layers"] for name in layer.split(" : ")]
PLACES = {
    contract["forbidden_modules"][0]: {f"{PACKAGE.name}.{name}" for name in LAYERS} - set(contract["source_modules"])
    for contract in CONTRACTS[2:]
}
"""Of each third party but numpy, which results are made of, the modules that may import it."""


def row_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(path: Path) -> set[str]:
    """The names that a module imports, those for the type checker included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_the_table_of_the_design_is_what_imports_are_held_to() -> None:
    assert {row_of(path) for path in MODULES} == set(TABLE)
    assert TABLE[0] == "__init__"
    assert set(TABLE[1:]) == set(LAYERS)
    order = [layer.split(" : ") for layer in CONTRACTS[0]["layers"]]
    rank = {name: number for number, layer in enumerate(order) for name in layer if name != "emulator"}
    ranks = [rank[name] for name in TABLE[1:] if name != "emulator"]
    assert ranks == sorted(ranks)


def test_the_methods_that_the_design_names_exist() -> None:
    methods: dict[str, set[str]] = {}
    for node in (node for path in MODULES for node in ast.walk(ast.parse(path.read_text()))):
        if isinstance(node, ast.ClassDef):
            functions = {of.name for of in node.body if isinstance(of, (ast.FunctionDef, ast.AsyncFunctionDef))}
            # Names of classes need not be unique in the package.
            methods.setdefault(node.name, set()).update(functions)
    named = [(name, method) for name, method in re.findall(r"`(\w+)\.(\w+)`", DESIGN) if name in methods]
    assert len(named) > 50
    assert not [f"{name}.{method}" for name, method in named if method not in methods[name]]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_what_is_beside_the_package_imports_its_public_names(path: Path) -> None:
    taken = {name.split(".")[1] for name in imports_of(path) if name.startswith(f"{PACKAGE.name}.")}
    if row_of(path) not in ("cli", "integrations", "__init__"):
        assert taken <= set(LAYERS), "a name of the package's own __init__"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_module_of_tests_imports_from_another() -> None:
    for path in TESTS:
        if path.parent.name == "sync" and path.name == "modules.py":
            # It names the modules that are run once more.
            continue
        taken = [name for name in imports_of(path) if re.match(r"tests\.(\w+\.)*test_", name)]
        assert not taken, f"{path.name} imports {taken}: what tests share has a module of its own"


def test_all_is_sorted_and_complete() -> None:
    public = {name for name in vars(pinecone_embed_async) if not name.startswith("_")}
    modules = {"cli", "emulator", "integrations"}
    assert set(pinecone_embed_async.__all__) == (public - modules) | {"__version__"}
    assert pinecone_embed_async.__all__ == sorted(pinecone_embed_async.__all__)


PUBLIC = [value for name in pinecone_embed_async.__all__ if isinstance(value := getattr(pinecone_embed_async, name), type)]


def test_public_records_cannot_be_changed() -> None:
    frozen = {kind: kind.__dataclass_params__.frozen for kind in PUBLIC if hasattr(kind, "__dataclass_params__")}
    frozen |= {kind: kind.__struct_config__.frozen for kind in PUBLIC if hasattr(kind, "__struct_config__")}
    assert frozen
    # Results are no records: their arrays can be changed anyway.
    assert {kind.__name__ for kind, is_frozen in frozen.items() if not is_frozen} == {"DenseEmbeddings", "SparseEmbeddings"}


FOLDERS = sorted(path for path in PACKAGE.rglob("__init__.py") if path.parent.name != "cli")


@pytest.mark.parametrize("path", FOLDERS, ids=lambda path: path.parent.name)
def test_the_init_of_a_folder_re_exports_what_is_public_in_it_and_does_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    others = [ast.unparse(node) for node in tree.body if not isinstance(node, ast.ImportFrom)]
    if path.parent.name in {"integrations", "_ray", "_jobs"}:
        # Each module is imported by itself: the packages of other adapters may be missing, and a command or an actor needs
        # few modules.
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
    in_c = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in PACKAGE.rglob("*.pyi")}
    imports = {
        module: {name if name in names else name.rpartition(".")[0] for name in imports_of(path) - in_c} & names.keys()
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
        for name in imports_of(path):
            named.setdefault(name.partition(".")[0], set()).add(f"{PACKAGE.name}.{row_of(path)}")
    others = named.keys() - sys.stdlib_module_names - {PACKAGE.name, "numpy"}
    assert others == PLACES.keys(), "each has a contract in pyproject.toml"
    for name, places in PLACES.items():
        assert places <= named[name], f"{name} has a place that it does not need"


BROUGHT_ALONG = {"multidict": "aiohttp", "yarl": "aiohttp"}
"""What another dependency brings along, and is part of its interface."""
NO_DEPENDENCY = {"IPython", "pandas", "polars", "scipy", "tqdm"}
"""What is taken where it is there, and asked for by no extra."""


def test_a_third_party_is_declared_and_the_design_says_why() -> None:
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *(line for name in extras.keys() - {"dev", "bench", "docs"} for line in extras[name]),
    ]
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in wanted}  # type: ignore[index]
    distributions = importlib.metadata.packages_distributions()
    for name in {"numpy", *PLACES} - NO_DEPENDENCY:
        sources = {distribution.lower() for distribution in distributions[BROUGHT_ALONG.get(name, name)]}
        assert sources & declared, f"{name} is imported and not declared"
    table = DESIGN.partition("## Dependencies")[2]
    every = {re.match(r"[\w-]+", line)[0] for line in (*wanted, *extras["dev"], *extras["docs"])}  # type: ignore[index]
    for name in every - {"pinecone-embed-async"}:
        assert re.search(rf"\b{name}\b", table), f"{name} has no line in the design's table of dependencies"
