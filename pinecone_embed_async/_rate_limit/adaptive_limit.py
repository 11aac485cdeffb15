"""A token limit that the service does not name, found by trial."""

from __future__ import annotations

import math

CUT = 0.92
"""Factor by which a rejection cuts a found limit. Source of this and the next figures: `benchmarks/quota_simulation.py`."""

GROWTH = 0.02
"""Relative growth of a found limit per window in which work waits for it. After `CALM` windows without a rejection it
doubles with each, so that a raised limit is found."""

CALM = 5
"""See `GROWTH`."""

GROWTH_REQUESTS = 1.4
"""Additional growth per window, in requests: the same for all clients of a quota, so that their shares converge."""

DEEP_CUT = 0.8
"""A found limit cut to less than this fraction of its former value grows by `RETURN` times as much in each further window,
up to that value: a cut that deep may be temporary."""

RETURN = 40.0
"""See `DEEP_CUT`."""

FADING = 0.98
"""Factor by which the remembered former value of a found limit decays per window."""

EVEN_GROWTH = 0.06
"""Relative growth of a found limit that refills evenly, per window in which work waits for it. More than `GROWTH`: requests
are sent evenly, so that an excess one is rejected alone. After `EVEN_CALM` windows without a rejection it doubles with
each. Source: `benchmarks/unnamed_limits.py`."""

EVEN_CALM = 2
"""See `EVEN_GROWTH`."""

FORGOTTEN = 64
"""A found limit that has grown by this factor is dropped."""


class AdaptiveLimit:
    """Additive increase, multiplicative decrease of the tokens per window, while there is such a limit.

    Args:
        length: length of a window in seconds.
    """

    __slots__ = ("_at", "_before", "_grown", "_is_even", "_is_guess", "_length", "_step", "_tokens")

    def __init__(self, length: float) -> None:
        self._length = length
        self._tokens: float | None = None
        self._is_guess = False
        self._is_even = False
        # Windows since it was found in which work waited for tokens.
        self._grown = 0.0
        self._at = -math.inf
        # Average tokens of a request.
        self._step = 0.0
        # Its value before the last cuts.
        self._before = 0.0

    def __repr__(self) -> str:
        return f"<AdaptiveLimit {self.tokens:.0f}{', a guess' if self.is_guess else ''}>"

    @property
    def exists(self) -> bool:
        """Whether there is such a limit."""
        return self._tokens is not None

    @property
    def is_guess(self) -> bool:
        """Whether it was found within less than a window, so that it may be far too low."""
        return self._is_guess and self.exists

    @property
    def is_even(self) -> bool:
        """Whether it refills evenly."""
        return self._is_even and self.exists

    @property
    def step(self) -> float:
        """Average tokens of a request."""
        return self._step

    @property
    def tokens(self) -> float:
        """Tokens per window; infinite if there is no such limit."""
        if self._tokens is None:
            return math.inf
        windows = self._grown
        calm = EVEN_CALM if self._is_even else CALM
        rate = windows + math.pow(2, min(windows - calm, 60)) - math.pow(2, -calm)
        if self._is_even:
            return self._tokens * (1 + EVEN_GROWTH * rate)
        grown = self._tokens * (1 + GROWTH * rate) + GROWTH_REQUESTS * self._step * windows
        if self._tokens < DEEP_CUT * self._before:
            # Not beyond its former value: a client cut by chance would take the shares of others, too.
            returned = self._tokens * (1 + GROWTH * (math.pow(RETURN, min(windows, 20)) - 1))
            grown = max(grown, min(returned, self._before))
        return grown

    @property
    def is_outgrown(self) -> bool:
        """Whether it has grown so much that it should be dropped."""
        return self._tokens is not None and self.tokens > FORGOTTEN * self._tokens

    def grow(self, seconds: float) -> None:
        """Grow by the seconds for which work waited for tokens."""
        self._grown += seconds / self._length

    def accepted(self, tokens: int) -> None:
        """Record the tokens of an accepted request."""
        self._step = tokens if not self._step else 0.9 * self._step + 0.1 * tokens

    def find(self, tokens: float, now: float, *, is_guess: bool, is_even: bool = False) -> None:
        """Start with so many tokens per window, refilled all at once or evenly."""
        self._is_guess = is_guess
        self._is_even = is_even
        self._set(tokens, now)

    def cut(self, limit: float, got: float, least: float, now: float) -> None:
        """Cut the limit after a rejection.

        Args:
            limit: the limit in force until now.
            got: tokens accepted in the last window.
            least: lower bound of the new limit.
            now: the time.
        """
        if self._is_even:
            # Whatever was accepted in the last window, at least this much was refilled in it.
            got = limit
        held = min(limit, max(got, CUT * limit))
        self._before = max(held, self._before * FADING ** ((now - self._at) / self._length))
        self._set(max(min(got, CUT * limit), limit / 2, least), now)

    def hold_at_least(self, tokens: float) -> None:
        """Raise the limit to the tokens that were accepted in a window after all."""
        if self._tokens is not None:
            self._tokens = max(self._tokens, tokens)

    def confirm(self) -> None:
        """Treat the limit as more than a guess."""
        self._is_guess = False

    def doubt_evenness(self) -> None:
        """Treat the limit as refilled all at once."""
        self._is_even = False

    def forget(self) -> None:
        """Drop the limit."""
        self._tokens = None

    def _set(self, tokens: float, now: float) -> None:
        self._tokens = tokens
        self._grown = 0.0
        self._at = now
