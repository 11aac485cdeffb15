"""A resumable job: rows in, a stream of embeddings, a folder of Parquet parts out."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from msgspec.structs import replace

from pinecone_embed_async._errors import EmbedError
from pinecone_embed_async._jobs._copier import copied_rows
from pinecone_embed_async._jobs._duplicates import NO_COPIES, Copies, TextDigests
from pinecone_embed_async._jobs._errors import JobChangedError, OutputError
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors
from pinecone_embed_async._jobs._fingerprint import Fingerprint, InputPrint
from pinecone_embed_async._jobs._folder import OutputFolder, Portion, held_folder
from pinecone_embed_async._jobs._inputs import InputFile
from pinecone_embed_async._jobs._ledger import Counts, JobLedger, choose_portion
from pinecone_embed_async._jobs._recorder import Batch, Recorder, piece_of
from pinecone_embed_async._jobs._rowset import RowNumbers
from pinecone_embed_async._jobs._sources import Columns, Row, read_bytes, read_rows
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._jobs._table import KeptTypes, check_kept_names, kept_of, with_checked_types

Stream = Callable[[Iterable[Row]], AbstractAsyncContextManager[AsyncIterator[Batch]]]
"""Embeds the texts of rows and yields them by requests, as completed; pulls the rows in a thread."""

# Standard input cannot be read twice: its first rows determine the types of the kept columns.
_SAMPLE = 1000


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a run has come.

    Attributes:
        counts: Of the rows of the input.
        requests: Requests of this run that were answered.
        tokens: Tokens that they cost.
        duplicates: Rows that are not sent, for another has the same text, and are not copied yet.
    """

    counts: Counts
    requests: int
    tokens: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class _Checked:
    # `None` for standard input, which can be read once only.
    rows: int | None
    kept: Any


def _check(rows: Iterable[Row], names: Sequence[str], kept: Any) -> _Checked:
    """Read all rows, so that an unreadable one is found before anything is spent; count them and determine the types.

    Raises:
        SourceError: A row cannot be read, or does not fit into the existing kept columns.
    """
    types = KeptTypes(names)
    count = 0
    for row in rows if kept is None else with_checked_types(rows, kept):
        types.show(row)
        count += 1
    return _Checked(count, types.schema() if kept is None else kept)


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
    take_fingerprint: Callable[[Iterable[InputPrint]], Fingerprint],
    *,
    overwrite: bool = False,
    append: bool = False,
    retry_failures: bool = False,
    dedupe: bool = False,
) -> Iterator["Job"]:
    """Open the job of a folder, or begin one; the folder is held while the block runs.

    Inputs that are not known yet are read once, to be checked.

    Args:
        path: The folder.
        files: The input.
        columns: The fields taken from each record.
        take_fingerprint: Takes the fingerprint of the job, given what is known of its files.
        overwrite: Removes an existing job.
        append: Adds the rows of another input.
        retry_failures: Embeds the rows that failed, and only those.
        dedupe: Sends equal texts once. For that the input is read once more, and standard input is saved to a file.

    Raises:
        JobChangedError: The folder belongs to another job.
        OutputError: The folder cannot be written to, is held by another run, or holds other files.
        SourceError: An input cannot be read.
    """
    check_kept_names(columns.keep)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(held_folder(path))
        before = () if overwrite else folder.portions()
        _check_whose(folder, path, known=overwrite or bool(before))
        now = take_fingerprint([each for portion in before for each in portion.fingerprint.inputs])
        try:
            portions, place = choose_portion(before, now, append=append)
        except JobChangedError as error:
            raise JobChangedError(f"{path}: {error}") from None
        portion = portions[place]
        if dedupe:
            files = [stack.enter_context(_readable_again(file, path)) for file in files]

        def read() -> Iterator[Row]:
            return read_rows(files, columns, first_row=portion.first_row, stamps=now.stamps())

        can_be_checked = all(file.path is not None for file in files)
        checked = _Checked(portion.rows, None)
        if overwrite:
            if can_be_checked:
                checked = _check(read(), columns.keep, None)
            # Only now, so that an unreadable input does not cost the old output.
            folder.clear()
        store = stack.enter_context(Store(folder))
        if store.schema is not None:
            checked = _Checked(portion.rows, kept_of(store.schema))
        if can_be_checked and (checked.rows is None or checked.kept is None):
            checked = _check(read(), columns.keep, checked.kept)
        remembered = before

        def remember(portion: Portion) -> None:
            nonlocal remembered
            now_there = (*portions[:place], portion, *portions[place + 1 :])
            if now_there != remembered:
                folder.remember(now_there)
                remembered = now_there

        portion = replace(portion, rows=checked.rows)
        # After the check, so that an input corrected after a failed check is not another job's.
        remember(portion)
        ledger = JobLedger(portion, store.done, store.failed, retry_failures=retry_failures)
        copies = _choose_copies(ledger, read()) if dedupe and not ledger.is_settled else NO_COPIES
        yield Job(store, ledger, read, columns.keep, checked.kept, copies=copies, folder=path, is_checked=can_be_checked)
        remember(ledger.portion)


def _choose_copies(ledger: JobLedger, rows: Iterable[Row]) -> Copies:
    digests = TextDigests()
    for row in rows:
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
            with path.open("xb") as saved:
                saved.writelines(read_bytes(file))
        yield file._replace(path=path)


class Job:
    """An open job.

    Args:
        store: The embedded rows.
        ledger: The states of the rows.
        read: Reads the rows from the first on.
        keep: The kept columns.
        kept: Their types; `None` if the first rows determine them.
        copies: The rows that are not sent, for another has the same text.
        folder: Folder for temporary files of the copies.
        is_checked: Whether all rows are known to fit the types.

    Attributes:
        ledger: As given.
        warnings: The damage found, a sentence each.
    """

    def __init__(
        self,
        store: Store,
        ledger: JobLedger,
        read: Callable[[], Iterator[Row]],
        keep: Sequence[str],
        kept: Any,
        *,
        copies: Copies,
        folder: Path,
        is_checked: bool,
    ) -> None:
        self.ledger = ledger
        self.warnings = store.warnings
        self._store = store
        self._read = read
        self._keep = keep
        self._kept = kept
        self._copies = copies
        self._folder = folder
        self._is_checked = is_checked
        self._not_copied = len(copies.rows)
        self._requests = self._tokens = 0
        self._stop: int | None = None

    def progress(self) -> JobProgress:
        """How far it has come; rows that are not on the disk do not count."""
        return JobProgress(self.ledger.counts(), self._requests, self._tokens, self._not_copied)

    async def run(self, stream: Stream, report: Callable[[JobProgress], None]) -> None:
        """Embed the missing rows, or the failed ones if those are to be retried.

        However it ends, what was answered until then is written and counts. Unless it is cancelled, the table holds it too.

        Args:
            stream: Embeds rows.
            report: Called in the loop whenever rows are on the disk.

        Raises:
            EmbedError: The error, of any kind, that ended it before all rows were tried.
        """
        if self.ledger.is_settled and not self._store.has_rows:
            return

        def recorded(embedded: RowNumbers, failed: RowNumbers) -> None:
            self.ledger.note_embedded(embedded)
            self.ledger.note_failed(failed)
            report(self.progress())

        async with self._recording(recorded) as recorder, stream(self._wanted()) as batches:
            async for batch in batches:
                self._requests += batch.embeddings.usage.requests
                self._tokens += batch.embeddings.usage.total_tokens
                await recorder.add(piece_of(batch))
        if self._not_copied:

            def copied(embedded: RowNumbers, failed: RowNumbers) -> None:
                self._not_copied -= len(embedded) + len(failed)
                recorded(embedded, failed)

            async with self._recording(copied) as recorder:
                pieces = copied_rows(self._store, self._folder, self._read(), self._copies)
                while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                    await recorder.add(piece)
        await asyncio.to_thread(self._store.forget_failures, self.ledger.done)
        if self._stop is not None and self.ledger.portion.rows is None:
            self.ledger.note_end(self._stop)

    @contextlib.asynccontextmanager
    async def _recording(self, recorded: Callable[[RowNumbers, RowNumbers], None]) -> AsyncIterator[Recorder]:
        """Open a recorder that writes what it was given however the block ends, as a part unless it is cancelled."""
        recorder = Recorder(self._store, lambda: self._kept, recorded)
        make_part = False
        try:
            yield recorder
            make_part = True
        except EmbedError:
            make_part = True
            raise
        finally:
            await recorder.aclose(make_part=make_part)

    def _wanted(self) -> Iterator[Row]:
        rows = self._read()
        if self._kept is not None and self._is_checked:
            return self._chosen(rows)
        if self._kept is None:
            sample = list(itertools.islice(rows, _SAMPLE if self._keep else 0))
            types = KeptTypes(self._keep)
            for row in sample:
                types.show(row)
            self._kept = types.schema()
            rows = itertools.chain(sample, rows)
        return with_checked_types(self._chosen(rows), self._kept)

    def _chosen(self, rows: Iterable[Row]) -> Iterator[Row]:
        stop = self.ledger.portion.first_row
        for row in rows:
            if self.ledger.is_behind_all_wanted(row.number):
                return
            stop = row.number + 1
            if self.ledger.is_wanted(row.number):
                yield row
        self._stop = stop
