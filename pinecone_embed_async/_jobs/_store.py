"""A job's rows on disk: journal segments that become parts, and the file of failures."""

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
"""Until a part has `BYTES_PER_PART`, it has this share of all before it: a run's last part is made after its last answer,
when nothing else is done, so it should be a small share of the work."""


class Store:
    """The embedded rows of a job.

    A segment of the journal becomes the part of its number and is removed after that. A segment beside its part is left by
    a kill between the two: its rows are in the part, so it is removed when the folder is opened again. So no row is
    in the table twice, at whatever moment a run is killed.

    One thread at a time, except for `write_part`, which another may call for a finished segment.

    Args:
        folder: The folder, held by this process.
        rows_per_part: Rows after which a segment becomes a part, about.
        bytes_per_part: The same in bytes.
        bytes_of_first_part: The first parts are smaller, none smaller than this.

    Attributes:
        done: The rows that are embedded, for good, when it was opened.
        failed: The rows that failed and were not embedded since, when it was opened.
        skipped: The rows that cannot be embedded and were left out, when it was opened.
        schema: The columns of the table; `None` as long as there are no rows.
        warnings: The damage found, a sentence each.

    Raises:
        OutputError: The folder cannot be read or written, or holds files that are no job's.
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
        self._read_parts()
        self._number, self._journal, self._rows = self._open_journal()
        try:
            # A run that made the columns wider was killed before all parts had them.
            self.unify_parts()
            self.failed, self.skipped = self._failures.read_rows()
        except BaseException:
            self._journal.close()
            raise
        self.failed.subtract(self.done)

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
        # The newest is continued, unless a part has a higher number, which the next segment would get.
        last = segments.pop() if segments and segments[-1] > newest else max([newest, *segments]) + 1
        for number in segments:
            with self._opened(number) as journal:
                self._take_over(journal)
                self._finished[number] = journal.spans
        journal = self._opened(last)
        rows = self._take_over(journal)
        # Once the columns of all of them are known.
        for number in segments:
            self.write_part(number)
        return last, journal, rows

    def _opened(self, number: int) -> Journal:
        path = self._folder.segment_path(number)
        with file_errors(path):
            return Journal(path)

    def _take_over(self, journal: Journal) -> int:
        # Left by an earlier run.
        self.warnings += [
            f"{journal.path}: bytes {start:,} to {stop:,} are damaged; the rows that were in them are embedded again"
            for start, stop in journal.found.damaged
        ]
        segment = _segment(journal.path, journal.found.spans)
        rows = segment.row_numbers()
        self.done.add(rows)
        self._join(segment.schema)
        return len(rows)

    def unify_parts(self, kept: Any = None) -> None:
        """Write the parts again whose kept columns are not those of the whole table, one at a time.

        No part may be written meanwhile. After a kill the parts left are written when the folder is opened again.

        Args:
            kept: The kept columns from now on, if they change; they hold all the values that are there.

        Raises:
            OutputError: The file system refused.
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
                # Made again from the new part, also after a kill in between.
                self._folder.export_path(number).unlink(missing_ok=True)
                rewrite_part(path, self.schema)
            self._export(number)

    def _export(self, number: int) -> None:
        layout, path = self._folder.layout, self._folder.export_path(number)
        if layout is not None and not path.exists():
            left_out = export_part(self._folder.part_path(number), path, layout)
            if left_out:
                self.warnings.append(
                    f"{path}: {left_out:,} rows without terms are in the table alone, for an index refuses them"
                )

    def add(self, tables: Sequence[Any], failed: Sequence[FailedRow]) -> None:
        """Write embedded and failed rows and sync them: after this they count.

        Raises:
            OutputError: The file system refused; the rows do not count, and nothing more may be added.
            ResponseError: The vectors are of another kind or dimension than the earlier ones.
        """
        if tables:
            for table in tables:
                check_same_vectors(self.schema or table.schema, table.schema)
                self._join(table.schema)
            with file_errors(self._journal.path):
                for table in tables:
                    # A record for each request, so that a damaged one costs no more than that.
                    for batch in table.to_batches():
                        self._journal.append(encode_batch(batch))
                        self._rows += batch.num_rows
                self._journal.sync()
        if failed:
            self._failures.append(failed)

    @property
    def has_placeholder(self) -> bool:
        """Whether there is a part without rows."""
        return self._placeholder is not None

    @property
    def has_rows(self) -> bool:
        """Whether the journal has rows that are in no part yet."""
        return self._rows > 0

    @property
    def is_full(self) -> bool:
        """Whether the rows in the journal are enough for a part."""
        rows, most, least = self._limits
        size = min(most, max(least, self._size_before // _SHARE_OF_PART))
        return self._rows >= rows or self._journal.size >= size

    def finish_segment(self) -> int | None:
        """Begin another segment, and return the number of the finished one; `None` if it is empty.

        Raises:
            OutputError: The file system refused.
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
            OutputError: The file system refused; the rows are still in the segment.
        """
        # The positions of its records are known, which saves scanning and checksumming them again.
        segment = _segment(self._folder.segment_path(number), self._finished[number])
        if segment.schema is not None:
            write_part(self._folder.part_path(number), segment, self.schema)
            self._export(number)
            self._remove_placeholder()
        self._folder.remove_segment(number)
        del self._finished[number]

    def write_placeholder(self, empty: Any) -> None:
        """Write a part without rows, so that there is a table, if there is none; the next part replaces it.

        Args:
            empty: A table without rows.

        Raises:
            OutputError: The file system refused.
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
        """The embeddings of some rows, those of them that are in a part, as tables of `row` and the embeddings' columns.

        Args:
            rows: The numbers of the rows, ascending; int64.

        Raises:
            OutputError: A part cannot be read.
        """
        for number in self._folder.parts():
            yield from part_vectors(self._folder.part_path(number), rows)

    def causes(self, rows: RowSet) -> dict[int, Cause]:
        """Why some rows failed, those among `rows` that did.

        Raises:
            OutputError: The file system refused.
        """
        return self._failures.causes(rows)

    def forget_skipped(self) -> None:
        """Remove all rows that were left out; there are no failures beside them.

        Raises:
            OutputError: The file system refused.
        """
        with file_errors(self._folder.failures_path):
            self._folder.failures_path.unlink(missing_ok=True)
        self.skipped = RowSet()

    def forget_failures(self, done: RowSet) -> None:
        """Remove the rows that are done now from the file of failures.

        Raises:
            OutputError: The file system refused.
        """
        self._failures.forget(done)


def _segment(path: Path, spans: Sequence[Span]) -> Segment:
    with file_errors(path):
        return Segment(path, spans)
