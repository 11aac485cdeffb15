"""Token budgets, one per model and input type."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._rate_limit.demand import Demand
from pinecone_embed_async._rate_limit.quota import Key, LimiterOptions
from pinecone_embed_async._rate_limit.token_limit import TokenLimit

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.permit import Flow, LimiterPermit

KEYS_KEPT = 256
"""Maximum number of budgets (models and input types) to keep while they are idle. A service has only a few; there are more
only if a program takes input types from its own callers."""

PERMITS_KEPT = 8
"""Number of recent permits to remember per limit. A permit matters only until the next request of its flow comes, and no
more flows than this are served within such a short time."""


class Budget(msgspec.Struct, eq=False):
    """The token limit of a model and input type, and the demand for it.

    Attributes:
        limit: token limit.
        demand: demand of interactive calls.
        waiting: number of requests waiting for a permit.
        permits: the last permits granted, with time and flow.
    """

    limit: TokenLimit
    demand: Demand
    waiting: int = 0
    permits: deque[tuple[float, Flow]] = msgspec.field(default_factory=lambda: deque(maxlen=PERMITS_KEPT))

    def count(self, permit: LimiterPermit, change: int) -> None:
        """Count one more request that waits (`change` 1), or one fewer (-1)."""
        self.waiting += change
        if permit.flow.priority == "interactive":
            self.demand.waiting += change * permit.want

    def sent(self, permit: LimiterPermit) -> None:
        """Record that a request that waited is sent."""
        self.count(permit, -1)
        if permit.flow.priority == "interactive":
            self.demand.cut(permit.want, permit.tokens)

    def is_idle(self, now: float) -> bool:
        """Whether dropping the budget would lose only what was learned.

        That is so if no request is waiting or in flight, there is no pause, and no tokens count against a limit.
        """
        limit = self.limit
        if self.waiting or limit.in_flight or now < limit.pause.until:
            return False
        # If no limit is known, the window does not matter.
        return math.isinf(limit.limit) or not limit.used(now)


class Budgets(OrderedDict[Key, Budget]):
    """The budgets by model and input type.

    The least recently used come first; idle ones beyond `KEYS_KEPT` are dropped.
    """

    def touch(self, key: Key, options: LimiterOptions, now: float) -> Budget:
        """The budget of a key that is used now, created on demand; the least recently used one may be dropped for it."""
        budget = self.get(key)
        if budget is None:
            budget = self[key] = Budget(TokenLimit(options.window, options.tokens(key)), Demand(options.window))
        self.move_to_end(key)
        # Checks two per call, so that the number shrinks again after a time with too many busy ones, but not all at once.
        for _ in range(2):
            if len(self) <= KEYS_KEPT:
                break
            oldest, other = next(iter(self.items()))
            if other.is_idle(now):
                del self[oldest]
            else:
                self.move_to_end(oldest)
        return budget
