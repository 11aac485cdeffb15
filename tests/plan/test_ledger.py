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
from pinecone_embed_async._plan import Learned, Ledger, PlannedRequest, RequestLimits, Requests
from pinecone_embed_async._plan._refusals import MOST_REFUSALS, Refusals
from tests.outcomes import Outcomes

LENGTH = 64
Judge = Callable[[PlannedRequest], EmbedError | None]


def refused(status: int = 400, message: str = "no") -> InvalidRequestError:
    return InvalidRequestError(message, status=status)


class Job:
    """A ledger with what it needs, driven by a service that is a function."""

    def __init__(self, texts: Iterable[str], *, size: int = 96, learned: Learned | None = None, most: int = 10**6) -> None:
        texts = list(texts)
        self.learned = learned or Learned()
        limits = RequestLimits(inputs=size, sequence_length=LENGTH, tokens=10**9, bytes=most)
        self._requests = Requests(texts, lambda: self.learned.applied_to(limits))
        self.outcomes = Outcomes(len(texts))
        self.sent: list[PlannedRequest] = []
        self.ledger = Ledger(
            self._requests,
            self.outcomes,
            limits=lambda: self.learned.applied_to(limits),
            learned=self.learned,
            parameters=b"{}",
            is_single=len(texts) == 1,
        )

    def take(self) -> PlannedRequest:
        request = self.ledger.take()
        assert request is not None
        self.sent.append(request)
        return request

    def run(self, judge: Judge, *, window: int = 1, seed: int = 0) -> None:
        """Until nothing is left, with `window` requests under way that are answered in any order."""
        draws = random.Random(seed)
        under_way: list[PlannedRequest] = []
        while True:
            while len(under_way) < window and ((request := self.ledger.take()) is not None or self.ledger.is_sifting):
                if request is not None:
                    under_way.append(request)
                    self.sent.append(request)
            if not under_way:
                return
            answered = under_way.pop(draws.randrange(len(under_way)))
            error = judge(answered)
            if error is None:
                self.ledger.embedded(answered)
            else:
                self.ledger.failed(answered, error)

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
def test_culprits_are_found_and_all_others_embedded(
    count: int, picked: set[int], size: int, window: int, status: int, seed: int
) -> None:
    culprits = sorted(index for index in picked if index < count)
    job = Job((str(index) for index in range(count)), size=size)
    job.run(refuses(*map(str, culprits), status=status), window=window, seed=seed)
    assert job.ledger.job_error is None
    assert job.outcomes.failed_indices == culprits
    assert job.outcomes.account.embedded_count == count - len(culprits)
    assert job.probes <= 1
    if status == 413:
        return
    # Each culprit costs at most two requests a level of its own request's halving.
    extra = len(job.sent) - job.probes - math.ceil(count / size)
    assert extra <= 2 * len(culprits) * math.ceil(math.log2(max(2, min(size, count))))


@settings(max_examples=100)
@given(st.integers(2, 120), st.integers(1, 96), st.integers(1, 8), st.integers(0, 9))
def test_requests_too_large_in_total_are_halved_without_any_input_failing(
    count: int, size: int, window: int, seed: int
) -> None:
    job = Job((str(index % 10) for index in range(count)), size=size)
    job.run(lambda request: refused(413) if len(request.texts) > 5 else None, window=window, seed=seed)
    assert job.outcomes.account.embedded_count == count
    assert job.probes == 0


def test_after_one_refusal_by_size_later_requests_are_smaller() -> None:
    job = Job(["x" * 88] * 1000, most=9600)
    job.run(lambda request: refused(413) if request.bytes > 5000 else None)
    assert job.outcomes.account.embedded_count == 1000
    assert len(job.sent) == 1 + math.ceil(1000 / 48)


def test_a_limit_of_inputs_in_the_refusal_is_obeyed_and_remembered() -> None:
    message = "Input length '96' exceeded inputs limit of 40 for model 'm'"
    job = Job(str(index) for index in range(200))
    job.run(lambda request: refused(400, message) if len(request.texts) > 40 else None)
    assert job.outcomes.account.embedded_count == 200
    assert [len(request.texts) for request in job.sent] == [96, 40, 40, 16, 40, 40, 24]
    again = Job((str(index) for index in range(80)), learned=job.learned)
    again.run(lambda _: None)
    assert len(again.sent) == 2


@pytest.mark.parametrize("most", [0, 96, 1000])
def test_a_limit_of_inputs_that_makes_no_sense_is_a_refusal_like_others(most: int) -> None:
    message = f"Input length '96' exceeded inputs limit of {most}"
    job = Job(str(index) for index in range(96))
    job.run(lambda request: refused(400, message) if "7" in request.texts else None)
    assert job.outcomes.failed_indices == [7]


def test_parameters_that_are_refused_end_the_job_after_one_probe() -> None:
    job = Job(str(index) for index in range(500))
    error = refused()
    job.run(lambda _: error, window=3)
    assert job.ledger.job_error is error
    assert error.__notes__ == ["A short plain text was refused as well, so it is the parameters or the model, not an input."]
    assert job.probes == 1
    assert len(job.sent) == 4
    # Refused: what was sent. The rest is not tried.
    assert job.outcomes.account.failed_count == 3 * 96
    assert job.outcomes.account.embedded_count == 0


def test_nothing_new_is_sent_while_the_probe_is_under_way() -> None:
    job = Job((str(index) for index in range(500)), size=10)
    first, second = job.take(), job.take()
    job.ledger.failed(first, refused())
    probe = job.take()
    assert probe.is_probe
    assert job.ledger.take() is None
    job.ledger.failed(second, refused())
    assert job.ledger.take() is None
    job.ledger.embedded(probe)
    # The second waits: what the first is refused for may be all there is to it.
    halves = job.take(), job.take()
    assert [half.start for half in halves] == [0, 5]
    assert job.ledger.take() is None
    for half in halves:
        job.ledger.embedded(half)
    assert [job.take().start, job.take().start] == [10, 15]


def test_an_input_that_is_accepted_meanwhile_decides_as_well_as_the_probe() -> None:
    job = Job((str(index) for index in range(30)), size=10)
    first, second = job.take(), job.take()
    job.ledger.failed(first, refused())
    probe = job.take()
    job.ledger.embedded(second)
    assert job.take().start == 0
    job.ledger.failed(probe, refused())
    assert job.ledger.job_error is None


def test_a_probe_that_finds_nothing_out_leaves_it_to_halving() -> None:
    job = Job((str(index) for index in range(20)), size=20)
    first = job.take()
    job.ledger.failed(first, refused())
    job.ledger.failed(job.take(), TransportError("cut"))
    job.run(refuses("3"))
    assert job.outcomes.failed_indices == [3]


def test_a_probe_that_meets_an_error_of_the_job_ends_it() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    refusal = refused()
    job.ledger.failed(job.take(), refusal)
    error = AuthenticationError("who?", status=401)
    job.ledger.failed(job.take(), error)
    assert job.ledger.job_error is error
    assert [failure.error for failure in job.outcomes.account.failures()] == [refusal]


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
def test_an_error_of_the_whole_job_stops_it_and_keeps_what_comes(error: EmbedError) -> None:
    job = Job((str(index) for index in range(40)), size=10)
    first, second, third = job.take(), job.take(), job.take()
    job.ledger.failed(first, error)
    assert job.ledger.take() is None
    job.ledger.embedded(second)
    job.ledger.failed(third, refused())
    assert job.ledger.take() is None
    assert job.ledger.job_error is error
    assert job.outcomes.account.embedded_mask().tolist() == [False] * 10 + [True] * 10 + [False] * 20
    assert [type(failure.error) for failure in job.outcomes.account.failures()] == [type(error), InvalidRequestError]


def test_a_failure_of_the_service_fails_its_inputs_and_no_others() -> None:
    job = Job((str(index) for index in range(40)), size=10)
    job.run(lambda request: ServiceError("down", status=500) if request.start == 10 else None)
    assert job.outcomes.failed_indices == list(range(10, 20))
    assert job.ledger.job_error is None


def test_halves_that_were_not_sent_when_the_job_ended_are_not_tried() -> None:
    job = Job((str(index) for index in range(40)), size=20)
    job.ledger.embedded(job.take())
    job.ledger.failed(job.take(), refused())
    job.ledger.end(DeadlineExceededError("late"))
    assert job.ledger.take() is None
    assert job.outcomes.account.failed_count == 0


def test_a_cancelled_probe_is_nobodys_failure() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    refusal = refused()
    job.ledger.failed(job.take(), refusal)
    probe = job.take()
    late = DeadlineExceededError("late")
    job.ledger.end(late)
    job.ledger.abandoned(probe, late)
    assert job.outcomes.failed_indices == list(range(10))


def test_what_is_cut_off_comes_next_whether_it_was_never_sent_or_a_part() -> None:
    job = Job((str(index) for index in range(40)), size=10)
    job.run(lambda _: None)
    job = Job((str(index) for index in range(40)), size=10, learned=job.learned)
    one = job.take().tokens // 10
    seen = [job.ledger.take(3 * one), job.ledger.take(one), job.ledger.take(one - 1)]
    assert [(request.start, request.stop) if request else None for request in seen] == [(10, 13), (13, 14), None]
    # Filled up, as it was never sent.
    assert [(request.start, request.stop) for request in (job.take(), job.take())] == [(14, 24), (24, 34)]
    # Its halves are parts: they keep their borders.
    job.ledger.failed(job.sent[0], refused())
    parts = [job.ledger.take(2 * one), job.ledger.take(), job.ledger.take()]
    assert [(request.start, request.stop) for request in parts if request] == [(0, 2), (2, 5), (5, 10)]
    assert all(request.origin == 0 for request in parts if request)


def test_the_first_input_of_the_next_request_may_be_taken_alone() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    alone = job.ledger.take_first()
    assert alone is not None
    assert (alone.start, alone.stop) == (0, 1)
    following = job.take()
    assert (following.start, following.stop) == (1, 11)


def test_nothing_is_taken_first_when_nothing_is_left() -> None:
    job = Job(["a"])
    assert job.ledger.take_first() is not None
    assert job.ledger.take_first() is None


def test_a_request_that_waits_for_another_attempt_is_cut_and_the_rest_comes_next() -> None:
    job = Job((str(index) for index in range(30)), size=10)
    first = job.take()
    one = first.tokens // 10
    head = job.ledger.cut(first, 4 * one)
    assert (head.start, head.stop, head.origin) == (0, 4, 0)
    rest = job.take()
    assert (rest.start, rest.stop, rest.origin) == (4, 10, 0)
    assert job.take().start == 10
    assert job.ledger.cut(rest, 10**6) == rest
    alone = job.ledger.cut(rest, 0)
    assert (alone.start, alone.stop) == (4, 5)


def test_the_probe_that_is_ahead_stays_the_same_and_needs_room_as_others_do() -> None:
    job = Job((str(index) for index in range(20)), size=10)
    job.ledger.failed(job.take(), refused())
    probe = job.ledger.ahead()
    assert probe is not None
    assert probe.is_probe
    assert job.ledger.ahead() is probe
    assert job.ledger.take(probe.tokens - 1) is None
    assert job.ledger.ahead() is probe
    assert job.ledger.take_first() is probe


def test_a_rejection_that_lasts_ends_the_job_with_everything_embedded_in_hand() -> None:
    job = Job((str(index) for index in range(40)), size=10)
    rejected = RateLimitError("too many", status=429)
    job.run(lambda request: rejected if request.start == 20 else None)
    assert job.ledger.job_error is rejected
    assert job.outcomes.account.embedded_count == 20
    assert job.outcomes.failed_indices == list(range(20, 30))


@given(
    st.integers(1, 60), st.lists(st.integers(0, 80), min_size=1), st.sets(st.integers(0, 59), max_size=3), st.integers(0, 9)
)
def test_whatever_requests_are_cut_to_every_input_is_settled_once(
    count: int, rooms: list[int], culprits: set[int], seed: int
) -> None:
    job = Job((str(index) for index in range(count)), size=20)
    draws = random.Random(seed)
    while (ahead := job.ledger.ahead()) is not None:
        request = job.ledger.take(draws.choice(rooms))
        if request is None:
            assert job.ledger.ahead() is ahead
            request = job.ledger.take_first()
        assert request is not None
        if draws.random() < 0.3:
            request = job.ledger.cut(request, draws.choice(rooms))
        if culprits & set(range(request.start, request.stop)) and not request.is_probe:
            job.ledger.failed(request, refused())
        else:
            job.ledger.embedded(request)
    assert job.outcomes.account.is_settled
    assert job.outcomes.failed_indices == sorted(index for index in culprits if index < count)


def spoiled(count: int, culprits: int, seed: int, *, equal: bool) -> list[str]:
    """Texts of which some are refused, by their names."""
    places = random.Random(seed).sample(range(count), culprits)
    texts = [f"text {index}" for index in range(count)]
    for number, place in enumerate(places):
        texts[place] = "bad" if equal else f"bad {number}"
    return texts


def refuses_bad(request: PlannedRequest) -> EmbedError | None:
    return refused() if any(text.startswith("bad") for text in request.texts) else None


@pytest.mark.parametrize("seed", range(20))
def test_equal_culprits_are_looked_for_once(seed: int) -> None:
    texts = spoiled(9600, 97, seed, equal=True)
    job = Job(texts)
    job.run(refuses_bad, window=8, seed=seed)
    assert len(job.sent) <= 130
    assert job.outcomes.failed_indices == [index for index, text in enumerate(texts) if text == "bad"]
    assert job.outcomes.account.embedded_count == 9600 - 97
    # A later call does not pay for it again.
    again = Job(texts, learned=job.learned)
    again.run(refuses_bad, window=8, seed=seed)
    assert len(again.sent) == 100
    assert again.ledger.unsent == 97
    assert again.outcomes.failed_indices == job.outcomes.failed_indices
    assert "not sent again" in str(again.outcomes.account.first_error())


def test_what_is_known_to_be_refused_is_taken_out_a_request_at_a_time() -> None:
    job = Job(["good", "bad"])
    job.run(refuses_bad)
    again = Job(["bad"] * 960, learned=job.learned)
    for steps in range(1, 11):
        assert again.ledger.ahead() is None
        assert again.ledger.is_sifting
        assert again.ledger.unsent == 96 * steps
    assert again.ledger.ahead() is None
    assert not again.ledger.is_sifting
    assert len(again.outcomes.account.failures()) == 10


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["bad 1", "bad 2", "bad 3", *"abcdefgh"]), max_size=80), st.integers(1, 96), st.data())
def test_only_what_was_refused_alone_or_equals_it_fails(texts: list[str], size: int, data: st.DataObject) -> None:
    job = Job(texts, size=size)
    job.run(refuses_bad, window=data.draw(st.integers(1, 8)), seed=data.draw(st.integers(0, 9)))
    bad = [index for index, text in enumerate(texts) if text.startswith("bad")]
    if job.ledger.job_error is None:
        assert job.outcomes.failed_indices == bad
        assert job.outcomes.account.embedded_count == len(texts) - len(bad)
    alone = {request.texts[0] for request in job.sent if len(request.texts) == 1}
    assert {texts[index] for index in job.outcomes.failed_indices} <= alone


def test_a_search_without_a_culprit_lets_the_others_go_on() -> None:
    job = Job((str(index) for index in range(60)), size=10)
    first = job.take()
    job.ledger.failed(first, refused())
    job.run(lambda _: None, window=3)
    assert job.outcomes.account.embedded_count == 60


def test_refusals_are_forgotten_after_ten_minutes_and_the_oldest_beyond_ten_thousand() -> None:
    refusals = Refusals()
    refusals.add("a", b"{}", refused(message="no <input 3>"), now=100.0)
    found = refusals.find("a", b"{}", now=699.0)
    assert found is not None
    assert "<the input>" in str(found)
    assert (found.status, found.attempts) == (400, 0)
    assert refusals.find("a", b'{"x":1}', now=100.0) is None
    assert refusals.find("b", b"{}", now=100.0) is None
    assert refusals.find("a", b"{}", now=700.0) is None
    assert len(refusals) == 0
    for number in range(MOST_REFUSALS + 5):
        refusals.add(str(number), b"{}", refused(), now=0.0)
    assert len(refusals) == MOST_REFUSALS
    assert refusals.find("4", b"{}", now=0.0) is None
    assert refusals.find("5", b"{}", now=0.0) is not None
    assert b"secret" not in repr(vars(refusals)).encode()


def test_two_clients_know_the_same_text_by_different_digests() -> None:
    one, other = Refusals(), Refusals()
    for refusals in (one, other):
        refusals.add("a", b"{}", refused(), now=0.0)
    assert set(one._told) != set(other._told)
