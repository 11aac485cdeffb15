"""Which calls share a request, when it is sent, and what each caller gets, with a fake clock and a fake service."""

import asyncio
import copy
import gc
import pickle
import re
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pytest
import tenacity
from hypothesis import given
from hypothesis import strategies as st

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    DeadlineExceededError,
    EmbedClient,
    EmbedError,
    InvalidRequestError,
    MockResponse,
    MockTransport,
    QuotaBackend,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    ServiceError,
    SparseVector,
    TransportRequest,
)
from pinecone_embed_async._calls.coalescer import Coalescer, SharedRequest, Waiter
from pinecone_embed_async._calls.scheduler import GRACE_SECONDS, Scheduler
from pinecone_embed_async._calls.single_calls import SingleCalls
from pinecone_embed_async._calls.single_results import SingleResults, own_error
from pinecone_embed_async._errors import unexpected_error
from pinecone_embed_async._planning import (
    Learned,
    LearnedLimits,
    PendingTexts,
    PlannedRequest,
    RequestLimits,
    RequestPlanner,
)
from pinecone_embed_async._planning.planner import PROBE_TEXT
from pinecone_embed_async._rate_limit import Permit
from pinecone_embed_async._results import Dimension
from pinecone_embed_async._sending import Counters
from pinecone_embed_async._sending.retry import FirstContact, record_failure
from pinecone_embed_async._wire import Answer, SparseBlock
from tests.clock import FakeClock, settle
from tests.outcomes import planned
from tests.permits import permits

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pinecone_embed_async._sending import Sender

DELAY = 0.002


# Which calls share a request, and when it is sent.


class LoopIteration:
    """Callbacks for the end of an event loop iteration, which a test ends."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    def is_closed(self) -> bool:
        return False

    def end(self) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


class CoalescerBench:
    """A coalescer, and what it has sent."""

    def __init__(self, *, hold_at: int = 8, inputs: int = 4, size: int = 10_000) -> None:
        self.clock, self.iteration = FakeClock(), LoopIteration()
        loop = cast("asyncio.AbstractEventLoop", self.iteration)
        self.coalescer = Coalescer(clock=self.clock, loop=loop, max_delay=DELAY, hold_at=hold_at)
        self.limits = RequestLimits(inputs=inputs, sequence_length=512, bytes=size)
        self.requests: list[SharedRequest] = []
        self.ended: set[SharedRequest] = set()

    def join(self, text: str, key: str = "k", deadline: float | None = None) -> Waiter:
        waiter = Waiter(text, cast("asyncio.Future[Any]", Future()), deadline)
        self.coalescer.join(key, waiter, self.limits, self)
        return waiter

    def start(self, shared: SharedRequest) -> None:
        self.requests.append(shared)

    def out_of_time(self, message: str) -> DeadlineExceededError:
        return DeadlineExceededError(message)

    def end(self, number: int) -> None:
        self.ended.add(self.requests[number])
        self.coalescer.ended(self.requests[number])

    @property
    def sent(self) -> list[list[str]]:
        return [list(shared.waiters) for shared in self.requests]

    def is_idle(self) -> bool:
        return self.clock.pending == 0


def test_a_lone_call_is_sent_at_the_end_of_its_iteration() -> None:
    bench = CoalescerBench()
    bench.join("a")
    assert bench.sent == []
    assert bench.clock.pending == 0
    bench.iteration.end()
    assert bench.sent == [["a"]]
    assert bench.is_idle()


def test_calls_of_one_iteration_share_requests_and_full_ones_are_sent_at_once() -> None:
    bench = CoalescerBench(inputs=3)
    for number in range(8):
        bench.join(str(number))
    assert bench.sent == [["0", "1", "2"], ["3", "4", "5"]]
    bench.end(0)
    bench.end(1)
    bench.iteration.end()
    assert bench.sent[2:] == [["6", "7"]]
    assert bench.is_idle()


def test_while_a_request_is_under_way_later_calls_are_sent_after_max_delay() -> None:
    bench = CoalescerBench()
    bench.join("first")
    bench.iteration.end()
    bench.join("a")
    bench.iteration.end()
    bench.clock.advance(DELAY * 0.75)
    bench.join("b")
    bench.iteration.end()
    assert bench.clock.pending == 1
    assert bench.sent == [["first"]]
    bench.clock.advance(DELAY * 0.25)
    assert bench.sent == [["first"], ["a", "b"]]
    assert bench.is_idle()


def test_pending_calls_are_sent_once_nothing_is_under_way() -> None:
    bench = CoalescerBench()
    bench.join("first")
    bench.iteration.end()
    bench.join("a")
    bench.iteration.end()
    bench.end(0)
    # A caller that got its answer and calls again in the same iteration is included.
    bench.join("b")
    bench.iteration.end()
    assert bench.sent == [["first"], ["a", "b"]]
    assert bench.is_idle()


def test_pending_calls_wait_up_to_max_delay_for_calls_that_are_being_looked_up() -> None:
    bench = CoalescerBench()
    with bench.coalescer.expect("k"):
        bench.join("a")
        bench.join("another key", key="l")
        bench.iteration.end()
        assert bench.sent == [["another key"]]
    bench.join("not cached")
    bench.iteration.end()
    assert bench.sent[1:] == [["a", "not cached"]]
    bench.end(1)
    with bench.coalescer.expect("k"):
        bench.join("b")
        bench.iteration.end()
        bench.clock.advance(DELAY)
        assert bench.sent[2:] == [["b"]]
    assert bench.is_idle()


def test_equal_texts_share_a_position_even_in_a_request_without_room() -> None:
    bench = CoalescerBench(size=60)
    bench.join("x" * 40)
    bench.join("x" * 40)
    bench.join("y" * 40)
    bench.iteration.end()
    # The full request is under way, so the rest waits.
    bench.clock.advance(DELAY)
    assert bench.sent == [["x" * 40], ["y" * 40]]
    assert [len(sharing) for shared in bench.requests for sharing in shared.waiters.values()] == [2, 1]


def test_a_text_over_every_limit_is_sent_alone() -> None:
    bench = CoalescerBench(size=60)
    bench.join("a")
    bench.join("x" * 1000)
    bench.join("b")
    assert bench.sent == [["a"], ["x" * 1000]]


def test_callers_with_different_keys_share_nothing_and_do_not_wait_for_each_other() -> None:
    bench = CoalescerBench()
    bench.join("a", key="query")
    bench.iteration.end()
    bench.join("a", key="passage")
    bench.iteration.end()
    assert [shared.key for shared in bench.requests] == ["query", "passage"]
    assert bench.is_idle()


def test_a_request_that_would_only_wait_for_a_permit_collects_more_calls() -> None:
    bench = CoalescerBench(hold_at=1, inputs=3)
    bench.join("first")
    bench.iteration.end()
    bench.join("a")
    bench.iteration.end()
    bench.clock.advance(10 * DELAY)
    bench.join("b")
    assert bench.sent == [["first"]]
    assert bench.clock.pending == 0
    bench.join("c")
    assert bench.sent == [["first"], ["a", "b", "c"]]
    bench.join("d")
    bench.iteration.end()
    bench.end(0)
    bench.iteration.end()
    bench.clock.advance(10 * DELAY)
    assert len(bench.sent) == 2
    bench.end(1)
    bench.iteration.end()
    assert bench.sent[2:] == [["d"]]
    assert bench.is_idle()


def test_while_a_request_waits_for_a_permit_the_next_one_collects_more_calls() -> None:
    bench = CoalescerBench()
    bench.join("first")
    bench.iteration.end()
    with bench.coalescer.waiting("k", None):
        bench.join("a")
        bench.join("another key", key="l")
        bench.iteration.end()
        bench.clock.advance(10 * DELAY)
        bench.join("b")
        assert bench.sent == [["first"], ["another key"]]
        assert bench.clock.pending == 0
    bench.iteration.end()
    assert bench.sent[2:] == [["a", "b"]]
    with bench.coalescer.waiting("k", None):
        for text in "cdef":
            bench.join(text)
        assert bench.sent[3:] == [["c", "d", "e", "f"]]
    assert bench.is_idle()


def test_calls_with_an_earlier_deadline_than_the_request_that_waits_are_not_held() -> None:
    bench = CoalescerBench()
    bench.join("first")
    bench.iteration.end()
    with bench.coalescer.waiting("k", 5.0):
        bench.join("later", deadline=6.0)
        bench.clock.advance(DELAY)
        bench.iteration.end()
        assert bench.sent == [["first"]]
        bench.join("earlier", deadline=4.0)
        bench.iteration.end()
        assert bench.sent == [["first"], ["later", "earlier"]]
    assert bench.is_idle()


def test_calls_are_held_unless_their_deadline_is_before_that_of_all_that_wait() -> None:
    bench = CoalescerBench()
    bench.join("first")
    bench.iteration.end()
    with bench.coalescer.waiting("k", 4.0), bench.coalescer.waiting("k", 6.0):
        for text, deadline in (("between", 5.0), ("equal", 4.0)):
            bench.join(text, deadline=deadline)
            bench.clock.advance(DELAY)
            bench.iteration.end()
            assert bench.sent == [["first"]]
        bench.join("before", deadline=3.0)
        bench.iteration.end()
        assert bench.sent[1:] == [["between", "equal", "before"]]


def test_a_caller_that_leaves_frees_the_room_that_it_took_even_if_the_estimate_of_tokens_has_changed() -> None:
    bench = CoalescerBench()
    bench.limits = msgspec.structs.replace(bench.limits, tokens=60, bytes_per_token=4.0)
    bench.join("a" * 40)
    bench.limits = msgspec.structs.replace(bench.limits, bytes_per_token=1.0)
    leaving = bench.join("b" * 40)
    bench.coalescer.leave(leaving)
    bench.join("c" * 40)
    bench.iteration.end()
    assert bench.sent == [["a" * 40, "c" * 40]]


def test_a_caller_that_leaves_before_the_request_is_sent_frees_its_room() -> None:
    bench = CoalescerBench(inputs=2)
    early = bench.join("early")
    bench.coalescer.leave(early)
    assert bench.is_idle()
    leaving, sharing = bench.join("a"), bench.join("a")
    bench.coalescer.leave(leaving)
    bench.coalescer.leave(sharing)
    waiter = bench.join("b")
    bench.join("c")
    assert bench.sent == [["b", "c"]]
    bench.coalescer.leave(waiter)
    assert bench.sent == [["c"]]
    assert bench.is_idle()


def test_cancelling_pending_requests_returns_their_callers_and_clears_timers() -> None:
    bench = CoalescerBench()
    bench.join("first")
    bench.iteration.end()
    waiters = [bench.join("a"), bench.join("b", key="other")]
    bench.iteration.end()
    waiting = bench.join("a")
    assert bench.coalescer.cancel_pending() == [waiters[0], waiting]
    assert bench.is_idle()
    for waiter in (waiters[0], waiting):
        bench.coalescer.leave(waiter)
    bench.end(0)
    bench.iteration.end()
    assert bench.sent == [["first"], ["b"]]


def test_a_request_has_the_latest_of_its_callers_deadlines() -> None:
    bench = CoalescerBench()
    bench.join("a", deadline=1.0)
    bench.join("a", deadline=3.0)
    bench.join("b", deadline=2.0)
    bench.iteration.end()
    assert bench.requests[0].deadline == 3.0
    bench.join("c", deadline=1.0)
    bench.join("d")
    bench.end(0)
    bench.iteration.end()
    assert bench.requests[1].deadline is None


STEPS: st.SearchStrategy[list[tuple[Any, ...]]] = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.sampled_from("kl"), st.sampled_from(["a", "b", "c", "d", "e", "x" * 30])),
        st.tuples(st.just("leave"), st.integers(0, 20)),
        st.tuples(st.just("end"), st.integers(0, 5)),
        st.tuples(st.just("advance"), st.sampled_from([DELAY / 2, DELAY, 5 * DELAY])),
        st.tuples(st.just("next_iteration")),
        st.tuples(st.just("expect"), st.sampled_from("kl")),
        st.tuples(st.just("arrive")),
    ),
    max_size=60,
)


class Crowd:
    """Callers that join and leave as Hypothesis decides."""

    def __init__(self, bench: CoalescerBench, *, hold_at: int) -> None:
        self.bench = bench
        self.hold_at = hold_at
        self.waiters: list[Waiter] = []
        self.left: set[Waiter] = set()
        self.expected: list[tuple[str, AbstractContextManager[None]]] = []

    def expect(self, key: str) -> None:
        self.expected.append((key, self.bench.coalescer.expect(key)))
        self.expected[-1][1].__enter__()

    def arrive(self) -> None:
        if self.expected:
            self.expected.pop(0)[1].__exit__(None, None, None)

    def join(self, key: str, text: str) -> None:
        self.waiters.append(self.bench.join(text, key))

    def leave(self, number: int) -> None:
        if number < len(self.waiters) and self.waiters[number] not in self.left:
            self.left.add(self.waiters[number])
            self.bench.coalescer.leave(self.waiters[number])

    def end(self, number: int) -> None:
        requests = self.bench.requests
        if number < len(requests) and requests[number] not in self.bench.ended:
            self.bench.end(number)

    def advance(self, seconds: float) -> None:
        self.bench.iteration.end()
        self.bench.clock.advance(seconds)
        self.check()

    def next_iteration(self) -> None:
        self.bench.iteration.end()
        self.check()

    def under_way(self, key: object) -> int:
        return sum(shared.key == key for shared in self.bench.requests if shared not in self.bench.ended)

    def check(self) -> None:
        sent = self.bench.requests
        waiting = {waiter.shared for waiter in self.waiters if waiter.shared not in sent and waiter not in self.left}
        for shared in waiting:
            assert 0 < len(shared.waiters) < self.bench.limits.inputs
            busy = self.under_way(shared.key)
            may_wait = busy or any(key == shared.key for key, _ in self.expected)
            assert busy >= self.hold_at or (may_wait and self.bench.clock.time() < shared.due)
        assert self.bench.clock.pending == any(self.under_way(shared.key) < self.hold_at for shared in waiting)


@given(STEPS, st.integers(1, 3), st.integers(1, 4))
def test_every_text_is_sent_once_within_the_limits_and_no_caller_waits_without_a_reason(
    steps: list[tuple[Any, ...]], hold_at: int, inputs: int
) -> None:
    bench = CoalescerBench(hold_at=hold_at, inputs=inputs, size=60)
    crowd = Crowd(bench, hold_at=hold_at)
    for name, *args in steps:
        getattr(crowd, name)(*args)
    while crowd.expected:
        crowd.arrive()
    crowd.next_iteration()
    number = 0
    while number < len(bench.requests):
        crowd.end(number)
        crowd.next_iteration()
        number += 1
    assert bench.is_idle()
    assert not bench.coalescer._pending
    assert not bench.coalescer._under_way
    assert not bench.coalescer._expected
    for waiter in crowd.waiters:
        assert waiter in crowd.left or waiter.shared in bench.requests
    for shared in bench.requests:
        assert len(shared.waiters) <= inputs
        assert len(shared.waiters) == 1 or sum(len(text) + len('{"text":""},') for text in shared.waiters) <= 60
        staying = sum(waiter.shared is shared and waiter not in crowd.left for waiter in crowd.waiters)
        assert sum(map(len, shared.waiters.values())) == staying
        for text, sharing in shared.waiters.items():
            assert all(waiter.text == text and waiter.shared is shared for waiter in sharing)


# What each caller gets.


def vector_of(text: str) -> list[float]:
    return [float(len(text)), *map(float, text.encode()[:3].ljust(3))]


class Service:
    """Runs the requests of single calls; a test decides when each is answered. It refuses bad texts, like a real service."""

    def __init__(self, *, inputs: int = 4, hold_at: int = 8) -> None:
        self.clock, self.counters = FakeClock(), Counters()
        self.limits = RequestLimits(inputs=inputs, sequence_length=512)
        self.single_calls = SingleCalls(clock=self.clock, max_delay=DELAY, hold_at=hold_at)
        self.permit_for = permits(self.clock)
        self.requests: list[tuple[PlannedRequest, asyncio.Future[EmbedError | None]]] = []
        self.cancelled = 0
        self.learned = Learned()
        self.cache: Any = None

    def call(self, text: str, *, timeout: float | None = None, key: str = "k") -> asyncio.Task[Any]:
        deadline = None if timeout is None else self.clock.time() + timeout
        waiter = Waiter(text, asyncio.get_running_loop().create_future(), deadline)
        return asyncio.create_task(self.single_calls.call(waiter, key, self.limits, self))

    def start(self, shared: SharedRequest) -> None:
        limits, texts = LearnedLimits(self.limits, self.learned), list(shared.waiters)
        results = SingleResults(shared, Dimension(None), self.counters, self.single_calls.coalescer)
        pending = PendingTexts(texts, limits, results, range(len(texts)))
        planner = RequestPlanner(pending, self.learned, b"", self.clock, len(texts) == 1)
        scheduler = Scheduler(planner, cast("Sender", self), self.clock, 4, shared.deadline, None, self.cache)
        self.single_calls.run(shared, results, scheduler)

    async def permit(self, request: PlannedRequest, observation: None = None) -> Permit:
        return await self.permit_for(request)

    def out_of_time(self, message: str) -> DeadlineExceededError:
        return DeadlineExceededError(message, retry_after=7)

    def observe(self, request: PlannedRequest) -> None:
        return None

    def unexpected(self, request: PlannedRequest, fault: Exception) -> EmbedError:
        return unexpected_error(fault)

    def retrying(self, request: PlannedRequest, observation: None) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(retry=tenacity.retry_never)

    async def attempt(self, request: PlannedRequest, permit: Permit, observation: None) -> EmbedError | None:
        answer: asyncio.Future[EmbedError | None] = asyncio.get_running_loop().create_future()
        request.sent(self.clock.time())
        self.requests.append((request, answer))
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            permit.give_back()

    @property
    def open(self) -> list[int]:
        return [number for number, (*_, answer) in enumerate(self.requests) if not answer.done()]

    def texts(self, number: int) -> list[str]:
        return list(self.requests[number][0].texts)

    def answer(self, number: int, error: EmbedError | None = None) -> None:
        """Answer a request: with `error`, a refusal if there is a bad text in it, or the vectors."""
        request, answer = self.requests[number]
        bad = [index for index, text in zip(request.positions, request.texts, strict=True) if text.startswith("bad")]
        beside = request.positions[-1] + 1
        if error is None and bad:
            error = InvalidRequestError(
                f"<input {bad[0]}> is bad, unlike <input {beside}>", status=400, details=[{"who": f"<input {bad[0]}>"}]
            )
        if error is None:
            request.results.rows(request, 4)[:] = [vector_of(text) for text in request.texts]
            request.results.answered(request, Answer("dense", None, 1, None))
            request.is_answered = True
        request.in_flight = False
        if error is not None:
            record_failure(request, error, FirstContact())
        answer.set_result(error)

    async def answer_all(self) -> None:
        await settle()
        while self.open or self.clock.pending:
            for number in self.open:
                self.answer(number)
            await settle()
            self.clock.advance(DELAY)
            await settle()

    async def assert_clean(self) -> None:
        await settle()
        assert not self.single_calls._sent
        assert not self.single_calls.coalescer._pending
        assert not self.single_calls.coalescer._under_way
        assert self.clock.pending == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


def assert_own_vector(vector: Any, text: str) -> None:
    assert vector.base is None
    assert vector.dtype == np.float32
    assert vector.tolist() == vector_of(text)


async def test_each_caller_gets_its_own_array_and_equal_texts_are_sent_once() -> None:
    service = Service()
    calls = {number: service.call(text) for number, text in enumerate(["one", "two", "one"])}
    await settle()
    assert service.texts(0) == ["one", "two"]
    service.answer(0)
    vectors = [await calls[number] for number in range(3)]
    for vector, text in zip(vectors, ["one", "two", "one"], strict=True):
        assert_own_vector(vector, text)
    vectors[0][:] = 0
    assert_own_vector(vectors[2], "one")
    assert (service.counters.joined, service.counters.joined_requests) == (3, 1)
    await service.assert_clean()


async def test_a_thousand_calls_of_one_iteration_share_eleven_requests() -> None:
    service = Service(inputs=96)
    calls = [service.call(f"text {number}") for number in range(1000)]
    await service.answer_all()
    assert len(service.requests) == 11
    for number, call in enumerate(calls):
        assert_own_vector(await call, f"text {number}")
    await service.assert_clean()


async def test_a_lone_call_is_sent_within_a_few_iterations() -> None:
    service = Service()
    call = service.call("a")
    iterations = 0
    while not service.requests:
        await asyncio.sleep(0)
        iterations += 1
    # Its own task, the end of the iteration, the shared request's task, the planned request's task.
    assert iterations <= 4
    assert service.clock.pending == 0
    service.answer(0)
    assert_own_vector(await call, "a")


async def test_sequential_calls_never_wait() -> None:
    service = Service()
    for text in ("a", "b", "c"):
        call = service.call(text)
        await settle()
        assert service.clock.pending == 0
        service.answer(-1)
        assert_own_vector(await call, text)
    assert len(service.requests) == 3
    await service.assert_clean()


async def test_a_bad_text_fails_its_caller_alone_with_an_error_that_names_no_other_input() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "bad", "two", "bad")]
    await service.answer_all()
    assert_own_vector(await calls[0], "one")
    assert_own_vector(await calls[2], "two")
    errors = [call.exception() for call in (calls[1], calls[3])]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, InvalidRequestError)
        assert error.message == "<input 0> is bad, unlike <another input>"
        assert error.details == [{"who": "<input 0>"}]
        assert error.partial is None
        assert [(tuple(failure.indices), failure.error) for failure in error.failures] == [((0,), error)]
    assert [PROBE_TEXT] in [list(request.texts) for request, *_ in service.requests]
    await service.assert_clean()


@pytest.mark.lazy_tasks
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
    assert_own_vector(await calls[0], "one")
    assert_own_vector(await calls[1], "two")
    assert not calls[2].done()
    await service.answer_all()
    assert_own_vector(await calls[3], "three")
    assert isinstance(calls[2].exception(), InvalidRequestError)
    await service.assert_clean()


async def test_each_caller_gets_its_own_copy_of_an_error_of_the_whole_request() -> None:
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
    await service.assert_clean()


async def test_an_error_that_a_caller_has_handled_leaves_nothing_to_the_garbage_collector() -> None:
    service = Service(hold_at=1)
    first, second = service.call("one"), None
    await settle()
    gc.collect()
    gc.disable()
    try:
        second = service.call("two", timeout=0.5 * DELAY)
        await settle()
        service.clock.advance(0.5 * DELAY)
        with pytest.raises(DeadlineExceededError) as caught:
            await second
        error = weakref.ref(caught.value)
        del second, caught
        await settle()
        assert error() is None
    finally:
        gc.enable()
    service.answer(0)
    assert_own_vector(await first, "one")
    await service.assert_clean()


@pytest.mark.lazy_tasks
async def test_callers_whose_texts_were_not_tried_get_the_error_of_the_job() -> None:
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
    await service.assert_clean()


async def test_a_cancelled_caller_does_not_affect_the_others() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two", "one")]
    await settle()
    calls[0].cancel("enough")
    await settle()
    assert calls[0].cancelled()
    assert service.cancelled == 0
    service.answer(0)
    assert_own_vector(await calls[1], "two")
    assert_own_vector(await calls[2], "one")
    assert service.counters.joined == 2
    await service.assert_clean()


async def test_when_all_callers_are_cancelled_the_request_is_cancelled_before_the_last_one_leaves() -> None:
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
    await service.assert_clean()


async def test_callers_cancelled_before_the_request_is_sent_send_nothing() -> None:
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
    await service.assert_clean()


async def test_a_second_cancellation_does_not_leave_the_request_running() -> None:
    service = Service()
    call = service.call("one")
    await settle()
    call.cancel("first")
    await asyncio.sleep(0)
    call.cancel("second")
    with pytest.raises(asyncio.CancelledError):
        await call
    assert service.cancelled == 1
    await service.assert_clean()


async def test_a_deadline_ends_its_own_call_alone_and_names_the_last_failure() -> None:
    service = Service()
    short, long = service.call("one", timeout=1), service.call("two")
    await settle()
    record_failure(service.requests[0][0], ServiceError("<input 1> is slow", status=503), FirstContact())
    service.clock.advance(1)
    await settle()
    error = short.exception()
    assert isinstance(error, DeadlineExceededError)
    assert "before the answer came; the last attempt failed with ServiceError: 503: <another input> is slow" in str(error)
    assert [(tuple(failure.indices), failure.error) for failure in error.failures] == [((0,), error)]
    assert service.cancelled == 0
    service.answer(0)
    assert_own_vector(await long, "two")
    await service.assert_clean()


async def test_a_deadline_before_the_request_is_sent() -> None:
    service = Service()
    first = service.call("first")
    await settle()
    short, long = service.call("one", timeout=DELAY / 2), service.call("two", timeout=10)
    await settle()
    service.clock.advance(DELAY / 2)
    await settle()
    error = short.exception()
    assert isinstance(error, DeadlineExceededError)
    assert error.failures == ()
    assert error.retry_after == 7
    service.clock.advance(DELAY / 2)
    await settle()
    assert service.texts(1) == ["two"]
    await service.answer_all()
    await first
    assert_own_vector(await long, "two")
    await service.assert_clean()


async def test_a_deadline_while_the_request_waits_for_its_permit() -> None:
    service = Service()
    service.permit_for = lambda _: asyncio.get_running_loop().create_future()
    call = service.call("one", timeout=1)
    await settle()
    service.clock.advance(1)
    with pytest.raises(DeadlineExceededError) as caught:
        await call
    assert caught.value.failures == ()
    assert caught.value.retry_after == 7
    await service.assert_clean()


async def test_when_every_deadline_has_passed_the_request_is_cancelled() -> None:
    service = Service()
    calls = [service.call("one", timeout=1), service.call("two", timeout=2)]
    await settle()
    service.clock.advance(2)
    await asyncio.wait(calls)
    assert all(isinstance(call.exception(), DeadlineExceededError) for call in calls)
    assert service.cancelled == 1
    await service.assert_clean()


async def test_stopping_gives_requests_in_flight_the_grace_period_and_ends_the_rest_at_once() -> None:
    service = Service()
    answered, late, unsent = service.call("one"), service.call("two", key="l"), None
    await settle()
    unsent = service.call("three")
    await settle()
    closing = ClosedError("closed")
    stopped = asyncio.create_task(service.single_calls.stop(closing))
    await settle()
    error = unsent.exception()
    assert isinstance(error, ClosedError)
    assert error is not closing
    assert error.failures == ()
    service.answer(0)
    assert_own_vector(await answered, "one")
    assert not stopped.done()
    service.clock.advance(GRACE_SECONDS)
    await stopped
    with pytest.raises(ClosedError) as caught:
        await late
    assert [tuple(failure.indices) for failure in caught.value.failures] == [(0,)]
    await service.assert_clean()


@pytest.mark.lazy_tasks
async def test_stopping_before_the_requests_task_has_started() -> None:
    service = Service(inputs=1)
    call = service.call("one")
    await asyncio.sleep(0)
    await service.single_calls.stop(ClosedError("closed"))
    with pytest.raises(ClosedError):
        await call
    assert not service.requests
    await service.assert_clean()


async def test_callers_get_an_error_when_the_task_of_their_request_is_cancelled_from_outside() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two")]
    await settle()
    (sent,) = service.single_calls._sent.values()
    sent.task.cancel()
    await asyncio.wait(calls)
    assert all("cancelled by code outside its calls" in str(call.exception()) for call in calls)
    await service.assert_clean()


async def test_callers_get_an_error_for_an_unexpected_exception() -> None:
    service = Service()
    calls = [service.call(text) for text in ("one", "two")]
    await settle()
    service.requests[0][1].set_exception(KeyError("ours"))
    await asyncio.wait(calls)
    errors = [call.exception() for call in calls]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, EmbedError)
        assert isinstance(error.__cause__, KeyError)
    await service.assert_clean()


async def test_callers_get_an_error_each_when_the_task_of_their_request_fails() -> None:
    class Broken(Service):
        def observe(self, request: PlannedRequest) -> None:
            raise KeyError("ours")

    service = Broken()
    calls = [service.call(text) for text in ("one", "two")]
    await asyncio.wait(calls, timeout=10)
    errors = [call.exception() for call in calls]
    assert errors[0] is not errors[1]
    for error in errors:
        assert isinstance(error, EmbedError)
        assert "ended with ExceptionGroup" in str(error)
    await service.assert_clean()


async def test_the_last_caller_waits_for_the_cache_until_its_deadline() -> None:
    class Hanging:
        async def write(self, request: PlannedRequest, until: float | None) -> None:
            assert until is None, "the request has the latest deadline of its callers"
            await asyncio.Event().wait()

    service = Service()
    service.cache = Hanging()
    call, other = service.call("one", timeout=1), service.call("two")
    await settle()
    other.cancel()
    await settle()
    service.answer(0)
    await settle()
    assert not call.done()
    service.clock.advance(1)
    assert_own_vector(await call, "one")
    await service.assert_clean()


def test_each_caller_gets_its_own_sparse_vector() -> None:
    bench = CoalescerBench()
    waiters = [bench.join(text) for text in ("one", "none", "two", "two")]
    bench.iteration.end()
    counters = Counters()
    results = SingleResults(bench.requests[0], Dimension(None), counters, bench.coalescer)
    texts = list(bench.requests[0].waiters)
    request = planned(texts, results, bench.limits)
    block = SparseBlock(
        np.array([1, 0, 2]), np.array([7, 8, 9], np.uint32), np.array([1, 2, 3], np.float32), [["a"], [], ["b", "c"]]
    )
    results.answered(request, Answer("sparse", None, 1, block))
    results.embedded(request)
    vectors = [waiter.outcome.result() for waiter in waiters]
    for vector, indices, tokens in zip(vectors, ([7], [], [8, 9], [8, 9]), ("a", "", "bc", "bc"), strict=True):
        assert isinstance(vector, SparseVector)
        assert vector.indices.tolist() == indices
        assert vector.tokens == list(tokens)
        assert vector.indices.base is vector.values.base is None
    assert isinstance(vectors[2], SparseVector)
    assert isinstance(vectors[3], SparseVector)
    assert vectors[2].values is not vectors[3].values
    assert vectors[2].tokens is not vectors[3].tokens
    assert results.is_settled
    assert (counters.joined, counters.joined_requests) == (4, 1)


@pytest.mark.parametrize("attempts", [0, 1])
def test_calls_whose_deadline_is_not_after_a_pause_end_with_it(attempts: int) -> None:
    bench = CoalescerBench()
    waiters = [bench.join(text, deadline=deadline) for text, deadline in (("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 4.0))]
    results = SingleResults(bench.requests[0], Dimension(None), Counters(), bench.coalescer)
    late = DeadlineExceededError("too late")
    late.attempts = attempts
    seen = [results.next_deadline]
    for until in (2.0, 3.0, 4.0):
        assert results.dismiss_late(until, late) is (until == 4.0)
        seen.append(results.next_deadline)
    assert seen == [1.0, 3.0, 4.0, None]
    for waiter in waiters:
        error = waiter.outcome.result()
        assert isinstance(error, DeadlineExceededError)
        # Without an attempt, the text was not tried.
        assert len(error.failures) == attempts


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


class TwoPermits:
    """A client with two permits, and a service that answers bulk requests once a test lets it."""

    def __init__(self, answer: Callable[[TransportRequest], MockResponse]) -> None:
        self._answer = answer
        self._begun, self.may_answer = asyncio.Semaphore(0), asyncio.Event()
        self.transport = MockTransport(self._serve)
        options: dict[str, Any] = {"max_concurrency": 2, "max_batch_size": 8, "max_delay": 1e-9, "look_up_model": False}
        self.client = EmbedClient("m", vector_type="dense", api_key="k", transport=self.transport, **options)

    async def _serve(self, request: TransportRequest) -> MockResponse:
        if request.json()["inputs"][0]["text"] == "bulk":
            self._begun.release()
            await self.may_answer.wait()
        return self._answer(request)

    async def bulk_work(self) -> asyncio.Task[Any]:
        """Work that holds both permits."""
        work = asyncio.create_task(self.client.embed(["bulk"] * 32))
        for _ in range(2):
            await self._begun.acquire()
        return work

    async def calls(self, count: int, **options: Any) -> list[asyncio.Task[Any]]:
        """Single calls, one after another."""
        calls = []
        for number in range(count):
            calls.append(asyncio.create_task(self.client.embed_one("x" * (number + 1), **options)))
            await settle()
        assert len(self.transport.requests) == 2
        return calls


def lengths(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[len(given["text"])] for given in request.json()["inputs"]])


async def test_calls_that_find_every_permit_taken_share_one_request() -> None:
    service = TwoPermits(lengths)
    async with service.client:
        work = await service.bulk_work()
        calls = await service.calls(6)
        service.may_answer.set()
        assert [(await call).tolist() for call in calls] == [[length] for length in range(1, 7)]
        assert len(await work) == 32
    sent = [[given["text"] for given in request.json()["inputs"]] for request in service.transport.requests]
    # The first call waited for a permit; all others shared the next request.
    assert [len(texts) for texts in sent if texts[0] != "bulk"] == [1, 5]


@pytest.mark.parametrize("first", [30, 300, None])
async def test_calls_held_behind_others_fail_at_once_when_a_pause_begins_that_outlasts_them(
    first: float | None,
) -> None:
    service = TwoPermits(lambda _: MockResponse.error(429, "RESOURCE_EXHAUSTED", "no", headers={"Retry-After": "60"}))
    async with service.client:
        work = await service.bulk_work()
        (waiting,) = await service.calls(1, timeout=first)
        calls = await service.calls(4, timeout=30)
        service.may_answer.set()
        async with asyncio.timeout(10):
            await asyncio.wait(calls)
        assert len(service.transport.requests) == 2
        for call in calls:
            error = call.exception()
            assert isinstance(error, DeadlineExceededError)
            assert error.retry_after == pytest.approx(60, abs=10)
        assert waiting.done() == (first == 30)
        for task in (work, waiting):
            task.cancel()
        await asyncio.wait([work, waiting])


async def test_calls_are_not_held_while_a_quota_back_end_takes_its_time() -> None:
    asked: list[int] = []

    class SlowQuota(QuotaBackend):
        async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
            asked.append(demand.tokens)
            await answered.wait()
            return QuotaGrant(demand.tokens)

        def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
            pass

    answered = asyncio.Event()
    transport = MockTransport(lengths)
    options: dict[str, Any] = {"max_delay": 1e-9, "look_up_model": False, "quota": SlowQuota()}
    async with EmbedClient("m", vector_type="dense", api_key="k", transport=transport, **options) as client:
        calls = []
        for number in range(4):
            calls.append(asyncio.create_task(client.embed_one("x" * (number + 1))))
            await settle()
        assert len(asked) == 4
        answered.set()
        assert [(await call).tolist() for call in calls] == [[1], [2], [3], [4]]


# Any events in any order.

TEXTS = ["one", "two", "three", "bad four", "bad five"]
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("call"), st.sampled_from(TEXTS), st.sampled_from([None, None, None, DELAY, 10 * DELAY])),
        st.tuples(st.just("cancel"), st.integers(0, 12)),
        st.tuples(st.just("answer"), st.integers(0, 6), st.sampled_from([None, None, None, 503, 401])),
        st.tuples(st.just("advance"), st.sampled_from([DELAY / 2, DELAY, 4 * DELAY])),
        st.tuples(st.just("next_iteration")),
    ),
    max_size=40,
)
KINDS = {503: ServiceError, 401: AuthenticationError}


class Callers:
    """Calls that start, are cancelled and are answered as Hypothesis decides."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.calls: list[tuple[str, float | None, asyncio.Task[Any]]] = []
        self.cancelled: set[asyncio.Task[Any]] = set()
        self.faults: set[int] = set()

    async def call(self, text: str, timeout: float | None) -> None:  # noqa: ASYNC109 - the time-out under test
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

    async def next_iteration(self) -> None:
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
                assert_own_vector(call.result(), text)
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


@given(EVENTS, st.integers(1, 5), st.integers(1, 3))
def test_every_caller_gets_the_vector_of_its_text_or_its_own_error(events: list[Any], inputs: int, hold_at: int) -> None:
    async def main() -> None:
        service = Service(inputs=inputs, hold_at=hold_at)
        callers = Callers(service)
        for name, *args in events:
            await getattr(callers, name)(*args)
        await service.answer_all()
        callers.check()
        for request, *_ in service.requests:
            assert len(set(request.texts)) == len(request.texts) <= inputs
        await service.assert_clean()

    asyncio.run(main())
