"""Who may send now, and how much: puts budgets, learning, order and requests in flight together."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._limits._budgets import Budgets, Key
from pinecone_embed_async._limits._concurrency import Concurrency
from pinecone_embed_async._limits._queue import FairQueue, Flow, Priority
from pinecone_embed_async._limits._rejections import LimitKind, NamedLimit
from pinecone_embed_async._limits._reserve import KEPT_AT_MOST
from pinecone_embed_async._limits._tokens import FIRST_IN_FLIGHT, TokenLimit, TokenStatistics, smallest_part
from pinecone_embed_async._limits._trials import PROBE_WINDOWS
from pinecone_embed_async._limits._window import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._limits._reserve import Forecast


class LimiterOptions(msgspec.Struct, frozen=True):
    """What is given of a quota; `None` where it is to be learned.

    Attributes:
        tokens: gives the tokens in a window for a model and input type.
        requests_per_second: of the project.
        requests_per_minute: requests in a window of the project.
        window: seconds of a window.
        first_in_flight: requests in flight at first while no limit of tokens is known.
    """

    tokens: Callable[[Key], int | None] = lambda _: None
    requests_per_second: int | None = None
    requests_per_minute: int | None = None
    window: float = 60.0
    first_in_flight: int = FIRST_IN_FLIGHT


GRACE = 0.01
"""Seconds in which the next request of a flow that had its turn is waited for: to plan and encode one takes less."""

PLENTY = 0.5
"""Part of a limit that is free while nobody is waited for: what one has had more by then can be made up for with the rest.
Source: `test_calls_of_a_client_share_...` in tests/limits/test_limiter.py."""

KEPT = 5.0
"""Seconds after an interactive request in which bulk work leaves one request in flight free for the next one."""


class Lane:
    """The requests in flight of one client in one event loop.

    Args:
        most: requests in flight at most.
        is_slowed: whether no more than one may be in flight for now; asked whenever there may be a turn.

    Attributes:
        in_flight: requests in flight.
    """

    __slots__ = ("_bulk", "_interactive_at", "_is_slowed", "concurrency", "in_flight")

    def __init__(self, most: int, *, is_slowed: Callable[[], bool] = lambda: False) -> None:
        self.concurrency = Concurrency(most)
        self._is_slowed = is_slowed
        # Bulk requests in flight, and when an interactive one last asked for its turn.
        self._bulk = 0
        self._interactive_at = -math.inf
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<Lane {self.in_flight}/{self.limit} in flight>"

    @property
    def limit(self) -> int:
        """Requests in flight at most."""
        return 1 if self._is_slowed() else self.concurrency.limit

    def asked(self, priority: Priority, now: float) -> None:
        """Note that a request asks for its turn."""
        if priority == "interactive":
            self._interactive_at = now

    def has_room(self, priority: Priority, now: float) -> bool:
        """Whether one more request may be in flight.

        Where there are interactive requests, the last place is kept from bulk work: with all taken, each interactive request
        would have to wait for an answer before it is sent.
        """
        limit = self.limit
        is_kept = priority == "bulk" and limit > 1 and now < self._interactive_at + KEPT
        return self.in_flight < limit and not (is_kept and self._bulk >= limit - 1)

    def enter(self, priority: Priority) -> None:
        """Count a request."""
        self.in_flight += 1
        self._bulk += priority == "bulk"

    def leave(self, priority: Priority) -> None:
        """Count a request no more."""
        self.in_flight -= 1
        self._bulk -= priority == "bulk"


class Ask(msgspec.Struct, eq=False):
    """A request that waits for its turn.

    Attributes:
        flow: that it belongs to.
        lane: of its client.
        key: what its tokens are counted for; `None` if it costs none.
        want: tokens of the whole request, estimated.
        least: tokens of the smallest request that can be cut off it.
        granted: called with the turn, in the call of the limiter that gave it.
    """

    flow: Flow[Ask]
    lane: Lane
    key: Key | None
    want: int
    least: int
    granted: Callable[[Grant], None]


class Grant(msgspec.Struct, eq=False):
    """A turn: the right to have one request in flight, of at most so many tokens.

    Attributes:
        flow: whose turn it is.
        lane: of its client.
        key: what its tokens are counted for; `None` if it costs none.
        tokens: that the request may have at most; once it is cut to that, those that it has.
        at: when it was given.
        is_trial: whether it goes over a limit that was named, to see whether that still holds.
    """

    flow: Flow[Ask]
    lane: Lane
    key: Key | None
    tokens: int
    at: float
    is_trial: bool


class _RequestLimit:
    """Requests in a window, of all models together.

    A limit that a rejection named holds for some windows, and then until the next rejection no more: it may have been
    raised. Whenever the same one is named again, that takes twice as long.

    Args:
        length: seconds of the window.
        given: requests in it; `None` if they are to be learned.
    """

    __slots__ = ("_given", "_holds_for", "_holds_until", "_named", "paused_until", "window")

    def __init__(self, length: float, given: int | None) -> None:
        self.window = Window(length)
        self._given = _or_infinite(given)
        self._named = math.inf
        self._holds_for = PROBE_WINDOWS * length
        self._holds_until = -math.inf
        self.paused_until = -math.inf

    def free_at(self, now: float) -> float:
        """When one more request fits; not after `now` if it does, infinite if that takes answers."""
        free_at = self._fits_at(self._given, now)
        if now < self._holds_until:
            free_at = max(free_at, min(self._fits_at(self._named, now), self._holds_until))
        return max(free_at, self.paused_until)

    def learn(self, limit: int, now: float) -> None:
        """Note that a rejection named a limit."""
        if limit == self._named:
            if now < self._holds_until:
                # The same burst, still.
                return
            self._holds_for *= 2
        else:
            self._named, self._holds_for = limit, PROBE_WINDOWS * self.window.length
        self._holds_until = now + self._holds_for

    def _fits_at(self, limit: float, now: float) -> float:
        return _or_infinite(self.window.fits_at(1, limit, now))


class Limiter:
    """Gives turns. Plain synchronous code with the time passed in; whoever calls it from several threads locks it.

    A turn needs room in the client's lane, for a request under the project's limits, and for tokens under the limit of the
    model and input type. Who has to wait for tokens is not overtaken by others that need the same, so a large request is
    never starved.

    Args:
        options: what is given of the quota.
    """

    def __init__(self, options: LimiterOptions) -> None:
        self._options = options
        self._queue: FairQueue[Ask] = FairQueue(options.window)
        self._budgets = Budgets(self._new_limit, options.window)
        # Those whose turn it is and who have to wait for a limit, as of the last dispatch: so do others that need the same.
        self._held: dict[Key | None, Ask] = {}
        # Likewise, but interactive ones need not wait: it is for them that tokens are kept, and what was expected of them.
        self._kept_back: dict[Key, tuple[Ask, Forecast]] = {}
        # Those that let others go first which are about to come, and until when, as of the last dispatch.
        self._in_grace: dict[tuple[Key, Priority], float] = {}
        # What work waited for tokens of, as of the last dispatch.
        self._short: set[Key] = set()
        self._second = _RequestLimit(1.0, options.requests_per_second)
        self._minute = _RequestLimit(options.window, options.requests_per_minute)
        # Turns that have not ended.
        self._open: set[Grant] = set()

    def __repr__(self) -> str:
        limits = ", ".join(f"{model} {input_type}: {of.limit!r}" for (model, input_type), of in self._budgets.items())
        return f"<Limiter {len(self._queue)} waiting{'; ' if limits else ''}{limits}>"

    def waiting(self, lanes: AbstractSet[Lane]) -> int:
        """Requests that wait for a turn in some lanes."""
        return sum(ask.lane in lanes for ask in self._queue)

    def ask(self, ask: Ask, now: float) -> None:
        """Have a request wait for its turn, which it may get at once."""
        ask.lane.asked(ask.flow.priority, now)
        self._queue.add(ask.flow, ask)
        if ask.key is not None:
            budget = self._budgets.touch(ask.key, now)
            budget.waiting += 1
            if ask.flow.priority == "interactive":
                budget.demand.asked(ask.want, now)
        self.dispatch(now)

    def withdraw(self, ask: Ask, now: float) -> None:
        """Let a request wait no more."""
        if self._queue.remove(ask.flow, ask) and ask.key is not None:
            budget = self._budgets[ask.key]
            budget.waiting -= 1
            if ask.flow.priority == "interactive":
                budget.demand.withdrawn(ask.want)
        self.dispatch(now)

    def dispatch(self, now: float) -> None:
        """Give the turns that can be given."""
        self._held.clear()
        self._kept_back.clear()
        self._in_grace.clear()
        if self._queue.is_empty and not self._short:
            return
        were_short = [self._budgets[key].limit for key in self._short]
        for limit in were_short:
            limit.advance(now)
        self._short.clear()
        room = 0

        def may_go(ask: Ask) -> bool:
            nonlocal room
            found = self._room(ask, now)
            room = found or 0
            return found is not None

        while (ask := self._queue.next(now, may_go)) is not None:
            self._grant(ask, room, now)
            # What is kept for those that wait is less by one.
            self._kept_back.clear()
        for limit in were_short:
            limit.waits(now, is_waiting=False)
        for key in self._short:
            self.tokens(key).waits(now, is_waiting=True)

    def next_time(self, now: float) -> float | None:
        """When there may be a turn for somebody who waits, if nothing happens before; `None` if never."""
        requests_at = self._requests_free_at(now)
        soonest = math.inf
        for ask in self._held.values():
            soonest = min(soonest, max(requests_at, self._tokens_at(ask, now)))
        for ask, beside in self._kept_back.values():
            soonest = min(soonest, max(requests_at, self._tokens_at(ask, now, beside)))
        soonest = min([soonest, *self._in_grace.values()])
        return None if math.isinf(soonest) else soonest

    def forget_asks(self, now: float) -> None:
        """Forget who waits and what is in flight, which may have been counted; how that ends is noted no more."""
        self._queue.clear()
        self._held.clear()
        self._kept_back.clear()
        self._in_grace.clear()
        for budget in self._budgets.values():
            budget.waiting = budget.demand.waiting = 0
        for grant in self._open:
            grant.flow.in_flight -= 1
            self._settle(grant, grant.tokens, now)
            if grant.key is not None:
                self.tokens(grant.key).failed(is_trial=grant.is_trial)
        self._open.clear()

    def shrink(self, grant: Grant, tokens: int, now: float) -> None:
        """Count other tokens for a turn than it was given for."""
        if grant not in self._open:
            return
        if grant.key is not None:
            self.tokens(grant.key).adjust(grant.tokens, tokens)
        grant.flow.tag += tokens - grant.tokens
        grant.tokens = tokens
        self.dispatch(now)

    def give_back(self, grant: Grant, now: float) -> None:
        """Take a turn back that was not used."""
        if not self._close(grant):
            return
        grant.lane.leave(grant.flow.priority)
        grant.flow.tag -= grant.tokens
        for limit in (self._second, self._minute):
            limit.window.release(1)
        if grant.key is not None:
            self.tokens(grant.key).unused(grant.tokens, is_trial=grant.is_trial)
        self.dispatch(now)

    def accepted(self, grant: Grant, billed: int | None, now: float) -> None:
        """Note that the service took a request.

        Args:
            grant: its turn.
            billed: tokens; `None` if the answer did not say.
            now: the time.
        """
        if not self._close(grant):
            return
        tokens = grant.tokens if billed is None else billed
        self._settle(grant, tokens, now)
        # Shares are by bills: the estimates of some texts are further off than those of others.
        grant.flow.tag += tokens - grant.tokens
        grant.lane.concurrency.succeeded()
        if grant.key is not None:
            self.tokens(grant.key).accepted(grant.at, tokens, now, is_trial=grant.is_trial)
        self.dispatch(now)

    def failed(self, grant: Grant, now: float, *, is_overload: bool) -> None:
        """Note that a request failed for another reason than a limit; the service may have counted it.

        Args:
            grant: its turn.
            now: the time.
            is_overload: whether the service could not cope, so that fewer requests should be in flight.
        """
        if not self._close(grant):
            return
        self._settle(grant, grant.tokens, now)
        if is_overload:
            grant.lane.concurrency.failed(grant.at, now)
        if grant.key is not None:
            self.tokens(grant.key).failed(is_trial=grant.is_trial)
        self.dispatch(now)

    def rejected(
        self,
        grant: Grant,
        now: float,
        *,
        named: NamedLimit | None,
        backoff: Callable[[int], float],
        asked: bool,
    ) -> float | None:
        """Note that the service rejected a request for a limit, which it did not count then.

        Args:
            grant: its turn.
            now: the time.
            named: the limit that the rejection's text named.
            backoff: seconds to pause after that many bursts of rejections without an acceptance.
            asked: whether the service asked for that pause.

        Returns:
            Seconds of the pause that begins with it; `None` if none does, or one is under way.
        """
        if not self._close(grant):
            return None
        was_paused = self.pause_left(grant.key, now) > 0
        self._settle(grant, 0, now)
        limit = None if grant.key is None else self.tokens(grant.key)
        is_for_tokens = named is None or named.kind is LimitKind.TOKENS
        if limit is not None and is_for_tokens:
            limit.rejected(
                grant.at,
                grant.tokens,
                now,
                named=None if named is None else named.limit,
                backoff=backoff,
                asked=asked,
                is_trial=grant.is_trial,
            )
            paused_until = limit.paused_until
        else:
            if limit is not None:
                limit.failed(is_trial=grant.is_trial)
            requests = self._minute if named is not None and named.kind is LimitKind.REQUESTS_PER_MINUTE else self._second
            if named is not None and not is_for_tokens:
                requests.learn(named.limit, now)
            requests.paused_until = max(requests.paused_until, now + backoff(1))
            grant.lane.concurrency.failed(grant.at, now)
            paused_until = requests.paused_until
        self.dispatch(now)
        return None if was_paused or paused_until <= now else paused_until - now

    def take_found(self, grant: Grant) -> int | None:
        """Tokens of the first limit that was found by trying for a turn's key, told once; `None` if there is no news."""
        return None if grant.key is None else self.tokens(grant.key).take_found()

    def pause_left(self, key: Key | None, now: float) -> float:
        """Seconds that requests with this key pause for after a rejection."""
        until = max(self._second.paused_until, self._minute.paused_until)
        budget = None if key is None else self._budgets.get(key)
        if budget is not None:
            until = max(until, budget.limit.paused_until)
        return max(0.0, until - now)

    def wait_left(self, key: Key | None, now: float) -> float:
        """Seconds until the next request with this key may go at the earliest, by pauses and by limits of requests."""
        pause, requests_at = self.pause_left(key, now), self._requests_free_at(now)
        # Infinite if that takes answers, which nothing is known of.
        return pause if math.isinf(requests_at) else max(pause, requests_at - now)

    def tokens(self, key: Key) -> TokenLimit:
        """The limit of the tokens of a model and input type."""
        return self._budgets[key].limit

    def known_tokens(self, key: Key) -> float:
        """Tokens in a window that were given or named; infinite if none were."""
        budget = self._budgets.get(key)
        return _or_infinite(self._options.tokens(key)) if budget is None else budget.limit.known

    def statistics(self, now: float) -> list[TokenStatistics]:
        """What is known and used, for each model and input type that something was sent for lately."""
        waiting = Counter(ask.key for ask in self._queue)
        return [budget.limit.statistics(*key, waiting[key], now) for key, budget in self._budgets.items()]

    def _new_limit(self, key: Key) -> TokenLimit:
        options = self._options
        return TokenLimit(options.window, options.tokens(key), first_in_flight=options.first_in_flight)

    def _requests_free_at(self, now: float) -> float:
        return max(self._second.free_at(now), self._minute.free_at(now))

    def _room(self, ask: Ask, now: float) -> int | None:
        """Tokens that the one whose turn it is may have; `None` if it has to wait."""
        key, priority = ask.key, ask.flow.priority
        if not ask.lane.has_room(priority, now) or key in self._held or (priority == "bulk" and key in self._kept_back):
            return None
        if self._requests_free_at(now) > now:
            # Those that need the same and come later do not go ahead.
            self._held[key] = ask
            return None
        if key is None:
            # It waits for no tokens.
            return ask.want
        beside = self._kept_from(ask, key, now)
        room = self.tokens(key).room(ask.want, ask.least, now, beside)
        if room:
            return None if self._is_in_grace(ask, key, room, now) else room
        self._short.add(key)
        if beside is None:
            self._held[key] = ask
        else:
            self._kept_back[key] = ask, beside
        return None

    def _is_in_grace(self, ask: Ask, key: Key, room: int, now: float) -> bool:
        """Whether one that has room lets a flow go first that has had less, and whose next request is about to come.

        Each flow has one request waiting at a time. Without it, two flows would have turns alternately, whatever their
        sizes, as often as tokens for several requests come free at a time.
        """
        group = key, ask.flow.priority
        if group in self._in_grace:
            return True
        budget = self._budgets[key]
        if budget.limit.window.used(now) + room <= (1 - PLENTY) * budget.limit.limit:
            return False
        for at, flow in budget.turns:
            if now < at + GRACE and flow.in_flight and self._queue.is_behind(flow, ask.flow):
                self._in_grace[group] = max(self._in_grace.get(group, now), at + GRACE)
        return group in self._in_grace

    def _tokens_at(self, ask: Ask, now: float, beside: Forecast | None = None) -> float:
        """When there are tokens for one that has to wait, if nothing happens before."""
        if ask.key is None:
            return now
        limit = self.tokens(ask.key)
        free_at = _or_infinite(limit.room_at(ask.want, ask.least, now, beside))
        if beside is not None:
            # If nobody asks for a window, nothing is expected any more.
            alone = _or_infinite(limit.room_at(ask.want, ask.least, now))
            free_at = min(free_at, max(alone, beside.over_at))
        return free_at

    def _kept_from(self, ask: Ask, key: Key, now: float) -> Forecast | None:
        """What one has to leave free for interactive calls; `None` if nothing.

        Where these ask for more than their share, or what cannot be cut further would hardly ever fit beside it, bulk work
        that has aged has its turn at their expense.
        """
        if ask.flow.priority == "interactive":
            return None
        budget = self._budgets[key]
        limit = budget.limit.known
        if math.isinf(limit) or budget.limit.source == "found":
            return None
        if self._queue.has_aged(ask.flow, now):
            is_large = smallest_part(ask.want, ask.least, limit) > limit * (1 - KEPT_AT_MOST) / 2
            if is_large or budget.demand.is_over_share(limit, now):
                return None
        return budget.demand.forecast(limit, now)

    def _grant(self, ask: Ask, tokens: int, now: float) -> None:
        ask.lane.enter(ask.flow.priority)
        for limit in (self._second, self._minute):
            limit.window.reserve(1)
        is_trial = False
        if ask.key is not None:
            budget = self._budgets[ask.key]
            is_trial = budget.limit.reserve(tokens, now)
            budget.waiting -= 1
            budget.turns.append((now, ask.flow))
            if ask.flow.priority == "interactive":
                budget.demand.granted(ask.want, tokens)
        grant = Grant(ask.flow, ask.lane, ask.key, tokens, now, is_trial)
        self._open.add(grant)
        ask.flow.in_flight += 1
        self._queue.served(ask.flow, tokens)
        ask.granted(grant)

    def _close(self, grant: Grant) -> bool:
        """Note that a turn ends; says whether it had not before, and was not forgotten."""
        if grant not in self._open:
            return False
        self._open.discard(grant)
        grant.flow.in_flight -= 1
        return True

    def _settle(self, grant: Grant, tokens: int, now: float) -> None:
        """Count what a request that has ended may count for, at the service."""
        grant.lane.leave(grant.flow.priority)
        for limit in (self._second, self._minute):
            limit.window.settle(1, 1, now)
        if grant.key is not None:
            self.tokens(grant.key).settle(grant.tokens, tokens, now)


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
