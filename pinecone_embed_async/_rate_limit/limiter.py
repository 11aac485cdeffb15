"""The limiter: who may send now, and how much. Combines budgets, learned limits, order and requests in flight."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._rate_limit.budgets import Budgets, Key
from pinecone_embed_async._rate_limit.concurrency import AdaptiveConcurrency
from pinecone_embed_async._rate_limit.fair_queue import FairQueue, Flow, Priority
from pinecone_embed_async._rate_limit.forecast import KEPT_AT_MOST
from pinecone_embed_async._rate_limit.limit_probe import PROBE_WINDOWS
from pinecone_embed_async._rate_limit.rejections import LimitKind, NamedLimit
from pinecone_embed_async._rate_limit.token_limit import FIRST_IN_FLIGHT, TokenLimit, TokenStatistics, smallest_part
from pinecone_embed_async._rate_limit.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._rate_limit.forecast import Forecast


class LimiterOptions(msgspec.Struct, frozen=True):
    """The known figures of a quota; `None` for those to be learned.

    Attributes:
        tokens: returns the tokens per window of a model and input type.
        requests_per_second: limit of the project.
        requests_per_minute: requests per window of the project.
        window: length of a window in seconds.
        first_in_flight: initial requests in flight while no token limit is known.
    """

    tokens: Callable[[Key], int | None] = lambda _: None
    requests_per_second: int | None = None
    requests_per_minute: int | None = None
    window: float = 60.0
    first_in_flight: int = FIRST_IN_FLIGHT


GRACE = 0.01
"""Seconds to wait for the next request of a flow that has just had a permit. Planning and encoding one takes less."""

PLENTY = 0.5
"""Fraction of a limit that must be free for the grace period to be skipped: the rest suffices to even out the shares.
Source: `test_calls_of_a_client_share_...` in tests/rate_limit/test_limiter.py."""

KEPT = 5.0
"""Seconds after an interactive request during which bulk work leaves one place in flight free for the next."""


class ConcurrencyLimiter:
    """The requests in flight of one client in one event loop.

    Args:
        most: maximum of requests in flight.
        is_slowed: whether only one may be in flight for now; called whenever a permit may be granted.

    Attributes:
        in_flight: requests in flight.
    """

    __slots__ = ("_bulk", "_interactive_at", "_is_slowed", "adaptive", "in_flight")

    def __init__(self, most: int, *, is_slowed: Callable[[], bool] = lambda: False) -> None:
        self.adaptive = AdaptiveConcurrency(most)
        self._is_slowed = is_slowed
        # Bulk requests in flight, and when an interactive request last asked for a permit.
        self._bulk = 0
        self._interactive_at = -math.inf
        self.in_flight = 0

    def __repr__(self) -> str:
        return f"<ConcurrencyLimiter {self.in_flight}/{self.limit} in flight>"

    @property
    def limit(self) -> int:
        """Maximum of requests in flight."""
        return 1 if self._is_slowed() else self.adaptive.limit

    def asked(self, priority: Priority, now: float) -> None:
        """Record that a request asks for a permit."""
        if priority == "interactive":
            self._interactive_at = now

    def has_room(self, priority: Priority, now: float) -> bool:
        """Whether one more request may be in flight.

        While interactive requests come, bulk work may not take the last place: otherwise each interactive request would have
        to wait for a response first.
        """
        limit = self.limit
        is_kept = priority == "bulk" and limit > 1 and now < self._interactive_at + KEPT
        return self.in_flight < limit and not (is_kept and self._bulk >= limit - 1)

    def enter(self, priority: Priority) -> None:
        """Count a request as in flight."""
        self.in_flight += 1
        self._bulk += priority == "bulk"

    def leave(self, priority: Priority) -> None:
        """Stop counting a request."""
        self.in_flight -= 1
        self._bulk -= priority == "bulk"


class PermitRequest(msgspec.Struct, eq=False):
    """A request waiting for a permit.

    Attributes:
        flow: the flow it belongs to.
        concurrency: the concurrency limiter of its client.
        key: the model and input type its tokens count for; `None` if it costs none.
        want: estimated tokens of the whole request.
        least: tokens of the smallest request that can be cut off it.
        granted: called with the reservation, from within the limiter call that makes it.
    """

    flow: Flow[PermitRequest]
    concurrency: ConcurrencyLimiter
    key: Key | None
    want: int
    least: int
    granted: Callable[[Reservation], None]


class Reservation(msgspec.Struct, eq=False):
    """The limiter's record of a permit: one request in flight and the tokens reserved for it.

    Attributes:
        flow: the flow it belongs to.
        concurrency: the concurrency limiter of its client.
        key: the model and input type its tokens count for; `None` if it costs none.
        tokens: maximum for the request; once it is cut, its actual tokens.
        at: time of the grant.
        is_probe: whether it exceeds a named limit, to probe whether that still holds.
    """

    flow: Flow[PermitRequest]
    concurrency: ConcurrencyLimiter
    key: Key | None
    tokens: int
    at: float
    is_probe: bool


class _RequestLimit:
    """A limit on requests per window, for all models together.

    A limit named by a rejection applies for some windows and then lapses until the next rejection, as it may have been
    raised. Each time the same one is named again, it applies twice as long.

    Args:
        length: length of the window in seconds.
        given: requests per window; `None` to learn them.
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
        """The time at which one more request fits: at most `now` if it does already, infinite if it takes responses."""
        free_at = self._fits_at(self._given, now)
        if now < self._holds_until:
            free_at = max(free_at, min(self._fits_at(self._named, now), self._holds_until))
        return max(free_at, self.paused_until)

    def learn(self, limit: int, now: float) -> None:
        """Record a limit named by a rejection."""
        if limit == self._named:
            if now < self._holds_until:
                # Still the same burst.
                return
            self._holds_for *= 2
        else:
            self._named, self._holds_for = limit, PROBE_WINDOWS * self.window.length
        self._holds_until = now + self._holds_for

    def _fits_at(self, limit: float, now: float) -> float:
        return _or_infinite(self.window.fits_at(1, limit, now))


class Limiter:
    """Grants permits. Plain synchronous code with the time passed in; calls from several threads must be locked.

    A permit needs a free place in the client's concurrency limiter, a request under the project's limits, and tokens under
    the limit of the model and input type. A request waiting for tokens is not overtaken by others that need the same ones,
    so a large request is never starved.

    Args:
        options: the known figures of the quota.
    """

    def __init__(self, options: LimiterOptions) -> None:
        self._options = options
        self._queue: FairQueue[PermitRequest] = FairQueue(options.window)
        self._budgets = Budgets(self._new_limit, options.window)
        # The requests next in line that wait for a limit, as of the last dispatch; others that need the same wait behind.
        self._held: dict[Key | None, PermitRequest] = {}
        # Likewise for bulk requests that wait only because tokens are kept for interactive ones, with their forecast.
        self._kept_back: dict[Key, tuple[PermitRequest, Forecast]] = {}
        # Groups that wait for a flow whose next request is about to come, and until when, as of the last dispatch.
        self._in_grace: dict[tuple[Key, Priority], float] = {}
        # Keys that requests waited for tokens of, as of the last dispatch.
        self._short: set[Key] = set()
        self._second = _RequestLimit(1.0, options.requests_per_second)
        self._minute = _RequestLimit(options.window, options.requests_per_minute)
        # Reservations of permits that have not ended.
        self._open: set[Reservation] = set()

    def __repr__(self) -> str:
        limits = ", ".join(f"{model} {input_type}: {of.limit!r}" for (model, input_type), of in self._budgets.items())
        return f"<Limiter {len(self._queue)} waiting{'; ' if limits else ''}{limits}>"

    def waiting(self, concurrencies: AbstractSet[ConcurrencyLimiter]) -> int:
        """The number of requests waiting for a permit of these concurrency limiters."""
        return sum(request.concurrency in concurrencies for request in self._queue)

    def enqueue(self, request: PermitRequest, now: float) -> None:
        """Queue a request; its permit may be granted at once."""
        request.concurrency.asked(request.flow.priority, now)
        self._queue.add(request.flow, request)
        if request.key is not None:
            budget = self._budgets.touch(request.key, now)
            budget.waiting += 1
            if request.flow.priority == "interactive":
                budget.demand.asked(request.want, now)
        self.dispatch(now)

    def withdraw(self, request: PermitRequest, now: float) -> None:
        """Remove a waiting request."""
        if self._queue.remove(request.flow, request) and request.key is not None:
            budget = self._budgets[request.key]
            budget.waiting -= 1
            if request.flow.priority == "interactive":
                budget.demand.withdrawn(request.want)
        self.dispatch(now)

    def dispatch(self, now: float) -> None:
        """Grant the permits that can be granted."""
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

        def may_go(request: PermitRequest) -> bool:
            nonlocal room
            found = self._room(request, now)
            room = found or 0
            return found is not None

        while (request := self._queue.next(now, may_go)) is not None:
            self._reserve(request, room, now)
            # One request fewer waits, so less is kept for them.
            self._kept_back.clear()
        for limit in were_short:
            limit.waits(now, is_waiting=False)
        for key in self._short:
            self.tokens(key).waits(now, is_waiting=True)

    def next_time(self, now: float) -> float | None:
        """The time at which a permit may next be granted if nothing happens before; `None` if never."""
        requests_at = self._requests_free_at(now)
        soonest = math.inf
        for request in self._held.values():
            soonest = min(soonest, max(requests_at, self._tokens_at(request, now)))
        for request, forecast in self._kept_back.values():
            soonest = min(soonest, max(requests_at, self._tokens_at(request, now, forecast)))
        soonest = min([soonest, *self._in_grace.values()])
        return None if math.isinf(soonest) else soonest

    def forget_requests(self, now: float) -> None:
        """Forget waiting requests and those in flight; the latter stay counted, and their ends are ignored."""
        self._queue.clear()
        self._held.clear()
        self._kept_back.clear()
        self._in_grace.clear()
        for budget in self._budgets.values():
            budget.waiting = budget.demand.waiting = 0
        for reservation in self._open:
            reservation.flow.in_flight -= 1
            self._settle(reservation, reservation.tokens, now)
            if reservation.key is not None:
                self.tokens(reservation.key).failed(is_probe=reservation.is_probe)
        self._open.clear()

    def shrink(self, reservation: Reservation, tokens: int, now: float) -> None:
        """Change the tokens of a reservation."""
        if reservation not in self._open:
            return
        if reservation.key is not None:
            self.tokens(reservation.key).adjust(reservation.tokens, tokens)
        reservation.flow.tag += tokens - reservation.tokens
        reservation.tokens = tokens
        self.dispatch(now)

    def give_back(self, reservation: Reservation, now: float) -> None:
        """Release the reservation of a permit that was not used."""
        if not self._close(reservation):
            return
        reservation.concurrency.leave(reservation.flow.priority)
        reservation.flow.tag -= reservation.tokens
        for limit in (self._second, self._minute):
            limit.window.release(1)
        if reservation.key is not None:
            self.tokens(reservation.key).unused(reservation.tokens, is_probe=reservation.is_probe)
        self.dispatch(now)

    def accepted(self, reservation: Reservation, billed: int | None, now: float) -> None:
        """Record that the service accepted a request.

        Args:
            reservation: its reservation.
            billed: tokens; `None` if the response did not say.
            now: the time.
        """
        if not self._close(reservation):
            return
        tokens = reservation.tokens if billed is None else billed
        self._settle(reservation, tokens, now)
        # Shares go by billed tokens, as some estimates are further off than others.
        reservation.flow.tag += tokens - reservation.tokens
        reservation.concurrency.adaptive.succeeded()
        if reservation.key is not None:
            self.tokens(reservation.key).accepted(reservation.at, tokens, now, is_probe=reservation.is_probe)
        self.dispatch(now)

    def failed(self, reservation: Reservation, now: float, *, is_overload: bool) -> None:
        """Record that a request failed for another reason than a limit; the service may have counted it.

        Args:
            reservation: its reservation.
            now: the time.
            is_overload: whether the service is overloaded, so that fewer requests should be in flight.
        """
        if not self._close(reservation):
            return
        self._settle(reservation, reservation.tokens, now)
        if is_overload:
            reservation.concurrency.adaptive.failed(reservation.at, now)
        if reservation.key is not None:
            self.tokens(reservation.key).failed(is_probe=reservation.is_probe)
        self.dispatch(now)

    def rejected(
        self,
        reservation: Reservation,
        now: float,
        *,
        named: NamedLimit | None,
        backoff: Callable[[int], float],
        asked: bool,
    ) -> float | None:
        """Record that the service rejected a request because of a limit, and so did not count it.

        Args:
            reservation: its reservation.
            now: the time.
            named: the limit named in the rejection.
            backoff: returns the seconds to pause after that many bursts of rejections without an acceptance.
            asked: whether the service asked for that pause.

        Returns:
            Seconds of the pause that this rejection starts; `None` if it starts none or one is in progress.
        """
        if not self._close(reservation):
            return None
        was_paused = self.pause_left(reservation.key, now) > 0
        self._settle(reservation, 0, now)
        limit = None if reservation.key is None else self.tokens(reservation.key)
        is_for_tokens = named is None or named.kind is LimitKind.TOKENS
        if limit is not None and is_for_tokens:
            limit.rejected(
                reservation.at,
                reservation.tokens,
                now,
                named=None if named is None else named.limit,
                backoff=backoff,
                asked=asked,
                is_probe=reservation.is_probe,
            )
            paused_until = limit.paused_until
        else:
            if limit is not None:
                limit.failed(is_probe=reservation.is_probe)
            requests = self._minute if named is not None and named.kind is LimitKind.REQUESTS_PER_MINUTE else self._second
            if named is not None and not is_for_tokens:
                requests.learn(named.limit, now)
            requests.paused_until = max(requests.paused_until, now + backoff(1))
            reservation.concurrency.adaptive.failed(reservation.at, now)
            paused_until = requests.paused_until
        self.dispatch(now)
        return None if was_paused or paused_until <= now else paused_until - now

    def take_found(self, reservation: Reservation) -> int | None:
        """Tokens of the first limit found by trial for a reservation's key, returned once; `None` if there is no news."""
        return None if reservation.key is None else self.tokens(reservation.key).take_found()

    def pause_left(self, key: Key | None, now: float) -> float:
        """Remaining seconds of the pause of requests with this key after a rejection."""
        until = max(self._second.paused_until, self._minute.paused_until)
        budget = None if key is None else self._budgets.get(key)
        if budget is not None:
            until = max(until, budget.limit.paused_until)
        return max(0.0, until - now)

    def wait_left(self, key: Key | None, now: float) -> float:
        """Seconds until the next request with this key may be sent at the earliest, by pauses and request limits."""
        pause, requests_at = self.pause_left(key, now), self._requests_free_at(now)
        # Infinite if it takes responses, whose time is unknown.
        return pause if math.isinf(requests_at) else max(pause, requests_at - now)

    def tokens(self, key: Key) -> TokenLimit:
        """The token limit of a model and input type."""
        return self._budgets[key].limit

    def known_tokens(self, key: Key) -> float:
        """Tokens per window that were given or named; infinite if neither."""
        budget = self._budgets.get(key)
        return _or_infinite(self._options.tokens(key)) if budget is None else budget.limit.known

    def statistics(self, now: float) -> list[TokenStatistics]:
        """Limits and usage of each model and input type with recent requests."""
        waiting = Counter(request.key for request in self._queue)
        return [budget.limit.statistics(*key, waiting[key], now) for key, budget in self._budgets.items()]

    def _new_limit(self, key: Key) -> TokenLimit:
        options = self._options
        return TokenLimit(options.window, options.tokens(key), first_in_flight=options.first_in_flight)

    def _requests_free_at(self, now: float) -> float:
        return max(self._second.free_at(now), self._minute.free_at(now))

    def _room(self, request: PermitRequest, now: float) -> int | None:
        """The tokens that the request next in line may have; `None` if it has to wait."""
        key, priority = request.key, request.flow.priority
        if (
            not request.concurrency.has_room(priority, now)
            or key in self._held
            or (priority == "bulk" and key in self._kept_back)
        ):
            return None
        if self._requests_free_at(now) > now:
            # Later requests that need the same must not overtake it.
            self._held[key] = request
            return None
        if key is None:
            # It needs no tokens.
            return request.want
        forecast = self._kept_from(request, key, now)
        room = self.tokens(key).room(request.want, request.least, now, forecast)
        if room:
            return None if self._is_in_grace(request, key, room, now) else room
        self._short.add(key)
        if forecast is None:
            self._held[key] = request
        else:
            self._kept_back[key] = request, forecast
        return None

    def _is_in_grace(self, request: PermitRequest, key: Key, room: int, now: float) -> bool:
        """Whether a request that has room waits for a flow that has had less and whose next request is about to come.

        Each flow has one request waiting at a time. Without the grace period, two flows would alternate whatever the sizes
        of their requests, whenever tokens for several requests come free at once.
        """
        group = key, request.flow.priority
        if group in self._in_grace:
            return True
        budget = self._budgets[key]
        if budget.limit.window.used(now) + room <= (1 - PLENTY) * budget.limit.limit:
            return False
        for at, flow in budget.permits:
            if now < at + GRACE and flow.in_flight and self._queue.is_behind(flow, request.flow):
                self._in_grace[group] = max(self._in_grace.get(group, now), at + GRACE)
        return group in self._in_grace

    def _tokens_at(self, request: PermitRequest, now: float, forecast: Forecast | None = None) -> float:
        """The time at which there are tokens for a waiting request, if nothing happens before."""
        if request.key is None:
            return now
        limit = self.tokens(request.key)
        free_at = _or_infinite(limit.room_at(request.want, request.least, now, forecast))
        if forecast is not None:
            # After a window without interactive requests nothing is expected any more.
            alone = _or_infinite(limit.room_at(request.want, request.least, now))
            free_at = min(free_at, max(alone, forecast.over_at))
        return free_at

    def _kept_from(self, request: PermitRequest, key: Key, now: float) -> Forecast | None:
        """The forecast of interactive calls that a request must leave tokens free for; `None` if there is none.

        Where these ask for more than their share, or the smallest part of the request would hardly ever fit beside them,
        aged bulk work is served at their expense.
        """
        if request.flow.priority == "interactive":
            return None
        budget = self._budgets[key]
        limit = budget.limit.known
        if math.isinf(limit) or budget.limit.source == "found":
            return None
        if self._queue.has_aged(request.flow, now):
            is_large = smallest_part(request.want, request.least, limit) > limit * (1 - KEPT_AT_MOST) / 2
            if is_large or budget.demand.is_over_share(limit, now):
                return None
        return budget.demand.forecast(limit, now)

    def _reserve(self, request: PermitRequest, tokens: int, now: float) -> None:
        request.concurrency.enter(request.flow.priority)
        for limit in (self._second, self._minute):
            limit.window.reserve(1)
        is_probe = False
        if request.key is not None:
            budget = self._budgets[request.key]
            is_probe = budget.limit.reserve(tokens, now)
            budget.waiting -= 1
            budget.permits.append((now, request.flow))
            if request.flow.priority == "interactive":
                budget.demand.granted(request.want, tokens)
        reservation = Reservation(request.flow, request.concurrency, request.key, tokens, now, is_probe)
        self._open.add(reservation)
        request.flow.in_flight += 1
        self._queue.served(request.flow, tokens)
        request.granted(reservation)

    def _close(self, reservation: Reservation) -> bool:
        """Remove a reservation; returns whether it was still open."""
        if reservation not in self._open:
            return False
        self._open.discard(reservation)
        reservation.flow.in_flight -= 1
        return True

    def _settle(self, reservation: Reservation, tokens: int, now: float) -> None:
        """Count the tokens that the service may have counted for an ended request."""
        reservation.concurrency.leave(reservation.flow.priority)
        for limit in (self._second, self._minute):
            limit.window.settle(1, 1, now)
        if reservation.key is not None:
            self.tokens(reservation.key).settle(reservation.tokens, tokens, now)


def _or_infinite(value: float | None) -> float:
    return math.inf if value is None else value
