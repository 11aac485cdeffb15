"""A quota shared by processes of which some are killed, in real time: the benchmark, shortened and whole."""

import json
from pathlib import Path

import pytest

from benchmarks import sqlite_quota


async def test_processes_use_a_quota_together_and_survive_each_other() -> None:
    workers, killed = 5, 2
    figures = await sqlite_quota.measure_sharing(1.0, 6, "fixed", workers=workers, killed=killed)
    # How evenly the quota is shared, and how much of it is used, is for a machine that does nothing else.
    assert figures["most_arrived"] <= 1
    assert (figures["deaths"], figures["rejected"]) == (killed, 0)
    # After each death those that are left have something, and none has all of it.
    assert figures["jain"] > 1 / (workers - killed)
    assert figures["used"] > 0


@pytest.mark.long
@pytest.mark.parametrize("kind", ["fixed", "sliding"])
def test_the_bounds_hold(kind: str, tmp_path: Path) -> None:
    assert sqlite_quota.main(["--kind", kind, "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["sharing"]["windows"] == 20


def test_the_figures_are_counted_right() -> None:
    assert sqlite_quota.jain([5, 5, 5]) == 1
    assert sqlite_quota.jain([6, 0, 0]) == pytest.approx(1 / 3)
    log = [(0.0, 0, 10, True), (0.5, 1, 20, False), (1.0, 0, 40, True), (1.6, 0, 5, True)]
    # Exactly a window apart are not within one.
    assert sqlite_quota.most_within(log, 1.0) == 60
    # Of a sliding window that was full at first, and then by halves.
    log = [(0.0, 0, sqlite_quota.TOKENS, True), (1.5, 0, sqlite_quota.TOKENS, True), (1.7, 0, 9, False)]
    assert sqlite_quota.used_between(log, "sliding", 1.0, 0.0, 1.0) == pytest.approx(0.5)
    assert sqlite_quota.used_between(log, "fixed", 1.0, 0.0, 1.0) == 1
    good = {"used": 0.95, "most_arrived": 1.0, "rejected": 0.005, "jain": 0.9}
    assert sqlite_quota.problems(good, {"acquisitions": 200.0, "p99": 0.05}) == []
    bad = {"used": 0.94, "most_arrived": 1.01, "rejected": 0.006, "jain": 0.89}
    assert len(sqlite_quota.problems(bad, {"acquisitions": 199.0, "p99": 0.06})) == 6
