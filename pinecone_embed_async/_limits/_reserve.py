"""How much of a known limit bulk work leaves free for the interactive calls that are likely to come."""

from __future__ import annotations

import math
from collections import deque

import msgspec

DEVIATIONS = 4.0
"""Calls that come at random ask for more in one window than in the other: kept is what they asked for in the last one and
so many standard deviations. Source: `interactive_beside_bulk` in tests/limits/test_reserve.py: without them one text in a
hundred waits for 1.6 to 5 seconds in twelve seeds, with two or three for up to 1.4 in forty, with four for up to 0.4."""

KEPT_AT_MOST = 0.5
"""Part of a limit that is kept at most. Whoever asks for more shares with bulk work, which has a turn by ageing then."""

RESOLUTION = 64
"""Parts of a window in which what was asked for is summed up."""


class Forecast(msgspec.Struct, frozen=True):
    """What interactive calls are likely to ask for: what waits, a rate, and a margin that grows with the root of time.

    Attributes:
        waiting: tokens of those that wait.
        rate: tokens in a second.
        spread: the margin for the first second.
        surplus: the margin at most.
        most: tokens in all at most.
        over_at: when nothing is to be expected any more, if nobody asks again; infinite while somebody waits.
    """

    waiting: int
    rate: float
    spread: float
    surplus: float
    most: float
    over_at: float

    def within(self, seconds: float) -> float:
        """Tokens for the time until so many seconds from now."""
        margin = min(self.spread * math.sqrt(seconds), self.surplus)
        return min(self.waiting + self.rate * seconds + margin, self.most)

    def lasts(self, tokens: float) -> float:
        """Seconds for which so many tokens will do."""
        if tokens >= self.most:
            return math.inf
        left = tokens - self.waiting
        if left <= 0:
            return 0.0
        # Where rate * seconds + spread * sqrt(seconds) is what is left.
        root = (math.sqrt(self.spread**2 + 4 * self.rate * left) - self.spread) / (2 * self.rate)
        return max(root**2, (left - self.surplus) / self.rate)


class _Part(msgspec.Struct):
    start: float
    end: float
    tokens: int
    squares: int


class Demand:
    """What interactive calls asked for in the last window.

    Calls that come at random are a Poisson process, in which the variance of the sum is the sum of the squares.

    Args:
        length: seconds of the window.
    """

    __slots__ = ("_length", "_parts", "_squares", "_tokens", "waiting")

    def __init__(self, length: float) -> None:
        self._length = length
        self._parts: deque[_Part] = deque()
        self._tokens = self._squares = 0
        self.waiting = 0

    def __repr__(self) -> str:
        return f"<Demand of {self._tokens} tokens in {self._length:g} s, {self.waiting} waiting>"

    def asked(self, tokens: int, now: float) -> None:
        """Note that a request asks for its turn."""
        self._drop(now)
        self.waiting += tokens
        if not self._parts or now - self._parts[-1].start >= self._length / RESOLUTION:
            self._parts.append(_Part(now, now, 0, 0))
        self._parts[-1].end = now + self._length
        self._count(tokens, tokens**2)

    def granted(self, wanted: int, tokens: int) -> None:
        """Note that a request goes; it will ask again for what it was cut by."""
        self.waiting -= wanted
        if tokens < wanted and self._parts:
            self._count(tokens - wanted, tokens**2 - wanted**2)

    def withdrawn(self, tokens: int) -> None:
        """Note that a request waits no more; that it would have needed them stands."""
        self.waiting -= tokens

    def forecast(self, limit: float, now: float) -> Forecast | None:
        """What is to be expected of a limit; `None` if nothing is."""
        self._drop(now)
        tokens = max(0, self._tokens)
        if not tokens and not self.waiting:
            return None
        # Each at least one, for the sake of dividing.
        spread = DEVIATIONS * math.sqrt(max(1, self._squares) / self._length)
        over_at = math.inf if self.waiting else self._parts[-1].end
        return Forecast(self.waiting, max(1, tokens) / self._length, spread, tokens, KEPT_AT_MOST * limit, over_at)

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
