"""Takes what a stream delivers to the disk: in groups, each synced before it counts, while the loop goes on."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from pinecone_embed_async._jobs._failures import FailedRow, cause_of
from pinecone_embed_async._jobs._ledger import is_about_rows
from pinecone_embed_async._jobs._rowset import RowNumbers
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._jobs._table import Embeddings, embedded_tables
from pinecone_embed_async._results import DenseEmbeddings

GROUP_SECONDS = 0.05
GROUP_BYTES = 16 * 2**20


class Batch(NamedTuple):
    """What a stream delivers at once: the rows of one request and what became of them.

    Attributes:
        rows: The rows.
        embeddings: Row i belongs to `rows[i]`; failures are told by position in `rows`.
    """

    rows: Sequence[Row]
    embeddings: Embeddings


class Piece(NamedTuple):
    """What is written of some rows.

    Attributes:
        rows: The rows.
        embeddings: Row i belongs to `rows[i]`; those that are not embedded are passed over.
        failed: Rows that failed, of these or others.
    """

    rows: Sequence[Row]
    embeddings: Embeddings
    failed: Sequence[FailedRow]


def piece_of(batch: Batch) -> Piece:
    """What is written of a batch; rows that met an error of the whole job are as good as not tried."""
    failed = [
        FailedRow(batch.rows[index], cause_of(failure.error))
        for failure in batch.embeddings.failures
        if is_about_rows(failure.error)
        for index in failure.indices
    ]
    return Piece(batch.rows, batch.embeddings, failed)


class Recorder:
    """Writes pieces to a store, a group at a time, off the loop.

    A group is synced at the latest `group_seconds` after its first piece came, earlier once it has `group_bytes`. While one
    is written the next gathers; when that is full too, `add` waits. Parts are written beside, one after the other.

    Args:
        store: Where to.
        kept: The types of the kept columns, known with the first piece.
        recorded: Called in the loop after a group is on the disk, with the rows embedded and the rows failed.
        group_seconds: How long a piece may wait to be synced.
        group_bytes: Bytes of vectors after which it does not wait.
    """

    def __init__(
        self,
        store: Store,
        kept: Callable[[], Any],
        recorded: Callable[[RowNumbers, RowNumbers], None],
        *,
        group_seconds: float = GROUP_SECONDS,
        group_bytes: int = GROUP_BYTES,
    ) -> None:
        self._store = store
        self._kept = kept
        self._recorded = recorded
        self._group_seconds = group_seconds
        self._group_bytes = group_bytes
        self._gathered: list[Piece] = []
        self._size = 0
        self._due = 0.0
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._part: asyncio.Task[None] | None = None

    async def add(self, piece: Piece) -> None:
        """Take a piece over; waits for room if a group is full and the one before it is still being written.

        Raises:
            OutputError: An earlier group could not be written; nothing is written any more.
            ResponseError: The vectors do not fit to those before.
        """
        while self._full.is_set() and self._writing is not None and not self._writing.done():
            self._room.clear()
            await self._room.wait()
        self._check()
        loop = asyncio.get_running_loop()
        if not self._gathered:
            self._due = loop.time() + self._group_seconds
        self._gathered.append(piece)
        self._size += _size_of(piece.embeddings)
        if self._size >= self._group_bytes:
            self._full.set()
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_groups(), name="journal")

    async def aclose(self, *, make_part: bool) -> None:
        """Write what is gathered.

        Args:
            make_part: Whether the rows in the journal become a part, so that the table holds all that is done.

        Raises:
            OutputError: The file system refused.
            ResponseError: The vectors do not fit to those before.
        """
        self._full.set()
        for task in (self._writing, self._part):
            if task is not None:
                await asyncio.wait([task])
        self._check()
        if make_part:
            await self._begin_part()
            if self._part is not None:
                await self._part

    def _check(self) -> None:
        for task in (self._writing, self._part):
            if task is not None and task.done():
                task.result()

    async def _write_groups(self) -> None:
        try:
            while self._gathered:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self._due):
                        await self._full.wait()
                group, self._gathered, self._size = self._gathered, [], 0
                self._full.clear()
                self._room.set()
                self._recorded(*await asyncio.to_thread(self._write, group))
                if self._store.is_full:
                    await self._begin_part()
        finally:
            # Whoever waits for room finds out that there will be none.
            self._room.set()

    def _write(self, group: Sequence[Piece]) -> tuple[RowNumbers, RowNumbers]:
        tables = embedded_tables([(piece.rows, piece.embeddings) for piece in group], self._kept())
        failed = [each for piece in group for each in piece.failed]
        self._store.add([table for table in tables if table.num_rows], failed)
        embedded = np.concatenate([np.empty(0, np.int64), *(table["row"].to_numpy() for table in tables)])
        return embedded, np.array([each.row.number for each in failed], np.int64)

    async def _begin_part(self) -> None:
        number = await asyncio.to_thread(self._store.finish_segment)
        if number is None:
            return
        if self._part is not None:
            await self._part
        loop = asyncio.get_running_loop()
        self._part = loop.create_task(asyncio.to_thread(self._store.write_part, number), name="part")


def _size_of(embeddings: Embeddings) -> int:
    if isinstance(embeddings, DenseEmbeddings):
        return embeddings.vectors.nbytes
    return embeddings.indices.nbytes + embeddings.values.nbytes
