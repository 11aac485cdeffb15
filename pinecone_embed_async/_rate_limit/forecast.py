"""Forecast of interactive demand; bulk work leaves that part of a known limit free."""

from __future__ import annotations

import math
from collections import deque

import msgspec

DEVIATIONS = 4.0
"""Tokens are kept for the interactive demand of the last window plus this many standard deviations, because demand varies
from window to window. Source: `interactive_beside_bulk` in tests/rate_limit/test_forecast.py. Without a margin, the 99th
percentile of waits is 1.6 to 5 seconds (in twelve seeds); with a margin of two or three deviations it is at most 1.4 seconds
(in forty seeds), with four at most 0.4."""

KEPT_AT_MOST = 0.5
"""Maximum fraction of a limit to keep. Interactive calls that need more share it with bulk work, which is served by
ageing."""

RESOLUTION = 64
"""Number of parts of a window; demand is summed per part."""


class Forecast(msgspec.Struct, frozen=True):
    """Expected demand of interactive calls: waiting requests, a rate, and a margin that grows with the square root of time.

    Attributes:
        waiting: tokens of waiting requests.
        rate: tokens per second.
        spread: margin for the first second, in tokens.
        surplus: maximum margin, in tokens.
        most: maximum number of tokens in total.
        over_at: time after which no demand is expected unless a request comes; infinite while one waits.
    """

    waiting: int
    rate: float
    spread: float
    surplus: float
    most: float
    over_at: float

    def within(self, seconds: float) -> float:
        """Tokens expected within `seconds` from now."""
        margin = min(self.spread * math.sqrt(seconds), self.surplus)
        return min(self.waiting + self.rate * seconds + margin, self.most)

    def lasts(self, tokens: float) -> float:
        """Seconds for which `tokens` are enough."""
        if tokens >= self.most:
            return math.inf
        left = tokens - self.waiting
        if left <= 0:
            return 0.0
        # The solution of rate * seconds + spread * sqrt(seconds) = left.
        root = (math.sqrt(self.spread**2 + 4 * self.rate * left) - self.spread) / (2 * self.rate)
        return max(root**2, (left - self.surplus) / self.rate)


class _Part(msgspec.Struct):
    start: float
    end: float
    tokens: int
    squares: int


class Demand(msgspec.Struct):
    """Demand of interactive calls in the last window.

    Calls are modelled as a Poisson process, in which the variance of the sum is the sum of the squares.

    Attributes:
        length: length of the window in seconds.
        waiting: tokens of waiting requests. One that is withdrawn waits no more, though its demand still counts.
    """

    length: float
    waiting: int = 0
    _parts: deque[_Part] = msgspec.field(default_factory=deque)
    _tokens: int = 0
    _squares: int = 0

    def asked(self, tokens: int, now: float) -> None:
        """Record that a request asks for a permit."""
        self._drop(now)
        if not self._parts or now - self._parts[-1].start >= self.length / RESOLUTION:
            self._parts.append(_Part(now, now, 0, 0))
        self._parts[-1].end = now + self.length
        self._count(tokens, tokens**2)

    def cut(self, wanted: int, tokens: int) -> None:
        """Record that a request is sent, perhaps with fewer tokens; those that were cut off are requested again."""
        if tokens < wanted and self._parts:
            self._count(tokens - wanted, tokens**2 - wanted**2)

    def forecast(self, limit: float, now: float) -> Forecast | None:
        """The forecast of demand on a limit; `None` if none is expected."""
        self._drop(now)
        tokens = max(0, self._tokens)
        if not tokens and not self.waiting:
            return None
        # Both at least one, because they are divisors.
        spread = DEVIATIONS * math.sqrt(max(1, self._squares) / self.length)
        over_at = math.inf if self.waiting else self._parts[-1].end
        return Forecast(self.waiting, max(1, tokens) / self.length, spread, tokens, KEPT_AT_MOST * limit, over_at)

    def is_over_share(self, limit: float, now: float) -> bool:
        """Whether interactive calls ask for more than may be kept for them."""
        self._drop(now)
        return self.waiting + self._tokens > KEPT_AT_MOST * limit

    def _count(self, tokens: int, squares: int) -> None:
        self._parts[-1].tokens += tokens
        self._parts[-1].squares += squares
        self._tokens += tokens
        self._squares += squares

    def _drop(self, now: float) -> None:
        while self._parts and self._parts[0].end <= now:
            part = self._parts.popleft()
            self._tokens -= part.tokens
            self._squares -= part.squares
