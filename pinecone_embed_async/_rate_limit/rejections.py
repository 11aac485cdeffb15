"""What rejections mean: the limit that a message names, or none, as spurious rejections do."""

from __future__ import annotations

import math
import re
from collections import deque
from typing import Literal, get_args

import msgspec

# Source: the documented messages for tokens per minute and requests per second. The message for requests per minute is not
# documented and is assumed to be similar.
LimitKind = Literal["tokens per minute", "requests per second", "requests per minute"]
"""The kind of a limit, as messages name it. Tokens count for a model and an input type, requests for all together."""

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


class NamedLimit(msgspec.Struct, frozen=True):
    """A limit named by a rejection.

    Attributes:
        kind: kind of the limit.
        limit: value of the limit.
    """

    kind: LimitKind
    limit: int


def named_limit(message: str) -> NamedLimit | None:
    """The limit named in a rejection's message; `None` if it names no known kind of limit, or a limit of 0."""
    for kind in get_args(LimitKind):
        found = re.search(rf"\b{kind} \((\d{{1,15}})\)", message)
        if found is not None and int(found[1]) > 0:
            return NamedLimit(kind, int(found[1]))
    return None


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
