"""Prints the figures that keep the core simple: its structure, its length, and the calls made to embed one text.

    python scripts/structure.py

The core is the package without `cli`, `_jobs`, `emulator` and `integrations`. Imports for the type checker count.
"""

from __future__ import annotations

import ast
import asyncio
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pinecone_embed_async
from pinecone_embed_async import EmbedClient, MockResponse, MockTransport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from pinecone_embed_async import TransportRequest

PACKAGE = Path(pinecone_embed_async.__file__).parent
OUTER = {"cli", "_jobs", "emulator", "integrations"}
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def main() -> None:
    """Print the figures."""
    modules = {path: ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py")) if _room(path) not in OUTER}
    functions = [(len(_lines_of(node)), node.name, path) for path, tree in modules.items() for node in _functions(tree)]
    longest = max(functions, key=lambda found: found[0])
    lengths = {path: len(path.read_text().splitlines()) for path in modules}
    largest = max((path for path in lengths if path.name != "_client.py"), key=lengths.__getitem__)
    code = sum(_code_lines(path) for path in modules)
    print(f"{code:>6}  code lines of the core, without docstrings, comments and blanks")
    print(f"{lengths[PACKAGE / '_client.py']:>6}  lines of _client.py")
    print(f"{lengths[largest]:>6}  lines of the longest other module, {largest.relative_to(PACKAGE)}")
    print(f"{longest[0]:>6}  lines of the longest function, without its docstring: {longest[1]} in {longest[2].name}")
    print(f"{sum(_callbacks(tree) for tree in modules.values()):>6}  parameters of the core that are callbacks")
    calls, objects = asyncio.run(_one_text())
    print(f"{calls.total():>6}  Python calls inside the package for `embed` of one text, in {len(calls)} files")
    if objects is None:
        print("     ?  objects of the package's classes for it, which only Python 3.12 or later can count")
    else:
        print(f"{objects.total():>6}  objects of the package's classes for it")


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def _lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> range:
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return range(body[0].lineno, (node.end_lineno or 0) + 1) if body else range(0)


def _callbacks(tree: ast.AST) -> int:
    """Parameters whose type is a callable, by its own name or by an alias."""
    aliases = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("Callable[")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    parameters = [
        parameter
        for node in _functions(tree)
        for parameter in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if parameter.annotation is not None
    ]
    kinds = [ast.unparse(parameter.annotation) for parameter in parameters if parameter.annotation is not None]
    return sum(kind.startswith("Callable[") or kind.removesuffix(" | None") in aliases for kind in kinds)


def _code_lines(path: Path) -> int:
    text = path.read_text()
    documented = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - documented)


def _answer(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[0.5] * 8 for _ in request.json()["inputs"]])


async def _one_text() -> tuple[Counter[str], Counter[str] | None]:
    """Calls inside the package by file, and objects made by class, for `embed` of one text; objects need Python 3.12."""
    calls: Counter[str] = Counter()
    objects: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(str(PACKAGE)) and "mock" not in name:
            calls[name] += 1

    def note_made(_: object, __: int, called: object, ___: object) -> None:
        if isinstance(called, type) and called.__module__.startswith(PACKAGE.name) and "mock" not in called.__module__:
            objects[called.__qualname__] += 1

    monitoring = getattr(sys, "monitoring", None)
    async with EmbedClient("a-model", api_key="any-key", transport=MockTransport(_answer), look_up_model=False) as client:
        for _ in range(3):
            await client.embed("a text")
        sys.setprofile(note)
        try:
            await client.embed("a text")
        finally:
            sys.setprofile(None)
        if monitoring is None:
            return calls, None
        monitoring.use_tool_id(monitoring.PROFILER_ID, PACKAGE.name)
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.CALL, note_made)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.CALL)
        try:
            await client.embed("a text")
        finally:
            monitoring.free_tool_id(monitoring.PROFILER_ID)
    return calls, objects


if __name__ == "__main__":
    main()
