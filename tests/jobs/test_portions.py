"""Which rows of a job an input belongs to: the same again, a grown one, standard input, and a retry of its failures."""

import asyncio
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pinecone_embed_async import AuthenticationError
from pinecone_embed_async._jobs._errors import JobChangedError, SourceError, TokensSpentError
from pinecone_embed_async._jobs._fingerprint import Fingerprint, take_fingerprint
from pinecone_embed_async._jobs._inputs import InputFormat, find_inputs
from pinecone_embed_async._jobs._job import Job
from pinecone_embed_async._jobs._ledger import Counts
from pinecone_embed_async._jobs._opening import Options, open_job
from pinecone_embed_async._jobs._sources import Columns, Row
from pinecone_embed_async.cli import cli
from tests.jobs.by_hand import Service, expected, table_of


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(numbers: Iterable[int]) -> str:
    return "".join(f"text {number}\n" for number in numbers)


def run(names: str | list[str], service: Service, *, columns: Columns | None = None, **options: Any) -> Job:
    """Run the job of the folder `out` from inputs in the working folder."""
    given = [names] if isinstance(names, str) else names
    files = find_inputs(given, format=InputFormat.TXT if "-" in given else None)
    chosen = columns or Columns()

    def fingerprint(given: Any, known: Any) -> Fingerprint:
        return take_fingerprint(given, chosen, service="s", api_version="v", model="m", parameters={}, known=known)

    with open_job(Path("out"), files, chosen, fingerprint, Options(**options)) as job:
        asyncio.run(job.run(service.stream, lambda _: None))
    return job


def piped(content: str, service: Service, **options: Any) -> Job:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        return run("-", service, **options)


def table() -> dict[int, list[float]]:
    return table_of(Path("in").absolute())


@pytest.mark.parametrize("saving", ["dedupe", "unique_ids", "append"])
@pytest.mark.parametrize("other", [range(2, 5), range(2, 4), range(1)])
def test_other_standard_input_is_refused_after_one_that_was_saved(
    at: Path, service: Service, saving: str, other: range
) -> None:
    piped(lines([0, 1]), service, **{saving: True})
    with pytest.raises(JobChangedError, match=r"standard input .*differs .*--append adds the rows of the new input"):
        piped(lines(other), service)
    assert piped(lines([0, 1]), service).ledger.is_settled
    assert (service.sent, table()) == (["text 0", "text 1"], expected(0, 1))


def test_standard_input_without_append_goes_on_with_the_rows_that_it_gave(at: Path, service: Service) -> None:
    for append, numbers in ((False, [0, 1]), (True, [2, 3, 4])):
        piped(lines(numbers), service, append=append)
    for numbers in ([0, 1], [2, 3, 4]):
        assert piped(lines(numbers), service).progress().counts.total == len(numbers)
    with pytest.raises(JobChangedError):
        piped(lines([5, 6]), service)
    assert table() == expected(*range(5))


def test_nothing_of_other_standard_input_enters_a_half_done_job(at: Path, service: Service) -> None:
    with pytest.raises(TokensSpentError):
        piped(lines(range(4)), service, dedupe=True, most_tokens=6)
    done = len(service.sent)
    assert 0 < done < 4
    with pytest.raises(JobChangedError, match=r"standard input .*differs"):
        piped(lines(range(10, 14)), service)
    assert len(service.sent) == done
    piped(lines(range(4)), service)
    assert table() == expected(*range(4))


def test_a_job_whose_saved_standard_input_has_a_size_and_a_time_goes_on(at: Path, service: Service) -> None:
    piped(lines([0, 1]), service, dedupe=True)
    state = json.loads(Path("out/_job.json").read_text())
    state["portions"][0]["fingerprint"]["inputs"][0] |= {"size": 14, "modified": 5}
    Path("out/_job.json").write_text(json.dumps(state))
    with pytest.raises(JobChangedError, match=r"standard input .*differs"):
        piped(lines([2, 3]), service)
    piped(lines([0, 1]), service)
    assert table() == expected(0, 1)


def failing(service: Service, *numbers: int) -> None:
    service.refused = lambda text: int(text.split()[-1]) in numbers


def test_a_retry_from_standard_input_embeds_the_failed_rows_of_the_input_it_is_given(at: Path, service: Service) -> None:
    first, second = lines([0, 1, 2]), lines([3, 4])
    failing(service, 1, 3)
    piped(first, service)
    piped(second, service, append=True)
    failing(service)
    service.sent.clear()
    assert piped(first, service, retry_failures=True).progress().counts.failed == 0
    assert (service.sent, sorted(table())) == (["text 1"], [0, 1, 2, 4])
    piped(second, service, retry_failures=True)
    assert (service.sent, table()) == (["text 1", "text 3"], expected(*range(5)))


@pytest.mark.parametrize("portions", [1, 2])
def test_a_retry_from_other_standard_input_is_refused(at: Path, service: Service, portions: int) -> None:
    failing(service, 1, 3)
    piped(lines([0, 1, 2]), service)
    if portions == 2:
        piped(lines([3, 4]), service, append=True)
    failing(service)
    sent = len(service.sent)
    with pytest.raises(JobChangedError, match=r"standard input .*differs"):
        piped(lines([5, 6, 7]), service, retry_failures=True)
    assert len(service.sent) == sent


def test_a_retry_is_refused_if_it_is_unknown_which_standard_input_it_is_given(at: Path, service: Service) -> None:
    failing(service, 1)
    piped(lines([0, 1]), service)
    Path("in.txt").write_text(lines([2]))
    run("in.txt", service, append=True)
    piped(lines([3, 4]), service, append=True)
    # As an earlier version leaves it.
    state = json.loads(Path("out/_job.json").read_text())
    state["portions"][0]["fingerprint"]["inputs"][0]["digest"] = None
    Path("out/_job.json").write_text(json.dumps(state))
    failing(service)
    sent = len(service.sent)
    for given in ([0, 1], [5, 6]):
        with pytest.raises(JobChangedError, match="standard input"):
            piped(lines(given), service, retry_failures=True)
    assert len(service.sent) == sent


BLANKS = "".join("text 0\n" if number % 3 else " \n" for number in range(12))
NO_BLANK = Columns(no_blank=True)


@pytest.mark.parametrize(("before", "now"), [(NO_BLANK, Columns()), (Columns(), NO_BLANK)])
@pytest.mark.parametrize("skip", [True, False])
def test_which_blank_texts_are_embedded_is_part_of_the_job(
    at: Path, service: Service, before: Columns, now: Columns, skip: bool
) -> None:
    Path("in.txt").write_text(lines(range(9)))
    service.fails_after = 4
    with pytest.raises(AuthenticationError):
        run("in.txt", service, columns=before, skip_bad_rows=True)
    sent = len(service.sent)
    with pytest.raises(JobChangedError, match=r"what changed: --no-blank \(was (not )?given, now (not )?given\)"):
        run("in.txt", service, columns=now, skip_bad_rows=skip)
    service.fails_after = None
    assert len(service.sent) == sent
    assert run("in.txt", service, columns=before).progress().counts == Counts(9, 0, 9)


class Blank(Service):
    """Embeds blank texts too."""

    def _answer(self, rows: list[Row]) -> Any:
        return super()._answer([row._replace(text=row.text.strip() or "text 0") for row in rows])


def forget_no_blank() -> None:
    """As an earlier version leaves it."""
    state = json.loads(Path("out/_job.json").read_text())
    state["portions"][0]["fingerprint"].pop("no_blank", None)
    Path("out/_job.json").write_text(json.dumps(state))


def begun_by_an_earlier_version(service: Blank, **options: Any) -> None:
    """A job that is half done, whose saved state does not say which rows are bad."""
    service.fails_after = 4
    with pytest.raises(AuthenticationError):
        run("in.txt", service, **options)
    service.fails_after = None
    forget_no_blank()


def test_rows_that_an_earlier_version_left_out_are_counted_once_when_they_are_embedded(at: Path) -> None:
    service = Blank()
    Path("in.txt").write_text(BLANKS)
    begun_by_an_earlier_version(service, columns=NO_BLANK, skip_bad_rows=True)
    for _ in range(2):
        job = run("in.txt", service, skip_bad_rows=True)
        assert (job.progress().counts, job.progress().counts.missing) == (Counts(12, 0, 12), 0)
    assert not Path("out/_failures.jsonl").exists()


def test_rows_that_an_earlier_version_embedded_are_not_left_out_later(at: Path) -> None:
    service = Blank()
    Path("in.txt").write_text(BLANKS)
    begun_by_an_earlier_version(service)
    for _ in range(2):
        assert run("in.txt", service, columns=NO_BLANK, skip_bad_rows=True).progress().counts == Counts(10, 0, 12, 2)


def test_a_row_that_was_left_out_and_fails_later_counts_as_failed(at: Path) -> None:
    service = Blank()
    Path("in.txt").write_text("text 1\n \n" + lines(range(2, 6)))
    begun_by_an_earlier_version(service, columns=NO_BLANK, skip_bad_rows=True)
    failing(service, 0)
    for _ in range(2):
        job = run("in.txt", service, skip_bad_rows=True)
        assert job.progress().counts == Counts(5, 1, 6)


def test_a_failed_row_that_is_left_out_later_counts_as_left_out(at: Path) -> None:
    service = Blank()
    failing(service, 0)
    Path("in.txt").write_text("text 1\n \ntext 2\n text 3\ntext 4\n")
    begun_by_an_earlier_version(service)
    for _ in range(2):
        job = run("in.txt", service, columns=NO_BLANK, skip_bad_rows=True)
        assert job.progress().counts == Counts(4, 0, 5, 1)


def write(name: str, numbers: Iterable[int]) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(lines(numbers))
    return name


def test_a_grown_file_that_is_not_the_last_input_is_refused(at: Path, service: Service) -> None:
    run(write("a.txt", range(3)), service)
    run(write("b.txt", range(3, 5)), service, append=True)
    write("a.txt", [0, 1, 2, 5])
    for append, told in ((True, "--append would add rows again"), (False, "it belongs to another job")):
        with pytest.raises(JobChangedError, match=rf"{told}.* a\.txt has grown.*new rows in a file of their own"):
            run("a.txt", service, append=append)
    assert table() == expected(*range(5))
    # The last one may grow, and what was cut off may be added.
    run(write("b.txt", range(3, 6)), service, append=True)
    run(write("c.txt", [6]), service, append=True)
    assert table() == expected(*range(7))


@pytest.mark.parametrize("given", ["d", "d/*.txt", "d/1.txt d/0.txt", "e.txt"])
def test_files_that_a_job_holds_are_not_added_again_with_new_ones(at: Path, service: Service, given: str) -> None:
    write("d/1.txt", range(2))
    write("d/2.txt", range(2, 4))
    run("d", service)
    write("d/0.txt", [4])
    Path("e.txt").write_bytes(Path("d/2.txt").read_bytes())
    run(write("last.txt", [5]), service, append=True)
    names = given.split()
    if given == "e.txt":
        names.append("d/0.txt")
    held = "e" if given == "e.txt" else "d/1"
    with pytest.raises(JobChangedError, match=rf"--append would add rows again: {held}\.txt is already in this job"):
        run(names, service, append=True)
    run("d/0.txt", service, append=True)
    assert [int(vector[0]) for _, vector in sorted(table().items())] == [0, 1, 2, 3, 5, 4]


def test_empty_files_and_files_that_begin_alike_are_new(at: Path, service: Service) -> None:
    write("d/1.txt", range(2))
    write("d/empty.txt", [])
    run("d", service)
    write("e/empty.txt", [])
    write("e/2.txt", range(3))
    run("e", service, append=True)
    assert len(table()) == 5


def test_standard_input_that_has_grown_adds_its_new_rows(at: Path, service: Service) -> None:
    for stop in (2, 3, 5):
        piped(lines(range(stop)), service, append=stop > 2)
    assert (service.sent, table()) == ([f"text {number}" for number in range(5)], expected(*range(5)))
    piped(lines([5]), service, append=True)
    with pytest.raises(JobChangedError, match="standard input has grown"):
        piped(lines(range(6)), service, append=True)


@pytest.mark.parametrize("more", ['and ends"\n3,text 3\n', "3,text 3\n"])
def test_a_csv_file_whose_last_row_was_left_out_does_not_grow(at: Path, service: Service, more: str) -> None:
    path = Path("g.csv")
    path.write_text('id,text\n1,text 1\n2,"text 2\n')
    assert run("g.csv", service, skip_bad_rows=True).progress().counts == Counts(1, 0, 2, 1)
    path.write_text(path.read_text() + more)
    for append in (True, False):
        with pytest.raises(JobChangedError, match=r"g\.csv has grown.*new rows in a file of their own"):
            run("g.csv", service, skip_bad_rows=True, append=append)
    assert sorted(table()) == [0]


def test_a_csv_file_whose_last_row_was_embedded_grows(at: Path, service: Service) -> None:
    path = Path("g.csv")
    path.write_text('id,text\n,"text\n 0"\n1\n2,text 2\n')
    run("g.csv", service, skip_bad_rows=True)
    path.write_text(path.read_text() + "3,text 3\n")
    assert run("g.csv", service, skip_bad_rows=True, append=True).progress().counts == Counts(3, 0, 4, 1)


def test_a_pattern_finds_each_file_once(at: Path) -> None:
    for folder in ("d", "d/e", "d/e/f"):
        write(f"{folder}/1.txt", [1])
    assert [file.name for file in find_inputs(["d/**/**/*.txt"])] == ["d/1.txt", "d/e/1.txt", "d/e/f/1.txt"]


def test_a_file_that_is_given_twice_is_warned_of(
    at: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("d/1.txt", [1])
    write("d/2.txt", [2])
    told = "given twice, so that their rows are read twice: d/1.txt; give each file once"
    for inputs, times in ((["d/*.txt", "./d/1.txt"], 1), (["d"], 0)):
        for command in (["estimate"], ["embed", "--out", f"out{times}"], ["embed", "--out", "out.jsonl"]):
            assert cli(command[0], *inputs, *command[1:], *([] if command[0] == "estimate" else ["--emulator"])) == 0
            assert capsys.readouterr().err.count(told) == times


def keyed(name: str, *numbers: int) -> str:
    Path(name).write_text("".join(f'{{"text": "text {number}", "key": "k{number}"}}\n' for number in numbers))
    return name


KEYED = Columns(id="key")


def test_unique_ids_are_promised_only_once_all_earlier_rows_are_embedded(at: Path, service: Service) -> None:
    keyed("a.jsonl", *range(6))
    service.fails_after = 4
    with pytest.raises(AuthenticationError):
        run("a.jsonl", service, columns=KEYED)
    service.fails_after = None
    keyed("b.jsonl", 5)
    with pytest.raises(JobChangedError, match=r"2 rows of its earlier input are not embedded yet.*finish that first"):
        run("b.jsonl", service, columns=KEYED, append=True, unique_ids=True)
    assert len(service.sent) == 4
    run("a.jsonl", service, columns=KEYED, unique_ids=True)
    with pytest.raises(SourceError, match="1 row has the id of an earlier row"):
        run("b.jsonl", service, columns=KEYED, append=True, unique_ids=True)
    keyed("b.jsonl", 6)
    run("b.jsonl", service, columns=KEYED, append=True, unique_ids=True)
    assert table() == expected(*range(7))


def test_ids_of_failed_rows_are_taken(at: Path, service: Service) -> None:
    failing(service, 1)
    Path("a.jsonl").write_text(Path(keyed("a.jsonl", 0, 1, 2)).read_text() + '{"text": null, "key": "k9"}\n')
    run("a.jsonl", service, columns=KEYED, skip_bad_rows=True)
    keyed("b.jsonl", 1)
    with pytest.raises(SourceError, match="1 row has the id of an earlier row"):
        run("b.jsonl", service, columns=KEYED, append=True, unique_ids=True)
    # A row that was left out has no id in the output, and its own input is not compared with itself.
    keyed("b.jsonl", 9)
    for _ in range(2):
        run("b.jsonl", service, columns=KEYED, append=True, unique_ids=True, skip_bad_rows=True)
    run("a.jsonl", service, columns=KEYED, unique_ids=True, skip_bad_rows=True)
    failing(service)
    run("a.jsonl", service, columns=KEYED, unique_ids=True, retry_failures=True, skip_bad_rows=True)
    assert table() == {**expected(0, 1, 2), 4: [9.0] * 2}
