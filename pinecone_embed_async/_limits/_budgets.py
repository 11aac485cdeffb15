"""What is kept for each model and input type, and for how many of them."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

import msgspec

from pinecone_embed_async._limits._reserve import Demand

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async._limits._queue import Flow
    from pinecone_embed_async._limits._tokens import TokenLimit

Key = tuple[str, str]
"""What tokens are counted for: a model and an input type."""

KEYS_KEPT = 256
"""Models and input types of which is kept what was learned, though nothing is under way or counts any more. A service has
a few; more come only if a program takes input types from its own callers."""


TURNS_KEPT = 8
"""Turns of a limit that are remembered for the moment until the next request of the same flow comes: more flows than that
do not take turns within so short a time."""


class Budget(msgspec.Struct, eq=False):
    """What is known of the tokens of a model and input type, and who wants them.

    Attributes:
        limit: of its tokens.
        demand: of interactive calls.
        waiting: requests that wait for their turn.
        turns: the last turns that were given: when, and of which flow.
    """

    limit: TokenLimit
    demand: Demand
    waiting: int = 0
    turns: deque[tuple[float, Flow[Any]]] = msgspec.field(default_factory=lambda: deque(maxlen=TURNS_KEPT))

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be sent too early or lost if it were forgotten, but for what was learned."""
        limit = self.limit
        if self.waiting or limit.in_flight or now < limit.paused_until:
            return False
        # Where no limit is known, nothing is compared with what counts.
        return math.isinf(limit.limit) or not limit.window.used(now)


class Budgets(OrderedDict[Key, Budget]):
    """The budgets by what their tokens are counted for, made where none is kept.

    Those that were not asked for longest come first; idle ones beyond `KEYS_KEPT` are forgotten.

    Args:
        make: makes the limit of a model and input type that nothing is kept of.
        window: seconds of a window.
    """

    def __init__(self, make: Callable[[Key], TokenLimit], window: float) -> None:
        super().__init__()
        self._make = make
        self._window = window

    def __repr__(self) -> str:
        return f"<Budgets of {len(self)}>"

    def __missing__(self, key: Key) -> Budget:
        budget = self[key] = Budget(self._make(key), Demand(self._window))
        return budget

    def touch(self, key: Key, now: float) -> Budget:
        """That of a model and input type that is asked for now; what has been idle longest may be forgotten for it."""
        budget = self[key]
        self.move_to_end(key)
        # One more than comes, so that it gets fewer after there were too many that were not idle; never all of them.
        for _ in range(2):
            if len(self) <= KEYS_KEPT:
                break
            oldest, other = next(iter(self.items()))
            if other.is_idle(now):
                del self[oldest]
            else:
                self.move_to_end(oldest)
        return budget
