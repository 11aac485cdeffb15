"""The window of a limit: the amounts that the service may count at a given time."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.forecast import Forecast

RESOLUTION = 1024
"""Approximate maximum number of entries of a window: amounts settled within a 1024th of a window form one entry, which
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
    amount: int


class Window:
    """Amounts that count against a limit for `length` seconds each.

    The service counts a request when it arrives, at some time between its sending and its response. So an amount counts from
    its reservation until `length` seconds after the response. Whatever the latency, no window of that length at the service,
    fixed or sliding, holds more than was counted here at some time.

    Amounts are integers, so that sums are exact.

    Args:
        length: length in seconds.

    Attributes:
        length: length in seconds.
        reserved: sum of the amounts without a response; to be changed when one is sent, cut or taken back.
        settled: sum of the amounts whose response came less than `length` seconds ago, as of the last call of `used`.
    """

    def __init__(self, length: float) -> None:
        self.length = length
        self._log: deque[_Entry] = deque()
        # For each part, the end of its first entry and the total settled before it.
        self._marks: deque[tuple[float, int]] = deque()
        # The total settled that no longer counts.
        self._freed = self.reserved = self.settled = 0

    def settle(self, reserved: int, amount: int, now: float) -> None:
        """Count `amount` in place of `reserved`, until `length` seconds from now."""
        self.reserved -= reserved
        if self._log and self._log[0].end <= now:
            self.used(now)
        if amount <= 0:
            return
        if not self._marks or now + self.length - self._marks[-1][0] >= self.length / MARKS:
            self._marks_after(now).append((now + self.length, self._freed + self.settled))
        self.settled += amount
        if self._log and now - self._log[-1].start < self.length / RESOLUTION:
            entry = self._log[-1]
            entry.end = now + self.length
            entry.amount += amount
        else:
            self._log.append(_Entry(now, now + self.length, amount))

    def used(self, now: float) -> int:
        """The sum that counts now."""
        log = self._log
        while log and log[0].end <= now:
            amount = log.popleft().amount
            self.settled -= amount
            self._freed += amount
        return self.settled + self.reserved

    def next_release(self) -> float:
        """The time at which the oldest settled amount stops counting; infinite if there is none."""
        return self._log[0].end if self._log else math.inf

    def fits_at(self, amount: int, limit: float, now: float) -> float:
        """The time at which `amount` more fits `limit`: `now` if it does, infinite if only a response can free enough."""
        over = self.used(now) + amount - limit
        if over <= 0:
            return now
        for entry in self._log:
            over -= entry.amount
            if over <= 0:
                return entry.end
        return math.inf

    def full_until(self, amount: int, limit: float, now: float) -> float:
        """Until when `amount` more exceeds `limit` even if all reserved amounts are released; `now` if it may fit."""
        # An amount above the limit counts as the limit, for which everything settled must be released.
        return self.fits_at(int(min(amount, limit)) - self.reserved, limit, now)

    def kept(self, forecast: Forecast, now: float) -> float:
        """The amount to keep free now so that the forecast demand fits when it comes, given what comes free by then."""
        self.used(now)
        most_of_all = forecast.within(self.length)
        most = max(0.0, most_of_all - self.settled)
        for end, before in self._marks_after(now):
            freed = before - self._freed
            if most_of_all - freed <= most:
                break
            most = max(most, forecast.within(end - now) - freed)
        return most

    def fits_beside_at(self, amount: int, limit: float, forecast: Forecast, now: float) -> float:
        """The time at which `amount` more fits `limit` beside the forecast; infinite if only a response can free enough."""
        fits = self.fits_at(amount, limit, now)
        left = limit - self.reserved - self.settled - amount
        most_of_all = forecast.within(self.length)
        if math.isinf(fits) or left + self.settled < most_of_all:
            return math.inf
        when = fits
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
