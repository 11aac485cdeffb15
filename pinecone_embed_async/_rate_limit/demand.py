"""Demand of interactive calls, from which their future demand is forecast."""

from __future__ import annotations

import math

from pinecone_embed_async._rate_limit.forecast import Forecast
from pinecone_embed_async._rate_limit.window import Window

DEVIATIONS = 4.0
"""Tokens are kept for the interactive demand of the last window plus this many standard deviations, because demand varies
from window to window. Source: `interactive_beside_bulk` in tests/rate_limit/test_forecast.py. Without a margin, the 99th
percentile of waits is 1.6 to 5 seconds (in twelve seeds); with a margin of two or three deviations it is at most 1.4 seconds
(in forty seeds), with four at most 0.4."""

KEPT_AT_MOST = 0.5
"""Maximum fraction of a limit to keep. Interactive calls that need more share it with bulk work, which is served by
ageing."""

RESOLUTION = 64
"""Approximate number of parts of a window in which demand is summed."""


class Demand:
    """Demand of interactive calls in the last window.

    Calls are modelled as a Poisson process, in which the variance of the sum is the sum of the squares.

    Args:
        length: length of the window in seconds.

    Attributes:
        waiting: tokens of waiting requests. One that is withdrawn waits no more, though its demand still counts.
    """

    def __init__(self, length: float) -> None:
        self.waiting = 0
        self._tokens, self._squares = Window(length, RESOLUTION), Window(length, RESOLUTION)

    def asked(self, tokens: int, now: float) -> None:
        """Record that a request asks for a permit."""
        self._tokens.add(tokens, now)
        self._squares.add(tokens**2, now)

    def cut(self, wanted: int, tokens: int) -> None:
        """Record that a request is sent, perhaps with fewer tokens; those that were cut off are requested again."""
        self._tokens.correct(tokens - wanted)
        self._squares.correct(tokens**2 - wanted**2)

    def forecast(self, limit: float, now: float) -> Forecast | None:
        """The forecast of demand on a limit; `None` if none is expected."""
        tokens = max(0, self._tokens.used(now))
        if not tokens and not self.waiting:
            return None
        length = self._tokens.length
        # Both at least one, because they are divisors.
        spread = DEVIATIONS * math.sqrt(max(1, self._squares.used(now)) / length)
        over_at = math.inf if self.waiting else self._tokens.over_at
        return Forecast(self.waiting, max(1, tokens) / length, spread, tokens, KEPT_AT_MOST * limit, over_at)

    def is_over_share(self, limit: float, now: float) -> bool:
        """Whether interactive calls ask for more than may be kept for them."""
        return self.waiting + self._tokens.used(now) > KEPT_AT_MOST * limit
