"""Whole jobs in this process, against the emulator or a stream made by hand."""

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import dataset

from pinecone_embed_async import (
    AuthenticationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedError,
    Failure,
    InvalidRequestError,
    RateLimitError,
    TransportError,
    Usage,
)
from pinecone_embed_async._jobs._errors import JobChangedError, OutputError, SourceError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, take_fingerprint
from pinecone_embed_async._jobs._folder import held_folder
from pinecone_embed_async._jobs._inputs import find_inputs
from pinecone_embed_async._jobs._job import Job, JobProgress, open_job
from pinecone_embed_async._jobs._recorder import Batch, piece_of
from pinecone_embed_async._jobs._sources import Columns, Row

PER_REQUEST = 4


class Service:
    """Embeds rows by hand: the vector of a row is its text's number, twice. Remembers what it was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.refused: Callable[[str], bool] = lambda _: False
        self.fails_after: int | None = None
        self.before_batch: Callable[[], None] = lambda: None

    @contextlib.asynccontextmanager
    async def stream(self, rows: Iterable[Row]) -> AsyncIterator[AsyncIterator[Batch]]:
        yield self._batches(rows)

    async def _batches(self, rows: Iterable[Row]) -> AsyncIterator[Batch]:
        pending: list[Row] = []
        error: EmbedError | None = None
        iterator = iter(rows)
        while error is None:
            try:
                pending.append(next(iterator))
            except StopIteration:
                break
            except EmbedError as raised:
                error = raised
            if len(pending) == PER_REQUEST:
                yield self._answer(pending)
                pending = []
            if self.fails_after is not None and len(self.sent) >= self.fails_after:
                raise AuthenticationError("bad key", status=401)
        if pending:
            yield self._answer(pending)
        if error is not None:
            raise error

    def _answer(self, rows: list[Row]) -> Batch:
        self.before_batch()
        self.sent += [row.text for row in rows]
        refused = [place for place, row in enumerate(rows) if self.refused(row.text)]
        embedded = np.array([place not in refused for place in range(len(rows))])
        vectors = np.array([[float(row.text.split()[-1])] * 2 for row in rows], np.float32)
        failures = tuple(Failure([place], InvalidRequestError("refused", status=400)) for place in refused)
        usage = Usage(total_tokens=len(rows), requests=1)
        return Batch(rows, DenseEmbeddings(vectors, model="m", usage=usage, failures=failures, embedded=embedded))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return texts(tmp_path / "in.txt", range(10))


def texts(path: Path, numbers: Iterable[int]) -> Path:
    path.write_text("".join(f"text {number}\n" for number in numbers))
    return path


def opened(
    source: Path, *, columns: Columns | None = None, model: str = "m", **options: Any
) -> contextlib.AbstractContextManager[Job]:
    files, chosen = find_inputs([str(source)]), columns or Columns()

    def fingerprint(known: Any) -> Fingerprint:
        return take_fingerprint(files, chosen, service="s", api_version="v", model=model, parameters={}, known=known)

    return open_job(source.parent / "out", files, chosen, fingerprint, **options)


def run(source: Path, service: Service, **options: Any) -> Job:
    with opened(source, **options) as job:
        asyncio.run(job.run(service.stream, lambda _: None))
    return job


def table_of(source: Path) -> dict[int, list[float]]:
    read = dataset.dataset(source.parent / "out", format="parquet").to_table().to_pylist()
    assert len({row["row"] for row in read}) == len(read)
    return {row["row"]: row["vector"] for row in read}


def expected(*numbers: int) -> dict[int, list[float]]:
    return {number: [float(number)] * 2 for number in numbers}


def names_in(source: Path) -> list[str]:
    return sorted(path.name for path in (source.parent / "out").iterdir())


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
    with pytest.raises(JobChangedError, match=r"out: it belongs to another job; what changed: .*--overwrite begins anew"):
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
    with pytest.raises(SourceError, match=r"in\.txt: it changed while the job was under way"):
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
    with pytest.raises(OutputError, match="not what it was made from; --overwrite begins anew"):
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


def test_a_kept_field_that_does_not_fit_later_is_told_before_anything_is_sent(tmp_path: Path, service: Service) -> None:
    source = tmp_path / "in.jsonl"
    columns = Columns(keep=("year",))
    source.write_text('{"text": "text 0", "year": 1}\n{"text": "text 1", "year": null}\n')
    run(source, service, columns=columns)
    service.sent.clear()
    source.write_text('{"text": "text 2", "year": "x"}\n')
    with pytest.raises(SourceError, match=r"in\.jsonl:1: the kept field 'year' is text, which does not fit"):
        run(source, service, columns=columns, append=True)
    assert service.sent == []
    read = dataset.dataset(source.parent / "out", format="parquet").to_table()
    assert read["year"].to_pylist() == [1, None]


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
    assert piece_of(Batch([Row("0", "text", "in.txt", 1, 0)], nothing)).failed == []
