"""Which single calls share a request, and when it goes. Plain synchronous code: time, turns and sending are passed in."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from pinecone_embed_async._plan import Load, utf8_length
from pinecone_embed_async._results import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from numpy.typing import NDArray

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._plan import RequestLimits
    from pinecone_embed_async._telemetry import ObservedCall

    Soon = Callable[[Callable[[], None]], Timer]
    """Calls a function at the end of the event loop's current turn."""

Vector = np.ndarray | SparseVector
"""What a single call gives: float32 of shape (dimension,), or a sparse vector."""


class Seat:
    """A caller's place in a batch.

    Args:
        batch: that it is in.
        text: that the caller wants embedded.
        wake: called once, when `outcome` is there.
        deadline: of the caller, by the clock; `None` for none.
        call: what the hooks know the caller by; `None` without hooks.

    Attributes:
        outcome: the vector, or the error to raise; `None` until it is known.
    """

    __slots__ = ("_wake", "batch", "call", "deadline", "outcome", "text")

    def __init__(
        self,
        batch: Batch,
        text: str,
        wake: Callable[[], None],
        deadline: float | None,
        call: ObservedCall | None = None,
    ) -> None:
        self._wake = wake
        self.batch = batch
        self.text = text
        self.deadline = deadline
        self.call = call
        self.outcome: NDArray[np.float32] | SparseVector | BaseException | None = None

    def __repr__(self) -> str:
        return f"<Seat, {'waiting' if self.outcome is None else type(self.outcome).__name__}>"

    def settle(self, outcome: NDArray[np.float32] | SparseVector | BaseException) -> None:
        """Give the caller what it waits for; what comes first counts."""
        if self.outcome is None:
            self.outcome = outcome
            self._wake()


class Batch:
    """Single calls that share a request. Equal texts share a place in it.

    Attributes:
        key: what they must have in common.
        due: when it goes at the latest, as far as it may; by the clock.
        seats: the callers of each text; a text's position in the request is its place in here.
        callers: how many have not left.
        is_gone: whether its request is under way or has ended.
    """

    __slots__ = ("_limits", "_load", "_send", "callers", "due", "is_gone", "key", "seats")

    def __init__(self, key: Hashable, due: float, limits: RequestLimits, send: Callable[[Batch], None]) -> None:
        self._load = Load()
        self._limits = limits
        self._send = send
        self.key = key
        self.due = due
        self.seats: dict[str, list[Seat]] = {}
        self.callers = 0
        self.is_gone = False

    def __repr__(self) -> str:
        return f"<Batch of {len(self.seats)} texts for {self.callers} callers{', gone' if self.is_gone else ''}>"

    def add(
        self,
        text: str,
        limits: RequestLimits,
        wake: Callable[[], None],
        deadline: float | None,
        call: ObservedCall | None = None,
    ) -> Seat | None:
        """Take one more caller; `None` if the text does not fit in."""
        if text not in self.seats:
            if limits.bytes_per_token != self._limits.bytes_per_token:
                # What is taken out again must count as it did when it came in.
                limits = limits._replace(bytes_per_token=self._limits.bytes_per_token)
            if not self._load.add(utf8_length(text), limits):
                return None
            self.seats[text] = []
        seat = Seat(self, text, wake, deadline, call)
        self.seats[text].append(seat)
        self.callers += 1
        return seat

    def remove(self, seat: Seat) -> None:
        """Let a caller leave; before it goes, a text that nobody wants any more leaves too."""
        sharing = self.seats[seat.text]
        sharing.remove(seat)
        self.callers -= 1
        if not sharing and not self.is_gone:
            del self.seats[seat.text]
            self._load.remove(utf8_length(seat.text), self._limits)

    def go(self) -> None:
        """Send it."""
        self.is_gone = True
        self._send(self)

    @property
    def deadline(self) -> float | None:
        """The latest of its callers' deadlines; `None` if one of them has none."""
        latest = 0.0
        for sharing in self.seats.values():
            for seat in sharing:
                if seat.deadline is None:
                    return None
                latest = max(latest, seat.deadline)
        return latest


class Gatherer:
    """Gathers single calls into batches, one for each key at a time, and says when one goes.

    A batch goes when it is full. Otherwise, at the end of a turn of the event loop, so that a crowd that calls in the same
    turn is together: at once if no other batch of its key is under way and nobody is coming, else when its oldest caller has
    waited `max_delay`, unless `most` of its key are under way. Those would only wait for a permit, and it can gather more
    meanwhile.

    Args:
        clock: the time, and one timer for all batches.
        soon: calls a function at the end of the turn.
        max_delay: seconds.
        most: a batch that is not full goes only while fewer than this many of its key are under way.
    """

    def __init__(self, *, clock: Clock, soon: Soon, max_delay: float, most: int) -> None:
        self._clock = clock
        self._soon = soon
        self._max_delay = max_delay
        self._most = most
        self._gathering: dict[Hashable, Batch] = {}
        self._under_way: Counter[Hashable] = Counter()
        self._coming: Counter[Hashable] = Counter()
        self._timer: Timer | None = None
        self._look: Timer | None = None

    def __repr__(self) -> str:
        return f"<Gatherer {len(self._gathering)} gathering, {self._under_way.total()} under way>"

    @contextlib.contextmanager
    def coming(self, key: Hashable) -> Iterator[None]:
        """While a caller may be about to join, for its text is being looked up."""
        self._coming[key] += 1
        try:
            yield
        finally:
            self._lower(self._coming, key)

    def _lower(self, counter: Counter[Hashable], key: Hashable) -> None:
        """Count one less, which may let a batch go."""
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
        if key in self._gathering:
            self._look_soon()

    def join(
        self,
        key: Hashable,
        text: str,
        limits: RequestLimits,
        *,
        send: Callable[[Batch], None],
        wake: Callable[[], None],
        deadline: float | None = None,
        call: ObservedCall | None = None,
    ) -> Seat:
        """Take a seat in the batch of `key` that is being gathered, or in a new one.

        Args:
            key: callers with equal keys may share a request.
            text: the caller's.
            limits: what a request may hold.
            send: sends a batch; that of its first caller is used. `ended` is to be called when the request has ended.
            wake: called once the outcome is there.
            deadline: the caller's, by the clock.
            call: what the hooks know the caller by.
        """
        batch = self._gathering.get(key)
        seat = None if batch is None else batch.add(text, limits, wake, deadline, call)
        if batch is not None and seat is None:
            self._go(batch)
        while batch is None or seat is None:
            batch = self._gathering[key] = Batch(key, self._clock.time() + self._max_delay, limits, send)
            self._look_soon()
            # The first text fits in whatever its size.
            seat = batch.add(text, limits, wake, deadline, call)
        if len(batch.seats) >= limits.inputs:
            self._go(batch)
        return seat

    def leave(self, seat: Seat) -> None:
        """Let a caller go, with or without an outcome."""
        batch = seat.batch
        batch.remove(seat)
        if not batch.callers and not batch.is_gone:
            del self._gathering[batch.key]
            self._call_off_if_idle()

    def ended(self, batch: Batch) -> None:
        """Note that a batch's request has ended."""
        self._lower(self._under_way, batch.key)

    def disband(self) -> list[Seat]:
        """Give up what has not gone; gives the callers, who are to be told."""
        batches = list(self._gathering.values())
        self._gathering.clear()
        self._call_off_if_idle()
        for batch in batches:
            batch.is_gone = True
        return [seat for batch in batches for sharing in batch.seats.values() for seat in sharing]

    def _go(self, batch: Batch) -> None:
        del self._gathering[batch.key]
        self._under_way[batch.key] += 1
        self._call_off_if_idle()
        batch.go()

    def _look_soon(self) -> None:
        if self._look is None:
            self._look = self._soon(self._send_what_may_go)

    def _send_what_may_go(self) -> None:
        self._call_off_look()
        # One look at the clock decides both who goes and whether a timer is needed.
        now = self._clock.time()
        for batch in list(self._gathering.values()):
            under_way = self._under_way[batch.key]
            is_alone = not under_way and not self._coming[batch.key]
            if is_alone or (now >= batch.due and under_way < self._most):
                self._go(batch)
        self._set_timer()

    def _set_timer(self) -> None:
        """Have one timer while a batch waits for its time, and none otherwise."""
        due = [batch.due for batch in self._gathering.values() if self._under_way[batch.key] < self._most]
        self._clear_timer()
        if due:
            self._timer = self._clock.call_at(min(due), self._send_what_may_go)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _call_off_look(self) -> None:
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _call_off_if_idle(self) -> None:
        if not self._gathering:
            self._clear_timer()
            self._call_off_look()
