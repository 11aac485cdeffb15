"""Permits that are granted at once."""

from collections.abc import Awaitable, Callable

from pinecone_embed_async._clock import Clock
from pinecone_embed_async._planning import PlannedRequest
from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, LimiterOptions, Permit, RateLimitGate


async def acquire_permit(gate: RateLimitGate, flow: Flow, want: int, least: int) -> Permit:
    """Wait for a permit."""
    permit = gate.request(flow, want, least)
    return permit if permit.is_granted else await gate.wait(permit)


def permits(clock: Clock, *, max_concurrency: int = 1000) -> Callable[[PlannedRequest], Awaitable[Permit]]:
    """A function that grants permits while fewer than `max_concurrency` requests are in flight, with no other limit."""
    gate, flow = RateLimitGate(LimiterOptions(), clock=clock), Flow(ConcurrencyLimiter(max_concurrency), None, "bulk")

    def permit_for(request: PlannedRequest) -> Awaitable[Permit]:
        return acquire_permit(gate, flow, request.load.tokens, request.load.tokens)

    return permit_for
