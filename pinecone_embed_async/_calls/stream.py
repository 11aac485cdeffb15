"""The stream that a caller iterates over, and the context of its tasks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from typing import TYPE_CHECKING, Generic

from pinecone_embed_async._calls.stream_results import EmbeddedBatch, EmbeddingsT, ItemT
from pinecone_embed_async._errors import ClosedError, EmbedError, unexpected_error
from pinecone_embed_async._results import summed_up, with_outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Self

    from pinecone_embed_async._calls.result_builder import ResultBuilder
    from pinecone_embed_async._calls.scheduler import Scheduler
    from pinecone_embed_async._calls.source import ReadAhead, SourceReader
    from pinecone_embed_async._calls.stream_results import PendingBatch, StreamResults
    from pinecone_embed_async._planning import PlannedRequest, RequestPlanner
    from pinecone_embed_async._results import Usage

    LookUp = Callable[[PlannedRequest], Awaitable[None]]
    """Looks up the inputs of a batch in the cache, and sends what is missing."""


class EmbeddingStream(Generic[ItemT, EmbeddingsT]):
    """Yields the batches of a stream; made by `EmbedClient.stream`, iterated with `async for` inside its block.

    Several tasks may iterate over one stream: each batch goes to one of them.

    In place of a batch that is not fully embedded, iteration raises its error (with `on_error="return"` it yields the
    batch). The error's `batch` has the items, its `partial` the successful embeddings. Iterating again continues with
    the next batch. An error of the whole job, of `progress` or of the source comes last, after everything that was
    embedded.

    Attributes:
        usage: usage billed so far.
    """

    def __init__(
        self,
        batches: StreamResults,
        planner: RequestPlanner,
        finish: Callable[[ResultBuilder], EmbeddingsT],
        empty: ResultBuilder,
        ahead: ReadAhead,
        *,
        raises: bool,
    ) -> None:
        self._batches = batches
        self._planner = planner
        self._finish = finish
        self._empty = empty
        self._ahead = ahead
        self._raises = raises
        self._remaining: deque[PendingBatch] | None = None
        # Errors of the whole stream; those of batches are not kept.
        self._raised: list[BaseException] = []
        self._is_exited = False
        self._changes = asyncio.Event()
        self._scheduler: Scheduler | None = None
        self._reader: SourceReader | None = None
        self._read_task: asyncio.Task[None] | None = None
        self._feed_task: asyncio.Task[EmbedError | None] | None = None

    def __repr__(self) -> str:
        ahead = f"{len(self._ahead)}/{self._ahead.window} batches read ahead"
        return f"<EmbeddingStream {self._batches.embedded_count} embedded, {ahead}>"

    @property
    def usage(self) -> Usage:
        """Usage billed so far."""
        return self._batches.usage

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        """The next batch.

        Raises:
            EmbedError: the batch, or the whole job, failed.
            ClosedError: the stream's block was left.
            Exception: the source raised it.
        """
        while True:
            if self._is_exited:
                raise ClosedError("the stream was left: iterate inside its `async with` block")
            batch = self._take()
            if batch is not None:
                self._ahead.taken.set()
                return self._deliver(batch)
            if self._is_over():
                self._raise_end()
            self._changes.clear()
            await self._changes.wait()

    @contextlib.asynccontextmanager
    async def running(
        self, scheduler: Scheduler, reader: SourceReader, look_up: LookUp | None = None
    ) -> AsyncIterator[None]:
        """Read, look up and send while the block runs; nothing is left running, however it ends."""
        self._scheduler, self._reader = scheduler, reader
        block_error: BaseException | None = None
        async with scheduler.running():
            self._read_task = scheduler.start(reader.read(), "read")
            self._read_task.add_done_callback(lambda _: reader.ended())
            name, work = "take over batches", "taking over what the source gave"
            if look_up is not None:
                name, work = "look up batches", "looking vectors up in the cache"
            self._feed_task = scheduler.start(self._feed(scheduler, reader, look_up), name)
            self._feed_task.add_done_callback(lambda task: self._feed_ended(scheduler, task, work))
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - raised again, unchanged, once the tasks are done
                block_error = error
            finally:
                self._is_exited = True
                self._stop_reading()
                scheduler.cancel(may_keep=block_error is None)
                self.changed()
        if block_error is not None:
            raise block_error
        if scheduler.error is not None and not self._was_raised(scheduler.error):
            raise self._job_error(scheduler.error)
        if reader.closing_error is not None:
            raise reader.closing_error

    async def _feed(self, scheduler: Scheduler, reader: SourceReader, look_up: LookUp | None) -> EmbedError | None:
        """Take over what was read until the source has ended; with a cache, look it up first.

        Returns:
            The error that ends the job, if the cache is misconfigured.
        """
        while True:
            await self._ahead.added.wait()
            self._ahead.added.clear()
            self._take_over(scheduler)
            while look_up is not None and (request := self._batches.next_to_look_up()) is not None:
                try:
                    await look_up(request)
                except EmbedError as error:
                    return error.with_traceback(None)
                self._take_over(scheduler)
            if reader.is_finished and not self._ahead.queue:
                return None

    def _take_over(self, scheduler: Scheduler) -> None:
        """Move what was read into the results, and send it."""
        failed = self._batches.failed_count
        while self._ahead.queue:
            batch, start, items = self._ahead.queue.popleft()
            if isinstance(batch, EmbedError):
                self._batches.add_failed(start, items[0], batch)
            else:
                self._batches.add(batch, items)
        if self._batches.failed_count > failed:
            # Items that are not texts fail without a request.
            scheduler.report()
        scheduler.fill()
        self.changed()

    @staticmethod
    def _feed_ended(scheduler: Scheduler, task: asyncio.Task[EmbedError | None], work: str) -> None:
        """Note that nothing more is taken over; unless the source has ended, this ends the job."""
        fault = None if task.cancelled() else task.exception()
        if task.cancelled():
            scheduler.stop(EmbedError(f"{work} was cancelled, but not by the call it belongs to"))
        elif fault is not None:
            scheduler.stop(unexpected_error(fault))
        elif (error := task.result()) is not None:
            scheduler.stop(error)

    def _stop_reading(self) -> None:
        """Cancel the reading tasks, but only once: a second time would interrupt closing the source's iterator."""
        # Also stops a source that swallows its cancellation.
        self._ahead.close()
        for task in (None if self._reader is None else self._reader.task, self._read_task, self._feed_task):
            if task is not None and not task.cancelling():
                task.cancel()

    def changed(self) -> None:
        """Wake the consumers: batches were added or settled, or the job has ended."""
        if self._planner.job_error is not None:
            self._stop_reading()
        self._changes.set()

    def _take(self) -> PendingBatch | None:
        if self._remaining is not None:
            return self._remaining.popleft() if self._remaining else None
        if self._planner.job_error is None:
            return self._batches.take()
        if self._scheduler is not None and self._scheduler.is_idle:
            self._remaining = deque(self._batches.drain())
            return self._take()
        # The consumer may leave at the job's error, so batches still being embedded come first.
        return self._batches.take(lambda batch: batch.is_complete)

    def _is_over(self) -> bool:
        if self._planner.job_error is not None:
            return self._remaining is not None
        return self._reader is not None and self._reader.is_finished and not len(self._ahead)

    def _deliver(self, batch: PendingBatch) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        embedded: EmbeddedBatch[ItemT, EmbeddingsT] = EmbeddedBatch(batch.start, batch.items, self._finish(batch.builder))
        if batch.is_complete or not self._raises:
            return embedded
        error = batch.builder.account.first_error() or self._planner.job_error
        if error is None:
            raise RuntimeError("a batch that is neither complete nor failed was delivered")
        if error is self._planner.job_error:
            self._raised.append(error)
        raise self._batch_error(error, embedded)

    def _batch_error(self, error: EmbedError, batch: EmbeddedBatch[ItemT, EmbeddingsT]) -> EmbedError:
        # A copy: several batches may share the error, and a consumer may have kept it.
        if error is self._planner.job_error:
            own = with_outcome(copy.copy(error), batch.embeddings)  # type: ignore[arg-type]
        else:
            own = summed_up(error, batch.embeddings, batch.start)  # type: ignore[arg-type]
        own.batch = batch
        return own

    def _job_error(self, error: EmbedError) -> EmbedError:
        return with_outcome(copy.copy(error), self._finish(self._empty))  # type: ignore[arg-type]

    def _was_raised(self, error: BaseException) -> bool:
        # By identity: foreign exceptions may define `__eq__`.
        return any(error is raised for raised in self._raised)

    def _raise_end(self) -> None:
        job_error, scheduler, reader = self._planner.job_error, self._scheduler, self._reader
        # An exception of `progress` after the job had ended is raised as well.
        for error in (job_error, None if scheduler is None else scheduler.error):
            if error is not None and not self._was_raised(error):
                self._raised.append(error)
                raise self._job_error(error)
        if reader is not None and reader.error is not None and not self._was_raised(reader.error):
            self._raised.append(reader.error)
            # If the job ended, the stream itself cancelled the reading.
            if job_error is None or not reader.was_cancelled:
                raise reader.error
        raise StopAsyncIteration
