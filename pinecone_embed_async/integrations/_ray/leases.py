"""What each worker holds, and until when it counts as alive. Pure, with the time passed in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

ItemT = TypeVar("ItemT")


class _Worker(Generic[ItemT]):
    """The items of one worker, by the worker's own numbers."""

    __slots__ = ("ends", "items")

    def __init__(self) -> None:
        self.ends = -math.inf
        self.items: dict[int, ItemT] = {}


class Leases(Generic[ItemT]):
    """Items that workers hold until they give them back or stop sending heartbeats. Pure, with the time passed in.

    Args:
        length: seconds without a heartbeat after which a worker counts as dead.

    Attributes:
        last_heard: time of the last heartbeat of any worker; minus infinity before the first.
    """

    def __init__(self, length: float) -> None:
        self._length = length
        self._workers: dict[str, _Worker[ItemT]] = {}
        self.last_heard = -math.inf

    def __repr__(self) -> str:
        held = sum(len(worker.items) for worker in self._workers.values())
        return f"<Leases of {len(self._workers)} workers, {held} held>"

    def heard(self, worker: str, now: float) -> None:
        """Record a worker's heartbeat. A worker that counted as dead starts as a new one."""
        self._workers.setdefault(worker, _Worker()).ends = now + self._length
        self.last_heard = now

    def add(self, worker: str, number: int, item: ItemT) -> None:
        """Add an item under the worker's own number; the worker must be known."""
        self._workers[worker].items[number] = item

    def get(self, worker: str, number: int) -> ItemT | None:
        """The item a worker holds under a number; `None` if there is none."""
        holder = self._workers.get(worker)
        return None if holder is None else holder.items.get(number)

    def remove(self, worker: str, number: int) -> ItemT | None:
        """Remove and return the item under a number; `None` if there is none."""
        holder = self._workers.get(worker)
        return None if holder is None else holder.items.pop(number, None)

    def keep(self, worker: str, below: int, numbers: Collection[int]) -> list[ItemT]:
        """Remove and return the items a worker reports it no longer holds.

        Args:
            worker: the worker's name.
            below: the report covers numbers below this one; later numbers are not used yet.
            numbers: the numbers it holds.

        Returns:
            The removed items; the messages that settled them must have been lost.
        """
        holder = self._workers.get(worker)
        if holder is None:
            return []
        lost = [number for number in holder.items if number < below and number not in numbers]
        return [holder.items.pop(number) for number in lost]

    def expire(self, now: float) -> list[ItemT]:
        """Remove and return the items of workers whose leases have expired, and forget these workers."""
        dead = [name for name, worker in self._workers.items() if worker.ends <= now]
        return [item for name in dead for item in self._workers.pop(name).items.values()]

    def next_time(self) -> float:
        """When the next lease expires unless a heartbeat arrives; infinity without workers."""
        return min((worker.ends for worker in self._workers.values()), default=math.inf)
