"""Runs the requests of a ledger with a bounded number under way."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from pinecone_embed_async._errors import ClosedError, DeadlineExceededError, EmbedError, InputError, unexpected_error
from pinecone_embed_async._log import logger
from pinecone_embed_async._retry import RetryState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._limits import Turn
    from pinecone_embed_async._plan import Ledger, PlannedRequest

    TurnFor = Callable[[PlannedRequest], Awaitable[Turn]]
    """Waits for the turn of a request, which is cut to what the turn is for."""

    Cut = Callable[[int], PlannedRequest]
    """Cuts the request that is being sent to so many tokens, or to its first input if that has more."""

    Send = Callable[[PlannedRequest, RetryState, Turn, Cut], Awaitable[EmbedError | None]]
    """Sends a request through all its attempts, the first of them with the turn; gives its error, or `None` once the
    rows are in place."""

    Keep = Callable[[PlannedRequest, float | None], Awaitable[None]]
    """Keeps what a request was answered, if it was, until a time by the clock."""

ResultT = TypeVar("ResultT")

GRACE_SECONDS = 5.0
"""How long requests in flight may take once an error has ended the job: long enough for nearly every answer that
is on its way, short enough for somebody who waits for the error."""


class _UnderWay(msgspec.Struct, eq=False):
    request: PlannedRequest | None = None
    """`None` while it waits for its turn: which request it is, and how much of it, is decided then."""
    retry: RetryState = msgspec.field(default_factory=RetryState)
    task: asyncio.Task[None] | None = None
    is_abandoned: bool = False
    is_over: bool = False
    """Whether its outcome is noted, and at most something is still being kept of it."""


class Run:
    """Sends the requests that a ledger gives out, a bounded number under way at a time.

    Args:
        ledger: gives out the requests and is told what came of them.
        turn_for: waits for the turn of the next one.
        send: sends one.
        window: requests under way at most, those that wait for another attempt included.
        clock: the time.
        deadline: the end, by the clock; `None` for none.
        settled: called after each request, in the event loop; what it raises ends the job, and it is called no more.
        changed: called when a request has ended in any way, and when the job has; must not raise.
        keep: keeps what a request was answered, once its rows are in place; `None` if nothing is to be kept.
        grace: seconds that requests in flight may still take after an error has ended the job.

    Attributes:
        loop: the event loop that it belongs to.
        error: that says what `settled` raised, which is its cause, and that ended the job; `None` if it raised nothing.
    """

    def __init__(
        self,
        ledger: Ledger,
        turn_for: TurnFor,
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
        self._ledger = ledger
        self._turn_for = turn_for
        self._send = send
        self._window = window
        self._clock = clock
        self._deadline = deadline
        self._settled = settled
        self._changed = changed
        self._keep = keep
        self._grace = grace
        # In the order in which they began, so that whatever ends them all does so in the same order every time.
        self._under_way: dict[_UnderWay, None] = {}
        # The one that waits for its turn: one at a time, for what comes after it is not known before it is cut.
        self._next: _UnderWay | None = None
        self._group: asyncio.TaskGroup | None = None
        self._timer: Timer | None = None
        # When whatever is under way is cancelled: the deadline, or the end of the grace period.
        self._end = deadline
        self._is_winding_down = False
        self._is_left = False
        self._waiting_for_end: list[asyncio.Future[None]] = []
        self._unsent = 0
        self.error: EmbedError | None = None
        self.loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Run {len(self._under_way)}/{self._window} under way{', ending' if self._is_winding_down else ''}>"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send requests while the block runs, and wait for them at its end; all tasks are done then.

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
                    # What the group cancels from now on was not cancelled by others.
                    self._is_left = True
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
        """What ended the job before its time; `None` if nothing did."""
        return self._ledger.job_error

    def retry_of(self, position: int) -> RetryState | None:
        """How far the request that carries an input has come; `None` if none is under way."""
        for entry in self._under_way:
            request = entry.request
            if request is not None and not request.is_probe and request.start <= position < request.stop:
                return entry.retry
        return None

    def start(self, work: Coroutine[Any, Any, ResultT], name: str) -> asyncio.Task[ResultT]:
        """Have a task that ends with the run, too; only while it is running."""
        if self._group is None:
            raise RuntimeError("the run is not running")
        return self._group.create_task(work, name=name)

    def fill(self) -> None:
        """Have the next request wait for its turn, if there is one and it may be under way."""
        if self._ledger.unsent != self._unsent:
            self._tell_unsent()
        if self._is_left or self._group is None or self._next is not None or len(self._under_way) >= self._window:
            return
        is_none_left = self._ledger.ahead() is None and not self._ledger.is_sifting
        if self._ledger.unsent != self._unsent:
            self._tell_unsent()
        if is_none_left or self._group is None:
            return
        entry = self._next = _UnderWay()
        self._under_way[entry] = None
        entry.task = self._group.create_task(self._carry_out(entry), name="embed")
        entry.task.add_done_callback(functools.partial(self._forget, entry))

    def _tell_unsent(self) -> None:
        """Tell of inputs that have failed without a request."""
        self._unsent = self._ledger.unsent
        self._changed()
        self.report()

    def stop(self, error: EmbedError) -> None:
        """End the job: nothing is sent any more, and what is in flight has the grace period left."""
        self._ledger.end(error)
        self._wind_down()

    def cancel(self, *, may_keep: bool = False) -> None:
        """Cancel what is under way, without a note of what became of it: nobody wants to know any more.

        Args:
            may_keep: whether what has been answered may still be kept.
        """
        self._ledger.end(ClosedError("what it was embedded for was left"))
        self._is_winding_down = True
        for entry in self._under_way:
            if may_keep and entry.is_over:
                continue
            entry.is_abandoned = True
            if entry.task is not None:
                entry.task.cancel()
        self._changed()

    async def drained(self) -> None:
        """Wait until no request is under way; after `stop`, that is within the grace period."""
        while self._under_way:
            ended = self.loop.create_future()
            self._waiting_for_end.append(ended)
            await ended

    async def _carry_out(self, entry: _UnderWay) -> None:
        try:
            turn = await self._take_turn(entry)
            self._next = None
            request = entry.request
            if turn is None or request is None:
                return
            self.fill()
            await self._send_with(turn, request, entry)
            entry.is_over = True
            if self._ledger.job_error is not None:
                self._wind_down()
            self.report()
            if self._keep is not None and entry.request is not None:
                # Whoever waits for the rows does not wait for that.
                self._changed()
                await self._keep_answer(self._keep, entry.request)
        except asyncio.CancelledError:
            if not (entry.is_abandoned or entry.is_over or self._is_left):
                self._cancelled_by_others(entry)
            raise

    def _cancelled_by_others(self, entry: _UnderWay) -> None:
        """Note that somebody cancelled a task that is not theirs: its inputs fail, and the others go on."""
        if entry.request is not None:
            error = EmbedError("the request was cancelled, and not by the call that it belongs to")
            self._ledger.failed(entry.request, error)
            self.report()

    async def _keep_answer(self, keep: Keep, request: PlannedRequest) -> None:
        try:
            await keep(request, self._end)
        except Exception as fault:  # noqa: BLE001 - the rows are in place, whatever becomes of this
            logger.warning("what a request was answered could not be kept: %s", type(fault).__name__)

    def tell_changed(self) -> None:
        """Call `changed`, for something has changed without a request."""
        self._changed()

    def report(self) -> None:
        """Call `settled`, after a request or when something is settled without one."""
        if self.error is not None or self._is_left:
            return
        try:
            self._settled()
        # It is called and not awaited, so a CancelledError is its own, too.
        except (Exception, asyncio.CancelledError) as cause:  # noqa: BLE001 - it is the caller's, and given to the caller
            # Not raised here: Python 3.11's task groups leave the caller marked as cancelled when a task fails.
            self.error = EmbedError(f"`progress` raised {type(cause).__name__}, which ended the call")
            self.error.__cause__ = cause
        if self.error is not None:
            self.stop(self.error)

    async def _take_turn(self, entry: _UnderWay) -> Turn | None:
        """Wait for a turn, and take the next request, cut to it; `None` if there is none left.

        From its end on to the start of the sending nothing is awaited, so that no turn is lost.
        """
        while (ahead := self._ledger.ahead()) is not None or self._ledger.is_sifting:
            if ahead is None:
                if self._ledger.unsent != self._unsent:
                    self._tell_unsent()
                await asyncio.sleep(0)
                continue
            least = self._ledger.least_tokens(ahead)
            try:
                turn = await self._turn_for(ahead)
            except EmbedError as error:
                self._refuse(error.with_traceback(None))
                # There may be many such.
                await asyncio.sleep(0)
                continue
            except Exception as fault:  # noqa: BLE001 - it is that request's alone
                self._refuse(unexpected_error(fault))
                await asyncio.sleep(0)
                continue
            # What is next may be another one by now, or known to have more tokens. If it is not, and its first input has
            # more than the turn is for, then no turn is for more.
            entry.request = self._ledger.take(turn.tokens)
            is_same = entry.request is None and self._ledger.ahead() is ahead
            if is_same and self._ledger.least_tokens(ahead) <= least:
                entry.request = self._ledger.take_first()
            if entry.request is not None:
                turn.shrink(entry.request.tokens)
                return turn
            turn.give_back()
        return None

    def _refuse(self, error: EmbedError) -> None:
        """Note that the next request can have no turn, or just its first input if it is about that."""
        request = self._ledger.take_first() if isinstance(error, InputError) else self._ledger.take()
        if request is not None:
            self._ledger.failed(request, error)
        if self._ledger.job_error is not None:
            self._wind_down()
        self._changed()
        self.report()

    async def _send_with(self, turn: Turn, request: PlannedRequest, entry: _UnderWay) -> None:
        def cut(tokens: int) -> PlannedRequest:
            nonlocal request
            entry.request = request = self._ledger.cut(request, tokens)
            self.fill()
            return request

        try:
            error = await self._send(request, entry.retry, turn, cut)
            if error is None:
                self._ledger.embedded(request)
                return
        except Exception as fault:  # noqa: BLE001 - a task that raises would end the whole call
            error = unexpected_error(fault)
        if not entry.is_abandoned:
            self._ledger.failed(request, error)

    def _forget(self, entry: _UnderWay, _: asyncio.Task[None]) -> None:
        """Note that a task has ended, perhaps before it had begun: whoever cancels it may be anybody."""
        del self._under_way[entry]
        if self._next is entry:
            self._next = None
        self.fill()
        if not self._under_way:
            for ended in self._waiting_for_end:
                if not ended.done():
                    ended.set_result(None)
            self._waiting_for_end.clear()
        self._changed()

    def _wind_down(self) -> None:
        if self._is_winding_down:
            return
        self._is_winding_down = True
        for entry in self._under_way:
            if entry.retry.in_flight:
                entry.retry.is_last = True
            elif not entry.is_over:
                self._abandon(entry)
        # Of those that are abandoned.
        self.report()
        self._changed()
        end = self._clock.time() + self._grace
        self._set_timer(end if self._deadline is None else min(end, self._deadline))

    def _expire(self) -> None:
        self._timer = None
        self._is_winding_down = True
        self._ledger.end(DeadlineExceededError("the deadline of the call passed before all inputs were embedded"))
        for entry in self._under_way:
            self._abandon(entry)
        self.report()
        self._changed()

    def _abandon(self, entry: _UnderWay) -> None:
        """Cancel a request, unless its rows are in place."""
        retry, ended_by = entry.retry, self._ledger.job_error
        if entry.is_over and entry.task is not None:
            entry.task.cancel()
            return
        if retry.is_settled or entry.is_abandoned or entry.task is None or ended_by is None:
            return
        entry.is_abandoned = True
        entry.task.cancel()
        if isinstance(ended_by, DeadlineExceededError):
            ended_by = retry.out_of_time("the deadline of the call passed before the answer came")
        elif retry.last_error is not None:
            ended_by = retry.last_error
        if retry.attempts and entry.request is not None:
            # Without an attempt its inputs stay not tried.
            self._ledger.abandoned(entry.request, ended_by)

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
