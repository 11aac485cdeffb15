from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import InputError, ServiceError
from pinecone_embed_async._cache import Found
from pinecone_embed_async._calls.batches import EmbeddedBatch, StreamBatches
from pinecone_embed_async._planning import Learned, LearnedLimits, Packer, PlannedRequest, RequestLimits
from pinecone_embed_async._results import Dimension, all_steps
from pinecone_embed_async._wire import Answer

LIMITS = RequestLimits(inputs=4, sequence_length=8)


def batches_of(count: int, *, ordered: bool = True, looks_up: bool = False) -> StreamBatches:
    """Batches of four items each, read but not looked up or sent."""
    limits = LearnedLimits(LIMITS, Learned())
    batches, packer = StreamBatches(Dimension(1), limits, ordered=ordered, looks_up=looks_up), Packer(limits)
    for number in range(count):
        packed = packer.fill([str(number)])
        if packed is not None:
            batches.add(packed, [f"item {text}" for text in packed.texts])
    assert packer.flush() is None
    return batches


def sent(batches: StreamBatches) -> list[PlannedRequest]:
    """The requests, all sent."""
    requests = []
    while (request := batches.take()) is not None:
        requests.append(request)
    return requests


def answer(request: PlannedRequest, value: float = 0) -> None:
    request.results.rows(request, 1)[:] = value
    request.results.answered(request, Answer("dense", None, 1))
    request.results.embedded(request)


def delivered(batches: StreamBatches) -> list[int]:
    """The starts of the batches that can be delivered now."""
    starts = []
    while (batch := batches.next_done()) is not None:
        starts.append(batch.start)
    return starts


@given(st.permutations(range(5)), st.booleans())
def test_batches_are_delivered_in_order_or_as_they_complete(order: list[int], ordered: bool) -> None:
    batches = batches_of(20, ordered=ordered)
    requests = sent(batches)
    seen: list[int] = []
    for number in order:
        answer(requests[number])
        seen.extend(delivered(batches))
        if ordered:
            assert seen == [4 * index for index in range(len(seen))]
    assert seen == ([0, 4, 8, 12, 16] if ordered else [4 * number for number in order])
    assert len(batches) == 0
    assert (batches.usage.requests, batches.usage.total_tokens) == (5, 5)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_batch_is_settled_when_all_its_parts_are(ordered: bool) -> None:
    batches = batches_of(4, ordered=ordered)
    (request,) = sent(batches)
    first, second = request.parts(2)
    request.results.failed(second, ServiceError("no", status=500))
    assert batches.next_done() is None
    answer(first, 7)
    batch = batches.next_done()
    assert batch is not None
    assert not batch.is_complete
    result = all_steps(batch.finish("m", "dense"))
    np.testing.assert_array_equal(result.vectors.ravel(), [7, 7, np.nan, np.nan])  # type: ignore[union-attr]
    assert [list(failure.indices) for failure in result.failures] == [[2, 3]]
    assert (batches.embedded_count, batches.failed_count) == (2, 2)
    assert batches.next_done() is None


@pytest.mark.parametrize("ordered", [True, False])
def test_an_item_that_cannot_be_sent_is_a_batch_of_its_own(ordered: bool) -> None:
    batches = batches_of(4, ordered=ordered)
    batches.add_failed(4, "item", InputError("no text", index=4))
    for request in sent(batches):
        answer(request)
    assert sorted(delivered(batches)) == [0, 4]


def test_draining_an_ended_job_returns_complete_batches_first_and_no_untried_ones() -> None:
    batches = batches_of(16)
    requests = sent(batches)
    requests[0].results.failed(requests[0], ServiceError("no", status=500))
    answer(requests[2])
    half, rest = requests[3].parts(2)
    answer(half)
    rest.results.failed(rest, ServiceError("no", status=500))
    assert [batch.start for batch in batches.drain()] == [8, 0, 12]
    assert len(batches) == 0


def test_a_batch_of_which_the_cache_has_nothing_is_sent_as_it_was_read() -> None:
    batches = batches_of(4, looks_up=True)
    request = batches.next_to_look_up()
    assert request is not None
    batches.looked_up(request, Found(4, np.array([], np.intp), dense=None))
    assert batches.take() is request


def test_a_delivered_batch_cannot_be_changed() -> None:
    batch: EmbeddedBatch[str, None] = EmbeddedBatch(0, ["item"], None)
    with pytest.raises(FrozenInstanceError):
        batch.start = 1  # type: ignore[misc]


def test_only_complete_batches_are_delivered_while_an_ended_job_winds_down() -> None:
    batches = batches_of(8, ordered=False)
    first, second = sent(batches)
    first.results.failed(first, ServiceError("no", status=500))
    assert batches.next_done(only_complete=True) is None
    answer(second)
    assert [batch.start for batch in batches.drain()] == [4, 0]


def test_requests_are_taken_in_order_and_what_was_cut_off_is_given_back() -> None:
    batches = batches_of(8)
    assert repr(batches) == "<StreamBatches 2 read ahead>"
    head, second = batches.take(), batches.take()
    assert head is not None
    assert second is not None
    rest = head.cut(head.load.tokens - 1)
    assert rest is not None
    batches.give_back(rest)
    assert batches.take() is rest
    assert batches.take() is None
    assert [*head.texts, *rest.texts, *second.texts] == list("01234567")


@given(st.sets(st.integers(0, 3)), st.booleans())
def test_only_what_a_look_up_did_not_find_is_sent(found: set[int], ordered: bool) -> None:
    batches = batches_of(8, ordered=ordered, looks_up=True)
    assert batches.take() is None
    batches.next_to_look_up()
    request = batches.next_to_look_up()
    assert request is not None
    assert batches.next_to_look_up() is None
    rows = np.array(sorted(found), np.intp)
    batches.looked_up(request, Found(4, rows, dense=np.full((len(rows), 1), 3, np.float32)))
    missing = [position for position in range(4, 8) if position - 4 not in found]
    requests = sent(batches)
    assert [position for one in requests for position in one.positions] == missing
    assert (batches.cached_count, batches.embedded_count) == (len(found), len(found))
    for one in requests:
        answer(one, 5)
    (batch,) = batches.drain()
    assert batch.is_complete
    vectors = all_steps(batch.finish("m", "dense")).vectors  # type: ignore[union-attr]
    assert vectors.ravel().tolist() == [3 if row in found else 5 for row in range(4)]


def test_cached_rows_for_an_ended_job_are_dropped() -> None:
    batches = batches_of(4, looks_up=True)
    request = batches.next_to_look_up()
    assert request is not None
    assert batches.drain() == []
    batches.looked_up(request, Found(4, np.arange(4), dense=np.zeros((4, 1), np.float32)))
    assert batches.take() is None
    assert batches.embedded_count == 0
