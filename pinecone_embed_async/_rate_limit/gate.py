"""The gate where coroutines wait for permits of the limiter, in one event loop or in several threads."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import secrets
import threading
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._foreign import Neighbour
from pinecone_embed_async._log import logger
from pinecone_embed_async._rate_limit.budgets import KEYS_KEPT
from pinecone_embed_async._rate_limit.limiter import Limiter, PermitRequest
from pinecone_embed_async._rate_limit.quota import QuotaDemand, QuotaGrant, QuotaOutcome
from pinecone_embed_async._rate_limit.rejections import named_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._rate_limit.budgets import Key
    from pinecone_embed_async._rate_limit.fair_queue import Flow
    from pinecone_embed_async._rate_limit.limiter import ConcurrencyLimiter, LimiterOptions, Reservation
    from pinecone_embed_async._rate_limit.quota import QuotaBackend
    from pinecone_embed_async._rate_limit.token_limit import TokenStatistics

    Step = Callable[[Limiter, float], None]
    """A step of the limiter, called with it and the time."""


class _GateWaiter:
    """A coroutine waiting for its permit."""

    __slots__ = ("future", "loop", "request", "reservation")

    def __init__(self, request: PermitRequest) -> None:
        self.request = request
        self.loop = asyncio.get_running_loop()
        self.reservation: Reservation | None = None
        self.future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Resume the coroutine; called in the thread that granted the permit."""
        if _running_loop() is self.loop:
            self._resolve()
        else:
            # Its event loop may have been closed; then there is nobody to wake.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Permit:
    """The right to have one request in flight. It is ended exactly once: accepted, rejected, failed or given back.

    Attributes:
        tokens: maximum for the request; once it is cut, its actual tokens.
    """

    __slots__ = ("_gate", "_key", "_remote", "_reservation", "tokens")

    def __init__(self, gate: RateLimitGate, reservation: Reservation, key: Key | None, remote: QuotaGrant | None) -> None:
        self._gate = gate
        self._reservation = reservation
        self._key = key
        self._remote = remote
        self.tokens = reservation.tokens

    def __repr__(self) -> str:
        return f"<Permit of {self.tokens} tokens>"

    def shrink(self, tokens: int) -> None:
        """Record that the request has fewer tokens than permitted."""
        if tokens != self.tokens:
            self._gate.change(lambda limiter, now: limiter.shrink(self._reservation, tokens, now))
            self.tokens = tokens

    def accepted(self, billed: int | None) -> None:
        """Record that the service accepted the request, and the tokens it billed if known."""
        found: int | None = None

        def note(limiter: Limiter, now: float) -> None:
            nonlocal found
            limiter.accepted(self._reservation, billed, now)
            self._gate.note_acceptance(self._key, now)
            found = limiter.take_found(self._reservation)

        self._gate.change(note)
        if found is not None and self._key is not None:
            model, input_type = self._key
            logger.warning(
                "the service rejects requests for %s%s without naming a limit; assuming %d tokens per window, which is "
                "a guess. If you know the limit, pass it as quota=",
                model,
                f" ({input_type})" if input_type else "",
                found,
            )
        self._settle("accepted", self.tokens if billed is None else billed)

    def failed(self, *, is_overload: bool) -> None:
        """Record that the request failed for another reason than a limit, and whether the service is overloaded."""
        self._gate.change(lambda limiter, now: limiter.failed(self._reservation, now, is_overload=is_overload))
        self._settle("failed", self.tokens)

    def rejected(self, message: str, retry_after: float | None, backoff: Callable[[int], float]) -> float | None:
        """Record that the service rejected the request because of a limit.

        Args:
            message: message of the rejection, which may name the limit.
            retry_after: seconds that the service asked to wait; `None` if it did not.
            backoff: returns the seconds to pause after that many bursts of rejections without an acceptance.

        Returns:
            Seconds of the pause that this rejection starts; `None` if it starts none or one is in progress.
        """
        pause: float | None = None
        named = named_limit(message)
        is_remote = self._remote is not None

        def note(limiter: Limiter, now: float) -> None:
            nonlocal pause
            if is_remote:
                # The quota back end decides about pauses.
                limiter.failed(self._reservation, now, is_overload=False)
            else:
                pause = limiter.rejected(self._reservation, now, named=named, backoff=backoff, asked=retry_after is not None)

        self._gate.change(note)
        self._settle("rejected", self.tokens, message, retry_after)
        return pause

    def give_back(self) -> None:
        """Give the permit back unused."""
        self._gate.change(lambda limiter, now: limiter.give_back(self._reservation, now))
        self._settle("unused", 0)

    def _settle(self, kind: str, tokens: int, message: str = "", retry_after: float | None = None) -> None:
        remote, self._remote = self._remote, None
        if remote is not None:
            self._gate.settle(remote, QuotaOutcome(kind, tokens, message, retry_after))  # type: ignore[arg-type]


class RateLimitGate:
    """Grants permits to coroutines; several clients, event loops and threads may share it.

    Args:
        options: the known figures of the quota.
        clock: clock, the same in all threads.
        backend: grants tokens in place of the limiter, which then only keeps order and counts requests in flight.
    """

    def __init__(self, options: LimiterOptions, *, clock: Clock, backend: QuotaBackend | None = None) -> None:
        self._limiter = Limiter(options)
        self._clock = clock
        self._backend = backend
        # Together they name its flows uniquely among all clients of the back end.
        self._name, self._numbers = secrets.token_hex(8), itertools.count()
        self._neighbour = Neighbour("the quota that was passed", clock)
        self._has_warned = False
        self._process = os.getpid()
        # A lock for each process, as the parent's may be held for ever in a child. It is reentrant because the garbage
        # collector may close a coroutine that has a permit at any moment, also during a step.
        self._locks = {self._process: threading.RLock()}
        self._is_changing = False
        self._deferred: deque[Step] = deque()
        self._waiters: dict[asyncio.AbstractEventLoop, set[_GateWaiter]] = {}
        # Reservations of waiters that have not resumed yet.
        self._unclaimed: dict[Reservation, asyncio.AbstractEventLoop] = {}
        # One timer for all waiters of an event loop, with its due time.
        self._timers: dict[asyncio.AbstractEventLoop, tuple[float, Timer]] = {}
        # Event loops of other threads that were notified to recheck their timers and have not yet.
        self._notified: set[asyncio.AbstractEventLoop] = set()
        # The latest last.
        self._accepted_at: OrderedDict[Key, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<RateLimitGate {self._limiter!r}>"

    def waiting(self, concurrencies: AbstractSet[ConcurrencyLimiter]) -> int:
        """The number of requests waiting for a permit of these concurrency limiters."""
        with self._locked():
            return self._limiter.waiting(concurrencies)

    async def permit(
        self,
        flow: Flow[PermitRequest],
        concurrency: ConcurrencyLimiter,
        key: Key | None,
        want: int,
        least: int,
        *,
        waits: Callable[[], None] | None = None,
    ) -> Permit:
        """Wait for a permit.

        Args:
            flow: the flow of the request.
            concurrency: the concurrency limiter of its client and event loop.
            key: the model and input type its tokens count for; `None` if it costs none.
            want: tokens of the whole request.
            least: tokens of the smallest request that can be cut off it.
            waits: called if none is available at once.

        Raises:
            asyncio.CancelledError: the caller was cancelled; it then has no permit.
            ConfigurationError: the quota back end failed.
        """
        remote: QuotaGrant | None = None
        counted_for = key
        if self._backend is not None and key is not None:
            # Not its id, which another flow may get once this one is gone.
            flow.name = flow.name or f"{self._name}-{next(self._numbers)}"
            remote = await self._acquire(self._backend, QuotaDemand(*key, want, min(least, want), flow.priority, flow.name))
            # The request cannot use more than it asked for, and a flow's share counts what was granted.
            want = least = min(remote.tokens, want)
            counted_for = None
        try:
            reservation = await self._permit(flow, concurrency, counted_for, want, least, waits)
        except BaseException:
            if remote is not None:
                self.settle(remote, QuotaOutcome("unused", 0))
            raise
        return Permit(self, reservation, key, remote)

    def change(self, step: Step) -> None:
        """Run a step of the limiter and update the timers."""
        with self._locked():
            self._deferred.append(step)
            if self._is_changing:
                return
            self._is_changing = True
            try:
                now = self._clock.time()
                while self._deferred:
                    self._deferred.popleft()(self._limiter, now)
                    self._drop_closed_loops(now)
                    self._set_timers(now)
            finally:
                self._is_changing = False

    def note_acceptance(self, key: Key | None, now: float) -> None:
        """Record that the service accepted a request with this key; part of a step."""
        if key is not None:
            self._accepted_at[key] = now
            self._accepted_at.move_to_end(key)
            if len(self._accepted_at) > KEYS_KEPT:
                self._accepted_at.popitem(last=False)

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Report the outcome of a request to the quota back end."""
        if self._backend is None:
            return
        try:
            self._backend.settle(grant, outcome)
        # It is not awaited, so a CancelledError comes from the back end, too.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the request has its answer, whatever that is
            level = logger.debug if self._has_warned else logger.warning
            self._has_warned = True
            level("the quota that was passed could not settle a grant: %s: %s", type(error).__name__, error)

    def pause_left(self, key: Key | None) -> float:
        """Remaining seconds of the pause of requests with this key after a rejection."""
        with self._locked():
            return self._limiter.pause_left(key, self._clock.time())

    def wait_left(self, key: Key | None) -> float:
        """Seconds until a request with this key may be sent at the earliest, by pauses and request limits."""
        with self._locked():
            return self._limiter.wait_left(key, self._clock.time())

    def last_acceptance(self, key: Key | None) -> float | None:
        """Clock time of the last acceptance of a request with this key; `None` if there was none."""
        with self._locked():
            return None if key is None else self._accepted_at.get(key)

    def known_limit(self, key: Key | None) -> int | None:
        """Tokens per window that were given or named for a key; `None` if neither."""
        if key is None or self._backend is not None:
            return None
        with self._locked():
            known = self._limiter.known_tokens(key)
        return None if math.isinf(known) else int(known)

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """Limits and usage of each model and input type with requests so far."""
        with self._locked():
            return tuple(self._limiter.statistics(self._clock.time()))

    async def _acquire(self, backend: QuotaBackend, demand: QuotaDemand) -> QuotaGrant:
        async def acquire() -> QuotaGrant:
            return await backend.acquire(demand)

        def late(grant: QuotaGrant) -> None:
            if _is_grant(grant):
                self.settle(grant, QuotaOutcome("unused", 0))

        try:
            grant = await self._neighbour.ask(acquire(), late=late)
        except Exception as error:
            raise ConfigurationError(f"the quota that was passed failed: {type(error).__name__}: {error}") from error
        if not _is_grant(grant):
            got = f"one of {short(grant.tokens)}" if isinstance(grant, QuotaGrant) else type(grant).__name__
            raise ConfigurationError(f"acquire must give a QuotaGrant of a whole number of tokens from 1, got {got}")
        return grant

    async def _permit(
        self,
        flow: Flow[PermitRequest],
        concurrency: ConcurrencyLimiter,
        key: Key | None,
        want: int,
        least: int,
        waits: Callable[[], None] | None,
    ) -> Reservation:
        waiter = _GateWaiter(
            PermitRequest(flow, concurrency, key, want, least, lambda reservation: self._granted(waiter, reservation))
        )

        def join(limiter: Limiter, now: float) -> None:
            limiter.enqueue(waiter.request, now)
            if waiter.reservation is None:
                waiter.future = waiter.loop.create_future()
                self._waiters.setdefault(waiter.loop, set()).add(waiter)

        def leave(limiter: Limiter, now: float) -> None:
            self._remove(waiter)
            if waiter.reservation is None:
                limiter.withdraw(waiter.request, now)
            else:
                self._unclaimed.pop(waiter.reservation, None)
                limiter.give_back(waiter.reservation, now)

        self.change(join)
        if waiter.future is not None:
            try:
                if waits is not None:
                    waits()
                await waiter.future
            except BaseException:
                # Not only cancellation: the garbage collector closes a coroutine whose event loop was closed.
                self.change(leave)
                raise
        reservation = waiter.reservation
        if reservation is None:
            raise RuntimeError("a request was woken without a permit")
        if waiter.future is not None:
            with self._locked():
                self._unclaimed.pop(reservation, None)
        return reservation

    def _granted(self, waiter: _GateWaiter, reservation: Reservation) -> None:
        waiter.reservation = reservation
        if waiter.future is not None:
            self._remove(waiter)
            self._unclaimed[reservation] = waiter.loop
            waiter.wake()

    def _remove(self, waiter: _GateWaiter) -> None:
        waiters = self._waiters.get(waiter.loop)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[waiter.loop]

    def _drop_closed_loops(self, now: float) -> None:
        """Drop the waiters of closed event loops and release their unclaimed reservations."""
        if not (self._waiters or self._timers or self._notified or self._unclaimed):
            return
        for loop in {*self._waiters, *self._timers, *self._notified}:
            if loop.is_closed():
                self._timers.pop(loop, None)
                self._notified.discard(loop)
                for waiter in self._waiters.pop(loop, ()):
                    self._limiter.withdraw(waiter.request, now)
        while lost := [reservation for reservation, loop in self._unclaimed.items() if loop.is_closed()]:
            for reservation in lost:
                del self._unclaimed[reservation]
                self._limiter.give_back(reservation, now)

    def _set_timers(self, now: float) -> None:
        """Set a timer in each event loop with waiters for the time at which a permit may be granted."""
        if not self._waiters and not self._timers:
            return
        due = self._limiter.next_time(now) if self._waiters else None
        here = _running_loop()
        for loop in [*self._timers]:
            if loop is here and loop not in self._waiters:
                self._clear_timer(loop)
        for loop in self._waiters:
            if loop is here:
                self._set_timer(loop, due)
            elif due is not None and due < self._timers.get(loop, (math.inf,))[0] and loop not in self._notified:
                # A closed event loop is dropped with the next step.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._recheck_timer, loop)
                    self._notified.add(loop)

    def _recheck_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer of an event loop from its own thread."""
        self.change(lambda _, __: self._notified.discard(loop))

    def _set_timer(self, loop: asyncio.AbstractEventLoop, due: float | None) -> None:
        current = self._timers.get(loop)
        if current is not None and current[0] == due:
            return
        self._clear_timer(loop)
        if due is not None:
            self._timers[loop] = due, self._clock.call_at(due, lambda: self._fire(loop))

    def _clear_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        timer = self._timers.pop(loop, None)
        if timer is not None:
            timer[1].cancel()

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timers.pop(loop, None)
        self.change(lambda limiter, now: limiter.dispatch(now))

    def _locked(self) -> threading.RLock:
        """The lock of this process."""
        process = os.getpid()
        if self._process != process:
            self._forget_parent(process)
        return self._locks[process]

    def _forget_parent(self, process: int) -> None:
        """After a fork, forget the parent's waiters; learned limits and usage stay."""
        with self._locks.setdefault(process, threading.RLock()):
            # Another thread may have done it already.
            if self._process != process:
                self._locks = {process: self._locks[process]}
                self._is_changing = False
                for left in (self._deferred, self._waiters, self._unclaimed, self._timers, self._notified):
                    left.clear()
                self._limiter.forget_requests(self._clock.time())
                self._process = process


def _is_grant(grant: object) -> bool:
    tokens = grant.tokens if isinstance(grant, QuotaGrant) else None
    return isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
