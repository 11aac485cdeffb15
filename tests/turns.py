"""Turns that are to be had at once."""

from collections.abc import Awaitable, Callable

from pinecone_embed_async._clock import Clock
from pinecone_embed_async._limits import Ask, Flow, Lane, LimiterOptions, Turn, Turnstile
from pinecone_embed_async._plan import PlannedRequest


def turns(clock: Clock, *, most: int = 1000) -> Callable[[PlannedRequest], Awaitable[Turn]]:
    """What gives a request its turn while fewer than `most` are in flight, and knows no other limit."""
    turnstile, lane, flow = Turnstile(LimiterOptions(), clock=clock), Lane(most), Flow[Ask]("all", "bulk")

    def turn_for(request: PlannedRequest) -> Awaitable[Turn]:
        return turnstile.turn(flow, lane, None, request.tokens, request.tokens)

    return turn_for
