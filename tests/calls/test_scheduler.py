import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

import pytest
import tenacity

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    InputError,
    InvalidRequestError,
    ServiceError,
)
from pinecone_embed_async._calls.scheduler import GRACE_SECONDS, Scheduler
from pinecone_embed_async._clock import Clock
from pinecone_embed_async._errors import unexpected_error
from pinecone_embed_async._planning import (
    Learned,
    LearnedLimits,
    PendingTexts,
    PlannedRequest,
    RequestLimits,
    RequestPlanner,
)
from pinecone_embed_async._rate_limit import ConcurrencyLimiter, Flow, LimiterOptions, Permit, RateLimitGate
from pinecone_embed_async._sending.retry import FirstContact, record_failure
from tests.clock import FakeClock, settle
from tests.outcomes import SeenOutcomes, span
from tests.permits import acquire_permit, permits

if TYPE_CHECKING:
    from pinecone_embed_async._sending import Sender

WRONG_KEY = AuthenticationError("who?", status=401)
REFUSED = InvalidRequestError("no", status=400)


class Service:
    """Makes the attempts of a scheduler's requests; a test decides when each is answered and with what."""

    def __init__(self, clock: Clock) -> None:
        self.permit_for = permits(clock)
        self.sent: dict[int, tuple[PlannedRequest, asyncio.Future[EmbedError | None]]] = {}
        self.cancelled: list[int] = []

    async def permit(self, request: PlannedRequest, observation: None = None) -> Permit:
        return await self.permit_for(request)

    def out_of_time(self, message: str) -> DeadlineExceededError:
        return DeadlineExceededError(message)

    def observe(self, request: PlannedRequest) -> None:
        return None

    def unexpected(self, request: PlannedRequest, fault: Exception) -> EmbedError:
        return unexpected_error(fault)

    async def attempt(self, request: PlannedRequest, permit: Permit, observation: None) -> EmbedError | None:
        answer: asyncio.Future[EmbedError | None] = asyncio.get_running_loop().create_future()
        (start,) = request.positions
        self.sent[start] = request, answer
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled.append(start)
            raise
        finally:
            permit.give_back()

    def retrying(self, request: PlannedRequest, observation: None) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(retry=tenacity.retry_never)

    def put_on_the_wire(self, *starts: int) -> None:
        for start in starts:
            self.sent[start][0].sent(0)

    def answer(self, start: int, error: EmbedError | None = None) -> None:
        request, answer = self.sent[start]
        request.in_flight = False
        answer.set_result(error)

    @property
    def waiting(self) -> list[int]:
        return [start for start, (_, answer) in self.sent.items() if not answer.done()]


class Reporter:
    """Counts the reports of progress, and may fail."""

    def __init__(self, error: Exception | None = None) -> None:
        self.reports = 0
        self._error = error

    def report(self) -> None:
        self.reports += 1
        if self._error is not None:
            raise self._error


def planner_of(count: int, limits: RequestLimits, learned: Learned, clock: Clock) -> tuple[RequestPlanner, SeenOutcomes]:
    outcomes, learned_limits = SeenOutcomes(count), LearnedLimits(limits, learned)
    pending = PendingTexts([str(number) for number in range(count)], learned_limits, outcomes, range(count))
    return RequestPlanner(pending, learned, b"", clock, False), outcomes


def scheduler_of(
    count: int,
    service: Service,
    clock: Clock,
    *,
    max_under_way: int = 3,
    deadline: float | None = None,
    progress: Reporter | None = None,
    cache: Any = None,
    learned: Learned | None = None,
) -> tuple[Scheduler, RequestPlanner, SeenOutcomes]:
    planner, outcomes = planner_of(count, RequestLimits(inputs=1, sequence_length=8), learned or Learned(), clock)
    scheduler = Scheduler(planner, cast("Sender", service), clock, max_under_way, deadline, progress, cache)
    return scheduler, planner, outcomes


@contextlib.asynccontextmanager
async def running(scheduler: Scheduler) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        scheduler.begin(group)
        scheduler.fill()
        yield
        await scheduler.end()


def adopted(scheduler: Scheduler, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(work)
    scheduler.adopt(task)
    return task


async def finish(scheduler: Scheduler) -> None:
    async with running(scheduler):
        pass


@pytest.mark.lazy_tasks
async def test_requests_under_way_are_bounded_and_the_next_starts_at_once() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(5, service, clock)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    assert service.waiting == [0, 1, 2]
    service.answer(1)
    await settle()
    assert service.waiting == [0, 2, 3]
    for start in (3, 0, 2):
        service.answer(start)
    await settle()
    service.answer(4)
    await running
    assert str(outcomes) == "eeeee"


async def test_requests_under_way_are_bounded_even_if_their_tasks_begin_at_once() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(9, service, clock)
    running = asyncio.create_task(finish(scheduler))
    while not running.done():
        await settle()
        assert len(service.waiting) <= 3
        for start in service.waiting:
            service.answer(start)
    assert str(outcomes) == "eeeeeeeee"


async def test_an_error_of_the_job_gives_requests_in_flight_time_and_cancels_the_rest() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, planner, outcomes = scheduler_of(9, service, clock, max_under_way=4)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1, 3)
    service.answer(3, WRONG_KEY)
    await settle()
    # 2 was not on the wire; 0 and 1 are.
    assert service.cancelled == [2]
    assert all(service.sent[start][0].is_last for start in (0, 1))
    clock.advance(GRACE_SECONDS / 2)
    service.answer(0)
    await settle()
    assert not running.done()
    clock.advance(GRACE_SECONDS / 2)
    await running
    assert service.cancelled == [2, 1]
    assert str(outcomes) == "ef.f....."
    assert planner.job_error is WRONG_KEY
    assert clock.pending == 0


@pytest.mark.lazy_tasks
@pytest.mark.parametrize(
    "end", [lambda scheduler: scheduler.stop(WRONG_KEY), lambda scheduler: scheduler.cancel(may_cache=True)]
)
async def test_a_request_whose_job_ended_before_its_task_began_asks_for_no_permit(end: Callable[[Scheduler], None]) -> None:
    async def permit_for(request: PlannedRequest) -> Permit:
        raise AssertionError(request)

    clock = FakeClock()
    service, reporter = Service(clock), Reporter()
    service.permit_for = permit_for
    scheduler, _, outcomes = scheduler_of(3, service, clock, progress=reporter)
    async with running(scheduler):
        end(scheduler)
    assert str(outcomes) == "..."
    assert scheduler.is_idle


async def test_requests_tried_before_the_job_ended_fail_with_their_last_error() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(3, service, clock)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    backing_off = service.sent[1][0]
    backing_off.sent(0)
    overloaded = ServiceError("overloaded", status=503)
    record_failure(backing_off, overloaded, FirstContact())
    backing_off.in_flight = False
    service.put_on_the_wire(0)
    service.answer(0, WRONG_KEY)
    await running
    assert [failure.error for failure in outcomes.failures()] == [WRONG_KEY, overloaded]
    assert str(outcomes) == "ff."


async def test_the_deadline_cancels_everything_and_names_the_last_error() -> None:
    clock = FakeClock()
    service = Service(clock)
    progress = Reporter()
    scheduler, planner, outcomes = scheduler_of(9, service, clock, deadline=clock.time() + 10, progress=progress)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1)
    record_failure(service.sent[1][0], ServiceError("overloaded", status=503), FirstContact())
    clock.advance(10)
    await running
    assert str(outcomes) == "ff......."
    assert sorted(service.cancelled) == [0, 1, 2]
    assert isinstance(planner.job_error, DeadlineExceededError)
    first, second = (failure.error for failure in outcomes.failures())
    assert isinstance(first, DeadlineExceededError)
    assert "the last attempt failed with ServiceError: 503: overloaded" in str(second)
    assert progress.reports == 1
    assert clock.pending == 0


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, planner, _ = scheduler_of(9, service, clock, deadline=clock.time())
    await finish(scheduler)
    assert not service.sent
    assert isinstance(planner.job_error, DeadlineExceededError)


async def test_the_grace_period_does_not_exceed_the_deadline() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, planner, _ = scheduler_of(2, service, clock, deadline=clock.time() + 1)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1)
    service.answer(0, WRONG_KEY)
    await settle()
    clock.advance(1)
    await running
    assert planner.job_error is WRONG_KEY


async def test_an_error_of_the_job_leaves_no_timer_for_the_deadline() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, _ = scheduler_of(2, service, clock, deadline=clock.time() + 60)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1)
    service.answer(0, WRONG_KEY)
    await settle()
    assert clock.pending == 1
    service.answer(1)
    await running
    assert clock.pending == 0


async def test_rows_in_place_are_kept_when_the_deadline_comes_in_the_same_iteration() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(2, service, clock, deadline=clock.time() + 1)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1)
    service.sent[0][0].is_answered = True
    clock.advance(1)
    service.answer(0)
    await running
    assert str(outcomes) == "ef"


async def test_stop_ends_the_job_and_drained_waits_for_requests_in_flight() -> None:
    clock = FakeClock()
    service, progress = Service(clock), Reporter()
    scheduler, planner, outcomes = scheduler_of(9, service, clock, progress=progress)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(1)
    closed = ClosedError("closed")
    scheduler.changes.clear()
    scheduler.stop(closed)
    assert scheduler.changes.is_set()
    assert progress.reports == 1
    drained = asyncio.create_task(scheduler.drained())
    await settle()
    assert not drained.done()
    service.answer(1)
    await drained
    await running
    assert planner.job_error is closed
    assert str(outcomes) == ".e......."
    assert clock.pending == 0


async def test_an_exception_of_progress_ends_the_job_and_gives_requests_in_flight_time() -> None:
    clock, progress = FakeClock(), Reporter(KeyError("mine"))
    service = Service(clock)
    scheduler, planner, outcomes = scheduler_of(9, service, clock, progress=progress)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1)
    service.answer(0)
    await settle()
    assert service.cancelled == [2]
    service.answer(1)
    await running
    assert isinstance(scheduler.progress_error, EmbedError)
    assert isinstance(scheduler.progress_error.__cause__, KeyError)
    assert planner.job_error is scheduler.progress_error
    assert str(outcomes) == "ee......."
    assert progress.reports == 1
    assert clock.pending == 0


async def test_the_next_request_begins_before_whoever_waits_for_the_last_one_goes_on() -> None:
    async def permit_for(request: PlannedRequest) -> Permit:
        seen.append("asked for a permit")
        return await permits(clock)(request)

    async def consume() -> None:
        scheduler.changes.clear()
        await scheduler.changes.wait()
        seen.append("consumed")

    seen: list[str] = []
    clock = FakeClock()
    service = Service(clock)
    service.permit_for = permit_for
    scheduler, _, outcomes = scheduler_of(2, service, clock, max_under_way=1)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    consuming = asyncio.create_task(consume())
    await settle()
    service.answer(0)
    await settle()
    assert seen == ["asked for a permit"] * 2 + ["consumed"]
    service.answer(1)
    await asyncio.gather(running, consuming)
    assert str(outcomes) == "ee"


async def test_a_request_cancelled_from_outside_fails_its_inputs_alone() -> None:
    clock, reporter = FakeClock(), Reporter()
    service = Service(clock)
    scheduler, planner, outcomes = scheduler_of(2, service, clock, max_under_way=1, progress=reporter)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "embed"]
    task.cancel()
    await settle()
    assert service.cancelled == [0]
    assert reporter.reports == 1
    service.answer(1)
    await running
    assert str(outcomes) == "fe"
    (failure,) = outcomes.failures()
    assert "cancelled by code outside its call" in str(failure.error)
    assert planner.job_error is None


async def test_a_request_cancelled_from_outside_fails_its_inputs_once_even_if_progress_then_ends_the_job() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, planner, outcomes = scheduler_of(2, service, clock, max_under_way=1, progress=Reporter(KeyError("mine")))
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0)
    service.sent[0][0].in_flight = False
    (task,) = [task for task in asyncio.all_tasks() if task.get_name() == "embed"]
    task.cancel()
    await running
    assert planner.job_error is scheduler.progress_error
    (failure,) = outcomes.failures()
    assert "cancelled by code outside its call" in str(failure.error)
    assert (str(outcomes), outcomes.failed_count) == ("f.", 1)


@pytest.mark.parametrize("in_place", [True, False])
async def test_a_request_is_sent_in_the_callers_task_only_in_place(in_place: bool) -> None:
    async def attempt(_: PlannedRequest) -> None:
        senders.append(asyncio.current_task() is caller)

    senders: list[bool] = []
    paced, caller = PacedScheduler(9, tokens=100), asyncio.current_task()
    paced.outcome_of = attempt
    async with asyncio.TaskGroup() as group:
        paced.scheduler.begin(group)
        await paced.scheduler.end(in_place=in_place)
    assert str(paced.outcomes) == "eeeeeeeee"
    assert senders == [in_place, False, False]


async def test_the_halves_of_a_request_in_place_are_sent_in_tasks_of_their_own() -> None:
    async def attempt(request: PlannedRequest) -> EmbedError | None:
        senders.append((span(request), asyncio.current_task() is caller))
        if len(request.texts) > 2:
            return InvalidRequestError("too large", status=413)
        if request.positions[0] == 0:
            # Foreign code cancels the task of this half.
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(0)
        return None

    senders: list[tuple[Any, bool]] = []
    paced, caller = PacedScheduler(4, tokens=100), asyncio.current_task()
    paced.outcome_of = attempt
    async with asyncio.TaskGroup() as group:
        paced.scheduler.begin(group)
        await paced.scheduler.end(in_place=True)
    assert sorted(senders) == [((0, 2), False), ((0, 4), True), ((2, 4), False)]
    assert str(paced.outcomes) == "ffee"


async def test_a_deadline_during_a_request_in_place_does_not_cancel_the_caller() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, planner, outcomes = scheduler_of(3, service, clock, deadline=clock.time() + 5)

    async def call() -> int:
        async with asyncio.TaskGroup() as group:
            scheduler.begin(group)
            await scheduler.end(in_place=True)
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        return task.cancelling()

    calling = asyncio.create_task(call())
    await settle()
    service.put_on_the_wire(0)
    clock.advance(5)
    assert await calling == 0
    assert isinstance(planner.job_error, DeadlineExceededError)
    assert str(outcomes) == "f.."
    assert clock.pending == 0


async def test_nothing_is_started_for_a_caller_that_is_cancelled_while_its_request_in_place_waits_for_a_permit() -> None:
    async def wait(_: PlannedRequest) -> Permit:
        asked.append(asyncio.current_task())
        await asyncio.Event().wait()
        raise AssertionError

    async def call() -> None:
        # A task that begins at once would ask for a permit, and might send its request.
        async with asyncio.TaskGroup() as group:
            scheduler.begin(group)
            group.create_task = started.append  # type: ignore[assignment, method-assign]
            await scheduler.end(in_place=True)

    asked, started = list[asyncio.Task[Any] | None](), list[Any]()
    clock = FakeClock()
    service = Service(clock)
    service.permit_for = wait
    scheduler, _, outcomes = scheduler_of(2, service, clock)
    calling = asyncio.create_task(call())
    await settle()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert (asked, started, str(outcomes)) == ([calling], [], "..")


async def test_cancellation_cancels_all_requests_and_leaves_no_timer() -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, _ = scheduler_of(9, service, clock, deadline=clock.time() + 1)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    running.cancel("mine")
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await running
    assert sorted(service.cancelled) == [0, 1, 2]
    assert clock.pending == 0


class Caching:
    """Keeps the first inputs of the requests to cache; a test decides when caching ends."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.may_end = asyncio.Event()
        self._error = error

    async def write(self, request: PlannedRequest, until: float | None) -> None:
        self.asked.append(request.positions[0])
        if self._error is not None:
            raise self._error
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request.positions[0])
            raise


@contextlib.asynccontextmanager
async def one_being_cached(clock: FakeClock | None = None) -> AsyncIterator[tuple[Scheduler, Service, Caching]]:
    """The first of two requests is answered and being cached, the second is on the wire."""
    clock, cache = clock or FakeClock(), Caching()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(2, service, clock, cache=cache)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0, 1)
    scheduler.changes.clear()
    service.answer(0)
    await settle()
    yield scheduler, service, cache
    await running
    assert str(outcomes).startswith("e")


async def test_the_consumer_is_woken_before_an_answer_is_cached() -> None:
    async with one_being_cached() as (scheduler, service, cache):
        assert scheduler.changes.is_set()
        assert cache.asked == [0]
        service.answer(1, ServiceError("no", status=500))
        cache.may_end.set()
    assert cache.asked == [0], "what failed is not cached"


async def test_an_error_of_the_job_leaves_an_answer_time_to_be_cached() -> None:
    async with one_being_cached() as (_, service, cache):
        service.answer(1, WRONG_KEY)
        await settle()
        assert cache.cancelled == []
        cache.may_end.set()


async def test_caching_ends_with_the_grace_period() -> None:
    clock = FakeClock()
    async with one_being_cached(clock) as (_, service, cache):
        service.answer(1, WRONG_KEY)
        await settle()
        clock.advance(GRACE_SECONDS)
    assert cache.cancelled == [0]


@pytest.mark.parametrize("may_cache", [False, True])
async def test_a_caller_that_leaves_may_let_answers_be_cached(may_cache: bool) -> None:
    async with one_being_cached() as (scheduler, service, cache):
        scheduler.cancel(may_cache=may_cache)
        await settle()
        assert cache.cancelled == ([] if may_cache else [0])
        assert service.cancelled == [1]
        cache.may_end.set()


@pytest.mark.parametrize(
    ("cache", "logged"),
    [(Caching(OSError()), ["an answer could not be cached: OSError"]), (None, [])],
    ids=["broken", "none"],
)
async def test_a_cache_that_raises_is_logged(
    cache: Caching | None, logged: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(1, service, clock, cache=cache)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.answer(0)
    await running
    assert str(outcomes) == "e"
    assert caplog.messages == logged


class PacedScheduler:
    """A scheduler under a quota, whose requests hold four inputs of two tokens each."""

    def __init__(
        self,
        count: int,
        tokens: int,
        *,
        refuse: Callable[[PlannedRequest], EmbedError | None] = lambda _: None,
        concurrency: ConcurrencyLimiter | None = None,
        least_tokens: int = 2,
        tokens_again: int = 4,
        progress: Reporter | None = None,
        attempt: Callable[[PlannedRequest], Awaitable[EmbedError | None]] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.gate = RateLimitGate(LimiterOptions(tokens), clock=self.clock)
        self.flow = Flow(concurrency or ConcurrencyLimiter(8), ("m", ""), "bulk")
        self.refuse = refuse
        self.least_tokens = least_tokens
        self.tokens_again = tokens_again
        self.sent: list[tuple[int, int, int]] = []
        self.progress = progress or Reporter()
        self.learned = Learned()
        self.outcome_of = attempt
        self.planner, self.outcomes = planner_of(count, RequestLimits(4, sequence_length=8), self.learned, self.clock)
        self.scheduler = Scheduler(self.planner, cast("Sender", self), self.clock, 3, None, self.progress)

    async def permit(self, request: PlannedRequest, observation: None = None) -> Permit:
        error = self.refuse(request)
        if error is not None:
            raise error
        # Another attempt gets a smaller permit, as one under a quota may.
        want = self.tokens_again if request.attempts else request.load.tokens
        return await acquire_permit(self.gate, self.flow, want, self.least_tokens)

    def observe(self, request: PlannedRequest) -> None:
        return None

    def unexpected(self, request: PlannedRequest, fault: Exception) -> EmbedError:
        return unexpected_error(fault)

    async def attempt(self, request: PlannedRequest, permit: Permit, observation: None) -> EmbedError | None:
        request.sent(self.clock.time())
        self.sent.append((*span(request), permit.tokens))
        error = None if self.outcome_of is None else await self.outcome_of(request)
        permit.accepted(permit.tokens)
        return error

    def retrying(self, request: PlannedRequest, observation: None) -> tenacity.AsyncRetrying:
        return tenacity.AsyncRetrying(retry=tenacity.retry_if_result(lambda error: isinstance(error, ServiceError)))

    async def finish(self) -> None:
        running = asyncio.create_task(finish(self.scheduler))
        await settle()
        while not running.done():
            assert self.clock.pending, "the scheduler waits without a timer"
            self.clock.advance(60)
            await settle()
        await running

    @property
    def used(self) -> int:
        return sum(quota.used for quota in self.gate.statistics())


@pytest.mark.lazy_tasks
async def test_a_request_is_cut_to_its_permit_and_the_rest_comes_next_in_order() -> None:
    paced = PacedScheduler(10, tokens=13)
    await paced.finish()
    assert paced.sent == [(0, 4, 8), (4, 6, 4), (6, 10, 8)]
    assert str(paced.outcomes) == 10 * "e"


async def test_a_first_input_with_more_tokens_than_the_permit_is_sent_alone() -> None:
    paced = PacedScheduler(3, tokens=1, least_tokens=1)
    await paced.finish()
    assert paced.sent == [(0, 1, 2), (1, 2, 2), (2, 3, 2)]


async def test_a_first_input_found_to_exceed_its_permit_waits_for_another() -> None:
    def learn(request: PlannedRequest) -> None:
        paced.least_tokens = request.least_tokens
        paced.learned.estimator.bytes_per_token = 0.5

    paced = PacedScheduler(2, tokens=5, refuse=learn)
    (await acquire_permit(paced.gate, paced.flow, 2, 2)).accepted(2)
    running = asyncio.create_task(finish(paced.scheduler))
    await settle()
    assert not paced.sent, "3 tokens are free, and a text now has 4"
    paced.clock.advance(60)
    await running
    assert paced.used <= 5
    assert str(paced.outcomes) == "ee"


async def test_a_first_input_with_more_tokens_than_the_quota_does_not_wait_again_because_its_estimate_has_grown() -> None:
    asked: list[int] = []

    def learn(request: PlannedRequest) -> None:
        asked.append(request.positions[0])
        paced.learned.estimator.bytes_per_token = 1 / (1 + len(asked))

    paced = PacedScheduler(3, tokens=1, least_tokens=1, refuse=learn)
    await paced.finish()
    assert asked == [0, 1, 2]


def too_large(*indices: int) -> Callable[[PlannedRequest], EmbedError | None]:
    return lambda request: InputError("too large", index=request.positions[0]) if request.positions[0] in indices else None


async def test_an_input_that_can_have_no_permit_fails_and_the_others_are_embedded() -> None:
    paced = PacedScheduler(10, tokens=100, refuse=too_large(0, 1, 5))
    await paced.finish()
    assert str(paced.outcomes) == "ffeeeeeeee", "5 was never the first of a request"
    errors = [failure.error for failure in paced.outcomes.failures()]
    assert [error.index for error in errors if isinstance(error, InputError)] == [0, 1]
    assert paced.progress.reports == 2 + len(paced.sent), "both are settled as well"


async def test_the_other_inputs_are_embedded_even_if_the_one_without_permit_now_has_the_tokens_estimated_for_all() -> None:
    def learn_and_refuse(request: PlannedRequest) -> EmbedError | None:
        paced.learned.estimator.bytes_per_token = 0.1
        return too_large(0)(request)

    paced = PacedScheduler(4, tokens=100, refuse=learn_and_refuse)
    await paced.finish()
    assert str(paced.outcomes) == "feee"


async def test_many_inputs_that_can_have_no_permit_do_not_block_the_loop() -> None:
    paced = PacedScheduler(500, tokens=100, refuse=too_large(*range(500)))
    iterations = 0

    async def count() -> None:
        nonlocal iterations
        while True:
            iterations += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await finish(paced.scheduler)
    counting.cancel()
    assert iterations >= 500
    assert str(paced.outcomes) == 500 * "f"


async def test_an_exception_of_progress_for_an_input_without_a_permit_ends_the_job() -> None:
    paced = PacedScheduler(10, tokens=100, refuse=too_large(0), progress=Reporter(ZeroDivisionError()))
    await finish(paced.scheduler)
    assert isinstance(paced.scheduler.progress_error, EmbedError)
    assert isinstance(paced.scheduler.progress_error.__cause__, ZeroDivisionError)


async def test_a_configuration_error_instead_of_a_permit_ends_the_job() -> None:
    broken = ConfigurationError("no quota")
    paced = PacedScheduler(10, tokens=100, refuse=lambda request: broken if request.positions[0] else None)
    await paced.finish()
    assert paced.planner.job_error is broken
    assert str(paced.outcomes) == "eeeeffff.."


async def test_requests_in_flight_have_the_grace_period_if_another_gets_no_permit_for_a_reason_that_ends_the_job() -> None:
    clock, refused = FakeClock(), asyncio.Event()
    service = Service(clock)
    permit_for = service.permit_for

    async def refuse_the_second(request: PlannedRequest) -> Permit:
        if request.positions[0]:
            await refused.wait()
            raise ConfigurationError("no quota")
        return await permit_for(request)

    service.permit_for = refuse_the_second
    scheduler, _, outcomes = scheduler_of(3, service, clock)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0)
    refused.set()
    await settle()
    assert service.cancelled == []
    clock.advance(GRACE_SECONDS)
    await running
    assert service.cancelled == [0]
    assert str(outcomes) == "ff."
    assert clock.pending == 0


async def test_a_permit_for_which_no_request_is_left_is_given_back() -> None:
    concurrency = ConcurrencyLimiter(1)
    paced = PacedScheduler(10, tokens=100, concurrency=concurrency)
    concurrency.in_flight = 1
    running = asyncio.create_task(finish(paced.scheduler))
    await settle()
    while (request := paced.planner.peek()) is not None:
        paced.planner.take(request)
        paced.planner.embedded(request)
    concurrency.in_flight = 0
    paced.gate.change(lambda limiter, now: limiter.dispatch(now))
    await running
    assert not paced.sent
    assert concurrency.in_flight == 0
    assert paced.used == 0


@pytest.mark.parametrize("has_permit", [False, True])
async def test_a_request_cancelled_while_it_waits_for_its_permit_leaves_nothing(has_permit: bool) -> None:
    concurrency = ConcurrencyLimiter(1)
    paced = PacedScheduler(10, tokens=100, concurrency=concurrency)
    concurrency.in_flight = 1
    running = asyncio.create_task(finish(paced.scheduler))
    await settle()
    if has_permit:
        concurrency.in_flight = 0
        paced.gate.change(lambda limiter, now: limiter.dispatch(now))
    paced.scheduler.cancel(may_cache=False)
    await running
    assert not paced.sent
    assert paced.gate.waiting({concurrency}) == 0
    assert concurrency.in_flight == (0 if has_permit else 1)
    assert paced.used == 0
    assert paced.clock.pending == 0


async def overloaded_at_first(request: PlannedRequest) -> EmbedError | None:
    return ServiceError("overloaded", status=503) if request.positions[0] == 0 and request.attempts == 1 else None


@pytest.mark.lazy_tasks
@pytest.mark.parametrize("tokens_again", [4, 5])
async def test_a_request_is_cut_for_another_attempt_and_the_rest_is_sent_at_once(tokens_again: int) -> None:
    paced = PacedScheduler(4, tokens=100, tokens_again=tokens_again, attempt=overloaded_at_first)
    await finish(paced.scheduler)
    assert paced.sent == [(0, 4, 8), (0, 2, 4), (2, 4, 4)]
    assert str(paced.outcomes) == "eeee"


async def test_the_rest_of_a_request_cut_for_another_attempt_does_not_wait_for_the_first_part() -> None:
    rest_is_sent = asyncio.Event()

    async def outcome(request: PlannedRequest) -> EmbedError | None:
        if request.positions[0]:
            rest_is_sent.set()
        elif request.attempts == 2:
            async with asyncio.timeout(20):
                await rest_is_sent.wait()
        return await overloaded_at_first(request)

    paced = PacedScheduler(4, tokens=100, attempt=outcome)
    await finish(paced.scheduler)
    assert str(paced.outcomes) == "eeee"


async def test_an_input_that_can_have_no_permit_for_another_attempt_fails_alone() -> None:
    def refuse(request: PlannedRequest) -> EmbedError | None:
        return InputError("too large", index=0) if request.attempts else None

    paced = PacedScheduler(4, tokens=100, attempt=overloaded_at_first, refuse=refuse)
    await finish(paced.scheduler)
    assert paced.sent == [(0, 4, 8), (1, 4, 6)]
    assert str(paced.outcomes) == "feee"
    assert isinstance(paced.outcomes.first_error(), InputError)


@pytest.mark.lazy_tasks
@pytest.mark.parametrize("options", [{"cache": object()}, {"is_helped": True}], ids=["cache alone", "helper alone"])
async def test_a_request_that_comes_too_late_ends_the_job_unless_inputs_are_being_looked_up(options: Any) -> None:
    async def refuse(_: PlannedRequest) -> Permit:
        raise late

    clock, late = FakeClock(), DeadlineExceededError("too late")
    service = Service(clock)
    service.permit_for = refuse
    is_helped = options.pop("is_helped", False)
    scheduler, planner, outcomes = scheduler_of(3, service, clock, **options)
    async with running(scheduler):
        if is_helped:
            adopted(scheduler, asyncio.Event().wait())
    assert planner.job_error is late
    assert str(outcomes) == "..."


async def test_a_request_that_comes_too_late_after_all_inputs_were_looked_up_ends_the_job() -> None:
    async def refuse(_: PlannedRequest) -> Permit:
        await are_looked_up.wait()
        raise late

    clock, late, are_looked_up = FakeClock(), DeadlineExceededError("too late"), asyncio.Event()
    service = Service(clock)
    service.permit_for = refuse
    scheduler, planner, outcomes = scheduler_of(3, service, clock, cache=object())
    async with running(scheduler):
        await adopted(scheduler, asyncio.sleep(0))
        await settle()
        are_looked_up.set()
    assert planner.job_error is late
    assert str(outcomes) == "..."


@pytest.mark.lazy_tasks
@pytest.mark.parametrize("error", [DeadlineExceededError("too late"), InputError("too large", index=0)])
async def test_many_requests_that_get_no_permit_fail_without_waiting_or_blocking_the_loop(error: EmbedError) -> None:
    async def refuse(_: PlannedRequest) -> Permit:
        raise error

    clock = FakeClock()
    service = Service(clock)
    service.permit_for = refuse
    # A stream that looks inputs up in its cache goes on after the first that comes too late.
    scheduler, _, outcomes = scheduler_of(100, service, clock, cache=object())
    async with running(scheduler):
        looking_up = adopted(scheduler, asyncio.Event().wait())
        await settle()
        assert 0 < outcomes.failed_count < 100
        for _ in range(10):
            await settle()
        assert outcomes.failed_count == 100
        looking_up.cancel()


async def test_the_consumer_is_woken_for_a_request_that_gets_no_permit() -> None:
    async def refuse_the_first(request: PlannedRequest) -> Permit:
        if request.positions[0]:
            await asyncio.Event().wait()
        raise InputError("too large", index=0)

    clock = FakeClock()
    service = Service(clock)
    service.permit_for = refuse_the_first
    scheduler, _, outcomes = scheduler_of(2, service, clock)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    assert str(outcomes) == "f."
    assert scheduler.changes.is_set()
    scheduler.cancel(may_cache=False)
    await running


async def test_another_attempt_asks_for_the_tokens_that_are_now_estimated() -> None:
    asked: list[int] = []

    def ask(request: PlannedRequest) -> None:
        asked.append(request.load.tokens)

    async def outcome(request: PlannedRequest) -> EmbedError | None:
        paced.learned.estimator.bytes_per_token = 0.5
        return await overloaded_at_first(request)

    paced = PacedScheduler(2, tokens=100, attempt=outcome, refuse=ask)
    await finish(paced.scheduler)
    assert asked[:2] == [4, 8]


async def test_inputs_known_to_be_refused_are_reported_one_after_another_though_nothing_is_sent() -> None:
    clock, reporter, learned = FakeClock(), Reporter(), Learned()
    for number in range(100):
        learned.refusals.add(str(number), b"", REFUSED, clock.time())
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(100, service, clock, learned=learned, progress=reporter)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    # The loop is not blocked by many.
    assert 5 < outcomes.failed_count == reporter.reports < 100
    assert scheduler.changes.is_set()
    await running
    assert str(outcomes) == 100 * "f"
    assert reporter.reports == 100
    assert not service.sent


async def test_an_input_refused_elsewhere_while_it_waits_for_its_permit_is_reported_at_once() -> None:
    clock, reporter, learned = FakeClock(), Reporter(), Learned()
    service, may_send = Service(clock), asyncio.Event()
    permit_for = service.permit_for

    async def wait(request: PlannedRequest) -> Permit:
        await may_send.wait()
        return await permit_for(request)

    service.permit_for = wait
    scheduler, _, outcomes = scheduler_of(2, service, clock, learned=learned, progress=reporter, max_under_way=1)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    learned.refusals.add("0", b"", REFUSED, clock.time())
    scheduler.changes.clear()
    may_send.set()
    await settle()
    assert service.waiting == [1]
    assert str(outcomes) == "f."
    assert reporter.reports == 1
    assert scheduler.changes.is_set()
    service.answer(1)
    await running


async def test_nothing_is_recorded_of_requests_whose_caller_has_left() -> None:
    clock, reporter = FakeClock(), Reporter()
    service = Service(clock)
    scheduler, _, outcomes = scheduler_of(2, service, clock, progress=reporter)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0)
    scheduler.cancel(may_cache=False)
    await running
    assert sorted(service.cancelled) == [0, 1]
    assert str(outcomes) == ".."
    assert reporter.reports == 0


async def test_an_abandoned_request_is_cancelled_once_however_long_it_takes_to_end() -> None:
    class SlowToEnd(Service):
        async def attempt(self, request: PlannedRequest, permit: Permit, observation: None) -> EmbedError | None:
            try:
                return await super().attempt(request, permit, observation)
            finally:
                if request.positions[0] == 1:
                    await may_end.wait()

    clock, may_end = FakeClock(), asyncio.Event()
    service = SlowToEnd(clock)
    scheduler, _, outcomes = scheduler_of(3, service, clock)
    running = asyncio.create_task(finish(scheduler))
    await settle()
    service.put_on_the_wire(0)
    service.answer(0, WRONG_KEY)
    await settle()
    assert sorted(service.cancelled) == [1, 2]
    clock.advance(GRACE_SECONDS)
    await settle()
    assert not running.done()
    may_end.set()
    await running
    assert str(outcomes) == "f.."
