"""A call of `embed`: reads all inputs, takes rows from the cache, sends the rest, and builds the result."""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._cache import LOOKED_UP_AT_ONCE, READ_AT_ONCE
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._calls.runtime import CallObserver
from pinecone_embed_async._errors import DeadlineExceededError, EmbedError, Failure, InputError
from pinecone_embed_async._foreign import Cancellations, StrayCancellationError
from pinecone_embed_async._inputs import SLICE, error_of, failures_of, read_input, read_inputs
from pinecone_embed_async._planning import PendingTexts
from pinecone_embed_async._results import Dimension, summed_up, with_outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pinecone_embed_async._cache import CallCache
    from pinecone_embed_async._calls.runtime import Runtime
    from pinecone_embed_async._inputs import Faults, Inputs
    from pinecone_embed_async._options import CallOptions
    from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings


async def embed(
    runtime: Runtime, inputs: Inputs, options: CallOptions, *, dedupe: bool
) -> DenseEmbeddings | SparseEmbeddings:
    """Embed any number of inputs; see `EmbedClient.embed`."""
    texts: Sequence[str] = ()
    try:
        if type(inputs) is str:
            # Reading one text cannot block, and takes less time than setting up the scope with a time-out.
            faults: Faults = {}
            texts = [read_input(inputs, 0, faults)]
        else:
            texts, faults = await _read_until(runtime, inputs, options.deadline)
        if faults and options.raises:
            raise error_of(faults, len(texts))
        failures = failures_of(faults) if faults else ()
        room, positions = len(texts), None
        if dedupe:
            texts, failures, positions = await _distinct(texts, failures)
        builder = ResultBuilder(0, len(texts), Dimension(options.parameters.dimension), room)
        for failure in failures:
            builder.fail(failure.indices, failure.error)
        call = _Call(runtime, options, builder, len(texts), texts=texts, positions=positions)
    finally:
        # Error reports that include local variables must not show the texts.
        del inputs
        texts = ()
    # The client may have been closed while an async iterable was read.
    runtime.check_open()
    if call.texts:
        await runtime.describe(options)
    with runtime.observing(call, "embed", options.parameters, len(call.texts)):
        async with call.showing():
            return await call.run()


async def _read_until(runtime: Runtime, inputs: Inputs, deadline: float | None) -> tuple[list[str], Faults]:
    """Read the inputs until the deadline, or until the client is closed."""
    problem: EmbedError | None = None
    cancellations = await Cancellations.counted()
    try:
        async with runtime.interruptible(deadline) as scope:
            if isinstance(inputs, AsyncIterable):
                return await runtime.sources.run(read_inputs(inputs))
            return await read_inputs(inputs)
    except InputError as error:
        # The traceback would keep frames alive, and with them the texts.
        problem = error.with_traceback(None)
    except TimeoutError:
        # A time-out inside the source is the caller's to handle.
        if not scope.expired():
            raise
        problem = DeadlineExceededError("the deadline of the call passed while its inputs were read")
    except (StopAsyncIteration, StrayCancellationError, asyncio.CancelledError) as error:
        if isinstance(error, asyncio.CancelledError) and cancellations.is_callers:
            raise
        name = "StopAsyncIteration" if isinstance(error, StopAsyncIteration) else "CancelledError"
        problem = EmbedError(
            f"the source of the inputs raised {name}, which marks neither its end nor the caller's cancellation"
        )
    finally:
        del inputs
    runtime.check_open()
    raise problem


async def _distinct(
    texts: Sequence[str], failures: tuple[Failure, ...]
) -> tuple[Sequence[str], tuple[Failure, ...], NDArray[np.intp] | None]:
    """The distinct inputs, which share a row, their failures, and the row of each input; `None` if all are distinct."""
    # Inputs with the same fault share a row too.
    keys: list[str | int] = [*texts]
    for number, failure in enumerate(failures):
        for index in failure.indices:
            keys[index] = number
    # The distinct keys with their rows, and the row of each input.
    first: dict[str | int, int] = {}
    rows = array("q")
    for start in range(0, len(keys), SLICE):
        rows.extend([first.setdefault(key, len(first)) for key in keys[start : start + SLICE]])
        await asyncio.sleep(0)
    if len(first) == len(keys):
        return texts, failures, None
    shared = tuple(Failure([rows[failure.indices[0]]], failure.error) for failure in failures)
    return [key if isinstance(key, str) else "" for key in first], shared, np.array(rows, np.intp)


class _Call(CallObserver):
    """A call with its checked inputs.

    Attributes:
        texts: the inputs; with `dedupe`, without duplicates.
        positions: for each input, the position of its text; `None` if each input has its own text.
    """

    results: ResultBuilder
    texts: Sequence[str] = ()
    positions: NDArray[np.intp] | None = None

    async def run(self) -> DenseEmbeddings | SparseEmbeddings:
        """Look up the inputs, send the rest, and build the result; raise what the options ask for."""
        runtime, options, builder = self._runtime, self._options, self.results
        cache = options.parameters.cache
        if cache is not None:
            await self._look_up(cache)
        untried = builder.untried()
        pending = PendingTexts(self.texts, options.parameters.limits, builder, untried)
        is_single = len(untried) == 1
        scheduler = runtime.scheduler(pending, options, self, options.deadline, is_single=is_single, progress=self)
        with runtime.registered(scheduler):
            async with contextlib.nullcontext() if is_single else asyncio.TaskGroup() as group:
                scheduler.begin(group)
                if builder.cached_count:
                    scheduler.report()
                await scheduler.end(in_place=is_single)
        vector_type = runtime.engine.vector_type
        result = await builder.finish(runtime.options.model, vector_type, self.positions)
        if scheduler.progress_error is not None:
            # Raised even with `on_error="return"`, which covers only failed inputs.
            raise with_outcome(scheduler.progress_error, result)
        if builder.is_complete:
            # The last answer may arrive after the job has ended; then nothing is missing.
            return result
        job_error = scheduler.job_error
        error = job_error or builder.first_error()
        if error is None:
            raise with_outcome(
                EmbedError("every input must be embedded or fail, but some were not tried; please report this bug"), result
            )
        if options.raises:
            raise with_outcome(error, result) if job_error is not None else summed_up(error, result)
        return result

    async def _look_up(self, cache: CallCache) -> None:
        """Take the rows that are in the cache."""
        builder, usable = self.results, np.asarray(self.results.untried(), np.intp)
        starts = iter(range(0, len(usable), LOOKED_UP_AT_ONCE))
        problems: list[EmbedError] = []

        async def look_up_parts() -> None:
            for start in starts:
                rows = usable[start : start + LOOKED_UP_AT_ONCE]
                try:
                    values = await cache.look_up([self.texts[row] for row in rows.tolist()])
                    for at in range(0, len(values), READ_AT_ONCE):
                        found = self._runtime.decode(cache, values[at : at + READ_AT_ONCE], builder.dimension)
                        builder.found(found, rows[found.rows + at])
                        await asyncio.sleep(0)
                except EmbedError as error:
                    # Not raised here: in Python 3.11, a task group whose task fails leaves its caller marked as cancelled.
                    problems.append(error.with_traceback(None))
                    return

        with contextlib.suppress(TimeoutError):
            async with self._runtime.interruptible(self._options.deadline), asyncio.TaskGroup() as group:
                # Two tasks: the cache looks up one part while the rows of another are copied.
                for _ in range(2):
                    group.create_task(look_up_parts(), name="look up inputs")
        if problems:
            raise problems[0]
        # If the deadline has passed, the scheduler reports that for every text without a row.
        self._runtime.check_open()
