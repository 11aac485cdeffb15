"""A resumable job: it reads rows, streams them to the client, and writes embeddings to a folder of Parquet parts."""

import asyncio
import contextlib
import hashlib
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pinecone_embed_async._calls import EmbeddedBatch, EmbeddingStream
from pinecone_embed_async._client import EmbedClient
from pinecone_embed_async._errors import EmbedError
from pinecone_embed_async._jobs._budget import TokenBudget
from pinecone_embed_async._jobs._copier import copied_rows
from pinecone_embed_async._jobs._duplicates import Copies
from pinecone_embed_async._jobs._errors import JobChangedError, SourceError, TokensSpentError
from pinecone_embed_async._jobs._failures import skipped_row
from pinecone_embed_async._jobs._fingerprint import is_piped
from pinecone_embed_async._jobs._folder import Portion
from pinecone_embed_async._jobs._kept import KeptColumns
from pinecone_embed_async._jobs._ledger import Counts, JobLedger
from pinecone_embed_async._jobs._recorder import Piece, Recorder, piece_of
from pinecone_embed_async._jobs._rowset import RowNumbers
from pinecone_embed_async._jobs._sources import BadRow, Row, StandardInput
from pinecone_embed_async._jobs._store import Store
from pinecone_embed_async._jobs._table import Embeddings, embedded_tables
from pinecone_embed_async._models import KNOWN_MODELS, expected_dimension
from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, Usage

Stream = Callable[[Iterable[Row]], AbstractAsyncContextManager[AsyncIterator[EmbeddedBatch[Row, Embeddings]]]]
"""Embeds the texts of rows and yields a batch per request, as completed; reads the rows in a thread."""

PATIENCE = 0.05
"""Seconds to wait for more rows from a slow pipe before sending those there are."""

# Standard input can be read only once, so its first rows determine the types of the kept columns. With this many, a
# later row rarely changes a type, which would rewrite every part.
_SAMPLE = 1000

# Most tokens per input of any known model, used for a model that is not known.
_LONGEST = max(model.max_sequence_length for model in KNOWN_MODELS.values())


def embedded_rows(
    client: EmbedClient[Any], rows: Iterable[Row]
) -> AbstractAsyncContextManager[EmbeddingStream[Row, Embeddings]]:
    """Open a `Stream` of a client."""
    return client.stream(rows, text=attrgetter("text"), ordered=False, on_error="return", in_thread=True, max_delay=PATIENCE)


@dataclass(frozen=True, slots=True)
class JobProgress:
    """How far a run has come.

    Attributes:
        counts: States of the rows of the input.
        requests: Requests answered in this run.
        tokens: Tokens billed for them.
        duplicates: Rows not sent because another has the same text, and not copied yet.
    """

    counts: Counts
    requests: int
    tokens: int
    duplicates: int


class Read(Protocol):
    """Reads the rows of the input and numbers them."""

    def __call__(self, first_row: int, source: StandardInput | None = None) -> Iterator[Row | BadRow]:
        """Read the rows and number them from `first_row` on; standard input is read through `source`."""


class Job:
    """An open job.

    Args:
        store: The embedded rows.
        ledger: The states of the rows.
        read: Reads the rows.
        kept: The kept columns.
        copies: Rows that are not sent, because another has the same text.
        folder: Folder for temporary files.
        remember: Saves the portion once its number of rows is known.
        skip_bad_rows: Whether rows that cannot be embedded are left out; else the first one ends the run.
        most_tokens: The most tokens a run may cost; `None` for no limit.
        spent: What this run has cost already.

    Attributes:
        ledger: As given.
    """

    def __init__(
        self,
        store: Store,
        ledger: JobLedger,
        read: Read,
        kept: KeptColumns,
        *,
        copies: Copies,
        folder: Path,
        remember: Callable[[Portion], None],
        skip_bad_rows: bool = False,
        most_tokens: int | None = None,
        spent: Usage | None = None,
    ) -> None:
        self.ledger = ledger
        self.warnings = store.warnings
        self._store = store
        self._read = read
        self._kept = kept
        self._copies = copies
        self._folder = folder
        self._remember = remember
        self._skip_bad_rows = skip_bad_rows
        # Filled by the reading thread, emptied by the event loop.
        self._skipped: deque[BadRow] = deque()
        self._source = StandardInput(hashlib.blake2b(digest_size=16))
        self._not_copied = len(copies.rows)
        known = KNOWN_MODELS.get(ledger.portion.fingerprint.model)
        longest = _LONGEST if known is None else known.max_sequence_length
        self._budget = None if most_tokens is None else TokenBudget(most_tokens, longest)
        self._requests = self._tokens = 0
        self._charge([], spent or Usage())
        self._stop: int | None = None

    def take_warnings(self) -> list[str]:
        """Return the new warnings, one sentence each: about damage, and about columns that became JSON text."""
        taken = [*self.warnings, *self._kept.warnings]
        self.warnings.clear()
        self._kept.warnings.clear()
        return taken

    def progress(self) -> JobProgress:
        """How far the run has come; only rows on the disk count."""
        return JobProgress(self.ledger.counts(), self._requests, self._tokens, self._not_copied)

    async def run(self, stream: Stream, report: Callable[[JobProgress], None]) -> None:
        """Embed the missing rows, or the failed ones if they are to be retried.

        However it ends, every answer received is written and counts. Unless it is cancelled, the table holds these rows too.

        Args:
            stream: Embeds rows.
            report: Called on the event loop whenever rows have reached the disk.

        Raises:
            EmbedError: An error ended the run before all rows were tried; `TokensSpentError` if it was the token budget.
        """
        if self.ledger.is_settled and not self._store.has_rows:
            with self._source.stopped_by_errors():
                await asyncio.to_thread(self._check_settled)
            await asyncio.to_thread(self._store.write_placeholder, self._empty_table())
            return

        def recorded(embedded: RowNumbers, failed: RowNumbers) -> None:
            self.ledger.note_embedded(embedded)
            self.ledger.note_failed(failed)
            report(self.progress())

        async with self._recording(recorded) as recorder:
            # The stream waits for the thread that reads when it is left, so the thread must not wait for input then.
            async with stream(self._wanted()) as batches:
                with self._source.stopped_by_errors():
                    async for batch in batches:
                        await self._take(batch, recorder)
            await self._record_skipped(recorder)
        if self._not_copied:
            await self._copy(recorded)
        await asyncio.to_thread(self._store.forget_failures, self.ledger.done)
        self._note_end()
        await asyncio.to_thread(self._remember, self.ledger.portion)
        await asyncio.to_thread(self._store.write_placeholder, self._empty_table())
        if self._budget is not None and self._budget.is_spent:
            raise TokensSpentError(f"--max-tokens is reached: {self._tokens:,} tokens were billed in this run")

    async def _take(self, batch: EmbeddedBatch[Row, Embeddings], recorder: Recorder) -> None:
        self._charge(batch.items, batch.embeddings.usage)
        await recorder.add(piece_of(batch))
        await self._record_skipped(recorder)

    def _charge(self, rows: Sequence[Row], usage: Usage) -> None:
        self._requests += usage.requests
        self._tokens += usage.total_tokens
        if self._budget is not None:
            self._budget.settle([row.text for row in rows], usage.total_tokens)

    async def _record_skipped(self, recorder: Recorder) -> None:
        rows: list[BadRow] = []
        while self._skipped:
            rows.append(self._skipped.popleft())
        if rows:
            self.ledger.note_skipped([row.number for row in rows])
            await recorder.add(Piece([], _NOTHING, [skipped_row(row) for row in rows]))

    async def _copy(self, recorded: Callable[[RowNumbers, RowNumbers], None]) -> None:
        def copied(embedded: RowNumbers, failed: RowNumbers) -> None:
            self._not_copied -= len(embedded) + len(failed)
            recorded(embedded, failed)

        async with self._recording(copied) as recorder:
            pieces = copied_rows(self._store, self._folder, self._read_all(), self._copies)
            while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                await recorder.add(piece)

    def _note_end(self) -> None:
        if self._stop is None:
            return
        rows = self._stop - self.ledger.portion.first_row
        digest = self._source.digest
        self._check_same(rows)
        if self.ledger.portion.rows is None or digest is not None:
            self.ledger.note_end(self._stop, digest, self._source.size)

    def _check_settled(self) -> None:
        """Check that standard input, if it is the input, holds what was embedded; otherwise none of it would be sent.

        Raises:
            JobChangedError: Standard input differs.
        """
        if any(is_piped(each) for each in self.ledger.portion.fingerprint.inputs):
            self._check_same(sum(1 for _ in self._read_all()))

    def _check_same(self, rows: int) -> None:
        if self.ledger.portion.rows not in {None, rows}:
            raise JobChangedError(
                f"standard input ({rows:,} rows) differs from the one this job was made from; "
                "--append adds the rows of another input"
            )

    def _empty_table(self) -> Any:
        fingerprint = self.ledger.portion.fingerprint
        known = KNOWN_MODELS.get(fingerprint.model)
        if known is not None and known.vector_type == "sparse":
            none = np.empty(0, np.uint32), np.empty(0, np.float32)
            nothing: Any = SparseEmbeddings(np.zeros(1, np.int64), *none, model="", usage=Usage())
        else:
            dimension = expected_dimension(fingerprint.model, fingerprint.parameters) or 0
            nothing = DenseEmbeddings(np.empty((0, dimension), np.float32), model="", usage=Usage())
        self._kept.take_in(())
        [table] = embedded_tables([([], nothing)], self._kept.schema)
        return table

    @contextlib.asynccontextmanager
    async def _recording(self, recorded: Callable[[RowNumbers, RowNumbers], None]) -> AsyncIterator[Recorder]:
        """Open a recorder that writes all it was given however the block ends, as a part unless the block is cancelled."""
        recorder = Recorder(self._store, self._kept, recorded)
        make_part = False
        try:
            yield recorder
            make_part = True
        except EmbedError:
            make_part = True
            raise
        finally:
            await recorder.aclose(make_part=make_part)

    def _read_all(self) -> Iterator[Row | BadRow]:
        return self._read(self.ledger.portion.first_row, self._source)

    def _wanted(self) -> Iterator[Row]:
        rows = self._read_all()
        if self._kept.schema is None:
            sample = list(itertools.islice(rows, _SAMPLE if self._kept.names else 0))
            self._kept.take_in(row for row in sample if isinstance(row, Row))
            rows = itertools.chain(sample, rows)
        return self._chosen(rows)

    def _chosen(self, rows: Iterable[Row | BadRow]) -> Iterator[Row]:
        stop = self.ledger.portion.first_row
        for row in rows:
            if self.ledger.is_behind_all_wanted(row.number):
                return
            stop = row.number + 1
            if isinstance(row, BadRow):
                self._leave_out(row)
            elif self.ledger.is_wanted(row.number):
                if self._budget is not None and not self._budget.begins(row.text):
                    return
                yield row
        self._stop = stop

    def _leave_out(self, row: BadRow) -> None:
        if not self.ledger.must_be_skipped(row.number):
            return
        if not self._skip_bad_rows:
            raise SourceError(f"{row}; --on-bad-row skip leaves such rows out")
        self._skipped.append(row)


_NOTHING = DenseEmbeddings(np.empty((0, 0), np.float32), model="", usage=Usage())
