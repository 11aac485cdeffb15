"""Parquet parts: each is made from one segment of the journal, sorted by row, and exists whole or not at all."""

import contextlib
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import ipc, parquet

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._exports import documents_of, vectors_of, with_terms
from pinecone_embed_async._jobs._files import replacing
from pinecone_embed_async._jobs._journal import Span
from pinecone_embed_async._jobs._kept import VECTOR_COLUMNS, conformed, joined, with_kept
from pinecone_embed_async._jobs._layouts import Layout, LayoutName
from pinecone_embed_async._jobs._rowset import RowNumbers, are_among

BYTES_PER_GROUP = 8 * 2**20
"""Approximate size of a part's row groups. A group is assembled and encoded at once and should stay in the processor's
cache beside the event loop's data: with groups four times as large, a job is 3% slower."""

LEAST_ROWS_PER_GROUP = 1024
"""Few rows compress badly, and readers of a part pay for each group."""

# Nearly every number of a vector is different: compression or a dictionary would cost time and save nothing.
_PLAIN_COLUMNS = ("vector", "indices", "values")
_ENDING = ".list.element"


def encode_batch(batch: Any) -> Any:
    """Encode rows as a journal record: an Arrow IPC stream with its schema."""
    # Write to memory, not piece by piece to the journal, because each write would take the GIL.
    with pa.BufferOutputStream() as file:
        with ipc.new_stream(file, batch.schema) as writer:
            writer.write_batch(batch)
        return file.getvalue()


class Segment:
    """The tables of a journal segment, read in place.

    Args:
        path: The file of the segment.
        spans: Positions of its records.

    Raises:
        OSError: The segment cannot be read.
    """

    def __init__(self, path: Path, spans: Sequence[Span]) -> None:
        self._tables: list[Any] = []
        self._mapped: mmap.mmap | None = None
        if spans:
            with path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            buffer = pa.py_buffer(self._mapped)
            for start, length in spans:
                with ipc.open_stream(buffer.slice(start, length)) as reader:
                    self._tables.append(reader.read_all())
            # Without gaps, each table is a run of consecutive rows, so this already puts all rows in order and
            # `sorted_groups` can slice instead of copying.
            self._tables.sort(key=lambda table: table["row"][0].as_py())

    @property
    def schema(self) -> Any:
        """A schema whose columns can hold the values of all tables; `None` if there are no rows."""
        return joined([table.schema for table in self._tables]) if self._tables else None

    def row_numbers(self) -> RowNumbers:
        """The row numbers of all tables, in the tables' order; int64."""
        return np.concatenate([np.empty(0, np.int64), *(table["row"].to_numpy() for table in self._tables)])

    def ids_before(self, stop: int) -> Iterator[str]:
        """The ids of the rows with numbers below `stop`."""
        for table in self._tables:
            yield from _ids_before(table, stop)

    def sorted_groups(self, schema: Any) -> Iterator[Any]:
        """Yield the rows in the order of their numbers, as tables of about `BYTES_PER_GROUP` bytes.

        Args:
            schema: Schema whose kept columns are those of the whole output.
        """
        order = np.argsort(self.row_numbers(), kind="stable")
        first_rows = np.cumsum([0, *(table.num_rows for table in self._tables)])
        bytes_per_row = max(1, sum(table.nbytes for table in self._tables) // max(1, len(order)))
        rows_per_group = max(LEAST_ROWS_PER_GROUP, BYTES_PER_GROUP // bytes_per_row)
        for start in range(0, len(order), rows_per_group):
            wanted = order[start : start + rows_per_group]
            # Concatenate only the tables from the first to the last with rows of this group.
            low, high = np.searchsorted(first_rows, [wanted.min(), wanted.max()], side="right")
            tables = [conformed(table, with_kept(table.schema, schema)) for table in self._tables[low - 1 : high]]
            together = pa.concat_tables(tables, promote_options="default")
            places = wanted - first_rows[low - 1]
            if (np.diff(places) == 1).all():
                # A slice copies nothing.
                yield together.slice(int(places[0]), len(places))
            else:
                yield together.combine_chunks().take(pa.array(places))
            if self._mapped is not None:
                # Otherwise pages read in place count as this process's memory, up to the size of a part.
                self._mapped.madvise(mmap.MADV_DONTNEED)


def write_part(path: Path, segment: Segment, schema: Any) -> None:
    """Write a segment as a part, whole or not at all.

    Args:
        path: The part.
        segment: The rows.
        schema: Schema whose kept columns are those of the whole output.

    Raises:
        OutputError: The file system refused an operation.
    """
    _write(path, segment.sorted_groups(schema))


def rewrite_part(path: Path, schema: Any) -> None:
    """Rewrite a part with the kept columns of a schema that can hold all its values.

    Raises:
        OutputError: The file system refused an operation, or the part is damaged; it is unchanged.
    """
    try:
        with parquet.ParquetFile(path) as part:
            groups = (part.read_row_group(group) for group in range(part.num_row_groups))
            _write(path, (conformed(group, with_kept(group.schema, schema)) for group in groups))
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _write(path: Path, groups: Iterable[Any]) -> None:
    with replacing(path, prefix="_part-") as file, contextlib.ExitStack() as stack:
        # Use Arrow's own file: its writes do not take the GIL, so the event loop need not wait for them.
        own = stack.enter_context(pa.OSFile(file.name, "wb"))
        writer: Any = None
        for group in groups:
            if writer is None:
                writer = stack.enter_context(_writer(own, group.schema))
            writer.write_table(group)


def _writer(file: Any, schema: Any) -> Any:
    kept = [name for name in schema.names if name not in {*_PLAIN_COLUMNS, "tokens", "id", "row"}]
    flat = [name for name in kept if not pa.types.is_nested(schema.field(name).type)]
    leaves = {f"{name}{_ENDING}": "none" for name in _PLAIN_COLUMNS if name in schema.names}
    others = {name: "zstd" for name in schema.names if name not in _PLAIN_COLUMNS}
    return parquet.ParquetWriter(
        file, schema, use_dictionary=flat, write_statistics=["row", *flat], compression={**others, **leaves}
    )


def write_empty_part(path: Path, empty: Any) -> None:
    """Write a part without rows.

    Raises:
        OutputError: The file system refused an operation.
    """
    _write(path, [empty])


def export_part(path: Path, target: Path, layout: Layout) -> int:
    """Write a part's rows in the layout an index imports, whole or not at all; return how many rows had to be left out.

    Raises:
        OutputError: The file system refused an operation, or the part is damaged.
    """
    left_out = 0
    try:
        with contextlib.ExitStack() as stack:
            part = stack.enter_context(parquet.ParquetFile(path))
            file = stack.enter_context(replacing(target, prefix="_export-"))
            writer: Any = None
            for batch in part.iter_batches(LEAST_ROWS_PER_GROUP):
                whole = pa.Table.from_batches([batch], part.schema_arrow)
                table = with_terms(whole)
                left_out += whole.num_rows - table.num_rows
                if layout.name is LayoutName.DOCUMENTS:
                    file.write(documents_of(table, layout.vector_field))
                    continue
                vectors = vectors_of(table)
                if writer is None:
                    writer = stack.enter_context(parquet.ParquetWriter(file, vectors.schema, use_dictionary=False))
                writer.write_table(vectors)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return left_out


def part_size(path: Path) -> int:
    """The number of rows of a part.

    Raises:
        OutputError: The file is not a part of a job, or is damaged.
    """
    try:
        return int(parquet.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def part_rows(path: Path) -> Iterator[RowNumbers]:
    """Yield the row numbers of a part, batch by batch; int64.

    Raises:
        OutputError: The file is not a part of a job, or is damaged.
    """
    try:
        with parquet.ParquetFile(path) as part:
            for batch in part.iter_batches(65536, columns=["row"]):
                yield batch.column(0).to_numpy()
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error


def part_ids(path: Path, stop: int) -> Iterator[str]:
    """Yield the ids of a part's rows with numbers below `stop`.

    Raises:
        OutputError: The file is not a part of a job, or is damaged.
    """
    try:
        with parquet.ParquetFile(path) as part:
            for batch in part.iter_batches(65536, columns=["row", "id"]):
                yield from _ids_before(batch, stop)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error


def _ids_before(rows: Any, stop: int) -> list[str]:
    ids: list[str] = rows.filter(pa.array(rows.column("row").to_numpy() < stop)).column("id").to_pylist()
    return ids


def part_vectors(path: Path, rows: RowNumbers) -> Iterator[Any]:
    """Yield the embeddings of those of `rows` that the part holds, as tables of `row` and the embeddings' columns.

    Args:
        path: The part.
        rows: The row numbers, ascending; int64.

    Raises:
        OutputError: The file is not a part of a job, or is damaged.
    """
    try:
        with parquet.ParquetFile(path) as part:
            columns = ["row", *(name for name in VECTOR_COLUMNS if name in part.schema_arrow.names)]
            for group in range(part.num_row_groups):
                held = are_among(part.read_row_group(group, columns=["row"]).column(0).to_numpy(), rows)
                if held.any():
                    yield part.read_row_group(group, columns=columns).filter(pa.array(held))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error


def part_schema(path: Path) -> Any:
    """The columns of a part.

    Raises:
        OutputError: The file is not a part of a job, or is damaged.
    """
    try:
        return parquet.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> OutputError:
    reason = str(error).split("\n", 1)[0]
    return OutputError(f"{path}: this part cannot be read: {reason}; remove it to have its rows embedded again")
