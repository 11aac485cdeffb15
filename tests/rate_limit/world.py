"""A limiter under a virtual clock, against a simulated service that counts requests on arrival."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pinecone_embed_async._rate_limit import Backoff, Flow, LimiterOptions
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.permit import LimiterPermit
from pinecone_embed_async._rate_limit.rejections import NamedLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async._rate_limit.rejections import LimitKind


KEY = ("model", "passage")


class OneLimit(LimiterOptions, frozen=True):
    """A limit of tokens for one input type, and none for the others."""

    input_type: str = "passage"

    def tokens(self, key: tuple[str, str]) -> int | None:
        return self.tokens_per_minute if key[1] == self.input_type else None


class Count:
    """Amounts in a window of either kind, as a service may count them."""

    def __init__(self, length: float, kind: Literal["fixed", "sliding"], phase: float = 0.0) -> None:
        self.length, self.kind, self.phase = length, kind, phase
        self._log: deque[tuple[float, int]] = deque()
        self._number: int | None = None
        self.used = 0

    def fits(self, now: float, amount: int, limit: float) -> bool:
        if self.kind == "fixed":
            number = math.floor((now + self.phase) / self.length)
            if number != self._number:
                self._number, self.used = number, 0
        else:
            while self._log and self._log[0][0] <= now - self.length:
                self.used -= self._log.popleft()[1]
        return self.used + amount <= limit

    def add(self, now: float, amount: int) -> None:
        self.used += amount
        if self.kind == "sliding":
            self._log.append((now, amount))


@dataclass
class Service:
    """Rejects requests that exceed a limit, and counts the others on arrival."""

    tokens: Callable[[float], float] = lambda _: math.inf
    per_second: float = math.inf
    per_window: float = math.inf
    window: float = 60.0
    kind: Literal["fixed", "sliding"] = "sliding"
    phase: float = 0.0
    text: bool = True
    accepted: list[tuple[float, int]] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tokens = Count(self.window, self.kind, self.phase)
        self._second = Count(1.0, self.kind, self.phase)
        self._window = Count(self.window, self.kind, self.phase)

    def arrive(self, now: float, tokens: int) -> NamedLimit | None:
        """The limit that a request is rejected for; `None` if it is accepted."""
        counts: tuple[tuple[Count, int, float, LimitKind], ...] = (
            (self._second, 1, self.per_second, "requests per second"),
            (self._window, 1, self.per_window, "requests per minute"),
            (self._tokens, tokens, self.tokens(now), "tokens per minute"),
        )
        for count, amount, limit, kind in counts:
            if not count.fits(now, amount, limit):
                self.rejected.append(now)
                return NamedLimit(kind, int(limit))
        for count, amount, _, _ in counts:
            count.add(now, amount)
        self.accepted.append((now, tokens))
        return None


@dataclass(eq=False)
class Work:
    """Requests of one flow, one of which waits for a permit at a time, as in a call.

    Attributes:
        left: tokens still to be embedded.
        size: tokens of a whole request.
        item: tokens of one input.
        granted: time of each permit, and the tokens of its request after cutting.
    """

    flow: Flow
    left: int
    size: int
    item: int
    granted: list[tuple[float, int]] = field(default_factory=list)
    requests: set[LimiterPermit] = field(default_factory=set)
    is_done: bool = False

    @property
    def total(self) -> int:
        return sum(tokens for _, tokens in self.granted)


class World:
    """Runs work through a limiter, driven only by responses and `next_at`.

    Args:
        options: options of the limiter.
        service: the simulated service.
        seed: seed of travel times.
        travel: shortest and longest round trip in seconds.
        backoff: how long to pause after rejections.
    """

    def __init__(
        self,
        options: LimiterOptions,
        service: Service,
        *,
        seed: int = 0,
        travel: tuple[float, float] = (0.05, 0.25),
        backoff: Backoff | None = None,
        fails: float = 0.0,
        cancels: float = 0.0,
    ) -> None:
        self.limiter = Limiter(options)
        self.service = service
        self.now = 0.0
        self.random = random.Random(seed)
        self._travel = travel
        self._backoff = backoff or Backoff(0.5, 20.0, self.random.random)
        self._fails = fails
        self._cancels = cancels
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        # Requests that wait, and whose.
        self._waiting: dict[LimiterPermit, Work] = {}
        self.in_flight = 0
        self.steps = 0

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def add(self, work: Work, at: float = 0.0) -> Work:
        self.at(at, lambda: self._request(work))
        return work

    def add_to(self, work: Work, tokens: int, at: float) -> None:
        """Add tokens to work at a time; while a request waits, they go with the next one."""

        def more() -> None:
            work.left += tokens
            if not work.requests:
                self._request(work)

        self.at(at, more)

    def run(self, until: float = math.inf) -> None:
        """Run until nothing more can happen, or until a time.

        Fails if timers fire in vain: at `next_at` a permit must be granted, except at the end of a pause, or when more
        tokens are about to come free.
        """
        in_vain = 0
        while True:
            timer = self.limiter.next_at
            event = self._events[0][0] if self._events else math.inf
            when = min(event, timer)
            if when > until or math.isinf(when):
                self.now = min(when, until) if math.isfinite(min(when, until)) else self.now
                return
            self.now = when
            self.steps += 1
            # At the same time the timer goes first, because not every event reaches the limiter.
            if timer <= event:
                self.limiter.dispatch(self.now)
                in_vain = 0 if self.limiter.decided else in_vain + 1
                assert in_vain < 3, "no permit was granted at next_at"
            else:
                heapq.heappop(self._events)[2]()
                in_vain = 0
            self._take_granted()
            assert self.limiter.next_at > self.now, "the timer would fire at once, and again"

    def _request(self, work: Work) -> None:
        work.is_done = work.left <= 0
        if work.is_done:
            return
        want = min(work.size, work.left)
        request = LimiterPermit(work.flow, work.flow.key, want, min(work.item, want))
        work.requests.add(request)
        self._waiting[request] = work
        self.limiter.enqueue(request, self.now)
        if not request.is_granted and self.random.random() < self._cancels:
            self.at(self.now + self.random.random(), lambda: self._withdraw(work, request))

    def _withdraw(self, work: Work, request: LimiterPermit) -> None:
        if request in work.requests:
            work.requests.discard(request)
            del self._waiting[request]
            self.limiter.give_back(request, self.now)
            self._request(work)

    def _take_granted(self) -> None:
        """Note the permits that were granted in the last step; their holders resume after it, as coroutines do."""
        for request in self.limiter.decided:
            if request.is_granted:
                self._granted(self._waiting.pop(request), request)
        self.limiter.decided.clear()

    def _granted(self, work: Work, permit: LimiterPermit) -> None:
        work.requests.discard(permit)
        self.in_flight += 1
        self.at(self.now, lambda: self._send(work, permit))

    def _send(self, work: Work, permit: LimiterPermit) -> None:
        if self.random.random() < self._cancels:
            self.in_flight -= 1
            self.limiter.give_back(permit, self.now)
            self._request(work)
            return
        tokens = min(permit.tokens if permit.tokens >= work.size else permit.tokens // work.item * work.item, work.left)
        tokens = tokens or min(work.item, work.left)
        self.limiter.resize(permit, tokens, self.now)
        work.granted.append((self.now, tokens))
        work.left -= tokens
        self._request(work)
        there = self.random.uniform(*self._travel) / 2
        back = self.random.uniform(*self._travel) / 2
        self.at(self.now + there, lambda: self._arrive(work, permit, tokens, back))

    def _arrive(self, work: Work, permit: LimiterPermit, tokens: int, back: float) -> None:
        refused = self.service.arrive(self.now, tokens)
        self.at(self.now + back, lambda: self._answer(work, permit, tokens, refused))

    def _answer(self, work: Work, permit: LimiterPermit, tokens: int, refused: NamedLimit | None) -> None:
        self.in_flight -= 1
        if refused is not None:
            work.left += tokens
            named = refused if self.service.text else None
            self.limiter.rejected(permit, named, self._backoff, self.now)
        elif self.random.random() < self._fails:
            work.left += tokens
            self.limiter.failed(permit, self.now, is_overload=True)
        else:
            self.limiter.accepted(permit, tokens, self.now)
        if work.is_done:
            self._request(work)
