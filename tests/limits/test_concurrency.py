import pytest

from pinecone_embed_async._limits._concurrency import Concurrency


def test_it_halves_once_for_requests_that_were_in_flight_together() -> None:
    concurrency = Concurrency(8)
    for _ in range(8):
        concurrency.failed(sent=0.0, now=1.0)
    assert concurrency.limit == 4
    concurrency.failed(sent=1.0, now=2.0)
    assert concurrency.limit == 2


def test_it_never_goes_below_one_nor_over_the_most() -> None:
    concurrency = Concurrency(3)
    for second in range(20):
        concurrency.failed(sent=float(second), now=float(second))
        assert concurrency.limit >= 1
    assert concurrency.limit == 1
    for _ in range(1000):
        concurrency.succeeded()
    assert concurrency.limit == 3


@pytest.mark.parametrize("most", [2, 8, 64])
def test_it_recovers_by_one_with_about_as_many_answers_as_may_be_in_flight(most: int) -> None:
    concurrency = Concurrency(most)
    concurrency.failed(sent=0.0, now=0.0)
    half = concurrency.limit
    answers = 0
    while concurrency.limit == half:
        concurrency.succeeded()
        answers += 1
    assert half <= answers <= half + 1


def test_its_repr_tells_its_level() -> None:
    assert repr(Concurrency(8)) == "<Concurrency 8/8>"
