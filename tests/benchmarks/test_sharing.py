"""A short form of `benchmarks.sharing`: a limiter that shares worse fails here, not only there."""

import pytest

from benchmarks import sharing
from benchmarks.sharing import Row, rows, worst

SHORT = [row for row in rows() if row.terms.tokens < 500_000]


@pytest.mark.parametrize("row", SHORT, ids=lambda row: row.name)
def test_bounds_hold(row: Row) -> None:
    assert all(holds for *_, holds in worst(row, [row.simulate(row.terms, 0)]))


def test_the_worst_of_all_seeds_counts() -> None:
    queries = SHORT[0]
    assert worst(queries, [(0.3, 0.99), (1.6, 0.98)]) == [("p99", 1.6, 1.5, False), ("used", 0.98, 0.95, True)]
    assert worst(queries, [(0.3, 0.94), (0.2, 0.99)])[1] == ("used", 0.94, 0.95, False)


def test_the_command_prints_a_line_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert sharing.main(["--seeds", "2", "--workers", "1", "--only", "two jobs"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("two jobs, requests of 200 and 740")
    assert line.endswith("holds")


@pytest.mark.parametrize("arguments", [["--seeds", "0"], ["--only", "no such row"]])
def test_misuse_is_told(arguments: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        sharing.main(arguments)
