"""Writes a stream's batches to the disk in groups, outside the event loop; rows count as done once their group is synced."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from pinecone_embed_async._calls import EmbeddedBatch
from pinecone_embed_async._jobs._failures import FailedRow, cause_of
from pinecone_embed_async._jobs._kept import KeptColumns
from pinecone_embed_async._jobs._ledger import is_about_rows
from pinecone_embed_async._jobs._rowset import RowNumbers
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._jobs._table import Embeddings, embedded_tables
from pinecone_embed_async._results import DenseEmbeddings

GROUP_SECONDS = 0.05
GROUP_BYTES = 16 * 2**20


class Piece(NamedTuple):
    """Embedded and failed rows to write together.

    Attributes:
        rows: The rows.
        embeddings: Row i belongs to `rows[i]`; rows that are not embedded are not written.
        failed: Failed rows, of `rows` or others.
    """

    rows: Sequence[Row]
    embeddings: Embeddings
    failed: Sequence[FailedRow]


def piece_of(batch: EmbeddedBatch[Row, Embeddings]) -> Piece:
    """The piece to write for a batch; rows that failed with an error of the whole job count as not tried."""
    failed = [
        FailedRow(batch.items[index], cause_of(failure.error))
        for failure in batch.embeddings.failures
        if is_about_rows(failure.error)
        for index in failure.indices
    ]
    return Piece(batch.items, batch.embeddings, failed)


class Recorder:
    """Writes pieces to a store in groups, outside the event loop.

    A group is written `group_seconds` after its first piece arrived, or earlier once it has `group_bytes`, but never before
    the previous group is on the disk. While one group is written, the next is filled; if the next is full before that ends,
    `add` waits. Parts are written meanwhile, one at a time.

    Args:
        store: The store to write to.
        kept: The kept columns, widened as rows arrive.
        recorded: Called on the event loop after a group is on the disk, with the embedded and the failed row numbers.
        group_seconds: Seconds after its first piece at which a group is written even if it is not full.
        group_bytes: Bytes of vectors after which a group is full.
    """

    def __init__(
        self,
        store: Store,
        kept: KeptColumns,
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
        """Add a piece; wait for room if a group is full and the one before it is still being written.

        Raises:
            OutputError: An earlier group could not be written; nothing more will be written.
            ResponseError: The vectors do not match the earlier ones.
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
        """Write the last group, even if the caller is cancelled meanwhile.

        Args:
            make_part: Whether to turn the rows in the journal into a part, so that the table holds everything done.

        Raises:
            OutputError: The file system refused an operation.
            ResponseError: The vectors do not match the earlier ones.
        """
        self._full.set()
        await _ended(self._writing)
        await _ended(self._part)
        self._check()
        if make_part:
            await self._begin_part()
            await _ended(self._part)
            self._check()

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
                if await asyncio.to_thread(self._widen, group):
                    # A part being written has the old columns, and `unify_parts` must not run before it is complete.
                    if self._part is not None:
                        await self._part
                    self._recorded(*await asyncio.to_thread(self._write, group))
                    # Only now: the rows are already paid for, so they must be on the disk first.
                    await asyncio.to_thread(self._store.unify_parts, self._kept.schema)
                else:
                    self._recorded(*await asyncio.to_thread(self._write, group))
                if self._store.is_full:
                    await self._begin_part()
        finally:
            # Wake an `add` that waits for room, so that it sees the error.
            self._room.set()

    def _widen(self, group: Sequence[Piece]) -> bool:
        return self._kept.take_in(row for piece in group for row in piece.rows)

    def _write(self, group: Sequence[Piece]) -> tuple[RowNumbers, RowNumbers]:
        tables = embedded_tables([(piece.rows, piece.embeddings) for piece in group], self._kept.schema)
        failed = [each for piece in group for each in piece.failed]
        self._store.add([table for table in tables if table.num_rows], failed)
        embedded = np.concatenate([np.empty(0, np.int64), *(table["row"].to_numpy() for table in tables)])
        return embedded, np.array([each.row.number for each in failed if isinstance(each.row, Row)], np.int64)

    async def _begin_part(self) -> None:
        number = await asyncio.to_thread(self._store.finish_segment)
        if number is None:
            return
        if self._part is not None:
            await self._part
        loop = asyncio.get_running_loop()
        self._part = loop.create_task(asyncio.to_thread(self._store.write_part, number), name="part")


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Wait until a task has ended; a cancellation is raised only then, because what the task writes is paid for."""
    is_cancelled = False
    while task is not None and not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            is_cancelled = True
    if is_cancelled:
        raise asyncio.CancelledError


def _size_of(embeddings: Embeddings) -> int:
    if isinstance(embeddings, DenseEmbeddings):
        return embeddings.vectors.nbytes
    return embeddings.indices.nbytes + embeddings.values.nbytes
