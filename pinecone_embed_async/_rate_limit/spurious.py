"""Detection of spurious rejections, which name no limit and are not due to a token limit."""

from __future__ import annotations

import math
from collections import deque

import msgspec

SOON = 1 / 12
"""Fraction of a window within which sending must resume for a rejection to count as spurious. After that, enough tokens may
have come free for a token limit to be the reason."""

ACCEPTED_PER_SPURIOUS = 50
"""Number of requests that must be accepted, on average, before another rejection may count as spurious. A found limit that
is slightly too high also causes lone rejections, but more of them. Source: `benchmarks/unnamed_limits.py`, in which one
request in 500 is rejected spuriously, and the cases without text in `benchmarks/quota_simulation.py`."""

MOST_SPURIOUS = 4
"""Maximum number of spurious rejections in a row."""

REMEMBERED = 64
"""Number of acceptances to remember, including those beside a rejection."""


class SpuriousRejections(msgspec.Struct):
    """Distinguishes spurious rejections from those due to a token limit, which continue until tokens come free.

    A rejection that names no limit is spurious if the requests sent beside it were accepted, and if the first request after
    the pause is accepted soon. A request beside it counts only if it has at least half as many tokens. Spurious rejections
    must be few compared with acceptances.

    Attributes:
        length: length of a window in seconds.
    """

    length: float
    _allowed: float = 1.0
    # Sending times and tokens of the last accepted requests.
    _recent: deque[tuple[float, int]] = msgspec.field(default_factory=lambda: deque(maxlen=REMEMBERED))
    # The suspected burst: the number of rejections, and sending time, answer time and tokens of the first.
    _rejected: int = 0
    _sent: float = -math.inf
    _at: float = -math.inf
    _tokens: int = 0

    def accepted(self, sent: float, tokens: int) -> None:
        """Record an acceptance."""
        self._recent.append((sent, tokens))
        self._allowed = min(MOST_SPURIOUS, self._allowed + 1 / ACCEPTED_PER_SPURIOUS)

    def begin(self, sent: float, tokens: int, now: float) -> None:
        """Record the first rejection of a burst."""
        self._rejected, self._sent, self._at, self._tokens = 1, sent, now, tokens

    def add(self, sent: float) -> None:
        """Record a further rejection of the burst."""
        if self._rejected:
            self._rejected += 1
            self._sent = min(self._sent, sent)

    def rule_out(self) -> None:
        """Record that the burst was due to a limit, because another burst followed or the message said so."""
        self._rejected = 0

    def are_likely(self, now: float) -> bool:
        """Whether the burst looks spurious from the requests sent beside it, as long as it is recent enough to tell."""
        is_judged = 0 < self._rejected <= self._allowed and now - self._at <= SOON * self.length
        are_beside = (sent >= self._sent and 2 * tokens >= self._tokens for sent, tokens in self._recent)
        return is_judged and self._rejected <= sum(are_beside)

    def judge(self, now: float) -> bool:
        """Whether the burst was spurious; call it once, when the first request after the pause was accepted."""
        is_spurious = self.are_likely(now)
        self._allowed -= self._rejected if is_spurious else 0
        self._rejected = 0
        return is_spurious
