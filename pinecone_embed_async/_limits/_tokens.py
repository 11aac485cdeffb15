"""How many tokens may be sent now under one limit: given, named by a rejection, or found by trying."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pinecone_embed_async._limits._window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

CUT = 0.85
"""What is left of a found limit after a rejection. Source of this and the next figures: `benchmarks/quota_simulation.py`."""

GROWTH = 0.02
"""By how much a found limit grows in a window in which work waits for it. After `CALM` windows without a rejection it
doubles with each, so that a limit that was raised is found."""

CALM = 5
"""See `GROWTH`."""

GROWTH_REQUESTS = 1.4
"""What a found limit grows by beside that in a window, in requests: the same for all clients of a quota, so that their
shares meet."""

DEEP_CUT = 0.65
"""A found limit that was cut to less than this part of what it was grows by `RETURN` times as much in each further window:
what was cut that deep may come back."""

RETURN = 5.0
"""See `DEEP_CUT`."""

FADING = 0.94
"""What is left, after a window, of the memory of what a found limit was."""

SMOOTHING = 4
"""Of a found limit, no more than a fourth goes out in a fourth of a window, so that several clients that know nothing of
each other spread over the window."""

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

PROBE_WINDOWS = 4
"""Windows after which it is tried, with one request, whether a limit that was named still holds; doubled each time."""

EAGER_PROBES = 8
"""So many times it is tried after each window if a higher limit held before."""

YOUTH = 0.9
"""Part of a window, from the first request on, in which a rejection may be due to what others used before. Not all of it:
near its end the next window may have begun."""

FORGOTTEN = 64
"""A found limit that has grown to so many times itself is none."""


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
    text it is found, by cutting what was used when a rejection came and growing again while work waits.

    Args:
        length: seconds of a window.
        given: tokens in a window; `None` if they are to be learned.
        first_in_flight: requests in flight at first while no limit is known.
    """

    __slots__ = (
        "_accepted",
        "_before",
        "_cut_at",
        "_eager",
        "_found",
        "_found_at",
        "_grown",
        "_is_guess",
        "_named",
        "_probe_at",
        "_probe_every",
        "_probe_sent",
        "_resumed",
        "_short",
        "_started",
        "_step",
        "_total",
        "_waits_since",
        "first_in_flight",
        "given",
        "in_flight",
        "is_cautious",
        "last_acceptance",
        "paused_until",
        "rejections",
        "streak",
        "waited",
        "window",
    )

    def __init__(self, length: float, given: int | None, *, first_in_flight: int = FIRST_IN_FLIGHT) -> None:
        self.window = Window(length)
        self._short = Window(length / SMOOTHING)
        self.given = given
        self.first_in_flight = first_in_flight
        self._named: int | None = None
        self._found: float | None = None
        # Whether it was found in less than a window, so that it may be far too low.
        self._is_guess = False
        # Tokens accepted in all, and when sending went on after the last pause.
        self._total = self._resumed = 0
        # Seconds, since it was found, in which work waited for tokens.
        self._grown = 0.0
        self._found_at = -math.inf
        self._step = 0.0
        # What a found limit was before it was cut, perhaps several times.
        self._before = 0.0
        self._waits_since: float | None = None
        self._accepted = 0
        self._started: float | None = None
        self._cut_at = -math.inf
        self._probe_at = math.inf
        self._probe_every = 0.0
        self._eager = 0
        self._probe_sent: float | None = None
        self.in_flight = 0
        self.streak = 0
        self.rejections = 0
        self.is_cautious = False
        self.paused_until = -math.inf
        self.last_acceptance: float | None = None
        self.waited = 0.0

    def __repr__(self) -> str:
        limit = "no limit known" if math.isinf(self.limit) else f"limit {self.limit:.0f}"
        state = ", one at a time until accepted" if self.is_cautious else ""
        return f"<TokenLimit {self.window.settled + self.window.reserved} used, {limit} ({self.source}){state}>"

    @property
    def known(self) -> float:
        """The limit that was given or named, the smaller of both; infinite if neither was."""
        return min(
            math.inf if self.given is None else self.given,
            math.inf if self._named is None else self._named,
        )

    @property
    def limit(self) -> float:
        """Tokens in a window at most, by all that is known; infinite if nothing is."""
        if self._found is None:
            return self.known
        windows = self._grown / self.window.length
        if self._found < DEEP_CUT * self._before:
            rate = math.pow(RETURN, min(windows, 20)) - 1
        else:
            rate = windows + math.pow(2, min(windows - CALM, 60)) - math.pow(2, -CALM)
        return min(self.known, self._found * (1 + GROWTH * rate) + GROWTH_REQUESTS * self._step * windows)

    @property
    def source(self) -> str:
        """Where the limit comes from."""
        if self._found is not None:
            return "found"
        if self._named is not None and self.known == self._named:
            return "named"
        return "unknown" if self.given is None else "given"

    @property
    def most_in_flight(self) -> float:
        """Requests in flight at most, by what is known of the limit."""
        if self.is_cautious:
            return 1
        if math.isinf(self.limit):
            return self.first_in_flight + self._accepted // ACCEPTED_PER_STEP
        return math.inf

    def room(self, want: int, least: int, now: float) -> int:
        """Tokens that the next request may have now, at most `want`; 0 if it has to wait.

        Args:
            want: tokens of the whole request.
            least: tokens of the smallest request that can be cut off it.
            now: the time.
        """
        return self._look(want, least, now)[0]

    def room_at(self, want: int, least: int, now: float) -> float | None:
        """When there will be room, as far as it depends on time alone; `None` if it depends on answers only."""
        return self._look(want, least, now)[1]

    def reserve(self, tokens: int, now: float) -> None:
        """Count a request that is being sent."""
        used = self.window.used(now)
        if self._started is None:
            self._started = now
        if used + tokens > self.limit and self._may_probe(now):
            self._probe_sent = now
        self.in_flight += 1
        self.window.reserve(tokens)
        self._short.reserve(tokens)

    def adjust(self, reserved: int, tokens: int) -> None:
        """Count a request that is being sent with other tokens than were reserved."""
        self.window.reserve(tokens - reserved)
        self._short.reserve(tokens - reserved)

    def unused(self, reserved: int, sent: float) -> None:
        """Note that what was reserved is not sent."""
        self.in_flight -= 1
        self._end_probe(sent)
        self.window.release(reserved)
        self._short.release(reserved)

    def settle(self, reserved: int, tokens: int, now: float) -> None:
        """Note that a request has ended, and how many tokens it may count for; what became of it is told behind that."""
        self.in_flight -= 1
        self.window.settle(reserved, tokens, now)
        self._short.settle(reserved, tokens, now)

    def forget_in_flight(self, now: float) -> None:
        """Take everything in flight for counted."""
        self.in_flight = 0
        self._probe_sent = None
        for window in (self.window, self._short):
            window.settle(window.reserved, window.reserved, now)

    def accepted(self, sent: float, tokens: int, now: float) -> None:
        """Note that the service took a request; it is settled."""
        self.last_acceptance = now
        self._accepted += 1
        self._step = tokens if not self._step else 0.9 * self._step + 0.1 * tokens
        if self.streak:
            self._resume(sent, now)
        self._total += tokens
        if self._end_probe(sent):
            if self.window.settled > self.known:
                self._named = None
                self._accepted = 0
                self._probe_at = math.inf
            else:
                # Others were under way, so it did not go over the limit for certain.
                self._probe_at = now + self.window.length * PATIENCE
        if self._found is not None and (self.limit >= self.known or self.limit > FORGOTTEN * self._found):
            self._found = None

    def _resume(self, sent: float, now: float) -> None:
        """Go on after rejections, for a request was accepted."""
        is_later = sent >= self._cut_at
        if self._found is not None and self._is_guess:
            if not is_later:
                # It was under way when another one was rejected: the limit has room for it, too.
                self._found = max(self._found, float(self.window.settled))
            elif self._is_young(now):
                self._found = None
                self._accepted = 0
            else:
                self._is_guess = False
        if is_later:
            self._resumed = self._total
            self.streak = 0
            self.is_cautious = False

    def rejected(
        self,
        sent: float,
        tokens: int,
        now: float,
        *,
        named: int | None,
        backoff: Callable[[int], float],
        asked: bool,
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
        """
        self.rejections += 1
        is_first = sent >= self._cut_at
        used = self.window.used(now)
        before = self.known
        is_probe = self._end_probe(sent)
        if named is not None:
            self._note_named(named, now, is_probe=is_probe)
        is_explained = named is not None and used + tokens >= EXPLAINED * self.known
        if is_first:
            self.streak += 1
            self._cut_at = now
            if self._is_news_of_the_limit(now, named, before, is_explained=is_explained):
                self._cut(tokens, now)
        self.is_cautious = True
        if is_first or asked:
            pause = backoff(self.streak)
            until = now + pause
            oldest = self.window.next_release()
            if not asked and oldest is not None:
                # The jitter keeps several clients from coming back in the same moment.
                free_at = oldest + min(pause, self.window.length / 60)
                if is_explained:
                    # Nothing comes free before.
                    until = max(until, free_at)
                elif self._is_guess:
                    until = min(until, free_at)
            self.paused_until = max(self.paused_until, until)

    def advance(self, now: float) -> None:
        """Count the time since the last look, if work waited for tokens in it: a found limit grows by that."""
        if self._waits_since is not None:
            self.waited += now - self._waits_since
            self._grown += max(0.0, now - max(self._waits_since, self.paused_until))
            self._waits_since = now

    def failed(self, sent: float) -> None:
        """Note that a request failed for another reason than a limit; it is settled."""
        self._end_probe(sent)

    def waits(self, now: float, *, is_waiting: bool) -> None:
        """Note whether work waits for its turn from now on; that few may be in flight while nothing is known is no limit."""
        is_limited = now < self.paused_until or self.is_cautious or not math.isinf(self.limit)
        self._waits_since = now if is_waiting and is_limited else None

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
            waited=self.waited + (0 if self._waits_since is None else now - self._waits_since),
            rejections=self.rejections,
            paused=max(0.0, self.paused_until - now),
        )

    def _look(self, want: int, least: int, now: float) -> tuple[int, float | None]:
        """The room that there is now and, if there is none, when to look again."""
        if now < self.paused_until:
            return 0, self.paused_until
        if self.in_flight >= self.most_in_flight:
            return 0, None
        # A found limit is a guess: it does not keep the smallest possible request back.
        limit = self.limit if self._found is None else min(self.known, max(self.limit, least))
        short_limit = math.inf if self._found is None else max(limit / SMOOTHING, min(want, limit))
        if math.isinf(limit):
            return want, now
        whole_at = self._fits_at(want, limit, short_limit, now)
        if whole_at == now or self._may_probe(now) or self._may_doubt():
            return want, now
        smallest = max(1, int(min(max(least, want // SMALLEST_CUT), limit)))
        part_at = self._fits_at(smallest, limit, short_limit, now)
        if part_at == now and (whole_at is None or whole_at - now > self.window.length * PATIENCE):
            free = min(limit - self.window.used(now), short_limit - self._short.used(now))
            return int(free), now
        times = [whole_at, part_at if part_at != now else None, None if self._probe_sent is not None else self._probe_at]
        return 0, min((time for time in times if time is not None and not math.isinf(time)), default=None)

    def _fits_at(self, tokens: int, limit: float, short_limit: float, now: float) -> float | None:
        main, short = self.window.fits_at(tokens, limit, now), self._short.fits_at(tokens, short_limit, now)
        return None if main is None or short is None else max(main, short)

    def _may_probe(self, now: float) -> bool:
        return self._probe_sent is None and now >= self._probe_at and self._found is None

    def _end_probe(self, sent: float) -> bool:
        """Note that a request has ended; says whether it was the one that tried the limit."""
        if self._probe_sent is None or sent != self._probe_sent:
            return False
        self._probe_sent = None
        return True

    def _is_young(self, now: float) -> bool:
        """Whether less than a window has passed since the first request: what was used before is not known here."""
        return self._started is None or now - self._started < YOUTH * self.window.length

    def _may_doubt(self) -> bool:
        """Whether one request may go over a found limit that is a guess, once a pause is over."""
        return self._is_guess and self._found is not None and self.streak > 0 and not self.in_flight

    def _is_news_of_the_limit(self, now: float, named: int | None, before: float, *, is_explained: bool) -> bool:
        """Whether a rejection tells that there is less than was known, rather than just that it is used up."""
        if named is None:
            return self._found is not None or math.isinf(before) or not self._is_young(now)
        return not is_explained and named == before and not self._is_young(now)

    def _note_named(self, named: int, now: float, *, is_probe: bool) -> None:
        if named == self._named:
            if is_probe:
                if self._eager > 0:
                    self._eager -= 1
                else:
                    self._probe_every *= 2
                self._probe_at = now + self._probe_every
            return
        before = self.known
        self._named = named
        length = self.window.length
        if math.isinf(before) or named >= before:
            if math.isinf(self._probe_at) and self._probe_every:
                # It was tried whether it still holds, wrongly with success: the windows had changed.
                self._probe_every *= 2
            else:
                self._probe_every = PROBE_WINDOWS * length
        else:
            self._eager, self._probe_every = EAGER_PROBES, length
        self._probe_at = now + self._probe_every
        if self._found is not None and self._found > self.known:
            self._found = None

    def _cut(self, tokens: int, now: float) -> None:
        limit = self.limit
        got = float(self.window.settled)
        if math.isinf(limit):
            self._is_guess = self._is_young(now)
            self._found = max(float(self._total - self._resumed) if self._is_guess else got, float(tokens))
        elif self._is_guess and self._is_young(now):
            # What was sent in doubt was rejected: the guess stands.
            return
        else:
            self._before = max(limit, self._before * FADING ** ((now - self._found_at) / self.window.length))
            self._found = max(min(got, CUT * limit), limit / 2, float(tokens) / SMALLEST_CUT)
        self._grown = 0.0
        self._found_at = now
