"""A call of `embed_one`: gets its vector from the cache, or from a request shared with other calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pinecone_embed_async._calls.coalescer import Waiter
from pinecone_embed_async._calls.single_results import SingleResults
from pinecone_embed_async._errors import InputError
from pinecone_embed_async._inputs import text_of
from pinecone_embed_async._planning import PendingTexts
from pinecone_embed_async._results import Dimension, SparseVector
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._calls.coalescer import SharedRequest
    from pinecone_embed_async._calls.runtime import Runtime
    from pinecone_embed_async._calls.single_calls import SingleCalls
    from pinecone_embed_async._errors import DeadlineExceededError
    from pinecone_embed_async._inputs import Input
    from pinecone_embed_async._options import CallOptions
    from pinecone_embed_async._telemetry import ObservedCall


async def embed_one(runtime: Runtime, text: Input, options: CallOptions) -> NDArray[np.float32] | SparseVector:
    """Embed one text; see `EmbedClient.embed_one`."""
    problem: InputError | None = None
    try:
        text = text_of(text, 0)
        await runtime.describe(options)
        waiter = Waiter(text, asyncio.get_running_loop().create_future(), options.deadline)
    except InputError as error:
        # The traceback would keep frames alive, and with them the texts.
        problem = error.with_traceback(None)
    finally:
        # Error reports that include local variables must not show the texts.
        del text
    if problem is not None:
        raise problem
    call = _SingleCall(runtime, options, runtime.single_calls())
    with runtime.observing(call, "embed_one", options.parameters, 1):
        waiter.call = call.subject
        vector = await call.look_up(waiter)
        return await call.join(waiter) if vector is None else vector


class _SingleCall(SilentStruct):
    """One call of `embed_one`, without its text: it may outlive the call, as the starter of a shared request.

    Attributes:
        subject: the call as hooks see it; `None` without hooks.
    """

    _runtime: Runtime
    _options: CallOptions
    _single_calls: SingleCalls
    subject: ObservedCall | None = None
    _is_cached: bool = False

    @property
    def _key(self) -> Hashable:
        """The key of the call; calls with equal keys may share a request."""
        return self._options.parameters.encoded, self._options.priority

    def totals(self, is_well: bool) -> dict[str, int]:  # noqa: FBT001 - as `ObservableCall` has it
        """The totals reported to the hooks."""
        return {"embedded" if is_well else "failed": 1, "cached": int(self._is_cached)}

    async def look_up(self, waiter: Waiter) -> NDArray[np.float32] | SparseVector | None:
        """A copy of the cached vector; `None` if there is none."""
        cache = self._options.parameters.cache
        if cache is None:
            return None
        with self._single_calls.coalescer.expect(self._key):
            try:
                async with self._runtime.interruptible(self._options.deadline):
                    value = await cache.look_up_one(waiter.text)
            except TimeoutError:
                # If the deadline has passed, joining a request raises the right error.
                return None
            found = self._runtime.decode(cache, [value], self._options.parameters.dimension)
        self._is_cached = found.vector_type is not None
        if found.dense is not None:
            vector: NDArray[np.float32] = found.dense[0].copy()
            return vector
        if found.sparse is not None:
            return SparseVector(found.sparse.indices.copy(), found.sparse.values.copy())
        return None

    async def join(self, waiter: Waiter) -> NDArray[np.float32] | SparseVector:
        """Embed the text in a request shared with other calls."""
        # The client may have been closed while the text was looked up.
        self._runtime.check_open()
        engine, parameters = self._runtime.engine, self._options.parameters
        limits = parameters.limits.current
        if waiter.deadline is not None:
            certain = limits.certain_tokens_of(waiter.text)
            late = engine.gate.too_late(engine.key(parameters.values), certain, waiter.deadline)
            if late is not None:
                raise late
        return await self._single_calls.call(waiter, self._key, limits, self)

    def start(self, shared: SharedRequest) -> None:
        """Start a shared request with the options of this call."""
        runtime, options, texts = self._runtime, self._options, list(shared.waiters)
        dimension = Dimension(options.parameters.dimension)
        results = SingleResults(shared, dimension, runtime.engine.counters, self._single_calls.coalescer)
        pending = PendingTexts(texts, options.parameters.limits, results, range(len(texts)))
        scheduler = runtime.scheduler(pending, options, results, shared.deadline, is_single=len(texts) == 1)
        self._single_calls.run(shared, results, scheduler)

    def out_of_time(self, message: str) -> DeadlineExceededError:
        """See `Sender.out_of_time`."""
        engine = self._runtime.engine
        return engine.out_of_time(engine.key(self._options.parameters.values), message)
