import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import InputError, ResponseError, ServiceError
from pinecone_embed_async._cache import Found
from pinecone_embed_async._plan import PlannedRequest, RequestLimits, Requests
from pinecone_embed_async._results import Dimension, all_steps
from pinecone_embed_async._stream import Batches

LIMITS = RequestLimits(inputs=4, sequence_length=8)


def batches_of(count: int, *, ordered: bool = True) -> tuple[Batches, list[PlannedRequest]]:
    batches = Batches(Dimension(1), lambda: LIMITS, ordered=ordered)
    requests = list(Requests([str(number) for number in range(count)], lambda: LIMITS))
    for request in requests:
        batches.add(request, [f"item {text}" for text in request.texts])
    return batches, requests


def taken(batches: Batches) -> list[int]:
    starts = []
    while (batch := batches.take()) is not None:
        starts.append(batch.start)
    return starts


@given(st.permutations(range(5)), st.booleans())
def test_batches_come_in_order_or_as_they_are_done(order: list[int], ordered: bool) -> None:
    batches, requests = batches_of(20, ordered=ordered)
    seen: list[int] = []
    for number in order:
        batches.embedded(requests[number])
        seen.extend(taken(batches))
        if ordered:
            assert seen == [4 * index for index in range(len(seen))]
    assert seen == ([0, 4, 8, 12, 16] if ordered else [4 * number for number in order])
    assert len(batches) == 0


def test_a_batch_is_done_when_all_its_parts_are() -> None:
    batches, (request,) = batches_of(4)
    first, second = request.parts(2, LIMITS)
    batches.failed(second, ServiceError("no", status=500))
    assert batches.take() is None
    batches.rows(first, 1)[:] = 7
    batches.embedded(first)
    batch = batches.take()
    assert batch is not None
    assert not batch.is_complete
    result = all_steps(batch.collector.finish("m", "dense"))
    np.testing.assert_array_equal(result.vectors.ravel(), [7, 7, np.nan, np.nan])  # type: ignore[union-attr]
    assert [list(failure.indices) for failure in result.failures] == [[2, 3]]
    assert (batches.embedded_count, batches.failed_count) == (2, 2)


def test_what_an_attempt_left_of_rows_that_are_not_side_by_side_is_in_no_other_request() -> None:
    batches, (request,) = batches_of(4)
    spread = request.only([0, 2], LIMITS)
    # Its answer could not be read, and it is cut before it is sent again.
    batches.rows(spread, 1)[:] = 5
    first, second = spread.only([0], LIMITS), spread.only([1], LIMITS)
    for part, value in ((first, 7), (second, 8), (request.only([1], LIMITS), 9), (request.only([3], LIMITS), 10)):
        batches.rows(part, 1)[:] = value
        batches.embedded(part)
    batch = batches.take()
    assert batch is not None
    result = all_steps(batch.collector.finish("m", "dense"))
    assert result.vectors.ravel().tolist() == [7, 9, 8, 10]  # type: ignore[union-attr]
    assert batches.embedded_count == 4


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_cannot_be_sent_is_a_batch_of_its_own(ordered: bool) -> None:
    batches, requests = batches_of(4, ordered=ordered)
    batches.add_failed(4, "item", InputError("no text", index=4))
    batches.embedded(requests[0])
    assert sorted(taken(batches)) == [0, 4]


def test_what_is_left_of_an_ended_job_is_first_what_is_complete_and_never_what_was_not_tried() -> None:
    batches, requests = batches_of(16)
    batches.failed(requests[0], ServiceError("no", status=500))
    batches.embedded(requests[2])
    half, _ = requests[3].parts(2, LIMITS)
    batches.embedded(half)
    assert [batch.start for batch in batches.drain()] == [8, 0, 12]
    assert len(batches) == 0


def test_requests_that_were_never_sent_are_taken_in_order_and_cut_to_the_tokens_that_are_free() -> None:
    batches, (first, second) = batches_of(8)
    assert repr(batches) == "<Batches 2 read ahead, 0 done>"
    unsent = batches.unsent
    head = unsent.take(first.tokens - 1)
    assert head is not None
    assert head.texts == first.texts[: len(head.texts)]
    rest = unsent.take(first.tokens)
    assert rest is not None
    assert [*head.texts, *rest.texts] == list(first.texts)
    assert unsent.take(0) is None
    assert unsent.take() == second
    assert unsent.take() is None
    assert unsent.ahead() is None


def test_what_a_cache_finds_for_a_job_that_has_ended_is_let_go() -> None:
    batches = Batches(Dimension(1), lambda: LIMITS, ordered=True, looks_up=True)
    (request,) = Requests(list("abcd"), lambda: LIMITS)
    batches.add(request, list(request.texts))
    assert batches.next_unlooked() == request
    assert batches.drain() == []
    batches.looked_up(request, Found(4, np.arange(4), dense=np.zeros((4, 1), np.float32)))
    assert batches.unsent.ahead() is None
    assert batches.embedded_count == 0


def test_all_batches_of_a_stream_have_the_same_dimension() -> None:
    batches = Batches(Dimension(None), lambda: LIMITS, ordered=True)
    first, second = Requests(list("abcdefgh"), lambda: LIMITS)
    for request in (first, second):
        batches.add(request, list(request.texts))
    batches.rows(first, 3)
    assert batches.dimension == 3
    with pytest.raises(ResponseError, match="expected 3 numbers a row"):
        batches.rows(second, 4)
