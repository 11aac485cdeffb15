"""Where requests wait for their turns: the limiter for coroutines, of one event loop or of several threads."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from typing import TYPE_CHECKING

from pinecone_embed_async._limits._limiter import Ask, Limiter
from pinecone_embed_async._limits._quota import QuotaDemand, QuotaOutcome
from pinecone_embed_async._limits._rejections import named_limit

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._limits._limiter import Grant, Key, Lane, LimiterOptions
    from pinecone_embed_async._limits._queue import Flow
    from pinecone_embed_async._limits._quota import QuotaBackend, QuotaGrant
    from pinecone_embed_async._limits._tokens import TokenStatistics


class _Waiter:
    """One coroutine that waits for its turn."""

    __slots__ = ("_future", "grant", "loop")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.grant: Grant | None = None
        self._future: asyncio.Future[None] | None = None

    def granted(self, grant: Grant) -> None:
        """Take the turn; called in whatever thread gave it.

        Raises:
            RuntimeError: the event loop was closed.
        """
        self.grant = grant
        if self._future is None:
            return
        if _running_loop() is self.loop:
            self._wake()
        else:
            self.loop.call_soon_threadsafe(self._wake)

    def wait(self) -> asyncio.Future[None]:
        """What is done once there is a turn."""
        self._future = self.loop.create_future()
        return self._future

    def _wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Turn:
    """The right to have one request in flight. Exactly one of the methods that end it is called.

    Attributes:
        tokens: that the request may have at most; once it is cut to that, those that it has.
    """

    __slots__ = ("_grant", "_remote", "_turnstile", "tokens")

    def __init__(self, turnstile: Turnstile, grant: Grant, remote: QuotaGrant | None) -> None:
        self._turnstile = turnstile
        self._grant = grant
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
        self._settle("accepted", self.tokens if billed is None else billed)
        self._turnstile.change(lambda limiter, now: limiter.accepted(self._grant, billed, now))

    def failed(self, *, is_overload: bool) -> None:
        """Say that the request failed for another reason than a limit, and whether the service could not cope."""
        self._settle("failed", self.tokens)
        self._turnstile.change(lambda limiter, now: limiter.failed(self._grant, now, is_overload=is_overload))

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
        self._settle("rejected", self.tokens, message, retry_after)

        def note(limiter: Limiter, now: float) -> None:
            nonlocal pause
            if is_remote:
                # Whoever deals out the quota decides about pauses.
                limiter.failed(self._grant, now, is_overload=False)
            else:
                pause = limiter.rejected(self._grant, now, named=named, backoff=backoff, asked=retry_after is not None)

        self._turnstile.change(note)
        return pause

    def give_back(self) -> None:
        """Say that nothing is sent."""
        self._settle("unused", 0)
        self._turnstile.change(lambda limiter, now: limiter.give_back(self._grant, now))

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
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._waiters: dict[asyncio.AbstractEventLoop, set[_Waiter]] = {}
        # One timer for all waiters of an event loop, and when it is due.
        self._timers: dict[asyncio.AbstractEventLoop, tuple[float, Timer]] = {}
        self._lost: list[Grant] = []

    def __repr__(self) -> str:
        return f"<Turnstile {self._limiter!r}>"

    def waiting(self, lanes: AbstractSet[Lane]) -> int:
        """Requests that wait for a turn in some lanes."""
        with self._lock:
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
        """
        remote: QuotaGrant | None = None
        if self._backend is not None and key is not None:
            remote = await self._backend.acquire(QuotaDemand(*key, want, least, flow.priority, id(flow)))
            want, least, key = remote.tokens, remote.tokens, None
        waiter = _Waiter()
        ask = Ask(flow, lane, key, want, least, self._granted(waiter))
        try:
            self.change(lambda limiter, now: limiter.ask(ask, now))
            if waiter.grant is None:
                if waits is not None:
                    waits()
                await self._wait(waiter, ask)
        except BaseException:
            if remote is not None:
                self.settle(remote, QuotaOutcome("unused", 0))
            raise
        if waiter.grant is None:
            raise RuntimeError("a request was woken without a turn")
        return Turn(self, waiter.grant, remote)

    def change(self, step: Callable[[Limiter, float], None]) -> None:
        """Have the limiter take a step, and see to the timers."""
        self._check_process()
        with self._lock:
            now = self._clock.time()
            step(self._limiter, now)
            while self._lost:
                self._limiter.give_back(self._lost.pop(), now)
            self._set_timers(now)

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Tell whoever deals out the quota what became of a request."""
        if self._backend is not None:
            self._backend.settle(grant, outcome)

    def pause_left(self, key: Key | None) -> float:
        """Seconds that requests with this key pause for after a rejection."""
        with self._lock:
            return self._limiter.pause_left(key, self._clock.time())

    def last_acceptance(self, key: Key | None) -> float | None:
        """When a request with this key was last accepted, by the clock; `None` if none was."""
        with self._lock:
            return self._limiter.last_acceptance(key)

    def known_limit(self, key: Key | None) -> int | None:
        """Tokens in a window that were given or named for a key; `None` if none were."""
        if key is None or self._backend is not None:
            return None
        with self._lock:
            known = self._limiter.tokens(key).known
        return None if math.isinf(known) else int(known)

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """What is known and used, for each model and input type that something was sent for."""
        with self._lock:
            return tuple(self._limiter.statistics(self._clock.time()))

    async def _wait(self, waiter: _Waiter, ask: Ask) -> None:
        future = waiter.wait()
        if waiter.grant is not None:
            # Another thread gave the turn before there was anything to wake.
            return
        self.change(lambda _, __: self._waiters.setdefault(waiter.loop, set()).add(waiter))
        try:
            await future
        except asyncio.CancelledError:
            self._leave(waiter)
            grant = waiter.grant
            if grant is None:
                self.change(lambda limiter, now: limiter.withdraw(ask, now))
            else:
                self.change(lambda limiter, now: limiter.give_back(grant, now))
            raise
        self._leave(waiter)

    def _leave(self, waiter: _Waiter) -> None:
        with self._lock:
            waiters = self._waiters.get(waiter.loop)
            if waiters is None:
                return
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[waiter.loop]
                self._clear_timer(waiter.loop)

    def _granted(self, waiter: _Waiter) -> Callable[[Grant], None]:
        def granted(grant: Grant) -> None:
            try:
                waiter.granted(grant)
            except RuntimeError:
                # Its event loop was closed; nobody will ever come for the turn.
                self._lost.append(grant)

        return granted

    def _set_timers(self, now: float) -> None:
        """Have each event loop that somebody waits in look again when there may be a turn."""
        due = self._limiter.next_time(now) if self._waiters else None
        here = _running_loop()
        for loop in list(self._waiters):
            if loop is here:
                self._set_timer(loop, due)
            elif due is not None and due < self._timers.get(loop, (float("inf"),))[0]:
                try:
                    loop.call_soon_threadsafe(self.change, lambda _, __: None)
                except RuntimeError:
                    # It was closed, with its waiters.
                    del self._waiters[loop]
                    self._timers.pop(loop, None)

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

    def _check_process(self) -> None:
        """After a fork, forget those who wait in the parent; what was learned and used stays known."""
        if self._process == os.getpid():
            return
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiters.clear()
        self._timers.clear()
        self._limiter.forget_asks(self._clock.time())


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
