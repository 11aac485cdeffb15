"""A token limit that is found by trial, because the service does not name it; whether it refills evenly."""

from __future__ import annotations

import math

import msgspec

CUT = 0.92
"""A rejection cuts a found limit to this fraction of its value, or to the tokens accepted in the last window if they are
fewer, but not below half. Source of this and the next numbers: `benchmarks/quota_simulation.py`."""

GROWTH = 0.02
"""Relative growth of a found limit per window in which work waits for it. After `CALM` windows without a rejection, the
growth doubles with each further window, in case the service has raised the limit."""

CALM = 5
"""See `GROWTH`."""

GROWTH_REQUESTS = 1.4
"""Additional growth per window, in requests. It is the same for all clients of a quota, so that their shares converge."""

DEEP_CUT = 0.8
"""If a found limit is cut to less than this fraction of its former value, its growth is multiplied by `RETURN` with each
further window until the limit is back at that value, because the reason for so deep a cut may be temporary."""

RETURN = 40.0
"""See `DEEP_CUT`."""

FADING = 0.98
"""Factor per window by which the remembered former value of a found limit decays."""

EVEN_GROWTH = 0.06
"""Relative growth of a found limit that refills evenly, per window in which work waits for it. It is more than `GROWTH`,
because evenly spaced requests are rejected one at a time. After `EVEN_CALM` windows without a rejection, the growth doubles
with each further window. Source: `benchmarks/unnamed_limits.py`."""

EVEN_CALM = 2
"""See `EVEN_GROWTH`."""

FORGOTTEN = 64
"""Growth factor at which a found limit is dropped."""

CAME_FREE = 2
"""How often tokens must come free soon after a rejection, within the first window, for the limit to count as refilling
evenly; a limit by windows resets only once in that time."""

SOON = 1 / 4
"""Fraction of a window that counts as soon; tokens for a request of a fourth of the limit refill in that time."""

MEASURED = 8
"""Number of requests over which the refill rate is measured; with half as many, some clients start at half the rate.
Source: `benchmarks/unnamed_limits.py`."""


class AdaptiveLimit(msgspec.Struct):
    """A found limit on tokens per window, if there is one, with additive increase and multiplicative decrease.

    Attributes:
        length: length of a window in seconds.
        exists: whether there is a found limit.
        is_guess: whether it was found in less than a window, so that it may be far too low.
        is_even: whether it refills evenly.
        step: average tokens of a request.
    """

    length: float
    exists: bool = False
    is_guess: bool = False
    is_even: bool = False
    step: float = 0.0
    # Value when the limit was last set; infinite if there is none.
    _tokens: float = math.inf
    # Windows in which work waited for tokens, since the limit was last set.
    _grown: float = 0.0
    _at: float = -math.inf
    # Value of the limit before the last cuts.
    _before: float = 0.0

    @property
    def tokens(self) -> float:
        """Tokens per window; infinite if there is no found limit."""
        if not self.exists:
            return math.inf
        windows = self._grown
        calm = EVEN_CALM if self.is_even else CALM
        rate = windows + math.pow(2, min(windows - calm, 60)) - math.pow(2, -calm)
        if self.is_even:
            return self._tokens * (1 + EVEN_GROWTH * rate)
        grown = self._tokens * (1 + GROWTH * rate) + GROWTH_REQUESTS * self.step * windows
        if self._tokens < DEEP_CUT * self._before:
            # Up to the former value only, because a client that was cut by chance must not take the shares of others.
            returned = self._tokens * (1 + GROWTH * (math.pow(RETURN, min(windows, 20)) - 1))
            grown = max(grown, min(returned, self._before))
        return grown

    @property
    def is_outgrown(self) -> bool:
        """Whether the limit has grown so much that it should be dropped."""
        return self.tokens > FORGOTTEN * self._tokens

    def grow(self, seconds: float) -> None:
        """Grow for `seconds` in which work waited for tokens."""
        self._grown += seconds / self.length

    def accepted(self, tokens: int) -> None:
        """Record the tokens of an accepted request."""
        self.step = tokens if not self.step else 0.9 * self.step + 0.1 * tokens

    def find(self, tokens: float, now: float, *, is_guess: bool, is_even: bool = False) -> None:
        """Start a limit of `tokens` per window, refilled all at once or evenly."""
        self.exists, self.is_guess, self.is_even = True, is_guess, is_even
        self._tokens, self._grown, self._at = tokens, 0.0, now

    def cut(self, limit: float, got: float, least: float, now: float) -> None:
        """Cut the limit after a rejection.

        Args:
            limit: the limit in force until now.
            got: tokens accepted in the last window.
            least: lower bound of the new limit.
            now: the time.
        """
        if self.is_even:
            # At least this much was refilled in the last window, even if less was accepted.
            got = limit
        held = min(limit, max(got, CUT * limit))
        self._before = max(held, self._before * FADING ** ((now - self._at) / self.length))
        self.find(max(min(got, CUT * limit), limit / 2, least), now, is_guess=self.is_guess, is_even=self.is_even)

    def hold_at_least(self, tokens: float) -> None:
        """Raise the limit to at least `tokens`, which were accepted in a window."""
        self._tokens = max(self._tokens, tokens)

    def forget(self) -> None:
        """Drop the limit."""
        self.exists = self.is_guess = self.is_even = False
        self._tokens = math.inf


class Refill(msgspec.Struct):
    """Detects from the first rejections whether a limit refills evenly, and how fast.

    A client that knows no limit sends until it is rejected, pauses, sends one request, and resumes if that is accepted.
    A limit by windows rejects everything until the next window begins; a bucket soon has tokens for another request.

    Attributes:
        length: length of a window in seconds.
    """

    length: float
    _came_free: int = 0
    # Time of the first rejection, and the tokens accepted by then.
    _since: float = math.inf
    _total: int = 0
    # Time of the last rejection, and the tokens of that request.
    _at: float = -math.inf
    _tokens: int = 0

    def rejected(self, tokens: int, total: int, now: float) -> None:
        """Record a rejected request of `tokens`, and the total accepted so far."""
        if math.isinf(self._since):
            self._since, self._total = now, total
        self._at, self._tokens = now, tokens

    def accepted(self, tokens: int, now: float) -> None:
        """Record an acceptance after the pause; ignored for a much smaller request, which may have fitted into the rest."""
        self._came_free += now - self._at <= SOON * self.length and 2 * tokens >= self._tokens

    def reset(self) -> None:
        """Forget everything."""
        self._came_free, self._since = 0, math.inf

    def tokens(self, total: int, now: float, *, least: float) -> float | None:
        """Tokens refilled per window, if the limit refills evenly and at least `least` came since the first rejection."""
        if self._came_free < CAME_FREE or now <= self._since or total - self._total < least:
            return None
        return max(float(self._tokens), (total - self._total) / (now - self._since) * self.length)
