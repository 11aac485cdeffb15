import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import TransportError
from pinecone_embed_async._plan import Ledger, RequestLimits, estimate_tokens, utf8_length

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=60)


@given(TEXTS, st.integers(1, 9), st.integers(1, 30), st.integers(1, 200))
def test_requests_cover_all_inputs_once_in_order_within_the_limits(
    texts: list[str], inputs: int, tokens: int, size: int
) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8, tokens=tokens, bytes=size)
    ledger = Ledger(texts, limits)
    seen: list[str] = []
    while (request := ledger.take()) is not None:
        assert request.start == len(seen)
        seen.extend(request.texts)
        assert 1 <= len(request.texts) <= inputs
        if len(request.texts) > 1:
            assert sum(estimate_tokens(utf8_length(text), 8) for text in request.texts) <= tokens
            assert sum(map(utf8_length, request.texts)) <= size
    assert seen == texts


def test_a_text_over_every_limit_goes_alone() -> None:
    ledger = Ledger(["a" * 100, "b", "c"], RequestLimits(inputs=96, sequence_length=500, tokens=10, bytes=50))
    first, second = ledger.take(), ledger.take()
    assert first is not None
    assert second is not None
    assert list(first.texts) == ["a" * 100]
    assert list(second.texts) == ["b", "c"]


def test_every_input_ends_embedded_failed_or_not_tried() -> None:
    ledger = Ledger(list("abcdef"), RequestLimits(inputs=2, sequence_length=8))
    first, second = ledger.take(), ledger.take()
    assert first is not None
    assert second is not None
    ledger.failed(second, TransportError("cut"))
    ledger.embedded(first)
    ledger.end(TransportError("over"))
    assert ledger.take() is None
    assert ledger.embedded_mask().tolist() == [True, True, False, False, False, False]
    assert [list(failure.indices) for failure in ledger.failures()] == [[2, 3]]
    assert ledger.embedded_count == ledger.failed_count == 2


def test_the_error_of_a_call_is_that_of_the_lowest_failed_input() -> None:
    ledger = Ledger(list("ab"), RequestLimits(inputs=1, sequence_length=8))
    first, second = ledger.take(), ledger.take()
    assert first is not None
    assert second is not None
    lowest, other = TransportError("first"), TransportError("second")
    ledger.failed(second, other)
    ledger.failed(first, lowest)
    assert ledger.error() is lowest
    ledger.end(other)
    assert ledger.error() is other


@pytest.mark.parametrize(("size", "expected"), [(0, 2), (4, 3), (400, 102), (10_000, 507)])
def test_token_estimates_count_special_tokens_and_stop_at_the_models_length(size: int, expected: int) -> None:
    assert estimate_tokens(size, 507) == expected
