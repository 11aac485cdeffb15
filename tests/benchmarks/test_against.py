"""The present code beside another checkout's."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks import against
from benchmarks.__main__ import main
from benchmarks.against import AGAIN, LATENCY, NEW, OLD, ROUNDS, SPEED, compare, orders, tables

ROOT = Path(__file__).parent.parent.parent
SPEED_FIGURE, CPU_FIGURE = SPEED


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=150
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another checkout, whose package notes each process that imports it, and whose benchmarks cannot be imported."""
    other = tmp_path / "other"
    shutil.copytree(
        ROOT / "pinecone_embed_async", other / "pinecone_embed_async", ignore=shutil.ignore_patterns("__pycache__")
    )
    with (other / "pinecone_embed_async" / "__init__.py").open("a") as file:
        file.write("\nwith open(__file__ + '.imported', 'a') as _noted:\n    _noted.write('once\\n')\n")
    (other / "benchmarks").mkdir()
    (other / "benchmarks" / "__init__.py").write_text("raise ImportError('these are the benchmarks of the checkout')\n")
    return other


def times_imported(checkout: Path) -> int:
    noted = checkout / "pinecone_embed_async" / "__init__.py.imported"
    return len(noted.read_text().splitlines()) if noted.exists() else 0


@pytest.mark.long
@pytest.mark.timeout(180)
def test_each_round_measures_this_code_once_and_the_checkouts_twice(checkout: Path, tmp_path: Path) -> None:
    process = run(
        *("throughput", "single", "--against", str(checkout), "--loads", "sparse-half", "--only", "msgspec"),
        *("--rounds", "1", "--scale", "0.02", "--json", str(tmp_path / "run.json")),
    )
    assert process.returncode == 0, process.stderr
    # A round of a load and one of a single text, each with the checkout's package in two processes.
    assert times_imported(checkout) == 4
    part = json.loads((tmp_path / "run.json").read_text())["suites"]["against"]
    assert part["checkout"] == str(checkout)
    assert list(part["parts"]) == ["sparse-half", "single"]
    assert list(part["parts"]["sparse-half"]["ways"]) == ["msgspec"]
    assert "embed_one (msgspec)" in part["parts"]["single"]["ways"]
    for measured in part["parts"].values():
        for way in measured["ways"].values():
            assert {who: len(rounds) for who, rounds in way["rounds"].items()} == {NEW: 1, OLD: 1, AGAIN: 1}
    assert "sparse-half, 384 inputs, 8 requests in flight, 1 paired round;" in process.stdout
    assert "embed_one (msgspec)" in process.stdout


def test_a_checkout_whose_code_fails_ends_the_run(checkout: Path) -> None:
    (checkout / "pinecone_embed_async" / "__init__.py").write_text("raise RuntimeError('too old')\n")
    process = run("throughput", "--against", str(checkout), "--loads", "sparse-half", "--rounds", "1", "--scale", "0.01")
    assert process.returncode == 1
    assert "too old" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--against", "docs"), "--against must be a checkout of this project, got docs"),
        (("--against", "no-such-folder"), "--against must be a checkout of this project, got no-such-folder"),
        (("decoding", "--against", "."), "unknown 'decoding'; suites with --against: throughput, single"),
        (("--against", ".", "--plots", "."), "--plots cannot be combined"),
        (("--against", ".", "--only", "official"), "--only: with --against the choices are msgspec, native"),
    ],
)
def test_misuse_is_told_at_once(
    arguments: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert said in capsys.readouterr().err


def test_with_all_rounds_every_order_comes_equally_often() -> None:
    counts = Counter(orders(ROUNDS))
    assert ROUNDS >= 15
    assert len(counts) == 6
    assert len(set(counts.values())) == 1


def rounds_of(figure: str, new: list[float], old: list[float], again: list[float]) -> dict[str, list[dict[str, float]]]:
    measured = {NEW: new, OLD: old, AGAIN: again}
    return {who: [{figure: value} for value in values] for who, values in measured.items()}


def test_ratios_are_taken_round_by_round() -> None:
    # A machine that becomes ten times as slow changes no ratio.
    compared = compare(rounds_of("p50", [2.0, 20.0, 60.0], [1.0, 10.0, 20.0], [1.0, 10.0, 30.0]), LATENCY[0])
    assert compared["new_to_old"] == [2.0, 2.0, 3.0]
    assert compared["old_to_old"] == [1.0, 1.0, 1.5]
    assert compared["medians"] == {NEW: 20.0, OLD: 10.0, AGAIN: 10.0}


@pytest.mark.parametrize(
    ("figure", "new", "again", "is_as_good"),
    [
        (CPU_FIGURE, 102.0, 100.0, True),
        (CPU_FIGURE, 104.0, 100.0, False),
        (CPU_FIGURE, 50.0, 100.0, True),
        (CPU_FIGURE, 104.0, 105.0, True),
        (CPU_FIGURE, 104.0, 95.0, True),
        (SPEED_FIGURE, 98.0, 100.0, True),
        (SPEED_FIGURE, 96.0, 100.0, False),
        (SPEED_FIGURE, 200.0, 100.0, True),
        (SPEED_FIGURE, 96.0, 95.0, True),
    ],
)
def test_the_new_code_may_be_worse_by_little_or_by_what_the_old_code_differs_from_itself(
    figure: against.Figure, new: float, again: float, *, is_as_good: bool
) -> None:
    compared = compare(rounds_of(figure.name, [new] * 3, [100.0] * 3, [again] * 3), figure)
    assert compared["is_as_good"] is is_as_good


def test_a_table_shows_both_ratios_with_their_quartiles() -> None:
    rounds = rounds_of("p50", [1.1, 1.2, 1.3], [1.0, 1.0, 1.0], [0.9, 1.0, 1.1])
    way = {"title": "embed_one", "compared": [compare(rounds, LATENCY[0])], "rounds": rounds}
    part = {"checkout": "old", "rounds": 3, "parts": {"single": {"what": "a single text", "ways": {"embed_one": way}}}}
    (table,) = tables(part)
    assert table.caption == "a single text, 3 paired rounds; old is old"
    assert table.rows == (("embed_one", "p50 ms", "1.200", "1.000", "1.200 (1.100–1.300)", "1.000 (0.900–1.100)", "NO"),)
