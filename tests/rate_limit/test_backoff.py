import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._rate_limit import full_jitter


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_between_0_and_the_maximum(failures: int, drawn: float) -> None:
    assert 0 <= full_jitter(failures, initial=0.5, most=20.0, draw=lambda: drawn) <= 20.0


@pytest.mark.parametrize(("failures", "bound"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 20.0)])
def test_the_upper_bound_doubles_with_every_failure_up_to_the_maximum(failures: int, bound: float) -> None:
    assert full_jitter(failures, initial=0.5, most=20.0, draw=lambda: 1.0) == bound
