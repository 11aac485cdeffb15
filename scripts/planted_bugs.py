"""Plants bugs one at a time in a copy of the tree, and reports what finds each: the simulation, the tests, or nothing.

    python scripts/planted_bugs.py
    python scripts/planted_bugs.py --only "wake-up" --seeds 500

The exit status is 1 if one is not found. The checkout is never changed. Takes about half an hour.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "pinecone_embed_async"

PATIENCE_SECONDS = 1800.0
"""A run of the tests that takes longer hangs: they take a few minutes."""

SEED_SECONDS = 0.25
"""A run of the simulation that takes longer for each seed hangs: a seed takes a tenth of this."""

SUITE = [
    "-q",
    "-x",
    "-p",
    "no:cacheprovider",
    "--ignore=tests/cli",
    "--ignore=tests/benchmarks",
    "--ignore=tests/simulation",
]
SUITE += ["--ignore=tests/integrations", "--ignore=tests/jobs", "--ignore=tests/emulator", "--ignore=tests/test_docs.py"]


@dataclass(frozen=True)
class Bug:
    """A bug.

    Attributes:
        name: what is wrong.
        changes: for each change, the file relative to the package, the present code, and the faulty code.
    """

    name: str
    changes: tuple[tuple[str, str, str], ...]


def _bug(name: str, file: str, right: str, wrong: str, *more: tuple[str, str, str]) -> Bug:
    return Bug(name, ((file, right, wrong), *more))


BUGS = (
    _bug(
        "a permit is not given back on one path",
        "_sending/engine.py",
        "            permit.failed(is_overload=is_overload and not is_stale_connection(attempts, error))\n",
        "            if is_overload or error is None:\n                permit.failed(is_overload=is_overload)\n",
    ),
    _bug(
        "a permit is given back twice",
        "_sending/attempts.py",
        "request.limits.billed(request.load, billed))\n",
        "request.limits.billed(request.load, billed))\n        permit.give_back()\n",
        (
            "_rate_limit/limiter.py",
            "        if permit not in self._open:\n            return False\n        self._open.remove(permit)\n",
            "        self._open.discard(permit)\n",
        ),
    ),
    _bug(
        "a row at its neighbour's place",
        "_calls/result_builder.py",
        "            self._dense.matrix(request.matrix.shape[1])[rows] = request.matrix\n",
        "            self._dense.matrix(request.matrix.shape[1])[np.roll(rows, 1)] = request.matrix\n",
    ),
    _bug(
        "a pause that is not shared",
        "_rate_limit/token_limit.py",
        "        if now < self.pause.until:\n            return 0, self.pause.until\n",
        "",
    ),
    _bug(
        "an attempt begun after the deadline",
        "_calls/scheduler.py",
        "self._clock.call_at(when, self._expire)",
        "self._clock.call_at(when + 1.0, self._expire)",
    ),
    _bug(
        "a window that counts as too short",
        "_rate_limit/window.py",
        "        ends[-1] = now + self.length\n",
        "        ends[-1] = now + 0.95 * self.length\n",
    ),
    _bug(
        "a window's oldest entry released too late",
        "_rate_limit/window.py",
        "        return bisect_right(self._ends, now, 1)\n",
        "        return min(bisect_right(self._ends, now, 1), max(1, len(self._ends) - 1))\n",
    ),
    _bug(
        "a cancelled waiter left in the queue",
        "_rate_limit/gate.py",
        "            permit.give_back()\n",
        "            if permit.is_granted:\n                permit.give_back()\n",
    ),
    _bug(
        "a lost wake-up",
        "_rate_limit/gate.py",
        "                if due != waits.due:\n",
        "                if waits.timer is None or math.isinf(due):\n",
        (
            "_rate_limit/gate.py",
            "                self._set_timer(loop, self._loops[loop], math.inf)\n",
            "                self._loops[loop].due = math.inf\n",
        ),
    ),
    _bug(
        "dedupe spread wrong",
        "_calls/embed.py",
        "rows.extend([first.setdefault(key, len(first)) for key in keys[start : start + SLICE]])",
        "rows.extend(sorted(first.setdefault(key, len(first)) for key in keys[start : start + SLICE]))",
    ),
    _bug(
        "a partial result without its last request",
        "_calls/scheduler.py",
        "            if error is None:\n                self._planner.embedded(request)\n",
        "            if error is None and self._planner.job_error is None:\n"
        "                self._planner.embedded(request)\n",
    ),
    _bug(
        "a call's own parameters missing from the cache's key",
        "_options.py",
        "options.cache.of_call(encode_parameters(merged))",
        "options.cache.of_call(encode_parameters(options.parameters))",
    ),
    _bug(
        "a deadline that passes during the look-up leaves rows marked as embedded",
        "_calls/embed.py",
        "        untried = builder.untried()\n",
        "        untried = builder.untried() if cache is None else ()\n",
    ),
    _bug(
        "passages and queries under one limit",
        "_sending/engine.py",
        'self.options.model, str(parameters.get("input_type", ""))',
        'self.options.model, "passage"',
    ),
    _bug(
        "a call fails though a pause ends in time for it",
        "_rate_limit/pauses.py",
        "self.until >= deadline",
        "self.until + 5 >= deadline",
    ),
    _bug(
        "a second rejection of a burst that shortens the pause",
        "_rate_limit/token_limit.py",
        "            self.pause = max(self.pause, KnownPause(until, message))\n",
        "            self.pause = KnownPause(until, message)\n",
    ),
    _bug(
        "the time of a quota's last acceptance is never updated",
        "_rate_limit/limiter.py",
        "            self.accepted_at[flow.key] = now\n",
        "            self.accepted_at.setdefault(flow.key, now)\n",
    ),
    _bug(
        "a request that is cut does not return the difference",
        "_rate_limit/limiter.py",
        "            self._budgets[permit.key].limit.resize(permit, tokens)\n",
        "            pass\n",
    ),
    _bug(
        "the rest of a cut request waits for its first part",
        "_calls/scheduler.py",
        "            # Send the inputs that were cut off.\n            self.fill()\n",
        "",
    ),
    _bug(
        "a second wait of another thread on a shared quota is never woken",
        "_rate_limit/gate.py",
        "                self._loops[loop].is_notified = False\n",
        "                pass\n",
    ),
    _bug(
        "closing does not wake a reader of a body",
        "_sending/network.py",
        "                exchange.interrupt()\n",
        "                break\n",
    ),
    _bug(
        "a source of bad items is read past its window",
        "_calls/source.py",
        "            self.queue.append((position, item, refused))\n            return False\n",
        "            self.queue.append((position, item, refused))\n"
        "            if self._is_async:\n                return False\n"
        "            self._gathering.release()\n"
        "            try:\n                return self._take(items)\n"
        "            finally:\n                self._gathering.acquire()\n",
    ),
    _bug(
        "each item restarts `max_delay`",
        "_calls/source.py",
        "            if self._timer is None:\n                self._start_timer()\n                if not self._has_room",
        "            self._cancel_timer()\n"
        "            if self._timer is None:\n                self._start_timer()\n                if not self._has_room",
    ),
    _bug(
        "failures of bad items are missing from `progress`",
        "_calls/stream.py",
        "        if self._batches.failed_count > failed:\n",
        "        if self._batches.failed_count < failed:\n",
    ),
    _bug(
        "an answer cancelled at the decode gate does not pass it on",
        "_sending/decode_gate.py",
        '        async with self._bulk if priority == "bulk" else contextlib.nullcontext(), self._places:\n'
        "            yield\n            await asyncio.sleep(0)\n",
        "        await self._places.acquire()\n"
        "        yield\n        await asyncio.sleep(0)\n        self._places.release()\n",
    ),
    _bug(
        "a caller who leaves a joined request cancels it for the others",
        "_calls/single_calls.py",
        "        if shared.waiters or sent is None:\n",
        "        if sent is None:\n",
    ),
    _bug(
        "a refused request whose probe was accepted loses its last input",
        "_planning/planner.py",
        "            self._parts.extend(request.parts((count + 1) // 2))\n            return\n",
        "            parts = request.parts((count + 1) // 2)\n"
        "            self._parts.extend(parts[: 2 - count % 2])\n"
        "            return\n",
    ),
    _bug(
        "a cache that hangs keeps a call beyond its deadline",
        "_calls/embed.py",
        "            async with self._runtime.interruptible(self._options.deadline), asyncio.TaskGroup() as group:\n",
        "            async with asyncio.TaskGroup() as group:\n",
    ),
    _bug(
        "waiting endlessly for a neighbour that swallows its cancellation",
        "_foreign.py",
        "            while not task.done() and self._clock.time() < end:\n",
        "            while not task.done():\n",
    ),
    _bug(
        "a second cancellation of its call leaves a neighbour behind",
        "_foreign.py",
        "            while not task.done() and self._clock.time() < end:\n",
        "            if not task.done():\n",
    ),
    _bug(
        "a back end's late grant is not returned",
        "_rate_limit/gate.py",
        "        if _is_grant(grant):\n            self.grant",
        "        if not _is_grant(grant):\n            self.grant",
    ),
    _bug(
        "a back end's grant is used unchecked",
        "_rate_limit/gate.py",
        "permit.key, permit.want = None, min(grant.tokens, permit.want)",
        "permit.key, permit.want = None, grant.tokens",
    ),
    _bug(
        "an invalid grant is accepted",
        "_rate_limit/gate.py",
        "    return isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1\n",
        "    return isinstance(grant, QuotaGrant)\n",
    ),
    _bug(
        "any answer of a cache is accepted as a list of values",
        "_cache/stage.py",
        "            if isinstance(values, Sequence) and not isinstance(values, (str, bytes, bytearray, memoryview)):\n",
        "            if values is not None:\n",
    ),
    _bug(
        "storing in a cache that hangs never ends",
        "_cache/stage.py",
        "        until = end if until is None else min(until, end)\n",
        "        until = math.inf if until is None else until\n",
    ),
    _bug(
        "an absurd bill counts in full",
        "_planning/learned.py",
        "            return most\n",
        "            return tokens\n",
    ),
    _bug(
        "a source's StopAsyncIteration reads as the end of the stream",
        "_calls/source.py",
        "    if isinstance(error, Exception) and not isinstance(error, MISLEADING):\n",
        "    if isinstance(error, Exception):\n",
    ),
    _bug(
        "a source that hangs is not left when the client is closed",
        "_calls/embed.py",
        "        async with runtime.interruptible(deadline) as scope:\n            if isinstance(",
        "        async with runtime.options.clock.timeout_at(deadline) as scope:\n            if isinstance(",
    ),
)


def main() -> int:
    """Parse the command line, plant, report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[""], help="only bugs with one of these in their names")
    parser.add_argument("--seeds", type=int, default=2000, help="seeds of the simulation (default 2000)")
    parser.add_argument("--simulation-only", action="store_true", help="do not run the tests for bugs that it does not find")
    options = parser.parse_args()
    bugs = [bug for bug in BUGS if any(text in bug.name for text in options.only)]
    missed = 0
    for bug in bugs:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "tree"
            copy_tree(tree)
            _plant(bug, tree)
            found = _found_by(tree, options.seeds, has_tests=not options.simulation_only)
        missed += found is None
        print(f"{bug.name}: {found or 'NOT FOUND'} ({time.perf_counter() - started:.0f} s)", flush=True)
    print(f"{len(bugs) - missed} of {len(bugs)} found")
    return 1 if missed else 0


def copy_tree(tree: Path) -> None:
    """Copy the files that git tracks, and the native module if it is built, since some tests need it."""
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout  # noqa: S607
    native = (str(file.relative_to(ROOT)) for file in ROOT.glob(f"{PACKAGE}/_wire/_native.*.so"))
    for name in (*filter(None, files.split("\0")), *native):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def _plant(bug: Bug, tree: Path) -> None:
    for name, right, wrong in bug.changes:
        file = tree / PACKAGE / name
        text = file.read_text()
        if text.count(right) != 1:
            raise SystemExit(f"{bug.name}: {name} has {text.count(right)} places to plant it; the code has changed")
        file.write_text(text.replace(right, wrong))


def _found_by(tree: Path, seeds: int, *, has_tests: bool) -> str | None:
    """Return what finds the bug; `None` if nothing does."""
    told = run_python(
        ["-m", "tests.simulation", "--seeds", str(seeds), "--first", "--brief"], tree, 60 + seeds * SEED_SECONDS
    )
    if told is None:
        return "the simulation hangs"
    if told.returncode:
        lines = told.stdout.splitlines() or told.stderr.splitlines()
        return f"the simulation: {lines[1].strip() if len(lines) > 1 else lines}"
    if not has_tests:
        return None
    told = run_python(["-m", "pytest", *SUITE], tree, PATIENCE_SECONDS)
    if told is None:
        return "the tests hang"
    failed = [line for line in told.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return f"the tests: {failed[0] if failed else told.stdout[-200:]}" if told.returncode else None


def run_python(arguments: list[str], tree: Path, patience: float) -> subprocess.CompletedProcess[str] | None:
    """Run Python to its end; `None` if it takes too long."""
    command = [sys.executable, *arguments]
    # In its own session, since a run that hangs may have started other processes.
    with subprocess.Popen(  # noqa: S603 - our own
        command, cwd=tree, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            told, errors = process.communicate(timeout=patience)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return None
            raise
    return subprocess.CompletedProcess(command, process.returncode, told, errors)


if __name__ == "__main__":
    sys.exit(main())
