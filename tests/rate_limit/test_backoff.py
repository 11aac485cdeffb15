import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit import Backoff


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_0_and_the_maximum(failures: int, drawn: float) -> None:
    assert 0 <= Backoff(0.5, 20.0, lambda: drawn).seconds(failures) <= 20.0


@pytest.mark.parametrize(("failures", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 20.0)])
def test_the_upper_bound_doubles_with_every_failure_up_to_the_maximum(failures: int, bound: float) -> None:
    assert Backoff(0.5, 20.0, lambda: 1.0).seconds(failures) == bound


@pytest.mark.parametrize(("asked", "waits"), [(0.0, 0.4), (7.0, 7.4), (500.0, 120.4)])
def test_a_wait_that_the_service_asks_for_is_bounded_and_extended(asked: float, waits: float) -> None:
    assert Backoff(0.5, 20.0, lambda: 0.8, asked, 120.0).seconds(9) == pytest.approx(waits)
