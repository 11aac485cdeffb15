"""When it is tried whether a limit that was named still holds."""

from __future__ import annotations

import math

PROBE_WINDOWS = 4
"""Windows after which it is tried, with one request, whether a limit that was named still holds; doubled each time."""

EAGER_PROBES = 8
"""So many times it is tried after each window if a higher limit held before."""

DOUBT = 1 / 120
"""Part of a window after which it is tried again, if the last trial did not tell."""


class Trials:
    """The times at which one request may go over a limit that a rejection named.

    Args:
        length: seconds of a window.

    Attributes:
        is_under_way: whether such a request is.
    """

    __slots__ = ("_at", "_eager", "_every", "_length", "is_under_way")

    def __init__(self, length: float) -> None:
        self._length = length
        self._at = math.inf
        self._every = 0.0
        self._eager = 0
        self.is_under_way = False

    def __repr__(self) -> str:
        return f"<Trials every {self._every:g} s{', one under way' if self.is_under_way else ''}>"

    @property
    def next(self) -> float:
        """When the next may begin; infinite if none may before something is heard of the limit or of the last trial."""
        return math.inf if self.is_under_way else self._at

    def named(self, now: float, *, is_lower: bool) -> None:
        """Note that a rejection named a limit, and whether a higher one held before."""
        if is_lower:
            self._eager, self._every = EAGER_PROBES, self._length
        elif math.isinf(self._at) and self._every:
            # It was tried whether it still holds, wrongly with success: the windows had changed.
            self._every *= 2
        else:
            self._every = PROBE_WINDOWS * self._length
        self._at = now + self._every

    def held(self, now: float) -> None:
        """Note that the limit still holds: a trial was rejected."""
        if self._eager > 0:
            self._eager -= 1
        else:
            self._every *= 2
        self._at = now + self._every

    def succeeded(self) -> None:
        """Note that the limit does not hold any more: a trial went over it and was accepted."""
        self._at = math.inf

    def are_useless(self) -> None:
        """Note that a limit that was given is as low as the named one: trying whether more is allowed would gain nothing."""
        self._at = math.inf

    def told_nothing(self, now: float) -> None:
        """Note that a trial was accepted, and perhaps did not go over the limit."""
        self._at = now + self._length * DOUBT
