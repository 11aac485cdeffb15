"""A quota shared by several clients."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pinecone_embed_async import _checks
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
from pinecone_embed_async._rate_limit.gate import Permit, RateLimitGate
from pinecone_embed_async._rate_limit.pauses import Backoff
from pinecone_embed_async._rate_limit.permit import Flow
from pinecone_embed_async._rate_limit.quota import QuotaDemand, QuotaGrant, QuotaOutcome, limiter_options

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._rate_limit.quota import PlanName, Priority, Quota, TokenStatistics

INITIAL_PAUSE = 0.5
"""Upper bound in seconds of the first pause after a rejection without `retry_after`; doubles with each further burst."""

LONGEST_PAUSE = 20.0
"""Maximum upper bound in seconds of such a pause."""

LONGEST_ASKED_PAUSE = 120.0
"""Upper bound in seconds of a pause that a rejection asks for."""

MOST_FLOWS = 1024
"""Maximum number of flows of `acquire` to keep; beyond it, those without waiting requests are forgotten."""

NO_LIMIT = 2**31


class SharedQuota:
    """One quota that several clients share, in one event loop or in several threads.

    ```python
    quota = SharedQuota("standard")
    passages = EmbedClient("multilingual-e5-large", quota=quota)
    queries = EmbedClient("multilingual-e5-large", quota=quota)
    ```

    The work of all clients waits in one queue: interactive work goes before bulk work, and calls of one priority share
    evenly across clients. If one client learns something from a rejection, all clients know it.

    `acquire` and `settle` implement the protocol `QuotaBackend`, so you can build a quota server for several processes
    around a `SharedQuota`.

    Args:
        quota: a `Quota`, tokens per minute, the name of a plan, or `None` to learn everything from the service's rejections.
        clock: the clock; the system's by default.
        draw: draws uniformly from [0, 1), for jitter.

    Raises:
        ConfigurationError: `quota` is none of these.
    """

    def __init__(
        self,
        quota: Quota | int | PlanName | None = None,
        *,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if clock is not None:
            _checks.methods("clock", clock, ("time", "call_at"), "Clock")
        _checks.function("draw", draw)
        self._clock = clock or SystemClock()
        self.gate = RateLimitGate(limiter_options(quota), clock=self._clock)
        self._draw = draw
        self._concurrency = ConcurrencyLimiter(NO_LIMIT)
        self._flows: dict[tuple[Hashable, str, str, Priority], Flow] = {}

    def __repr__(self) -> str:
        return f"<SharedQuota {self.gate!r}>"

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """Limits and usage of each model and input type with requests so far."""
        return self.gate.statistics()

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        """Wait for the right to send a request.

        Raises:
            asyncio.CancelledError: the caller was cancelled and has no grant.
            DeadlineExceededError: no grant can come `within` the time of the demand.
            ConfigurationError: `demand` is not a QuotaDemand.
        """
        _checks.instance("demand", demand, QuotaDemand)
        deadline = None if demand.within is None else self._clock.time() + demand.within
        permit = self.gate.request(self._flow(demand), demand.tokens, demand.least, deadline=deadline)
        if not permit.is_granted:
            await self.gate.wait(permit)
        return QuotaGrant(permit.tokens, permit)

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Report the outcome of a request, exactly once per grant.

        Raises:
            ConfigurationError: `grant` was not returned by `acquire`, or `outcome` is not a QuotaOutcome.
        """
        _checks.instance("grant", grant, QuotaGrant)
        _checks.instance("outcome", outcome, QuotaOutcome)
        permit = grant.ticket
        if not isinstance(permit, Permit):
            raise ConfigurationError("grant must be one that this quota's acquire returned, got one with another ticket")
        if outcome.kind == "accepted":
            permit.accepted(outcome.tokens)
        elif outcome.kind == "rejected":
            backoff = Backoff(INITIAL_PAUSE, LONGEST_PAUSE, self._draw, outcome.retry_after, LONGEST_ASKED_PAUSE)
            permit.rejected(outcome.message, backoff)
        elif outcome.kind == "failed":
            permit.failed(is_overload=False)
        else:
            permit.give_back()

    def _flow(self, demand: QuotaDemand) -> Flow:
        name = demand.flow, demand.model, demand.input_type, demand.priority
        if name not in self._flows and len(self._flows) >= MOST_FLOWS:
            # A copy, because other threads may add flows meanwhile. A forgotten flow still works for its requests.
            self._flows = {name: flow for name, flow in self._flows.copy().items() if flow.waiting}
        return self._flows.setdefault(name, Flow(self._concurrency, (demand.model, demand.input_type), demand.priority))
