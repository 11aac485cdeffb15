"""Who holds what, and until when they are believed to live."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

ItemT = TypeVar("ItemT")


class _Worker(Generic[ItemT]):
    """What one worker holds, by its own numbers."""

    __slots__ = ("ends", "items")

    def __init__(self) -> None:
        self.ends = -math.inf
        self.items: dict[int, ItemT] = {}


class Leases(Generic[ItemT]):
    """What workers hold, until they give it back or are not heard of any more. Plain, with the time passed in.

    Args:
        length: seconds after which a worker that was not heard of is taken for dead.

    Attributes:
        last_heard: when any worker was last heard of; minus infinity if none ever was.
    """

    def __init__(self, length: float) -> None:
        self._length = length
        self._workers: dict[str, _Worker[ItemT]] = {}
        self.last_heard = -math.inf

    def __repr__(self) -> str:
        held = sum(len(worker.items) for worker in self._workers.values())
        return f"<Leases of {len(self._workers)} workers, {held} held>"

    def heard(self, worker: str, now: float) -> None:
        """Note that a worker lives. One that was taken for dead is a new one."""
        self._workers.setdefault(worker, _Worker()).ends = now + self._length
        self.last_heard = now

    def add(self, worker: str, number: int, item: ItemT) -> None:
        """Have a worker, which was heard of, hold something more under a number of its own."""
        self._workers[worker].items[number] = item

    def get(self, worker: str, number: int) -> ItemT | None:
        """What a worker holds under a number; `None` if it holds nothing there."""
        holder = self._workers.get(worker)
        return None if holder is None else holder.items.get(number)

    def remove(self, worker: str, number: int) -> ItemT | None:
        """Take that back."""
        holder = self._workers.get(worker)
        return None if holder is None else holder.items.pop(number, None)

    def keep(self, worker: str, below: int, numbers: Collection[int]) -> list[ItemT]:
        """Take back what a worker, by its own account, does not hold any more.

        Args:
            worker: whose account it is.
            below: the account is about the numbers below this one; later ones were not given out yet.
            numbers: that it holds.

        Returns:
            What was taken back: the word that it was done with must have been lost.
        """
        holder = self._workers.get(worker)
        if holder is None:
            return []
        lost = [number for number in holder.items if number < below and number not in numbers]
        return [holder.items.pop(number) for number in lost]

    def expire(self, now: float) -> list[ItemT]:
        """Take back what workers held that were not heard of in time, and forget them."""
        dead = [name for name, worker in self._workers.items() if worker.ends <= now]
        return [item for name in dead for item in self._workers.pop(name).items.values()]

    def next_time(self) -> float:
        """When the next worker is taken for dead, if it is not heard of before; infinity if there is none."""
        return min((worker.ends for worker in self._workers.values()), default=math.inf)
