from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async._planning import (
    Learned,
    RequestLimits,
    Requests,
    Splitter,
    estimate_tokens,
    plan_request,
    utf8_length,
)

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=40), max_size=60)


@given(TEXTS, st.integers(1, 9), st.integers(1, 30), st.integers(1, 400))
def test_requests_cover_all_inputs_once_in_order_within_the_limits(
    texts: list[str], inputs: int, tokens: int, size: int
) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8, tokens=tokens, bytes=size)
    seen: list[str] = []
    for request in Requests(texts, lambda: limits):
        assert request.start == request.origin == len(seen)
        seen.extend(request.texts)
        assert request.stop == len(seen)
        assert 1 <= len(request.texts) <= inputs
        assert request.tokens == sum(estimate_tokens(utf8_length(text), 8) for text in request.texts)
        if len(request.texts) > 1:
            assert request.tokens <= tokens
            assert request.bytes <= size
    assert seen == texts


def test_a_text_over_every_limit_is_sent_alone() -> None:
    limits = RequestLimits(inputs=96, sequence_length=500, tokens=10, bytes=50)
    first, second = Requests(["a" * 100, "b", "c"], lambda: limits)
    assert list(first.texts) == ["a" * 100]
    assert list(second.texts) == ["b", "c"]


def test_a_request_is_full_with_its_last_input_not_with_the_one_after() -> None:
    splitter = Splitter(lambda: RequestLimits(inputs=2, sequence_length=8))
    assert splitter.add("a") is None
    full = splitter.add("b")
    assert full is not None
    assert (full.start, full.stop, len(splitter)) == (0, 2, 0)
    assert splitter.flush() is None


def test_limits_that_shrink_apply_to_later_requests() -> None:
    learned = Learned()
    requests = Requests(list("abcdefg"), lambda: learned.applied_to(RequestLimits(inputs=4, sequence_length=8)))
    first = requests.take()
    assert first is not None
    assert len(first.texts) == 4
    learned.too_many(2)
    assert [len(request.texts) for request in requests] == [2, 1]


@given(TEXTS.filter(len), st.integers(1, 70))
def test_parts_hold_the_same_inputs_in_order(texts: list[str], count: int) -> None:
    limits = RequestLimits(inputs=100, sequence_length=8, tokens=10**9, bytes=10**9)
    (request,) = Requests(texts, lambda: limits)
    parts = request.parts(count, limits)
    assert [text for part in parts for text in part.texts] == texts
    assert sum(part.tokens for part in parts) == request.tokens
    assert sum(part.bytes for part in parts) == request.bytes
    assert all(part.origin == request.origin and len(part.texts) <= count for part in parts)


def test_a_refusal_for_size_is_learned_until_a_single_input_explains_it() -> None:
    limits = RequestLimits(inputs=96, sequence_length=500, bytes=2000)
    (request,) = Requests(["x" * 100] * 8, lambda: limits)
    small, culprit = request.parts(4, limits)[0], request.parts(1, limits)[0]
    learned = Learned()
    learned.too_large(request)
    assert learned.applied_to(limits).bytes == request.bytes // 2
    learned.too_large(request)
    assert learned.applied_to(limits).bytes == request.bytes // 2
    learned.accepted(small, b"{}")
    learned.too_large(small)
    assert learned.applied_to(limits).bytes == request.bytes // 2
    learned.too_large(culprit)
    assert learned.applied_to(limits).bytes == limits.bytes


def test_sets_of_parameters_are_not_remembered_without_bound() -> None:
    (request,) = Requests(["a"], lambda: RequestLimits(inputs=1, sequence_length=8))
    learned = Learned()
    for number in range(1000):
        learned.accepted(request, b"%d" % number)
    assert len(learned.parameters) == 64
    assert b"999" in learned.parameters


@pytest.mark.parametrize(("size", "expected"), [(0, 2), (4, 3), (400, 102), (10_000, 507)])
def test_token_estimates_count_special_tokens_and_stop_at_the_models_length(size: int, expected: int) -> None:
    assert estimate_tokens(size, 507) == expected


@given(TEXTS, st.integers(1, 9), st.integers(1, 30), st.integers(1, 400))
def test_requests_and_splitter_split_texts_alike(texts: list[str], inputs: int, tokens: int, size: int) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8, tokens=tokens, bytes=size)
    splitter = Splitter(lambda: limits)
    one_by_one = [request for request in [*map(splitter.add, texts), splitter.flush()] if request is not None]
    assert list(Requests(texts, lambda: limits)) == one_by_one


ROOM = st.integers(0, 60)


@given(TEXTS, st.integers(1, 9), st.lists(ROOM | st.none(), max_size=100))
def test_cut_requests_cover_all_inputs_once_in_order(texts: list[str], inputs: int, rooms: list[int | None]) -> None:
    limits = RequestLimits(inputs=inputs, sequence_length=8)
    requests = Requests(texts, lambda: limits)
    seen: list[str] = []
    for room in rooms:
        ahead = requests.ahead()
        request = requests.take(room)
        if request is None:
            assert requests.ahead() is ahead, "it stays the next request"
            assert ahead is None or (room is not None and ahead.least_tokens(limits) > room)
            continue
        assert request.start == len(seen)
        assert room is None or request.tokens <= room
        assert request.tokens == sum(limits.tokens_of(utf8_length(text)) for text in request.texts)
        seen.extend(request.texts)
    for request in requests:
        assert request.start == len(seen)
        seen.extend(request.texts)
    assert seen == texts


@given(TEXTS.filter(len), ROOM)
def test_a_request_is_cut_to_as_many_first_inputs_as_fit(texts: list[str], room: int) -> None:
    limits = RequestLimits(inputs=100, sequence_length=8)
    (request,) = Requests(texts, lambda: limits)
    head, rest = request.cut(room, limits)
    assert [text for part in (head, rest) if part is not None for text in part.texts] == texts
    if head is None:
        assert limits.tokens_of(utf8_length(texts[0])) > room
        assert rest is request
    else:
        assert head.tokens <= room
        assert head.start == 0
        if rest is not None:
            assert rest.start == head.stop
            assert rest.origin == request.origin
            assert head.tokens + limits.tokens_of(utf8_length(rest.texts[0])) > room
            assert head.tokens + rest.tokens == request.tokens


def test_a_request_that_fits_by_a_newer_ratio_is_estimated_anew() -> None:
    request = plan_request(["a" * 40] * 4, 0, RequestLimits(inputs=96, sequence_length=2048, bytes_per_token=2.0), origin=0)
    head, rest = request.cut(60, RequestLimits(inputs=96, sequence_length=2048, bytes_per_token=4.0))
    assert rest is None
    assert head is not None
    assert head.texts == request.texts
    assert head.tokens <= 60 < request.tokens


def test_the_request_ahead_stays_the_next_and_is_not_read_twice() -> None:
    read: list[int] = []

    def texts() -> Iterator[str]:
        for number in range(6):
            read.append(number)
            yield str(number)

    requests = Requests(texts(), lambda: RequestLimits(inputs=2, sequence_length=8))
    ahead = requests.ahead()
    assert requests.ahead() is ahead
    assert read == [0, 1]
    assert requests.take() is ahead


def test_the_rest_of_a_cut_request_is_refilled_with_the_next_inputs() -> None:
    limits = RequestLimits(inputs=4, sequence_length=8)
    requests = Requests("abcdefg", lambda: limits)
    first = requests.take(3 * limits.tokens_of(1))
    second = requests.take()
    assert first is not None
    assert second is not None
    assert "".join(first.texts) == "abc"
    assert "".join(second.texts) == "defg"
