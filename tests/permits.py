"""Permits that are granted at once."""

from collections.abc import Awaitable, Callable

from pinecone_embed_async._clock import Clock
from pinecone_embed_async._planning import PlannedRequest
from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, LimiterOptions, Permit, PermitRequest, RateLimitGate


def permits(clock: Clock, *, max_concurrency: int = 1000) -> Callable[[PlannedRequest], Awaitable[Permit]]:
    """A function that grants permits while fewer than `max_concurrency` requests are in flight, with no other limit."""
    gate, concurrency, flow = (
        RateLimitGate(LimiterOptions(), clock=clock),
        ConcurrencyLimiter(max_concurrency),
        Flow[PermitRequest]("all", "bulk"),
    )

    def permit_for(request: PlannedRequest) -> Awaitable[Permit]:
        return gate.permit(flow, concurrency, None, request.tokens, request.tokens)

    return permit_for
