"""What counts against a limit at a moment, as the service may see it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from pinecone_embed_async._limits._reserve import Forecast

RESOLUTION = 1024
"""Entries that a window keeps at most, about: what is settled within a 1024th of it counts as one entry, to the end of
the latest. That holds memory down and makes nothing leave earlier than it may."""

MARKS = 64
"""Parts of a window, about: at the beginning of each is looked whether what is expected fits until then. In so short a time
hardly anything is expected, and looking costs as little as if there were few requests."""

CLOSE = 1e-9
"""Part of a window that makes no difference between two times: less than what tokens are expected in, far more than what
is lost by adding and subtracting them."""


class _Entry(msgspec.Struct):
    start: float
    end: float
    amount: int


class Window:
    """Amounts that count against a limit for `length` seconds each.

    The service counts a request when it arrives, which is some time between its sending and its answer. So an amount counts
    from the moment it is reserved until `length` seconds after the answer: whatever the travel times, no window of that
    length at the service, fixed or sliding, holds more than was counted here at some moment.

    Amounts are whole numbers, so that sums are exact.

    Args:
        length: seconds.

    Attributes:
        reserved: amounts of what is not answered yet.
        settled: amounts of what was answered less than `length` seconds ago, as of the last look.
    """

    __slots__ = ("_freed", "_log", "_marks", "_resolution", "length", "reserved", "settled")

    def __init__(self, length: float) -> None:
        self.length = length
        self._resolution = length / RESOLUTION
        self._log: deque[_Entry] = deque()
        # When the first entry of a part stops counting, and what had been settled in all before it.
        self._marks: deque[tuple[float, int]] = deque()
        # What was settled in all and counts no more.
        self._freed = 0
        self.reserved = 0
        self.settled = 0

    def __repr__(self) -> str:
        return f"<Window {self.length:g} s, {self.reserved} reserved, {self.settled} settled>"

    def reserve(self, amount: int) -> None:
        """Count an amount until it is settled."""
        self.reserved += amount

    def settle(self, reserved: int, amount: int, now: float) -> None:
        """Count `amount` for what was reserved, until `length` seconds from now."""
        self.release(reserved)
        self.used(now)
        if amount <= 0:
            return
        if not self._marks or now + self.length - self._marks[-1][0] >= self.length / MARKS:
            self._marks_after(now).append((now + self.length, self._freed + self.settled))
        self.settled += amount
        if self._log and now - self._log[-1].start < self._resolution:
            entry = self._log[-1]
            entry.end = now + self.length
            entry.amount += amount
        else:
            self._log.append(_Entry(now, now + self.length, amount))

    def release(self, reserved: int) -> None:
        """Count no more what was reserved."""
        self.reserved -= reserved

    def used(self, now: float) -> int:
        """What counts now."""
        log = self._log
        while log and log[0].end <= now:
            amount = log.popleft().amount
            self.settled -= amount
            self._freed += amount
        return self.settled + self.reserved

    def next_release(self) -> float | None:
        """When the oldest settled amount stops counting; `None` if there is none."""
        return self._log[0].end if self._log else None

    def fits_at(self, amount: int, limit: float, now: float) -> float | None:
        """When `amount` more will be within `limit`: `now` if it is, `None` if that takes answers to what is reserved."""
        over = self.used(now) + amount - limit
        if over <= 0:
            return now
        for entry in self._log:
            over -= entry.amount
            if over <= 0:
                return entry.end
        return None

    def kept(self, forecast: Forecast, now: float) -> float:
        """What has to stay free now for what is expected to fit as it comes, counted on what comes free by then."""
        self.used(now)
        most_of_all = forecast.within(self.length)
        most = max(0.0, most_of_all - self.settled)
        for end, before in self._marks_after(now):
            freed = before - self._freed
            if most_of_all - freed <= most:
                break
            most = max(most, forecast.within(end - now) - freed)
        return most

    def fits_beside_at(self, amount: int, limit: float, forecast: Forecast, now: float) -> float | None:
        """When `amount` more will be within `limit` beside what is expected then; `None` if time alone does not help."""
        fits = self.fits_at(amount, limit, now)
        left = limit - self.reserved - self.settled - amount
        most_of_all = forecast.within(self.length)
        if fits is None or left + self.settled < most_of_all:
            return None
        when = fits
        for end, before in self._marks_after(now):
            # For so long what is left until then will do.
            left_by_then = left + before - self._freed
            if left_by_then >= most_of_all:
                break
            when = max(when, end - forecast.lasts(left_by_then))
        # What is closer than that is due: how long a forecast lasts is not known to the last bit. When it fits is.
        return when if when - now > self.length * CLOSE else fits

    def _marks_after(self, now: float) -> deque[tuple[float, int]]:
        while self._marks and self._marks[0][0] <= now:
            self._marks.popleft()
        return self._marks
