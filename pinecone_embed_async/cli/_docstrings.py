"""Reads real text that is on every machine: the docstrings of Python's standard library."""

import ast
import contextlib
import gc
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pinecone_embed_async._jobs._errors import SourceError

# Tests and programs that come with the library, generated tables, and packages installed by pip.
_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "idle_test",
        "idlelib",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "test",
        "tests",
        "turtledemo",
    }
)

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Docstring(NamedTuple):
    """A docstring and the name of what it documents: `module`, or `module:Class.method`."""

    name: str
    text: str


def read_docstrings(library: Path | None = None) -> list[Docstring]:
    """Read the docstrings of the standard library from its source files, without importing them.

    They come in a fixed order, by module and line. Of equal docstrings, only the first is kept.

    Args:
        library: The folder of the library; by default that of the running Python.

    Raises:
        SourceError: This Python comes without the sources of its library.
    """
    library = library or Path(sysconfig.get_path("stdlib"))
    names: dict[str, str] = {}
    with _gc_paused(), warnings.catch_warnings():
        # Parsing may warn about old code in the library.
        warnings.simplefilter("ignore")
        for module, path in _source_files(library):
            try:
                tree = ast.parse(path.read_bytes())
            except (OSError, SyntaxError, ValueError):
                # Some distributions ship templates and broken links among the sources; the demo command needs none.
                continue
            for qualified_name, text in _docstrings_of(tree, ""):
                names.setdefault(text, f"{module}:{qualified_name}" if qualified_name else module)
    if not names:
        raise SourceError(f"{library}: there are no sources of the standard library here, so no docstrings to embed")
    return [Docstring(name, text) for text, name in names.items()]


@contextlib.contextmanager
def _gc_paused() -> Iterator[None]:
    # Syntax trees are many objects without cycles: garbage collection finds nothing and takes a third of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _source_files(library: Path) -> Iterator[tuple[str, Path]]:
    for name in sorted(sys.stdlib_module_names - _LEFT_OUT):
        module, package = library / f"{name}.py", library / name
        if module.is_file():
            yield name, module
        elif package.is_dir():
            for path in sorted(package.rglob("*.py")):
                parts = path.relative_to(library).with_suffix("").parts
                if _LEFT_OUT.isdisjoint(parts):
                    yield ".".join(parts).removesuffix(".__init__"), path


def _docstrings_of(node: _Documented, name: str) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node)
    if text:
        yield name, text
    if isinstance(node, ast.Module | ast.ClassDef):
        yield from _docstrings_within(node, f"{name}." if name else "")


def _docstrings_within(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _docstrings_of(child, prefix + child.name)
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler | ast.With):
            yield from _docstrings_within(child, prefix)
