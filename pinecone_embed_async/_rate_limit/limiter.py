"""Decides what may be sent when, from token budgets, learned limits, the queue's order and the requests in flight."""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING

from pinecone_embed_async._rate_limit.budgets import KEYS_KEPT, Budget, Budgets
from pinecone_embed_async._rate_limit.demand import KEPT_AT_MOST
from pinecone_embed_async._rate_limit.fair_queue import FairQueue, Group
from pinecone_embed_async._rate_limit.named_limits import RequestRateLimit
from pinecone_embed_async._rate_limit.pauses import Backoff, KnownPause
from pinecone_embed_async._rate_limit.token_limit import PLENTY, TokenLimit, smallest_part

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
    from pinecone_embed_async._rate_limit.forecast import Forecast
    from pinecone_embed_async._rate_limit.permit import Flow, LimiterPermit
    from pinecone_embed_async._rate_limit.quota import Key, LimiterOptions, Priority, TokenStatistics
    from pinecone_embed_async._rate_limit.rejections import NamedLimit

GRACE = 0.01
"""Seconds to wait for the next request of a flow that has just had a permit; planning and encoding one takes less."""


class Limiter:
    """Grants permits. Plain synchronous code that takes the time as an argument; it is not thread-safe.

    A permit needs a free place in the client's concurrency limiter, room for one more request under the project's request
    limits, and tokens under the limit of the model and input type. While a request waits for tokens, no later request of its
    priority that needs the same tokens overtakes it, so a large request never starves.

    Args:
        options: the known limits of the quota.
        opens: time before which nothing is granted.

    Attributes:
        decided: permits that were granted or dismissed, until the gate takes them out to wake their requests.
        accepted_at: when the service last accepted a request, by model and input type, the latest last.
        next_at: when the next permit may be granted if nothing happens before; infinite if only a response can free one.
    """

    def __init__(self, options: LimiterOptions, opens: float = -math.inf) -> None:
        self._options = options
        self._queue = FairQueue(options.window)
        self._budgets = Budgets()
        self._second = RequestRateLimit(1.0, options.requests_per_second)
        self._second.pause = KnownPause(opens)
        self._minute = RequestRateLimit(options.window, options.requests_per_minute)
        # Permits that have not ended.
        self._open: set[LimiterPermit] = set()
        self.accepted_at: OrderedDict[Key, float] = OrderedDict()
        # The limits for which requests have waited since the last pass.
        self._short_of_tokens: set[TokenLimit] = set()
        self.decided: list[LimiterPermit] = []
        self.next_at = math.inf

    def __repr__(self) -> str:
        limits = ", ".join(f"{model} {input_type}: {of.limit!r}" for (model, input_type), of in self._budgets.items())
        return f"<Limiter {sum(1 for _ in self._queue)} waiting{'; ' if limits else ''}{limits}>"

    def waiting(self, concurrencies: AbstractSet[ConcurrencyLimiter]) -> int:
        """Number of requests waiting for a permit under these concurrency limiters."""
        return sum(permit.flow.concurrency in concurrencies for permit in self._queue)

    def enqueue(self, permit: LimiterPermit, now: float) -> bool:
        """Queue a request for a permit; return whether it has to wait.

        It may be granted at once, or dismissed if it would certainly come too late.
        """
        flow, key = permit.flow, permit.key
        permit.pause = self.pause_beyond(permit.deadline, key, permit.certain, now)
        if permit.pause is not None:
            return False
        flow.concurrency.asked(flow.priority, now)
        budget = None
        if key is not None:
            budget = self._budgets.touch(key, self._options, now)
            if flow.priority == "interactive":
                budget.demand.asked(permit.want, now)
        if not self._queue and self._may_pass_by(permit, budget, now):
            self._queue.pass_by(flow, permit.want, now)
            self._grant(permit, permit.want, now)
            return False
        self._queue.add(permit)
        if budget is not None:
            budget.count(permit, 1)
        self.dispatch(now)
        return permit in flow.waiting

    def dispatch(self, now: float) -> None:
        """Grant all permits that can be granted now."""
        self.next_at = math.inf
        if not self._queue and not self._short_of_tokens:
            return
        for limit in self._short_of_tokens:
            limit.waited_until(now)
        while self._grant_next(now):
            pass
        for limit in self._short_of_tokens:
            limit.waits(now)

    def forget_requests(self, now: float) -> None:
        """Forget all requests, waiting or in flight. The usage of those in flight still counts; how they end is ignored."""
        for permit in [*self._queue]:
            self._remove(permit)
        for permit in [*self._open]:
            self.failed(permit, now, is_overload=False)
        self.decided.clear()

    def resize(self, permit: LimiterPermit, tokens: int, now: float) -> None:
        """Set the tokens of a permit to those of its request; see `Permit.resize`."""
        if permit not in self._open:
            return
        if permit.key is not None:
            self._budgets[permit.key].limit.resize(permit, tokens)
        permit.flow.had += tokens - permit.tokens
        permit.tokens = tokens
        self.dispatch(now)

    def give_back(self, permit: LimiterPermit, now: float) -> None:
        """End a permit that was not used, or that is not needed any more."""
        if self._close(permit, now, was_sent=False):
            permit.flow.had -= permit.tokens
            if permit.key is not None:
                self._budgets[permit.key].limit.unused(permit, now)
        else:
            self._remove(permit)
        self.dispatch(now)

    def accepted(self, permit: LimiterPermit, tokens: int, now: float) -> tuple[Key, int] | None:
        """Record that the service accepted a request.

        Args:
            permit: its permit.
            tokens: tokens billed; those of the permit if the response did not report any.
            now: the time.

        Returns:
            The key and the tokens per window of the first limit found by trial, reported once; otherwise `None`.
        """
        if not self._close(permit, now):
            return None
        flow = permit.flow
        # Shares go by billed tokens, because estimates differ in accuracy.
        flow.had += tokens - permit.tokens
        flow.concurrency.succeeded()
        found = None
        if permit.key is not None:
            limit = self._budgets[permit.key].limit.accepted(permit, tokens, now)
            found = None if limit is None else (permit.key, limit)
        if flow.key is not None:
            self.accepted_at[flow.key] = now
            self.accepted_at.move_to_end(flow.key)
            if len(self.accepted_at) > KEYS_KEPT:
                self.accepted_at.popitem(last=False)
        self.dispatch(now)
        return found

    def failed(self, permit: LimiterPermit, now: float, *, is_overload: bool) -> None:
        """Record that a request failed for a reason other than a limit; the service may have counted it.

        Args:
            permit: its permit.
            now: the time.
            is_overload: whether the service is overloaded, so that fewer requests should be in flight.
        """
        if not self._close(permit, now):
            return
        if is_overload:
            permit.flow.concurrency.overloaded(permit.at, now)
        if permit.key is not None:
            self._budgets[permit.key].limit.settle(permit, permit.tokens, now)
        self.dispatch(now)

    def rejected(
        self, permit: LimiterPermit, named: NamedLimit | None, backoff: Backoff, now: float, message: str = ""
    ) -> float | None:
        """Record that the service rejected a request because of a limit, and therefore did not count its tokens.

        Args:
            permit: its permit.
            named: the limit named in the rejection.
            backoff: gives the length of the pause for a number of bursts of rejections in a row without an acceptance.
            now: the time.
            message: message of the rejection, for the errors of calls that cannot wait for the end of the pause.

        Returns:
            Seconds of the pause that this rejection starts; `None` if it starts none, or one was already in progress.
        """
        if not self._close(permit, now):
            return None
        was_paused = self.known_pause(permit.key, now).until > now
        kind, figure = (None, None) if named is None else (named.kind, named.limit)
        token_limit = None if permit.key is None else self._budgets[permit.key].limit
        if token_limit is not None and kind in {None, "tokens per minute"}:
            limit: TokenLimit | RequestRateLimit = token_limit
            before = limit.pause
            token_limit.rejected(permit, figure, backoff, now, message)
        else:
            if token_limit is not None:
                # Another limit rejected the request, so it counts no tokens here.
                token_limit.settle(permit, 0, now)
            limit = self._minute if kind == "requests per minute" else self._second
            before = limit.pause
            pause = KnownPause(now + backoff.seconds(1), message)
            limit.rejected(None if kind == "tokens per minute" else figure, pause, now)
            permit.flow.concurrency.overloaded(permit.at, now)
        if limit.pause.until > before.until:
            for waiting in [*self._queue]:
                self._dismiss_if_late(waiting, now)
        self.dispatch(now)
        return None if was_paused else limit.pause.left(now) or None

    def known_pause(self, key: Key | None, now: float, certain: int = 0) -> KnownPause:
        """The pause of requests with this key that ends last; it may already be over.

        With `certain`, it may also be the time until the given limits have room, if that ends later.

        Args:
            key: model and input type.
            now: the time.
            certain: low estimate of the request's tokens; 0 to consider only pauses.
        """
        budget = None if key is None else self._budgets.get(key)
        limits = (self._second, self._minute) if budget is None else (self._second, self._minute, budget.limit)
        pause = max(limit.pause for limit in limits)
        if certain > 0:
            # Even if all requests in flight turn out not to count.
            full = max(limit.window.fits_at(1, limit.given, now) for limit in (self._second, self._minute))
            # Not if a rejection named a lower limit: a request may exceed that one as a probe, and then the given limit too.
            if budget is not None and budget.limit.known >= budget.limit.given:
                # One that exceeds the limit is sent when nothing else counts.
                least = int(min(certain, budget.limit.given))
                full = max(full, budget.limit.window.fits_at(least, budget.limit.given, now))
            if full > pause.until:
                return KnownPause(full)
        return pause

    def pause_beyond(self, deadline: float, key: Key | None, certain: int, now: float) -> KnownPause | None:
        """The pause that lasts until the deadline of a request or longer; `None` if it may get a permit in time.

        Args:
            deadline: when the request must have a permit; infinite for no deadline.
            key: model and input type.
            certain: low estimate of the request's tokens.
            now: the time.
        """
        if math.isinf(deadline):
            return None
        pause = self.known_pause(key, now, max(1, certain))
        return pause if pause.outlasts(deadline, now) else None

    def wait_left(self, key: Key | None, now: float) -> float:
        """Seconds until pauses and request limits allow the next request with this key."""
        pause, requests_at = self.known_pause(key, now).left(now), self._requests_free_at(now)
        # `requests_at` is infinite if only a response can make room, because nobody knows when that comes.
        return pause if math.isinf(requests_at) else max(pause, requests_at - now)

    def known_tokens(self, key: Key) -> float:
        """Given or named limit in tokens per window; infinite if there is none."""
        budget = self._budgets.get(key)
        return (self._options.tokens(key) or math.inf) if budget is None else budget.limit.known

    def statistics(self, now: float) -> list[TokenStatistics]:
        """Limits and usage of each model and input type with requests so far, except idle ones that were dropped."""
        return [budget.limit.statistics(*key, budget.waiting, now) for key, budget in self._budgets.items()]

    def _requests_free_at(self, now: float) -> float:
        in_flight = len(self._open)
        return max(self._second.free_at(in_flight, now), self._minute.free_at(in_flight, now))

    def _may_pass_by(self, permit: LimiterPermit, budget: Budget | None, now: float) -> bool:
        """Whether a request may be sent at once if nothing waits, because it takes no tokens that others may need."""
        flow = permit.flow
        if not flow.concurrency.has_room(flow.priority, now) or self._requests_free_at(now) > now:
            return False
        return budget is None or budget.limit.has_plenty(permit.want, now)

    def _grant_next(self, now: float) -> bool:
        """Grant the first permit that can be granted, or else dismiss what is too late; return whether there was any."""
        self._short_of_tokens.clear()
        self.next_at = math.inf
        if not self._queue:
            return False
        requests_at = self._requests_free_at(now)
        groups = self._queue.groups(now)
        # The keys and priorities whose requests have to wait.
        blocked: set[tuple[Key, Priority]] = set()
        for place, group in enumerate(groups):
            room = self._room(group, requests_at, blocked, now)
            if room is not None:
                permit = group.permit
                self._grant(permit, room, now)
                self._queue.serve(groups, place, room, now)
                if permit.key is not None:
                    self._budgets[permit.key].sent(permit)
                return True
        # Not `any`, which would stop at the first.
        return True in [self._dismiss_if_late(group.permit, now) for group in groups]

    def _room(self, group: Group, requests_at: float, blocked: set[tuple[Key, Priority]], now: float) -> int | None:
        """The tokens that the first request of a group may have; `None` if it has to wait, and perhaps block others."""
        permit = group.permit
        flow, key, priority = permit.flow, permit.key, permit.flow.priority
        if not flow.concurrency.has_room(priority, now, has_aged=group.has_aged(now)):
            return None
        if requests_at > now:
            self.next_at = min(self.next_at, requests_at)
            return None
        if key is None:
            # The request needs no tokens.
            return permit.want
        if (key, priority) in blocked:
            return None
        budget = self._budgets[key]
        forecast = self._forecast(group, budget, now)
        room, at = budget.limit.room(permit.want, permit.least, now, forecast)
        if room:
            at = self._grace_ends(flow, budget, room, now)
            if at <= now:
                return room
            blocked.add((key, priority))
        else:
            self._short_of_tokens.add(budget.limit)
            blocked.add((key, "bulk"))
            if forecast is None:
                # Later requests that need the same tokens must not overtake it.
                blocked.add((key, "interactive"))
            else:
                # After a window without interactive requests, no more are expected.
                at = min(at, max(forecast.over_at, budget.limit.room(permit.want, permit.least, now)[1]))
        self.next_at = min(self.next_at, at)
        return None

    def _grace_ends(self, flow: Flow, budget: Budget, room: int, now: float) -> float:
        """Until when a request with room waits for the next request of a flow that has received less; `now` for no wait.

        Each flow has only one request waiting at a time. Without the grace period, two flows would alternate regardless of
        the sizes of their requests, whenever tokens for several requests come free at once.
        """
        if budget.limit.used(now) + room <= (1 - PLENTY) * budget.limit.limit:
            return now
        recent = [(at + GRACE, other) for at, other in budget.permits if now < at + GRACE]
        return max([now, *(end for end, other in recent if other.in_flight and self._queue.is_behind(other, flow))])

    def _forecast(self, group: Group, budget: Budget, now: float) -> Forecast | None:
        """The forecast of interactive demand for which a request must leave tokens free; `None` if there is none.

        If interactive calls ask for more than their share, or if the smallest part of the request would hardly ever fit
        beside them, aged bulk work is served at their expense.
        """
        permit, limit = group.permit, budget.limit.known
        if permit.flow.priority == "interactive" or math.isinf(limit) or budget.limit.source == "found":
            return None
        if group.has_aged(now):
            is_large = smallest_part(permit.want, permit.least, limit) > limit * (1 - KEPT_AT_MOST) / 2
            if is_large or budget.demand.is_over_share(limit, now):
                return None
        return budget.demand.forecast(limit, now)

    def _grant(self, permit: LimiterPermit, tokens: int, now: float) -> None:
        flow, key = permit.flow, permit.key
        flow.concurrency.count(flow.priority, 1)
        flow.in_flight += 1
        if key is not None:
            budget = self._budgets[key]
            permit.is_probe = budget.limit.reserve(tokens, now)
            budget.permits.append((now, flow))
        permit.tokens, permit.at = tokens, now
        self._open.add(permit)
        self.decided.append(permit)

    def _dismiss_if_late(self, permit: LimiterPermit, now: float) -> bool:
        """Remove a request if it certainly gets no permit before its deadline; return whether it was removed."""
        permit.pause = self.pause_beyond(permit.deadline, permit.key, permit.certain, now)
        if permit.pause is None:
            return False
        self._remove(permit)
        self.decided.append(permit)
        return True

    def _remove(self, permit: LimiterPermit) -> None:
        """Remove a request from the queue if it is waiting."""
        if self._queue.remove(permit) and permit.key is not None:
            self._budgets[permit.key].count(permit, -1)

    def _close(self, permit: LimiterPermit, now: float, *, was_sent: bool = True) -> bool:
        """Remove a permit from the open ones; return whether it was open.

        A request that was sent goes on counting as long as the service may count it.
        """
        if permit not in self._open:
            return False
        self._open.remove(permit)
        permit.flow.in_flight -= 1
        permit.flow.concurrency.count(permit.flow.priority, -1)
        if was_sent:
            self._second.window.add(1, now)
            self._minute.window.add(1, now)
        return True
