"""The stream that a caller iterates over, and its context manager, which runs its tasks."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NoReturn, cast

from pinecone_embed_async._calls.batches import EmbeddedBatch, EmbeddingsT, ItemT, StreamBatches
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._calls.runtime import CallObserver
from pinecone_embed_async._calls.source import SourceReader
from pinecone_embed_async._errors import ClosedError, EmbedError, unexpected_error
from pinecone_embed_async._planning import Packer
from pinecone_embed_async._results import Dimension, all_steps, summed_up, with_outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

    from pinecone_embed_async._calls.batches import PendingBatch
    from pinecone_embed_async._calls.runtime import Runtime
    from pinecone_embed_async._calls.scheduler import Scheduler
    from pinecone_embed_async._calls.source import Source
    from pinecone_embed_async._options import CallOptions, StreamOptions
    from pinecone_embed_async._results import Usage


class EmbeddingStream(Generic[ItemT, EmbeddingsT]):
    """Yields the batches of a stream. Made by `EmbedClient.stream`; iterate over it with `async for` inside its block.

    Several tasks may iterate over one stream; each batch goes to one of them.

    If a batch is not fully embedded, iteration raises its error instead; with `on_error="return"` it yields the batch. The
    error's `batch` has the items, its `partial` the successful embeddings. Iterate again to continue with the next batch. An
    error of the whole job, of `progress` or of the source is raised last, after everything that was embedded.

    Attributes:
        usage: usage billed so far.
    """

    def __init__(
        self,
        batches: StreamBatches,
        reader: SourceReader,
        scheduler: Scheduler,
        runtime: Runtime,
        options: CallOptions,
    ) -> None:
        self._batches = batches
        self._reader = reader
        self._scheduler = scheduler
        self._runtime = runtime
        self._cache = options.parameters.cache
        self._raises = options.raises
        self._remaining: deque[PendingBatch] | None = None
        # Errors of the whole stream; those of batches are not kept.
        self._raised: list[BaseException] = []
        self._is_exited = False

    def __repr__(self) -> str:
        ahead = f"{len(self._reader)}/{self._reader.window} batches read ahead"
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
            ClosedError: the stream's block has ended.
            Exception: any exception of the source.
        """
        while True:
            if self._is_exited:
                raise ClosedError("the stream was left: iterate inside its `async with` block")
            batch = self._take()
            if batch is not None:
                self._reader.delivered.set()
                return self._deliver(batch)
            self._raise_if_over()
            changes = self._scheduler.changes
            changes.clear()
            await changes.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read, look up and send while the block runs; however it ends, no task is left running."""
        scheduler, reader = self._scheduler, self._reader
        block_error: BaseException | None = None
        async with asyncio.TaskGroup() as group:
            scheduler.begin(group)
            name = "take over batches" if self._cache is None else "look up batches"
            reading = group.create_task(reader.read(), name="read")
            scheduler.adopt(reading)
            reading.add_done_callback(lambda _: reader.ended())
            feeding = group.create_task(self._feed(), name=name)
            scheduler.adopt(feeding)
            feeding.add_done_callback(self._feed_ended)
            try:
                yield
            except BaseException as error:  # noqa: BLE001 - raised again unchanged once the tasks are done
                block_error = error
            self._is_exited = True
            scheduler.cancel(may_cache=block_error is None)
            await scheduler.end()
        if block_error is not None:
            raise block_error
        if scheduler.progress_error is not None and not self._was_raised(scheduler.progress_error):
            raise self._job_error(scheduler.progress_error)
        if reader.closing_error is not None:
            raise reader.closing_error

    async def _feed(self) -> None:
        """Take over batches until the source has ended; with a cache, look them up too. An error ends the job."""
        try:
            is_over = False
            while not is_over:
                await self._reader.added.wait()
                self._reader.added.clear()
                self._take_over()
                while self._cache is not None and (request := self._batches.next_to_look_up()) is not None:
                    values = await self._cache.look_up(request.texts)
                    # Only now, because the first answer may have set the type and dimension meanwhile.
                    found = self._runtime.decode(self._cache, values, self._batches.dimension.value)
                    self._batches.looked_up(request, found)
                    if len(found.rows):
                        self._scheduler.report()
                    self._take_over()
                is_over = self._reader.is_finished and not self._reader.queue
        except Exception as fault:  # noqa: BLE001 - an exception in a task would end the whole stream
            self._scheduler.stop(fault.with_traceback(None) if isinstance(fault, EmbedError) else unexpected_error(fault))

    def _take_over(self) -> None:
        """Move the batches that were read into the stream, and send them."""
        failed = self._batches.failed_count
        while self._reader.queue:
            read = self._reader.queue.popleft()
            if len(read) == 2:
                self._batches.add(*read)
            else:
                self._batches.add_failed(*read)
        if self._batches.failed_count > failed:
            # Items that are not texts fail without a request.
            self._scheduler.report()
        self._scheduler.fill()
        self._scheduler.changes.set()

    def _feed_ended(self, task: asyncio.Task[None]) -> None:
        """End the job if other code cancelled the task that takes over the batches, even before it began."""
        if task.cancelled():
            work = "taking over the batches" if self._cache is None else "looking vectors up in the cache"
            self._scheduler.stop(EmbedError(f"{work} was cancelled by code outside its call"))

    def _take(self) -> PendingBatch | None:
        if self._remaining is not None:
            return self._remaining.popleft() if self._remaining else None
        if self._scheduler.job_error is None:
            return self._batches.next_done()
        if self._scheduler.is_idle:
            self._remaining = deque(self._batches.drain())
            return self._take()
        # Deliver complete batches first, because the consumer may leave at the job's error.
        return self._batches.next_done(only_complete=True)

    def _deliver(self, batch: PendingBatch) -> EmbeddedBatch[ItemT, EmbeddingsT]:
        embedded: EmbeddedBatch[ItemT, EmbeddingsT] = EmbeddedBatch(batch.start, batch.items, self._finish(batch))
        if batch.is_complete or not self._raises:
            return embedded
        error, job_error = batch.first_error(), self._scheduler.job_error
        # A copy: several batches may share the error, and a consumer may have kept it.
        if job_error is not None and error in (None, job_error):
            self._raised.append(job_error)
            own = with_outcome(copy.copy(job_error), embedded.embeddings)  # type: ignore[arg-type]
        else:
            own = summed_up(error, embedded.embeddings, embedded.start)  # type: ignore[arg-type]
        own.batch = embedded
        raise own

    def _job_error(self, error: EmbedError) -> EmbedError:
        return with_outcome(copy.copy(error), self._finish(ResultBuilder(0, 0, self._batches.dimension)))  # type: ignore[arg-type]

    def _finish(self, builder: ResultBuilder) -> EmbeddingsT:
        runtime = self._runtime
        return cast("EmbeddingsT", all_steps(builder.finish(runtime.options.model, runtime.engine.vector_type)))

    def _was_raised(self, error: BaseException) -> bool:
        # By identity, because foreign exceptions may define `__eq__`.
        return any(error is raised for raised in self._raised)

    def _raise_if_over(self) -> None:
        """Raise the next error of the whole stream, or its end, once there is no batch to come."""
        job_error, scheduler, reader = self._scheduler.job_error, self._scheduler, self._reader
        is_over = reader.is_finished and not len(reader) if job_error is None else self._remaining is not None
        if not is_over:
            return
        # `progress` may have raised after the job had ended; raise that too.
        for error in (job_error, scheduler.progress_error):
            if error is not None and not self._was_raised(error):
                self._raised.append(error)
                raise self._job_error(error)
        if reader.error is not None and not self._was_raised(reader.error):
            self._raised.append(reader.error)
            # If the job ended, the stream itself cancelled the reading task.
            if job_error is None or not reader.was_cancelled:
                raise reader.error
        raise StopAsyncIteration


class StreamContext(contextlib.AbstractAsyncContextManager["EmbeddingStream[ItemT, EmbeddingsT]", None]):
    """The context manager of a stream; any other use raises an error that says what to write."""

    def __init__(self, context: contextlib.AbstractAsyncContextManager[EmbeddingStream[ItemT, EmbeddingsT]]) -> None:
        self._context = context

    async def __aenter__(self) -> EmbeddingStream[ItemT, EmbeddingsT]:
        return await self._context.__aenter__()

    async def __aexit__(self, *error: Any) -> None:  # noqa: PYI036 - passed on unread
        await self._context.__aexit__(*error)

    if not TYPE_CHECKING:  # a type checker reports the missing methods itself

        def __aiter__(self) -> NoReturn:
            raise TypeError(f"a stream must be entered before you iterate over it: {_ENTERED}")

        def __iter__(self) -> NoReturn:
            raise TypeError(f"a stream is asynchronous: {_ENTERED}; without `async`, use a SyncEmbedClient")

        __enter__ = __iter__

        def __exit__(self, *_: object) -> None: ...


_ENTERED = "write `async with client.stream(...) as batches:` and in it `async for batch in batches:`"


def open_stream(
    runtime: Runtime, source: Source[ItemT], options: CallOptions, reading: StreamOptions
) -> StreamContext[ItemT, Any]:
    """Embed a source while the block of the context runs; see `EmbedClient.stream`."""
    return StreamContext(_opened(runtime, source, options, reading))


@contextlib.asynccontextmanager
async def _opened(
    runtime: Runtime, source: Source[ItemT], options: CallOptions, reading: StreamOptions
) -> AsyncIterator[EmbeddingStream[ItemT, Any]]:
    runtime.check_open()
    await runtime.describe(options)
    parameters = options.parameters
    batches = StreamBatches(
        Dimension(parameters.dimension),
        parameters.limits,
        ordered=reading.ordered,
        looks_up=parameters.cache is not None,
    )
    window = reading.window or 2 * runtime.options.max_concurrency
    reader = SourceReader(source, reading, Packer(parameters.limits), batches, window, runtime)
    observer = CallObserver(runtime, options, batches, None)
    scheduler = runtime.scheduler(batches, options, observer, options.deadline, progress=observer, max_under_way=window)
    stream: EmbeddingStream[ItemT, Any] = EmbeddingStream(batches, reader, scheduler, runtime, options)
    with runtime.observing(observer, "stream", parameters, None), runtime.registered(scheduler):
        async with observer.showing(), stream.running():
            yield stream
