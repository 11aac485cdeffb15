"""Forecast of interactive demand; bulk work leaves that part of a known limit free."""

from __future__ import annotations

import math

import msgspec


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
