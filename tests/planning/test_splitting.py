from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import TransportError
from pinecone_embed_async._planning import (
    Learned,
    LearnedLimits,
    Load,
    Packer,
    PendingTexts,
    PlannedRequest,
    RequestLimits,
    estimate_tokens,
    utf8_length,
)
from tests.outcomes import SeenOutcomes, planned, span

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=60)


def pending_of(
    texts: Sequence[str], limits: RequestLimits, *, learned: Learned | None = None, positions: Sequence[int] | None = None
) -> PendingTexts:
    chosen = range(len(texts)) if positions is None else positions
    return PendingTexts(texts, LearnedLimits(limits, learned or fixed(limits)), SeenOutcomes(len(texts)), chosen)


def all_of(pending: PendingTexts) -> list[PlannedRequest]:
    return list(iter(pending.take, None))


def fixed(limits: RequestLimits) -> Learned:
    """What a client has learned whose estimates have the ratio of `limits`."""
    learned = Learned()
    learned.estimator.bytes_per_token = limits.bytes_per_token
    return learned


def request_of(texts: Sequence[str], limits: RequestLimits) -> PlannedRequest:
    """One request of all texts, whether or not they fit."""
    return planned(texts, SeenOutcomes(len(texts)), limits)


@given(TEXTS, st.integers(1, 9), st.integers(1, 30), st.integers(1, 400))
def test_requests_cover_all_inputs_once_in_order_within_the_limits(
    texts: list[str], inputs: int, tokens: int, size: int
) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8, tokens=tokens, bytes=size)
    seen: list[str] = []
    for request in all_of(pending_of(texts, limits)):
        assert request.origin is request
        start = len(seen)
        seen.extend(request.texts)
        assert span(request) == (start, len(seen))
        assert 1 <= len(request.texts) <= inputs
        assert request.load.tokens == sum(estimate_tokens(utf8_length(text), 8) for text in request.texts)
        if len(request.texts) > 1:
            assert request.load.tokens <= tokens
            assert request.load.bytes <= size
    assert seen == texts


@given(TEXTS, st.integers(1, 9), st.data())
def test_only_the_texts_at_the_given_positions_are_sent(texts: list[str], inputs: int, data: st.DataObject) -> None:
    positions = [position for position in range(len(texts)) if data.draw(st.booleans())]
    pending = pending_of(texts, RequestLimits(inputs=inputs, sequence_length=8, tokens=30), positions=positions)
    requests = all_of(pending)
    assert [position for request in requests for position in request.positions] == positions
    assert [text for request in requests for text in request.texts] == [texts[position] for position in positions]
    assert pending.take() is None


def test_a_text_over_every_limit_is_sent_alone() -> None:
    limits = RequestLimits(inputs=96, sequence_length=500, tokens=10, bytes=50)
    first, second = all_of(pending_of(["a" * 100, "b", "c"], limits))
    assert list(first.texts) == ["a" * 100]
    assert list(second.texts) == ["b", "c"]


def packer_of(limits: RequestLimits) -> Packer:
    return Packer(LearnedLimits(limits, fixed(limits)))


def test_a_request_is_full_with_its_last_input_not_with_the_one_after() -> None:
    packer = packer_of(RequestLimits(inputs=2, sequence_length=8))
    assert packer.fill("a") is None
    full = packer.fill("b")
    assert full is not None
    assert (full.start, full.texts) == (0, ["a", "b"])
    assert packer.flush() is None


def test_a_skipped_text_has_a_position_of_its_own_and_ends_the_request_before_it() -> None:
    packer = packer_of(RequestLimits(inputs=4, sequence_length=8))
    assert packer.fill("ab") is None
    assert packer.position == 2
    before = packer.skip()
    assert before is not None
    assert (before.start, before.texts) == (0, ["a", "b"])
    assert packer.skip() is None
    assert packer.fill("c") is None
    after = packer.flush()
    assert after is not None
    assert (after.start, packer.position) == (4, 5)


def test_limits_that_shrink_apply_to_later_requests() -> None:
    learned = Learned()
    requests = pending_of("abcdefg", RequestLimits(inputs=4, sequence_length=8), learned=learned)
    first = requests.take()
    assert first is not None
    assert len(first.texts) == 4
    learned.too_many(2)
    learned.too_many(3)
    assert [len(request.texts) for request in all_of(requests)] == [2, 1]


@given(TEXTS.filter(len), st.integers(1, 70))
def test_parts_hold_the_same_inputs_in_order(texts: list[str], count: int) -> None:
    limits = RequestLimits(inputs=100, sequence_length=8, tokens=10**9, bytes=10**9)
    request = request_of(texts, limits)
    parts = request.parts(count)
    assert [text for part in parts for text in part.texts] == texts
    assert [position for part in parts for position in part.positions] == list(request.positions)
    assert sum(part.load.tokens for part in parts) == request.load.tokens
    assert sum(part.load.bytes for part in parts) == request.load.bytes
    assert all(part.origin is request and len(part.texts) <= count for part in parts)
    assert all(half.origin is request for part in parts for half in part.parts(1))


@given(TEXTS.filter(len), st.data())
def test_some_inputs_of_a_request_keep_their_positions(texts: list[str], data: st.DataObject) -> None:
    limits = RequestLimits(inputs=100, sequence_length=8)
    request = request_of(texts, limits)
    for _ in range(2):
        count = len(request.texts)
        places = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))
        request = request.only(places)
        assert list(request.texts) == [texts[position] for position in request.positions]
        assert len(request.texts) == len(places)
        first, last = request.positions[0], request.positions[-1]
        assert isinstance(request.positions, range) == (last - first == len(places) - 1)


def test_a_refusal_for_size_is_learned_until_a_single_input_explains_it() -> None:
    limits = RequestLimits(inputs=96, sequence_length=500, bytes=2000)
    request = request_of(["x" * 100] * 8, limits)
    small, culprit = request.parts(3)[0], request.parts(1)[0]
    learned = Learned()
    learned_limits = LearnedLimits(limits, learned)
    learned.too_large(request.load)
    assert learned_limits.current.bytes == request.load.bytes // 2
    learned.too_large(request.load)
    assert learned_limits.current.bytes == request.load.bytes // 2
    learned.accepted(small.load, b"{}")
    learned.too_large(small.load)
    assert learned_limits.current.bytes == request.load.bytes // 2
    learned.too_large(culprit.load)
    assert learned_limits.current.bytes == limits.bytes


def test_bills_of_accepted_requests_teach_the_ratio() -> None:
    limits = RequestLimits(inputs=96, sequence_length=500)
    learned_limits = LearnedLimits(limits, Learned())
    assert learned_limits.learned.estimator.expected == 4.0
    assert learned_limits.billed(Load.of(["x" * 400], limits), 2 + 200) == 2 + 200
    assert learned_limits.learned.estimator.expected == 2.0


@pytest.mark.parametrize(
    ("length", "size", "count", "least"),
    # 50 texts of 1,000 tokens, and 500 of 4,000 bytes with what JSON puts around them.
    [(10**6, 3992, 50, 4), (10, 3988, 500, 1)],
)
def test_a_request_has_at_most_fifty_thousand_tokens_and_two_million_bytes(
    length: int, size: int, count: int, least: int
) -> None:
    limits = RequestLimits(inputs=10**6, sequence_length=length, bytes_per_token=4.0)
    for more, requests in ((0, [count]), (least, [count - 1, 1])):
        texts = ["x" * size] * (count - 1) + ["x" * (size + more)]
        assert [len(request.texts) for request in all_of(pending_of(texts, limits))] == requests


def test_sets_of_parameters_are_not_remembered_without_bound() -> None:
    request = request_of(["a"], RequestLimits(inputs=1, sequence_length=8))
    learned = Learned()
    for number in range(1000):
        learned.accepted(request.load, b"%d" % number)
    assert len(learned.parameters) == 64
    assert b"999" in learned.parameters


@pytest.mark.parametrize(("size", "expected"), [(0, 2), (4, 3), (400, 102), (10_000, 507)])
def test_token_estimates_count_special_tokens_and_stop_at_the_models_length(size: int, expected: int) -> None:
    assert estimate_tokens(size, 507) == expected


@given(TEXTS, st.integers(1, 9), st.integers(1, 30), st.integers(1, 400))
def test_texts_of_a_call_and_of_a_stream_are_split_alike(texts: list[str], inputs: int, tokens: int, size: int) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8, tokens=tokens, bytes=size)
    packer = packer_of(limits)
    one_by_one = [packed for packed in [*(packer.fill([text]) for text in texts), packer.flush()] if packed is not None]
    requests = all_of(pending_of(texts, limits))
    assert [(span(request)[0], list(request.texts)) for request in requests] == [packed[:2] for packed in one_by_one]
    for request, packed in zip(requests, one_by_one, strict=True):
        assert [getattr(request.load, name) for name in Load.__struct_fields__] == [
            getattr(packed.load, name) for name in Load.__struct_fields__
        ]


ROOM = st.integers(0, 60)


@given(TEXTS, st.integers(1, 9), st.lists(ROOM | st.none(), max_size=100))
def test_cut_requests_cover_all_inputs_once_in_order(texts: list[str], inputs: int, rooms: list[int | None]) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8)
    requests = pending_of(texts, limits)
    seen: list[str] = []
    for room in rooms:
        request = requests.take()
        if request is None:
            assert len(seen) == len(texts)
            continue
        rest = None if room is None else request.cut(room)
        if rest is not None:
            requests.give_back(rest)
        assert request.positions[0] == len(seen)
        assert room is None or request.load.tokens <= room or len(request.texts) == 1
        assert request.load.tokens == sum(limits.tokens_of(utf8_length(text)) for text in request.texts)
        seen.extend(request.texts)
    for request in all_of(requests):
        assert request.positions[0] == len(seen)
        seen.extend(request.texts)
    assert seen == texts


@given(TEXTS.filter(len), ROOM)
def test_a_request_is_cut_to_as_many_first_inputs_as_fit_and_at_least_one(texts: list[str], room: int) -> None:
    limits = RequestLimits(inputs=100, sequence_length=8)
    request = request_of(texts, limits)
    request.body = b"encoded"
    before = request.load.tokens
    rest = request.cut(room)
    assert [*request.texts, *(rest.texts if rest is not None else ())] == texts
    assert request.load.tokens <= room or len(request.texts) == 1
    assert span(request) == (0, len(request.texts))
    if rest is None:
        assert request.load.tokens == before
        return
    assert request.body is None, "it must be encoded again"
    assert span(rest) == (len(request.texts), len(texts))
    assert rest.origin is request.origin
    assert request.load.tokens + limits.tokens_of(utf8_length(rest.texts[0])) > room
    assert request.load.tokens + rest.load.tokens == before


def test_a_request_that_fits_by_a_newer_ratio_is_estimated_anew() -> None:
    request = request_of(["a" * 40] * 4, RequestLimits(inputs=96, sequence_length=2048, bytes_per_token=2.0))
    before = request.load.tokens
    request.limits.learned.estimator.bytes_per_token = 4.0
    assert request.cut(60) is None
    assert len(request.texts) == 4
    assert request.load.tokens <= 60 < before


def test_the_rest_of_a_cut_request_is_refilled_with_the_next_inputs() -> None:
    limits = RequestLimits(inputs=4, sequence_length=8)
    requests = pending_of("abcdefg", limits)
    first = requests.take()
    assert first is not None
    rest = first.cut(3 * limits.tokens_of(1))
    assert rest is not None
    requests.give_back(rest)
    second = requests.take()
    assert second is not None
    assert "".join(first.texts) == "abc"
    assert "".join(second.texts) == "defg"


@pytest.mark.parametrize(("learned", "expected"), [(2.0, 102), (12.0, 52)])
def test_the_tokens_an_input_has_for_certain_are_never_over_its_estimate(learned: float, expected: int) -> None:
    limits = RequestLimits(inputs=96, sequence_length=2048, bytes_per_token=learned)
    request = request_of(["a" * 600], limits)
    assert request.certain_tokens == expected <= request.least_tokens


def test_a_request_counts_its_attempts_from_the_first_which_it_remembers() -> None:
    request = request_of(["a"], RequestLimits(inputs=1, sequence_length=8))
    assert (request.attempts, request.failures, request.first_sent, request.in_flight) == (0, 0, None, False)
    flags = (request.is_answered, request.is_last, request.was_retried_at_once, request.is_probe, request.was_halved)
    assert not any(flags)
    for now in (5.0, 7.0):
        request.sent(now)
    assert (request.attempts, request.failures, request.first_sent, request.in_flight) == (2, 0, 5.0, True)


def test_the_least_tokens_of_a_request_are_those_of_its_first_input() -> None:
    limits = RequestLimits(inputs=96, sequence_length=500)
    assert request_of(["x" * 400, "y"], limits).least_tokens == limits.tokens_of(400)
    assert request_of(["y", "x" * 400], limits).least_tokens == limits.tokens_of(1)


def test_a_request_out_of_time_names_its_last_error_if_it_has_one() -> None:
    request = request_of(["a"], RequestLimits(inputs=1, sequence_length=8))
    assert str(request.out_of_time("too late", None)) == "too late"
    request.sent(5.0)
    request.last_error = TransportError("cut")
    error = request.out_of_time("too late", 2.0)
    assert (str(error), error.attempts) == ("too late; the last attempt failed with TransportError: cut", 1)
    assert (error.__cause__, error.retry_after) == (request.last_error, 2.0)


def test_the_repr_of_pending_texts_shows_their_number_only() -> None:
    pending = pending_of(["secret", "other"], RequestLimits(inputs=1, sequence_length=8))
    pending.take()
    assert repr(pending) == "<PendingTexts 1 of 2 taken>"
