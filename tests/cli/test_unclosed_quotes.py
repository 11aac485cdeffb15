"""A quote in a CSV file that is never closed takes every line behind it."""

from pathlib import Path

import pytest

from pinecone_embed_async.cli import cli


@pytest.mark.parametrize("on_bad_row", ["fail", "skip"])
def test_lines_behind_a_quote_that_is_never_closed_do_not_count_as_one_bad_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], on_bad_row: str
) -> None:
    rows = ["id,text", "1,alpha", '2,"beta', *(f"{number},gamma" for number in range(3, 10))]
    (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    assert cli("embed", str(tmp_path / "in.csv"), "--out", str(out), "--emulator", "--on-bad-row", on_bad_row) == 5
    told = capsys.readouterr().err
    assert "in.csv:3: the quote that opens here is never closed, so the 8 lines from here on are one row" in told
    assert not list(out.glob("part-*"))


def test_a_last_line_that_was_cut_off_is_a_bad_row(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,text\n1,alpha\n2,"beta')
    assert cli("embed", str(tmp_path / "in.csv"), "--out", str(tmp_path / "out"), "--emulator", "--on-bad-row", "skip") == 0
