"""Requests whose deadline comes before they can be sent at all are dismissed; those that might still be in time are not."""

import pickle
from typing import Any

import pytest

from pinecone_embed_async import DeadlineExceededError, RateLimitError
from pinecone_embed_async._rate_limit import Backoff, ConcurrencyLimiter, Flow, LimiterOptions
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.pauses import KnownPause
from pinecone_embed_async._rate_limit.permit import LimiterPermit
from pinecone_embed_async._rate_limit.rejections import NamedLimit

KEY = ("model", "passage")
ASKED = Backoff(1.0, 1.0, lambda: 0.0, retry_after=30.0)
START = 1000.0


class Bench:
    """A limiter with a clock set by the test."""

    def __init__(self, given: int | None = None, *, concurrency: int = 8, **options: Any) -> None:
        self.limiter = Limiter(LimiterOptions(given, **options))
        self.concurrency = ConcurrencyLimiter(concurrency)
        self.now = START

    def ask(
        self, want: int = 10, *, least: int = 1, lasts: float | None = None, certain: int = 1, key: str = "passage"
    ) -> LimiterPermit:
        """Ask for a permit of a new call, whose deadline is in so many seconds."""
        flow = Flow(self.concurrency, ("model", key), "bulk")
        request = LimiterPermit(flow, flow.key, want, least, certain=certain)
        if lasts is not None:
            request.deadline = self.now + lasts
        self.limiter.enqueue(request, self.now)
        return request

    def send(self, want: int = 10, key: str = "passage") -> LimiterPermit:
        permit = self.ask(want, key=key)
        assert permit.is_granted
        return permit

    def accept(self, want: int) -> None:
        self.limiter.accepted(self.send(want), want, self.now)

    def reject(self, permit: LimiterPermit, named: NamedLimit | None = None) -> None:
        self.limiter.rejected(permit, named, ASKED, self.now, "too many tokens")


def is_dismissed(request: LimiterPermit) -> bool:
    assert not request.is_granted
    return request.pause is not None


def test_a_request_that_comes_during_a_pause_that_outlasts_its_deadline_is_dismissed() -> None:
    bench = Bench()
    bench.reject(bench.send())
    bench.now += 10
    late, later, patient = bench.ask(lasts=20), bench.ask(lasts=20.1), bench.ask()
    assert late.pause == KnownPause(START + 30, "too many tokens")
    assert not is_dismissed(later)
    assert not is_dismissed(patient)
    assert bench.limiter.waiting({bench.concurrency}) == 2


def test_a_pause_dismisses_those_that_wait_already() -> None:
    bench = Bench(concurrency=1)
    permit = bench.send()
    late, later = bench.ask(lasts=29), bench.ask(lasts=31)
    bench.reject(permit)
    assert late in bench.limiter.decided
    assert is_dismissed(late)
    assert not is_dismissed(later)
    bench.now = START + 30
    bench.limiter.dispatch(bench.now)
    assert later.is_granted


def test_a_pause_that_is_just_over_dismisses_nothing() -> None:
    bench = Bench()
    bench.reject(bench.send())
    bench.now += 30
    assert bench.ask(lasts=0).is_granted


def test_the_pause_of_one_input_type_is_not_that_of_another() -> None:
    bench = Bench()
    bench.reject(bench.send())
    assert bench.ask(lasts=1, key="query").is_granted


def test_a_pause_for_too_many_requests_is_that_of_all() -> None:
    bench = Bench()
    bench.reject(bench.send(), NamedLimit("requests per second", 100))
    assert bench.ask(lasts=1, key="query").pause == KnownPause(START + 30, "too many tokens")


@pytest.mark.parametrize("named", [None, NamedLimit("requests per second", 100)])
@pytest.mark.parametrize("retry_after", [5.0, 30.0])
def test_the_rejection_named_is_the_one_that_began_the_pause(named: NamedLimit | None, retry_after: float) -> None:
    bench = Bench()
    first, second = bench.send(), bench.send()
    bench.reject(first, named)
    bench.limiter.rejected(second, named, Backoff(1.0, 1.0, lambda: 0.0, retry_after=retry_after), bench.now, "another")
    late = bench.ask(lasts=1)
    assert late.pause == KnownPause(START + 30, "too many tokens")


def test_a_window_that_frees_too_little_before_the_deadline_dismisses() -> None:
    bench = Bench(100)
    bench.accept(60)
    bench.now += 10
    bench.accept(40)
    # From 60 s after the first one on, there is room for 60 tokens, from 70 s on for 100.
    assert bench.ask(80, lasts=49, certain=10).pause == KnownPause(START + 60)
    assert not is_dismissed(bench.ask(80, lasts=51, certain=10))
    assert bench.ask(80, lasts=51, certain=61).pause == KnownPause(START + 70)


def test_a_request_with_more_tokens_than_the_limit_is_in_time_if_the_whole_window_is_free_by_its_deadline() -> None:
    bench = Bench(100)
    bench.accept(50)
    bench.now += 10
    bench.accept(50)
    late, later = (bench.ask(150, least=150, certain=150, lasts=lasts) for lasts in (60, 60.1))
    assert late.pause == KnownPause(START + 70)
    assert not is_dismissed(later)


def test_what_is_in_flight_may_come_back() -> None:
    bench = Bench(100)
    permit = bench.send(100)
    waiting = bench.ask(80, lasts=5, certain=10)
    assert not is_dismissed(waiting)
    bench.limiter.give_back(permit, bench.now)
    assert waiting.is_granted


def test_a_request_in_flight_may_not_have_counted_under_a_limit_of_requests() -> None:
    bench = Bench(requests_per_minute=1)
    permit = bench.send()
    waiting = bench.ask(lasts=5)
    assert not is_dismissed(waiting)
    bench.limiter.give_back(permit, bench.now)
    assert waiting.is_granted


def test_an_input_over_the_limit_waits_for_an_empty_window_only() -> None:
    bench = Bench(100)
    bench.accept(60)
    assert bench.ask(150, least=150, lasts=59, certain=150).pause == KnownPause(START + 60)
    assert not is_dismissed(bench.ask(150, least=150, lasts=61, certain=150))


def test_an_answer_that_fills_the_window_dismisses_those_that_wait_for_it() -> None:
    bench = Bench(100)
    permit = bench.send(100)
    late, patient = bench.ask(80, lasts=5, certain=10), bench.ask(80, lasts=61, certain=10)
    bench.limiter.accepted(permit, 100, bench.now)
    assert is_dismissed(late)
    assert not is_dismissed(patient)


def test_those_that_are_dismissed_wait_for_tokens_no_more_and_make_way_at_once() -> None:
    bench = Bench(100)
    permit = bench.send(60)
    late, small = bench.ask(100, least=61, lasts=5, certain=61), bench.ask(30)
    bench.limiter.accepted(permit, 60, bench.now)
    assert is_dismissed(late)
    assert small.is_granted
    # As a call does that is cancelled meanwhile.
    bench.limiter.give_back(late, bench.now)
    (known,) = bench.limiter.statistics(bench.now)
    assert (known.waiting, known.is_waiting) == (0, False)


def test_a_pause_dismisses_those_that_wait_behind_one_without_a_deadline() -> None:
    bench = Bench(100)
    permit, flow = bench.send(100), Flow(bench.concurrency, KEY, "bulk")
    requests = [LimiterPermit(flow, flow.key, 10, 10, deadline=deadline) for deadline in (float("inf"), START + 5)]
    for request in requests:
        bench.limiter.enqueue(request, bench.now)
    bench.reject(permit)
    assert [is_dismissed(request) for request in requests] == [False, True]


def test_a_request_whose_size_is_unknown_is_not_dismissed_while_a_single_token_is_free() -> None:
    bench = Bench(100)
    bench.accept(99)
    assert bench.ask(1, lasts=5, certain=0).is_granted
    assert is_dismissed(bench.ask(1, lasts=5, certain=2))


def test_a_pause_keeps_its_rejection_even_if_a_used_up_limit_lasts_as_long() -> None:
    bench = Bench(requests_per_minute=2)
    used, rejected = bench.send(), bench.send()
    bench.limiter.accepted(used, 10, bench.now)
    bench.limiter.rejected(rejected, None, Backoff(1.0, 1.0, lambda: 0.0, retry_after=60.0), bench.now, "too many tokens")
    assert bench.ask(lasts=5).pause == KnownPause(START + 60, "too many tokens")


def test_the_estimate_of_a_request_dismisses_nothing_while_it_may_turn_out_smaller() -> None:
    bench = Bench(100)
    bench.accept(60)
    assert not is_dismissed(bench.ask(90, least=90, lasts=5, certain=40))
    assert is_dismissed(bench.ask(90, least=90, lasts=5, certain=41))


def test_a_limit_that_was_learned_may_be_raised_at_any_time() -> None:
    bench = Bench()
    bench.reject(bench.send(), NamedLimit("tokens per minute", 100))
    bench.now += 30
    bench.accept(100)
    assert not is_dismissed(bench.ask(50, lasts=5, certain=50))


def test_a_given_number_of_requests_that_is_used_up_dismisses() -> None:
    bench = Bench(requests_per_minute=2)
    bench.accept(1)
    bench.accept(1)
    assert bench.ask(1, lasts=59).pause == KnownPause(START + 60)
    assert not is_dismissed(bench.ask(1, lasts=61))


def test_the_next_in_line_gets_what_the_dismissed_waited_for() -> None:
    bench = Bench(100)
    bench.accept(60)
    permit = bench.send(40)
    # It goes first, and would need what is in flight.
    late, small = bench.ask(100, lasts=5, certain=61), bench.ask(30)
    assert is_dismissed(late)
    bench.limiter.give_back(permit, bench.now)
    assert small.is_granted


def test_the_error_says_when_to_try_again_and_why() -> None:
    error = KnownPause(START + 30, "too many tokens").error(START)
    assert str(error) == "no request can be sent for 30.0 s, and the deadline of the call is earlier"
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was pickled here
    for one in (error, copy):
        assert isinstance(one, DeadlineExceededError)
        assert one.retry_after == 30
        assert isinstance(one.__cause__, RateLimitError)
        assert (one.__cause__.retry_after, str(one.__cause__)) == (30, "429: too many tokens")


@pytest.mark.parametrize("until", [START, START - 1, float("-inf")])
def test_the_error_after_a_pause_says_nothing_of_it(until: float) -> None:
    error = KnownPause(until, "too many tokens").error(START, "it is over")
    assert (str(error), error.retry_after, error.__cause__) == ("it is over", None, None)


def test_the_error_says_even_that_less_than_a_second_is_left() -> None:
    error = KnownPause(START + 0.5, "too many tokens").error(START)
    assert error.retry_after == 0.5
    assert isinstance(error.__cause__, RateLimitError)
