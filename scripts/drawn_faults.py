"""Draws small faults in the core by seed, plants them one at a time in a copy of the tree, and reports what finds each.

    python scripts/drawn_faults.py --count 200 --seed 1
    python scripts/drawn_faults.py --count 20 --room _planning
    python scripts/drawn_faults.py --count 200 --seed 1 --skip 120    # the last 80 of these 200

A fault is a comparison, a sign, a constant, a condition or a statement changed in one place. The simulation or the tests of
its room should find it. A fault that nothing finds may change nothing observable: judge it, and draw another. The exit
status is 1 if one is not found. The checkout is never changed. 200 faults take between one and two hours on two idle cores.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.planted_bugs import PACKAGE, ROOT, copy_tree, run_python

if TYPE_CHECKING:
    from collections.abc import Iterator

SEEDS = 150
"""Seeds of the simulation per fault; what these do not find is nearly always left to the tests."""

PATIENCE_SECONDS = 600.0

ROOMS = {
    "_cache": ["tests/cache"],
    "_calls": [
        "tests/calls",
        "tests/test_client.py",
        "tests/test_embed_one.py",
        "tests/test_cancellation.py",
        "tests/test_closing.py",
        "tests/test_strangers.py",
        "tests/test_telemetry.py",
        "tests/test_lifecycle.py",
        "tests/test_outcomes.py",
    ],
    "_planning": ["tests/planning", "tests/test_requests.py", "tests/test_faults.py"],
    "_rate_limit": ["tests/rate_limit", "tests/test_quotas.py", "tests/test_telemetry.py"],
    "_results": [
        "tests/test_results.py",
        "tests/test_client.py",
        "tests/test_outcomes.py",
        "tests/test_selections.py",
        "tests/test_tables.py",
    ],
    "_sending": [
        "tests/sending",
        "tests/test_faults.py",
        "tests/test_closing.py",
        "tests/test_threads.py",
        "tests/test_telemetry.py",
        "tests/test_client.py",
        "tests/test_lifecycle.py",
        "tests/test_outcomes.py",
        "tests/test_discovery.py",
        "tests/test_proxies.py",
        "tests/test_tls.py",
    ],
    "_wire": ["tests/wire"],
    "_options.py": ["tests/test_arguments.py", "tests/test_client.py"],
    "_models.py": [
        "tests/test_arguments.py",
        "tests/test_client.py",
        "tests/test_discovery.py",
        "tests/test_parameters.py",
        "tests/test_unexpected.py",
        "tests/rate_limit/test_quota.py",
        "tests/cli/test_check.py",
    ],
    "_inputs.py": ["tests/test_inputs.py"],
    "_foreign.py": ["tests/test_strangers.py", "tests/cache", "tests/calls"],
    "_telemetry.py": ["tests/test_telemetry.py"],
}

SWAPS: dict[type[ast.AST], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "/",
    ast.And: "or",
    ast.Or: "and",
}


@dataclass(frozen=True)
class Fault:
    """A change in one place.

    Attributes:
        file: the file, relative to the package.
        line: the line number.
        start: position where it begins, in bytes.
        end: position where it ends, in bytes.
        right: the present code.
        wrong: the faulty code.
    """

    file: str
    line: int
    start: int
    end: int
    right: str
    wrong: str

    def __str__(self) -> str:
        """The place, and the change."""
        return f"{self.file}:{self.line}: `{' '.join(self.right.split())}` -> `{' '.join(self.wrong.split())}`"


def main() -> int:
    """Draw, plant and report; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=200, help="number of faults (default: 200)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the draw (default: 1)")
    parser.add_argument("--skip", type=int, default=0, help="how many of these to leave out at the beginning (default: 0)")
    parser.add_argument("--room", choices=ROOMS, help="draw in this room only")
    parser.add_argument("--workers", type=int, default=2, help="faults planted at the same time (default: 2)")
    options = parser.parse_args()
    faults = [fault for room in ([options.room] if options.room else ROOMS) for fault in faults_of(room)]
    drawn = random.Random(options.seed).sample(faults, min(options.count, len(faults)))[options.skip :]
    print(f"{len(drawn)} of {len(faults)} faults", flush=True)
    with ThreadPoolExecutor(options.workers) as pool:
        missed = sum(pool.map(_is_missed, drawn))
    print(f"{len(drawn) - missed} of {len(drawn)} found")
    return 1 if missed else 0


def _is_missed(fault: Fault) -> bool:
    started = time.perf_counter()
    found = _found_by(fault)
    print(f"{found or 'NOT FOUND'}: {fault} ({time.perf_counter() - started:.0f} s)", flush=True)
    return found is None


def faults_of(room: str) -> list[Fault]:
    """All faults that can be drawn in a room."""
    place = ROOT / PACKAGE / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return [fault for file in files if file.name != "__init__.py" for fault in _faults_in(file)]


def _faults_in(file: Path) -> Iterator[Fault]:  # noqa: C901 - one case for each kind of fault
    source = file.read_bytes()
    name = str(file.relative_to(ROOT / PACKAGE))
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))

    def place(node: ast.expr | ast.stmt) -> tuple[int, int]:
        return lines[node.lineno - 1] + node.col_offset, lines[(node.end_lineno or 1) - 1] + (node.end_col_offset or 0)

    def fault(node: ast.expr | ast.stmt, start: int, end: int, wrong: str) -> Fault:
        return Fault(name, node.lineno, start, end, source[start:end].decode(), wrong)

    def between(left: ast.expr, right: ast.expr, operator: ast.AST) -> Iterator[Fault]:
        start, end = place(left)[1], place(right)[0]
        text = source[start:end].decode()
        # If there is a parenthesis or a comment in between, the text is more than the operator.
        if type(operator) in SWAPS and text == text.strip().join((" ", " ")):
            yield fault(left, start, end, f" {SWAPS[type(operator)]} ")

    for node in _code(ast.parse(source)):
        match node:
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                yield from between(left, right, operator)
            case ast.BinOp(left=left, op=operator, right=right):
                yield from between(left, right, operator)
            case ast.BoolOp(op=operator, values=[left, right, *_]):
                yield from between(left, right, operator)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield fault(node, *place(node), f"bool({ast.unparse(operand)})")
            case ast.Constant(value=bool() as value):
                yield fault(node, *place(node), str(not value))
            case ast.Constant(value=int() as value):
                yield fault(node, *place(node), str(value + 1))
            case ast.Call(func=ast.Name(id="min" | "max" as which)):
                start, end = place(node.func)
                yield fault(node, start, end, "max" if which == "min" else "min")
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign():
                yield fault(node, *place(node), "pass")


def _code(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run: without annotations, type-checking imports, `__repr__` and logging."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.name != "__repr__":
                for inner in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
                    yield inner
                    yield from _code(inner)
            continue
        if isinstance(node, ast.AnnAssign):
            if node.value is not None:
                yield node.value
                yield from _code(node.value)
            continue
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logger."):
            continue
        yield node
        yield from _code(node)


def _found_by(fault: Fault) -> str | None:
    """Return what finds the fault; `None` if nothing does."""
    room = fault.file.split("/", maxsplit=1)[0]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        file = tree / PACKAGE / fault.file
        source = file.read_bytes()
        file.write_bytes(source[: fault.start] + fault.wrong.encode() + source[fault.end :])
        told = run_python(["-m", "tests.simulation", "--seeds", str(SEEDS), "--first", "--brief"], tree, PATIENCE_SECONDS)
        if told is None or told.returncode:
            return "simulation"
        tests = ["-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not long", *ROOMS[room]]
        told = run_python(tests, tree, PATIENCE_SECONDS)
        return "tests" if told is None or told.returncode else None


if __name__ == "__main__":
    sys.exit(main())
