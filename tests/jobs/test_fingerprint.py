"""What is the same job and what is another one."""

import os
from pathlib import Path
from typing import Any

import pytest

from pinecone_embed_async._jobs._errors import JobChangedError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, differences, take_fingerprint
from pinecone_embed_async._jobs._folder import Portion
from pinecone_embed_async._jobs._inputs import find_inputs
from pinecone_embed_async._jobs._ledger import JobLedger, choose_portion
from pinecone_embed_async._jobs._rowset import RowSet
from pinecone_embed_async._jobs._sources import Columns
from pinecone_embed_async._jobs._templates import FieldText

ASKED: dict[str, Any] = {"service": "https://s", "api_version": "v", "model": "m", "parameters": {"dimension": 8}}


def print_of(path: Path, content: bytes = b"text\n", columns: Columns | None = None, **changes: Any) -> Fingerprint:
    path.write_bytes(content)
    return take_fingerprint(find_inputs([str(path)]), columns or Columns(), **{**ASKED, **changes})


def test_a_file_that_was_moved_or_touched_is_the_same_input(tmp_path: Path) -> None:
    before = print_of(tmp_path / "a.txt")
    now = print_of(tmp_path / "b.txt")
    os.utime(tmp_path / "b.txt", ns=(0, 0))
    portions, place = choose_portion([Portion(before, 0, 1)], now, append=False)
    assert (place, portions) == (0, (Portion(now, 0, 1),))


def test_a_file_with_the_same_size_and_time_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    before = print_of(path)
    stat = path.stat()
    path.write_bytes(b"tuxt\n")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    files = find_inputs([str(path)])
    assert take_fingerprint(files, Columns(), **ASKED, known=before.inputs) == before
    assert take_fingerprint(files, Columns(), **ASKED) != before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"content": b"other\n"}, r"the input .*a\.txt \(its content differs from that of .*a\.txt\)"),
        ({"service": "https://t"}, r"the service \(was https://s, now https://t\)"),
        ({"api_version": "w"}, "the API version"),
        ({"model": "n"}, r"the model \(was m, now n\)"),
        ({"parameters": {"dimension": 9}}, r"the parameter dimension \(was 8, now 9\)"),
        ({"parameters": {}}, r"the parameter dimension \(was 8, now not given\)"),
        ({"columns": Columns(text=FieldText("body"))}, r"the text \(was the field 'text', now the field 'body'\)"),
        ({"columns": Columns(id="id")}, r"the id \(was not given, now id\)"),
        ({"columns": Columns(keep=("x",))}, r"the kept columns \(was none, now x\)"),
    ],
)
def test_any_change_is_refused_and_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    before = print_of(tmp_path / "a.txt")
    with pytest.raises(JobChangedError, match=said):
        choose_portion([Portion(before, 0, 1)], print_of(tmp_path / "a.txt", **change), append=False)
    if "content" not in change:
        with pytest.raises(JobChangedError, match=f"other settings changed too: {said}"):
            choose_portion([Portion(before, 0, 1)], print_of(tmp_path / "a.txt", **change), append=True)


def test_versions_that_differ_in_nothing_but_the_version_are_the_same_job(tmp_path: Path) -> None:
    earlier = print_of(tmp_path / "a.txt", api_version="2025-10")
    for version, changes in (("2026-04", 0), ("2026-07", 0), ("2025-04", 1), ("2026-10", 1)):
        assert len(differences(earlier, print_of(tmp_path / "a.txt", api_version=version))) == changes


def test_another_input_is_added_behind_those_that_are_read(tmp_path: Path) -> None:
    first, second = print_of(tmp_path / "a.txt"), print_of(tmp_path / "b.txt", b"x\ny\n")
    portions, place = choose_portion([Portion(first, 0, 1)], second, append=True)
    assert (place, portions[1]) == (1, Portion(second, 1))
    # The same again goes on with it, however it is asked for.
    for append in (True, False):
        assert choose_portion(portions, second, append=append) == (portions, 1)
        assert choose_portion(portions, first, append=append) == (portions, 0)
    with pytest.raises(JobChangedError, match="not been read to the end"):
        choose_portion(portions, print_of(tmp_path / "c.txt", b"z\n"), append=True)


def rows_of(*rows: int) -> RowSet:
    result = RowSet()
    result.add(rows)
    return result


def ledger_of(done: RowSet, failed: RowSet, *, retry: bool = False, rows: int | None = 4) -> JobLedger:
    fingerprint = Fingerprint((), "s", "v", "m", {}, "t", None, ())
    return JobLedger(Portion(fingerprint, 10, rows), done, failed, retry_failures=retry)


def test_what_is_neither_done_nor_failed_is_wanted() -> None:
    ledger = ledger_of(rows_of(3, 10, 12), rows_of(13))
    assert [row for row in range(10, 14) if ledger.is_wanted(row)] == [11]
    counts = ledger.counts()
    assert (counts.done, counts.failed, counts.total, counts.missing) == (2, 1, 4, 1)
    ledger.note_embedded([11])
    assert ledger.is_settled
    # What is sent is decided when a run begins, and each row is asked for once.
    assert ledger.is_wanted(11)


def test_a_retry_wants_what_failed_and_nothing_behind_it() -> None:
    ledger = ledger_of(rows_of(10), rows_of(11, 12), retry=True)
    assert [row for row in range(10, 14) if ledger.is_wanted(row)] == [11, 12]
    assert not ledger.is_behind_all_wanted(12)
    assert ledger.is_behind_all_wanted(13)
    ledger.note_embedded([11])
    ledger.note_failed([12])
    assert (ledger.counts().done, ledger.counts().failed, ledger.is_settled) == (2, 1, False)
    ledger.note_embedded([12])
    assert ledger.is_settled


def test_an_input_of_unknown_length_is_settled_once_its_end_is_known() -> None:
    ledger = ledger_of(rows_of(10, 11), RowSet(), rows=None)
    assert (ledger.counts().done, ledger.counts().missing, ledger.is_settled) == (2, None, False)
    ledger.note_end(12)
    assert ledger.portion.rows == 2
    assert ledger.is_settled
