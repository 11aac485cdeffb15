"""Opens the job of a folder or begins one: whose the folder is, what is done, what the input holds."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec.structs import replace

from pinecone_embed_async._jobs._duplicates import NO_COPIES, Copies, TextDigests
from pinecone_embed_async._jobs._errors import JobChangedError, OutputError, SourceError
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors, open_own
from pinecone_embed_async._jobs._fingerprint import Fingerprint, InputPrint, has_grown
from pinecone_embed_async._jobs._folder import OutputFolder, Portion, held_folder
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._job import Job
from pinecone_embed_async._jobs._kept import KeptColumns, KeptTypes, check_kept_names, kept_of
from pinecone_embed_async._jobs._layouts import Layout, check_layout, fitting_rows
from pinecone_embed_async._jobs._ledger import JobLedger, choose_portion, occupied
from pinecone_embed_async._jobs._rowset import RowSet
from pinecone_embed_async._jobs._sources import BadRow, Columns, Row, StandardInput, read_all_rows, read_bytes
from pinecone_embed_async._jobs._store import Store

TakeFingerprint = Callable[[Sequence[InputFile], Iterable[InputPrint]], Fingerprint]
"""Takes the fingerprint of a job, given its files and what is known of them."""

_NAMED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run does with the job of a folder.

    Attributes:
        overwrite: Removes an existing job.
        append: Adds the rows of another input.
        retry_failures: Embeds the rows that failed, and only those.
        dedupe: Sends equal texts once. For that the input is read once more.
        skip_bad_rows: Leaves out the rows that cannot be embedded, instead of refusing the input.
        unique_ids: Refuses an input with two rows of one id.
        layout: The files for an index to import that are written beside the table.
        most_tokens: Tokens after which it ends, as far as estimates tell.
    """

    overwrite: bool = False
    append: bool = False
    retry_failures: bool = False
    dedupe: bool = False
    skip_bad_rows: bool = False
    unique_ids: bool = False
    layout: Layout | None = None
    most_tokens: int | None = None

    @property
    def saves_standard_input(self) -> bool:
        """Whether standard input is saved to a file first, for it must be known before it is embedded."""
        return self.dedupe or self.append or self.unique_ids


@dataclass(frozen=True, slots=True)
class _Checked:
    """What reading an input has shown.

    Attributes:
        rows: How many there are; `None` for standard input, which can be read once only.
        kept: The kept columns; `None` if they are not known.
        warnings: A sentence about each thing worth one.
    """

    rows: int | None
    kept: Any
    warnings: tuple[str, ...] = ()


def _check(rows: Iterable[Row | BadRow], columns: Columns, before: Any, options: Options) -> _Checked:
    """Read all rows before anything is spent: find those that cannot be embedded, count, and determine the types.

    Raises:
        SourceError: Rows cannot be embedded, or have one id, and must not.
    """
    types = KeptTypes(columns.keep, before)
    ids = TextDigests()
    bad: list[BadRow] = []
    count = bad_count = 0
    for row in rows:
        count += 1
        if isinstance(row, BadRow):
            bad_count += 1
            if len(bad) < _NAMED:
                bad.append(row)
            continue
        types.show(row)
        if columns.id is not None:
            ids.add(row.id)
    if bad and not options.skip_bad_rows:
        raise SourceError(refusal_of(bad, bad_count))
    warnings = types.mixed()
    repeated = ids.repeated()
    if repeated:
        told = f"{repeated:,} {'row has' if repeated == 1 else 'rows have'} the id of an earlier row"
        if options.unique_ids:
            raise SourceError(f"{told}, and --unique-ids was given")
        warnings.append(f"{told}; --unique-ids makes this an error")
    return _Checked(count, types.schema(), tuple(warnings))


def refusal_of(bad: Sequence[BadRow], count: int) -> str:
    """The message about rows that cannot be embedded.

    Args:
        bad: The first of them.
        count: How many there are.
    """
    cure = "--on-bad-row skip leaves such rows out"
    if count == 1:
        return f"{bad[0]}; {cure}"
    more = f"; and {count - len(bad):,} more" if count > len(bad) else ""
    return f"{count:,} rows cannot be embedded: {'; '.join(map(str, bad))}{more}; {cure}"


def _check_whose(folder: OutputFolder, path: Path, *, known: bool) -> None:
    strangers = folder.strangers()
    if strangers:
        raise OutputError(
            f"{path}: it holds {strangers[0]}, which no job wrote and which would be read with the table; "
            "name another folder"
        )
    if not known and folder.holds_rows():
        raise OutputError(f"{path}: it holds a table, but not what it was made from; --overwrite begins anew")


@contextlib.contextmanager
def open_job(
    path: Path,
    files: Sequence[InputFile],
    columns: Columns,
    take_fingerprint: TakeFingerprint,
    options: Options | None = None,
) -> Iterator[Job]:
    """Open the job of a folder, or begin one; the folder is held while the block runs.

    Inputs that are not known yet are read once, to be checked.

    Args:
        path: The folder.
        files: The input.
        columns: The fields taken from each record.
        take_fingerprint: Takes the fingerprint of the job.
        options: What is done with the job.

    Raises:
        JobChangedError: The folder belongs to another job.
        OutputError: The folder cannot be written to, is held by another run, or holds other files.
        SourceError: An input cannot be read.
    """
    chosen = options or Options()
    _check_options(path, columns, chosen)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(held_folder(path))
        before = _saved_portions(folder, chosen)
        _check_whose(folder, path, known=chosen.overwrite or bool(before))
        if chosen.saves_standard_input:
            files = [stack.enter_context(_readable_again(file, path)) for file in files]
        now = take_fingerprint(files, [each for portion in before for each in portion.fingerprint.inputs])

        def read(first_row: int, source: StandardInput | None = None) -> Iterator[Row | BadRow]:
            rows = read_all_rows(files, columns, first_row=first_row, stamps=now.stamps(), source=source)
            return rows if chosen.layout is None else fitting_rows(rows, chosen.layout, columns.keep)

        can_be_checked = all(file.path is not None for file in files)
        # Before the folder is cleared, so that an unreadable input does not cost the old output.
        checked = _check(read(0), columns, None, chosen) if chosen.overwrite and can_be_checked else None
        if chosen.overwrite:
            folder.clear()
            folder.lay_out(chosen.layout)
        store = stack.enter_context(Store(folder))
        place, portions = _portion_of(store, before, now, files, path, chosen)
        portion = portions[place]
        kept = None if store.schema is None else kept_of(store.schema)
        is_known = checked is not None or (portion.rows is not None and kept is not None and not chosen.unique_ids)
        checked = checked or _Checked(portion.rows, kept)
        if can_be_checked and not is_known:
            checked = _check(read(portion.first_row), columns, kept, chosen)
        store.unify_parts(checked.kept)
        remembered = _Remembered(folder, before, portions, place)
        portion = replace(portion, rows=checked.rows)
        # After the check, so that an input corrected after a failed check is not another job's.
        remembered.save(portion)
        ledger = JobLedger(portion, store.done, store.failed, store.skipped, retry_failures=chosen.retry_failures)
        _check_skipped(ledger, path, chosen)
        copies = _choose_copies(ledger, read(portion.first_row)) if chosen.dedupe and not ledger.is_settled else NO_COPIES
        kept_columns = KeptColumns(columns.keep, checked.kept, is_settled=can_be_checked)
        job = Job(
            store,
            ledger,
            read,
            kept_columns,
            copies=copies,
            folder=path,
            remember=remembered.save,
            skip_bad_rows=chosen.skip_bad_rows,
            most_tokens=chosen.most_tokens,
        )
        job.warnings += checked.warnings
        yield job


def _check_options(path: Path, columns: Columns, options: Options) -> None:
    check_kept_names(columns.keep)
    if options.layout is not None:
        check_layout(options.layout, columns.keep)
    if options.retry_failures and not (path / "_job.json").exists():
        raise OutputError(f"{path}: there is no job here whose failures could be tried again; leave out --retry-failures")


def _check_skipped(ledger: JobLedger, path: Path, options: Options) -> None:
    skipped = ledger.counts().skipped
    if skipped and not options.skip_bad_rows:
        raise SourceError(
            f"{path}: {skipped:,} rows of this job cannot be embedded and were left out; "
            "--on-bad-row skip leaves them out again"
        )


def _saved_portions(folder: OutputFolder, options: Options) -> tuple[Portion, ...]:
    """The job's saved portions; after this the folder knows where its files are."""
    try:
        before = folder.portions()
    except OutputError:
        if not options.overwrite:
            raise
        before = ()
    if before:
        folder.lay_out(before[-1].fingerprint.layout)
    folder.remove_leftovers()
    if options.overwrite:
        return ()
    if not folder.holds_rows():
        folder.lay_out(options.layout)
    return before


def _portion_of(
    store: Store, before: Sequence[Portion], now: Fingerprint, files: Sequence[InputFile], path: Path, options: Options
) -> tuple[int, tuple[Portion, ...]]:
    rows = RowSet()
    rows.update(store.done)
    rows.update(store.failed)
    if rows:
        rows.update(store.skipped)
    there = occupied(before, rows)
    if not there and store.skipped:
        # All that an input which nothing was embedded of has left.
        store.forget_skipped()
    try:
        grown = bool(there) and has_grown(there[-1].fingerprint, now, files)
        portions, place = choose_portion(there, now, append=options.append, grown=grown)
    except JobChangedError as error:
        raise JobChangedError(f"{path}: {error}") from None
    if before and not there and before[-1].fingerprint.layout != options.layout and store.has_placeholder:
        raise JobChangedError(f"{path}: it holds an empty table of another layout; --overwrite begins anew")
    return place, portions


class _Remembered:
    """The job's saved state, written when it changes."""

    def __init__(self, folder: OutputFolder, before: tuple[Portion, ...], portions: tuple[Portion, ...], place: int) -> None:
        self._folder = folder
        self._saved = before
        self._portions = portions
        self._place = place

    def save(self, portion: Portion) -> None:
        """Save it with this run's portion as it is now."""
        now_there = (*self._portions[: self._place], portion, *self._portions[self._place + 1 :])
        if now_there != self._saved:
            self._folder.remember(now_there)
            self._saved = now_there


def _choose_copies(ledger: JobLedger, rows: Iterable[Row | BadRow]) -> Copies:
    digests = TextDigests()
    for row in rows:
        if isinstance(row, BadRow):
            digests.add_none()
        else:
            digests.add(row.text)
    return ledger.choose_copies(digests)


@contextlib.contextmanager
def _readable_again(file: InputFile, folder: Path) -> Iterator[InputFile]:
    """Yield the file; for standard input a file with its contents, which exists while the block runs."""
    if file.path is not None:
        yield file
        return
    path = folder / f"_input-{token_hex(4)}{PARTIAL_SUFFIX}"
    with contextlib.ExitStack() as stack:
        with file_errors(path):
            stack.callback(path.unlink, missing_ok=True)
            with open_own(path, "xb") as saved:
                saved.writelines(read_bytes(file))
        yield file._replace(path=path)
