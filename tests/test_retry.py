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
from pinecone_embed_async._retry import RetryBudget, RetryState, Verdict, judge


@pytest.mark.parametrize("status", [408, 425, 500, 502, 503, 504, *range(520, 530)])
def test_passing_faults_of_the_service_are_retried(status: int) -> None:
    assert judge(ServiceError("", status=status)) is Verdict.RETRY


@pytest.mark.parametrize("code", ["ABORTED", "INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN"])
def test_passing_codes_are_retried_whatever_their_status(code: str) -> None:
    assert judge(ServiceError("", status=409, code=code)) is Verdict.RETRY


@pytest.mark.parametrize(
    "error",
    [
        QuotaExceededError("", status=429, code="RESOURCE_EXHAUSTED"),
        AuthenticationError("", status=401),
        *(InvalidRequestError("", status=status) for status in (400, 402, 405, 409, 413, 422)),
        ServiceError("", status=501),
        ApiError("", status=307),
    ],
)
def test_final_errors_are_not_retried(error: EmbedError) -> None:
    assert judge(error) is Verdict.FINAL


def test_faults_on_the_way_and_unreadable_answers_are_retried() -> None:
    assert judge(TransportError("")) is judge(ResponseError("")) is Verdict.RETRY


def test_backoff_doubles_up_to_its_cap_with_full_jitter() -> None:
    policy, error = RetryPolicy(initial_backoff=0.5, max_backoff=20), TransportError("")
    assert [policy.backoff(n, error, lambda: 1.0) for n in (1, 2, 3, 7, 5000)] == [0.5, 1, 2, 20, 20]
    assert policy.backoff(7, error, lambda: 0.0) == 0


def test_retry_after_is_obeyed_and_capped() -> None:
    policy = RetryPolicy()
    assert policy.backoff(1, ServiceError("", status=503, retry_after=7), lambda: 0.0) == 7
    assert policy.backoff(1, ServiceError("", status=503, retry_after=9999), lambda: 0.0) == 120


def final_error(
    state: RetryState,
    policy: RetryPolicy,
    now: float,
    wait: float = 0,
    accepted: float | None = None,
    deadline: float | None = None,
) -> EmbedError | None:
    return state.final_error(policy, now=now, wait=wait, last_acceptance=accepted, deadline=deadline)


def test_attempts_and_time_are_both_bounded() -> None:
    policy, state = RetryPolicy(max_attempts=2, max_elapsed=10), RetryState()
    state.sent(0)
    state.failed(TransportError("first"))
    assert final_error(state, policy, now=1) is None
    assert final_error(state, policy, now=9, wait=2) is state.last_error
    state.sent(1)
    last = TransportError("second")
    state.failed(last)
    assert final_error(state, policy, now=1) is last


def test_a_wait_that_reaches_the_deadline_is_not_begun() -> None:
    state = RetryState()
    state.sent(0)
    state.failed(TransportError("cut"))
    assert final_error(state, RetryPolicy(), now=1, wait=1, deadline=3) is None
    error = final_error(state, RetryPolicy(), now=1, wait=2, deadline=3)
    assert isinstance(error, DeadlineExceededError)
    assert str(error) == (
        "it would be tried again in 2.0 s, after the deadline of the call; the last attempt met TransportError: cut"
    )


def test_nothing_is_tried_again_once_the_job_has_ended() -> None:
    state = RetryState()
    state.sent(0)
    state.failed(TransportError("cut"))
    state.is_last = True
    assert final_error(state, RetryPolicy(), now=0) is state.last_error


def test_rejections_cost_no_attempts_and_outlast_windows_in_which_others_are_accepted() -> None:
    policy, state = RetryPolicy(max_attempts=2), RetryState()
    for now in range(50):
        state.sent(now)
        assert state.failed(RateLimitError("", status=429)) is Verdict.WAIT
    assert final_error(state, policy, now=290) is None
    assert final_error(state, policy, now=301) is state.last_error
    assert final_error(state, policy, now=500, accepted=400) is None


def test_the_defaults_outlast_a_minute() -> None:
    policy, state = RetryPolicy(), RetryState()
    state.sent(0)
    state.failed(RateLimitError("", status=429))
    assert final_error(state, policy, now=60, wait=policy.max_backoff) is None


def test_the_retry_budget_is_low_below_half_and_recovers() -> None:
    budget = RetryBudget()
    for _ in range(50):
        budget.settle(ServiceError("", status=503))
    assert (budget.tokens, budget.is_low) == (50, False)
    budget.settle(TransportError(""))
    assert (budget.tokens, budget.is_low) == (49, True)
    assert repr(budget) == "<RetryBudget 49/100, low>"
    budget.settle(None)
    assert not budget.is_low


def test_the_retry_budget_stays_between_nothing_and_its_capacity() -> None:
    budget = RetryBudget()
    budget.settle(None)
    assert budget.tokens == 100
    for _ in range(200):
        budget.settle(TransportError(""))
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
def test_what_is_not_the_services_failure_does_not_draw_on_the_retry_budget(error: EmbedError) -> None:
    budget = RetryBudget()
    budget.settle(error)
    assert budget.tokens == 100


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"max_elapsed": -1}, {"max_backoff": float("inf")}, {"initial_backoff": float("nan")}]
)
def test_policies_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
