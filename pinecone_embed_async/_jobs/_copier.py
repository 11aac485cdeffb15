"""Writes rows whose text repeats another row's: the embedding comes from the table, the rest from the input."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import ipc

from pinecone_embed_async._jobs._duplicates import Copies
from pinecone_embed_async._jobs._failures import Cause, FailedRow
from pinecone_embed_async._jobs._files import PARTIAL_SUFFIX, file_errors, open_own
from pinecone_embed_async._jobs._recorder import Piece
from pinecone_embed_async._jobs._rowset import RowNumbers, RowSet, are_among
from pinecone_embed_async._jobs._sources import BadRow, Row
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._jobs._table import Embeddings, embeddings_of
from pinecone_embed_async._results import DenseEmbeddings, Usage

_ROWS_PER_PIECE = 512


def copied_rows(store: Store, folder: Path, rows: Iterable[Row | BadRow], copies: Copies) -> Iterator[Piece]:
    """Copy each row from its source: embedded if the source is, failed with the same cause if it failed, else still missing.

    The sources' embeddings are first gathered in a file, because a table cannot be read in the order of the copies.

    Args:
        store: The store with the sources, which must all be in parts.
        folder: Folder for the temporary file, whose name begins with `_`.
        rows: All rows of the input, in order.
        copies: The copies and their sources.

    Raises:
        OutputError: The file system refused an operation.
        SourceError: A row cannot be read.
    """
    sources = np.unique(copies.sources)
    wanted = RowSet()
    wanted.add(sources)
    causes = store.causes(wanted)
    with _gathered(store.vectors(sources), folder / f"_copies-{token_hex(4)}{PARTIAL_SUFFIX}") as vectors:
        pairs: list[tuple[Row, int]] = []
        for pair in _paired(rows, copies):
            pairs.append(pair)
            if len(pairs) == _ROWS_PER_PIECE:
                yield _piece(pairs, vectors, causes)
                pairs = []
        if pairs:
            yield _piece(pairs, vectors, causes)


def _paired(rows: Iterable[Row | BadRow], copies: Copies) -> Iterator[tuple[Row, int]]:
    """Yield the rows that are copies, each with the number of its source."""
    given = iter(rows)
    for start in range(0, len(copies.rows), _ROWS_PER_PIECE):
        stretch = slice(start, start + _ROWS_PER_PIECE)
        for number, source in zip(copies.rows[stretch].tolist(), copies.sources[stretch].tolist(), strict=True):
            # All of these rows exist: they were read when the copies were chosen.
            yield next(row for row in given if row.number == number and isinstance(row, Row)), source


def _piece(pairs: Sequence[tuple[Row, int]], vectors: "_Vectors", causes: dict[int, Cause]) -> Piece:
    held = vectors.holds(np.array([source for _, source in pairs], np.int64)).tolist()
    embedded = [pair for pair, is_held in zip(pairs, held, strict=True) if is_held]
    failed = [
        FailedRow(row, causes[source])
        for (row, source), is_held in zip(pairs, held, strict=True)
        if not is_held and source in causes
    ]
    return Piece([row for row, _ in embedded], vectors.take(np.array([source for _, source in embedded], np.int64)), failed)


class _Vectors:
    """Embeddings in a file, looked up by row number.

    Args:
        batches: Reader of the file; `None` if there are no embeddings.
        numbers: Row numbers of each batch.
    """

    def __init__(self, batches: Any, numbers: Sequence[RowNumbers]) -> None:
        self._batches = batches
        self._first_places = np.cumsum([0, *map(len, numbers)])
        together = np.concatenate([np.empty(0, np.int64), *numbers])
        self._places = np.argsort(together, kind="stable")
        self._numbers = together[self._places]

    def holds(self, rows: RowNumbers) -> npt.NDArray[np.bool_]:
        """Which of these rows have an embedding here."""
        return are_among(rows, self._numbers)

    def take(self, rows: RowNumbers) -> Embeddings:
        """The embeddings of these rows, in this order; all of them must be here."""
        if not len(rows):
            return DenseEmbeddings(np.empty((0, 0), np.float32), model="", usage=Usage())
        places = self._places[np.searchsorted(self._numbers, rows)]
        batch_of = np.searchsorted(self._first_places, places, side="right") - 1
        taken, order = [], []
        for batch in np.unique(batch_of).tolist():
            here = np.flatnonzero(batch_of == batch)
            taken.append(self._batches.get_batch(batch).take(pa.array(places[here] - self._first_places[batch])))
            order.append(here)
        return embeddings_of(pa.Table.from_batches(taken).take(pa.array(np.argsort(np.concatenate(order)))))


@contextlib.contextmanager
def _gathered(tables: Iterable[Any], path: Path) -> Iterator[_Vectors]:
    """Write tables to a file that exists while the block runs and can be read in any order."""
    numbers: list[RowNumbers] = []
    with contextlib.ExitStack() as stack:
        with file_errors(path):
            stack.callback(path.unlink, missing_ok=True)
            # It holds only embeddings, but people who may not read the texts should not read these either.
            open_own(path, "xb").close()
            writer: Any = None
            with contextlib.ExitStack() as writing:
                for table in tables:
                    rest = table.drop_columns("row").replace_schema_metadata()
                    if writer is None:
                        file = writing.enter_context(pa.OSFile(str(path), "wb"))
                        writer = writing.enter_context(ipc.new_file(file, rest.schema))
                    pieces = rest.combine_chunks().to_batches(max_chunksize=_ROWS_PER_PIECE)
                    sizes = [piece.num_rows for piece in pieces]
                    numbers += np.split(table["row"].to_numpy(), np.cumsum(sizes)[:-1])
                    for piece in pieces:
                        writer.write_batch(piece)
            batches = None
            if writer is not None:
                # Memory-mapped, so that its pages can be evicted from memory, whatever the size of the file.
                batches = ipc.open_file(stack.enter_context(pa.memory_map(str(path))))
        yield _Vectors(batches, numbers)
