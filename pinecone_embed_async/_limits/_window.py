"""What counts against a limit at a moment, as the service may see it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RESOLUTION = 1024
"""Entries that a window keeps at most, about: what is settled within a 1024th of it counts as one entry, to the end of
the latest. That holds memory down and makes nothing leave earlier than it may."""


@dataclass(slots=True)
class _Entry:
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

    __slots__ = ("_log", "_resolution", "length", "reserved", "settled")

    def __init__(self, length: float) -> None:
        self.length = length
        self._resolution = length / RESOLUTION
        self._log: deque[_Entry] = deque()
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
            self.settled -= log.popleft().amount
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
