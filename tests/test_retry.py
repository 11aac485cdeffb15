import pytest

from pinecone_embed_async import (
    ApiError,
    AuthenticationError,
    ConfigurationError,
    EmbedError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    ServiceError,
    TransportError,
)
from pinecone_embed_async._retry import RetryState, Verdict, judge


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


def gives_up(
    state: RetryState,
    policy: RetryPolicy,
    now: float,
    wait: float = 0,
    accepted: float | None = None,
    deadline: float | None = None,
) -> bool:
    return state.gives_up(policy, now=now, wait=wait, last_acceptance=accepted, deadline=deadline)


def test_attempts_and_time_are_both_bounded() -> None:
    policy, state = RetryPolicy(max_attempts=2, max_elapsed=10), RetryState()
    state.sent(0)
    state.failed(TransportError(""))
    assert not gives_up(state, policy, now=1)
    assert gives_up(state, policy, now=9, wait=2)
    state.sent(1)
    state.failed(TransportError(""))
    assert gives_up(state, policy, now=1)


def test_a_wait_that_reaches_the_deadline_is_not_begun() -> None:
    state = RetryState()
    state.sent(0)
    state.failed(TransportError(""))
    assert not gives_up(state, RetryPolicy(), now=1, wait=1, deadline=3)
    assert gives_up(state, RetryPolicy(), now=1, wait=2, deadline=3)


def test_rejections_cost_no_attempts_and_outlast_windows_in_which_others_are_accepted() -> None:
    policy, state = RetryPolicy(max_attempts=2), RetryState()
    for now in range(50):
        state.sent(now)
        assert state.failed(RateLimitError("", status=429)) is Verdict.WAIT
    assert not gives_up(state, policy, now=290)
    assert gives_up(state, policy, now=301)
    assert not gives_up(state, policy, now=500, accepted=400)


def test_the_defaults_outlast_a_minute() -> None:
    policy, state = RetryPolicy(), RetryState()
    state.sent(0)
    state.failed(RateLimitError("", status=429))
    assert not gives_up(state, policy, now=60, wait=policy.max_backoff)


@pytest.mark.parametrize(
    "wrong", [{"max_attempts": 0}, {"max_elapsed": -1}, {"max_backoff": float("inf")}, {"initial_backoff": float("nan")}]
)
def test_policies_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        RetryPolicy(**wrong)  # type: ignore[arg-type]
