"""Serves one quota to many workers, any of which may die. It does not depend on Ray, which runs it as an actor."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._rate_limit import Quota, QuotaGrant, QuotaOutcome, SharedQuota, limiter_options
from pinecone_embed_async.integrations._ray.leases import Leases

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._rate_limit import PlanName, QuotaDemand, TokenStatistics


@dataclass(frozen=True, slots=True)
class Terms:
    """Settings of a cluster's quota; see `ClusterQuota`."""

    quota: Quota | int | PlanName | None
    lease: float
    idle: float


class _PermitRequest:
    """A worker's request for a permit, which waits for a grant.

    Attributes:
        scope: the timeout scope of the wait.
        grant: `None` while it waits.
        is_over: whether the wait was ended. The grant may have arrived at the same moment.
    """

    __slots__ = ("grant", "is_over", "scope")

    def __init__(self, scope: asyncio.Timeout) -> None:
        self.scope = scope
        self.grant: QuotaGrant | None = None
        self.is_over = False

    def end(self) -> None:
        """End the wait."""
        self.is_over = True
        self.scope.reschedule(asyncio.get_running_loop().time())


class QuotaServer:
    """Serves one quota to many workers: a `SharedQuota` that takes back the grants of workers that die.

    Call its methods from one event loop. Each worker numbers its requests from 0, so that a repeated call has no second
    effect and a worker can withdraw a request before it gets the answer.

    Args:
        terms: the quota's settings.
        leave: called after `terms.idle` seconds without a request.
        is_resumed: whether another server served this quota before. Its grants are not known, so nothing is granted for one
            window.
        clock: the clock.
        draw: draws uniformly from [0, 1), for jitter.
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
        self._leases: Leases[_PermitRequest] = Leases(terms.lease)
        self._timer: Timer | None = None
        now = self._clock.time()
        self._opens = now + limiter_options(terms.quota).window if is_resumed else now

    def __repr__(self) -> str:
        return f"<QuotaServer {self._leases!r}, {self._shared!r}>"

    def terms(self) -> Terms:
        """The quota's settings."""
        return self._terms

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """The known limits and the usage, for each model and input type used so far."""
        return self._shared.statistics()

    async def acquire(self, worker: str, number: int, demand: QuotaDemand) -> int | None:
        """Wait for permission to send a request.

        Args:
            worker: the worker's name.
            number: the worker's number for the request.
            demand: what the request needs.

        Returns:
            The tokens granted; `None` if the worker counted as dead in the meantime or has withdrawn the request.
        """
        self._heard(worker)
        before = self._leases.get(worker, number)
        if before is not None:
            # The same call again: the connection was lost before the answer arrived.
            if before.grant is not None:
                return before.grant.tokens
            before.end()
        request = _PermitRequest(asyncio.timeout(None))
        self._leases.add(worker, number, request)
        try:
            grant = await self._wait(request, replace(demand, flow=(worker, demand.flow), within=None))
        except BaseException:
            self._leases.remove(worker, number)
            raise
        if grant is None:
            return None
        if request.is_over:
            self._shared.settle(grant, QuotaOutcome("unused", 0))
            return None
        request.grant = grant
        return grant.tokens

    def settle(self, worker: str, number: int, outcome: QuotaOutcome) -> None:
        """Record the outcome of a request, or its withdrawal."""
        self._heard(worker)
        request = self._leases.remove(worker, number)
        if request is not None:
            self._end(request, outcome)

    def renew(self, worker: str, below: int, numbers: Collection[int]) -> None:
        """Record a worker's heartbeat, with what it holds and waits for.

        Args:
            worker: the worker's name.
            below: the first of the worker's numbers that is not used yet.
            numbers: the worker's requests that are not settled.
        """
        self._heard(worker)
        for request in self._leases.keep(worker, below, numbers):
            self._end_lost(request)

    async def _wait(self, request: _PermitRequest, demand: QuotaDemand) -> QuotaGrant | None:
        with contextlib.suppress(TimeoutError):
            async with request.scope:
                if self._opens > self._clock.time():
                    await self._clock.sleep(self._opens - self._clock.time())
                return await self._shared.acquire(demand)
        return None

    def _heard(self, worker: str) -> None:
        now = self._clock.time()
        self._leases.heard(worker, now)
        if self._timer is None:
            self._set_timer()

    def _end(self, request: _PermitRequest, outcome: QuotaOutcome) -> None:
        if request.grant is None:
            request.end()
        else:
            self._shared.settle(request.grant, outcome)

    def _end_lost(self, request: _PermitRequest) -> None:
        """End a request whose fate is unknown: it may have been sent and counted by the service."""
        self._end(request, QuotaOutcome("failed", 0 if request.grant is None else request.grant.tokens))

    def _set_timer(self) -> None:
        # After a later heartbeat, the timer fires early and is set again.
        due = min(self._leases.next_time(), self._leases.last_heard + self._terms.idle)
        self._timer = self._clock.call_at(due, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.time()
        for request in self._leases.expire(now):
            self._end_lost(request)
        if now >= self._leases.last_heard + self._terms.idle:
            self._leave()
        else:
            self._set_timer()
