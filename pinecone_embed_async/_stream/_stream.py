"""The stream that a caller iterates over, and the context that keeps its tasks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
from collections import deque
from typing import TYPE_CHECKING, Generic

from pinecone_embed_async._errors import ClosedError, EmbedError, unexpected_error
from pinecone_embed_async._results import summed_up, with_outcome
from pinecone_embed_async._stream._batches import EmbeddedBatch, EmbeddingsT, ItemT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from pinecone_embed_async._collector import Collector
    from pinecone_embed_async._plan import Ledger
    from pinecone_embed_async._results import Usage
    from pinecone_embed_async._stream._batches import Batches, OpenBatch
    from pinecone_embed_async._stream._looking import LookUps
    from pinecone_embed_async._stream._reader import Reader
    from pinecone_embed_async._stream._run import Run


class EmbeddingStream(Generic[ItemT, EmbeddingsT]):
    """Gives the batches of a stream; made by `EmbedClient.stream`, iterated with `async for` inside its block.

    Several tasks may iterate over one stream: each batch goes to one of them.

    Where a batch is not embedded as a whole, iteration raises its error in its place (with `on_error="return"`
    it gives the batch). The error's `batch` has the items, its `partial` the embeddings that did succeed. Iterating
    again goes on with the next batch. An error of the whole job, of `progress` or of the source comes last, after
    everything that was embedded.

    Attributes:
        usage: what all answers so far have cost.
    """

    def __init__(
        self,
        batches: Batches,
        ledger: Ledger,
        finish: Callable[[Collector], EmbeddingsT],
        nothing: Collector,
        *,
        window: int,
        raises: bool,
    ) -> None:
        self._batches = batches
        self._ledger = ledger
        self._finish = finish
        self._nothing = nothing
        self._window = window
        self._raises = raises
        self._left_over: deque[OpenBatch] | None = None
        # Of the whole stream; those of batches are not kept.
        self._told: list[BaseException] = []
        self._is_left = False
        self._changes = asyncio.Event()
        self._taken = asyncio.Event()
        self._run: Run | None = None
        self._reader: Reader | None = None
        self._reading: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[EmbedError | None] | None = None

    def __repr__(self) -> str:
        ahead = f"{len(self._batches)}/{self._window} batches read ahead"
        return f"<EmbeddingStream {self._batches.embedded_count} embedded, {ahead}>"

    @property
    def usage(self) -> Usage:
        """What all answers so far have cost."""
        return self._batches.usage

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        """The next batch.

        Raises:
            EmbedError: the batch, or the whole job, failed.
            ClosedError: the stream's block was left.
            Exception: what the source raised.
        """
        while True:
            if self._is_left:
                raise ClosedError("the stream was left: iterate inside its `async with` block")
            batch = self._take()
            if batch is not None:
                self._taken.set()
                return self._delivered(batch)
            if self._is_over():
                self._raise_end()
            self._changes.clear()
            await self._changes.wait()

    @contextlib.asynccontextmanager
    async def running(self, run: Run, reader: Reader, look_ups: LookUps | None = None) -> AsyncIterator[None]:
        """Read, look up and send while the block runs; at its end, however it ends, nothing is left running."""
        self._run, self._reader = run, reader
        own: BaseException | None = None
        async with run.running():
            self._reading = run.start(reader.read(self._room, self._has_room), "read")
            self._reading.add_done_callback(lambda _: reader.ended())
            if look_ups is not None:
                self._looking = run.start(look_ups.run(), "look up batches")
                self._looking.add_done_callback(functools.partial(self._looked_up, run))
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - raised again once the tasks are done, as it was
                own = error
            finally:
                self._is_left = True
                self._stop_reading()
                run.cancel(may_keep=own is None)
                self.changed()
        if own is not None:
            raise own
        if run.error is not None and not self._was_told(run.error):
            raise self._ended_by(run.error)
        if reader.closing_error is not None:
            raise reader.closing_error

    @staticmethod
    def _looked_up(run: Run, task: asyncio.Task[EmbedError | None]) -> None:
        """Note that nothing is looked up any more: everything is, or the job has ended, or it ends it."""
        fault = None if task.cancelled() else task.exception()
        if task.cancelled():
            run.stop(EmbedError("looking vectors up in the cache was cancelled, and not by the call that it belongs to"))
        elif fault is not None:
            run.stop(unexpected_error(fault))
        elif (error := task.result()) is not None:
            run.stop(error)

    def _stop_reading(self) -> None:
        """Cancel what reads, once: then the source's iterator is being closed."""
        for task in (None if self._reader is None else self._reader.task, self._reading, self._looking):
            if task is not None and not task.cancelling():
                task.cancel()

    def changed(self) -> None:
        """Look again: there are new batches, or something has become of one, or the job has ended."""
        if self._ledger.job_error is not None:
            self._stop_reading()
        self._changes.set()

    def _has_room(self) -> bool:
        return len(self._batches) < self._window

    async def _room(self) -> bool:
        while not self._has_room() and self._ledger.job_error is None:
            self._taken.clear()
            await self._taken.wait()
        # A source that swallows the cancellation of its reading is read no further all the same.
        return self._ledger.job_error is None

    def _take(self) -> OpenBatch | None:
        if self._left_over is not None:
            return self._left_over.popleft() if self._left_over else None
        if self._ledger.job_error is None:
            return self._batches.take()
        if self._run is not None and self._run.is_idle:
            self._left_over = deque(self._batches.drain())
            return self._take()
        # Whoever meets the job's error may leave, so first comes what is still being embedded.
        return self._batches.take(lambda batch: batch.is_complete)

    def _is_over(self) -> bool:
        if self._ledger.job_error is not None:
            return self._left_over is not None
        return self._reader is not None and self._reader.is_finished and not len(self._batches)

    def _delivered(self, batch: OpenBatch) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        embedded: EmbeddedBatch[ItemT, EmbeddingsT] = EmbeddedBatch(batch.start, batch.items, self._finish(batch.collector))
        if batch.is_complete or not self._raises:
            return embedded
        error = batch.collector.account.first_error() or self._ledger.job_error
        if error is None:
            raise RuntimeError("a batch that is neither complete nor failed was delivered")
        if error is self._ledger.job_error:
            self._told.append(error)
        raise self._about(error, embedded)

    def _about(self, error: EmbedError, batch: EmbeddedBatch[ItemT, EmbeddingsT]) -> EmbedError:
        # Several batches may have met the same error, and somebody may have kept it.
        if error is self._ledger.job_error:
            own = with_outcome(copy.copy(error), batch.embeddings)  # type: ignore[arg-type]
        else:
            own = summed_up(error, batch.embeddings, batch.start)  # type: ignore[arg-type]
        own.batch = batch
        return own

    def _ended_by(self, error: EmbedError) -> EmbedError:
        return with_outcome(copy.copy(error), self._finish(self._nothing))  # type: ignore[arg-type]

    def _was_told(self, error: BaseException) -> bool:
        # One that is not ours may be equal to anything.
        return any(error is told for told in self._told)

    def _raise_end(self) -> None:
        job_error, run, reader = self._ledger.job_error, self._run, self._reader
        # What `progress` raised when something else had ended the job already is told as well.
        for error in (job_error, None if run is None else run.error):
            if error is not None and not self._was_told(error):
                self._told.append(error)
                raise self._ended_by(error)
        if reader is not None and reader.error is not None and not self._was_told(reader.error):
            self._told.append(reader.error)
            # With the job its reading was ended by the stream itself.
            if job_error is None or not reader.was_cancelled:
                raise reader.error
        raise StopAsyncIteration
