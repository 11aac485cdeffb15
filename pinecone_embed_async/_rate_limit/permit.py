"""Permits, and the flows in which requests wait for them."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
    from pinecone_embed_async._rate_limit.pauses import KnownPause
    from pinecone_embed_async._rate_limit.quota import Key, Priority


# No struct, because to pickle flows and permits that lead to each other would recurse too deeply.
@dataclass(slots=True, eq=False, repr=False)
class Flow:
    """The requests of one call or stream, served first come, first served; flows share evenly.

    Attributes:
        concurrency: the concurrency limiter of its client and event loop.
        key: the model and input type that its tokens count for; `None` if its requests cost no tokens.
        priority: interactive work goes before bulk work.
        waiting: the permits that requests wait for, in order; a dictionary, because it can remove any in constant time.
        had: service received: on the scale of its group while listed there, otherwise on the common scale.
        shifted: shift of its group when it was last listed there.
        entry: its entry among the flows of its group; `None` while it is not listed.
        in_flight: number of permits that have not ended; with any, the flow counts as present even if nothing waits.
        name: its name for a quota back end; empty until the first request to it.
    """

    concurrency: ConcurrencyLimiter
    key: Key | None
    priority: Priority
    waiting: OrderedDict[LimiterPermit, None] = field(default_factory=OrderedDict)
    had: float = 0.0
    shifted: float = 0.0
    entry: tuple[float, int, Flow] | None = None
    in_flight: int = 0
    name: str = ""

    @property
    def group(self) -> tuple[ConcurrencyLimiter, Key | None, Priority]:
        """The group of flows that wait for the same resources: if one of them has to wait, so do the others."""
        return self.concurrency, self.key, self.priority


class LimiterPermit(msgspec.Struct, eq=False):
    """The right to have one request in flight, as the limiter sees it: requested, then granted or dismissed.

    Attributes:
        flow: the flow it belongs to.
        key: the model and input type that its tokens count for in this process; `None` for none.
        want: estimated tokens of the whole request.
        least: tokens of the smallest request that can be cut from it.
        deadline: time after which it is useless.
        certain: low estimate of the tokens of the smallest request.
        pause: the pause for which it was dismissed, because it certainly comes too late; else `None`.
        tokens: maximum number of tokens of the request; the actual number once the request is cut.
        at: time of the grant; infinite before.
        is_probe: whether it exceeds a named limit to probe whether that still holds.
    """

    flow: Flow
    key: Key | None
    want: int
    least: int
    deadline: float = math.inf
    certain: int = 0
    pause: KnownPause | None = None
    tokens: int = 0
    at: float = math.inf
    is_probe: bool = False

    @property
    def is_granted(self) -> bool:
        """Whether it was granted."""
        return self.at < math.inf

    def __repr__(self) -> str:
        return f"<Permit of {self.tokens} tokens>"
