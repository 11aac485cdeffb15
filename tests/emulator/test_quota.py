import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async.emulator import ServiceQuota
from pinecone_embed_async.emulator._quota import QuotaLedger

E5 = "multilingual-e5-large"


def test_without_limits_everything_is_accepted() -> None:
    ledger = QuotaLedger()
    assert all(ledger.decide(ServiceQuota(), 0, E5, "passage", 10**9) is None for _ in range(100))


def test_a_fixed_window_begins_with_the_first_request_and_ends_for_all_at_once() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=100)
    assert ledger.decide(quota, 30, E5, "passage", 60) is None
    assert ledger.decide(quota, 80, E5, "passage", 40) is None
    refusal = ledger.decide(quota, 80, E5, "passage", 1)
    assert refusal is not None
    assert refusal.wait == 10
    assert ledger.decide(quota, 90, E5, "passage", 100) is None


def test_a_sliding_window_frees_what_is_old_enough() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=100, kind="sliding")
    assert ledger.decide(quota, 30, E5, "passage", 60) is None
    assert ledger.decide(quota, 80, E5, "passage", 40) is None
    refusal = ledger.decide(quota, 85, E5, "passage", 61)
    assert refusal is not None
    assert refusal.wait == 55
    assert ledger.decide(quota, 90, E5, "passage", 60) is None
    assert ledger.decide(quota, 90, E5, "passage", 1) is not None


def test_a_bucket_is_full_at_first_and_refills_evenly() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=600, kind="bucket")
    assert ledger.decide(quota, 100, E5, "passage", 600) is None
    refusal = ledger.decide(quota, 100, E5, "passage", 50)
    assert refusal is not None
    assert refusal.wait == 5
    assert ledger.decide(quota, 105, E5, "passage", 50) is None
    assert ledger.decide(quota, 105, E5, "passage", 1) is not None
    # After a rest it holds a window's tokens, not more.
    assert ledger.decide(quota, 1000, E5, "passage", 600) is None
    assert ledger.decide(quota, 1000, E5, "passage", 1) is not None


def test_a_bucket_of_less_than_a_window_lets_through_the_same_evenly() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=600, kind="bucket", burst=20)
    accepted = sum(ledger.decide(quota, tick / 10, E5, "passage", 5) is None for tick in range(600))
    assert 600 <= 5 * accepted <= 620
    refusal = ledger.decide(quota, 60, E5, "passage", 21)
    assert refusal is not None
    assert refusal.wait is None, "it never holds so many"


def test_a_bucket_does_not_drift() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=7, window=0.7, kind="bucket")
    assert ledger.decide(quota, 0, E5, "passage", 7) is None
    for tick in range(1, 20_000):
        assert (ledger.decide(quota, tick / 16, E5, "passage", 7) is None) == (tick % 12 == 0), tick


@given(st.lists(st.tuples(st.floats(0, 50), st.integers(1, 300)), min_size=1, max_size=30), st.integers(1, 10**6))
def test_after_the_wait_that_a_bucket_tells_the_request_fits(requests: list[tuple[float, int]], start: int) -> None:
    ledger, quota, now = QuotaLedger(), ServiceQuota(tokens_per_window=997, kind="bucket", burst=300), start / 7
    for rest, tokens in requests:
        now += rest
        refusal = ledger.decide(quota, now, E5, "passage", tokens)
        if refusal is not None:
            assert refusal.wait is not None
            assert ledger.decide(quota, now + refusal.wait * 0.999 - 1e-6, E5, "passage", tokens) is not None
            now += refusal.wait
            assert ledger.decide(quota, now, E5, "passage", tokens) is None


def test_requests_beside_a_bucket_of_tokens_are_counted_in_sliding_windows() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=100, requests_per_window=2, kind="bucket")
    assert [ledger.decide(quota, at, E5, "passage", 1) is None for at in (0, 59, 61, 62)] == [True, True, True, False]


def test_what_was_charged_counts_on_when_the_kind_changes() -> None:
    ledger, window = QuotaLedger(), ServiceQuota(tokens_per_window=600, kind="sliding")
    bucket = ServiceQuota(tokens_per_window=600, kind="bucket")
    assert ledger.decide(window, 0, E5, "passage", 600) is None
    assert ledger.decide(bucket, 10, E5, "passage", 101) is not None
    assert ledger.decide(bucket, 10, E5, "passage", 100) is None
    assert ledger.decide(window, 59, E5, "passage", 1) is not None
    assert ledger.decide(window, 60, E5, "passage", 500) is None


@pytest.mark.parametrize("burst", [0, -1])
def test_a_bucket_holds_something(burst: int) -> None:
    with pytest.raises(ValueError, match="burst"):
        ServiceQuota(kind="bucket", burst=burst)


def test_windows_have_no_burst() -> None:
    with pytest.raises(ValueError, match="burst"):
        ServiceQuota(kind="sliding", burst=10)


def test_a_refused_request_is_charged_to_nothing() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=100, requests_per_window=2)
    assert ledger.decide(quota, 0, E5, "passage", 101) is not None
    assert ledger.decide(quota, 0, E5, "passage", 101) is not None
    assert ledger.decide(quota, 0, E5, "passage", 100) is None


def test_a_request_larger_than_the_limit_never_fits() -> None:
    refusal = QuotaLedger().decide(ServiceQuota(tokens_per_window=100), 0, E5, "passage", 101)
    assert refusal is not None
    assert refusal.wait is None


def test_models_and_input_types_have_their_own_tokens_but_share_requests() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window=10, requests_per_window=3)
    assert ledger.decide(quota, 0, E5, "passage", 10) is None
    assert ledger.decide(quota, 0, E5, "query", 10) is None
    assert ledger.decide(quota, 0, "other", "passage", 10) is None
    assert ledger.decide(quota, 0, "another", "passage", 10) is not None


def test_each_input_type_may_have_its_own_limit() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_window={"passage": 10, "query": 5})
    assert ledger.decide(quota, 0, E5, "passage", 10) is None
    assert ledger.decide(quota, 0, E5, "query", 6) is not None
    assert ledger.decide(quota, 0, E5, "neither", 10**6) is None


def test_requests_per_second_have_a_window_of_one_second() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(requests_per_second=2)
    assert [ledger.decide(quota, 0.25, E5, "query", 1) is None for _ in range(3)] == [True, True, False]
    assert ledger.decide(quota, 1.5, E5, "query", 1) is None


def test_the_month_is_never_refilled() -> None:
    ledger, quota = QuotaLedger(), ServiceQuota(tokens_per_month=100)
    assert ledger.decide(quota, 0, E5, "passage", 90) is None
    refusal = ledger.decide(quota, 10**9, E5, "query", 11)
    assert refusal is not None
    assert refusal.wait is None
    assert ledger.decide(quota, 10**9, "other", "query", 11) is None


def test_another_quota_counts_what_was_charged_before() -> None:
    ledger = QuotaLedger()
    assert ledger.decide(ServiceQuota(tokens_per_window=100), 0, E5, "passage", 50) is None
    assert ledger.decide(ServiceQuota(tokens_per_window=60), 1, E5, "passage", 20) is not None
    assert ledger.decide(ServiceQuota(tokens_per_window=200), 2, E5, "passage", 150) is None


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        (
            ServiceQuota(tokens_per_window=250000),
            (
                "Request failed. You've reached the max embedding tokens per minute (250000) model 'multilingual-e5-large' "
                "and input type 'passage' for the current project. To increase this limit, upgrade your plan."
            ),
        ),
        (
            ServiceQuota(tokens_per_month=5000000),
            (
                "Request failed. You've reached the embedding token limit (5000000) for model multilingual-e5-large for the "
                "current month. To continue using this model, upgrade your plan."
            ),
        ),
        (
            ServiceQuota(requests_per_second=0),
            "Request failed. You've reached the max inference requests per second (0) for the current project.",
        ),
        (
            ServiceQuota(requests_per_window=0),
            "Request failed. You've reached the max inference requests per minute (0) for the current project.",
        ),
    ],
)
def test_refusals_have_the_documented_texts(quota: ServiceQuota, text: str) -> None:
    refusal = QuotaLedger().decide(quota, 0, E5, "passage", 10**7)
    assert refusal is not None
    assert refusal.message == text


@pytest.mark.parametrize("window", [0, -1, math.inf, math.nan])
def test_a_window_is_a_positive_number_of_seconds(window: float) -> None:
    with pytest.raises(ValueError, match="window"):
        ServiceQuota(window=window)
