"""Runs the planner's requests with bounded concurrency."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from pinecone_embed_async._calls.slot import Slot
from pinecone_embed_async._errors import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    InputError,
    unexpected_error,
)
from pinecone_embed_async._log import logger
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    from pinecone_embed_async._cache import CallCache
    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._planning import PlannedRequest, RequestPlanner
    from pinecone_embed_async._rate_limit import Permit
    from pinecone_embed_async._sending import Sender
    from pinecone_embed_async._telemetry import RequestObservation

GRACE_SECONDS = 5.0
"""How long requests in flight may take after an error has ended the job: long enough for nearly every answer, short enough
for a caller waiting for the error."""


class ProgressReporter(Protocol):
    """Reports the progress of a call."""

    def report(self) -> None:
        """Report the progress, after each request and after inputs that fail without one. An exception ends the job."""


class Scheduler(SilentStruct):
    """Runs the planner's requests with bounded concurrency, each through all its attempts.

    What becomes of the inputs of a request that is ended early:

    | ended by | not sent yet | between attempts | in flight | answered |
    |---|---|---|---|---|
    | an error of the job, `stop` | untried | fail | has `GRACE_SECONDS` left | embedded |
    | the deadline, or the end of those seconds | untried | fail | fail | embedded, but caching ends |
    | `cancel`: the caller has left | dropped | dropped | dropped | cached if it may be |
    | foreign code that cancels its task | sent later | fail | fail | embedded, but caching ends |

    A request that is sent in place, in the caller's task, can be cancelled by foreign code only together with the caller.

    Args:
        planner: plans the requests and records their outcomes.
        sender: makes the attempts.
        clock: tells the time.
        most: maximum number of requests under way, including those that wait for another attempt.
        end: clock time at which the requests end; `None` for no deadline.
        progress: called after each request, until it raises an exception.
        cache: writes the answers to the cache after their rows are stored; `None` without a cache.

    Attributes:
        changes: set when inputs are embedded or fail, a request ends, or the job ends; the task that waits for it clears it.
        progress_error: the error that ended the job because `progress` raised an exception, which is its cause; else `None`.
    """

    _planner: RequestPlanner
    _sender: Sender
    _clock: Clock
    _most: int
    # When to cancel everything under way: at the deadline, or at the end of the grace period.
    _end: float | None
    _progress: ProgressReporter | None = None
    _cache: CallCache | None = None
    changes: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    progress_error: EmbedError | None = None
    # Dicts, which unlike sets keep their order, so that requests end in the same order in every simulation.
    _under_way: dict[Slot, None] = msgspec.field(default_factory=dict)
    _helpers: dict[asyncio.Task[Any], None] = msgspec.field(default_factory=dict)
    _drained: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
    _group: asyncio.TaskGroup | None = None
    _is_running: bool = False
    _timer: Timer | None = None
    _is_winding_down: bool = False
    _unsent: int = 0

    def __repr__(self) -> str:
        return f"<Scheduler {len(self._under_way)}/{self._most} under way{', ending' if self._is_winding_down else ''}>"

    def begin(self, group: asyncio.TaskGroup | None) -> None:
        """Send requests in tasks of this group from now on; `end` must follow before the group's block ends.

        Without a group, requests are sent in place only.
        """
        self._group, self._is_running = group, True
        if self._end is not None:
            self._set_timer(self._end)

    async def end(self, *, in_place: bool = False) -> None:
        """Send what is left, and wait until no request is under way.

        Args:
            in_place: whether to send the first request in the caller's task, which saves it three turns of the event loop;
                without a group all of them, one at a time. Code that cancels the task of such a request cancels the caller.

        Raises:
            asyncio.CancelledError: the caller was cancelled; the group then cancels the tasks.
        """
        try:
            while in_place and (slot := self._next_slot()) is not None:
                try:
                    await slot.run(self._run_request(slot))
                except BaseException:
                    # The caller leaves, so that nothing may follow.
                    self._is_running = False
                    raise
                finally:
                    # What follows, such as a half, is sent in a task of the group if there is one.
                    self._ended(slot)
            self.fill()
            await self.drained()
        finally:
            # From now on nothing is started, and the group cancels the tasks, not code outside.
            self._is_running = False
            self._clear_timer()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._under_way

    @property
    def job_error(self) -> EmbedError | None:
        """The error that ended the job early; `None` if there is none."""
        return self._planner.job_error

    def request_of(self, position: int) -> PlannedRequest | None:
        """The request under way with the input at `position`; `None` if there is none."""
        requests = (slot.request for slot in self._under_way if slot.request is not None and not slot.request.is_probe)
        return next((request for request in requests if position in request.positions), None)

    def adopt(self, helper: asyncio.Task[Any]) -> None:
        """Cancel a task of the group, which finds inputs for this scheduler, once the job has ended."""
        self._helpers[helper] = None
        helper.add_done_callback(self._helpers.pop)

    def fill(self) -> None:
        """Start waiting for the permit of the next request, if there is one and not too many are under way."""
        if self._group is not None and (slot := self._next_slot()) is not None:
            task = self._group.create_task(self._run_task(slot), name="embed")
            task.add_done_callback(lambda _: self._ended(slot))

    def _next_slot(self) -> Slot | None:
        """A slot for the next request, if there is one and not too many are under way."""
        # Only the newest may wait for a permit, because the next request is unknown until this one is cut.
        slots = self._under_way
        is_waiting = bool(slots) and next(reversed(slots)).request is None
        has_room = self._is_running and not is_waiting and len(slots) < self._most
        has_next = has_room and self._planner.peek() is not None
        if self._planner.failed_unsent != self._unsent:
            # They may be all inputs of the next request, with others to follow.
            has_next = has_room
            self._report_unsent()
        if not has_next:
            return None
        slot = Slot()
        # Before the request begins, because it calls `fill` too.
        slots[slot] = None
        return slot

    def _report_unsent(self) -> None:
        """Report inputs that failed without a request."""
        self._unsent = self._planner.failed_unsent
        self.changes.set()
        self.report()

    def stop(self, error: EmbedError) -> None:
        """End the job: send nothing more, and give requests in flight the grace period."""
        self._planner.end(error)
        self._wind_down()

    def cancel(self, *, may_cache: bool) -> None:
        """Cancel everything under way without recording outcomes, because nobody needs them any more.

        Args:
            may_cache: whether answers may still be cached.
        """
        self._planner.end(ClosedError("the caller left before all inputs were embedded"))
        self._is_winding_down = True
        for slot in self._under_way:
            if not (may_cache and slot.is_settled):
                slot.is_settled = True
                slot.cancel()
        self._cancel_helpers()

    async def drained(self) -> None:
        """Wait until no request is under way; after `stop`, within the grace period."""
        while self._under_way:
            self._drained.clear()
            await self._drained.wait()

    async def _run_task(self, slot: Slot) -> None:
        try:
            await slot.run(self._run_request(slot))
        except asyncio.CancelledError:
            if not slot.is_settled and self._is_running and slot.request is not None:
                # Cancelled from outside: only the inputs of this request fail, unless it was answered just before.
                slot.is_settled = True
                if slot.request.is_answered:
                    self._planner.embedded(slot.request)
                else:
                    self._planner.failed(slot.request, EmbedError("the request was cancelled by code outside its call"))
                self.report()
            raise

    async def _run_request(self, slot: Slot) -> None:
        taken = await self._take()
        if taken is None:
            return
        slot.request, permit = taken
        self.fill()
        error = await self._send(slot, slot.request, permit)
        slot.is_settled = True
        if self._planner.job_error is not None:
            self._wind_down()
        self.report()
        if self._cache is not None and error is None:
            # Wake the consumer now: it need not wait until the rows are cached.
            self.changes.set()
            try:
                await self._cache.write(slot.request, self._end)
            except Exception as fault:  # noqa: BLE001 - the rows are stored even if caching fails
                logger.warning("an answer could not be cached: %s", type(fault).__name__)

    def report(self) -> None:
        """Report the progress, after a request or after inputs that fail without one."""
        if self._progress is None or self.progress_error is not None or not self._is_running:
            return
        try:
            self._progress.report()
        # `progress` is called, not awaited, so even a CancelledError comes from it.
        except (Exception, asyncio.CancelledError) as cause:  # noqa: BLE001 - the caller's exception, passed on to the caller
            # Not raised here: in Python 3.11, a task group whose task fails leaves its caller marked as cancelled.
            self.progress_error = EmbedError(f"`progress` raised {type(cause).__name__}, which ended the call")
            self.progress_error.__cause__ = cause
            self.stop(self.progress_error)

    async def _take(self) -> tuple[PlannedRequest, Permit] | None:
        """Wait for a permit, and take the next request, cut to its tokens; `None` if no request is left.

        Do not await anything between the return and the first attempt, because a cancellation would lose the permit.
        """
        planner = self._planner
        while (ahead := planner.peek()) is not None or planner.failed_unsent != self._unsent:
            if ahead is None:
                self._report_unsent()
                await asyncio.sleep(0)
                continue
            least_tokens = ahead.least_tokens
            try:
                permit = await self._sender.permit(ahead)
            except Exception as fault:  # noqa: BLE001 - only this request fails
                self._go_without(fault.with_traceback(None) if isinstance(fault, EmbedError) else unexpected_error(fault))
                # Many requests in a row may fail like this.
                await asyncio.sleep(0)
                continue
            # If the next request changed while it waited, or its token estimate grew, another permit may be large enough for
            # its first input. But if this one has fewer tokens than were asked for that input, none ever will be, so that
            # input is sent with it.
            request = planner.peek()
            if request is not None and (
                request.least_tokens <= permit.tokens or (request is ahead and permit.tokens < least_tokens)
            ):
                planner.take(request, permit.tokens)
                permit.resize(request.load.tokens)
                return request, permit
            permit.give_back()
        return None

    def _go_without(self, error: EmbedError) -> None:
        """Fail the next request, which gets no permit, or only its first input if the error is about that.

        If no permit comes before the deadline, end the job, unless a stream with a cache is still reading or looking up.
        """
        may_find_more = self._cache is not None and bool(self._helpers)
        if isinstance(error, DeadlineExceededError) and not may_find_more:
            self.stop(error)
            return
        request = self._planner.peek()
        if request is not None:
            self._planner.take(request, 0 if isinstance(error, InputError) else math.inf)
            self._planner.failed(request, error)
        if self._planner.job_error is not None:
            self._wind_down()
        self.changes.set()
        self.report()

    async def _send(self, slot: Slot, request: PlannedRequest, permit: Permit) -> EmbedError | None:
        """Make the attempts of a request, record its outcome, and return its error."""
        observation = self._sender.observe(request)
        try:
            error = await self._sender.attempt(request, permit, observation)
            # Only after a failure, because setting up the retry loop takes a tenth of the time of a small request.
            if error is not None:
                error = await self._retry(request, error, observation)
            if error is None:
                self._planner.embedded(request)
        except asyncio.CancelledError as cancellation:
            if observation is not None:
                observation.ended(request, None if request.is_answered else cancellation)
            raise
        except Exception as fault:  # noqa: BLE001 - an exception in a task would end the whole call
            error = self._sender.unexpected(request, fault)
        if observation is not None:
            observation.ended(request, error)
        if error is not None and not slot.is_settled:
            self._planner.failed(request, error)
        return error

    async def _retry(
        self, request: PlannedRequest, error: EmbedError, observation: RequestObservation | None
    ) -> EmbedError | None:
        """Make further attempts by the retry policy; the loop's first one has already been made, and failed with `error`."""
        first = [error]

        async def attempt() -> EmbedError | None:
            return first.pop() if first else await self._attempt_again(request, observation)

        return await self._sender.retrying(request, observation)(attempt)

    async def _attempt_again(self, request: PlannedRequest, observation: RequestObservation | None) -> EmbedError | None:
        """Wait for another permit, cut the request to it, and send it."""
        request.estimate()
        try:
            permit = await self._sender.permit(request, observation)
        except (InputError, ConfigurationError) as fault:
            if isinstance(fault, InputError):
                # Only the first input is too large; the others are sent once this request has ended, which is at once.
                self._planner.cut(request, 0)
            return fault.with_traceback(None)
        except DeadlineExceededError as late:
            return request.out_of_time(late.message, late.retry_after)
        try:
            self._planner.cut(request, permit.tokens)
            permit.resize(request.load.tokens)
            # Send the inputs that were cut off.
            self.fill()
        except BaseException:
            permit.give_back()
            raise
        return await self._sender.attempt(request, permit, observation)

    def _ended(self, slot: Slot) -> None:
        """Handle the end of a request, whose task any code may have cancelled, even before it began."""
        del self._under_way[slot]
        # First, because whoever is woken may keep the event loop busy.
        self.fill()
        if not self._under_way:
            self._drained.set()
        self.changes.set()

    def _cancel_helpers(self) -> None:
        """Cancel the helper tasks, but only once, because a second cancellation would interrupt their clean-up."""
        for task in self._helpers:
            if not task.cancelling():
                task.cancel()
        self.changes.set()

    def _wind_down(self) -> None:
        """Abandon the requests that have not been sent, and give those in flight the grace period for their answers."""
        if self._is_winding_down:
            return
        self._is_winding_down = True
        for slot in self._under_way:
            if slot.request is not None and slot.request.in_flight:
                slot.request.is_last = True
            elif not slot.is_settled:
                self._abandon(slot)
        # Report the inputs of the abandoned requests.
        self.report()
        self._cancel_helpers()
        end = self._clock.time() + GRACE_SECONDS
        self._set_timer(end if self._end is None else min(end, self._end))

    def _expire(self) -> None:
        """End the job at its deadline, or at the end of the grace period, with everything under way."""
        self._timer = None
        self._is_winding_down = True
        self._planner.end(self._sender.out_of_time("the deadline of the call passed before all inputs were embedded"))
        for slot in self._under_way:
            self._abandon(slot)
        self.report()
        self._cancel_helpers()

    def _abandon(self, slot: Slot) -> None:
        """Cancel the task of a request; its inputs fail if it was sent. One that was answered just now is left to finish."""
        request, error = slot.request, self._planner.job_error
        if slot.is_settled:
            # It caches its answer.
            slot.cancel()
            return
        if request is not None and request.is_answered:
            return
        slot.is_settled = True
        slot.cancel()
        if error is None or request is None or not request.attempts:
            # No attempt was made, so its inputs stay untried.
            return
        if isinstance(error, DeadlineExceededError):
            error = request.out_of_time(error.message, error.retry_after)
        elif request.last_error is not None:
            error = request.last_error
        self._planner.failed(request, error)

    def _set_timer(self, when: float) -> None:
        self._clear_timer()
        self._end = when
        if when <= self._clock.time():
            self._expire()
        elif self._is_running:
            self._timer = self._clock.call_at(when, self._expire)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
