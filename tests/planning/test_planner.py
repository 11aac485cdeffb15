import math
import random
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinecone_embed_async import (
    AuthenticationError,
    DeadlineExceededError,
    EmbedError,
    InvalidRequestError,
    NotFoundError,
    RateLimitError,
    ServiceError,
    TransportError,
)
from pinecone_embed_async._planning import (
    Learned,
    LearnedLimits,
    PendingTexts,
    PlannedRequest,
    RequestLimits,
    RequestPlanner,
)
from pinecone_embed_async._planning.learned import REFUSAL_SECONDS, Refusals
from tests.clock import FakeClock
from tests.outcomes import SeenOutcomes, span

LENGTH = 64
Judge = Callable[[PlannedRequest], EmbedError | None]


def refused(status: int = 400, message: str = "no") -> InvalidRequestError:
    return InvalidRequestError(message, status=status)


class Job:
    """A planner with its collaborators, driven by a function that acts as the service."""

    def __init__(self, texts: Iterable[str], *, size: int = 96, learned: Learned | None = None, most: int = 10**6) -> None:
        texts = list(texts)
        self.learned = learned or Learned()
        limits = RequestLimits(inputs=size, sequence_length=LENGTH, tokens=10**9, bytes=most)
        learned_limits = LearnedLimits(limits, self.learned)
        self.outcomes = SeenOutcomes(len(texts))
        self.sent: list[PlannedRequest] = []
        self.clock = FakeClock()
        pending = PendingTexts(texts, learned_limits, self.outcomes, range(len(texts)))
        self.planner = RequestPlanner(pending, self.learned, b"{}", self.clock, len(texts) == 1)

    def take(self) -> PlannedRequest:
        request = self.take_within(math.inf)
        assert request is not None
        self.sent.append(request)
        return request

    def take_within(self, tokens: float) -> PlannedRequest | None:
        """Take the next request, cut to `tokens`; `None` if there is none, or even its first input has more."""
        request = self.planner.peek()
        if request is None or request.least_tokens > tokens:
            return None
        self.planner.take(request, tokens)
        return request

    def take_first(self) -> PlannedRequest:
        request = self.planner.peek()
        assert request is not None
        self.planner.take(request, 0)
        return request

    def run(self, judge: Judge, *, window: int = 1, seed: int = 0) -> None:
        """Run until nothing is left, with `window` requests in flight that are answered in random order."""
        draws = random.Random(seed)
        in_flight: list[PlannedRequest] = []
        while True:
            while len(in_flight) < window:
                unsent = self.planner.failed_unsent
                request = self.take_within(math.inf)
                if request is not None:
                    in_flight.append(request)
                    self.sent.append(request)
                elif unsent == self.planner.failed_unsent:
                    break
            if not in_flight:
                return
            answered = in_flight.pop(draws.randrange(len(in_flight)))
            error = judge(answered)
            if error is None:
                self.planner.embedded(answered)
            else:
                self.planner.failed(answered, error)

    @property
    def probes(self) -> int:
        return sum(request.is_probe for request in self.sent)


def refuses(*culprits: str, status: int = 400) -> Judge:
    return lambda request: refused(status) if set(request.texts) & set(culprits) else None


@settings(max_examples=200)
@given(
    st.integers(1, 120),
    st.sets(st.integers(0, 119), max_size=6),
    st.integers(1, 96),
    st.integers(1, 8),
    st.sampled_from([400, 413, 422]),
    st.integers(0, 9),
)
def test_refused_inputs_are_isolated_and_all_others_embedded(
    count: int, picked: set[int], size: int, window: int, status: int, seed: int
) -> None:
    culprits = sorted(index for index in picked if index < count)
    job = Job((str(index) for index in range(count)), size=size)
    job.run(refuses(*map(str, culprits), status=status), window=window, seed=seed)
    assert job.planner.job_error is None
    assert job.outcomes.failed_indices == culprits
    assert job.outcomes.embedded_count == count - len(culprits)
    assert job.probes <= 1
    if status == 413:
        return
    # Each refused input costs at most two requests per level of halving its request.
    extra = len(job.sent) - job.probes - math.ceil(count / size)
    assert extra <= 2 * len(culprits) * math.ceil(math.log2(max(2, min(size, count))))


@settings(max_examples=100)
@given(st.integers(2, 120), st.integers(1, 96), st.integers(1, 8), st.integers(0, 9))
def test_requests_too_large_in_total_are_halved_without_any_input_failing(
    count: int, size: int, window: int, seed: int
) -> None:
    job = Job((str(index % 10) for index in range(count)), size=size)
    job.run(lambda request: refused(413) if len(request.texts) > 5 else None, window=window, seed=seed)
    assert job.outcomes.embedded_count == count
    assert job.probes == 0


def test_later_requests_are_smaller_after_a_refusal_for_size() -> None:
    job = Job(["x" * 88] * 1000, most=9600)
    job.run(lambda request: refused(413) if request.load.bytes > 5000 else None)
    assert job.outcomes.embedded_count == 1000
    assert len(job.sent) == 1 + math.ceil(1000 / 48)


def test_an_input_limit_named_in_a_refusal_is_obeyed_and_remembered() -> None:
    message = "Input length '96' exceeded inputs limit of 40 for model 'm'"
    job = Job(str(index) for index in range(200))
    job.run(lambda request: refused(400, message) if len(request.texts) > 40 else None)
    assert job.outcomes.embedded_count == 200
    assert [len(request.texts) for request in job.sent] == [96, 40, 40, 16, 40, 40, 24]
    again = Job((str(index) for index in range(80)), learned=job.learned)
    again.run(lambda _: None)
    assert len(again.sent) == 2


@pytest.mark.parametrize("most", [0, 96, 1000])
def test_an_implausible_input_limit_is_an_ordinary_refusal(most: int) -> None:
    message = f"Input length '96' exceeded inputs limit of {most}"
    job = Job(str(index) for index in range(96))
    job.run(lambda request: refused(400, message) if "7" in request.texts else None)
    assert job.outcomes.failed_indices == [7]


def test_refused_parameters_end_the_job_after_one_probe() -> None:
    job = Job(str(index) for index in range(500))
    error = refused()
    job.run(lambda _: error, window=3)
    assert job.planner.job_error is error
    assert error.__notes__ == ["A short plain text was refused too: the cause is the parameters or the model, not an input."]
    assert job.probes == 1
    assert len(job.sent) == 4
    # Only the sent inputs are refused; the rest is not tried.
    assert job.outcomes.failed_count == 3 * 96
    assert job.outcomes.embedded_count == 0


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_refusal_ends_the_job_if_the_probe_is_refused_too(count: int) -> None:
    job = Job((str(index) for index in range(20)), size=10)
    requests, refusals = [job.take() for _ in range(count)], [refused() for _ in range(count)]
    for request, refusal in zip(requests, refusals, strict=True):
        job.planner.failed(request, refusal)
    job.planner.failed(job.take(), refused())
    assert job.planner.job_error is refusals[0]


def test_no_new_request_is_sent_while_the_probe_is_in_flight() -> None:
    job = Job((str(index) for index in range(500)), size=10)
    first, second = job.take(), job.take()
    job.planner.failed(first, refused())
    probe = job.take()
    assert probe.is_probe
    assert job.planner.peek() is None
    job.planner.failed(second, refused())
    assert job.planner.peek() is None
    job.planner.embedded(probe)
    # The second is held back: the cause of the first refusal may explain it too.
    halves = job.take(), job.take()
    assert [span(half) for half in halves] == [(0, 5), (5, 10)]
    assert job.planner.peek() is None
    for half in halves:
        job.planner.embedded(half)
    assert [span(job.take()), span(job.take())] == [(10, 15), (15, 20)]


def test_an_input_accepted_meanwhile_decides_like_the_probe() -> None:
    job = Job((str(index) for index in range(30)), size=10)
    first, second = job.take(), job.take()
    job.planner.failed(first, refused())
    probe = job.take()
    job.planner.embedded(second)
    assert span(job.take()) == (0, 5)
    job.planner.failed(probe, refused())
    assert job.planner.job_error is None


def test_an_inconclusive_probe_is_followed_by_halving() -> None:
    job = Job((str(index) for index in range(20)), size=20)
    first = job.take()
    job.planner.failed(first, refused())
    job.planner.failed(job.take(), TransportError("cut"))
    job.run(refuses("3"))
    assert job.outcomes.failed_indices == [3]


def test_a_probe_that_meets_a_job_error_ends_the_job() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    refusal = refused()
    job.planner.failed(job.take(), refusal)
    error = AuthenticationError("who?", status=401)
    job.planner.failed(job.take(), error)
    assert job.planner.job_error is error
    assert [failure.error for failure in job.outcomes.failures()] == [refusal]


def test_no_probe_once_these_parameters_have_been_accepted() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    job.run(lambda _: None)
    later = Job((str(index) for index in range(20)), size=10, learned=job.learned)
    later.run(refuses("3"))
    assert later.probes == 0
    assert later.outcomes.failed_indices == [3]


def test_no_probe_for_a_single_input() -> None:
    job = Job(["bad"])
    job.run(refuses("bad"))
    assert len(job.sent) == 1
    assert job.outcomes.failed_indices == [0]


@pytest.mark.parametrize("error", [AuthenticationError("who?", status=403), NotFoundError("where?", status=404)])
def test_a_job_error_stops_the_job_and_keeps_later_answers(error: EmbedError) -> None:
    job = Job((str(index) for index in range(40)), size=10)
    first, second, third = job.take(), job.take(), job.take()
    job.planner.failed(first, error)
    assert job.planner.peek() is None
    job.planner.embedded(second)
    job.planner.failed(third, refused())
    assert job.planner.peek() is None
    assert job.planner.job_error is error
    assert str(job.outcomes) == 10 * "f" + 10 * "e" + 10 * "f" + 10 * "."
    assert [type(failure.error) for failure in job.outcomes.failures()] == [type(error), InvalidRequestError]


def test_a_service_error_fails_only_the_inputs_of_its_request() -> None:
    job = Job((str(index) for index in range(40)), size=10)
    job.run(lambda request: ServiceError("down", status=500) if request.positions[0] == 10 else None)
    assert job.outcomes.failed_indices == list(range(10, 20))
    assert job.planner.job_error is None


@pytest.mark.parametrize("error", [InvalidRequestError("busy", status=409), TransportError("cut")])
def test_an_error_that_says_nothing_about_the_content_fails_its_request_without_a_search(error: EmbedError) -> None:
    job = Job((str(index) for index in range(20)), size=10)
    job.run(lambda request: error if request.positions[0] == 0 else None)
    assert len(job.sent) == 2
    assert str(job.outcomes) == 10 * "f" + 10 * "e"


def test_a_search_ends_even_if_a_part_of_its_request_fails_for_another_reason() -> None:
    job = Job("abcd")
    job.run(lambda _: None)
    job = Job("abcdefgh", size=4, learned=job.learned)
    for request in (job.take(), job.take()):
        job.planner.failed(request, refused())
    job.run(lambda request: ServiceError("down", status=500) if "a" in request.texts else None)
    assert str(job.outcomes) == "ffeeeeee"


def test_a_request_cancelled_when_the_job_ended_fails_its_inputs() -> None:
    job = Job("ab", size=1)
    request = job.take()
    late = DeadlineExceededError("late")
    job.planner.end(late)
    job.planner.failed(request, late)
    assert str(job.outcomes) == "f."


def test_an_estimate_is_renewed_by_what_bills_have_taught_meanwhile() -> None:
    job = Job(["x" * 100])
    request = job.take()
    assert request.load.tokens == 2 + 40
    job.learned.estimator.bytes_per_token = 5.0
    request.estimate()
    assert request.load.tokens == 2 + 20


def test_halves_not_sent_when_the_job_ended_stay_untried() -> None:
    job = Job((str(index) for index in range(40)), size=20)
    job.planner.embedded(job.take())
    job.planner.failed(job.take(), refused())
    job.planner.end(DeadlineExceededError("late"))
    assert job.planner.peek() is None
    assert job.outcomes.failed_count == 0


def test_a_job_that_ended_keeps_no_requests() -> None:
    job = Job("abcdefgh", size=4)
    first, second = job.take(), job.take()
    job.planner.failed(first, refused(413))
    job.planner.failed(second, refused())
    assert repr(job.planner) == "<RequestPlanner 2 parts, 1 suspended>"
    job.planner.end(DeadlineExceededError("late"))
    assert repr(job.planner) == "<RequestPlanner 0 parts, 0 suspended, ended by DeadlineExceededError>"


def test_a_cancelled_probe_fails_no_input() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    refusal = refused()
    job.planner.failed(job.take(), refusal)
    probe = job.take()
    late = DeadlineExceededError("late")
    job.planner.end(late)
    job.planner.failed(probe, late)
    assert job.outcomes.failed_indices == list(range(10))


def test_the_rest_of_a_cut_request_comes_next_whether_it_was_pending_or_a_part() -> None:
    job = Job((str(index) for index in range(40)), size=10)
    job.run(lambda _: None)
    job = Job((str(index) for index in range(40)), size=10, learned=job.learned)
    one = job.take().load.tokens // 10
    seen = [job.take_within(3 * one), job.take_within(one), job.take_within(one - 1)]
    assert [span(request) if request else None for request in seen] == [(10, 13), (13, 14), None]
    # Refilled, because it was never sent.
    assert [span(request) for request in (job.take(), job.take())] == [(14, 24), (24, 34)]
    # Its halves are parts: they keep their boundaries.
    job.planner.failed(job.sent[0], refused())
    parts = [job.take_within(2 * one), job.take(), job.take()]
    assert [span(request) for request in parts if request] == [(0, 2), (2, 5), (5, 10)]
    assert all(request.origin is job.sent[0] for request in parts if request)


def test_the_first_input_of_the_next_request_may_be_taken_alone() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    alone = job.take_first()
    assert span(alone) == (0, 1)
    assert span(job.take()) == (1, 11)


def test_the_request_ahead_stays_the_next() -> None:
    job = Job("abcdef", size=2)
    ahead = job.planner.peek()
    assert job.planner.peek() is ahead
    assert job.take() is ahead
    job.run(lambda _: None)
    assert [text for request in job.sent for text in request.texts] == [*"abcdef"]


def test_a_request_waiting_for_a_retry_is_cut_and_the_rest_comes_next() -> None:
    job = Job((str(index) for index in range(30)), size=10)
    first = job.take()
    one = first.load.tokens // 10
    job.planner.cut(first, 4 * one)
    assert (span(first), first.load.tokens) == ((0, 4), 4 * one)
    rest = job.take()
    assert (span(rest), rest.origin) == ((4, 10), first)
    assert span(job.take()) == (10, 20)
    job.planner.cut(rest, 10**6)
    assert span(rest) == (4, 10)
    job.planner.cut(rest, 0)
    assert span(rest) == (4, 5)
    assert span(job.take()) == (5, 10)


def test_the_probe_ahead_stays_the_same_and_needs_tokens_like_any_request() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    job.planner.failed(job.take(), refused())
    probe = job.planner.peek()
    assert probe is not None
    assert probe.is_probe
    assert job.planner.peek() is probe
    assert job.take_within(probe.load.tokens - 1) is None
    assert job.planner.peek() is probe
    assert job.take_first() is probe


def test_a_lasting_rejection_ends_the_job_and_keeps_embedded_inputs() -> None:
    job = Job((str(index) for index in range(40)), size=10)
    rejected = RateLimitError("too many", status=429)
    job.run(lambda request: rejected if request.positions[0] == 20 else None)
    assert job.planner.job_error is rejected
    assert job.outcomes.embedded_count == 20
    assert job.outcomes.failed_indices == list(range(20, 30))


@given(
    st.integers(1, 60), st.lists(st.integers(0, 80), min_size=1), st.sets(st.integers(0, 59), max_size=3), st.integers(0, 9)
)
def test_every_input_is_settled_once_however_requests_are_cut(
    count: int, rooms: list[int], culprits: set[int], seed: int
) -> None:
    job = Job((str(index) for index in range(count)), size=20)
    draws = random.Random(seed)
    while (ahead := job.planner.peek()) is not None:
        request = job.take_within(draws.choice(rooms))
        if request is None:
            assert job.planner.peek() is ahead
            request = job.take_first()
        if draws.random() < 0.3:
            job.planner.cut(request, draws.choice(rooms))
        if culprits & set(request.positions) and not request.is_probe:
            job.planner.failed(request, refused())
        else:
            job.planner.embedded(request)
    assert job.outcomes.is_settled
    assert job.outcomes.failed_indices == sorted(index for index in culprits if index < count)


def spoiled(count: int, culprits: int, seed: int, *, equal: bool) -> list[str]:
    """Texts, some of which are refused by their names."""
    places = random.Random(seed).sample(range(count), culprits)
    texts = [f"text {index}" for index in range(count)]
    for number, place in enumerate(places):
        texts[place] = "bad" if equal else f"bad {number}"
    return texts


def refuses_bad(request: PlannedRequest) -> EmbedError | None:
    return refused() if any(text.startswith("bad") for text in request.texts) else None


@pytest.mark.parametrize("seed", range(20))
def test_equal_refused_inputs_are_searched_for_once(seed: int) -> None:
    texts = spoiled(9600, 97, seed, equal=True)
    job = Job(texts)
    job.run(refuses_bad, window=8, seed=seed)
    assert len(job.sent) <= 130
    assert job.outcomes.failed_indices == [index for index, text in enumerate(texts) if text == "bad"]
    assert job.outcomes.embedded_count == 9600 - 97
    # A later call does not repeat the search.
    again = Job(texts, learned=job.learned)
    again.run(refuses_bad, window=8, seed=seed)
    assert len(again.sent) == 100
    assert again.planner.failed_unsent == 97
    assert again.outcomes.failed_indices == job.outcomes.failed_indices
    assert "not sent again" in str(again.outcomes.first_error())


def test_inputs_known_to_be_refused_are_removed_one_request_at_a_time() -> None:
    job = Job(["good", "bad"])
    job.run(refuses_bad)
    again = Job(["bad"] * 960, learned=job.learned)
    for steps in range(1, 11):
        assert again.planner.peek() is None
        assert again.planner.failed_unsent == 96 * steps
    assert again.planner.peek() is None
    assert again.planner.failed_unsent == 960
    assert len(again.outcomes.failures()) == 10


def test_what_another_call_finds_refused_is_removed_from_the_request_ahead() -> None:
    job = Job(["good", "bad 1"])
    job.run(refuses_bad)
    ahead = Job(["bad 2", "c"], learned=job.learned)
    assert ahead.planner.peek() is not None
    Job(["good", "bad 2"], learned=job.learned).run(refuses_bad)
    assert list(ahead.take().texts) == ["c"]
    assert ahead.planner.failed_unsent == 1


def test_a_search_ends_even_if_another_call_finds_its_refused_input_first() -> None:
    accepted = Job(["good"])
    accepted.run(refuses_bad)
    job = Job(["bad", *"bcdefgh"], size=4, learned=accepted.learned)
    for request in (job.take(), job.take()):
        job.planner.failed(request, refused())
    Job(["good", "bad"], learned=accepted.learned).run(refuses_bad)
    job.run(refuses_bad)
    assert str(job.outcomes) == "feeeeeee"
    assert job.planner.failed_unsent == 1


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["bad 1", "bad 2", "bad 3", *"abcdefgh"]), max_size=80), st.integers(1, 96), st.data())
def test_only_inputs_refused_alone_and_their_equals_fail(texts: list[str], size: int, data: st.DataObject) -> None:
    job = Job(texts, size=size)
    job.run(refuses_bad, window=data.draw(st.integers(1, 8)), seed=data.draw(st.integers(0, 9)))
    bad = [index for index, text in enumerate(texts) if text.startswith("bad")]
    if job.planner.job_error is None:
        assert job.outcomes.failed_indices == bad
        assert job.outcomes.embedded_count == len(texts) - len(bad)
    alone = {request.texts[0] for request in job.sent if len(request.texts) == 1}
    assert {texts[index] for index in job.outcomes.failed_indices} <= alone


@pytest.mark.parametrize("size", [2, 10])
def test_an_input_refused_alone_leaves_the_search_to_the_first_larger_request(size: int) -> None:
    accepted = Job(["good"])
    accepted.run(lambda _: None)
    job = Job((str(index) for index in range(30)), size=size, learned=accepted.learned)
    alone = job.take_first()
    job.planner.failed(alone, refused())
    job.planner.failed(job.take(), refused())
    half = size // 2
    assert [span(job.take()), span(job.take())] == [(1, 1 + half), (1 + half, 1 + size)]
    # New requests wait until the search has found its input.
    assert job.planner.peek() is None


def test_new_requests_follow_as_soon_as_the_search_has_found_its_input() -> None:
    accepted = Job(["good"])
    accepted.run(lambda _: None)
    job = Job((str(index) for index in range(8)), size=4, learned=accepted.learned)
    job.planner.failed(job.take(), refused())
    first, _ = job.take(), job.take()
    job.planner.failed(first, refused())
    alone, _ = job.take(), job.take()
    assert job.planner.peek() is None
    job.planner.failed(alone, refused())
    assert span(job.take()) == (4, 8)


def test_only_the_first_search_holds_new_requests_back() -> None:
    accepted = Job(["good"])
    accepted.run(lambda _: None)
    job = Job((str(index) for index in range(8)), size=2, learned=accepted.learned)
    job.planner.failed(job.take(), refused())
    bad, good = job.take(), job.take()
    job.planner.failed(bad, refused())
    job.planner.embedded(good)
    job.planner.failed(job.take(), refused())
    assert [span(job.take()) for _ in range(3)] == [(2, 3), (3, 4), (4, 6)]


def test_a_refusal_is_remembered_only_after_a_search_with_parameters_that_were_accepted() -> None:
    accepted = Job(["good"])
    accepted.run(lambda _: None)
    Job(["bad"], learned=accepted.learned).run(refuses_bad)
    assert accepted.learned.refusals.changes == 0
    job = Job(["bad", "good"])
    job.planner.failed(job.take(), refused())
    job.planner.failed(job.take(), TransportError("cut"))
    job.planner.failed(job.take(), refused())
    assert job.outcomes.failed_indices == [0]
    assert job.learned.refusals.changes == 0


def test_a_search_whose_finds_are_not_remembered_ends_with_its_last_input() -> None:
    job = Job(["bad", "b", "c", "d"], size=2)
    for request in (job.take(), job.take()):
        job.planner.failed(request, refused())
    # The probe tells nothing.
    job.planner.failed(job.take(), TransportError("cut"))
    bad, other = job.take(), job.take()
    job.planner.failed(bad, refused())
    assert job.planner.peek() is None
    job.planner.embedded(other)
    assert span(job.take()) == (2, 3)


def test_a_search_that_finds_nothing_releases_the_other_requests() -> None:
    job = Job((str(index) for index in range(60)), size=10)
    first = job.take()
    job.planner.failed(first, refused())
    job.run(lambda _: None, window=3)
    assert job.outcomes.embedded_count == 60


def test_a_refused_input_is_sent_again_after_ten_minutes() -> None:
    job = Job(["good", "bad"])
    job.run(refuses_bad)
    again = Job(["bad", "good"], learned=job.learned)
    again.clock.advance(REFUSAL_SECONDS)
    again.run(lambda _: None)
    assert str(again.outcomes) == "ee"
    assert again.planner.failed_unsent == 0


def test_refusals_expire_after_ten_minutes_and_beyond_ten_thousand() -> None:
    refusals = Refusals()
    refusals.add("a", b"{}", refused(message="no <input 3>"), now=100.0)
    found = refusals.find("a", b"{}", now=699.0)
    assert found is not None
    assert "<the input>" in str(found)
    assert (found.status, found.attempts) == (400, 0)
    assert refusals.find("a", b'{"x":1}', now=100.0) is None
    assert refusals.find("b", b"{}", now=100.0) is None
    assert refusals.find("a", b"{}", now=700.0) is None
    for number in range(10_005):
        refusals.add(str(number), b"{}", refused(), now=0.0)
    assert refusals.find("4", b"{}", now=0.0) is None
    assert refusals.find("5", b"{}", now=0.0) is not None
    # Refused once more, it is the last to be forgotten.
    refusals.add("5", b"{}", refused(), now=0.0)
    refusals.add("a", b"{}", refused(), now=0.0)
    assert refusals.find("5", b"{}", now=0.0) is not None
    assert refusals.find("6", b"{}", now=0.0) is None
    assert b"secret" not in repr(vars(refusals)).encode()


def test_two_clients_store_different_digests_of_the_same_text() -> None:
    one, other = Refusals(), Refusals()
    for refusals in (one, other):
        refusals.add("a", b"{}", refused(), now=0.0)
    assert set(one._errors) != set(other._errors)
