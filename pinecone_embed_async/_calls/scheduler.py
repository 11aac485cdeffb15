"""Runs the planner's requests with bounded concurrency."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pinecone_embed_async._errors import ClosedError, DeadlineExceededError, EmbedError, InputError, unexpected_error
from pinecone_embed_async._log import logger
from pinecone_embed_async._sending import RetryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._planning import PlannedRequest, RequestPlanner
    from pinecone_embed_async._rate_limit import Permit

    PermitFor = Callable[[PlannedRequest], Awaitable[Permit]]
    """Waits for a permit for a request, which is then cut to the permit's tokens."""

    Cut = Callable[[int], PlannedRequest]
    """Cuts the request being sent to a number of tokens, or to its first input if that has more."""

    Send = Callable[[PlannedRequest, RetryState, Permit, Cut], Awaitable[EmbedError | None]]
    """Sends a request through all its attempts, the first with the given permit; returns its error, or `None` once the
    rows are in place."""

    Keep = Callable[[PlannedRequest, float | None], Awaitable[None]]
    """Caches the answer of a request, if there is one, within a deadline by the clock."""

ResultT = TypeVar("ResultT")

GRACE_SECONDS = 5.0
"""How long requests in flight may take after an error has ended the job: long enough for nearly every answer, short
enough for a caller that waits for the error."""


class _Scheduled(msgspec.Struct, eq=False):
    request: PlannedRequest | None = None
    """`None` while it waits for a permit: the request is planned once the permit is there."""
    retry: RetryState = msgspec.field(default_factory=RetryState)
    task: asyncio.Task[None] | None = None
    is_abandoned: bool = False
    is_done: bool = False
    """Whether its outcome is recorded; at most its answer is still being cached."""


class Scheduler:
    """Runs the planner's requests with bounded concurrency.

    Args:
        planner: plans the requests and records their outcomes.
        permit_for: waits for a permit for the next request.
        send: sends one request.
        window: maximum number of requests under way, those that wait for another attempt included.
        clock: the time.
        deadline: deadline of the job, by the clock; `None` for none.
        settled: called in the event loop after each request; an exception that it raises ends the job, and it is not called
            again.
        changed: called when a request or the job has ended in any way; must not raise.
        keep: caches the answer of a request once its rows are in place; `None` without a cache.
        grace: seconds that requests in flight may take after an error has ended the job.

    Attributes:
        loop: the event loop in which it runs.
        error: the error that ended the job because `settled` raised, with the exception as its cause; `None` otherwise.
    """

    def __init__(
        self,
        planner: RequestPlanner,
        permit_for: PermitFor,
        send: Send,
        *,
        window: int,
        clock: Clock,
        deadline: float | None,
        settled: Callable[[], None],
        changed: Callable[[], None] = lambda: None,
        keep: Keep | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._planner = planner
        self._permit_for = permit_for
        self._send = send
        self._window = window
        self._clock = clock
        self._deadline = deadline
        self._settled = settled
        self._changed = changed
        self._keep = keep
        self._grace = grace
        # A dict for its order, so that ending them all is deterministic.
        self._under_way: dict[_Scheduled, None] = {}
        # The one that waits for a permit: one at a time, since the next request is unknown until this one is cut.
        self._awaiting: _Scheduled | None = None
        self._group: asyncio.TaskGroup | None = None
        self._timer: Timer | None = None
        # When everything under way is cancelled: the deadline, or the end of the grace period.
        self._end = deadline
        self._is_winding_down = False
        self._is_exited = False
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._unsent = 0
        self.error: EmbedError | None = None
        self.loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Scheduler {len(self._under_way)}/{self._window} under way{', ending' if self._is_winding_down else ''}>"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests while the block runs, and wait at its end until all tasks are done.

        Raises:
            asyncio.CancelledError: the caller was cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                if self._deadline is not None:
                    self._set_timer(self._deadline)
                self.fill()
                try:
                    yield
                    await self.drained()
                except BaseException:
                    # From now on cancellations come from the group, not from outside.
                    self._is_exited = True
                    raise
        finally:
            self._group = None
            self._clear_timer()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not self._under_way

    @property
    def job_error(self) -> EmbedError | None:
        """The error that ended the job early; `None` if none did."""
        return self._planner.job_error

    def retry_of(self, position: int) -> RetryState | None:
        """The retry state of the request that carries an input; `None` if none is under way."""
        for entry in self._under_way:
            request = entry.request
            if request is not None and not request.is_probe and request.start <= position < request.stop:
                return entry.retry
        return None

    def start(self, work: Coroutine[Any, Any, ResultT], name: str) -> asyncio.Task[ResultT]:
        """Start a task in the scheduler's task group; only while it is running."""
        if self._group is None:
            raise RuntimeError("the scheduler is not running: call `start` inside `running`")
        return self._group.create_task(work, name=name)

    def fill(self) -> None:
        """Start the next request, which waits for a permit first, if there is one and the window has room."""
        if self._planner.unsent != self._unsent:
            self._report_unsent()
        if self._is_exited or self._group is None or self._awaiting is not None or len(self._under_way) >= self._window:
            return
        is_empty = self._planner.ahead() is None and not self._planner.is_sifting
        if self._planner.unsent != self._unsent:
            self._report_unsent()
        if is_empty or self._group is None:
            return
        entry = self._awaiting = _Scheduled()
        self._under_way[entry] = None
        entry.task = self._group.create_task(self._run_request(entry), name="embed")
        entry.task.add_done_callback(functools.partial(self._task_done, entry))

    def _report_unsent(self) -> None:
        """Report inputs that failed without a request."""
        self._unsent = self._planner.unsent
        self._changed()
        self.report()

    def stop(self, error: EmbedError) -> None:
        """End the job: nothing more is sent, and requests in flight get the grace period."""
        self._planner.end(error)
        self._wind_down()

    def cancel(self, *, may_keep: bool = False) -> None:
        """Cancel everything under way without recording outcomes, which nobody needs any more.

        Args:
            may_keep: whether answers may still be cached.
        """
        self._planner.end(ClosedError("the caller left before all inputs were embedded"))
        self._is_winding_down = True
        for entry in self._under_way:
            if may_keep and entry.is_done:
                continue
            entry.is_abandoned = True
            if entry.task is not None:
                entry.task.cancel()
        self._changed()

    async def drained(self) -> None:
        """Wait until no request is under way; after `stop`, within the grace period."""
        while self._under_way:
            drained = self.loop.create_future()
            self._drain_waiters.append(drained)
            await drained

    async def _run_request(self, entry: _Scheduled) -> None:
        try:
            permit = await self._take_permit(entry)
            self._awaiting = None
            request = entry.request
            if permit is None or request is None:
                return
            self.fill()
            await self._send_with(permit, request, entry)
            entry.is_done = True
            if self._planner.job_error is not None:
                self._wind_down()
            self.report()
            if self._keep is not None and entry.request is not None:
                # The consumer gets the rows before they are cached.
                self._changed()
                await self._cache_answer(self._keep, entry.request)
        except asyncio.CancelledError:
            if not (entry.is_abandoned or entry.is_done or self._is_exited):
                self._fail_cancelled(entry)
            raise

    def _fail_cancelled(self, entry: _Scheduled) -> None:
        """Fail the inputs of a task that was cancelled from outside; the others go on."""
        if entry.request is not None:
            error = EmbedError("the request was cancelled, but not by the call it belongs to")
            self._planner.failed(entry.request, error)
            self.report()

    async def _cache_answer(self, keep: Keep, request: PlannedRequest) -> None:
        try:
            await keep(request, self._end)
        except Exception as fault:  # noqa: BLE001 - the rows are in place even if caching fails
            logger.warning("an answer could not be cached: %s", type(fault).__name__)

    def notify(self) -> None:
        """Call `changed` after a change without a request."""
        self._changed()

    def report(self) -> None:
        """Call `settled`, after a request or when inputs are settled without one."""
        if self.error is not None or self._is_exited:
            return
        try:
            self._settled()
        # It is called, not awaited, so a CancelledError is its own as well.
        except (Exception, asyncio.CancelledError) as cause:  # noqa: BLE001 - the caller's exception, passed on to the caller
            # Not raised here: Python 3.11's task groups leave the caller marked as cancelled when a task fails.
            self.error = EmbedError(f"`progress` raised {type(cause).__name__}, which ended the call")
            self.error.__cause__ = cause
        if self.error is not None:
            self.stop(self.error)

    async def _take_permit(self, entry: _Scheduled) -> Permit | None:
        """Wait for a permit, and take the next request, cut to its tokens; `None` if none is left.

        Nothing may be awaited between its return and the start of sending, or the permit could be lost.
        """
        while (ahead := self._planner.ahead()) is not None or self._planner.is_sifting:
            if ahead is None:
                if self._planner.unsent != self._unsent:
                    self._report_unsent()
                await asyncio.sleep(0)
                continue
            least_tokens = self._planner.least_tokens(ahead)
            try:
                permit = await self._permit_for(ahead)
            except EmbedError as error:
                self._fail_next(error.with_traceback(None))
                # Many requests in a row may fail like this.
                await asyncio.sleep(0)
                continue
            except Exception as fault:  # noqa: BLE001 - it concerns this request alone
                self._fail_next(unexpected_error(fault))
                await asyncio.sleep(0)
                continue
            # The next request may have changed by now, or be known to have more tokens. If neither is so and its first input
            # exceeds the permit, no permit will ever be larger.
            entry.request = self._planner.take(permit.tokens)
            is_same = entry.request is None and self._planner.ahead() is ahead
            if is_same and self._planner.least_tokens(ahead) <= least_tokens:
                entry.request = self._planner.take_first()
            if entry.request is not None:
                permit.shrink(entry.request.tokens)
                return permit
            permit.give_back()
        return None

    def _fail_next(self, error: EmbedError) -> None:
        """Fail the next request, for which there is no permit, or only its first input if the error is about that."""
        request = self._planner.take_first() if isinstance(error, InputError) else self._planner.take()
        if request is not None:
            self._planner.failed(request, error)
        if self._planner.job_error is not None:
            self._wind_down()
        self._changed()
        self.report()

    async def _send_with(self, permit: Permit, request: PlannedRequest, entry: _Scheduled) -> None:
        def cut(tokens: int) -> PlannedRequest:
            nonlocal request
            entry.request = request = self._planner.cut(request, tokens)
            self.fill()
            return request

        try:
            error = await self._send(request, entry.retry, permit, cut)
            if error is None:
                self._planner.embedded(request)
                return
        except Exception as fault:  # noqa: BLE001 - a task that raises would end the whole call
            error = unexpected_error(fault)
        if not entry.is_abandoned:
            self._planner.failed(request, error)

    def _task_done(self, entry: _Scheduled, _: asyncio.Task[None]) -> None:
        """Note that a task has ended, perhaps before it had begun, since any code may cancel it."""
        del self._under_way[entry]
        if self._awaiting is entry:
            self._awaiting = None
        self.fill()
        if not self._under_way:
            for drained in self._drain_waiters:
                if not drained.done():
                    drained.set_result(None)
            self._drain_waiters.clear()
        self._changed()

    def _wind_down(self) -> None:
        if self._is_winding_down:
            return
        self._is_winding_down = True
        for entry in self._under_way:
            if entry.retry.in_flight:
                entry.retry.is_last = True
            elif not entry.is_done:
                self._abandon(entry)
        # For the abandoned requests.
        self.report()
        self._changed()
        end = self._clock.time() + self._grace
        self._set_timer(end if self._deadline is None else min(end, self._deadline))

    def _expire(self) -> None:
        self._timer = None
        self._is_winding_down = True
        self._planner.end(DeadlineExceededError("the deadline of the call passed before all inputs were embedded"))
        for entry in self._under_way:
            self._abandon(entry)
        self.report()
        self._changed()

    def _abandon(self, entry: _Scheduled) -> None:
        """Cancel a request, unless its rows are in place."""
        retry, error = entry.retry, self._planner.job_error
        if entry.is_done and entry.task is not None:
            entry.task.cancel()
            return
        if retry.is_settled or entry.is_abandoned or entry.task is None or error is None:
            return
        entry.is_abandoned = True
        entry.task.cancel()
        if isinstance(error, DeadlineExceededError):
            error = retry.out_of_time("the deadline of the call passed before the answer came")
        elif retry.last_error is not None:
            error = retry.last_error
        if retry.attempts and entry.request is not None:
            # Without an attempt its inputs stay not tried.
            self._planner.abandoned(entry.request, error)

    def _set_timer(self, when: float) -> None:
        self._clear_timer()
        self._end = when
        if when <= self._clock.time():
            self._expire()
        elif self._group is not None:
            self._timer = self._clock.call_at(when, self._expire)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
