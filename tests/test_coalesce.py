"""Who joins which request, when it goes, and what each caller gets: with a fake clock and a fake service."""

import asyncio
import copy
import pickle
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    DeadlineExceededError,
    EmbedError,
    InvalidRequestError,
    ServiceError,
    SparseVector,
)
from pinecone_embed_async._coalesce import Answers, Batch, Gatherer, Joined, Joiner, Seat, own_error
from pinecone_embed_async._limits import Turn
from pinecone_embed_async._plan import Learned, Ledger, PlannedRequest, RequestLimits, Requests
from pinecone_embed_async._plan._ledger import PROBE_TEXT
from pinecone_embed_async._results import Dimension
from pinecone_embed_async._retry import RetryState
from pinecone_embed_async._stream import GRACE_SECONDS, Run
from pinecone_embed_async._wire import Answer, SparseBlock
from tests.clock import FakeClock, FakeTimer, settle
from tests.turns import turns

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

DELAY = 0.002


# Who joins whom, and when it goes.


class Turns:
    """What is to be done at the end of the turn, which a test ends."""

    def __init__(self) -> None:
        self._timers: list[FakeTimer] = []

    def soon(self, callback: Callable[[], None]) -> FakeTimer:
        self._timers.append(FakeTimer(callback))
        return self._timers[-1]

    @property
    def pending(self) -> int:
        return sum(timer.callback is not None for timer in self._timers)

    def end(self) -> None:
        timers, self._timers = self._timers, []
        for timer in timers:
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()


class Gathering:
    """A gatherer, and what it has sent."""

    def __init__(self, *, most: int = 8, inputs: int = 4, size: int = 10_000) -> None:
        self.clock, self.turns = FakeClock(), Turns()
        self.gatherer = Gatherer(clock=self.clock, soon=self.turns.soon, max_delay=DELAY, most=most)
        self.limits = RequestLimits(inputs=inputs, sequence_length=512, bytes=size)
        self.batches: list[Batch] = []
        self.ended: set[Batch] = set()

    def join(self, text: str, key: str = "k", deadline: float | None = None) -> Seat:
        return self.gatherer.join(key, text, self.limits, send=self.batches.append, wake=lambda: None, deadline=deadline)

    def end(self, number: int) -> None:
        self.ended.add(self.batches[number])
        self.gatherer.ended(self.batches[number])

    @property
    def sent(self) -> list[list[str]]:
        return [list(batch.seats) for batch in self.batches]

    def is_quiet(self) -> bool:
        return self.clock.pending == self.turns.pending == 0


def test_a_lone_call_goes_at_the_end_of_its_turn() -> None:
    gathering = Gathering()
    gathering.join("a")
    assert gathering.sent == []
    assert gathering.clock.pending == 0
    gathering.turns.end()
    assert gathering.sent == [["a"]]
    assert gathering.is_quiet()


def test_calls_of_one_turn_go_together_and_full_requests_do_not_wait_for_its_end() -> None:
    gathering = Gathering(inputs=3)
    for number in range(8):
        gathering.join(str(number))
    assert gathering.sent == [["0", "1", "2"], ["3", "4", "5"]]
    gathering.end(0)
    gathering.end(1)
    gathering.turns.end()
    assert gathering.sent[2:] == [["6", "7"]]
    assert gathering.is_quiet()


def test_while_a_request_is_under_way_later_calls_go_when_the_oldest_has_waited_long_enough() -> None:
    gathering = Gathering()
    gathering.join("first")
    gathering.turns.end()
    gathering.join("a")
    gathering.turns.end()
    gathering.clock.advance(DELAY * 0.75)
    gathering.join("b")
    gathering.turns.end()
    assert gathering.clock.pending == 1
    assert gathering.sent == [["first"]]
    gathering.clock.advance(DELAY * 0.25)
    assert gathering.sent == [["first"], ["a", "b"]]
    assert gathering.is_quiet()


def test_they_go_at_once_when_nothing_is_under_way_any_more() -> None:
    gathering = Gathering()
    gathering.join("first")
    gathering.turns.end()
    gathering.join("a")
    gathering.turns.end()
    gathering.end(0)
    # Whoever was waiting for that answer and asks again in the same turn comes along.
    gathering.join("b")
    gathering.turns.end()
    assert gathering.sent == [["first"], ["a", "b"]]
    assert gathering.is_quiet()


def test_they_wait_for_those_whose_texts_are_being_looked_up_but_no_longer_than_for_others() -> None:
    gathering = Gathering()
    with gathering.gatherer.coming("k"):
        gathering.join("a")
        gathering.join("of another kind", key="l")
        gathering.turns.end()
        assert gathering.sent == [["of another kind"]]
    gathering.join("looked up in vain")
    gathering.turns.end()
    assert gathering.sent[1:] == [["a", "looked up in vain"]]
    gathering.end(1)
    with gathering.gatherer.coming("k"):
        gathering.join("b")
        gathering.turns.end()
        gathering.clock.advance(DELAY)
        assert gathering.sent[2:] == [["b"]]
    assert gathering.is_quiet()


def test_equal_texts_share_a_place_even_in_a_request_without_room() -> None:
    gathering = Gathering(size=60)
    gathering.join("x" * 40)
    gathering.join("x" * 40)
    gathering.join("y" * 40)
    gathering.turns.end()
    # What was sent as full is under way, so the rest waits.
    gathering.clock.advance(DELAY)
    assert gathering.sent == [["x" * 40], ["y" * 40]]
    assert [batch.callers for batch in gathering.batches] == [2, 1]


def test_a_text_over_every_limit_goes_alone() -> None:
    gathering = Gathering(size=60)
    gathering.join("a")
    gathering.join("x" * 1000)
    gathering.join("b")
    assert gathering.sent == [["a"], ["x" * 1000]]


def test_callers_with_different_keys_neither_meet_nor_wait_for_each_other() -> None:
    gathering = Gathering()
    gathering.join("a", key="query")
    gathering.turns.end()
    gathering.join("a", key="passage")
    gathering.turns.end()
    assert [batch.key for batch in gathering.batches] == ["query", "passage"]
    assert gathering.is_quiet()


def test_what_would_only_wait_for_a_permit_gathers_more() -> None:
    gathering = Gathering(most=1, inputs=3)
    gathering.join("first")
    gathering.turns.end()
    gathering.join("a")
    gathering.turns.end()
    gathering.clock.advance(10 * DELAY)
    gathering.join("b")
    assert gathering.sent == [["first"]]
    assert gathering.clock.pending == 0
    gathering.join("c")
    assert gathering.sent == [["first"], ["a", "b", "c"]]
    gathering.join("d")
    gathering.turns.end()
    gathering.end(0)
    gathering.turns.end()
    gathering.clock.advance(10 * DELAY)
    assert len(gathering.sent) == 2
    gathering.end(1)
    gathering.turns.end()
    assert gathering.sent[2:] == [["d"]]
    assert gathering.is_quiet()


def test_who_leaves_before_the_request_goes_leaves_its_room_to_others() -> None:
    gathering = Gathering(inputs=2)
    early = gathering.join("early")
    gathering.gatherer.leave(early)
    assert gathering.is_quiet()
    leaving, sharing = gathering.join("a"), gathering.join("a")
    gathering.gatherer.leave(leaving)
    gathering.gatherer.leave(sharing)
    seat = gathering.join("b")
    gathering.join("c")
    assert gathering.sent == [["b", "c"]]
    gathering.gatherer.leave(seat)
    assert gathering.batches[0].callers == 1
    assert gathering.is_quiet()


def test_nobody_is_left_waiting_for_a_timer_when_the_gathering_is_disbanded() -> None:
    gathering = Gathering()
    gathering.join("first")
    gathering.turns.end()
    seats = [gathering.join("a"), gathering.join("b", key="other")]
    gathering.turns.end()
    waiting = gathering.join("a")
    assert gathering.gatherer.disband() == [seats[0], waiting]
    assert gathering.is_quiet()
    for seat in (seats[0], waiting):
        gathering.gatherer.leave(seat)
    gathering.end(0)
    gathering.turns.end()
    assert gathering.sent == [["first"], ["b"]]


def test_a_request_has_the_latest_of_its_callers_deadlines() -> None:
    gathering = Gathering()
    gathering.join("a", deadline=1.0)
    gathering.join("a", deadline=3.0)
    gathering.join("b", deadline=2.0)
    gathering.turns.end()
    assert gathering.batches[0].deadline == 3.0
    gathering.join("c", deadline=1.0)
    gathering.join("d")
    gathering.end(0)
    gathering.turns.end()
    assert gathering.batches[1].deadline is None


STEPS: st.SearchStrategy[list[tuple[Any, ...]]] = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from("kl"), st.sampled_from(["a", "b", "c", "d", "e", "x" * 30])),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("advance"), st.sampled_from([DELAY / 2, DELAY, 5 * DELAY])),
        st.tuples(st.just("turn")),
        st.tuples(st.just("come"), st.sampled_from("kl")),
        st.tuples(st.just("arrive")),
    ),
    max_size=60,
)


class Crowd:
    """Callers who come and leave as hypothesis says."""

    def __init__(self, gathering: Gathering, *, most: int) -> None:
        self.gathering = gathering
        self.most = most
        self.seats: list[Seat] = []
        self.left: set[Seat] = set()
        self.coming: list[tuple[str, AbstractContextManager[None]]] = []

    def come(self, key: str) -> None:
        self.coming.append((key, self.gathering.gatherer.coming(key)))
        self.coming[-1][1].__enter__()

    def arrive(self) -> None:
        if self.coming:
            self.coming.pop(0)[1].__exit__(None, None, None)

    def join(self, key: str, text: str) -> None:
        self.seats.append(self.gathering.join(text, key))

    def leave(self, number: int) -> None:
        if number < len(self.seats) and self.seats[number] not in self.left:
            self.left.add(self.seats[number])
            self.gathering.gatherer.leave(self.seats[number])

    def end(self, number: int) -> None:
        batches = self.gathering.batches
        if number < len(batches) and batches[number] not in self.gathering.ended:
            self.gathering.end(number)

    def advance(self, seconds: float) -> None:
        self.gathering.turns.end()
        self.gathering.clock.advance(seconds)
        self.check()

    def turn(self) -> None:
        self.gathering.turns.end()
        self.check()

    def under_way(self, key: object) -> int:
        return sum(batch.key == key for batch in self.gathering.batches if batch not in self.gathering.ended)

    def check(self) -> None:
        waiting = {seat.batch for seat in self.seats if not seat.batch.is_gone and seat not in self.left}
        for batch in waiting:
            assert 0 < len(batch.seats) < self.gathering.limits.inputs
            busy = self.under_way(batch.key)
            awaited = busy or any(key == batch.key for key, _ in self.coming)
            assert busy >= self.most or (awaited and self.gathering.clock.time() < batch.due)
        assert self.gathering.clock.pending == any(self.under_way(batch.key) < self.most for batch in waiting)


@given(STEPS, st.integers(1, 3), st.integers(1, 4))
def test_every_caller_is_sent_once_within_the_limits_and_nobody_waits_without_a_reason(
    steps: list[tuple[Any, ...]], most: int, inputs: int
) -> None:
    gathering = Gathering(most=most, inputs=inputs, size=60)
    crowd = Crowd(gathering, most=most)
    for what, *how in steps:
        getattr(crowd, what)(*how)
    while crowd.coming:
        crowd.arrive()
    crowd.turn()
    number = 0
    while number < len(gathering.batches):
        crowd.end(number)
        crowd.turn()
        number += 1
    assert gathering.is_quiet()
    assert not gathering.gatherer._gathering
    assert not gathering.gatherer._under_way
    assert not gathering.gatherer._coming
    for seat in crowd.seats:
        assert seat in crowd.left or seat.batch in gathering.batches
    for batch in gathering.batches:
        assert len(batch.seats) <= inputs
        assert len(batch.seats) == 1 or sum(len(text) + len('{"text":""},') for text in batch.seats) <= 60
        assert batch.callers == sum(seat.batch is batch and seat not in crowd.left for seat in crowd.seats)
        for text, sharing in batch.seats.items():
            assert all(seat.text == text and seat.batch is batch for seat in sharing)


# What each caller gets.


def vector_of(text: str) -> list[float]:
    return [float(len(text)), *map(float, text.encode()[:3].ljust(3))]


class Service:
    """Runs the requests of a joiner; a test says when each is answered. It refuses bad texts, as a real one does."""

    def __init__(self, *, inputs: int = 4, most: int = 8) -> None:
        self.clock, self.joined = FakeClock(), Joined()
        self.limits = RequestLimits(inputs=inputs, sequence_length=512)
        self.joiner = Joiner(clock=self.clock, max_delay=DELAY, most=most, joined=self.joined)
        self.requests: list[tuple[PlannedRequest, Answers, RetryState, asyncio.Future[EmbedError | None]]] = []
        self.cancelled = 0
        self.learned = Learned()

    def call(self, text: str, *, timeout: float | None = None, key: str = "k") -> asyncio.Task[Any]:
        async def call() -> Any:
            outcome = await self.joiner.call(
                text,
                key=key,
                limits=self.limits,
                dimension=None,
                deadline=None if timeout is None else self.clock.time() + timeout,
                run_of=self.run_of,
            )
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        return asyncio.create_task(call())

    def run_of(self, texts: Sequence[str], answers: Answers, deadline: float | None) -> Run:
        requests = Requests(texts, lambda: self.limits)

        async def send(
            request: PlannedRequest, retry: RetryState, turn: Turn, cut: Callable[[int], PlannedRequest]
        ) -> EmbedError | None:
            answer: asyncio.Future[EmbedError | None] = asyncio.get_running_loop().create_future()
            retry.sent(self.clock.time())
            self.requests.append((request, answers, retry, answer))
            try:
                return await answer
            except asyncio.CancelledError:
                self.cancelled += 1
                raise

        ledger = Ledger(
            requests,
            answers,
            limits=lambda: self.limits,
            learned=self.learned,
            parameters=b"",
            is_single=len(texts) == 1,
        )
        return Run(ledger, turns(self.clock), send, window=4, clock=self.clock, deadline=deadline, settled=lambda: None)

    @property
    def open(self) -> list[int]:
        return [number for number, (*_, answer) in enumerate(self.requests) if not answer.done()]

    def texts(self, number: int) -> list[str]:
        return list(self.requests[number][0].texts)

    def answer(self, number: int, error: EmbedError | None = None) -> None:
        """Answer a request: with `error`, a refusal if there is a bad text in it, or the vectors."""
        request, answers, retry, answer = self.requests[number]
        bad = [index for index, text in enumerate(request.texts, request.start) if text.startswith("bad")]
        beside = request.start + len(request.texts)
        if error is None and bad:
            error = InvalidRequestError(
                f"<input {bad[0]}> is bad, unlike <input {beside}>", status=400, details=[{"who": f"<input {bad[0]}>"}]
            )
        if error is None:
            answers.rows(request, 4)[:] = [vector_of(text) for text in request.texts]
            answers.answered(request, Answer("dense", None, 1, None))
            retry.is_settled = True
        retry.in_flight = False
        if error is not None:
            retry.failed(error)
        answer.set_result(error)

    async def answer_all(self) -> None:
        await settle()
        while self.open or self.clock.pending:
            for number in self.open:
                self.answer(number)
            await settle()
            self.clock.advance(DELAY)
            await settle()

    async def nothing_is_left(self) -> None:
        await settle()
        assert not self.joiner._sent
        assert not self.joiner._gatherer._gathering
        assert not self.joiner._gatherer._under_way
        assert self.clock.pending == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


def is_own(vector: Any, text: str) -> None:
    assert vector.base is None
    assert vector.dtype == np.float32
    assert vector.tolist() == vector_of(text)


async def test_each_caller_gets_an_array_of_its_own_and_equal_texts_are_sent_once() -> None:
    service = Service()
    calls = {number: service.call(text) for number, text in enumerate(["one", "two", "one"])}
    await settle()
    assert service.texts(0) == ["one", "two"]
    service.answer(0)
    vectors = [await calls[number] for number in range(3)]
    for vector, text in zip(vectors, ["one", "two", "one"], strict=True):
        is_own(vector, text)
    vectors[0][:] = 0
    is_own(vectors[2], "one")
    assert (service.joined.calls, service.joined.requests) == (3, 1)
    await service.nothing_is_left()


async def test_a_thousand_coroutines_started_in_one_turn_meet_in_eleven_requests() -> None:
    service = Service(inputs=96)
    calls = [service.call(f"text {number}") for number in range(1000)]
    await service.answer_all()
    assert len(service.requests) == 11
    for number, call in enumerate(calls):
        is_own(await call, f"text {number}")
    await service.nothing_is_left()


async def test_a_lone_call_is_on_its_way_a_few_turns_after_it_was_made() -> None:
    service = Service()
    call = service.call("a")
    turns = 0
    while not service.requests:
        await asyncio.sleep(0)
        turns += 1
    # Its own task, the end of the turn, the batch's task, the request's task.
    assert turns <= 4
    assert service.clock.pending == 0
    service.answer(0)
    is_own(await call, "a")


async def test_calls_one_after_the_other_never_wait() -> None:
    service = Service()
    for text in ("a", "b", "c"):
        call = service.call(text)
        await settle()
        assert service.clock.pending == 0
        service.answer(-1)
        is_own(await call, text)
    assert len(service.requests) == 3
    await service.nothing_is_left()


async def test_a_bad_text_fails_its_caller_alone_with_an_error_that_names_nobody_else() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "bad", "two", "bad")]
    await service.answer_all()
    is_own(await calls[0], "one")
    is_own(await calls[2], "two")
    errors = [call.exception() for call in (calls[1], calls[3])]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, InvalidRequestError)
        assert error.message == "<input 0> is bad, unlike <another input>"
        assert error.details == [{"who": "<input 0>"}]
        assert error.partial is None
        assert [(tuple(failure.indices), failure.error) for failure in error.failures] == [((0,), error)]
    assert [PROBE_TEXT] in [list(request.texts) for request, *_ in service.requests]
    await service.nothing_is_left()


async def test_good_texts_do_not_wait_until_the_bad_one_is_found() -> None:
    service = Service()
    service.learned.parameters[b""] = None
    calls = [service.call(text) for text in ("one", "two", "bad", "three")]
    await settle()
    service.answer(0)
    await settle()
    assert [service.texts(number) for number in service.open] == [["one", "two"], ["bad", "three"]]
    service.answer(1)
    await settle()
    is_own(await calls[0], "one")
    is_own(await calls[1], "two")
    assert not calls[2].done()
    await service.answer_all()
    is_own(await calls[3], "three")
    assert isinstance(calls[2].exception(), InvalidRequestError)
    await service.nothing_is_left()


async def test_an_error_of_the_whole_request_is_given_to_each_as_its_own() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two", "three")]
    await settle()
    down = ServiceError("<input 1> met a fault", status=503, details={"at": ["<input 2>"]})
    down.add_note("a note")
    service.answer(0, down)
    await asyncio.wait(calls)
    errors = [call.exception() for call in calls]
    assert len({id(error) for error in [down, *errors]}) == 4
    first, second, third = errors
    assert isinstance(first, ServiceError)
    assert isinstance(second, ServiceError)
    assert isinstance(third, ServiceError)
    assert [first.message, second.message] == ["<another input> met a fault", "<input 0> met a fault"]
    assert [second.details, third.details] == [{"at": ["<another input>"]}, {"at": ["<input 0>"]}]
    assert first.__notes__ == ["a note"]
    assert first.__notes__ is not second.__notes__
    assert first.attempts == 1
    first.add_note("mine")
    assert second.__notes__ == ["a note"]
    # Each was raised once: no frame of another caller is in its traceback.
    for error in errors:
        assert error is not None
        assert error.__cause__ is error.__context__ is None
        frames, traceback = 0, error.__traceback__
        while traceback is not None:
            frames, traceback = frames + 1, traceback.tb_next
        assert frames == 1
    await service.nothing_is_left()


async def test_an_error_of_the_job_is_given_to_those_whose_turn_had_not_come() -> None:
    service = Service(inputs=8)
    service.learned.parameters[b""] = None
    calls = [service.call(text) for text in ("one", "two", "bad", "three")]
    await settle()
    service.answer(0)
    await settle()
    service.answer(1, AuthenticationError("who?", status=401))
    await settle()
    service.answer(2)
    await asyncio.wait(calls)
    errors = [call.exception() for call in calls]
    assert [type(error) for error in errors] == [AuthenticationError] * 2 + [InvalidRequestError] * 2
    await service.nothing_is_left()


async def test_one_callers_cancellation_is_its_own() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two", "one")]
    await settle()
    calls[0].cancel("enough")
    await settle()
    assert calls[0].cancelled()
    assert service.cancelled == 0
    service.answer(0)
    is_own(await calls[1], "two")
    is_own(await calls[2], "one")
    assert service.joined.calls == 2
    await service.nothing_is_left()


async def test_when_all_callers_are_cancelled_the_request_is_too_before_the_last_one_leaves() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two")]
    await settle()
    calls[0].cancel()
    await settle()
    calls[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[1]
    assert service.cancelled == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await service.nothing_is_left()


async def test_callers_cancelled_before_it_goes_send_nothing() -> None:
    service = Service()
    first = service.call("first")
    await settle()
    calls = [service.call(text) for text in ("one", "two")]
    await settle()
    for call in calls:
        call.cancel()
    await settle()
    assert service.clock.pending == 0
    service.answer(0)
    await first
    assert len(service.requests) == 1
    await service.nothing_is_left()


async def test_a_second_cancellation_does_not_leave_the_request_alone() -> None:
    service = Service()
    call = service.call("one")
    await settle()
    call.cancel("first")
    await asyncio.sleep(0)
    call.cancel("second")
    with pytest.raises(asyncio.CancelledError):
        await call
    assert service.cancelled == 1
    await service.nothing_is_left()


async def test_a_deadline_ends_its_own_call_alone_and_says_what_was_met() -> None:
    service = Service()
    hurried, patient = service.call("one", timeout=1), service.call("two")
    await settle()
    service.requests[0][2].failed(ServiceError("<input 1> is slow", status=503))
    service.clock.advance(1)
    await settle()
    error = hurried.exception()
    assert isinstance(error, DeadlineExceededError)
    assert "before the answer came; the last attempt met ServiceError: 503: <another input> is slow" in str(error)
    assert [(tuple(failure.indices), failure.error) for failure in error.failures] == [((0,), error)]
    assert service.cancelled == 0
    service.answer(0)
    is_own(await patient, "two")
    await service.nothing_is_left()


async def test_a_deadline_before_the_request_has_gone() -> None:
    service = Service()
    first = service.call("first")
    await settle()
    hurried, patient = service.call("one", timeout=DELAY / 2), service.call("two", timeout=10)
    await settle()
    service.clock.advance(DELAY / 2)
    await settle()
    error = hurried.exception()
    assert isinstance(error, DeadlineExceededError)
    assert error.failures == ()
    service.clock.advance(DELAY / 2)
    await settle()
    assert service.texts(1) == ["two"]
    await service.answer_all()
    await first
    is_own(await patient, "two")
    await service.nothing_is_left()


async def test_when_every_deadline_has_passed_the_request_is_cancelled() -> None:
    service = Service()
    calls = [service.call("one", timeout=1), service.call("two", timeout=2)]
    await settle()
    service.clock.advance(2)
    await asyncio.wait(calls)
    assert all(isinstance(call.exception(), DeadlineExceededError) for call in calls)
    assert service.cancelled == 1
    await service.nothing_is_left()


async def test_closing_gives_what_is_in_flight_the_grace_period_and_ends_the_rest_at_once() -> None:
    service = Service()
    answered, late, unsent = service.call("one"), service.call("two", key="l"), None
    await settle()
    unsent = service.call("three")
    await settle()
    closing = ClosedError("closed")
    service.joiner.close(closing)
    drained = asyncio.create_task(service.joiner.drained())
    await settle()
    error = unsent.exception()
    assert isinstance(error, ClosedError)
    assert error is not closing
    assert error.failures == ()
    service.answer(0)
    is_own(await answered, "one")
    assert not drained.done()
    service.clock.advance(GRACE_SECONDS)
    await drained
    with pytest.raises(ClosedError) as caught:
        await late
    assert [tuple(failure.indices) for failure in caught.value.failures] == [(0,)]
    await service.nothing_is_left()


async def test_closing_before_the_requests_task_has_started() -> None:
    service = Service(inputs=1)
    call = service.call("one")
    await asyncio.sleep(0)
    service.joiner.close(ClosedError("closed"))
    await service.joiner.drained()
    with pytest.raises(ClosedError):
        await call
    assert not service.requests
    await service.nothing_is_left()


async def test_callers_are_told_when_somebody_else_cancels_their_requests_task() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two")]
    await settle()
    (sent,) = service.joiner._sent.values()
    sent.task.cancel()
    await asyncio.wait(calls)
    assert all(isinstance(call.exception(), ClosedError) for call in calls)
    await service.nothing_is_left()


async def test_callers_are_told_of_a_fault_of_our_own() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two")]
    await settle()
    service.requests[0][3].set_exception(KeyError("ours"))
    await asyncio.wait(calls)
    errors = [call.exception() for call in calls]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, EmbedError)
        assert isinstance(error.__cause__, KeyError)
    await service.nothing_is_left()


def test_sparse_vectors_are_the_callers_own() -> None:
    gathering = Gathering()
    seats = [gathering.join(text) for text in ("one", "none", "two", "two")]
    gathering.turns.end()
    answers = Answers(gathering.batches[0], Dimension(None))
    request = next(iter(Requests(list(gathering.batches[0].seats), lambda: gathering.limits)))
    block = SparseBlock(
        np.array([1, 0, 2]), np.array([7, 8, 9], np.uint32), np.array([1, 2, 3], np.float32), [["a"], [], ["b", "c"]]
    )
    answers.answered(request, Answer("sparse", None, 1, block))
    answers.embedded(request)
    vectors = [seat.outcome for seat in seats]
    for vector, indices, tokens in zip(vectors, ([7], [], [8, 9], [8, 9]), ("a", "", "bc", "bc"), strict=True):
        assert isinstance(vector, SparseVector)
        assert vector.indices.tolist() == indices
        assert vector.tokens == list(tokens)
        assert vector.indices.base is vector.values.base is None
    assert isinstance(vectors[2], SparseVector)
    assert isinstance(vectors[3], SparseVector)
    assert vectors[2].values is not vectors[3].values
    assert vectors[2].tokens is not vectors[3].tokens
    assert answers.is_settled


@pytest.mark.parametrize("is_failure", [False, True])
def test_an_own_error_survives_copying_and_pickling(is_failure: bool) -> None:
    shared = ServiceError("<input 12> and <input 1>", status=503, code="UNAVAILABLE", request_id="r")
    shared.attempts = 3
    own = own_error(shared, 1, is_failure=is_failure)
    assert shared.message == "<input 12> and <input 1>"
    for one in (own, copy.copy(own), pickle.loads(pickle.dumps(own))):  # noqa: S301
        assert str(one) == "503 UNAVAILABLE: <another input> and <input 0> (after 3 attempts) [request r]"
        assert one.attempts == 3
        assert len(one.failures) == is_failure


# Whatever happens in whatever order.

TEXTS = ["one", "two", "three", "bad four", "bad five"]
HAPPENINGS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from(TEXTS), st.sampled_from([None, None, None, DELAY, 10 * DELAY])),
        st.tuples(st.just("cancel"), st.integers(0, 12)),
        st.tuples(st.just("answer"), st.integers(0, 6), st.sampled_from([None, None, None, 503, 401])),
        st.tuples(st.just("advance"), st.sampled_from([DELAY / 2, DELAY, 4 * DELAY])),
        st.tuples(st.just("turn")),
    ),
    max_size=40,
)
KINDS = {503: ServiceError, 401: AuthenticationError}


class Callers:
    """Calls that come, are cancelled and are answered as hypothesis says."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.calls: list[tuple[str, float | None, asyncio.Task[Any]]] = []
        self.cancelled: set[asyncio.Task[Any]] = set()
        self.faults: set[int] = set()

    async def call(self, text: str, timeout: float | None) -> None:  # noqa: ASYNC109 - what it tests
        self.calls.append((text, timeout, self.service.call(text, timeout=timeout)))

    async def cancel(self, number: int) -> None:
        if number < len(self.calls) and self.calls[number][2].cancel("mine"):
            self.cancelled.add(self.calls[number][2])

    async def answer(self, number: int, status: int | None) -> None:
        if number < len(self.service.open):
            error = None
            if status is not None:
                self.faults.add(status)
                error = KINDS[status](f"{status} for <input {number}>", status=status)
            self.service.answer(self.service.open[number], error)

    async def advance(self, seconds: float) -> None:
        self.service.clock.advance(seconds)

    async def turn(self) -> None:
        await asyncio.sleep(0)

    def check(self) -> None:
        errors = []
        for text, timeout, call in self.calls:
            if call.cancelled():
                assert call in self.cancelled
            elif (error := call.exception()) is not None:
                self.check_error(error, text, timeout)
                errors.append(error)
            else:
                is_own(call.result(), text)
        assert len({id(error) for error in errors}) == len(errors)

    def check_error(self, error: BaseException, text: str, timeout: float | None) -> None:
        assert isinstance(error, EmbedError)
        assert error.partial is None
        assert all(tuple(failure.indices) == (0,) for failure in error.failures)
        assert re.search(r"<input [1-9]", str(error)) is None
        assert not any(other in str(error) for other in TEXTS)
        if isinstance(error, InvalidRequestError):
            assert text.startswith("bad")
        elif isinstance(error, DeadlineExceededError):
            assert timeout is not None
        else:
            assert isinstance(error, (ServiceError, AuthenticationError))
            assert error.status in self.faults


@given(HAPPENINGS, st.integers(1, 5), st.integers(1, 3))
def test_every_caller_gets_its_own_texts_vector_or_its_own_error_whatever_happens(
    happenings: list[Any], inputs: int, most: int
) -> None:
    async def main() -> None:
        service = Service(inputs=inputs, most=most)
        callers = Callers(service)
        for what, *how in happenings:
            await getattr(callers, what)(*how)
        await service.answer_all()
        callers.check()
        for request, *_ in service.requests:
            assert len(set(request.texts)) == len(request.texts) <= inputs
        await service.nothing_is_left()

    asyncio.run(main())
