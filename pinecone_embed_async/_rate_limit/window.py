"""The window of a limit: the amounts that the service may count at a given time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.forecast import Forecast

RESOLUTION = 1024
"""Approximate maximum number of entries of a window: amounts added within a 1024th of a window form one entry, which
expires with its latest amount. This bounds memory, and nothing expires too early."""

MARKS = 64
"""Approximate number of parts of a window; the forecast is checked at the start of each part. Hardly any demand is expected
in such a short time, and checking stays cheap regardless of the number of requests."""

CLOSE = 1e-9
"""Fraction of a window within which two times count as equal: too short for any expected tokens, and far more than rounding
errors."""


class _Entry(msgspec.Struct):
    start: float
    end: float
    # All that was counted up to here.
    total: int


class Window:
    """Amounts that count against a limit for `length` seconds each.

    The service counts a request when it arrives, at some time between its sending and its response. So an amount counts here
    from the response on, and the owner of the window adds those in flight to it. Whatever the latency, no window of that
    length at the service, fixed or sliding, then holds more than was counted at some time.

    Amounts are integers, so that sums are exact.

    Args:
        length: length in seconds.

    Attributes:
        length: length in seconds.
    """

    def __init__(self, length: float) -> None:
        self.length = length
        self._log: deque[_Entry] = deque()
        # The latest entry, even if it counts no more.
        self._last = _Entry(-math.inf, -math.inf, 0)
        # For each part, the end of its first entry and the total before it.
        self._marks: deque[tuple[float, int]] = deque()
        # The latest end of them, even if it is past.
        self._marked = -math.inf
        # How much of all that was ever counted counts no more.
        self._freed = 0

    def add(self, amount: int, now: float) -> None:
        """Count `amount`, which is at least 1, until `length` seconds from now."""
        end, last = now + self.length, self._last
        if end - self._marked >= self.length / MARKS:
            self._marks_after(now).append((end, last.total))
            self._marked = end
        if now - last.start >= self.length / RESOLUTION:
            # Entries that count no more are dropped, which bounds their number.
            self.used(now)
            last = self._last = _Entry(now, end, last.total)
            self._log.append(last)
        last.end = end
        last.total += amount

    def used(self, now: float) -> int:
        """The sum that counts now."""
        log = self._log
        while log and log[0].end <= now:
            self._freed = log.popleft().total
        return self._last.total - self._freed

    def next_release(self, now: float) -> float:
        """The time at which the oldest amount stops counting; infinite if there is none."""
        return self._log[0].end if self.used(now) else math.inf

    def fits_at(self, amount: int, limit: float, now: float) -> float:
        """The time at which `amount` more fits `limit`: `now` if it does, infinite if it never does."""
        over = self.used(now) + amount - limit
        if over <= 0:
            return now
        for entry in self._log:
            if entry.total - self._freed >= over:
                return entry.end
        return math.inf

    def kept(self, forecast: Forecast, now: float) -> float:
        """The amount to keep free now so that the forecast demand fits when it comes, given what comes free by then."""
        most_of_all = forecast.within(self.length)
        most = max(0.0, most_of_all - self.used(now))
        for end, before in self._marks_after(now):
            freed = before - self._freed
            if most_of_all - freed <= most:
                break
            most = max(most, forecast.within(end - now) - freed)
        return most

    def fits_beside_at(self, amount: int, limit: float, forecast: Forecast, now: float) -> float:
        """The time at which `amount` more fits `limit` beside the forecast; infinite if it never does."""
        when = fits = self.fits_at(amount, limit, now)
        left = limit - self.used(now) - amount
        most_of_all = forecast.within(self.length)
        if math.isinf(fits) or limit - amount < most_of_all:
            return math.inf
        for end, before in self._marks_after(now):
            # The amount left until then is enough for this long.
            left_by_then = left + before - self._freed
            if left_by_then >= most_of_all:
                break
            when = max(when, end - forecast.lasts(left_by_then))
        # Within rounding errors, use the exact time, because the duration of a forecast is not exact.
        return when if when - now > self.length * CLOSE else fits

    def _marks_after(self, now: float) -> deque[tuple[float, int]]:
        while self._marks and self._marks[0][0] <= now:
            self._marks.popleft()
        return self._marks
