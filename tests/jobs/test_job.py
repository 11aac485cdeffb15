"""Whole jobs in this process, against the emulator or a stream made by hand."""

import asyncio
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset, parquet

from pinecone_embed_async import (
    AuthenticationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbeddedBatch,
    EmbedError,
    Failure,
    RateLimitError,
    TransportError,
    Usage,
)
from pinecone_embed_async._jobs import _store
from pinecone_embed_async._jobs._budget import TokenBudget
from pinecone_embed_async._jobs._errors import JobChangedError, OutputError, SourceError, TokensSpentError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, take_fingerprint
from pinecone_embed_async._jobs._folder import held_folder
from pinecone_embed_async._jobs._inputs import InputFormat, find_inputs
from pinecone_embed_async._jobs._job import Job, JobProgress
from pinecone_embed_async._jobs._ledger import Counts
from pinecone_embed_async._jobs._opening import Options, open_job
from pinecone_embed_async._jobs._parts import rewrite_part
from pinecone_embed_async._jobs._recorder import piece_of
from pinecone_embed_async._jobs._sources import Columns, Row
from tests.jobs.by_hand import Service, expected, names_in, opened, run, table_of, texts


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return texts(tmp_path / "in.txt", range(10))


def test_a_job_leaves_a_part_and_what_it_was_made_from(source: Path, service: Service) -> None:
    job = run(source, service)
    assert table_of(source) == expected(*range(10))
    assert names_in(source) == ["_job.json", "_lock", "part-00000.parquet"]
    progress = job.progress()
    assert (progress.counts.done, progress.counts.total, progress.requests, progress.tokens) == (10, 10, 3, 10)


def test_the_same_again_sends_nothing(source: Path, service: Service) -> None:
    run(source, service)
    service.sent.clear()
    job = run(source, service)
    assert (service.sent, names_in(source)) == ([], ["_job.json", "_lock", "part-00000.parquet"])
    assert job.ledger.is_settled


def test_what_was_answered_before_an_error_of_the_whole_job_is_in_the_table(source: Path, service: Service) -> None:
    service.fails_after = 8
    with pytest.raises(AuthenticationError):
        run(source, service)
    assert table_of(source) == expected(*range(8))
    service.fails_after = None
    service.sent.clear()
    run(source, service)
    assert service.sent == ["text 8", "text 9"]
    assert table_of(source) == expected(*range(10))


def test_what_was_answered_before_a_cancellation_is_in_the_journal(source: Path, service: Service) -> None:
    def interrupt() -> None:
        if len(service.sent) == 8:
            raise asyncio.CancelledError

    service.before_batch = interrupt
    with pytest.raises(asyncio.CancelledError):
        run(source, service)
    assert names_in(source) == ["_job.json", "_journal-00000.log", "_lock"]
    service.before_batch = lambda: None
    run(source, service)
    assert service.sent == [f"text {number}" for number in range(10)]
    assert table_of(source) == expected(*range(10))


def test_rows_that_fail_are_listed_not_sent_again_and_retried_on_request(source: Path, service: Service) -> None:
    service.refused = lambda text: text in {"text 3", "text 9"}
    job = run(source, service)
    assert job.progress().counts.failed == 2
    assert set(table_of(source)) == set(range(10)) - {3, 9}
    failures = [json.loads(line) for line in (source.parent / "out" / "_failures.jsonl").read_text().splitlines()]
    assert [(each["row"], each["line"], each["error"]) for each in failures] == [
        (3, 4, "InvalidRequestError"),
        (9, 10, "InvalidRequestError"),
    ]
    service.sent.clear()
    run(source, service)
    assert service.sent == []
    service.refused = lambda text: text == "text 9"
    job = run(source, service, retry_failures=True)
    assert (service.sent, job.progress().counts.failed) == (["text 3", "text 9"], 1)
    service.refused = lambda _: False
    service.sent.clear()
    run(source, service, retry_failures=True)
    assert (service.sent, table_of(source)) == (["text 9"], expected(*range(10)))
    assert "_failures.jsonl" not in names_in(source)
    service.sent.clear()
    run(source, service, retry_failures=True)
    assert service.sent == []


def test_a_retry_leaves_what_is_missing_to_the_next_run(source: Path, service: Service) -> None:
    service.refused, service.fails_after = (lambda text: text == "text 1"), 4
    with pytest.raises(AuthenticationError):
        run(source, service)
    service.refused, service.fails_after = (lambda _: False), None
    service.sent.clear()
    run(source, service, retry_failures=True)
    assert service.sent == ["text 1"]
    run(source, service)
    assert table_of(source) == expected(*range(10))


@pytest.mark.parametrize("change", [{"model": "n"}, {"columns": Columns(keep=("text",))}, {"columns": Columns(id="x")}])
def test_another_job_is_refused_and_nothing_is_touched(source: Path, service: Service, change: dict[str, Any]) -> None:
    run(source, service)
    before = table_of(source)
    with pytest.raises(JobChangedError, match=r"out: it belongs to another job; what changed: .*--overwrite starts over"):
        run(source, service, **change)
    assert table_of(source) == before


def test_a_changed_input_is_refused_added_or_begun_anew(source: Path, service: Service) -> None:
    run(source, service)
    texts(source, range(20, 23))
    with pytest.raises(JobChangedError, match=r"the input .*in\.txt .*--append adds"):
        run(source, service)
    service.sent.clear()
    for _ in range(2):
        run(source, service, append=True)
        assert service.sent == ["text 20", "text 21", "text 22"]
        assert table_of(source) == {**expected(*range(10)), 10: [20.0] * 2, 11: [21.0] * 2, 12: [22.0] * 2}
    run(source, service, overwrite=True)
    assert table_of(source) == {0: [20.0] * 2, 1: [21.0] * 2, 2: [22.0] * 2}
    assert names_in(source) == ["_job.json", "_lock", "part-00000.parquet"]


def test_a_row_that_cannot_be_read_is_told_before_anything_is_sent_and_may_be_corrected(
    tmp_path: Path, service: Service
) -> None:
    source = tmp_path / "in.jsonl"
    lines = [f'{{"text": "text {number}"}}\n' for number in range(9)]
    source.write_text("".join([*lines, '{"body": "x"}\n']))
    with pytest.raises(SourceError, match=r"in\.jsonl:10: no field 'text'"):
        run(source, service)
    assert service.sent == []
    source.write_text("".join([*lines, '{"text": "text 9"}\n']))
    run(source, service)
    assert table_of(source) == expected(*range(10))


def test_an_input_that_cannot_be_read_costs_nobody_an_output(source: Path, service: Service) -> None:
    run(source, service)
    source.write_bytes(b"text 1\n\xff\n")
    with pytest.raises(SourceError, match=r"in\.txt:2: not UTF-8"):
        run(source, service, overwrite=True)
    assert table_of(source) == expected(*range(10))


def test_a_file_that_changes_under_way_ends_the_run_and_is_another_job_after_that(source: Path, service: Service) -> None:
    texts(source, range(3000))

    def write() -> None:
        if len(service.sent) == 8:
            texts(source, range(3001))

    service.before_batch = write
    with pytest.raises(SourceError, match=r"in\.txt: it changed while the job was running"):
        run(source, service)
    done = table_of(source)
    assert len(done) == len(service.sent) > 0
    with pytest.raises(JobChangedError, match="the input"):
        run(source, service)
    texts(source, range(3000))
    service.before_batch = lambda: None
    run(source, service)
    assert table_of(source) == expected(*range(3000))
    assert len(service.sent) == 3000


def test_a_file_that_is_gone_is_told_and_what_is_done_stays(source: Path, service: Service) -> None:
    service.fails_after = 4
    with pytest.raises(AuthenticationError):
        run(source, service)
    source.rename(source.with_name("away.txt"))
    with pytest.raises(SourceError, match=r"in\.txt: No such file"):
        run(source, service)
    source.with_name("away.txt").rename(source)
    service.fails_after = None
    run(source, service)
    assert table_of(source) == expected(*range(10))
    assert len(service.sent) == 10


def test_a_folder_with_other_files_is_refused(source: Path, service: Service) -> None:
    out = source.parent / "out"
    out.mkdir()
    (out / "holiday.parquet").touch()
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"it holds holiday\.parquet"):
            run(source, service, overwrite=overwrite)


def test_a_table_whose_origin_is_lost_is_not_added_to(source: Path, service: Service) -> None:
    run(source, service)
    (source.parent / "out" / "_job.json").unlink()
    with pytest.raises(OutputError, match="a table but no saved job; --overwrite starts over"):
        run(source, service)
    (source.parent / "out" / "_job.json").write_text("{")
    with pytest.raises(OutputError, match=r"_job\.json: it cannot be read"):
        run(source, service)
    run(source, service, overwrite=True)
    assert table_of(source) == expected(*range(10))


@pytest.fixture
def nobody() -> Iterator[None]:
    """Without root's right to write everywhere."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    yield
    os.seteuid(before)


@pytest.mark.usefixtures("nobody")
def test_an_output_that_cannot_be_written_is_told() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "out"
        folder.mkdir()
        for mode in (0o500, 0o000):
            folder.chmod(mode)
            for path in (folder, folder / "deeper"):
                with pytest.raises(OutputError, match="Permission denied"), held_folder(path):
                    pass
        folder.chmod(0o700)


def kept_of(source: Path, name: str) -> list[Any]:
    """A kept column in the order of the rows; all parts must have one type of it."""
    parts = sorted((source.parent / "out").glob("part-*.parquet"))
    assert len({str(parquet.read_schema(part).field(name)) for part in parts}) == 1
    read = dataset.dataset(source.parent / "out", format="parquet").to_table().sort_by("row")
    found: list[Any] = read[name].to_pylist()
    return found


def records(path: Path, years: Sequence[str], first: int = 0) -> Path:
    path.write_text("".join(f'{{"text": "text {first + place}", "year": {year}}}\n' for place, year in enumerate(years)))
    return path


YEAR = Columns(keep=("year",))


@pytest.mark.parametrize(
    ("years", "kept"),
    [
        (["9007199254740993", "1.5"], ["9007199254740993", "1.5"]),
        (["9007199254740992", "1.5"], [9007199254740992.0, 1.5]),
        (["-9007199254740993", "0.5", "null"], ["-9007199254740993", "0.5", None]),
        (["18446744073709551616", "1"], ["18446744073709551616", "1"]),
        (["true", "1"], ["true", "1"]),
        (['"a"', "1"], ['"a"', "1"]),
        (["[1]", '{"a": 1.0}', '"x"'], ["[1]", '{"a":1.0}', '"x"']),
    ],
)
def test_values_that_no_type_holds_unchanged_become_json_text_and_nothing_is_paid_for_twice(
    tmp_path: Path, service: Service, years: list[str], kept: list[Any]
) -> None:
    source = records(tmp_path / "in.jsonl", years)
    for _ in range(2):
        run(source, service, columns=YEAR)
    assert kept_of(source, "year") == kept
    assert len(service.sent) == len(years)


def test_a_column_becomes_json_text_when_an_added_input_does_not_fit_and_every_part_with_it(
    tmp_path: Path, service: Service
) -> None:
    source = records(tmp_path / "in.jsonl", ["1", "null"])
    run(source, service, columns=YEAR)
    records(source, ["2"], 2)
    run(source, service, columns=YEAR, append=True)
    assert kept_of(source, "year") == [1, None, 2]
    records(source, ['"x"'], 3)
    with opened(source, columns=YEAR, append=True) as job:
        [warning] = job.take_warnings()
        assert warning == ("the kept column 'year' becomes JSON text, because no type holds all its values (int64, string)")
        asyncio.run(job.run(service.stream, lambda _: None))
    assert kept_of(source, "year") == ["1", None, "2", '"x"']
    assert service.sent == [f"text {number}" for number in range(4)]


def test_parts_left_by_a_kill_while_a_column_became_json_text_are_written_again(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = records(tmp_path / "in.jsonl", ["1"])
    run(source, service, columns=YEAR)
    for number in (1, 2):
        records(source, [str(number + 1)], number)
        run(source, service, columns=YEAR, append=True)
    records(source, ['"x"'], 3)
    written: list[Path] = []

    def killed_at_the_second(path: Path, schema: Any) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(path)
        rewrite_part(path, schema)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(_store, "rewrite_part", killed_at_the_second)
        run(source, service, columns=YEAR, append=True)
    run(source, service, columns=YEAR, append=True)
    assert kept_of(source, "year") == ["1", "2", "3", '"x"']
    assert len(service.sent) == 4


def piped(content: str, tmp_path: Path, service: Service, **options: Any) -> Job:
    """Run a job of standard input."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        files = find_inputs(["-"], format=InputFormat.JSONL)

        def fingerprint(given: Any, known: Any) -> Fingerprint:
            return take_fingerprint(given, YEAR, service="s", api_version="v", model="m", parameters={}, known=known)

        with open_job(tmp_path / "out", files, YEAR, fingerprint, Options(**options)) as job:
            asyncio.run(job.run(service.stream, lambda _: None))
        return job


def lines_of(years: Iterable[Any], first: int = 0) -> str:
    return "".join(json.dumps({"text": f"text {first + place}", "year": year}) + "\n" for place, year in enumerate(years))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_value_behind_the_first_thousand_rows_of_standard_input_makes_the_column_json_text(
    tmp_path: Path, service: Service, resumed: bool
) -> None:
    years = [*range(1500), "x", 1.5, None]
    given = lines_of(years)
    if resumed:
        service.fails_after = 1200
        with pytest.raises(AuthenticationError):
            piped(given, tmp_path, service)
        service.fails_after = None
    job = piped(given, tmp_path, service)
    assert len(list((tmp_path / "out").glob("part-*"))) == 1 + resumed
    assert kept_of(tmp_path / "in", "year") == [None if year is None else json.dumps(year) for year in years]
    assert service.sent == [f"text {number}" for number in range(1503)]
    assert ["becomes JSON text" in warning for warning in job.take_warnings()] == [True]


@pytest.mark.parametrize(
    ("years", "kind"),
    [([5, 2**53 + 1], pa.int64()), (["x"], pa.string()), ([True], pa.bool_()), ([[1], {"a": 2}], pa.string())],
)
@pytest.mark.parametrize("is_appended", [False, True])
def test_a_column_without_values_so_far_gets_the_type_of_the_first_ones(
    tmp_path: Path, service: Service, years: list[Any], kind: Any, is_appended: bool
) -> None:
    if is_appended:
        source = records(tmp_path / "in.jsonl", ["null"] * 3)
        run(source, service, columns=YEAR)
        assert parquet.read_schema(tmp_path / "out" / "part-00000.parquet").field("year").type == pa.null()
        nulls = 3
        records(source, list(map(json.dumps, years)), nulls)
        with opened(source, columns=YEAR, append=True) as job:
            asyncio.run(job.run(service.stream, lambda _: None))
    else:
        nulls = 1500
        job = piped(lines_of([*[None] * nulls, *years]), tmp_path, service)
    assert job.take_warnings() == []
    assert dataset.dataset(tmp_path / "out", format="parquet").schema.field("year").type == kind
    values = [
        json.dumps(year) if isinstance(year, list) else '{"a":2}' if isinstance(year, dict) else year for year in years
    ]
    assert kept_of(tmp_path / "in", "year") == [*[None] * nulls, *values]
    assert service.sent == [f"text {number}" for number in range(nulls + len(years))]


def test_standard_input_is_added_to_a_job_of_standard_input(tmp_path: Path, service: Service) -> None:
    piped(lines_of([1, 2]), tmp_path, service)
    for first, rows in ((2, 3), (5, 2), (7, 1)):
        # The same again is the same, also after its end.
        for _ in range(2):
            piped(lines_of(range(rows), first), tmp_path, service, append=True)
    assert service.sent == [f"text {number}" for number in range(8)]
    assert sorted(table_of(tmp_path / "in")) == list(range(8))


def test_an_addition_of_standard_input_that_ended_early_goes_on(tmp_path: Path, service: Service) -> None:
    piped(lines_of([1, 2]), tmp_path, service)
    service.fails_after = 6
    with pytest.raises(AuthenticationError):
        piped(lines_of(range(8), 2), tmp_path, service, append=True)
    service.fails_after = None
    piped(lines_of(range(8), 2), tmp_path, service, append=True)
    assert service.sent == [f"text {number}" for number in range(10)]


def test_standard_input_that_holds_something_else_is_not_taken_for_done(tmp_path: Path, service: Service) -> None:
    piped(lines_of([1, 2]), tmp_path, service)
    for other in (lines_of([1, 2, 3]), lines_of([1, 3]), ""):
        with pytest.raises(JobChangedError, match=r"standard input .*(differs|has grown).*--append adds"):
            piped(other, tmp_path, service)
    piped(lines_of([1, 2]), tmp_path, service)
    assert len(service.sent) == 2


def test_a_file_that_has_grown_is_recognised_and_its_tail_is_added(source: Path, service: Service) -> None:
    run(source, service)
    texts(source, range(12))
    with pytest.raises(
        JobChangedError, match="has grown: its first 10 rows are this job's; --append adds only the new rows"
    ):
        run(source, service)
    for _ in range(2):
        run(source, service, append=True)
        run(source, service)
    texts(source, range(15))
    run(source, service, append=True)
    assert service.sent == [f"text {number}" for number in range(15)]
    assert table_of(source) == expected(*range(15))


@pytest.mark.parametrize("changed", ["text 0\ntext 1\ntext 22\n", "text 0\ntext 7\ntext 2\ntext 3\n"])
def test_a_file_whose_last_row_has_grown_is_another_input(tmp_path: Path, service: Service, changed: str) -> None:
    source = tmp_path / "in.txt"
    source.write_text("text 0\ntext 1\ntext 2")
    run(source, service)
    source.write_text(changed)
    with pytest.raises(JobChangedError, match="its content differs from that of"):
        run(source, service)


@pytest.mark.parametrize("wrong", [{"model": "wrong"}, {"columns": Columns(keep=("text",))}])
def test_a_folder_that_nothing_was_embedded_in_is_nobodys(source: Path, service: Service, wrong: dict[str, Any]) -> None:
    service.fails_after = 0
    with pytest.raises(AuthenticationError):
        run(source, service, **wrong)
    service.fails_after = None
    run(source, service)
    assert table_of(source) == expected(*range(10))


def test_an_addition_that_nothing_was_embedded_of_leaves_no_gap(source: Path, service: Service) -> None:
    run(source, service)
    service.sent.clear()
    texts(source, range(90, 99))
    service.fails_after = 0
    with pytest.raises(AuthenticationError):
        run(source, service, append=True)
    service.fails_after = None
    texts(source, [10])
    run(source, service, append=True)
    assert table_of(source) == expected(*range(11))


def test_failures_can_only_be_tried_again_where_a_job_is(source: Path, service: Service) -> None:
    with pytest.raises(OutputError, match="there is no job here whose failures can be retried"):
        run(source, service, retry_failures=True)
    assert not (source.parent / "out").exists()


@pytest.mark.parametrize("name", ["_lock", "_failures.jsonl", "_job.json", "_journal-00000.log", "part-00000.parquet"])
def test_a_link_in_the_place_of_a_file_of_the_job_is_refused_and_its_target_stays(
    source: Path, service: Service, name: str
) -> None:
    out, target = source.parent / "out", source.parent / "precious"
    out.mkdir()
    target.write_text("precious")
    (out / name).symlink_to(target)
    service.refused = lambda text: text == "text 3"
    with pytest.raises(OutputError, match=f"{name}: (it is a symbolic link|this part cannot be read)|holds a table"):
        run(source, service)
    assert target.read_text() == "precious"


def test_what_holds_texts_is_its_owners_and_parts_follow_the_umask(source: Path, service: Service) -> None:
    modes: dict[str, int] = {}

    def look() -> None:
        modes.update({path.name: path.stat().st_mode & 0o777 for path in (source.parent / "out").iterdir()})

    service.before_batch = look
    service.refused = lambda text: text == "text 3"
    before = os.umask(0o027)
    try:
        run(source, service)
    finally:
        os.umask(before)
    look()
    assert modes.pop("part-00000.parquet") == 0o640
    assert set(modes) == {"_lock", "_job.json", "_journal-00000.log", "_failures.jsonl"}
    assert set(modes.values()) == {0o600}


def test_an_empty_input_makes_an_empty_table_which_the_next_rows_replace(tmp_path: Path, service: Service) -> None:
    source = tmp_path / "in.txt"
    source.touch()
    for _ in range(2):
        run(source, service, model="multilingual-e5-large")
        read = dataset.dataset(tmp_path / "out", format="parquet").to_table()
        assert (read.num_rows, str(read.schema.field("vector").type)) == (0, "fixed_size_list<element: float>[1024]")
    texts(source, range(3))
    run(source, service, model="multilingual-e5-large")
    assert table_of(source) == expected(*range(3))


BAD = '{"text": "text 0"}\n{"text": null}\n{"body": "secret"}\nnot json secret\n{"text": "text 4"}\n'


def test_all_rows_that_cannot_be_embedded_are_counted_and_the_first_named(tmp_path: Path, service: Service) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(BAD * 5)
    with pytest.raises(SourceError) as raised:
        run(source, service)
    assert str(raised.value).startswith("15 rows cannot be embedded: ")
    assert str(raised.value).count("in.jsonl:") == 10
    assert str(raised.value).endswith("; and 5 more; --on-bad-row skip leaves such rows out")
    assert service.sent == []


def test_rows_that_cannot_be_embedded_are_left_out_on_request_and_listed_without_their_content(
    tmp_path: Path, service: Service
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(BAD)
    for retry in (False, True, False):
        job = run(source, service, skip_bad_rows=True, retry_failures=retry)
        assert job.progress().counts == Counts(2, 0, 5, 3)
    assert service.sent == ["text 0", "text 4"]
    assert table_of(source) == expected(0, 4)
    told = (tmp_path / "out" / "_failures.jsonl").read_text()
    assert "secret" not in told
    assert [(each["row"], each["line"], each["error"]) for each in map(json.loads, told.splitlines())] == [
        (number, number + 1, "SkippedRow") for number in (1, 2, 3)
    ]
    with pytest.raises(SourceError, match="3 rows of this job cannot be embedded and were left out"):
        run(source, service)


def test_an_input_of_bad_rows_alone_is_left_out_whole_and_is_nobodys(tmp_path: Path, service: Service) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": null}\n')
    job = run(source, service, skip_bad_rows=True)
    assert job.progress().counts == Counts(0, 0, 1, 1)
    assert dataset.dataset(tmp_path / "out", format="parquet").to_table().num_rows == 0
    source.write_text('{"text": "text 0"}\n')
    run(source, service)
    assert table_of(source) == expected(0)
    assert not (tmp_path / "out" / "_failures.jsonl").exists()


def test_added_rows_that_are_all_left_out_keep_their_numbers(tmp_path: Path, service: Service) -> None:
    source = texts(tmp_path / "in.jsonl", [])
    source.write_text('{"text": "text 0"}\n')
    run(source, service)
    for bad, good in (("null", 3), ("5", 4)):
        source.write_text(f'{{"text": {bad}}}\n')
        for _ in range(2):
            assert run(source, service, append=True, skip_bad_rows=True).progress().counts == Counts(0, 0, 1, 1)
        source.write_text(f'{{"text": "text {good}"}}\n')
        run(source, service, append=True)
    assert table_of(source) == {0: [0.0] * 2, 2: [3.0] * 2, 4: [4.0] * 2}


def test_bad_rows_of_standard_input_are_left_out_as_they_come(tmp_path: Path, service: Service) -> None:
    given = BAD.replace('"text 0"', '"text 0", "year": 1').replace('"text 4"', '"text 4", "year": 1')
    for _ in range(2):
        job = piped(given, tmp_path, service, skip_bad_rows=True)
        assert job.progress().counts == Counts(2, 0, 5, 3)
    assert service.sent == ["text 0", "text 4"]


def test_copies_go_past_rows_that_cannot_be_embedded(tmp_path: Path, service: Service) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(BAD + BAD)
    run(source, service, skip_bad_rows=True, dedupe=True)
    assert service.sent == ["text 0", "text 4"]
    assert table_of(source) == {0: [0.0] * 2, 4: [4.0] * 2, 5: [0.0] * 2, 9: [4.0] * 2}


def test_a_run_begins_no_row_that_would_cost_more_than_it_may_and_the_next_goes_on(tmp_path: Path, service: Service) -> None:
    # Four tokens a row, by estimate; the service bills one.
    source = texts(tmp_path / "in.txt", range(10, 90))
    ends = []
    for _ in range(100):
        try:
            run(source, service, most_tokens=40)
        except TokensSpentError as error:
            ends.append(str(error))
        else:
            break
    assert service.sent == [f"text {number}" for number in range(10, 90)]
    # At least the ten that the estimate allows, more as the bills turn out to be lower.
    assert 2 <= len(ends) <= 7
    assert ends[0].startswith("--max-tokens is reached: ")
    bills = [int(end.split(": ")[1].split()[0]) for end in ends]
    assert all(10 <= bill <= 40 for bill in bills)
    assert len(table_of(source)) == 80


def test_a_budget_counts_what_is_billed_and_what_is_under_way() -> None:
    budget = TokenBudget(100, sequence_length=20)
    # 38 bytes are 11 tokens.
    text = "x" * 38
    assert [budget.begins(text) for _ in range(4)] == [True] * 4
    budget.settle([text, text], 60)
    assert budget.begins(text)
    assert not budget.is_spent
    # Billed 60, under way 33; the longest text counts 20.
    assert not budget.begins("x" * 1000)
    assert budget.is_spent
    assert not budget.begins("x")


def test_rows_with_one_id_are_counted_or_refused(tmp_path: Path, service: Service) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text("".join(f'{{"text": "text {number}", "key": "k{number % 3}"}}\n' for number in range(5)))
    columns = Columns(id="key")
    with pytest.raises(SourceError, match="2 rows have the id of an earlier row, and --unique-ids was given"):
        run(source, service, columns=columns, unique_ids=True)
    with opened(source, columns=columns) as job:
        assert job.take_warnings() == ["2 rows have the id of an earlier row; --unique-ids makes this an error"]
    source.write_text('{"text": "text 1", "key": "k1"}\n')
    run(source, service, columns=columns, unique_ids=True)
    assert service.sent == ["text 1"]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_ids_of_added_rows_are_compared_with_those_that_are_there(
    tmp_path: Path, service: Service, monkeypatch: pytest.MonkeyPatch, *, is_stopped: bool
) -> None:
    source, columns = tmp_path / "in.jsonl", Columns(id="key")

    def write(*keys: int) -> None:
        source.write_text("".join(f'{{"text": "text {key}", "key": "k{key}"}}\n' for key in keys))

    write(0, 0, 1, 2)
    with monkeypatch.context() as patched:
        if is_stopped:
            # The rows stay in the journal.
            patched.setattr(_store.Store, "finish_segment", lambda _: None)
        run(source, service, columns=columns)
    assert bool(list((tmp_path / "out").glob("_journal-*"))) == is_stopped
    write(2, 3, 1)
    with pytest.raises(SourceError, match="2 rows have the id of an earlier row, and --unique-ids was given"):
        run(source, service, columns=columns, append=True, unique_ids=True)
    with opened(source, columns=columns, append=True) as job:
        assert job.take_warnings() == ["2 rows have the id of an earlier row; --unique-ids makes this an error"]
    write(4, 5)
    run(source, service, columns=columns, append=True, unique_ids=True)
    # What is there of this very input does not count.
    assert run(source, service, columns=columns, append=True, unique_ids=True).take_warnings() == []
    assert len(table_of(source)) == 6


def test_what_a_job_is_made_from_is_written_once(source: Path, service: Service) -> None:
    states: list[int] = []
    service.before_batch = lambda: states.append((source.parent / "out" / "_job.json").stat().st_ino)
    run(source, service)
    # A full disk would be told twice.
    assert set(states) == {(source.parent / "out" / "_job.json").stat().st_ino}


# Rows with equal texts.


def repeated(path: Path, count: int = 3000, different: int = 40, every: int = 7) -> dict[int, list[float]]:
    """Rows of which most repeat another's text; gives the table that they make."""
    numbers = [number % different if number % every else number + different for number in range(count)]
    texts(path, numbers)
    return {row: [float(number)] * 2 for row, number in enumerate(numbers)}


def test_equal_texts_are_sent_once_and_every_row_is_in_the_table(source: Path, service: Service) -> None:
    table = repeated(source)
    reported: list[JobProgress] = []
    with opened(source, dedupe=True, columns=Columns(keep=("text",))) as job:
        assert job.progress().duplicates == 3000 - len({each[0] for each in table.values()})
        asyncio.run(job.run(service.stream, reported.append))
    assert len(service.sent) == len(set(service.sent)) == len({each[0] for each in table.values()})
    assert table_of(source) == table
    read = dataset.dataset(source.parent / "out", format="parquet").to_table().to_pylist()
    assert all(each["text"] == f"text {each['vector'][0]:.0f}" and each["id"] == str(each["row"]) for each in read)
    assert [name for name in names_in(source) if not name.startswith("part-")] == ["_job.json", "_lock"]
    last = reported[-1]
    assert (last.counts.done, last.counts.failed, last.duplicates) == (3000, 0, 0)
    service.sent.clear()
    # It is the same job with and without.
    run(source, service, columns=Columns(keep=("text",)))
    assert service.sent == []


@pytest.mark.parametrize("dedupe", [True, False])
def test_what_was_embedded_without_it_is_copied_too(source: Path, service: Service, dedupe: bool) -> None:
    table = repeated(source)
    service.fails_after = 80
    with pytest.raises(AuthenticationError):
        run(source, service, dedupe=dedupe)
    service.fails_after = None
    before = set(service.sent)
    service.sent.clear()
    run(source, service, dedupe=True)
    assert not before & set(service.sent)
    assert len(service.sent) == len(set(service.sent))
    assert table_of(source) == table


def test_copies_fail_with_what_they_are_copies_of_and_are_retried_together(source: Path, service: Service) -> None:
    table = repeated(source)
    service.refused = lambda text: text in {"text 3", "text 5"}
    failing = {row for row, vector in table.items() if vector[0] in (3, 5)}
    job = run(source, service, dedupe=True)
    assert job.progress().counts.failed == len(failing)
    assert table_of(source) == {row: vector for row, vector in table.items() if row not in failing}
    failures = [json.loads(line) for line in (source.parent / "out" / "_failures.jsonl").read_text().splitlines()]
    assert {each["row"] for each in failures} == failing
    assert {(each["error"], each["message"]) for each in failures} == {("InvalidRequestError", "400: refused")}
    assert all(each["line"] == each["row"] + 1 for each in failures)
    service.sent.clear()
    run(source, service, dedupe=True)
    assert service.sent == []
    service.refused = lambda text: text == "text 5"
    run(source, service, dedupe=True, retry_failures=True)
    assert sorted(service.sent) == ["text 3", "text 5"]
    assert table_of(source) == {row: vector for row, vector in table.items() if vector[0] != 5}
    service.refused = lambda _: False
    run(source, service, retry_failures=True)
    assert table_of(source) == table
    assert "_failures.jsonl" not in names_in(source)


def test_a_run_that_ends_while_it_copies_goes_on_with_the_rest(source: Path, service: Service) -> None:
    table = repeated(source, 60_000, every=500)

    async def cancelled(job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None
        at_first = job.progress().duplicates

        def report(progress: JobProgress) -> None:
            if progress.duplicates < at_first:
                task.cancel()

        await job.run(service.stream, report)

    with opened(source, dedupe=True) as job, pytest.raises(asyncio.CancelledError):
        asyncio.run(cancelled(job))
    sent, done = len(service.sent), job.progress().counts.done
    assert sent < done < 60_000
    assert not [name for name in names_in(source) if name.endswith(".partial")]
    job = run(source, service, dedupe=True)
    assert len(service.sent) == sent
    assert (table_of(source), job.progress().counts.done) == (table, 60_000)


def test_rows_of_another_input_are_copied_among_themselves(source: Path, service: Service) -> None:
    run(source, service, dedupe=True)
    texts(source, [3, 3, 4, 3])
    service.sent.clear()
    run(source, service, dedupe=True, append=True)
    assert service.sent == ["text 3", "text 4"]
    assert table_of(source) == {**expected(*range(10)), 10: [3.0] * 2, 11: [3.0] * 2, 12: [4.0] * 2, 13: [3.0] * 2}


def no_connection() -> TransportError:
    error = TransportError("no such host")
    error.ends_job = True
    return error


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("bad key", status=401),
        RateLimitError("nothing was accepted for long", status=429),
        DeadlineExceededError("too late"),
        no_connection(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_rows_that_met_an_error_of_the_whole_job_do_not_count_as_failed(error: EmbedError) -> None:
    nothing = DenseEmbeddings(
        np.full((1, 2), np.nan, np.float32),
        model="m",
        usage=Usage(),
        failures=(Failure([0], error),),
        embedded=np.array([False]),
    )
    assert piece_of(EmbeddedBatch(0, [Row("0", "text", "in.txt", 1, 0)], nothing)).failed == []
