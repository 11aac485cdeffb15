"""Who may send now: permits for requests in flight, and the pause of all after a rejection."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async._clock import Clock, Timer


class Permits:
    """Permits for requests in flight, first come, first served, with one pause for all.

    A rejection by the service's limits pauses everybody. After the pause one request goes ahead; the others
    follow once the service has accepted it, so that a crowd is not rejected again and again.

    Args:
        limit: requests in flight at most.
        clock: the time, and one timer for all who wait.
        is_slowed: whether no more than one may be in flight for now; asked whenever a permit is to be given.
    """

    def __init__(self, limit: int, clock: Clock, *, is_slowed: Callable[[], bool] = lambda: False) -> None:
        self._limit = limit
        self._clock = clock
        self._is_slowed = is_slowed
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: Timer | None = None
        self._paused_until = 0.0
        self._paused_at = 0.0
        self._cautious = False
        self._rejections = 0
        self.in_flight = 0
        self.last_acceptance: float | None = None

    def __repr__(self) -> str:
        state = ", one at a time until accepted" if self._cautious else ""
        return f"<Permits {self.in_flight}/{self._limit}, {len(self._waiters)} waiting{state}>"

    @property
    def waiting(self) -> int:
        """Requests that wait for a permit."""
        return len(self._waiters)

    @property
    def must_wait(self) -> bool:
        """Whether a request that asks for a permit now has to wait for it."""
        return bool(self._waiters) or not self._is_free(self._clock.time())

    async def acquire(self) -> float:
        """Wait for a permit; says when it was granted, for `reject`.

        Raises:
            asyncio.CancelledError: the caller was cancelled; it then holds no permit.
        """
        now = self._clock.time()
        if not self._waiters and self._is_free(now):
            self.in_flight += 1
            return now
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        # The pause may have ended, and the timer for that not have had its turn yet.
        self._grant()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # Granted in the very turn in which the caller was cancelled.
                self.release()
            else:
                # Not in the queue any more if a permit was given back meanwhile: `_grant` drops the cancelled.
                with contextlib.suppress(ValueError):
                    self._waiters.remove(waiter)
                self._grant()
            raise
        return self._clock.time()

    def release(self) -> None:
        """Give a permit back."""
        self.in_flight -= 1
        self._grant()

    def accept(self) -> None:
        """Note that the service accepted a request: the limits have room."""
        self.last_acceptance = self._clock.time()
        self._rejections = 0
        if self._cautious:
            self._cautious = False
            self._grant()

    def reject(self, granted: float, backoff: Callable[[int], float], *, asked: bool) -> float:
        """Pause everybody because the service's limits rejected a request.

        Requests that were in flight together are rejected together: only the first of such a burst makes the
        pause longer, unless a later one is told to wait for longer.

        Args:
            granted: when the rejected request got its permit.
            backoff: seconds to pause after that many bursts of rejections without an acceptance.
            asked: whether the service asked for that pause, rather than the client having guessed it.

        Returns:
            Seconds until the pause is over.
        """
        now = self._clock.time()
        is_first = granted >= self._paused_at or self._rejections == 0
        if is_first:
            self._rejections += 1
            self._paused_at = now
        if is_first or asked:
            self._paused_until = max(self._paused_until, now + backoff(self._rejections))
        self._cautious = True
        return max(0.0, self._paused_until - now)

    def pause_left(self) -> float:
        """Seconds until the pause is over; 0 if there is none."""
        return max(0.0, self._paused_until - self._clock.time())

    def _is_free(self, now: float) -> bool:
        limit = 1 if self._cautious or self._is_slowed() else self._limit
        return self.in_flight < limit and now >= self._paused_until

    def _grant(self) -> None:
        # One look at the clock decides both who may go and whether a timer is needed: between two looks a pause
        # may end, with neither.
        now = self._clock.time()
        while self._waiters and self._is_free(now):
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.in_flight += 1
                waiter.set_result(None)
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        """Have one timer while somebody waits for the end of a pause, and none otherwise."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiters and now < self._paused_until:
            self._timer = self._clock.call_at(self._paused_until, self._grant)


class DecodeGate:
    """Lets one decode through at a time, and gives the loop a turn before the next.

    A bare `sleep(0)` would not do: tasks whose answers are ready in the same turn would decode one after
    another in the next.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> None:
        await self._lock.acquire()

    async def __aexit__(self, *_: object) -> None:
        try:
            await asyncio.sleep(0)
        finally:
            self._lock.release()
