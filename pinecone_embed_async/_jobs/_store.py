"""A job's rows on disk: journal segments, the parts they become, and the file of failures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from pinecone_embed_async._jobs._failures import Cause, FailedRow, FailuresFile
from pinecone_embed_async._jobs._files import file_errors
from pinecone_embed_async._jobs._folder import OutputFolder
from pinecone_embed_async._jobs._journal import Journal, Span
from pinecone_embed_async._jobs._kept import joined, kept_of, same_columns, with_kept
from pinecone_embed_async._jobs._parts import (
    Segment,
    encode_batch,
    export_part,
    part_ids,
    part_rows,
    part_schema,
    part_size,
    part_vectors,
    rewrite_part,
    write_empty_part,
    write_part,
)
from pinecone_embed_async._jobs._rowset import RowNumbers, RowSet
from pinecone_embed_async._jobs._table import check_same_vectors

ROWS_PER_PART = 100_000
BYTES_PER_PART = 128 * 2**20
BYTES_OF_FIRST_PART = 8 * 2**20
_SHARE_OF_PART = 16
"""Until parts reach `BYTES_PER_PART`, each gets this fraction of the data before it. A run writes its last part after its
last answer, when nothing else is going on, so that part should be a small share of the work."""


class Store:
    """The embedded rows of a job.

    A journal segment becomes the part of the same number and is then removed. A kill between the two steps leaves a segment
    beside its part; the part has all its rows, so the segment is removed when the folder is opened again. So no row is in
    the table twice, whenever a run is killed.

    One thread at a time, except that another may call `write_part` for a finished segment.

    Args:
        folder: The folder, locked by this process.
        rows_per_part: Approximate number of rows after which a segment becomes a part.
        bytes_per_part: The same in bytes.
        bytes_of_first_part: Least bytes of a part; the first parts are small.

    Attributes:
        done: The rows embedded and on the disk when the store was opened.
        failed: The rows that had failed and not been embedded since when the store was opened.
        skipped: The rows left out because they cannot be embedded when the store was opened.
        schema: The columns of the table; `None` while there are no rows.
        warnings: Damage found, one sentence each.

    Raises:
        OutputError: The folder cannot be read or written, or a part in it is damaged.
    """

    def __init__(
        self,
        folder: OutputFolder,
        *,
        rows_per_part: int = ROWS_PER_PART,
        bytes_per_part: int = BYTES_PER_PART,
        bytes_of_first_part: int = BYTES_OF_FIRST_PART,
    ) -> None:
        self._folder = folder
        self._limits = (rows_per_part, bytes_per_part, bytes_of_first_part)
        self._failures = FailuresFile(folder.failures_path)
        self._finished: dict[int, Sequence[Span]] = {}
        self._size_before = 0
        self._placeholder: Path | None = None
        self.done = RowSet()
        self.schema: Any = None
        self.warnings: list[str] = []
        folder.remove_stale_exports()
        self._read_parts()
        self._number, self._journal, self._rows = self._open_journal()
        try:
            # An earlier run that widened the columns may have been killed before all parts had them.
            self.unify_parts()
            self.failed, self.skipped = self._failures.read_rows()
        except BaseException:
            self._journal.close()
            raise
        self.failed.subtract(self.done)
        self.skipped.subtract(self.done)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        if not self._rows:
            self._folder.remove_segment(self._number)

    def _read_parts(self) -> None:
        for number in self._folder.parts():
            path = self._folder.part_path(number)
            if not part_size(path):
                self._placeholder = path
                continue
            for rows in part_rows(path):
                self.done.add(rows)
            with file_errors(path):
                self._size_before += path.stat().st_size
            self._join(part_schema(path))

    def _join(self, schema: Any) -> None:
        if schema is not None:
            self.schema = schema if self.schema is None else joined([self.schema, schema])

    def _open_journal(self) -> tuple[int, Journal, int]:
        parts = self._folder.parts()
        for number in set(parts).intersection(self._folder.segments()):
            self._folder.remove_segment(number)
        segments = self._folder.segments()
        newest = max(parts, default=-1)
        # Continue the newest segment, unless a part has a higher number, which the next segment would collide with.
        last = segments.pop() if segments and segments[-1] > newest else max([newest, *segments]) + 1
        for number in segments:
            with self._opened(number) as journal:
                self._take_over(journal)
                self._finished[number] = journal.spans
        journal = self._opened(last)
        rows = self._take_over(journal)
        # Only now are the columns of all segments known.
        for number in segments:
            self.write_part(number)
        return last, journal, rows

    def _opened(self, number: int) -> Journal:
        path = self._folder.segment_path(number)
        with file_errors(path):
            return Journal(path)

    def _take_over(self, journal: Journal) -> int:
        # Take over what an earlier run left.
        self.warnings += [
            f"{journal.path}: bytes {start:,} to {stop:,} are damaged; the rows in them will be embedded again"
            for start, stop in journal.found.damaged
        ]
        segment = _segment(journal.path, journal.found.spans)
        rows = segment.row_numbers()
        self.done.add(rows)
        self._join(segment.schema)
        return len(rows)

    def unify_parts(self, kept: Any = None) -> None:
        """Rewrite, one at a time, the parts whose kept columns differ from those of the whole table.

        No part may be written meanwhile. After a kill, the remaining parts are rewritten when the folder is opened again.

        Args:
            kept: The new kept columns, if they change; they must hold all existing values.

        Raises:
            OutputError: The file system refused an operation.
        """
        if self.schema is None:
            return
        if kept is not None:
            self.schema = with_kept(self.schema, kept)
        for number in self._folder.parts():
            path = self._folder.part_path(number)
            if path == self._placeholder:
                continue
            if not same_columns(kept_of(part_schema(path)), kept_of(self.schema)):
                # Removed first, so that it is made again from the new part even after a kill in between.
                self._folder.export_path(number).unlink(missing_ok=True)
                rewrite_part(path, self.schema)
            self._export(number)

    def _export(self, number: int) -> None:
        layout, path = self._folder.layout, self._folder.export_path(number)
        if layout is not None and not path.exists():
            left_out = export_part(self._folder.part_path(number), path, layout)
            if left_out:
                self.warnings.append(
                    f"{path}: {left_out:,} rows without terms are only in the table, because an index refuses them"
                )

    def add(self, tables: Sequence[Any], failed: Sequence[FailedRow]) -> None:
        """Write embedded and failed rows and sync them; after this they count.

        Raises:
            OutputError: The file system refused an operation; the rows do not count, and nothing more may be added.
            ResponseError: The vectors differ from the earlier ones in kind or dimension.
        """
        if tables:
            for table in tables:
                check_same_vectors(self.schema or table.schema, table.schema)
                self._join(table.schema)
            with file_errors(self._journal.path):
                for table in tables:
                    # One record per request, so that a damaged record costs no more than one request.
                    for batch in table.to_batches():
                        self._journal.append(encode_batch(batch))
                        self._rows += batch.num_rows
                self._journal.sync()
        if failed:
            self._failures.append(failed)

    @property
    def has_rows(self) -> bool:
        """Whether the journal has rows that are not in a part yet."""
        return self._rows > 0

    @property
    def is_full(self) -> bool:
        """Whether the journal has enough rows for a part."""
        rows, most, least = self._limits
        size = min(most, max(least, self._size_before // _SHARE_OF_PART))
        return self._rows >= rows or self._journal.size >= size

    def finish_segment(self) -> int | None:
        """Start a new segment and return the number of the finished one; `None` if that is empty.

        Raises:
            OutputError: The file system refused an operation.
        """
        if not self._rows:
            return None
        finished = self._number
        self._journal.close()
        self._finished[finished] = self._journal.spans
        self._size_before += self._journal.size
        self._number, self._rows = finished + 1, 0
        self._journal = self._opened(self._number)
        return finished

    def write_part(self, number: int) -> None:
        """Turn a finished segment into a part.

        Raises:
            OutputError: The file system refused an operation; the rows are still in the segment.
        """
        # The positions of its records are known, so it need not be scanned and checksummed again.
        segment = _segment(self._folder.segment_path(number), self._finished[number])
        if segment.schema is not None:
            write_part(self._folder.part_path(number), segment, self.schema)
            self._export(number)
            self._remove_placeholder()
        self._folder.remove_segment(number)
        del self._finished[number]

    def write_placeholder(self, empty: Any) -> None:
        """Write a part without rows if there is no table yet; the next part replaces it.

        Args:
            empty: A table without rows.

        Raises:
            OutputError: The file system refused an operation.
        """
        if self.schema is None and self._placeholder is None:
            path = self._folder.part_path(self._number)
            write_empty_part(path, empty)
            self._placeholder = path

    def _remove_placeholder(self) -> None:
        if self._placeholder is not None:
            with file_errors(self._placeholder):
                self._placeholder.unlink(missing_ok=True)
            self._placeholder = None

    def vectors(self, rows: RowNumbers) -> Iterator[Any]:
        """Yield the embeddings of those rows that are in a part, as tables of `row` and the embeddings' columns.

        Args:
            rows: The row numbers, ascending; int64.

        Raises:
            OutputError: A part cannot be read.
        """
        for number in self._folder.parts():
            yield from part_vectors(self._folder.part_path(number), rows)

    def ids_before(self, stop: int) -> Iterator[str]:
        """Yield the ids of the embedded and the failed rows with numbers below `stop`; some come twice.

        Raises:
            OutputError: A file of the job cannot be read.
        """
        if not stop:
            return
        for number in self._folder.parts():
            yield from part_ids(self._folder.part_path(number), stop)
        yield from _segment(self._journal.path, self._journal.spans).ids_before(stop)
        yield from self._failures.ids_before(stop)

    def causes(self, rows: RowSet) -> dict[int, Cause]:
        """The causes of those rows in `rows` that failed.

        Raises:
            OutputError: The file system refused an operation.
        """
        return self._failures.causes(rows)

    def forget_skipped(self) -> None:
        """Remove all skipped rows; the file must hold no failures besides them.

        Raises:
            OutputError: The file system refused an operation.
        """
        with file_errors(self._folder.failures_path):
            self._folder.failures_path.unlink(missing_ok=True)
        self.skipped = RowSet()

    def forget_failures(self, done: RowSet) -> None:
        """Remove rows that are now done from the file of failures.

        Raises:
            OutputError: The file system refused an operation.
        """
        self._failures.forget(done)


def _segment(path: Path, spans: Sequence[Span]) -> Segment:
    with file_errors(path):
        return Segment(path, spans)
