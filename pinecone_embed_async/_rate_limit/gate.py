"""The gate where coroutines wait for the limiter's permits, in one event loop or several threads."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import secrets
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ConfigurationError, DeadlineExceededError
from pinecone_embed_async._foreign import ForeignCode
from pinecone_embed_async._log import logger
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.pauses import Backoff, KnownPause
from pinecone_embed_async._rate_limit.permit import Flow, LimiterPermit
from pinecone_embed_async._rate_limit.quota import QuotaDemand, QuotaGrant, QuotaOutcome
from pinecone_embed_async._rate_limit.rejections import named_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
    from pinecone_embed_async._rate_limit.quota import Key, LimiterOptions, OutcomeKind, QuotaBackend, TokenStatistics

ResultT = TypeVar("ResultT")


class Permit(LimiterPermit, eq=False, kw_only=True):
    """The right to have one request in flight: requested at the gate, then granted or dismissed, and ended exactly once.

    Attributes:
        gate: the gate that grants it.
        grant: grant of the quota back end, where its tokens then count; `None` once it is settled.
        future: resolved once it is granted or dismissed; `None` if nothing waits for that.
    """

    gate: RateLimitGate
    grant: QuotaGrant | None = None
    future: asyncio.Future[None] | None = None

    def resize(self, tokens: int) -> None:
        """Set the tokens to those of the request: usually fewer, but more if its first input alone has more."""
        if tokens != self.tokens:
            self.gate.change(lambda limiter, now: limiter.resize(self, tokens, now))

    def accepted(self, tokens: int) -> None:
        """Record that the service accepted the request, and the tokens that it counts for."""
        found = self.gate.change(lambda limiter, now: limiter.accepted(self, tokens, now))
        if found is not None:
            warn_of_found_limit(*found)
        self.gate.settle(self, "accepted", tokens)

    def failed(self, *, is_overload: bool) -> None:
        """Record that the request failed for a reason other than a limit, and whether the service is overloaded."""
        self.gate.change(lambda limiter, now: limiter.failed(self, now, is_overload=is_overload))
        self.gate.settle(self, "failed", self.tokens)

    def rejected(self, message: str, backoff: Backoff) -> float | None:
        """Record that the service rejected the request because of a limit.

        Args:
            message: message of the rejection, which may name the limit.
            backoff: gives the length of the pause for a number of bursts of rejections in a row without an acceptance.

        Returns:
            Seconds of the pause that this rejection starts; `None` if it starts none, or one was already in progress.
        """
        if self.grant is None:
            return self.gate.change(lambda limiter, now: limiter.rejected(self, named_limit(message), backoff, now, message))
        # The quota back end decides about pauses.
        self.gate.change(lambda limiter, now: limiter.failed(self, now, is_overload=False))
        self.gate.settle(self, "rejected", self.tokens, message, backoff.retry_after)
        return None

    def give_back(self) -> None:
        """Give the permit back unused, or withdraw the request for it."""
        self.gate.change(lambda limiter, now: limiter.give_back(self, now))
        self.gate.settle(self, "unused", 0)

    def came_late(self, grant: QuotaGrant) -> None:
        """Give back a grant that came after its request had left; see `LateResults`."""
        if _is_grant(grant):
            self.grant = grant
            self.gate.settle(self, "unused", 0)


class _LoopWaits(msgspec.Struct, eq=False):
    """The waiting requests of one event loop.

    Attributes:
        permits: permits whose coroutines have not resumed yet, granted or not.
        due: when the timer fires; infinite without a timer.
        timer: the timer for all requests.
        is_notified: whether another thread has told the loop to set its timer again, which it has not done yet.
    """

    permits: set[Permit] = msgspec.field(default_factory=set)
    due: float = math.inf
    timer: Timer | None = None
    is_notified: bool = False


class WaitObserver(Protocol):
    """Notified of requests that have to wait for a permit."""

    def waiting(self, pause: float) -> None:
        """Handle that a request has to wait, at least for the `pause` seconds left after a rejection."""


class RateLimitGate:
    """Hands out permits to coroutines; several clients, event loops and threads may share it.

    Args:
        options: the known limits of the quota.
        clock: the clock, the same in all threads.
        backend: grants tokens in place of the limiter, which then only keeps order and counts requests in flight.
    """

    def __init__(self, options: LimiterOptions, *, clock: Clock, backend: QuotaBackend | None = None) -> None:
        self._limiter = Limiter(options)
        self._clock = clock
        self._backend = backend
        self._foreign = ForeignCode("the quota passed to the client", clock)
        self._has_warned = False
        # The process whose requests these are.
        self._process = os.getpid()
        # One lock per process, because in a forked child the parent's lock may be held for ever. It is reentrant because the
        # garbage collector may close a coroutine with a permit at any moment, even during a step; its own step is deferred.
        self._locks = {self._process: threading.RLock()}
        self._is_changing = False
        self._deferred: deque[Callable[[Limiter, float], object]] = deque()
        self._loops: dict[asyncio.AbstractEventLoop, _LoopWaits] = {}

    def __repr__(self) -> str:
        return f"<RateLimitGate {self._limiter!r}>"

    def waiting(self, concurrencies: AbstractSet[ConcurrencyLimiter]) -> int:
        """Number of requests waiting for a permit under these concurrency limiters."""
        with self._locked():
            return self._limiter.waiting(concurrencies)

    def request(self, flow: Flow, want: int, least: int, *, deadline: float | None = None, certain: int = 0) -> Permit:
        """Request a permit; unless it was granted at once, `wait` must be awaited next.

        Args:
            flow: the flow of the request.
            want: tokens of the whole request.
            least: tokens of the smallest request that can be cut from it.
            deadline: clock time after which a permit is useless; `None` for never.
            certain: low estimate of the tokens of the smallest request.
        """
        permit = Permit(flow, flow.key, want, least, math.inf if deadline is None else deadline, certain, gate=self)
        if self._backend is None or flow.key is None:
            self.change(lambda limiter, now: self._join(permit, limiter, now))
            if permit.future is not None and permit.is_granted:
                # Granted not by `_join`, but right after it: a deferred step or the end of another event loop made room.
                self.change(lambda _, __: self._leave(permit))
        return permit

    async def wait(self, permit: Permit, observer: WaitObserver | None = None) -> Permit:
        """Wait until a permit is granted, and return it.

        Args:
            permit: the permit.
            observer: notified if it is not free at once.

        Raises:
            asyncio.CancelledError: the caller was cancelled and has no permit.
            ConfigurationError: the quota back end failed.
            DeadlineExceededError: no permit can come before the deadline.
        """
        try:
            if self._backend is not None and permit.key is not None:
                grant = permit.grant = await self._acquire(self._backend, permit, permit.key)
                # Its tokens count at the back end. The request cannot use more than it asked for, and the share of its flow
                # counts the tokens granted.
                permit.key, permit.want = None, min(grant.tokens, permit.want)
                permit.least = permit.want
                self.change(lambda limiter, now: self._join(permit, limiter, now))
            if permit.future is not None:
                if observer is not None:
                    observer.waiting(self.known_pause(permit.flow.key).left(self._clock.time()))
                await permit.future
            if permit.pause is not None:
                raise permit.pause.error(self._clock.time())  # noqa: TRY301 - its grant is given back too
        except BaseException:
            # Also when the garbage collector closes a coroutine whose event loop was closed, not only on cancellation.
            permit.give_back()
            raise
        finally:
            self.change(lambda _, __: self._leave(permit))
        return permit

    def change(self, step: Callable[[Limiter, float], ResultT]) -> ResultT | None:
        """Run a step of the limiter, wake the requests that were granted or dismissed, and update the timers.

        Returns:
            The result of the step; `None` if the step is deferred because another one is running.
        """
        with self._locked():
            if self._is_changing:
                self._deferred.append(step)
                return None
            self._is_changing = True
            try:
                now = self._clock.time()
                result = step(self._limiter, now)
                self._after_step(now)
                while self._deferred:
                    self._deferred.popleft()(self._limiter, now)
                    self._after_step(now)
            finally:
                self._is_changing = False
            return result

    def settle(
        self, permit: Permit, kind: OutcomeKind, tokens: int, message: str = "", retry_after: float | None = None
    ) -> None:
        """Report the outcome of a permit to the quota back end, once."""
        grant, permit.grant = permit.grant, None
        if self._backend is None or grant is None:
            return
        try:
            self._backend.settle(grant, QuotaOutcome(kind, tokens, message, retry_after))
        # `settle` is not awaited, so even a CancelledError comes from the back end.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the request already has its outcome
            level = logger.debug if self._has_warned else logger.warning
            self._has_warned = True
            level("the quota passed to the client could not settle a grant: %s: %s", type(error).__name__, error)

    def known_pause(self, key: Key | None) -> KnownPause:
        """The pause of requests with this key that ends last; it may already be over."""
        with self._locked():
            return self._limiter.known_pause(key, self._clock.time())

    def too_late(self, key: Key | None, certain: int, deadline: float) -> DeadlineExceededError | None:
        """The error of a request of at least `certain` tokens if it certainly gets no permit before its deadline."""
        now = self._clock.time()
        with self._locked():
            pause = self._limiter.pause_beyond(deadline, key, certain, now)
        return None if pause is None else pause.error(now)

    def wait_left(self, key: Key | None) -> float:
        """Seconds until pauses and request limits allow a request with this key."""
        with self._locked():
            return self._limiter.wait_left(key, self._clock.time())

    def last_acceptance(self, key: Key | None) -> float | None:
        """Clock time when the service last accepted a request with this key; `None` if it never did."""
        return None if key is None else self._limiter.accepted_at.get(key)

    def known_limit(self, key: Key | None) -> float:
        """Given or named limit of a key, in tokens per window; infinite if there is none."""
        # Reads a single number, so it needs no lock.
        return math.inf if key is None or self._backend is not None else self._limiter.known_tokens(key)

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """Limits and usage of each model and input type with requests so far."""
        with self._locked():
            return tuple(self._limiter.statistics(self._clock.time()))

    async def _acquire(self, backend: QuotaBackend, permit: Permit, key: Key) -> QuotaGrant:
        flow, want = permit.flow, permit.want
        # Unique among all clients of the back end.
        flow.name = flow.name or secrets.token_hex(8)
        within = None if math.isinf(permit.deadline) else max(0.0, permit.deadline - self._clock.time())
        demand = QuotaDemand(*key, want, min(permit.least, want), flow.priority, flow.name, within)

        async def acquire() -> QuotaGrant:
            return await backend.acquire(demand)

        try:
            grant = await self._foreign.run(acquire(), late=permit)
        except Exception as error:
            if within is not None and isinstance(error, DeadlineExceededError):
                permit.pause = KnownPause(max(permit.deadline, self._clock.time() + (error.retry_after or 0.0)))
                raise
            raise ConfigurationError(f"the quota passed to the client failed: {type(error).__name__}: {error}") from error
        if not _is_grant(grant):
            got = f"tokens={short(grant.tokens)}" if isinstance(grant, QuotaGrant) else f"a {type(grant).__name__}"
            raise ConfigurationError(
                f"acquire must return a QuotaGrant whose tokens are an integer ≥ 1, got {got}: "
                "let the quota passed to the client wait until it can return one"
            )
        return grant

    def _join(self, permit: Permit, limiter: Limiter, now: float) -> None:
        if limiter.enqueue(permit, now):
            loop = asyncio.get_running_loop()
            permit.future = loop.create_future()
            self._loops.setdefault(loop, _LoopWaits()).permits.add(permit)

    def _leave(self, permit: Permit) -> None:
        for waits in self._loops.values():
            waits.permits.discard(permit)

    def _after_step(self, now: float) -> None:
        """After a step, drop closed event loops, wake those whose permits were granted or dismissed, and set the timers."""
        decided = self._limiter.decided
        if self._loops:
            for loop in [loop for loop in self._loops if loop.is_closed()]:
                for permit in self._loops.pop(loop).permits:
                    self._limiter.give_back(permit, now)
            here = None
            with contextlib.suppress(RuntimeError):
                here = asyncio.get_running_loop()
            for decided_permit in decided:
                if isinstance(decided_permit, Permit) and decided_permit.future is not None:
                    _wake(decided_permit.future, here)
            self._set_timers(here)
        decided.clear()

    def _set_timers(self, here: asyncio.AbstractEventLoop | None) -> None:
        """Set a timer in each event loop with waiting requests for the time at which a permit may be granted."""
        for loop, waits in [*self._loops.items()]:
            due = self._limiter.next_at if waits.permits else math.inf
            if loop is here:
                if due != waits.due:
                    self._set_timer(loop, waits, due)
                if not waits.permits:
                    del self._loops[loop]
            elif due < waits.due and not waits.is_notified:
                # The loop sets its timer in its own thread. If it was closed meanwhile, the next step drops it.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._fire, loop)
                    waits.is_notified = True

    def _set_timer(self, loop: asyncio.AbstractEventLoop, waits: _LoopWaits, due: float) -> None:
        if waits.timer is not None:
            waits.timer.cancel()
        waits.due, waits.timer = due, None
        if not math.isinf(due):
            waits.timer = self._clock.call_at(due, lambda: self._fire(loop))

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Grant what can be granted now, and set the timer of an event loop again, in its own thread."""

        def dispatch(limiter: Limiter, now: float) -> None:
            if loop in self._loops:
                self._set_timer(loop, self._loops[loop], math.inf)
                self._loops[loop].is_notified = False
            limiter.dispatch(now)

        self.change(dispatch)

    def _locked(self) -> threading.RLock:
        """The lock of this process."""
        process = os.getpid()
        if self._process != process:
            self._forget_parent(process)
        return self._locks[process]

    def _forget_parent(self, process: int) -> None:
        """After a fork, forget the parent's waiting requests; learned limits and usage stay."""
        with self._locks.setdefault(process, threading.RLock()):
            # Another thread may have done it already.
            if self._process != process:
                self._locks = {process: self._locks[process]}
                self._is_changing = False
                self._deferred.clear()
                self._loops.clear()
                self._limiter.forget_requests(self._clock.time())
                # Last, because other threads take the lock without a further look once this is set.
                self._process = process


def warn_of_found_limit(key: Key, tokens: int) -> None:
    """Log that a limit was found by trial."""
    model, input_type = key
    logger.warning(
        "the service rejects requests for %s%s without naming a limit; assuming %d tokens per window, which is "
        "a guess. If you know the limit, pass it as quota=",
        model,
        f" ({input_type})" if input_type else "",
        tokens,
    )


def _is_grant(grant: object) -> bool:
    tokens = grant.tokens if isinstance(grant, QuotaGrant) else None
    return isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1


def _wake(future: asyncio.Future[None], here: asyncio.AbstractEventLoop | None) -> None:
    """Resolve a future in its own event loop."""
    loop = future.get_loop()
    if loop is here:
        resolve(future)
    else:
        # The loop may have been closed; then there is nothing to wake.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(resolve, future)


def resolve(future: asyncio.Future[Any], value: object = None) -> None:
    """Set the result of a future, or its exception, unless it was cancelled."""
    if not future.done():
        if isinstance(value, Exception):
            future.set_exception(value)
        else:
            future.set_result(value)
