"""Opens a folder's job or starts one: checks who owns the folder, what is done and what the input holds."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec.structs import replace

from pinecone_embed_async._jobs._checking import RowCheck
from pinecone_embed_async._jobs._duplicates import NO_COPIES, Copies, TextDigests
from pinecone_embed_async._jobs._errors import JobChangedError, OutputError, SourceError
from pinecone_embed_async._jobs._exports import fitting_rows
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors, open_own
from pinecone_embed_async._jobs._fingerprint import Fingerprint, InputPrint, has_grown, held_inputs, is_piped
from pinecone_embed_async._jobs._folder import OutputFolder, Portion, held_folder
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._job import Job
from pinecone_embed_async._jobs._kept import KeptColumns, KeptTypes, check_kept_names, kept_of
from pinecone_embed_async._jobs._layouts import Layout, check_layout
from pinecone_embed_async._jobs._ledger import JobLedger, choose_portion, may_grow, occupied
from pinecone_embed_async._jobs._rowset import RowSet
from pinecone_embed_async._jobs._sources import BadRow, Columns, Row, StandardInput, read_all_rows, read_bytes
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._results import Usage

TakeFingerprint = Callable[[Sequence[InputFile], Iterable[InputPrint]], Fingerprint]
"""Takes the fingerprint of a job from its files and the prints known from earlier runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a run does with a folder's job.

    Attributes:
        overwrite: Removes an existing job.
        append: Adds the rows of another input.
        retry_failures: Embeds only the rows that failed.
        dedupe: Sends equal texts once; this reads the input once more.
        skip_bad_rows: Leaves out rows that cannot be embedded, instead of refusing the input.
        unique_ids: Refuses an input with repeated ids.
        layout: The files for an index to import, written beside the table.
        most_tokens: Tokens after which the run ends, by estimate; `None` for no limit.
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
        """Whether standard input is saved to a file first, because it must be read before it is embedded."""
        return self.dedupe or self.append or self.unique_ids


@dataclass(frozen=True, slots=True)
class _Checked:
    """Result of reading an input before embedding it.

    Attributes:
        rows: Number of rows; `None` for standard input, which can be read only once.
        kept: The kept columns; `None` if they are not known.
        warnings: One sentence each.
    """

    rows: int | None
    kept: Any
    warnings: tuple[str, ...] = ()


class _Input:
    """The input of a run.

    Args:
        files: Its files.
        columns: The fields taken from each record.
        fingerprint: The job's fingerprint, with the states of the files.
        options: What the run does.
    """

    def __init__(self, files: Sequence[InputFile], columns: Columns, fingerprint: Fingerprint, options: Options) -> None:
        self._files = files
        self._columns = columns
        self._stamps = fingerprint.stamps()
        self._options = options

    @property
    def can_be_checked(self) -> bool:
        """Whether it can be read before it is embedded; standard input can be read only once."""
        return all(file.path is not None for file in self._files)

    def read(self, first_row: int, source: StandardInput | None = None) -> Iterator[Row | BadRow]:
        """Read the rows; the first has the number `first_row`."""
        rows = read_all_rows(self._files, self._columns, first_row=first_row, stamps=self._stamps, source=source)
        layout = self._options.layout
        return rows if layout is None else fitting_rows(rows, layout, self._columns.keep)

    def check(self, first_row: int = 0, before: Any = None, earlier_ids: Iterable[str] = ()) -> _Checked:
        """Read all rows before anything is spent: count them, find those that cannot be embedded, and determine the types.

        Args:
            first_row: The number of the first row.
            before: The kept columns of the existing output.
            earlier_ids: The ids of the rows already in the output.

        Raises:
            SourceError: Rows cannot be embedded or ids are repeated, and the options do not allow that.
        """
        types = KeptTypes(self._columns.keep, before)
        has_ids = self._columns.id is not None
        rows = RowCheck(has_ids=has_ids, earlier_ids=earlier_ids if has_ids else ())
        for row in rows.embeddable(self.read(first_row)):
            types.show(row)
        told = rows.warnings(skip_bad_rows=self._options.skip_bad_rows, unique_ids=self._options.unique_ids)
        return _Checked(rows.rows, types.schema(), (*types.mixed(), *told))


def _check_whose(folder: OutputFolder, *, known: bool) -> None:
    path, strangers = folder.path, folder.strangers()
    if strangers:
        raise OutputError(
            f"{path}: it holds {strangers[0]}, which no job wrote and which would be read with the table; use another folder"
        )
    if not known and folder.holds_rows():
        raise OutputError(f"{path}: it holds a table but no saved job; --overwrite starts over")


@contextlib.contextmanager
def open_job(
    path: Path,
    files: Sequence[InputFile],
    columns: Columns,
    take_fingerprint: TakeFingerprint,
    options: Options | None = None,
    check_service: Callable[[], Usage] = Usage,
) -> Iterator[Job]:
    """Open a folder's job or start one; the folder is locked while the block runs.

    Args:
        path: The folder.
        files: The input; read once to be checked, unless an earlier run has checked it.
        columns: The fields taken from each record.
        take_fingerprint: Takes the fingerprint of the job.
        options: What to do with the job.
        check_service: Called before rows are overwritten; raises an error if the service would not embed any, and returns
            what it cost to ask.

    Raises:
        JobChangedError: The folder belongs to another job.
        OutputError: The folder cannot be written to, is locked by another run, or holds other files.
        SourceError: An input cannot be read.
    """
    chosen = options or Options()
    _check_options(path, columns, chosen)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(held_folder(path))
        before = _saved_portions(folder, chosen)
        known = [each for portion in before for each in portion.fingerprint.inputs]
        # Standard input that the job knows is compared before any of it is sent.
        if chosen.saves_standard_input or any(is_piped(each) and each.digest is not None for each in known):
            files = [stack.enter_context(_readable_again(file, path)) for file in files]
        now = take_fingerprint(files, known)
        source = _Input(files, columns, now, chosen)
        checked, spent = _overwrite(folder, source, chosen, check_service) if chosen.overwrite else (None, Usage())
        store = stack.enter_context(Store(folder))
        place, portions = _portion_of(store, before, now, files, folder, chosen)
        checked = checked or _checked(source, store, portions[place], chosen)
        store.unify_parts(checked.kept)
        remembered = _Remembered(folder, before, portions, place)
        portion = replace(portions[place], rows=checked.rows)
        # After the check: an input that fails it can be corrected without counting as another job's.
        remembered.save(portion)
        ledger = JobLedger(portion, store.done, store.failed, store.skipped, retry_failures=chosen.retry_failures)
        _check_skipped(ledger, path, chosen)
        job = Job(
            store,
            ledger,
            source.read,
            KeptColumns(columns.keep, checked.kept, is_settled=source.can_be_checked),
            copies=_choose_copies(ledger, source) if chosen.dedupe else NO_COPIES,
            folder=path,
            remember=remembered.save,
            skip_bad_rows=chosen.skip_bad_rows,
            most_tokens=chosen.most_tokens,
            spent=spent,
        )
        job.warnings += checked.warnings
        yield job


def _overwrite(
    folder: OutputFolder, source: _Input, options: Options, check_service: Callable[[], Usage]
) -> tuple[_Checked | None, Usage]:
    """Clear the folder, unless the input or the service refuses the new job.

    Returns:
        What is known of the input, and what it cost to ask the service.
    """
    checked = source.check() if source.can_be_checked else None
    spent = check_service() if folder.holds_rows() else Usage()
    folder.clear()
    folder.lay_out(options.layout)
    return checked, spent


def _checked(source: _Input, store: Store, portion: Portion, options: Options) -> _Checked:
    """Check the input, unless an earlier run has or it cannot be read twice."""
    kept = None if store.schema is None else kept_of(store.schema)
    is_known = portion.rows is not None and kept is not None and not options.unique_ids
    if is_known or not source.can_be_checked:
        return _Checked(portion.rows, kept)
    return source.check(portion.first_row, kept, store.ids_before(portion.first_row))


def _check_options(path: Path, columns: Columns, options: Options) -> None:
    check_kept_names(columns.keep)
    if options.layout is not None:
        check_layout(options.layout, columns.keep)
    if options.retry_failures and not (path / "_job.json").exists():
        raise OutputError(f"{path}: there is no job here whose failures can be retried; leave out --retry-failures")


def _check_skipped(ledger: JobLedger, path: Path, options: Options) -> None:
    skipped = ledger.counts().skipped
    if skipped and not options.skip_bad_rows:
        raise SourceError(
            f"{path}: {skipped:,} rows of this job cannot be embedded and were left out; "
            "--on-bad-row skip leaves them out again"
        )


def _saved_portions(folder: OutputFolder, options: Options) -> tuple[Portion, ...]:
    """The job's saved portions; this also tells the folder where its files are, and checks that they are a job's."""
    try:
        before = folder.portions()
    except OutputError:
        if not options.overwrite:
            raise
        before = ()
    if before:
        folder.lay_out(before[-1].fingerprint.layout)
    folder.remove_leftovers()
    _check_whose(folder, known=options.overwrite or bool(before))
    if options.overwrite:
        return ()
    if not folder.holds_rows():
        folder.lay_out(options.layout)
    return before


def _portion_of(
    store: Store,
    before: Sequence[Portion],
    now: Fingerprint,
    files: Sequence[InputFile],
    folder: OutputFolder,
    options: Options,
) -> tuple[int, tuple[Portion, ...]]:
    rows = RowSet()
    rows.update(store.done)
    rows.update(store.failed)
    if rows:
        rows.update(store.skipped)
    there = occupied(before, rows)
    if not there and store.skipped:
        # Left by an input of which nothing was embedded.
        store.forget_skipped()
    try:
        grown = bool(there) and may_grow(there[-1], store.skipped) and has_grown(there[-1].fingerprint, now, files)
        held = held_inputs([each for portion in there for each in portion.fingerprint.inputs], now, files)
        portions, place = choose_portion(there, now, append=options.append, grown=grown, held=held)
    except JobChangedError as error:
        raise JobChangedError(f"{folder.path}: {error}") from None
    if folder.layout != options.layout:
        raise JobChangedError(f"{folder.path}: it holds a table of another layout; --overwrite starts over")
    first = portions[place].first_row
    missing = first - rows.count_between(0, first)
    if missing and options.unique_ids and now.id is not None:
        raise JobChangedError(
            f"{folder.path}: {missing:,} rows of its earlier input are not embedded yet, and --unique-ids needs their ids; "
            "finish that first, with the same command as for that input"
        )
    return place, portions


class _Remembered:
    """The job's saved state, written only when it changes."""

    def __init__(self, folder: OutputFolder, before: tuple[Portion, ...], portions: tuple[Portion, ...], place: int) -> None:
        self._folder = folder
        self._saved = before
        self._portions = portions
        self._place = place

    def save(self, portion: Portion) -> None:
        """Save the state with this run's portion as it is now."""
        now_there = (*self._portions[: self._place], portion, *self._portions[self._place + 1 :])
        if now_there != self._saved:
            self._folder.remember(now_there)
            self._saved = now_there


def _choose_copies(ledger: JobLedger, source: _Input) -> Copies:
    if ledger.is_settled:
        return NO_COPIES
    digests = TextDigests()
    for row in source.read(ledger.portion.first_row):
        if isinstance(row, BadRow):
            digests.add_none()
        else:
            digests.add(row.text)
    return ledger.choose_copies(digests)


@contextlib.contextmanager
def _readable_again(file: InputFile, folder: Path) -> Iterator[InputFile]:
    """Yield the file; for standard input, a file with its contents that exists while the block runs."""
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
