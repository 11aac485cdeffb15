"""The single calls of one event loop, and the tasks of their shared requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinecone_embed_async._calls.coalescer import Coalescer
from pinecone_embed_async._calls.single_results import own_error
from pinecone_embed_async._errors import EmbedError, unexpected_error

if TYPE_CHECKING:
    from collections.abc import Hashable

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._calls.coalescer import RequestStarter, SharedRequest, Waiter
    from pinecone_embed_async._calls.scheduler import Scheduler
    from pinecone_embed_async._calls.single_results import SingleResults
    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._planning import RequestLimits
    from pinecone_embed_async._results import SparseVector


@dataclass(slots=True, repr=False, eq=False)
class _RunningRequest:
    """A shared request under way, which may still wait for its permit.

    Attributes:
        results: delivers the outcomes to the callers.
        scheduler: sends the request.
        task: runs the scheduler.
        end: future on which the last caller to leave waits for the end of the task; `None` while none waits.
    """

    results: SingleResults
    scheduler: Scheduler
    task: asyncio.Task[None]
    end: asyncio.Future[None] | None = None

    def cancel(self) -> None:
        """Cancel the task."""
        self.task.cancel()

    async def wait_until_done(self) -> None:
        """Wait for the end of the task, which a cancellation of the caller cancels too."""
        cancellation: asyncio.CancelledError | None = None
        while not self.task.done():
            self.end = self.task.get_loop().create_future()
            try:
                await self.end
            except asyncio.CancelledError as error:
                self.cancel()
                cancellation = error
        if cancellation is not None:
            raise cancellation


class SingleCalls:
    """Coalesces the single calls of the running event loop.

    The callers of a shared request jointly own its task. It runs as long as one of them waits. The last caller to leave
    cancels it if it is not done, and waits for its end.

    Args:
        clock: tells the time.
        max_delay: maximum seconds that a call waits for others, unless its request is held; see `Coalescer`.
        hold_at: while at least this many requests with equal parameters are under way, only full ones are sent.

    Attributes:
        coalescer: decides which calls share a request.
    """

    def __init__(self, *, clock: Clock, max_delay: float, hold_at: int) -> None:
        self._clock = clock
        self.coalescer = Coalescer(clock=clock, loop=asyncio.get_running_loop(), max_delay=max_delay, hold_at=hold_at)
        self._sent: dict[SharedRequest, _RunningRequest] = {}

    async def call(
        self, waiter: Waiter, key: Hashable, limits: RequestLimits, starter: RequestStarter
    ) -> NDArray[np.float32] | SparseVector:
        """Embed a text in a request shared with concurrent calls.

        Args:
            waiter: the caller with its text.
            key: calls with equal keys may share a request.
            limits: limits of one request.
            starter: starts the request if this is its first caller.

        Returns:
            The caller's own copy of its vector, so that it keeps no other call's data in memory.

        Raises:
            EmbedError: the caller's own error.
            asyncio.CancelledError: the caller was cancelled.
        """
        # Join before any await, so that calls of the same loop iteration share a request.
        self.coalescer.join(key, waiter, limits, starter)
        timer: Timer | None = None
        if waiter.deadline is not None:
            timer = self._clock.call_at(waiter.deadline, lambda: self._expire(waiter, starter))
        try:
            outcome = await waiter.outcome
        finally:
            if timer is not None:
                timer.cancel()
            await self._leave(waiter)
        if isinstance(outcome, BaseException):
            try:
                raise outcome
            finally:
                # The error's traceback refers to this frame, and this frame to both: a reference cycle.
                del outcome, waiter.outcome
        return outcome

    async def stop(self, error: EmbedError) -> None:
        """End all calls, and wait for that: those in flight within the scheduler's grace period, the others at once."""
        for waiter in self.coalescer.cancel_pending():
            waiter.settle(own_error(error, 0, is_failure=False))
        for sent in self._sent.values():
            sent.results.closed_by = error
            sent.scheduler.stop(error)
        for sent in list(self._sent.values()):
            await sent.scheduler.drained()

    def run(self, shared: SharedRequest, results: SingleResults, scheduler: Scheduler) -> None:
        """Start the task of a request."""
        task = asyncio.create_task(_run(scheduler), name=f"embed {len(shared.waiters)} joined inputs")
        self._sent[shared] = _RunningRequest(results, scheduler, task)
        task.add_done_callback(lambda _: self._ended(shared))

    def _ended(self, shared: SharedRequest) -> None:
        """Handle the end of a request's task: wake the caller that waits for it, and settle those without an outcome."""
        sent = self._sent.pop(shared)
        # First, because `ended` may send the pending request, which the woken caller may want to join.
        if sent.end is not None and not sent.end.done():
            sent.end.set_result(None)
        self.coalescer.ended(shared)
        fault = None if sent.task.cancelled() else sent.task.exception()
        if sent.results.is_settled:
            return
        error = sent.scheduler.job_error
        if error is None and sent.task.cancelled():
            # By foreign code: callers still wait.
            error = EmbedError("the shared request was cancelled by code outside its calls")
        sent.results.not_tried(error or unexpected_error(fault or RuntimeError()))

    def _expire(self, waiter: Waiter, starter: RequestStarter) -> None:
        """Settle a caller whose deadline has passed, with an error that names the last failure."""
        sent = self._sent.get(waiter.shared)
        if sent is None:
            waiter.settle(starter.out_of_time("the deadline of the call passed before its request was sent"))
            return
        request = sent.scheduler.request_of(sent.results.position_of(waiter))
        error = starter.out_of_time("the deadline of the call passed before it was embedded")
        if request is not None:
            error = request.out_of_time("the deadline of the call passed before the answer came", error.retry_after)
        sent.results.timed_out(waiter, error)

    async def _leave(self, waiter: Waiter) -> None:
        """Leave a request; the last caller cancels it unless it only caches its answer, and waits for its end."""
        shared = waiter.shared
        self.coalescer.leave(waiter)
        sent = self._sent.get(shared)
        if shared.waiters or sent is None:
            return
        timer: Timer | None = None
        if not sent.results.is_settled:
            sent.cancel()
        elif waiter.deadline is not None:
            # Caching of the answer may take until the deadline.
            timer = self._clock.call_at(waiter.deadline, sent.cancel)
        try:
            await sent.wait_until_done()
        finally:
            if timer is not None:
                timer.cancel()


async def _run(scheduler: Scheduler) -> None:
    async with asyncio.TaskGroup() as group:
        scheduler.begin(group)
        await scheduler.end(in_place=True)
