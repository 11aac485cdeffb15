"""Whether a rejection that names no limit was one of tokens at all, or a stray one."""

from __future__ import annotations

import math
from collections import deque

SOON = 1 / 12
"""Part of a window within which sending has to go on after a rejection that is taken for a stray one: later, so much may
have come free that a limit of tokens may have been the reason."""

ACCEPTED_PER_STRAY = 50
"""Accepted requests for which one rejection may be taken for a stray one. A found limit that is a little too high is met by
lone rejections too, only more of them. Source: `benchmarks/unnamed_limits.py`, in which one in 500 is stray, and the cases
without text of `benchmarks/quota_simulation.py`."""

MOST_STRAYS = 4
"""So many at most that may be taken for stray ones in a row."""

REMEMBERED = 64
"""The last so many acceptances are remembered: those beside a rejection are among them."""


class Strays:
    """Tells stray rejections from those for a limit of tokens, which go on until something comes free.

    A rejection that names no limit is a stray one if the requests that were sent beside it were accepted, and soon the first
    one behind the pause as well. Only requests of about its size count, and there may be few strays beside what is accepted.

    Args:
        length: seconds of a window.
    """

    __slots__ = ("_allowed", "_at", "_length", "_recent", "_rejected", "_sent", "_tokens")

    def __init__(self, length: float) -> None:
        self._length = length
        self._allowed = 1.0
        # When the last accepted requests were sent, and their tokens.
        self._recent: deque[tuple[float, int]] = deque(maxlen=REMEMBERED)
        # The burst of rejections that is judged: how many, when the first was sent and answered, and its tokens.
        self._rejected = 0
        self._sent = self._at = -math.inf
        self._tokens = 0

    def __repr__(self) -> str:
        return f"<Strays {self._rejected} under suspicion, {self._allowed:.1f} allowed>"

    def accepted(self, sent: float, tokens: int) -> None:
        """Note an acceptance."""
        self._recent.append((sent, tokens))
        self._allowed = min(MOST_STRAYS, self._allowed + 1 / ACCEPTED_PER_STRAY)

    def begin(self, sent: float, tokens: int, now: float) -> None:
        """Note the first rejection of a burst."""
        self._rejected, self._sent, self._at, self._tokens = 1, sent, now, tokens

    def add(self, sent: float) -> None:
        """Note a further rejection of the burst."""
        if self._rejected:
            self._rejected += 1
            self._sent = min(self._sent, sent)

    def dismiss(self) -> None:
        """Note that the burst was for a limit, for another one followed or it said so."""
        self._rejected = 0

    def are_likely(self, now: float) -> bool:
        """Say whether the burst looks stray by what was sent beside it, while that can still be told."""
        is_judged = 0 < self._rejected <= self._allowed and now - self._at <= SOON * self._length
        return is_judged and self._rejected <= self._accepted_beside()

    def judge(self, now: float) -> bool:
        """Say, as the first request behind the pause was accepted, whether the burst was stray; it is judged once."""
        is_stray = self.are_likely(now)
        self._allowed -= self._rejected if is_stray else 0
        self._rejected = 0
        return is_stray

    def _accepted_beside(self) -> int:
        return sum(sent >= self._sent and 2 * tokens >= self._tokens for sent, tokens in self._recent)
