"""A limiter under a virtual clock, against a simulated service that counts at arrival."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from pinecone_embed_async._limits import Ask, Flow, Lane, Limiter, LimiterOptions, LimitKind, NamedLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async._limits import Grant

KEY = ("model", "passage")


class Count:
    """Amounts within a window, of either kind, as a service may count them."""

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
    """Refuses whole requests that go over a limit, and counts the others when they arrive."""

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
        """What a request is refused for; `None` if it is accepted."""
        counts = (
            (self._second, 1, self.per_second, LimitKind.REQUESTS_PER_SECOND),
            (self._window, 1, self.per_window, LimitKind.REQUESTS_PER_MINUTE),
            (self._tokens, tokens, self.tokens(now), LimitKind.TOKENS),
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
    """Requests of one flow, one of which waits for its turn at a time, as in a call.

    Attributes:
        left: tokens that are still to be embedded.
        size: tokens of a whole request.
        item: tokens of one input.
        granted: when each turn came, and its tokens after cutting.
    """

    flow: Flow[Ask]
    lane: Lane
    left: int
    size: int
    item: int
    granted: list[tuple[float, int]] = field(default_factory=list)
    asks: set[Ask] = field(default_factory=set)
    has_nothing_to_ask_for: bool = False

    @property
    def total(self) -> int:
        return sum(tokens for _, tokens in self.granted)


class World:
    """Runs work through a limiter; nothing but answers and `next_time` moves it on.

    Args:
        options: of the limiter.
        service: that answers.
        seed: of travel times.
        travel: seconds there and back, the shortest and the longest.
        backoff: seconds to pause after so many bursts of rejections.
        asked: whether it is the service that asks for them.
    """

    def __init__(
        self,
        options: LimiterOptions,
        service: Service,
        *,
        seed: int = 0,
        travel: tuple[float, float] = (0.05, 0.25),
        backoff: Callable[[int], float] | None = None,
        fails: float = 0.0,
        cancels: float = 0.0,
        asked: bool = False,
    ) -> None:
        self.limiter = Limiter(options)
        self.service = service
        self.now = 0.0
        self.random = random.Random(seed)
        self._travel = travel
        self._backoff = backoff or (lambda bursts: self.random.random() * min(20.0, 0.5 * 2 ** (bursts - 1)))
        self._fails = fails
        self._cancels = cancels
        self._asked = asked
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._got_a_turn = False
        self.in_flight = 0
        self.steps = 0

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def add(self, work: Work, at: float = 0.0) -> Work:
        self.at(at, lambda: self._ask(work))
        return work

    def add_to(self, work: Work, tokens: int, at: float) -> None:
        """Have more to do for work from a time on; what comes while a request waits goes with the next."""

        def more() -> None:
            work.left += tokens
            if not work.asks:
                self._ask(work)

        self.at(at, more)

    def run(self, until: float = math.inf) -> None:
        """Go on until nothing can happen any more, or until a moment.

        It fails if timers fire for nobody: at `next_time` somebody has to get a turn, but for the end of a pause, or when
        more than was free before is about to be.
        """
        in_vain = 0
        while True:
            timer = self.limiter.next_time(self.now)
            assert timer is None or timer > self.now, "the timer would fire at once, and again"
            event = self._events[0][0] if self._events else math.inf
            when = min(event, math.inf if timer is None else timer)
            if when > until or math.isinf(when):
                self.now = min(when, until) if math.isfinite(min(when, until)) else self.now
                return
            self.now = when
            self.steps += 1
            if timer is not None and timer < event:
                self._got_a_turn = False
                self.limiter.dispatch(self.now)
                in_vain = 0 if self._got_a_turn else in_vain + 1
                assert in_vain < 3, "nobody got a turn at the time that was said"
            else:
                heapq.heappop(self._events)[2]()
                in_vain = 0

    def _ask(self, work: Work) -> None:
        work.has_nothing_to_ask_for = work.left <= 0
        if work.has_nothing_to_ask_for:
            return
        want = min(work.size, work.left)
        ask = Ask(work.flow, work.lane, KEY, want, min(work.item, want), lambda grant: self._granted(work, ask, grant))
        work.asks.add(ask)
        self.limiter.ask(ask, self.now)
        if ask in work.asks and self.random.random() < self._cancels:
            self.at(self.now + self.random.random(), lambda: self._withdraw(work, ask))

    def _withdraw(self, work: Work, ask: Ask) -> None:
        if ask in work.asks:
            work.asks.discard(ask)
            self.limiter.withdraw(ask, self.now)
            self._ask(work)

    def _granted(self, work: Work, ask: Ask, grant: Grant) -> None:
        work.asks.discard(ask)
        self._got_a_turn = True
        self.in_flight += 1
        # Behind the limiter's own step, as a coroutine goes on behind it.
        self.at(self.now, lambda: self._send(work, grant))

    def _send(self, work: Work, grant: Grant) -> None:
        if self.random.random() < self._cancels:
            self.in_flight -= 1
            self.limiter.give_back(grant, self.now)
            self._ask(work)
            return
        tokens = min(grant.tokens if grant.tokens >= work.size else grant.tokens // work.item * work.item, work.left)
        tokens = tokens or min(work.item, work.left)
        self.limiter.shrink(grant, tokens, self.now)
        work.granted.append((self.now, tokens))
        work.left -= tokens
        self._ask(work)
        there = self.random.uniform(*self._travel) / 2
        back = self.random.uniform(*self._travel) / 2
        self.at(self.now + there, lambda: self._arrive(work, grant, tokens, back))

    def _arrive(self, work: Work, grant: Grant, tokens: int, back: float) -> None:
        refused = self.service.arrive(self.now, tokens)
        self.at(self.now + back, lambda: self._answer(work, grant, tokens, refused))

    def _answer(self, work: Work, grant: Grant, tokens: int, refused: NamedLimit | None) -> None:
        self.in_flight -= 1
        if refused is not None:
            work.left += tokens
            named = refused if self.service.text else None
            self.limiter.rejected(grant, self.now, named=named, backoff=self._backoff, asked=self._asked)
        elif self.random.random() < self._fails:
            work.left += tokens
            self.limiter.failed(grant, self.now, is_overload=True)
        else:
            self.limiter.accepted(grant, tokens, self.now)
        if work.has_nothing_to_ask_for:
            self._ask(work)
