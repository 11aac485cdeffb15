import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import InputError, ResponseError, ServiceError
from pinecone_embed_async._cache import Found
from pinecone_embed_async._calls import StreamResults
from pinecone_embed_async._planning import PlannedRequest, RequestLimits, Requests
from pinecone_embed_async._results import Dimension, all_steps

LIMITS = RequestLimits(inputs=4, sequence_length=8)


def results_of(count: int, *, ordered: bool = True) -> tuple[StreamResults, list[PlannedRequest]]:
    results = StreamResults(Dimension(1), lambda: LIMITS, ordered=ordered)
    requests = list(Requests([str(number) for number in range(count)], lambda: LIMITS))
    for request in requests:
        results.add(request, [f"item {text}" for text in request.texts])
    return results, requests


def taken_starts(results: StreamResults) -> list[int]:
    starts = []
    while (batch := results.take()) is not None:
        starts.append(batch.start)
    return starts


@given(st.permutations(range(5)), st.booleans())
def test_batches_are_delivered_in_order_or_as_they_complete(order: list[int], ordered: bool) -> None:
    results, requests = results_of(20, ordered=ordered)
    seen: list[int] = []
    for number in order:
        results.embedded(requests[number])
        seen.extend(taken_starts(results))
        if ordered:
            assert seen == [4 * index for index in range(len(seen))]
    assert seen == ([0, 4, 8, 12, 16] if ordered else [4 * number for number in order])
    assert len(results) == 0


def test_a_batch_is_complete_when_all_its_parts_are() -> None:
    results, (request,) = results_of(4)
    first, second = request.parts(2, LIMITS)
    results.failed(second, ServiceError("no", status=500))
    assert results.take() is None
    results.rows(first, 1)[:] = 7
    results.embedded(first)
    batch = results.take()
    assert batch is not None
    assert not batch.is_complete
    result = all_steps(batch.builder.finish("m", "dense"))
    np.testing.assert_array_equal(result.vectors.ravel(), [7, 7, np.nan, np.nan])  # type: ignore[union-attr]
    assert [list(failure.indices) for failure in result.failures] == [[2, 3]]
    assert (results.embedded_count, results.failed_count) == (2, 2)


def test_scattered_rows_of_a_failed_attempt_do_not_leak_into_other_requests() -> None:
    results, (request,) = results_of(4)
    scattered = request.only([0, 2], LIMITS)
    # Its answer could not be read, and it is cut before the retry.
    results.rows(scattered, 1)[:] = 5
    first, second = scattered.only([0], LIMITS), scattered.only([1], LIMITS)
    for part, value in ((first, 7), (second, 8), (request.only([1], LIMITS), 9), (request.only([3], LIMITS), 10)):
        results.rows(part, 1)[:] = value
        results.embedded(part)
    batch = results.take()
    assert batch is not None
    result = all_steps(batch.builder.finish("m", "dense"))
    assert result.vectors.ravel().tolist() == [7, 9, 8, 10]  # type: ignore[union-attr]
    assert results.embedded_count == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_cannot_be_sent_is_a_batch_of_its_own(ordered: bool) -> None:
    results, requests = results_of(4, ordered=ordered)
    results.add_failed(4, "item", InputError("no text", index=4))
    results.embedded(requests[0])
    assert sorted(taken_starts(results)) == [0, 4]


def test_draining_an_ended_job_returns_complete_batches_first_and_no_untried_ones() -> None:
    results, requests = results_of(16)
    results.failed(requests[0], ServiceError("no", status=500))
    results.embedded(requests[2])
    half, _ = requests[3].parts(2, LIMITS)
    results.embedded(half)
    assert [batch.start for batch in results.drain()] == [8, 0, 12]
    assert len(results) == 0


def test_pending_requests_are_taken_in_order_and_cut_to_the_free_tokens() -> None:
    results, (first, second) = results_of(8)
    assert repr(results) == "<StreamResults 2 read ahead, 0 done>"
    pending = results.pending
    head = pending.take(first.tokens - 1)
    assert head is not None
    assert head.texts == first.texts[: len(head.texts)]
    rest = pending.take(first.tokens)
    assert rest is not None
    assert [*head.texts, *rest.texts] == list(first.texts)
    assert pending.take(0) is None
    assert pending.take() == second
    assert pending.take() is None
    assert pending.ahead() is None


def test_cached_rows_for_an_ended_job_are_dropped() -> None:
    results = StreamResults(Dimension(1), lambda: LIMITS, ordered=True, looks_up=True)
    (request,) = Requests(list("abcd"), lambda: LIMITS)
    results.add(request, list(request.texts))
    assert results.next_to_look_up() == request
    assert results.drain() == []
    results.looked_up(request, Found(4, np.arange(4), dense=np.zeros((4, 1), np.float32)))
    assert results.pending.ahead() is None
    assert results.embedded_count == 0


def test_all_batches_of_a_stream_have_the_same_dimension() -> None:
    results = StreamResults(Dimension(None), lambda: LIMITS, ordered=True)
    first, second = Requests(list("abcdefgh"), lambda: LIMITS)
    for request in (first, second):
        results.add(request, list(request.texts))
    results.rows(first, 3)
    assert results.dimension == 3
    with pytest.raises(ResponseError, match="expected 3 numbers a row"):
        results.rows(second, 4)
