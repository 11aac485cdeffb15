"""One quota for several clients."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pinecone_embed_async import _checks
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._limits._backoff import full_jitter
from pinecone_embed_async._limits._limiter import Lane
from pinecone_embed_async._limits._queue import Flow
from pinecone_embed_async._limits._quota import QuotaDemand, QuotaGrant, QuotaOutcome, limiter_options
from pinecone_embed_async._limits._turnstile import Turn, Turnstile

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._limits._limiter import Ask
    from pinecone_embed_async._limits._queue import Priority
    from pinecone_embed_async._limits._quota import PlanName, Quota
    from pinecone_embed_async._limits._tokens import TokenStatistics

INITIAL_PAUSE = 0.5
"""Seconds of the longest first pause after a rejection that did not ask for one; it doubles with each further burst."""

LONGEST_PAUSE = 20.0
"""Seconds of the longest such pause."""

LONGEST_ASKED_PAUSE = 120.0
"""Seconds to which a longer pause that a rejection asks for is cut."""

MOST_FLOWS = 1024
"""Flows of `acquire` that are remembered; those of which nobody waits are forgotten when there are more."""

NO_LIMIT = 2**31


class SharedQuota:
    """One quota that several clients share, in one event loop or in several threads.

    ```python
    quota = SharedQuota("standard")
    passages = EmbedClient("multilingual-e5-large", quota=quota)
    queries = EmbedClient("multilingual-e5-large", quota=quota)
    ```

    The work of all clients waits in one queue: interactive work goes before bulk work, and calls of one priority share
    evenly, whichever client they belong to. What one client learns from a rejection, all know.

    `acquire` and `settle` are the protocol (`QuotaBackend`) by which a client asks anything else for turns: what deals out
    a quota to several processes can be built around a `SharedQuota`.

    Args:
        quota: limits, the name of a plan, or `None` to learn everything from the service's rejections.
        clock: the time; the system's if it is left out.
        draw: draws evenly from [0, 1), for jitter.

    Raises:
        ConfigurationError: `quota` is none of these.
    """

    def __init__(
        self,
        quota: Quota | PlanName | None = None,
        *,
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        if clock is not None:
            _checks.methods("clock", clock, ("time", "call_at"), "Clock")
        _checks.function("draw", draw)
        self.turnstile = Turnstile(limiter_options(quota), clock=clock or SystemClock())
        self._draw = draw
        self._lane = Lane(NO_LIMIT)
        self._flows: dict[tuple[Hashable, str, str, Priority], Flow[Ask]] = {}

    def __repr__(self) -> str:
        return f"<SharedQuota {self.turnstile!r}>"

    def statistics(self) -> tuple[TokenStatistics, ...]:
        """What is known and used, for each model and input type that something was sent for."""
        return self.turnstile.statistics()

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        """Wait for the right to send a request.

        Raises:
            asyncio.CancelledError: the caller was cancelled; it then has no grant.
            ConfigurationError: `demand` is none.
        """
        _checks.instance("demand", demand, QuotaDemand)
        flow = self._flow(demand)
        turn = await self.turnstile.turn(flow, self._lane, (demand.model, demand.input_type), demand.tokens, demand.least)
        return QuotaGrant(turn.tokens, turn)

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        """Say what became of a request; exactly once for each grant.

        Raises:
            ConfigurationError: `grant` is none that `acquire` gave, or `outcome` is none.
        """
        _checks.instance("grant", grant, QuotaGrant)
        _checks.instance("outcome", outcome, QuotaOutcome)
        turn = grant.ticket
        if not isinstance(turn, Turn):
            raise ConfigurationError("grant must be one that acquire of this quota gave, got one with another ticket")
        if outcome.kind == "accepted":
            turn.accepted(outcome.tokens)
        elif outcome.kind == "rejected":
            turn.rejected(outcome.message, outcome.retry_after, lambda bursts: self._pause(bursts, outcome.retry_after))
        elif outcome.kind == "failed":
            turn.failed(is_overload=False)
        else:
            turn.give_back()

    def _pause(self, bursts: int, retry_after: float | None) -> float:
        if retry_after is not None:
            return min(retry_after, LONGEST_ASKED_PAUSE) + self._draw() * INITIAL_PAUSE
        return full_jitter(bursts, initial=INITIAL_PAUSE, most=LONGEST_PAUSE, draw=self._draw)

    def _flow(self, demand: QuotaDemand) -> Flow[Ask]:
        name = demand.flow, demand.model, demand.input_type, demand.priority
        if name not in self._flows and len(self._flows) >= MOST_FLOWS:
            # Copied, for other threads may add theirs meanwhile; a flow that is forgotten serves those who have it.
            self._flows = {name: flow for name, flow in self._flows.copy().items() if flow.waiting}
        group = id(self._lane), demand.model, demand.input_type
        return self._flows.setdefault(name, Flow(group, demand.priority))
