import pytest

from pinecone_embed_async._rate_limit.concurrency import AdaptiveConcurrency


def test_it_halves_once_for_requests_in_flight_together() -> None:
    concurrency = AdaptiveConcurrency(8)
    for _ in range(8):
        concurrency.failed(sent=0.0, now=1.0)
    assert concurrency.limit == 4
    concurrency.failed(sent=1.0, now=2.0)
    assert concurrency.limit == 2


def test_it_stays_between_1_and_the_maximum() -> None:
    concurrency = AdaptiveConcurrency(3)
    for second in range(20):
        concurrency.failed(sent=float(second), now=float(second))
        assert concurrency.limit >= 1
    assert concurrency.limit == 1
    for _ in range(1000):
        concurrency.succeeded()
    assert concurrency.limit == 3


@pytest.mark.parametrize("most", [2, 8, 64])
def test_it_recovers_by_one_with_about_a_limits_worth_of_responses(most: int) -> None:
    concurrency = AdaptiveConcurrency(most)
    concurrency.failed(sent=0.0, now=0.0)
    half = concurrency.limit
    answers = 0
    while concurrency.limit == half:
        concurrency.succeeded()
        answers += 1
    assert half <= answers <= half + 1


def test_repr() -> None:
    assert repr(AdaptiveConcurrency(8)) == "<AdaptiveConcurrency 8/8>"
