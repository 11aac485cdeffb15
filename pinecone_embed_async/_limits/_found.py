"""A limit of tokens that nobody names, found by trying."""

from __future__ import annotations

import math

CUT = 0.92
"""What is left of a found limit after a rejection. Source of this and the next figures: `benchmarks/quota_simulation.py`."""

GROWTH = 0.02
"""By how much a found limit grows in a window in which work waits for it. After `CALM` windows without a rejection it
doubles with each, so that a limit that was raised is found."""

CALM = 5
"""See `GROWTH`."""

GROWTH_REQUESTS = 1.4
"""What a found limit grows by beside that in a window, in requests: the same for all clients of a quota, so that their
shares meet."""

DEEP_CUT = 0.8
"""A found limit that was cut to less than this part of what it was grows by `RETURN` times as much in each further window,
up to what it was: what was cut that deep may come back."""

RETURN = 40.0
"""See `DEEP_CUT`."""

FADING = 0.98
"""What is left, after a window, of the memory of what a found limit was."""

EVEN_GROWTH = 0.06
"""By how much a found limit that refills evenly grows in a window in which work waits for it. More than `GROWTH`: requests
come evenly, so that one that is too many is rejected alone. After `EVEN_CALM` windows without a rejection it doubles with
each. Source: `benchmarks/unnamed_limits.py`."""

EVEN_CALM = 2
"""See `EVEN_GROWTH`."""

FORGOTTEN = 64
"""A found limit that has grown to so many times itself is none."""


class FoundLimit:
    """Additive increase, multiplicative decrease of the tokens in a window, while there is such a limit.

    Args:
        length: seconds of a window.
    """

    __slots__ = ("_at", "_before", "_grown", "_is_even", "_is_guess", "_length", "_step", "_tokens")

    def __init__(self, length: float) -> None:
        self._length = length
        self._tokens: float | None = None
        self._is_guess = False
        self._is_even = False
        # Windows, since it was found, in which work waited for tokens.
        self._grown = 0.0
        self._at = -math.inf
        # Tokens of a request, about.
        self._step = 0.0
        # What it was before it was cut, perhaps several times.
        self._before = 0.0

    def __repr__(self) -> str:
        return f"<FoundLimit {self.tokens:.0f}{', a guess' if self.is_guess else ''}>"

    @property
    def exists(self) -> bool:
        """Whether there is one."""
        return self._tokens is not None

    @property
    def is_guess(self) -> bool:
        """Whether it was found in less than a window, so that it may be far too low."""
        return self._is_guess and self.exists

    @property
    def is_even(self) -> bool:
        """Whether it refills evenly."""
        return self._is_even and self.exists

    @property
    def step(self) -> float:
        """Tokens of a request, about."""
        return self._step

    @property
    def tokens(self) -> float:
        """Tokens in a window; infinite if there is no such limit."""
        if self._tokens is None:
            return math.inf
        windows = self._grown
        calm = EVEN_CALM if self._is_even else CALM
        rate = windows + math.pow(2, min(windows - calm, 60)) - math.pow(2, -calm)
        if self._is_even:
            return self._tokens * (1 + EVEN_GROWTH * rate)
        grown = self._tokens * (1 + GROWTH * rate) + GROWTH_REQUESTS * self._step * windows
        if self._tokens < DEEP_CUT * self._before:
            # Not beyond what it was: whoever was cut by chance would come back for the shares of others, too.
            returned = self._tokens * (1 + GROWTH * (math.pow(RETURN, min(windows, 20)) - 1))
            grown = max(grown, min(returned, self._before))
        return grown

    @property
    def is_outgrown(self) -> bool:
        """Whether it has grown so much that it is none any more."""
        return self._tokens is not None and self.tokens > FORGOTTEN * self._tokens

    def grow(self, seconds: float) -> None:
        """Note that work waited for tokens for so long."""
        self._grown += seconds / self._length

    def accepted(self, tokens: int) -> None:
        """Note how many tokens a request had."""
        self._step = tokens if not self._step else 0.9 * self._step + 0.1 * tokens

    def find(self, tokens: float, now: float, *, is_guess: bool, is_even: bool = False) -> None:
        """Begin with so many tokens, which come a window's at once or evenly."""
        self._is_guess = is_guess
        self._is_even = is_even
        self._set(tokens, now)

    def cut(self, limit: float, got: float, least: float, now: float) -> None:
        """Lower it after a rejection.

        Args:
            limit: in force until now.
            got: tokens that were accepted in the last window.
            least: it is not lowered below this.
            now: the time.
        """
        if self._is_even:
            # Whatever was accepted in the last window, what came in it is no less than this.
            got = limit
        held = min(limit, max(got, CUT * limit))
        self._before = max(held, self._before * FADING ** ((now - self._at) / self._length))
        self._set(max(min(got, CUT * limit), limit / 2, least), now)

    def hold_at_least(self, tokens: float) -> None:
        """Note that so many were accepted in a window after all."""
        if self._tokens is not None:
            self._tokens = max(self._tokens, tokens)

    def confirm(self) -> None:
        """Take it for more than a guess."""
        self._is_guess = False

    def doubt_evenness(self) -> None:
        """Take it for one that comes a window's at once."""
        self._is_even = False

    def forget(self) -> None:
        """Have none."""
        self._tokens = None

    def _set(self, tokens: float, now: float) -> None:
        self._tokens = tokens
        self._grown = 0.0
        self._at = now
