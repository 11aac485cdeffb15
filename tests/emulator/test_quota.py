import pytest

from pinecone_embed_async.emulator import ServiceQuota
from pinecone_embed_async.emulator._quota import QuotaLedger


def accepted(quota: ServiceQuota, *charges: tuple[float, int]) -> list[bool]:
    ledger = QuotaLedger()
    return [ledger.decide(quota, now, "m", "passage", tokens) is None for now, tokens in charges]


def test_a_fixed_window_starts_anew_after_its_length() -> None:
    quota = ServiceQuota(tokens_per_window=10)
    assert accepted(quota, (0, 6), (59, 6), (59, 4), (60, 10), (61, 1)) == [True, False, True, True, False]


def test_a_sliding_window_forgets_charge_by_charge() -> None:
    quota = ServiceQuota(tokens_per_window=10, kind="sliding")
    assert accepted(quota, (0, 6), (30, 4), (59, 6), (61, 6), (62, 1)) == [True, True, False, True, False]


def test_requests_per_second_and_the_month_are_limits_of_their_own() -> None:
    assert accepted(ServiceQuota(requests_per_second=2), (0, 1), (0.1, 1), (0.2, 1), (1.1, 1)) == [True, True, False, True]
    month = ServiceQuota(tokens_per_month=10)
    assert accepted(month, (0, 8), (10_000, 8), (10_000, 2)) == [True, False, True]


@pytest.mark.parametrize("window", [0, -1, float("inf"), float("nan")])
def test_windows_that_never_end_or_begin_are_refused(window: float) -> None:
    with pytest.raises(ValueError, match="window"):
        ServiceQuota(window=window)
