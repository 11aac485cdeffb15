"""The window of a limit: the amounts that the service may count at a given time."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pinecone_embed_async._rate_limit.forecast import Forecast

RESOLUTION = 1024
"""Default of the resolution of a window."""

PARTS = 64
"""Number of parts of a window; the forecast is checked at the start of each part. Hardly any demand is expected in
such a short time, and checking stays cheap regardless of the number of requests."""

CLOSE = 1e-9
"""Fraction of a window within which two times count as equal: too short for any expected tokens, and far more than rounding
errors."""


class Window:
    """Amounts that count against a limit for `length` seconds each.

    The service counts a request when it arrives, at some time between its sending and its response. So an amount counts here
    from the response on, and the owner of the window adds those in flight to it. Whatever the latency, no window of that
    length at the service, fixed or sliding, then holds more than was counted at some time.

    Amounts are integers, so that sums are exact.

    Args:
        length: length in seconds.
        resolution: approximate maximum number of entries: amounts added within such a fraction of the length form one entry,
            which expires with its latest amount. This bounds memory, and nothing expires too early.

    Attributes:
        length: length in seconds.
    """

    def __init__(self, length: float, resolution: int = RESOLUTION) -> None:
        self.length = length
        self._step = length / resolution
        # When each entry stops counting, and all that was counted up to it. The first counts no more. Times are positive.
        self._ends, self._totals = [0.0], [0]
        # When the last entry was begun.
        self._begun = -math.inf

    def add(self, amount: int, now: float) -> None:
        """Count `amount`, which is at least 1, until `length` seconds from now."""
        ends, totals = self._ends, self._totals
        if now - self._begun >= self._step:
            # This bounds the number of entries.
            over = self._oldest(now) - 1
            del ends[:over], totals[:over]
            ends.append(now)
            totals.append(totals[-1])
            self._begun = now
        ends[-1] = now + self.length
        totals[-1] += amount

    def correct(self, change: int) -> None:
        """Change the amounts added last, unless they count no more."""
        self._totals[-1] += change

    @property
    def over_at(self) -> float:
        """When the latest amount stops counting, or stopped."""
        return self._ends[-1]

    def used(self, now: float, part: float = 1.0) -> int:
        """The sum of what counts now, or only of what was added in the last `part` of a window."""
        return self._totals[-1] - self._totals[self._oldest(now + (1 - part) * self.length) - 1]

    def fits_at(self, amount: int, limit: float, now: float, part: float = 1.0) -> float:
        """The time at which `amount` more fits `limit`: `now` if it does, infinite if it never does.

        With `part`, as if each amount counted for that part of a window.
        """
        if self.used(now, part) + amount <= limit:
            return now
        place = bisect_left(self._totals, self._totals[-1] + amount - limit)
        return max(now, self._ends[place] - (1 - part) * self.length) if place < len(self._ends) else math.inf

    def kept(self, forecast: Forecast, now: float) -> float:
        """The amount to keep free now so that the forecast demand fits when it comes, given what comes free by then."""
        most_of_all, used = forecast.within(self.length), self.used(now)
        most = max(0.0, most_of_all - used)
        for end, left in self._left(now):
            freed = used - left
            if most_of_all - freed <= most:
                break
            most = max(most, forecast.within(end - now) - freed)
        return most

    def fits_beside_at(self, amount: int, limit: float, forecast: Forecast, now: float) -> float:
        """The time at which `amount` more fits `limit` beside the forecast; infinite if it never does."""
        when = fits = self.fits_at(amount, limit, now)
        most_of_all = forecast.within(self.length)
        if math.isinf(fits) or limit - amount < most_of_all:
            return math.inf
        for end, left in self._left(now):
            # What is free until then is enough for this long.
            free = limit - amount - left
            if free >= most_of_all:
                break
            when = max(when, end - forecast.lasts(free))
        # Within rounding errors, use the exact time, because the duration of a forecast is not exact.
        return when if when - now > self.length * CLOSE else fits

    def _oldest(self, now: float) -> int:
        """The place of the oldest entry that counts now."""
        return bisect_right(self._ends, now, 1)

    def _left(self, now: float) -> Iterator[tuple[float, int]]:
        """For each part of the window, when its first entry stops counting, and the sum that counts until then."""
        # Parts begin at fixed times, and one whose first entry counts no more is done. So what is found does not change
        # while nothing is counted.
        part, place = self.length / PARTS, self._oldest(now) - 1
        while True:
            place = bisect_left(self._ends, (self._ends[place] // part + 1) * part, place + 1)
            if place == len(self._ends):
                return
            yield self._ends[place], self._totals[-1] - self._totals[place - 1]
