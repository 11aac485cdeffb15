from dataclasses import FrozenInstanceError

import pytest

from pinecone_embed_async import (
    ApiError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    ServiceError,
    TransportError,
)
from pinecone_embed_async._errors import ConnectionProblem
from pinecone_embed_async._planning import Attempts
from pinecone_embed_async._sending.retry import (
    FirstContact,
    RetryBudget,
    Verdict,
    final_error,
    is_stale_connection,
    judge,
    record_failure,
)


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, *range(520, 530)])
def test_transient_service_errors_are_retried(status: int) -> None:
    assert judge(ServiceError("", status=status)) is Verdict.RETRY


@pytest.mark.parametrize("code", ["ABORTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"])
def test_transient_codes_are_retried_whatever_their_status(code: str) -> None:
    assert judge(ServiceError("", status=409, code=code)) is Verdict.RETRY


@pytest.mark.parametrize(
    "error",
    [
        QuotaExceededError("", status=429, code="RESOURCE_EXHAUSTED"),
        AuthenticationError("", status=401),
        *(InvalidRequestError("", status=status) for status in (400, 402, 405, 409, 413, 422)),
        *(ServiceError("", status=status) for status in (430, 501, 505, 519, 530)),
        ApiError("", status=307),
    ],
)
def test_final_errors_are_not_retried(error: EmbedError) -> None:
    assert judge(error) is Verdict.FINAL


def test_transport_errors_and_unreadable_answers_are_retried() -> None:
    assert judge(TransportError("")) is judge(ResponseError("")) is Verdict.RETRY


def test_backoff_doubles_up_to_its_cap_with_full_jitter() -> None:
    policy, error = RetryPolicy(initial_backoff=0.5, max_backoff=20), TransportError("")
    assert [policy.backoff(n, error, lambda: 1.0) for n in (1, 2, 3, 7, 5000)] == [0.5, 1, 2, 20, 20]
    assert policy.backoff(7, error, lambda: 0.0) == 0


def test_zero_times_mean_no_wait_and_no_retry() -> None:
    policy = RetryPolicy(max_elapsed=0, initial_backoff=0, max_backoff=0, max_retry_after=0)
    assert policy.backoff(3, ServiceError("", status=503, retry_after=7), lambda: 0.9) == 0
    state = Attempts()
    state.sent(0.0)
    record_failure(state, ServiceError("", status=503), FirstContact())
    assert ended_by(state, policy, now=0.001) is state.last_error


def test_retry_after_is_obeyed_and_capped() -> None:
    policy = RetryPolicy()
    assert policy.backoff(1, ServiceError("", status=503, retry_after=7), lambda: 0.0) == 7
    assert policy.backoff(1, ServiceError("", status=503, retry_after=9999), lambda: 0.0) == 120


def ended_by(
    state: Attempts,
    policy: RetryPolicy,
    now: float,
    wait: float = 0,
    accepted: float | None = None,
    deadline: float | None = None,
    contact: FirstContact | None = None,
) -> EmbedError | None:
    known = contact or FirstContact()
    return final_error(state, policy, now=now, wait=wait, last_acceptance=accepted, deadline=deadline, contact=known)


def test_attempts_and_time_are_both_bounded() -> None:
    policy, state = RetryPolicy(max_attempts=2, max_elapsed=10), Attempts()
    state.sent(0)
    record_failure(state, TransportError("first"), FirstContact())
    assert ended_by(state, policy, now=1) is None
    assert ended_by(state, policy, now=9, wait=2) is state.last_error
    state.sent(1)
    last = TransportError("second")
    record_failure(state, last, FirstContact())
    assert ended_by(state, policy, now=1) is last


def test_a_wait_that_reaches_the_deadline_is_not_started() -> None:
    state = Attempts()
    state.sent(0)
    record_failure(state, TransportError("cut"), FirstContact())
    assert ended_by(state, RetryPolicy(), now=1, wait=1, deadline=3) is None
    error = ended_by(state, RetryPolicy(), now=1, wait=2, deadline=3)
    assert isinstance(error, DeadlineExceededError)
    assert str(error) == (
        "the next attempt would start in 2.0 s, after the deadline of the call; "
        "the last attempt failed with TransportError: cut"
    )


@pytest.mark.parametrize(
    ("error", "wait", "retry_after"),
    [
        (RateLimitError("", status=429), 2.0, 2.0),
        (RateLimitError("", status=429), 0.5, 0.5),
        (RateLimitError("", status=429), 0.0, None),
        (ServiceError("", status=503, retry_after=2), 2.0, 2.0),
        (ServiceError("", status=503), 2.0, None),
        (TransportError("cut"), 2.0, None),
    ],
)
def test_a_deadline_before_the_next_attempt_names_a_wait_only_if_the_service_asked_for_it(
    error: EmbedError, wait: float, retry_after: float | None
) -> None:
    state = Attempts()
    state.sent(0)
    record_failure(state, error, FirstContact())
    late = ended_by(state, RetryPolicy(), now=1, wait=wait, deadline=1)
    assert isinstance(late, DeadlineExceededError)
    assert late.retry_after == retry_after


def test_an_attempt_may_start_just_at_the_end_of_the_time_for_attempts() -> None:
    state = Attempts()
    state.sent(1000)
    record_failure(state, ServiceError("", status=503), FirstContact())
    assert ended_by(state, RetryPolicy(max_elapsed=10), now=1008, wait=2) is None
    assert ended_by(state, RetryPolicy(max_elapsed=10), now=1008, wait=2.5) is state.last_error


def test_only_rejections_wait_on_because_other_requests_are_accepted() -> None:
    state = Attempts()
    state.sent(0)
    record_failure(state, ServiceError("", status=503), FirstContact())
    assert ended_by(state, RetryPolicy(), now=500, accepted=400) is state.last_error


def test_by_default_a_request_is_tried_eight_times() -> None:
    state = Attempts()
    for number in range(1, 9):
        state.sent(0)
        record_failure(state, TransportError("cut"), FirstContact())
        assert ended_by(state, RetryPolicy(), now=0) is (state.last_error if number == 8 else None)


def test_a_policy_cannot_be_changed() -> None:
    policy = RetryPolicy()
    with pytest.raises(FrozenInstanceError):
        policy.max_attempts = 3  # type: ignore[misc]


def test_nothing_is_retried_once_the_job_has_ended() -> None:
    state = Attempts()
    state.sent(0)
    record_failure(state, TransportError("cut"), FirstContact())
    state.is_last = True
    assert ended_by(state, RetryPolicy(), now=0) is state.last_error


def test_rejections_cost_no_attempts_and_outlast_windows_in_which_others_are_accepted() -> None:
    policy, state = RetryPolicy(max_attempts=2), Attempts()
    for now in range(50):
        state.sent(now)
        assert record_failure(state, RateLimitError("", status=429), FirstContact()) is Verdict.RATE_LIMITED
    assert ended_by(state, policy, now=290) is None
    assert ended_by(state, policy, now=301) is state.last_error
    assert ended_by(state, policy, now=500, accepted=400) is None


def test_the_defaults_outlast_a_minute() -> None:
    policy, state = RetryPolicy(), Attempts()
    state.sent(0)
    record_failure(state, RateLimitError("", status=429), FirstContact())
    assert ended_by(state, policy, now=60, wait=policy.max_backoff) is None


def test_the_retry_budget_is_low_below_half_and_recovers() -> None:
    budget = RetryBudget()
    for _ in range(50):
        budget.record(ServiceError("", status=503))
    assert (budget.tokens, budget.is_low) == (50, False)
    budget.record(TransportError(""))
    assert (budget.tokens, budget.is_low) == (49, True)
    assert repr(budget) == "<RetryBudget 49/100, low>"
    budget.record(None)
    assert not budget.is_low


def test_the_retry_budget_stays_between_0_and_its_capacity() -> None:
    budget = RetryBudget()
    budget.record(None)
    assert budget.tokens == 100
    for _ in range(200):
        budget.record(TransportError(""))
    assert budget.tokens == 0


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("", status=429),
        QuotaExceededError("", status=429),
        InvalidRequestError("", status=400),
        ResponseError(""),
        ClosedError(""),
    ],
    ids=lambda error: type(error).__name__,
)
def test_other_errors_do_not_draw_on_the_retry_budget(error: EmbedError) -> None:
    budget = RetryBudget()
    budget.record(error)
    assert budget.tokens == 100


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"max_elapsed": -1}, {"max_backoff": float("inf")}, {"initial_backoff": float("nan")}]
)
def test_invalid_policies_are_rejected(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]


def setup_error() -> TransportError:
    return TransportError("no such authority", problem=ConnectionProblem.SETUP)


def unreached() -> TransportError:
    return TransportError("no such host", problem=ConnectionProblem.UNREACHED)


def reset_when_idle() -> TransportError:
    return TransportError("reset", problem=ConnectionProblem.IDLE)


def test_a_setup_error_ends_the_job_before_the_first_answer_and_is_retried_after_it() -> None:
    contact, error = FirstContact(), setup_error()
    contact.record(error)
    assert record_failure(Attempts(), error, contact) is Verdict.FINAL
    assert error.ends_job
    contact.record(ServiceError("", status=503))
    error = setup_error()
    assert record_failure(Attempts(), error, contact) is Verdict.RETRY
    assert not error.ends_job


def test_the_callers_own_policy_decides_how_long_connecting_is_tried() -> None:
    contact, state = FirstContact(is_policy_given=True), Attempts()
    assert record_failure(state, setup_error(), contact) is Verdict.RETRY
    state.sent(0)
    record_failure(state, unreached(), contact)
    assert ended_by(state, RetryPolicy(), now=11, wait=1, contact=contact) is None


def test_no_attempt_starts_after_ten_seconds_without_any_connection() -> None:
    contact, state = FirstContact(), Attempts()
    state.sent(1000)
    error = unreached()
    contact.record(error)
    record_failure(state, error, contact)

    def final(seconds: float, wait: float) -> EmbedError | None:
        return ended_by(state, RetryPolicy(), 1000 + seconds, wait, contact=contact)

    assert final(8, 2) is None
    assert final(8, 2.1) is error
    assert error.ends_job
    contact.record(TransportError("cut"))
    assert final(8, 2.1) is None


def test_exhausted_attempts_without_a_connection_end_the_job() -> None:
    contact, state, error = FirstContact(), Attempts(), unreached()
    state.sent(0)
    record_failure(state, error, contact)
    policy = RetryPolicy(max_attempts=1)
    assert ended_by(state, policy, now=0, contact=contact) is error
    assert error.ends_job


def unreadable_in_a_row(contact: FirstContact, count: int) -> list[bool]:
    ended: list[bool] = []
    for _ in range(count):
        error = ResponseError("html")
        contact.record(error)
        record_failure(Attempts(), error, contact)
        ended.append(error.ends_job)
    return ended


@pytest.mark.parametrize("contact", [FirstContact(), FirstContact(is_policy_given=True)], ids=["default", "given"])
def test_eight_unreadable_answers_before_any_readable_one_end_the_job(contact: FirstContact) -> None:
    assert unreadable_in_a_row(contact, 8) == [False] * 7 + [True]
    error = ResponseError("html")
    contact.mark_ends_job(error)
    assert error.message == "html; none of 8 answers could be read: check base_url and the proxy"


@pytest.mark.parametrize("read", [None, RateLimitError("", status=429, code="RESOURCE_EXHAUSTED")], ids=["rows", "an error"])
def test_unreadable_answers_after_a_readable_one_are_retried(read: EmbedError | None) -> None:
    contact = FirstContact()
    contact.record(read)
    assert not any(unreadable_in_a_row(contact, 20))


def test_error_pages_of_a_proxy_count_neither_as_readable_nor_as_unreadable_answers() -> None:
    contact = FirstContact()
    unreadable_in_a_row(contact, 7)
    contact.record(ServiceError("", status=502))
    assert unreadable_in_a_row(contact, 1) == [True]


def test_a_reset_of_an_idle_connection_is_retried_at_once_but_only_once() -> None:
    state = Attempts()
    state.sent(0)
    first, second = reset_when_idle(), reset_when_idle()
    assert is_stale_connection(state, first)
    assert record_failure(state, first, FirstContact()) is Verdict.AT_ONCE
    assert state.failures == 1
    state.sent(0)
    assert not is_stale_connection(state, second)
    assert record_failure(state, second, FirstContact()) is Verdict.RETRY
    assert RetryPolicy().backoff(state.failures, second, lambda: 1.0) == 1
