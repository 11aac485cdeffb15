import math

import pytest

from pinecone_embed_async._rate_limit import Backoff, ConcurrencyLimiter, Flow
from pinecone_embed_async._rate_limit.named_limits import EAGER_PROBES
from pinecone_embed_async._rate_limit.permit import LimiterPermit
from pinecone_embed_async._rate_limit.token_limit import (
    JITTER,
    PATIENCE,
    SMALLEST_CUT,
    TokenLimit,
)

LENGTH = 60.0


FLOW = Flow(ConcurrencyLimiter(1), ("model", "passage"), "bulk")
PAUSE = Backoff(1.0, 1.0, lambda: 1.0)
"""A second, however often."""


class Sender:
    """Sends requests under a limit, with a clock of its own."""

    def __init__(self, given: int | None = None) -> None:
        self.limit = TokenLimit(LENGTH, given)
        self.now = 1000.0
        # The limits that were reported as found.
        self.found = list[int]()

    def send(self, tokens: int) -> LimiterPermit:
        is_probe = self.limit.reserve(tokens, self.now)
        return LimiterPermit(FLOW, FLOW.key, tokens, tokens, tokens=tokens, at=self.now, is_probe=is_probe)

    def accept(self, permit: LimiterPermit, billed: int | None = None) -> None:
        found = self.limit.accepted(permit, permit.tokens if billed is None else billed, self.now)
        self.found += [] if found is None else [found]

    def reject(self, permit: LimiterPermit, named: int | None = None, *, backoff: Backoff = PAUSE) -> None:
        self.limit.rejected(permit, named, backoff, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def room(self, want: int = 1000, least: int = 10) -> int:
        return self.limit.room(want, least, self.now)[0]

    def room_at(self, want: int = 1000, least: int = 10) -> float:
        return self.limit.room(want, least, self.now)[1]

    def fill(self, tokens: int) -> None:
        """Send a request that is accepted a tenth of a second later."""
        sent = self.send(tokens)
        self.pass_time(0.1)
        self.accept(sent)


def test_requests_that_fit_the_rest_of_the_window_are_sent_at_once() -> None:
    sender = Sender(10_000)
    for _ in range(10):
        assert sender.room() == 1000
        sender.send(1000)
    assert sender.room() == 0
    assert math.isinf(sender.room_at()), "it depends on responses"


def test_the_last_request_of_a_window_is_cut_to_the_rest() -> None:
    sender = Sender(10_000)
    sender.fill(9_400)
    assert sender.room() == 600
    assert sender.room(least=700) == 0


def test_requests_are_not_cut_to_crumbs() -> None:
    sender = Sender(10_000)
    sender.fill(9_950)
    assert sender.room(want=1000, least=10) == 0
    assert sender.room(want=16 * 50, least=10) == 50
    assert sender.room(want=16 * 51, least=10) == 0
    assert 1000 // SMALLEST_CUT > 50


def test_a_request_that_soon_fits_whole_is_not_cut() -> None:
    sender = Sender(10_000)
    sender.fill(9_400)
    sender.pass_time(LENGTH - PATIENCE * LENGTH / 2)
    assert sender.room() == 0
    assert sender.room_at() == pytest.approx(1000.1 + LENGTH)


def test_a_request_is_cut_rather_than_wait_for_more_than_half_a_second() -> None:
    sender = Sender(10_000)
    sender.accept(sender.send(9_400))
    sender.pass_time(LENGTH - 0.75)
    assert sender.room() == 600
    sender.pass_time(0.25)
    assert (sender.room(), sender.room_at()) == (0, 1000 + LENGTH)


def test_a_part_may_be_a_single_token() -> None:
    sender = Sender(10)
    sender.fill(9)
    assert sender.room(want=5, least=1) == 1


def test_there_is_plenty_up_to_half_of_a_known_limit() -> None:
    sender = Sender(10_000)
    sender.fill(4000)
    assert sender.limit.has_plenty(1000, sender.now)
    assert not sender.limit.has_plenty(1001, sender.now)


def test_there_is_no_plenty_during_a_pause_nor_beside_the_one_request_after_it() -> None:
    sender = Sender(10_000)
    sender.reject(sender.send(1000))
    assert not sender.limit.has_plenty(1000, sender.now)
    sender.pass_time(1)
    assert sender.limit.has_plenty(1000, sender.now)
    sender.send(1000)
    assert not sender.limit.has_plenty(1000, sender.now)


def test_a_request_larger_than_the_limit_has_a_window_to_itself() -> None:
    sender = Sender(1000)
    assert sender.room(want=5000, least=5000) == 1000
    sender.fill(10)
    assert sender.room(want=5000, least=5000) == 0
    when = sender.room_at(want=5000, least=5000)
    assert math.isfinite(when)
    sender.now = when
    assert sender.room(want=5000, least=5000) == 1000


def test_billed_tokens_count_instead_of_the_estimate() -> None:
    sender = Sender(10_000)
    sender.accept(sender.send(8000), billed=4000)
    assert sender.room(want=6000) == 6000
    sender.accept(sender.send(1000), billed=6000)
    assert sender.room() == 0


def test_a_reservation_given_back_leaves_everything_as_it_was() -> None:
    sender = Sender(10_000)
    sender.limit.unused(sender.send(10_000), sender.now)
    assert sender.limit.in_flight == 0
    assert sender.room(want=10_000) == 10_000


def test_while_no_limit_is_known_four_are_in_flight_and_one_more_for_sixteen_accepted() -> None:
    sender = Sender()
    sent = [sender.send(1000) for _ in range(4)]
    assert (sender.room(), sender.room_at()) == (0, math.inf)
    for one in sent:
        sender.accept(one)
    for _ in range(11):
        sender.fill(1000)
    assert sender.limit.most_in_flight == 4
    sender.fill(1000)
    assert sender.limit.most_in_flight == 5


def test_a_named_limit_is_learned() -> None:
    sender = Sender()
    for _ in range(9):
        sender.fill(1000)
    sender.reject(sender.send(2000), named=10_000)
    assert (sender.limit.limit, sender.limit.source) == (10_000, "named")
    # Others may have used the rest; after the pause one request at a time is sent.
    sender.pass_time(LENGTH * (1 + JITTER) + 1)
    sender.fill(1000)
    assert sender.room(want=20_000) == 9000


def test_a_rejection_explained_by_usage_pauses_until_that_is_free() -> None:
    sender = Sender()
    sender.fill(9_900)
    answered = sender.now
    sender.reject(sender.send(1000), named=10_000)
    assert answered + LENGTH < sender.limit.pause.until <= answered + LENGTH * (1 + JITTER)


def test_a_rejection_explained_by_usage_pauses_until_the_first_token_of_it_is_free() -> None:
    sender = Sender()
    sender.accept(sender.send(1))
    sender.pass_time(30.0)
    sender.accept(sender.send(9_899))
    sender.reject(sender.send(1000), named=10_000)
    assert 1000 + LENGTH < sender.limit.pause.until <= 1000 + LENGTH * (1 + JITTER)


def test_the_pause_until_usage_is_free_is_extended_by_at_most_a_second() -> None:
    sender = Sender()
    sender.accept(sender.send(9_900))
    sender.reject(sender.send(1000), named=10_000, backoff=Backoff(20.0, 20.0, lambda: 1.0))
    assert sender.limit.pause.until == 1000 + LENGTH + 1


def test_usage_explains_a_rejection_from_95_percent_of_the_limit_on() -> None:
    for tokens, is_explained in ((1000, True), (999, False)):
        sender = Sender()
        # Some of it by requests that have ended, and most by one in flight.
        sender.fill(500)
        sender.send(8000)
        sender.reject(sender.send(tokens), named=10_000)
        assert (sender.limit.pause.until > sender.now + 1) == is_explained


def test_a_rejection_that_asks_for_a_wait_pauses_for_no_longer_even_if_usage_explains_it() -> None:
    sender = Sender()
    sender.fill(9_900)
    sender.reject(sender.send(1000), named=10_000, backoff=asking(2.0))
    assert sender.limit.pause.until == sender.now + 2


def test_an_unexplained_rejection_pauses_briefly() -> None:
    sender = Sender()
    sender.fill(1000)
    sender.reject(sender.send(1000), named=10_000)
    assert sender.limit.pause.until == sender.now + 1


def test_a_named_limit_below_the_given_one_is_learned_and_a_higher_one_is_not() -> None:
    sender = Sender(10_000)
    sender.reject(sender.send(1000), named=20_000)
    assert (sender.limit.limit, sender.limit.source) == (10_000, "given")
    sender.reject(sender.send(1000), named=5_000)
    assert (sender.limit.limit, sender.limit.source) == (5_000, "named")


def test_a_named_limit_that_equals_the_given_one_counts_as_named_and_is_not_probed() -> None:
    sender = Sender(10_000)
    sender.reject(sender.send(1000), named=10_000)
    assert (sender.limit.limit, sender.limit.source) == (10_000, "named")
    sender.pass_time(5 * LENGTH)
    sender.fill(10_000)
    assert sender.room() == 0


def test_a_given_limit_is_not_probed_after_a_lower_one_was_named_and_raised() -> None:
    sender = Sender(10_000)
    sender.reject(sender.send(1000), named=5_000)
    sender.reject(sender.send(1000), named=20_000)
    sender.pass_time(5 * LENGTH)
    sender.fill(10_000)
    assert sender.room() == 0


@pytest.mark.parametrize(("more", "source"), [(-1, "named"), (0, "found"), (1, "found")])
def test_a_named_limit_replaces_a_higher_one_that_was_found(more: int, source: str) -> None:
    sender = sender_for_a_while()
    sender.reject(sender.send(1000))
    found = int(sender.limit.limit)
    sender.now = sender.limit.pause.until
    sender.reject(sender.send(1000), named=int(sender.limit.limit) + more)
    assert (sender.limit.source, sender.limit.limit) == (source, found + min(more, 0))


def test_after_a_rejection_and_its_pause_one_request_goes_at_a_time_until_accepted() -> None:
    sender = Sender(10_000)
    sender.reject(sender.send(1000))
    assert (sender.room(), sender.room_at()) == (0, sender.now + 1)
    sender.pass_time(1)
    assert sender.room() == 1000
    alone = sender.send(1000)
    assert (sender.room(), sender.room_at()) == (0, math.inf)
    sender.accept(alone)
    assert sender.room() == 1000


def test_a_burst_counts_once_and_the_pause_grows_with_each_burst() -> None:
    sender, backoff = Sender(10_000), Backoff(2.0, math.inf, lambda: 1.0)
    burst = [sender.send(100) for _ in range(5)]
    for one in burst:
        sender.pass_time(0.01)
        sender.reject(one, backoff=backoff)
    assert sender.limit.pause.until == pytest.approx(1000.01 + 2)
    for streak in (2, 3):
        sender.now = sender.limit.pause.until
        sender.reject(sender.send(100), backoff=backoff)
        assert sender.limit.pause.until == sender.now + 2.0**streak
    assert sender.limit.rejections == 7


def asking(seconds: float) -> Backoff:
    return Backoff(0.0, 0.0, lambda: 0.0, seconds)


def test_a_longer_retry_after_later_in_a_burst_is_obeyed() -> None:
    sender = Sender(10_000)
    first, second, third = (sender.send(100) for _ in range(3))
    sender.pass_time(0.1)
    sender.reject(first, backoff=asking(2.0))
    sender.reject(second, backoff=asking(30.0))
    sender.reject(third, backoff=asking(1.0))
    assert sender.limit.pause.until == sender.now + 30


def test_a_late_rejection_of_an_old_burst_does_not_pause_again() -> None:
    sender = Sender(10_000)
    first, late = sender.send(100), sender.send(100)
    sender.pass_time(0.1)
    sender.reject(first)
    sender.pass_time(1)
    sender.fill(100)
    sender.reject(late)
    assert not sender.limit.streak
    assert sender.room() == 1000


def test_a_request_sent_in_the_moment_of_a_rejection_belongs_to_the_next_burst() -> None:
    sender, backoff = Sender(10_000), Backoff(2.0, math.inf, lambda: 1.0)
    sender.reject(sender.send(100), backoff=asking(0.0))
    assert sender.room() == 1000
    again = sender.send(100)
    sender.pass_time(0.1)
    sender.reject(again, backoff=backoff)
    assert sender.limit.pause.until == sender.now + 4


def test_an_acceptance_of_a_request_sent_in_the_moment_of_a_rejection_ends_caution() -> None:
    sender = Sender(10_000)
    sender.reject(sender.send(100), backoff=asking(0.0))
    sender.accept(sender.send(100))
    assert not sender.limit.streak


def test_an_acceptance_of_a_request_sent_before_the_rejection_does_not_end_caution() -> None:
    sender = Sender(10_000)
    before, rejected = sender.send(100), sender.send(100)
    sender.pass_time(0.1)
    sender.reject(rejected)
    sender.accept(before)
    assert sender.limit.streak


def test_an_unnamed_limit_is_found_from_the_accepted_tokens() -> None:
    sender = Sender()
    for _ in range(80):
        sender.fill(1000)
        sender.pass_time(LENGTH / 40)
    used = sender.limit.used(sender.now)
    sender.reject(sender.send(1000))
    assert (sender.limit.limit, sender.limit.source) == (used, "found")
    sender.now = sender.limit.pause.until
    sender.reject(sender.send(1000))
    assert used / 2 <= sender.limit.limit < used


def test_a_guess_that_turns_out_too_low_is_dropped() -> None:
    sender = Sender()
    sender.fill(1000)
    sender.reject(sender.send(1000))
    assert sender.limit.source == "found"
    sender.now = sender.limit.pause.until
    # One request may exceed it.
    assert sender.room(want=50_000) == 50_000
    sender.fill(50_000)
    assert sender.limit.source == "unknown"


def test_after_a_guess_is_dropped_as_few_are_in_flight_as_at_the_beginning() -> None:
    sender = Sender()
    for _ in range(10):
        sender.fill(1000)
    reject_together(sender, 2)
    sender.now = sender.limit.pause.until
    sender.fill(1000)
    assert sender.limit.source == "unknown"
    for _ in range(15):
        sender.fill(1000)
    assert sender.limit.most_in_flight == 4


def test_a_guess_is_at_least_what_was_accepted_beside_the_rejection() -> None:
    sender = Sender()
    rejected, *beside = [sender.send(10_000) for _ in range(4)]
    sender.pass_time(0.1)
    sender.reject(rejected)
    for accepted, one in enumerate(beside, 1):
        sender.accept(one)
        assert (sender.limit.limit, sender.limit.source) == (10_000 * accepted, "found")


def test_a_second_guess_is_what_was_accepted_since_the_first() -> None:
    sender = Sender()
    sender.fill(5000)
    reject_together(sender, 2)
    sender.now = sender.limit.pause.until
    sender.fill(2000)
    sender.fill(4000)
    sender.reject(sender.send(1000))
    assert (sender.limit.limit, sender.limit.source) == (6000, "found")


def test_a_guess_that_holds_for_a_window_is_exceeded_no_more() -> None:
    sender = Sender()
    sender.fill(20_000)
    sender.reject(sender.send(1000), backoff=asking(LENGTH))
    sender.now = sender.limit.pause.until
    sender.fill(1000)
    sender.reject(sender.send(1000))
    sender.now = sender.limit.pause.until
    assert sender.room(want=50_000) < 50_000


@pytest.mark.parametrize(("seconds", "source"), [(53.5, "given"), (54.0, "found")])
def test_earlier_usage_may_explain_a_rejection_in_the_first_nine_tenths_of_a_window(seconds: float, source: str) -> None:
    sender = Sender(10_000)
    sender.accept(sender.send(1000))
    sender.pass_time(seconds)
    sender.reject(sender.send(1000))
    assert sender.limit.source == source


def test_a_guess_that_is_rejected_again_after_a_window_is_cut() -> None:
    sender = Sender()
    sender.fill(20_000)
    sender.reject(sender.send(1000))
    guessed = sender.limit.limit
    sender.now = sender.limit.pause.until
    sender.reject(sender.send(1000))
    assert sender.limit.limit == guessed, "tokens sent before the first request may have used the window up"
    sender.pass_time(LENGTH)
    sender.reject(sender.send(1000))
    assert sender.limit.limit < guessed


def sender_for_a_while() -> Sender:
    """A sender that has sent for more than a window, so that its usage of the last one is known."""
    sender = Sender()
    for _ in range(300):
        sender.fill(1000)
        sender.pass_time(LENGTH / 200)
    return sender


def reject_together(sender: Sender, requests: int) -> None:
    sent = [sender.send(1000) for _ in range(requests)]
    sender.pass_time(0.1)
    for one in sent:
        sender.reject(one)


def reject_one_of(sender: Sender, requests: int) -> None:
    """Send requests of which the first is rejected, and the others and the one after the pause are accepted."""
    lone, *beside = [sender.send(1000) for _ in range(requests)]
    sender.pass_time(0.1)
    sender.reject(lone)
    for one in beside:
        sender.accept(one)
    sender.now = sender.limit.pause.until
    assert sender.room() == 1000, "one request tests whether it was a limit"
    sender.fill(1000)


@pytest.mark.parametrize("requests", [1, 2, 8])
def test_a_spurious_rejection_leaves_everything_as_it_was(requests: int) -> None:
    sender = sender_for_a_while()
    in_flight = sender.limit.most_in_flight
    reject_one_of(sender, requests)
    assert (sender.limit.limit, sender.limit.source) == (math.inf, "unknown")
    assert sender.limit.most_in_flight >= in_flight
    assert sender.room(want=90_000) == 90_000


def test_a_spurious_rejection_leaves_a_found_limit_as_it_was() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    found = sender.limit.limit
    assert sender.limit.source == "found"
    sender.now = sender.limit.pause.until + LENGTH
    for _ in range(20):
        sender.fill(1000)
    reject_one_of(sender, 2)
    assert sender.limit.limit == found


def test_a_rejected_request_in_doubt_of_a_found_limit_does_not_cut_it_further() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    sender.now = sender.limit.pause.until + LENGTH
    while sender.room():
        sender.fill(1000)
        sender.pass_time(0.3)
    lone, beside = sender.send(1000), sender.send(1000)
    sender.pass_time(0.1)
    sender.accept(beside)
    sender.reject(lone)
    found = sender.limit.limit
    sender.now = sender.limit.pause.until
    assert sender.room() == 1000, "in doubt"
    doubting = sender.send(1000)
    sender.pass_time(0.1)
    sender.reject(doubting)
    assert sender.limit.limit == found
    sender.now = sender.limit.pause.until
    assert sender.room() == 0, "the limit is no longer in doubt"


def test_a_rejected_request_that_fits_a_found_limit_in_doubt_cuts_it_further() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    sender.now = sender.limit.pause.until + LENGTH
    sender.fill(1000)
    lone, beside = sender.send(1000), sender.send(1000)
    sender.pass_time(0.1)
    sender.accept(beside)
    sender.reject(lone)
    found = sender.limit.limit
    sender.now = sender.limit.pause.until
    sender.reject(sender.send(1000))
    assert sender.limit.limit < found


def test_each_burst_cuts_a_found_limit_and_an_acceptance_after_several_restores_nothing() -> None:
    sender = sender_for_a_while()
    limits = []
    for _ in range(3):
        sender.reject(sender.send(1000))
        limits.append(sender.limit.limit)
        sender.now = sender.limit.pause.until
    assert limits[0] > limits[1] > limits[2]
    sender.fill(1000)
    assert sender.limit.limit == limits[2]


def test_a_later_burst_cuts_a_found_limit_at_once() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    for _ in range(2):
        sender.now = sender.limit.pause.until + LENGTH
        sender.fill(1000)
        before = sender.limit.limit
        reject_together(sender, 2)
        once = sender.limit.limit
        sender.now = sender.limit.pause.until + LENGTH
        sender.reject(sender.send(1000))
        assert before > once > sender.limit.limit


def test_what_is_in_flight_does_not_count_as_accepted_when_a_found_limit_is_cut() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 2)
    sender.now = sender.limit.pause.until
    sender.fill(1000)
    before = sender.limit.limit
    sender.pass_time(2 * LENGTH)
    sender.send(int(before))
    sender.reject(sender.send(1000))
    assert sender.limit.limit == before / 2


def test_a_fourth_of_a_found_limit_is_sent_in_a_fourth_of_a_window() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    sender.now = sender.limit.pause.until + LENGTH
    sender.accept(sender.send(1))
    sent, fourth = [sender.send(1)], sender.limit.limit / 4
    while room := sender.room():
        sent.append(sender.send(room))
    total = 1 + sum(permit.tokens for permit in sent)
    assert fourth - 1000 / SMALLEST_CUT <= total <= fourth
    sender.limit.resize(sent[1], 500)
    assert sender.room() == 500 + int(fourth - total)


def test_a_found_limit_grows_while_work_waits_but_not_during_a_pause() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    found = sender.limit.limit
    sender.limit.waits(sender.now)
    sender.now = sender.limit.pause.until
    sender.limit.waited_until(sender.now)
    assert sender.limit.limit == found
    sender.limit.waits(sender.now)
    sender.pass_time(LENGTH)
    sender.limit.waited_until(sender.now)
    assert sender.limit.limit == pytest.approx(found * (1 + 0.02 * (1 + 1 / 32)) + 1.4 * 1000)


def test_a_found_limit_that_has_grown_to_the_given_one_is_dropped() -> None:
    sender = Sender(10_000)
    sender.fill(5000)
    sender.pass_time(LENGTH)
    sender.reject(sender.send(1000))
    assert sender.limit.source == "found"
    sender.now = sender.limit.pause.until
    sender.limit.waits(sender.now)
    sender.pass_time(12 * LENGTH)
    sender.limit.waited_until(sender.now)
    sender.fill(10)
    assert (sender.limit.limit, sender.limit.source) == (10_000, "given")


def test_a_burst_rejected_together_is_a_limit_even_if_the_next_request_is_accepted() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    sender.now = sender.limit.pause.until + 1
    sender.fill(1000)
    assert sender.limit.source == "found"


def test_a_found_limit_is_reported_once_when_sending_resumes() -> None:
    sender = sender_for_a_while()
    reject_together(sender, 4)
    assert not sender.found, "it may turn out not to be a limit"
    sender.now = sender.limit.pause.until + 1
    sender.fill(1000)
    assert sender.found == [int(sender.limit.limit)]
    sender.fill(1000)
    assert len(sender.found) == 1


def test_a_named_limit_is_not_reported_as_found() -> None:
    sender = named_sender()
    sender.now = sender.limit.pause.until + LENGTH
    sender.fill(10)
    assert not sender.found


def sender_to_a_bucket(sender: Sender | None = None) -> Sender:
    """A sender for which one request came free in three seconds after each of eight pauses."""
    sender = sender or Sender()
    for _ in range(50):
        sender.fill(1000)
    for _ in range(8):
        reject_together(sender, 2)
        sender.pass_time(2.8)
        sender.fill(1000)
    sender.reject(sender.send(1000))
    return sender


def test_an_even_refill_is_found_from_what_comes_free_after_the_pauses() -> None:
    sender = sender_to_a_bucket()
    assert sender.limit.source == "found"
    assert sender.limit.limit == pytest.approx(1000 * LENGTH / 3, rel=0.1)


def test_an_even_refill_is_measured_from_the_first_rejection_that_was_not_spurious() -> None:
    sender = Sender()
    reject_one_of(sender, 4)
    sender_to_a_bucket(sender)
    assert sender.limit.limit == pytest.approx(1000 * LENGTH / 3, rel=0.1)


def test_after_six_bursts_in_a_row_less_is_sent_at_once() -> None:
    sender = sender_to_a_bucket()
    for _ in range(5):
        sender.now = sender.limit.pause.until + 10 * LENGTH
        assert sender.room(want=90_000) == 90_000
        sender.reject(sender.send(1000))
    sender.now = sender.limit.pause.until + 10 * LENGTH
    assert sender.room(want=90_000) < 90_000


def test_billed_tokens_take_their_time_under_an_even_refill_instead_of_the_estimate() -> None:
    sender = sender_to_a_bucket()
    sender.pass_time(10)
    for _ in range(2):
        sender.accept(sender.send(1000))
    before = sender.room_at()
    sender.accept(sender.send(1000), billed=500)
    assert sender.room_at() - before == pytest.approx(500 / sender.limit.limit * LENGTH)


def test_requests_under_an_even_refill_are_whole_and_spaced_out() -> None:
    sender = sender_to_a_bucket()
    for _ in range(2):
        sender.pass_time(10)
        sender.fill(1000)
    # Lateness of one request is made up for.
    assert sender.room(want=1000) == 1000
    sender.fill(1000)
    assert sender.room(want=1000) == 0
    when = sender.room_at(want=1000)
    assert math.isfinite(when)
    assert when == pytest.approx(sender.now + 3, abs=0.5)
    sender.now = when
    assert sender.room(want=1000) == 1000


def test_an_unused_reservation_under_an_even_refill_takes_no_time() -> None:
    sender = sender_to_a_bucket()
    sender.pass_time(10)
    sender.fill(1000)
    before = sender.room_at()
    permit = sender.send(1000)
    sender.limit.resize(permit, 400)
    permit.tokens = 400
    sender.limit.unused(permit, sender.now)
    assert sender.room_at() == before


def test_a_found_limit_does_not_block_the_smallest_request() -> None:
    sender = Sender()
    sender.pass_time(LENGTH)
    sender.reject(sender.send(16))
    sender.now = sender.limit.pause.until + LENGTH
    sender.fill(16)
    assert sender.room(want=90_000, least=50_000) == 0
    when = sender.room_at(want=90_000, least=50_000)
    assert math.isfinite(when)
    sender.now = when
    assert sender.room(want=90_000, least=50_000) >= 50_000


def named_sender(limit: int = 10_000) -> Sender:
    sender = Sender()
    sender.fill(limit - 100)
    sender.reject(sender.send(1000), named=limit)
    sender.now = sender.limit.pause.until
    sender.fill(100)
    return sender


def test_a_probe_notices_that_a_named_limit_was_raised() -> None:
    sender = named_sender()
    sender.pass_time(4 * LENGTH)
    sender.fill(10_000)
    assert sender.room() == 1000, "a probe over the limit"
    probe = sender.send(1000)
    assert probe.is_probe
    assert sender.room() == 0, "one at a time"
    sender.accept(probe)
    assert (sender.limit.limit, sender.limit.source) == (math.inf, "unknown")
    for _ in range(15):
        sender.fill(1000)
    assert sender.limit.most_in_flight == 4, "as at the beginning"


def test_a_probe_is_sent_as_soon_as_it_is_due() -> None:
    sender = Sender()
    sender.reject(sender.send(1000), named=10_000)
    sender.pass_time(4 * LENGTH - 1)
    sender.accept(sender.send(10_000))
    assert (sender.room(), sender.room_at()) == (0, 1000 + 4 * LENGTH)
    sender.pass_time(1)
    assert sender.room() == 1000


def test_a_limit_named_again_after_a_probe_was_accepted_is_probed_half_as_often() -> None:
    sender = named_sender()
    sender.pass_time(4 * LENGTH)
    sender.fill(10_000)
    sender.accept(sender.send(1000))
    sender.reject(sender.send(1000), named=10_000)
    for windows, room in ((7, 0), (1, 1000)):
        sender.pass_time(windows * LENGTH)
        sender.fill(10_000)
        assert sender.room() == room


def test_a_probe_that_has_not_exceeded_the_limit_is_repeated_half_a_second_later() -> None:
    sender = named_sender()
    sender.pass_time(4 * LENGTH)
    full, probe = sender.send(10_000), sender.send(2000)
    sender.accept(full, billed=8000)
    sender.accept(probe)
    assert (sender.limit.limit, sender.room()) == (10_000, 0)
    assert sender.room_at() == sender.now + 0.5
    sender.pass_time(0.5)
    assert sender.room() == 1000


def test_a_probe_that_was_accepted_before_the_requests_beside_it_has_not_exceeded_the_limit() -> None:
    sender = named_sender()
    sender.pass_time(4 * LENGTH)
    full, probe = sender.send(10_000), sender.send(2000)
    assert (full.is_probe, probe.is_probe) == (False, True)
    sender.accept(probe)
    assert sender.limit.limit == 10_000


def test_a_rejected_probe_leaves_the_limit_and_the_next_comes_later() -> None:
    sender = named_sender()
    sender.pass_time(4 * LENGTH)
    sender.fill(10_000)
    sender.reject(sender.send(1000), named=10_000)
    assert sender.limit.source == "named"
    sender.now = sender.limit.pause.until
    sender.fill(100)
    sender.pass_time(5 * LENGTH)
    sender.fill(10_000)
    assert sender.room() == 0


def test_a_probe_is_not_mistaken_for_others_sent_at_the_same_time() -> None:
    sender = named_sender()
    sender.pass_time(4 * LENGTH)
    full, probe = sender.send(10_000), sender.send(1000)
    assert (full.is_probe, probe.is_probe) == (False, True)
    sender.pass_time(0.1)
    sender.accept(full)
    assert sender.room() == 0, "the probe is still in flight"
    sender.reject(probe, named=10_000)
    sender.now = sender.limit.pause.until
    sender.fill(10_000)
    assert sender.room() == 0, "and has shown that the limit holds"


def test_a_failed_or_unused_probe_makes_room_for_another() -> None:
    for how in ("failed", "unused"):
        sender = named_sender()
        sender.pass_time(4 * LENGTH)
        sender.fill(10_000)
        probe = sender.send(1000)
        if how == "failed":
            sender.limit.settle(probe, 1000, sender.now)
        else:
            sender.limit.unused(probe, sender.now)
        assert sender.send(1000).is_probe, how


def test_a_quota_that_was_halved_and_restored_is_back_within_a_window_or_two() -> None:
    sender = named_sender()
    sender.pass_time(LENGTH)
    sender.reject(sender.send(1000), named=5_000)
    for _ in range(2):
        sender.now = max(sender.now, sender.limit.pause.until) + LENGTH
        sender.fill(5_000)
        if sender.room():
            break
    probe = sender.send(1000)
    assert probe.is_probe
    sender.accept(probe)
    assert sender.limit.limit == math.inf
    assert EAGER_PROBES >= 2


def test_a_due_probe_wakes_nothing_while_a_limit_is_being_found() -> None:
    sender = named_sender()
    sender.pass_time(2 * LENGTH)
    sender.fill(3000)
    # Others use the quota as well.
    sender.reject(sender.send(1000), named=10_000)
    assert sender.limit.source == "found"
    sender.now = sender.limit.pause.until
    sender.fill(1000)
    assert sender.limit.source == "found", "a rejection that names a limit is not spurious"
    sender.pass_time(10 * LENGTH)
    sender.fill(int(sender.limit.limit))
    sender.fill(int(sender.limit.limit))
    when = sender.room_at()
    assert sender.room() == 0
    assert math.isfinite(when)
    assert when > sender.now


def test_waiting_for_the_limit_counts_and_waiting_for_responses_while_none_is_known_does_not() -> None:
    sender = Sender(1000)
    sender.fill(1000)
    sender.limit.waits(sender.now)
    sender.pass_time(7)
    known = sender.limit.statistics("m", "p", 1, sender.now)
    assert (known.waited, known.is_waiting) == (7, True)
    sender.limit.waited_until(sender.now)
    sender.pass_time(7)
    sender.limit.waited_until(sender.now)
    assert sender.limit.statistics("m", "p", 1, sender.now).waited == 7
    unknown = Sender()
    unknown.limit.waits(unknown.now)
    assert unknown.limit.statistics("m", "p", 1, unknown.now + 9).waited == 0


def test_waiting_for_the_end_of_a_pause_counts_although_no_limit_is_known() -> None:
    sender = Sender()
    first, late = sender.send(1000), sender.send(1000)
    sender.pass_time(0.1)
    sender.reject(first)
    sender.now = sender.limit.pause.until
    sender.fill(1000)
    sender.reject(late, backoff=asking(30.0))
    assert sender.limit.source == "unknown"
    sender.limit.waits(sender.now)
    assert sender.limit.statistics("m", "p", 1, sender.now).is_waiting
    sender.now = sender.limit.pause.until
    sender.limit.waited_until(sender.now)
    sender.limit.waits(sender.now)
    assert not sender.limit.statistics("m", "p", 1, sender.now).is_waiting


def test_statistics() -> None:
    sender = Sender(10_000)
    sender.fill(4000)
    sender.reject(sender.send(100))
    known = sender.limit.statistics("m", "p", 3, sender.now)
    assert (known.model, known.input_type, known.waiting) == ("m", "p", 3)
    assert (known.limit, known.source, known.used, known.window) == (10_000, "given", 4000, LENGTH)
    assert (known.rejections, known.paused) == (1, 1.0)
    assert Sender().limit.statistics("m", "p", 0, 0.0).limit is None


def test_repr() -> None:
    sender = Sender(10_000)
    sender.fill(4000)
    assert repr(sender.limit) == "<TokenLimit 4000 used, limit 10000 (given)>"
    sender.reject(sender.send(100))
    assert repr(sender.limit) == "<TokenLimit 4000 used, limit 10000 (given), one at a time until accepted>"
    assert repr(Sender().limit) == "<TokenLimit 0 used, no limit known (unknown)>"
