"""What deals out one quota to many workers, which may die. It knows nothing of Ray, which makes an actor of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._limits import Quota, QuotaGrant, QuotaOutcome, SharedQuota, limiter_options
from pinecone_embed_async.integrations.ray._leases import Leases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._limits import PlanName, QuotaDemand, TokenStatistics


@dataclass(frozen=True, slots=True)
class Terms:
    """What a quota for a cluster was set up with; see `ClusterQuota`."""

    quota: Quota | PlanName | None
    lease: float
    idle: float


class _Ask:
    """What a worker asked for: it waits until there is a grant.

    Attributes:
        scope: of the wait.
        grant: `None` while it waits.
        is_over: whether it is to wait no more. The grant may have come in the same moment.
    """

    __slots__ = ("grant", "is_over", "scope")

    def __init__(self, scope: asyncio.Timeout) -> None:
        self.scope = scope
        self.grant: QuotaGrant | None = None
        self.is_over = False

    def end(self) -> None:
        """Wait no more."""
        self.is_over = True
        self.scope.reschedule(asyncio.get_running_loop().time())


class Dealer:
    """Deals out one quota to many workers: a `SharedQuota` whose grants come back when the worker that held them dies.

    Its methods are called from one event loop. What a worker asks for has a number that the worker chooses, from 0 up, so
    that a call that arrives twice does nothing twice, and that the worker can take it back without having had the answer.

    Args:
        terms: what is dealt out.
        leave: called once nobody has asked for anything for `terms.idle` seconds.
        is_resumed: whether one before it has dealt out the same quota: then nothing is given for a window, for what was used
            before is not known.
        clock: the time.
        draw: draws evenly from [0, 1), for jitter.
    """

    def __init__(
        self,
        terms: Terms,
        *,
        leave: Callable[[], None],
        is_resumed: bool = False,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._terms = terms
        self._leave = leave
        self._clock = clock or SystemClock()
        self._shared = SharedQuota(terms.quota, clock=self._clock, draw=draw)
        self._leases: Leases[_Ask] = Leases(terms.lease)
        self._timer: Timer | None = None
        now = self._clock.time()
        self._opens = now + limiter_options(terms.quota).window if is_resumed else now

    def __repr__(self) -> str:
        return f"<Dealer {self._leases!r}, {self._shared!r}>"

    def terms(self) -> Terms:
        """What it was set up with."""
        return self._terms

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """What is known and used, for each model and input type that something was sent for."""
        return self._shared.statistics()

    async def acquire(self, worker: str, number: int, demand: QuotaDemand) -> int | None:
        """Wait for the right to send a request.

        Args:
            worker: who asks.
            number: its own for this.
            demand: what it needs.

        Returns:
            The tokens that the request may have; `None` if the worker was taken for dead meanwhile, or has taken it back.
        """
        self._heard(worker)
        before = self._leases.get(worker, number)
        if before is not None:
            # The same call once more, for the connection was lost before it was answered.
            if before.grant is not None:
                return before.grant.tokens
            before.end()
        ask = _Ask(asyncio.timeout(None))
        self._leases.add(worker, number, ask)
        try:
            grant = await self._wait(ask, replace(demand, flow=(worker, demand.flow)))
        except BaseException:
            self._leases.remove(worker, number)
            raise
        if grant is None:
            return None
        if ask.is_over:
            self._shared.settle(grant, QuotaOutcome("unused", 0))
            return None
        ask.grant = grant
        return grant.tokens

    def settle(self, worker: str, number: int, outcome: QuotaOutcome) -> None:
        """Hear what became of a request, or that it is not asked for any more."""
        self._heard(worker)
        ask = self._leases.remove(worker, number)
        if ask is not None:
            self._end(ask, outcome)

    def renew(self, worker: str, below: int, numbers: Collection[int]) -> None:
        """Hear that a worker lives, and what it holds and waits for.

        Args:
            worker: which one.
            below: the first of its numbers that it has not used yet.
            numbers: those that it has asked for and not settled.
        """
        self._heard(worker)
        for ask in self._leases.keep(worker, below, numbers):
            self._end_lost(ask)

    async def _wait(self, ask: _Ask, demand: QuotaDemand) -> QuotaGrant | None:
        with contextlib.suppress(TimeoutError):
            async with ask.scope:
                if self._opens > self._clock.time():
                    await self._clock.sleep(self._opens - self._clock.time())
                return await self._shared.acquire(demand)
        return None

    def _heard(self, worker: str) -> None:
        now = self._clock.time()
        self._leases.heard(worker, now)
        if self._timer is None:
            self._set_timer()

    def _end(self, ask: _Ask, outcome: QuotaOutcome) -> None:
        if ask.grant is None:
            ask.end()
        else:
            self._shared.settle(ask.grant, outcome)

    def _end_lost(self, ask: _Ask) -> None:
        """Take back what nobody can tell the fate of: it may have been sent, and counted by the service."""
        self._end(ask, QuotaOutcome("failed", 0 if ask.grant is None else ask.grant.tokens))

    def _set_timer(self) -> None:
        # It may be early, for a worker may have been heard of since: then it is set again.
        due = min(self._leases.next_time(), self._leases.last_heard + self._terms.idle)
        self._timer = self._clock.call_at(due, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.time()
        for ask in self._leases.expire(now):
            self._end_lost(ask)
        if now >= self._leases.last_heard + self._terms.idle:
            self._leave()
        else:
            self._set_timer()
