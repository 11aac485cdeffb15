"""Where requests wait for their turns: the limiter for coroutines, of one event loop or of several threads."""

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
from pinecone_embed_async._limits._budgets import KEYS_KEPT
from pinecone_embed_async._limits._limiter import Ask, Limiter
from pinecone_embed_async._limits._quota import QuotaDemand, QuotaGrant, QuotaOutcome
from pinecone_embed_async._limits._rejections import named_limit
from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._limits._budgets import Key
    from pinecone_embed_async._limits._limiter import Grant, Lane, LimiterOptions
    from pinecone_embed_async._limits._queue import Flow
    from pinecone_embed_async._limits._quota import QuotaBackend
    from pinecone_embed_async._limits._tokens import TokenStatistics

    Step = Callable[[Limiter, float], None]
    """What the limiter is to do, and the time."""


class _Waiter:
    """One coroutine that waits for its turn."""

    __slots__ = ("ask", "future", "grant", "loop")

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.loop = asyncio.get_running_loop()
        self.grant: Grant | None = None
        self.future: asyncio.Future[None] | None = None

    def wake(self) -> None:
        """Have the coroutine go on; called in whatever thread gave the turn."""
        if _running_loop() is self.loop:
            self._done()
        else:
            # If its event loop was closed, nobody will ever come.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._done)

    def _done(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)


class Turn:
    """The right to have one request in flight. Exactly one of the methods that end it is called.

    Attributes:
        tokens: that the request may have at most; once it is cut to that, those that it has.
    """

    __slots__ = ("_grant", "_key", "_remote", "_turnstile", "tokens")

    def __init__(self, turnstile: Turnstile, grant: Grant, key: Key | None, remote: QuotaGrant | None) -> None:
        self._turnstile = turnstile
        self._grant = grant
        self._key = key
        self._remote = remote
        self.tokens = grant.tokens

    def __repr__(self) -> str:
        return f"<Turn of {self.tokens} tokens>"

    def shrink(self, tokens: int) -> None:
        """Say that the request has fewer tokens than it might."""
        if tokens != self.tokens:
            self._turnstile.change(lambda limiter, now: limiter.shrink(self._grant, tokens, now))
            self.tokens = tokens

    def accepted(self, billed: int | None) -> None:
        """Say that the service took the request, and how many tokens it counted, if it said so."""
        found: int | None = None

        def note(limiter: Limiter, now: float) -> None:
            nonlocal found
            limiter.accepted(self._grant, billed, now)
            self._turnstile.note_acceptance(self._key, now)
            found = limiter.take_found(self._grant)

        self._turnstile.change(note)
        if found is not None and self._key is not None:
            model, input_type = self._key
            logger.warning(
                "the service rejects requests for %s%s without naming a limit; %d tokens in a window are kept to for now, "
                "which is a guess. If the limit is known, pass it as quota=",
                model,
                f" ({input_type})" if input_type else "",
                found,
            )
        self._settle("accepted", self.tokens if billed is None else billed)

    def failed(self, *, is_overload: bool) -> None:
        """Say that the request failed for another reason than a limit, and whether the service could not cope."""
        self._turnstile.change(lambda limiter, now: limiter.failed(self._grant, now, is_overload=is_overload))
        self._settle("failed", self.tokens)

    def rejected(self, message: str, retry_after: float | None, backoff: Callable[[int], float]) -> float | None:
        """Say that the service rejected the request for a limit.

        Args:
            message: of the rejection, which may name the limit.
            retry_after: seconds to wait that the service asked for; `None` if it did not.
            backoff: seconds to pause after that many bursts of rejections without an acceptance.

        Returns:
            Seconds of the pause that begins with it; `None` if none does, or one is under way.
        """
        pause: float | None = None
        named = named_limit(message)
        is_remote = self._remote is not None

        def note(limiter: Limiter, now: float) -> None:
            nonlocal pause
            if is_remote:
                # Whoever deals out the quota decides about pauses.
                limiter.failed(self._grant, now, is_overload=False)
            else:
                pause = limiter.rejected(self._grant, now, named=named, backoff=backoff, asked=retry_after is not None)

        self._turnstile.change(note)
        self._settle("rejected", self.tokens, message, retry_after)
        return pause

    def give_back(self) -> None:
        """Say that nothing is sent."""
        self._turnstile.change(lambda limiter, now: limiter.give_back(self._grant, now))
        self._settle("unused", 0)

    def _settle(self, kind: str, tokens: int, message: str = "", retry_after: float | None = None) -> None:
        remote, self._remote = self._remote, None
        if remote is not None:
            self._turnstile.settle(remote, QuotaOutcome(kind, tokens, message, retry_after))  # type: ignore[arg-type]


class Turnstile:
    """Gives turns to coroutines; several clients, event loops and threads may share it.

    Args:
        options: what is given of the quota.
        clock: the time, the same in all threads.
        backend: deals out the quota instead of the limiter, which then only keeps order and counts what is in flight.
    """

    def __init__(self, options: LimiterOptions, *, clock: Clock, backend: QuotaBackend | None = None) -> None:
        self._limiter = Limiter(options)
        self._clock = clock
        self._backend = backend
        # Together they name its flows, also beside those of other clients.
        self._name, self._numbers = secrets.token_hex(8), itertools.count()
        self._neighbour = Neighbour("the quota that was passed", clock)
        self._has_complained = False
        self._process = os.getpid()
        # A lock for each process, for that of the parent may be held for ever in a child. It lets the thread that holds it
        # in again: the garbage collector may close a coroutine that has a turn at any moment, also during a step.
        self._locks = {self._process: threading.RLock()}
        self._is_changing = False
        self._put_off: deque[Step] = deque()
        self._waiters: dict[asyncio.AbstractEventLoop, set[_Waiter]] = {}
        # Turns of waiters that have not gone on yet.
        self._unclaimed: dict[Grant, asyncio.AbstractEventLoop] = {}
        # One timer for all waiters of an event loop, and when it is due.
        self._timers: dict[asyncio.AbstractEventLoop, tuple[float, Timer]] = {}
        # Event loops of other threads that were told to look at their timers and have not yet.
        self._told: set[asyncio.AbstractEventLoop] = set()
        # The last ones, the latest last.
        self._accepted_at: OrderedDict[Key, float] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Turnstile {self._limiter!r}>"

    def waiting(self, lanes: AbstractSet[Lane]) -> int:
        """Requests that wait for a turn in some lanes."""
        with self._locked():
            return self._limiter.waiting(lanes)

    async def turn(
        self,
        flow: Flow[Ask],
        lane: Lane,
        key: Key | None,
        want: int,
        least: int,
        *,
        waits: Callable[[], None] | None = None,
    ) -> Turn:
        """Wait for a turn.

        Args:
            flow: that the request belongs to.
            lane: of its client and event loop.
            key: what its tokens are counted for; `None` if it costs none.
            want: tokens of the whole request.
            least: tokens of the smallest request that can be cut off it.
            waits: called if there is none at once.

        Raises:
            asyncio.CancelledError: the caller was cancelled; it then has no turn.
            ConfigurationError: whoever deals out the quota failed.
        """
        remote: QuotaGrant | None = None
        counted_for = key
        if self._backend is not None and key is not None:
            # Not its place in memory, which another one has when it is gone.
            flow.name = flow.name or f"{self._name}-{next(self._numbers)}"
            remote = await self._acquire(self._backend, QuotaDemand(*key, want, min(least, want), flow.priority, flow.name))
            # It has no use for more than it asked for, and the order of turns goes by what each has.
            want = least = min(remote.tokens, want)
            counted_for = None
        try:
            grant = await self._turn(flow, lane, counted_for, want, least, waits)
        except BaseException:
            if remote is not None:
                self.settle(remote, QuotaOutcome("unused", 0))
            raise
        return Turn(self, grant, key, remote)

    def change(self, step: Step) -> None:
        """Have the limiter take a step, and see to the timers."""
        with self._locked():
            self._put_off.append(step)
            if self._is_changing:
                return
            self._is_changing = True
            try:
                now = self._clock.time()
                while self._put_off:
                    self._put_off.popleft()(self._limiter, now)
                    self._bury(now)
                    self._set_timers(now)
            finally:
                self._is_changing = False

    def note_acceptance(self, key: Key | None, now: float) -> None:
        """Note that the service took a request with this key; part of a step."""
        if key is not None:
            self._accepted_at[key] = now
            self._accepted_at.move_to_end(key)
            if len(self._accepted_at) > KEYS_KEPT:
                self._accepted_at.popitem(last=False)

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Tell whoever deals out the quota what became of a request."""
        if self._backend is None:
            return
        try:
            self._backend.settle(grant, outcome)
        # It is called and not awaited, so a CancelledError is its own, too.
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the request has its answer, whatever that is
            level = logger.debug if self._has_complained else logger.warning
            self._has_complained = True
            level("the quota that was passed could not settle a grant: %s: %s", type(error).__name__, error)

    def pause_left(self, key: Key | None) -> float:
        """Seconds that requests with this key pause for after a rejection."""
        with self._locked():
            return self._limiter.pause_left(key, self._clock.time())

    def wait_left(self, key: Key | None) -> float:
        """Seconds until a request with this key may go at the earliest, by pauses and by limits of requests."""
        with self._locked():
            return self._limiter.wait_left(key, self._clock.time())

    def last_acceptance(self, key: Key | None) -> float | None:
        """When a request with this key was last accepted, by the clock; `None` if none was."""
        with self._locked():
            return None if key is None else self._accepted_at.get(key)

    def known_limit(self, key: Key | None) -> int | None:
        """Tokens in a window that were given or named for a key; `None` if none were."""
        if key is None or self._backend is not None:
            return None
        with self._locked():
            known = self._limiter.known_tokens(key)
        return None if math.isinf(known) else int(known)

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """What is known and used, for each model and input type that something was sent for."""
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

    async def _turn(
        self, flow: Flow[Ask], lane: Lane, key: Key | None, want: int, least: int, waits: Callable[[], None] | None
    ) -> Grant:
        waiter = _Waiter(Ask(flow, lane, key, want, least, lambda grant: self._granted(waiter, grant)))

        def join(limiter: Limiter, now: float) -> None:
            limiter.ask(waiter.ask, now)
            if waiter.grant is None:
                waiter.future = waiter.loop.create_future()
                self._waiters.setdefault(waiter.loop, set()).add(waiter)

        def leave(limiter: Limiter, now: float) -> None:
            self._remove(waiter)
            if waiter.grant is None:
                limiter.withdraw(waiter.ask, now)
            else:
                self._unclaimed.pop(waiter.grant, None)
                limiter.give_back(waiter.grant, now)

        self.change(join)
        if waiter.future is not None:
            try:
                if waits is not None:
                    waits()
                await waiter.future
            except BaseException:
                # Not only when cancelled: a coroutine whose event loop was closed is closed by the garbage collector.
                self.change(leave)
                raise
        grant = waiter.grant
        if grant is None:
            raise RuntimeError("a request was woken without a turn")
        if waiter.future is not None:
            with self._locked():
                self._unclaimed.pop(grant, None)
        return grant

    def _granted(self, waiter: _Waiter, grant: Grant) -> None:
        waiter.grant = grant
        if waiter.future is not None:
            self._remove(waiter)
            self._unclaimed[grant] = waiter.loop
            waiter.wake()

    def _remove(self, waiter: _Waiter) -> None:
        waiters = self._waiters.get(waiter.loop)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[waiter.loop]

    def _bury(self, now: float) -> None:
        """Take back what was given to event loops that have been closed, and have nobody wait in them."""
        if not (self._waiters or self._timers or self._told or self._unclaimed):
            return
        for loop in {*self._waiters, *self._timers, *self._told}:
            if loop.is_closed():
                self._timers.pop(loop, None)
                self._told.discard(loop)
                for waiter in self._waiters.pop(loop, ()):
                    self._limiter.withdraw(waiter.ask, now)
        while lost := [grant for grant, loop in self._unclaimed.items() if loop.is_closed()]:
            for grant in lost:
                del self._unclaimed[grant]
                self._limiter.give_back(grant, now)

    def _set_timers(self, now: float) -> None:
        """Have each event loop that somebody waits in look again when there may be a turn."""
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
            elif due is not None and due < self._timers.get(loop, (math.inf,))[0] and loop not in self._told:
                # If it has been closed, it is buried with the next step.
                with contextlib.suppress(RuntimeError):
                    loop.call_soon_threadsafe(self._look_again, loop)
                    self._told.add(loop)

    def _look_again(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer of an event loop that somebody waits in, in its own thread."""
        self.change(lambda _, __: self._told.discard(loop))

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
        """What keeps other threads out while it is held."""
        process = os.getpid()
        if self._process != process:
            self._forget_parent(process)
        return self._locks[process]

    def _forget_parent(self, process: int) -> None:
        """Forget, after a fork, who waits in the parent; what was learned and used stays known."""
        with self._locks.setdefault(process, threading.RLock()):
            # Another thread may have been first.
            if self._process != process:
                self._locks = {process: self._locks[process]}
                self._is_changing = False
                for left in (self._put_off, self._waiters, self._unclaimed, self._timers, self._told):
                    left.clear()
                self._limiter.forget_asks(self._clock.time())
                self._process = process


def _is_grant(grant: object) -> bool:
    tokens = grant.tokens if isinstance(grant, QuotaGrant) else None
    return isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 1


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
