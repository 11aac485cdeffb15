"""Decides which single calls share a request, and when to send it. Synchronous: clock and loop are passed in."""

from __future__ import annotations

import contextlib
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Protocol

import msgspec

from pinecone_embed_async._planning import Load, utf8_length
from pinecone_embed_async._structs import SilentStruct

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._errors import DeadlineExceededError
    from pinecone_embed_async._planning import RequestLimits
    from pinecone_embed_async._results import SparseVector
    from pinecone_embed_async._telemetry import ObservedCall

    Outcome = NDArray[np.float32] | SparseVector | BaseException


class RequestStarter(Protocol):
    """Starts shared requests."""

    def start(self, shared: SharedRequest, /) -> None:
        """Start sending a request with `SingleCalls.run`."""

    def out_of_time(self, message: str) -> DeadlineExceededError:
        """See `Sender.out_of_time`."""


class Waiter(SilentStruct):
    """A caller that waits for the vector of its text.

    Args:
        text: text to embed.
        outcome: future that the caller awaits, for the vector, or the error to raise.
        deadline: clock time by which the caller needs its vector; `None` for no deadline.

    Attributes:
        call: identifies the caller to the hooks; `None` without hooks.
        shared: the request that the caller shares, once it has joined one.
    """

    text: str
    outcome: asyncio.Future[Outcome]
    deadline: float | None
    call: ObservedCall | None = None
    shared: SharedRequest = None  # type: ignore[assignment]

    @property
    def is_waiting(self) -> bool:
        """Whether the caller has no outcome yet, and was not cancelled."""
        return not self.outcome.done()

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome, which wakes the caller; later outcomes are ignored."""
        if self.is_waiting:
            self.outcome.set_result(outcome)


class SharedRequest(SilentStruct):
    """A request shared by single calls. Equal texts share a position in it.

    Attributes:
        key: the key that all its calls have in common.
        due: latest clock time at which to send it, unless it is held.
        limits: limits of the request.
        starter: starts it.
        waiters: the callers of each text that have not left; at first in the order of the texts in the request.
        load: size and estimated cost of the texts, until it is sent.
    """

    key: Hashable
    due: float
    limits: RequestLimits
    starter: RequestStarter
    waiters: dict[str, list[Waiter]] = msgspec.field(default_factory=dict)
    load: Load = msgspec.field(default_factory=Load)

    def __repr__(self) -> str:
        return f"<SharedRequest of {len(self.waiters)} texts>"

    def add(self, waiter: Waiter) -> bool:
        """Add a caller if its text fits, which the first text always does; return whether it was added."""
        text = waiter.text
        if text not in self.waiters:
            if not self.load.add(utf8_length(text), self.limits):
                return False
            self.waiters[text] = []
        self.waiters[text].append(waiter)
        waiter.shared = self
        return True

    @property
    def first_deadline(self) -> float:
        """The earliest deadline of the callers; infinite if none of them has one."""
        return min(self._deadlines())

    @property
    def deadline(self) -> float | None:
        """The latest deadline of the callers; `None` if one of them has none."""
        latest = max(self._deadlines())
        return None if latest == math.inf else latest

    def _deadlines(self) -> list[float]:
        waiters = [waiter for sharing in self.waiters.values() for waiter in sharing]
        return [math.inf if waiter.deadline is None else waiter.deadline for waiter in waiters]


class Coalescer:
    """Collects single calls into shared requests and decides when to send them.

    There is at most one pending request per key. It is sent as soon as it is full. If no request of its key is under way and
    no caller is expected, it is sent at the end of the current event loop iteration, so that all calls of the iteration
    share it. Otherwise it is sent once it has been pending for `max_delay`, unless it is held to collect more calls.

    It is held while `hold_at` requests of its key are under way. It is also held while any of those waits for a free place
    in flight, unless its own earliest deadline is earlier than all of theirs: the rate limiter must know the earliest
    deadline, to dismiss the calls for which a pause is too long.

    Args:
        clock: tells the time, and runs one timer for all requests.
        loop: calls functions at the end of an iteration.
        max_delay: maximum seconds that a caller waits for others, unless its request is held.
        hold_at: while at least this many requests of a key are under way, only full requests of that key are sent.
    """

    def __init__(self, *, clock: Clock, loop: asyncio.AbstractEventLoop, max_delay: float, hold_at: int) -> None:
        self._clock = clock
        self._loop = loop
        self._max_delay = max_delay
        self._hold_at = hold_at
        self._pending: dict[Hashable, SharedRequest] = {}
        self._under_way: Counter[Hashable] = Counter()
        self._expected: Counter[Hashable] = Counter()
        # The earliest deadline of each request that waits for a place in flight.
        self._waiting: defaultdict[Hashable, list[float]] = defaultdict(list)
        self._timer: Timer | None = None
        # Whether `_send_due` is called at the end of this iteration.
        self._is_check_due = False

    @contextlib.contextmanager
    def expect(self, key: Hashable) -> Iterator[None]:
        """Expect another caller while the block runs, because its text is being looked up in the cache."""
        self._expected[key] += 1
        try:
            yield
        finally:
            self._decrement(self._expected, key)

    @contextlib.contextmanager
    def waiting(self, key: Hashable, deadline: float | None) -> Iterator[None]:
        """Hold the pending request of `key` while the block runs, because an earlier one waits for a place in flight.

        Args:
            key: key of both requests.
            deadline: the earliest deadline of the earlier request's callers; `None` if none of them has one.
        """
        first = math.inf if deadline is None else deadline
        self._waiting[key].append(first)
        try:
            yield
        finally:
            self._waiting[key].remove(first)
            if not self._waiting[key]:
                del self._waiting[key]
            self._recheck(key)

    def _decrement(self, counter: Counter[Hashable], key: Hashable) -> None:
        """Decrease a counter, and check whether a request is now due."""
        counter[key] -= 1
        if not counter[key]:
            del counter[key]
        self._recheck(key)

    def _recheck(self, key: Hashable) -> None:
        """Check soon whether the pending request of `key` is due, if there is one."""
        if key in self._pending and not self._loop.is_closed():
            self._check_soon()

    def join(self, key: Hashable, waiter: Waiter, limits: RequestLimits, starter: RequestStarter) -> None:
        """Join the pending request of `key`, or a new one.

        Args:
            key: callers with equal keys may share a request.
            waiter: the caller.
            limits: limits of one request.
            starter: starts the request if this is its first caller.
        """
        shared = self._pending.get(key)
        if shared is not None and not shared.add(waiter):
            self._send(shared)
            shared = None
        if shared is None:
            shared = self._pending[key] = SharedRequest(key, self._clock.time() + self._max_delay, limits, starter)
            shared.add(waiter)
            self._check_soon()
        if len(shared.waiters) >= limits.inputs:
            self._send(shared)
        elif waiter.deadline is not None and key in self._waiting:
            self._check_soon()

    def leave(self, waiter: Waiter) -> None:
        """Remove a caller, whether or not it has an outcome."""
        shared, text = waiter.shared, waiter.text
        shared.waiters[text].remove(waiter)
        if shared.waiters[text]:
            return
        del shared.waiters[text]
        if self._pending.get(shared.key) is shared:
            shared.load = Load.of(shared.waiters, shared.limits)
            if not shared.waiters:
                self._drop(shared)

    def ended(self, shared: SharedRequest) -> None:
        """Record that a request has ended."""
        self._decrement(self._under_way, shared.key)

    def cancel_pending(self) -> list[Waiter]:
        """Drop the requests that are not sent yet, and return their callers."""
        requests = list(self._pending.values())
        for shared in requests:
            self._drop(shared)
        return [waiter for shared in requests for sharing in shared.waiters.values() for waiter in sharing]

    def _send(self, shared: SharedRequest) -> None:
        self._drop(shared)
        self._under_way[shared.key] += 1
        shared.starter.start(shared)

    def _drop(self, shared: SharedRequest) -> None:
        """Let no more callers join a request."""
        del self._pending[shared.key]
        if not self._pending:
            self._cancel_timer()

    def _check_soon(self) -> None:
        if not self._is_check_due:
            self._is_check_due = True
            self._loop.call_soon(self._send_due)

    def _send_due(self) -> None:
        self._is_check_due = False
        now = self._clock.time()
        for shared in list(self._pending.values()):
            is_key_idle = not self._under_way[shared.key] and not self._expected[shared.key]
            if is_key_idle or (now >= shared.due and self._may_send(shared)):
                self._send(shared)
        if self._pending:
            self._set_timer()

    def _may_send(self, shared: SharedRequest) -> bool:
        """Whether a request may be sent once it is due, rather than being held."""
        if self._under_way[shared.key] >= self._hold_at:
            return False
        return shared.key not in self._waiting or min(self._waiting[shared.key]) > shared.first_deadline

    def _set_timer(self) -> None:
        """Set one timer for the earliest time at which a request that is not held is due, if there is any."""
        due = [shared.due for shared in self._pending.values() if self._may_send(shared)]
        self._cancel_timer()
        if due:
            self._timer = self._clock.call_at(min(due), self._send_due)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
