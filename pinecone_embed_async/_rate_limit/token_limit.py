"""The token limit of a model and input type: given, named by a rejection, or found by trial."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

from pinecone_embed_async._rate_limit.adaptive_limit import MEASURED, AdaptiveLimit, Refill
from pinecone_embed_async._rate_limit.named_limits import LimitProbe
from pinecone_embed_async._rate_limit.pauses import Backoff, KnownPause
from pinecone_embed_async._rate_limit.quota import TokenStatistics
from pinecone_embed_async._rate_limit.rejections import SpuriousRejections
from pinecone_embed_async._rate_limit.window import Window

if TYPE_CHECKING:
    from pinecone_embed_async._rate_limit.forecast import Forecast
    from pinecone_embed_async._rate_limit.permit import LimiterPermit

SMOOTHING = 4
"""Number of parts of a window: at most a fourth of a found limit is sent in a fourth of a window, so that independent
clients spread over the window. Source of this and the next numbers: `benchmarks/quota_simulation.py`."""

FIRST_IN_FLIGHT = 4
"""Initial maximum of requests in flight while no limit is known; as many are rejected when the limit is reached."""

ACCEPTED_PER_STEP = 16
"""Number of accepted requests after which one more may be in flight while no limit is known. This keeps the
rejections when the limit is reached few compared with the accepted requests."""

SMALLEST_CUT = 16
"""A request is not cut to less than one `SMALLEST_CUT`th of itself: it is better to wait for more tokens."""

PLENTY = 0.5
"""A request may be sent regardless of what others need if this fraction of the limit is still free afterwards. Half of a
limit is the most that is kept for interactive calls, and is enough to even out the shares of flows.
Source: `test_calls_of_a_client_share_...` in tests/rate_limit/test_limiter.py."""

PATIENCE = 1 / 120
"""Fraction of a window for which a request waits to be sent whole rather than cut."""

EXPLAINED = 0.95
"""Fraction of a named limit above which the client's own usage explains a rejection; below it, others use the quota
too."""

NOTHING_COMES = 6
"""Number of consecutive bursts of rejections that show that the limit does not refill evenly, or that a request is too large
for it. Then less is sent at once, as under a limit by windows."""

YOUTH = 0.9
"""Fraction of a window, from the first request on, in which a rejection may be due to earlier usage. It is less than a whole
window, because near its end the service's next window may have begun."""

JITTER = 1 / 60
"""Maximum fraction of a window by which waking is delayed if the time at which tokens come free is known, so that several
clients do not resume at the same moment."""


class TokenLimit:
    """The limit on tokens per window of one model and input type.

    Synchronous code that takes the time as an argument. An unknown limit is learned. If the message of a rejection names it,
    that limit is used. Otherwise the limit is found by trial: it starts below the usage at the time of a rejection and grows
    while work waits. If the requests beside and after a rejected one are accepted, the rejection was not due to a token
    limit. If tokens come free after each of the first pauses, the limit refills evenly, so requests are spaced out.

    Args:
        length: length of a window in seconds.
        given: tokens per window; `None` to learn them.

    Attributes:
        window: tokens of the requests that have ended.
        reserved: tokens of the requests without an outcome.
        in_flight: number of requests without an outcome.
        streak: number of bursts of rejections since the last acceptance of a request that was sent after a rejection; while
            there are any, only one request may be in flight.
        rejections: total number of rejections.
        pause: the pause; nothing is sent before its end.
        given: the given limit; infinite if there is none.
        known: the smaller of the given and the named limit; infinite if there is neither.
    """

    def __init__(self, length: float, given: int | None) -> None:
        self.window = Window(length)
        self.given: float = math.inf if given is None else given
        self._named, self.known = math.inf, self.given
        self._found = AdaptiveLimit(length)
        self._spurious = SpuriousRejections(length)
        # The found limit before the last burst of rejections.
        self._before = self._found
        self._refill = Refill(length)
        # Earliest time of the next request, if the limit refills evenly.
        self._paced_at = -math.inf
        self._probe = LimitProbe(length)
        # Requests accepted since the limit last became unknown.
        self._accepted = 0
        # Tokens accepted in total, and until sending resumed after the last pause.
        self._total = self._resumed = 0
        self._started = math.inf
        self._cut_at = -math.inf
        # Infinite while no work waits.
        self._waits_since = math.inf
        self._waited = 0.0
        self._is_reported = False
        # Whether the last request exceeded a found limit to test it.
        self._is_doubt = False
        self.reserved = self.in_flight = self.streak = self.rejections = 0
        self.pause = KnownPause()

    def __repr__(self) -> str:
        limit = "no limit known" if math.isinf(self.limit) else f"limit {self.limit:.0f}"
        state = ", one at a time until accepted" if self.streak else ""
        # The time is not known here, so what has expired but was not dropped yet still counts.
        return f"<TokenLimit {self.used(-math.inf)} used, {limit} ({self.source}){state}>"

    @property
    def limit(self) -> float:
        """The effective limit in tokens per window; infinite if none is known."""
        return min(self.known, self._found.tokens)

    @property
    def source(self) -> str:
        """The source of the limit."""
        if self._found.exists:
            return "found"
        if math.isinf(self.known):
            return "unknown"
        return "named" if self._named <= self.given else "given"

    @property
    def most_in_flight(self) -> float:
        """Maximum number of requests in flight, depending on what is known about the limit."""
        if self.streak:
            return 1
        if math.isinf(self.known) and not self._found.exists:
            return FIRST_IN_FLIGHT + self._accepted // ACCEPTED_PER_STEP
        return math.inf

    def used(self, now: float) -> int:
        """The tokens that count now."""
        return self.window.used(now) + self.reserved

    def has_plenty(self, tokens: int, now: float) -> bool:
        """Whether so much of the limit is free that `tokens` more may be sent regardless of what is kept for others."""
        if now < self.pause.until or self._found.exists or self.in_flight >= self.most_in_flight:
            return False
        return math.isinf(self.known) or self.used(now) + tokens <= (1 - PLENTY) * self.known

    def room(self, want: int, least: int, now: float, forecast: Forecast | None = None) -> tuple[int, float]:
        """The tokens that the next request may have, and when it may have any if nothing happens before.

        Args:
            want: tokens of the whole request.
            least: tokens of the smallest request that can be cut from it.
            now: the time.
            forecast: interactive demand for which to leave tokens free.

        Returns:
            The tokens: at most `want`, and 0 if the request has to wait. The time: `now` or later, and infinite if only a
            response can free tokens.
        """
        if now < self.pause.until:
            return 0, self.pause.until
        if self.in_flight >= self.most_in_flight:
            return 0, math.inf
        if self._found.is_even:
            when = max(self._paced_at, self._fits_known_at(want, now, forecast))
            return (want, now) if when <= now else (0, when)
        limit, short_limit = self.limit, math.inf
        if self._found.exists:
            # A found limit may be too low: it must not block the smallest possible request.
            limit = min(self.known, max(limit, least))
            short_limit = max(limit / SMOOTHING, min(want, limit))
        elif math.isinf(limit):
            return want, now
        whole_at = self._fits_at(want, limit, short_limit, now, forecast)
        is_doubt = self._may_doubt(now) and self._fits_known_at(want, now, forecast) <= now
        if whole_at <= now or is_doubt or self._may_probe(now):
            return want, now
        smallest = smallest_part(want, least, limit)
        part_at = self._fits_at(smallest, limit, short_limit, now, forecast)
        if whole_at - part_at <= self.window.length * PATIENCE:
            part_at = whole_at
        if part_at > now:
            return 0, part_at if self._found.exists else min(part_at, self._probe.next)
        free = min(limit - self.used(now), short_limit - self.window.used(now, 1 / SMOOTHING) - self.reserved)
        if forecast is not None:
            free -= self.window.kept(forecast, now)
        return int(max(smallest, free)), now

    def reserve(self, tokens: int, now: float) -> bool:
        """Count a request that is being sent; return whether it probes the limit."""
        is_probe = self._may_probe(now) and self.used(now) + tokens > self.limit
        if is_probe:
            self._probe.is_in_flight = True
        self._started = min(self._started, now)
        self._is_doubt = self._before.exists and self._may_doubt(now) and not self._fits(tokens, now)
        self.in_flight += 1
        if self._found.is_even:
            # The generic cell rate algorithm, ITU-T I.371: lateness by up to one request is made up for.
            start = max(self._paced_at, now - self._refill_time(self._found.step))
            self._paced_at = start + self._refill_time(tokens)
        self.reserved += tokens
        return is_probe

    def resize(self, permit: LimiterPermit, tokens: int) -> None:
        """Set the tokens reserved for a request that is being sent."""
        self._adjust_pace(tokens - permit.tokens)
        self.reserved += tokens - permit.tokens

    def unused(self, permit: LimiterPermit, now: float) -> None:
        """Release the tokens of a request that was not sent, and its time slot."""
        self._adjust_pace(-permit.tokens)
        self.settle(permit, 0, now)

    def accepted(self, permit: LimiterPermit, tokens: int, now: float) -> int | None:
        """Record that the service accepted a request, and the tokens that it counts for.

        Returns:
            The first limit found by trial, once, when sending resumes under it; otherwise `None`.
        """
        self.settle(permit, tokens, now)
        self._accepted += 1
        self._found.accepted(tokens)
        self._spurious.accepted(permit.at, tokens)
        if self.streak:
            self._resume(permit.at, tokens, now)
        self._total += tokens
        if permit.is_probe:
            if self.window.used(now) > self.known:
                self._named, self.known = math.inf, self.given
                self._accepted = 0
                self._probe.stop()
            else:
                # Other requests were in flight, so it may not have exceeded the limit.
                self._probe.inconclusive(now)
        if self._found.exists and (self.limit >= self.known or self._found.is_outgrown):
            self._found.forget()
            self._refill.reset()
        if not self._found.exists or self.streak or self._is_reported:
            return None
        self._is_reported = True
        return int(self.limit)

    def rejected(self, permit: LimiterPermit, named: int | None, backoff: Backoff, now: float, message: str = "") -> None:
        """Record that the service rejected a request, and therefore did not count it.

        Requests that were in flight together are rejected together. Only the first rejection of such a burst counts, unless
        the service asks for a longer pause with a later one.

        Args:
            permit: its permit.
            named: the limit named in the rejection; `None` if there is none.
            backoff: gives the length of the pause for a number of bursts in a row without an acceptance.
            now: the time.
            message: message of the rejection.
        """
        self.settle(permit, 0, now)
        self.rejections += 1
        is_first = permit.at >= self._cut_at
        before = self.known
        if named is not None:
            self._note_named(named, now, is_probe=permit.is_probe)
        is_explained = named is not None and self.used(now) + permit.tokens >= EXPLAINED * self.known
        self._suspect(permit, now, named=named, is_first=is_first)
        if is_first:
            self.streak += 1
            self._cut_at = now
            if self._is_news_of_the_limit(now, named, before, is_explained=is_explained):
                self._cut(permit.tokens, now)
        asked = backoff.retry_after is not None
        if is_first or asked:
            until = self._pause_end(backoff.seconds(self.streak), now, asked=asked, is_explained=is_explained)
            self.pause = max(self.pause, KnownPause(until, message))

    def waits(self, now: float) -> None:
        """Record that work waits for the limit from now on; waiting for the cap in flight does not count."""
        if now < self.pause.until or self.streak or not math.isinf(self.limit):
            self._waits_since = now

    def waited_until(self, now: float) -> None:
        """Record that work has waited until now; a found limit grows with that time."""
        self._waited += max(0.0, now - self._waits_since)
        self._found.grow(max(0.0, now - max(self._waits_since, self.pause.until)))
        self._waits_since = math.inf

    def statistics(self, model: str, input_type: str, waiting: int, now: float) -> TokenStatistics:
        """The limit and its usage now."""
        return TokenStatistics(
            model=model,
            input_type=input_type,
            limit=None if math.isinf(self.limit) else int(self.limit),
            source=self.source,
            used=self.used(now),
            window=self.window.length,
            waiting=waiting,
            is_waiting=self._waits_since < math.inf,
            waited=self._waited + max(0.0, now - self._waits_since),
            rejections=self.rejections,
            paused=self.pause.left(now),
        )

    def settle(self, permit: LimiterPermit, tokens: int, now: float) -> None:
        """End a request: count the tokens that the service may have counted, in place of those reserved."""
        self.in_flight -= 1
        self.reserved -= permit.tokens
        if permit.is_probe:
            self._probe.is_in_flight = False
        if tokens:
            # A rejected request keeps its time slot: the next one needs about as many tokens, which must refill first.
            self._adjust_pace(tokens - permit.tokens)
            self.window.add(tokens, now)

    def _fits_at(self, tokens: int, limit: float, short_limit: float, now: float, forecast: Forecast | None) -> float:
        """The time at which `tokens` more fit the limits; infinite if only a response can free tokens."""
        tokens += self.reserved
        short_at = self.window.fits_at(tokens, short_limit, now, 1 / SMOOTHING)
        if forecast is None:
            return max(short_at, self.window.fits_at(tokens, limit, now))
        return max(short_at, self.window.fits_beside_at(tokens, limit, forecast, now))

    def _fits_known_at(self, tokens: int, now: float, forecast: Forecast | None) -> float:
        """The time at which `tokens` more fit the given or named limit; infinite if only a response can free tokens."""
        return self._fits_at(tokens, self.known, math.inf, now, forecast)

    def _fits(self, tokens: int, now: float) -> bool:
        """Whether `tokens` more fit a found limit."""
        return self._fits_at(tokens, self.limit, max(self.limit / SMOOTHING, tokens), now, None) <= now

    def _refill_time(self, tokens: float) -> float:
        """Seconds in which `tokens` refill, if the limit refills evenly."""
        return tokens / self.limit * self.window.length

    def _adjust_pace(self, tokens: int) -> None:
        """Record that a request has `tokens` more than were reserved."""
        if self._found.is_even:
            self._paced_at += self._refill_time(tokens)

    def _may_probe(self, now: float) -> bool:
        return now >= self._probe.next and not self._found.exists

    def _is_young(self, now: float) -> bool:
        """Whether less than a window has passed since the first request: earlier usage is unknown."""
        return now - self._started < YOUTH * self.window.length

    def _may_doubt(self, now: float) -> bool:
        """Whether one request may exceed a found limit after a pause, to test whether that limit exists."""
        is_alone = self.streak > 0 and not self.in_flight
        # If the limit is not a guess, the requests beside the rejected one must have been accepted.
        return is_alone and (self._found.is_guess or self._spurious.are_likely(now))

    def _suspect(self, permit: LimiterPermit, now: float, *, named: int | None, is_first: bool) -> None:
        """Record a rejection that may turn out to be spurious; `streak` does not count it yet."""
        if named is not None or self._is_doubt:
            self._spurious.rule_out()
        elif is_first and not self.streak:
            self._spurious.begin(permit.at, permit.tokens, now)
            self._before = copy.copy(self._found)
        else:
            self._spurious.add(permit.at)

    def _resume(self, sent: float, tokens: int, now: float) -> None:
        """Resume after rejections, because a request was accepted."""
        if sent < self._cut_at:
            if self._found.is_guess:
                # It was in flight when another one was rejected, so the limit has room for it too.
                self._found.hold_at_least(self.window.used(now))
            return
        self.streak = 0
        if self._spurious.judge(now):
            # The reason was not a token limit, so restore the state before.
            self._found = self._before
            self._refill.reset()
            return
        if self._found.is_guess:
            # The request after the pause was accepted beyond a guessed limit.
            self._refill.accepted(tokens, now)
            if self._is_young(now):
                self._found.forget()
                self._accepted = 0
            elif not self._find_refilling(now, least=0):
                self._found.is_guess = False
        self._resumed = self._total

    def _is_news_of_the_limit(self, now: float, named: int | None, before: float, *, is_explained: bool) -> bool:
        """Whether a rejection means that the limit is lower than known, rather than used up."""
        if named is None:
            return self._found.exists or math.isinf(before) or not self._is_young(now)
        return not is_explained and named == before and not self._is_young(now)

    def _note_named(self, named: int, now: float, *, is_probe: bool) -> None:
        if named == self._named:
            if is_probe:
                self._probe.held(now)
            return
        if self.given <= named:
            self._probe.stop()
        else:
            self._probe.named(now, is_lower=named < self.known < math.inf)
        self._named, self.known = named, min(self.given, named)
        if self._found.exists and self._found.tokens > self.known:
            self._found.forget()

    def _cut(self, tokens: int, now: float) -> None:
        limit = self.limit
        is_young = self._is_young(now)
        if math.isinf(limit):
            self._refill.rejected(tokens, self._total, now)
            if not self._find_refilling(now, least=MEASURED * self._found.step):
                got = self._total - self._resumed if is_young else self.window.used(now)
                self._found.find(float(max(got, tokens)), now, is_guess=is_young)
        elif not (self._found.is_guess and is_young) and not self._is_doubt:
            # A rejected request that was sent to test the limit does not cut it: it shows only that the limit still holds.
            if self.streak >= NOTHING_COMES:
                self._found.is_even = False
            self._found.cut(limit, float(self.window.used(now)), tokens / SMALLEST_CUT, now)

    def _find_refilling(self, now: float, *, least: float) -> bool:
        """Start a limit that refills evenly, if one is detected and `least` tokens have come; return whether it started."""
        comes = self._refill.tokens(self._total, now, least=least)
        if comes is not None:
            self._found.find(comes, now, is_guess=False, is_even=True)
        return comes is not None

    def _pause_end(self, seconds: float, now: float, *, asked: bool, is_explained: bool) -> float:
        until = now + seconds
        less_at = self.window.fits_at(1, self.window.used(now), now)
        if not asked and not math.isinf(less_at):
            free_at = less_at + min(seconds, self.window.length * JITTER)
            if is_explained:
                # No tokens come free earlier.
                return max(until, free_at)
            if self._found.is_guess:
                return min(until, free_at)
        return until


def smallest_part(want: int, least: int, limit: float) -> int:
    """Tokens of the smallest part to which a request may be cut."""
    return max(1, int(min(max(least, want // SMALLEST_CUT), limit)))
