"""How many tokens may be sent now under one limit: given, named by a rejection, or found by trying."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinecone_embed_async._limits._found import FoundLimit
from pinecone_embed_async._limits._refill import MEASURED, Pace, Refill
from pinecone_embed_async._limits._strays import Strays
from pinecone_embed_async._limits._trials import Trials
from pinecone_embed_async._limits._window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async._limits._reserve import Forecast

SMOOTHING = 4
"""Of a found limit, no more than a fourth goes out in a fourth of a window, so that several clients that know nothing of
each other spread over the window. Source of this and the next figures: `benchmarks/quota_simulation.py`."""

FIRST_IN_FLIGHT = 4
"""Requests in flight at first while no limit is known: as many are rejected when it is met."""

ACCEPTED_PER_STEP = 16
"""Accepted requests after which one more may be in flight while no limit is known, so that those that are rejected when it
is met stay few beside those that were accepted."""

SMALLEST_CUT = 16
"""A request is not cut to less than this part of itself: rather than crumbs, nothing is sent until more is free."""

PATIENCE = 1 / 120
"""Part of a window for which a request waits to be sent whole rather than cut."""

EXPLAINED = 0.95
"""Part of a named limit from which what was counted here explains a rejection; below, others use it too."""

NOTHING_COMES = 6
"""Bursts of rejections in a row from which nothing comes free evenly any more, or a request is too large to be let through
at all: then less is sent at once, as under a window."""

YOUTH = 0.9
"""Part of a window, from the first request on, in which a rejection may be due to what others used before. Not all of it:
near its end the next window may have begun."""

JITTER = 1 / 60
"""Part of a window at most by which waking is put off when it is known when tokens come free, so that several clients do
not come back in the same moment."""


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """What is known and used of the tokens of a model and input type.

    Attributes:
        model: its name.
        input_type: `""` if requests carry none.
        limit: tokens in a window, as far as it is known; `None` if it is not.
        source: where the limit comes from: `"given"`, `"named"` by a rejection, `"found"` by trying, or `"unknown"`.
        used: tokens that count now, those of requests in flight included.
        window: seconds of a window.
        waiting: requests that wait for their turn.
        is_waiting: whether they wait for this limit, rather than for others in flight.
        waited: seconds in which requests had to wait for the limit.
        rejections: requests that the service rejected.
        paused: seconds that nothing will be sent for after a rejection.
    """

    model: str
    input_type: str
    limit: int | None
    source: str
    used: int
    window: float
    waiting: int
    is_waiting: bool
    waited: float
    rejections: int
    paused: float


class TokenLimit:
    """The tokens in a window that one model and input type have.

    Plain arithmetic, with the time passed in. What is not known is learned: a rejection's text names the limit; without a
    text it is found, by cutting what was used when a rejection came and growing again while work waits. A rejection that
    the requests beside it and after it do not share is for no limit of tokens. Where something comes free behind each of
    the first pauses, the limit refills evenly, and so requests are spaced out.

    Args:
        length: seconds of a window.
        given: tokens in a window; `None` if they are to be learned.
        first_in_flight: requests in flight at first while no limit is known.

    Attributes:
        window: what counts now.
        in_flight: requests that are not settled.
        streak: bursts of rejections since the last acceptance of a request that was sent after one.
        rejections: in all.
        paused_until: nothing is sent before.
    """

    __slots__ = (
        "_accepted",
        "_before",
        "_cut_at",
        "_first_in_flight",
        "_found",
        "_given",
        "_is_doubt",
        "_is_told",
        "_named",
        "_pace",
        "_refill",
        "_resumed",
        "_short",
        "_started",
        "_strays",
        "_total",
        "_trials",
        "_waited",
        "_waits_since",
        "in_flight",
        "paused_until",
        "rejections",
        "streak",
        "window",
    )

    def __init__(self, length: float, given: int | None, *, first_in_flight: int = FIRST_IN_FLIGHT) -> None:
        self.window = Window(length)
        self._short = Window(length / SMOOTHING)
        self._given = given
        self._named: int | None = None
        self._found = FoundLimit(length)
        self._strays = Strays(length)
        # The found limit before the last burst of rejections.
        self._before = self._found
        self._refill = Refill(length)
        self._pace = Pace()
        self._trials = Trials(length)
        self._first_in_flight = first_in_flight
        # Requests accepted since the last time that no limit was known.
        self._accepted = 0
        # Tokens accepted in all, and until sending went on after the last pause.
        self._total = self._resumed = 0
        self._started: float | None = None
        self._cut_at = -math.inf
        self._waits_since: float | None = None
        self._waited = 0.0
        self._is_told = False
        # Whether the last request was sent over a found limit in doubt of it.
        self._is_doubt = False
        self.in_flight = 0
        self.streak = 0
        self.rejections = 0
        self.paused_until = -math.inf

    def __repr__(self) -> str:
        limit = "no limit known" if math.isinf(self.limit) else f"limit {self.limit:.0f}"
        state = ", one at a time until accepted" if self.is_cautious else ""
        return f"<TokenLimit {self.window.settled + self.window.reserved} used, {limit} ({self.source}){state}>"

    @property
    def known(self) -> float:
        """The limit that was given or named, the smaller of both; infinite if neither was."""
        return min(
            math.inf if self._given is None else self._given,
            math.inf if self._named is None else self._named,
        )

    @property
    def limit(self) -> float:
        """Tokens in a window at most, by all that is known; infinite if nothing is."""
        return min(self.known, self._found.tokens)

    @property
    def source(self) -> str:
        """Where the limit comes from."""
        if self._found.exists:
            return "found"
        if self._named is not None and self.known == self._named:
            return "named"
        return "unknown" if self._given is None else "given"

    @property
    def is_cautious(self) -> bool:
        """Whether no more than one request is in flight, until one is accepted."""
        return self.streak > 0

    @property
    def most_in_flight(self) -> float:
        """Requests in flight at most, by what is known of the limit."""
        if self.is_cautious:
            return 1
        if math.isinf(self.limit):
            return self._first_in_flight + self._accepted // ACCEPTED_PER_STEP
        return math.inf

    def room(self, want: int, least: int, now: float, beside: Forecast | None = None) -> int:
        """Tokens that the next request may have now, at most `want`; 0 if it has to wait.

        Args:
            want: tokens of the whole request.
            least: tokens of the smallest request that can be cut off it.
            now: the time.
            beside: what is to stay free for others.
        """
        return self._look(want, least, now, beside)[0]

    def room_at(self, want: int, least: int, now: float, beside: Forecast | None = None) -> float | None:
        """When there will be room, as far as it depends on time alone; `None` if it depends on answers only."""
        return self._look(want, least, now, beside)[1]

    def reserve(self, tokens: int, now: float) -> bool:
        """Count a request that is being sent; says whether it is a trial of the limit."""
        is_trial = self.window.used(now) + tokens > self.limit and self._may_try(now)
        if is_trial:
            self._trials.is_under_way = True
        if self._started is None:
            self._started = now
        self._is_doubt = self._before.exists and self._may_doubt(now) and not self._fits(tokens, now)
        self.in_flight += 1
        if self._found.is_even:
            self._pace.send(self._refill_time(tokens), self._refill_time(self._found.step), now)
        self.window.reserve(tokens)
        self._short.reserve(tokens)
        return is_trial

    def adjust(self, reserved: int, tokens: int) -> None:
        """Count a request that is being sent with other tokens than were reserved."""
        self._adjust_pace(tokens - reserved)
        self.window.reserve(tokens - reserved)
        self._short.reserve(tokens - reserved)

    def unused(self, reserved: int, *, is_trial: bool) -> None:
        """Note that what was reserved is not sent."""
        self.in_flight -= 1
        self._adjust_pace(-reserved)
        self.window.release(reserved)
        self._short.release(reserved)
        self._end_trial(is_trial=is_trial)

    def settle(self, reserved: int, tokens: int, now: float) -> None:
        """Note that a request has ended, and how many tokens it may count for; what became of it is told behind that."""
        self.in_flight -= 1
        if tokens:
            # A rejected one keeps its place: for the next one as much has to come in again.
            self._adjust_pace(tokens - reserved)
        self.window.settle(reserved, tokens, now)
        self._short.settle(reserved, tokens, now)

    def failed(self, *, is_trial: bool) -> None:
        """Note that a request failed for another reason than this limit; it is settled."""
        self._end_trial(is_trial=is_trial)

    def accepted(self, sent: float, tokens: int, now: float, *, is_trial: bool) -> None:
        """Note that the service took a request; it is settled."""
        self._accepted += 1
        self._found.accepted(tokens)
        self._strays.accepted(sent, tokens)
        if self.is_cautious:
            self._resume(sent, tokens, now)
        self._total += tokens
        if is_trial:
            self._end_trial(is_trial=True)
            if self.window.settled > self.known:
                self._named = None
                self._accepted = 0
                self._trials.succeeded()
            else:
                # Others were under way, so it did not go over the limit for certain.
                self._trials.told_nothing(now)
        if self._found.exists and (self.limit >= self.known or self._found.is_outgrown):
            self._found.forget()
            self._refill.reset()

    def rejected(
        self,
        sent: float,
        tokens: int,
        now: float,
        *,
        named: int | None,
        backoff: Callable[[int], float],
        asked: bool,
        is_trial: bool,
    ) -> None:
        """Note that the service rejected a request; it is settled with 0 tokens.

        Requests that were in flight together are rejected together: only the first of such a burst counts, unless a later
        one is told to wait longer.

        Args:
            sent: when it was sent.
            tokens: that it would have counted for.
            now: the time.
            named: the limit that the rejection's text named; `None` if none.
            backoff: seconds to pause after that many bursts without an acceptance, jitter included.
            asked: whether the service asked for that pause.
            is_trial: whether it was a trial of the limit.
        """
        self.rejections += 1
        is_first = sent >= self._cut_at
        used = self.window.used(now)
        before = self.known
        self._end_trial(is_trial=is_trial)
        if named is not None:
            self._note_named(named, now, is_trial=is_trial)
        is_explained = named is not None and used + tokens >= EXPLAINED * self.known
        self._suspect(sent, tokens, now, named=named, is_first=is_first)
        if is_first:
            self.streak += 1
            self._cut_at = now
            if self._is_news_of_the_limit(now, named, before, is_explained=is_explained):
                self._cut(tokens, now)
        if is_first or asked:
            self._pause(backoff(self.streak), now, asked=asked, is_explained=is_explained)

    def advance(self, now: float) -> None:
        """Count the time since the last look, if work waited for tokens in it: a found limit grows by that."""
        if self._waits_since is not None:
            self._waited += now - self._waits_since
            self._found.grow(max(0.0, now - max(self._waits_since, self.paused_until)))
            self._waits_since = now

    def waits(self, now: float, *, is_waiting: bool) -> None:
        """Note whether work waits for its turn from now on; that few may be in flight while nothing is known is no limit."""
        is_limited = now < self.paused_until or self.is_cautious or not math.isinf(self.limit)
        self._waits_since = now if is_waiting and is_limited else None

    def take_found(self) -> int | None:
        """Tokens of the first limit that was found by trying, told once, when sending goes on under it; else `None`."""
        if self._is_told or self.is_cautious or not self._found.exists:
            return None
        self._is_told = True
        return int(self.limit)

    def statistics(self, model: str, input_type: str, waiting: int, now: float) -> TokenStatistics:
        """What is known and used now."""
        return TokenStatistics(
            model=model,
            input_type=input_type,
            limit=None if math.isinf(self.limit) else int(self.limit),
            source=self.source,
            used=self.window.used(now),
            window=self.window.length,
            waiting=waiting,
            is_waiting=self._waits_since is not None,
            waited=self._waited + (0 if self._waits_since is None else now - self._waits_since),
            rejections=self.rejections,
            paused=max(0.0, self.paused_until - now),
        )

    def _look(self, want: int, least: int, now: float, beside: Forecast | None) -> tuple[int, float | None]:
        """The room that there is now and, if there is none, when there will be."""
        if now < self.paused_until:
            return 0, self.paused_until
        if self.in_flight >= self.most_in_flight:
            return 0, None
        if self._found.is_even:
            when = max(self._pace.next, self._known_at(want, now, beside))
            return (want, now) if when <= now else (0, None if math.isinf(when) else when)
        is_found = self._found.exists
        # A found limit is a guess: it does not keep the smallest possible request back.
        limit = min(self.known, max(self.limit, least)) if is_found else self.limit
        short_limit = max(limit / SMOOTHING, min(want, limit)) if is_found else math.inf
        if math.isinf(limit):
            return want, now
        whole_at = self._fits_at(want, limit, short_limit, now, beside)
        if whole_at <= now or self._may_try(now):
            return want, now
        if self._may_doubt(now) and self._known_at(want, now, beside) <= now:
            return want, now
        smallest = smallest_part(want, least, limit)
        part_at = self._fits_at(smallest, limit, short_limit, now, beside)
        if whole_at - part_at <= self.window.length * PATIENCE:
            part_at = whole_at
        if part_at <= now:
            free = min(limit - self.window.used(now), short_limit - self._short.used(now))
            if beside is not None:
                free = max(smallest, free - self.window.kept(beside, now))
            return int(free), now
        when = min(part_at, math.inf if is_found else self._trials.next)
        return 0, None if math.isinf(when) else when

    def _fits_at(self, tokens: int, limit: float, short_limit: float, now: float, beside: Forecast | None) -> float:
        """When so many more are within the limits; infinite if that takes answers."""
        window = self.window
        main = window.fits_at(tokens, limit, now) if beside is None else window.fits_beside_at(tokens, limit, beside, now)
        short = self._short.fits_at(tokens, short_limit, now)
        return math.inf if main is None or short is None else max(main, short)

    def _known_at(self, tokens: int, now: float, beside: Forecast | None) -> float:
        """When so many more are within what was given or named, whatever was found; infinite if that takes answers."""
        return self._fits_at(tokens, self.known, math.inf, now, beside)

    def _fits(self, tokens: int, now: float) -> bool:
        """Whether so many more are within a found limit."""
        return self._fits_at(tokens, self.limit, max(self.limit / SMOOTHING, tokens), now, None) <= now

    def _refill_time(self, tokens: float) -> float:
        """Seconds in which so many come, if they come evenly."""
        return tokens / self.limit * self.window.length

    def _adjust_pace(self, tokens: int) -> None:
        """Note that a request has more tokens than it was sent for."""
        if self._found.is_even:
            self._pace.adjust(self._refill_time(tokens))

    def _may_try(self, now: float) -> bool:
        return now >= self._trials.next and not self._found.exists

    def _end_trial(self, *, is_trial: bool) -> None:
        if is_trial:
            self._trials.is_under_way = False

    def _is_young(self, now: float) -> bool:
        """Whether less than a window has passed since the first request: what was used before is not known here."""
        return self._started is None or now - self._started < YOUTH * self.window.length

    def _may_doubt(self, now: float) -> bool:
        """Whether one request may go over a found limit once a pause is over, to see whether it is one."""
        is_alone = self.is_cautious and not self.in_flight
        # Else those beside the rejected one did not share its rejection.
        return is_alone and (self._found.is_guess or self._strays.are_likely(now))

    def _suspect(self, sent: float, tokens: int, now: float, *, named: int | None, is_first: bool) -> None:
        """Note a rejection that may turn out to be a stray one; `streak` does not count it yet."""
        if named is not None or self._is_doubt:
            self._strays.dismiss()
        elif is_first and not self.streak:
            self._strays.begin(sent, tokens, now)
            self._before = copy.copy(self._found)
        else:
            self._strays.add(sent)

    def _resume(self, sent: float, tokens: int, now: float) -> None:
        """Go on after rejections, for a request was accepted."""
        if sent < self._cut_at:
            if self._found.is_guess:
                # It was under way when another one was rejected: the limit has room for it, too.
                self._found.hold_at_least(self.window.settled)
            return
        self.streak = 0
        if self._strays.judge(now):
            # No limit of tokens was the reason, so everything is as it was.
            self._found = self._before
            self._refill.reset()
            return
        if self._found.is_guess:
            self._doubt_guess(tokens, now)
        self._resumed = self._total

    def _doubt_guess(self, tokens: int, now: float) -> None:
        """Note that a request behind the pause was accepted over a guess."""
        self._refill.accepted(tokens, now)
        if self._is_young(now):
            self._found.forget()
            self._accepted = 0
        elif not self._find_refilling(now, least=0):
            self._found.confirm()

    def _is_news_of_the_limit(self, now: float, named: int | None, before: float, *, is_explained: bool) -> bool:
        """Whether a rejection tells that there is less than was known, rather than just that it is used up."""
        if named is None:
            return self._found.exists or math.isinf(before) or not self._is_young(now)
        return not is_explained and named == before and not self._is_young(now)

    def _note_named(self, named: int, now: float, *, is_trial: bool) -> None:
        if named == self._named:
            if is_trial:
                self._trials.held(now)
            return
        if self._given is not None and self._given <= named:
            self._trials.are_useless()
        else:
            self._trials.named(now, is_lower=named < self.known < math.inf)
        self._named = named
        if self._found.exists and self._found.tokens > self.known:
            self._found.forget()

    def _cut(self, tokens: int, now: float) -> None:
        limit = self.limit
        is_young = self._is_young(now)
        if math.isinf(limit):
            self._refill.rejected(tokens, self._total, now)
            if not self._find_refilling(now, least=MEASURED * self._found.step):
                got = self._total - self._resumed if is_young else self.window.settled
                self._found.find(float(max(got, tokens)), now, is_guess=is_young)
        elif not (self._found.is_guess and is_young) and not self._is_doubt:
            # Else it was sent in doubt of the limit, which stands.
            if self.streak >= NOTHING_COMES:
                self._found.doubt_evenness()
            self._found.cut(limit, float(self.window.settled), tokens / SMALLEST_CUT, now)

    def _find_refilling(self, now: float, *, least: float) -> bool:
        """Begin with a limit that refills evenly, if there is one and `least` tokens have come; says whether there is."""
        comes = self._refill.tokens(self._total, now, least=least)
        if comes is not None:
            self._found.find(comes, now, is_guess=False, is_even=True)
        return comes is not None

    def _pause(self, seconds: float, now: float, *, asked: bool, is_explained: bool) -> None:
        until = now + seconds
        oldest = self.window.next_release()
        if not asked and oldest is not None:
            free_at = oldest + min(seconds, self.window.length * JITTER)
            if is_explained:
                # Nothing comes free before.
                until = max(until, free_at)
            elif self._found.is_guess:
                until = min(until, free_at)
        self.paused_until = max(self.paused_until, until)


def smallest_part(want: int, least: int, limit: float) -> int:
    """Tokens of the smallest part that a request is cut to."""
    return max(1, int(min(max(least, want // SMALLEST_CUT), limit)))
