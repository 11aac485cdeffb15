import asyncio
import gc
import math
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pinecone_embed_async import ConfigurationError, DeadlineExceededError
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._rate_limit import (
    Backoff,
    ConcurrencyLimiter,
    Flow,
    LimiterOptions,
    Permit,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    RateLimitGate,
)
from pinecone_embed_async._rate_limit.limiter import Limiter
from pinecone_embed_async._rate_limit.pauses import KnownPause
from tests.clock import FakeClock, settle
from tests.permits import acquire_permit
from tests.rate_limit.cluster import Cluster
from tests.rate_limit.world import Count

KEY = ("model", "passage")
PAUSE = Backoff(1.0, 1.0, lambda: 1.0)
REENTRANT_LOCK = threading.RLock


def gate(clock: Any, tokens: int | None = None, **options: Any) -> RateLimitGate:
    return RateLimitGate(LimiterOptions(tokens, **options), clock=clock)


class Caller:
    """Requests permits for one flow and concurrency limiter."""

    def __init__(self, of: RateLimitGate, *, most: int = 8) -> None:
        self.gate = of
        self.concurrency = ConcurrencyLimiter(most)
        self.flow = Flow(self.concurrency, KEY, "bulk")

    def permit(self, want: int = 10, least: int = 1) -> Coroutine[Any, Any, Permit]:
        return acquire_permit(self.gate, self.flow, want, least)


async def test_an_available_permit_is_granted_without_waiting() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock, 100))
    coroutine = caller.permit(60)
    with pytest.raises(StopIteration) as returned:
        coroutine.send(None)
    assert returned.value.value.tokens == 60
    assert clock.pending == 0


async def test_waiters_share_one_timer_and_wake_in_order() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock, 100), most=100)
    (await caller.permit(100)).accepted(100)
    order = list[int]()

    async def wait(number: int) -> None:
        permit = await caller.permit(10, 10)
        order.append(number)
        permit.accepted(permit.tokens)

    tasks = [asyncio.create_task(wait(number)) for number in range(10)]
    await settle()
    assert clock.pending == 1
    clock.advance(59.9)
    await settle()
    assert not order
    clock.advance(0.1)
    await asyncio.gather(*tasks)
    assert order == list(range(10))
    assert clock.pending == 0


async def test_a_waiter_cancelled_while_waiting_leaves_nothing_behind() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock, 100))
    first = await caller.permit(100)
    cancelled, waits = (asyncio.create_task(caller.permit(50, 50)) for _ in range(2))
    await settle()
    cancelled.cancel()
    await settle()
    first.give_back()
    assert (await waits).tokens == 50
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert clock.pending == 0
    assert not caller.gate._loops


async def test_a_waiter_cancelled_as_its_permit_is_granted_gives_it_back() -> None:
    caller = Caller(gate(FakeClock()), most=1)
    first = await caller.permit()
    cancelled, waits = (asyncio.create_task(caller.permit()) for _ in range(2))
    await settle()
    first.accepted(first.tokens)
    cancelled.cancel()
    await waits
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert caller.concurrency.in_flight == 1
    assert not caller.gate._loops


async def test_a_waiter_that_leaves_takes_its_timer_with_it() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock, 100))
    (await caller.permit(100)).accepted(100)
    waits = asyncio.create_task(caller.permit(50, 50))
    await settle()
    assert clock.pending == 1
    waits.cancel()
    await settle()
    assert clock.pending == 0


async def test_what_is_decided_is_not_kept() -> None:
    caller = Caller(gate(FakeClock()))
    await caller.permit()
    assert caller.gate.change(lambda limiter, _: [*limiter.decided]) == []


async def test_a_request_that_has_to_wait_is_told_for_how_long_it_is_paused() -> None:
    caller = Caller(gate(FakeClock()))
    (await caller.permit()).rejected("", PAUSE)
    told = list[float]()

    class Observer:
        def waiting(self, pause: float) -> None:
            told.append(pause)

    request = caller.gate.request(caller.flow, 10, 1)
    waits = asyncio.create_task(caller.gate.wait(request, Observer()))
    await settle()
    waits.cancel()
    assert told == [1.0]


async def test_a_request_whose_deadline_comes_before_the_end_of_a_pause_fails_at_once() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock))
    (await caller.permit()).rejected("", Backoff(0.0, 0.0, lambda: 0.0, 30.0))
    late = caller.gate.request(caller.flow, 10, 1, deadline=clock.now + 29)
    async with asyncio.timeout(5):
        with pytest.raises(DeadlineExceededError, match=r"30\.0 s"):
            await caller.gate.wait(late)
    assert isinstance(caller.gate.too_late(KEY, 1, clock.now + 29), DeadlineExceededError)
    assert caller.gate.too_late(KEY, 1, clock.now + 31) is None
    waits = caller.gate.request(caller.flow, 10, 1, deadline=clock.now + 31)
    assert waits.pause is None
    clock.advance(30)
    (await caller.gate.wait(waits)).give_back()


async def test_a_timer_that_fires_early_is_set_again() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock, 100))
    (await caller.permit(100)).accepted(100)
    waits = asyncio.create_task(caller.permit(50, 50))
    await settle()
    caller.gate._fire(asyncio.get_running_loop())
    assert not waits.done()
    clock.advance(60)
    await waits


async def test_a_guessed_limit_is_logged_once_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    caller = Caller(gate(clock))
    for _ in range(2):
        (await caller.permit(100)).accepted(100)
        clock.advance(40)
    for _ in range(2):
        permits = [await caller.permit(10) for _ in range(2)]
        clock.advance(0.1)
        for permit in permits:
            permit.rejected("Too many requests", PAUSE)
        assert len(caplog.records) <= 1
        clock.advance(60)
        (await caller.permit(10)).accepted(10)
        clock.advance(60)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "model (passage)" in record.getMessage()
    assert "quota=" in record.getMessage()


async def test_given_and_named_limits_are_not_logged_as_guesses(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    for tokens in (None, 1000):
        caller = Caller(gate(clock, tokens))
        permit = await caller.permit(100)
        permit.rejected("the max embedding tokens per minute (500) model 'model'", PAUSE)
        clock.advance(120)
        (await caller.permit(100)).accepted(100)
    assert not caplog.records


def in_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    return thread


def test_threads_that_share_a_gate_keep_its_limit_and_lose_no_wake_up() -> None:
    limit, window = 400, 0.2
    shared = gate(SystemClock(), limit, window=window)
    lock, count, over = threading.Lock(), Count(window, "sliding"), list[float]()
    done = list[int]()

    async def call(caller: Caller) -> None:
        for _ in range(8):
            permit = await caller.permit(30, 5)
            with lock:
                now = time.monotonic()
                if not count.fits(now, permit.tokens, limit):
                    over.append(now)
                count.add(now, permit.tokens)
            await asyncio.sleep(0.001)
            permit.accepted(permit.tokens)
            done.append(permit.tokens)

    async def work() -> None:
        caller = Caller(shared)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(call(caller))

    threads = [in_thread(work) for _ in range(3)]
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert len(done) == 3 * 6 * 8
    assert not over
    assert not shared._loops


def test_a_response_in_one_thread_wakes_a_waiter_in_another() -> None:
    shared = gate(SystemClock())
    concurrency = ConcurrencyLimiter(1)
    got = threading.Event()

    def until_the_other_waits() -> None:
        while not shared.waiting({concurrency}):
            time.sleep(0.001)

    async def first() -> None:
        permit = await acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 1, 1)
        await asyncio.to_thread(until_the_other_waits)
        permit.accepted(permit.tokens)
        await asyncio.to_thread(got.wait, 10)

    async def second() -> None:
        await acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 1, 1)
        got.set()

    one = in_thread(first)
    while not concurrency.in_flight:
        time.sleep(0.001)
    other = in_thread(second)
    one.join(20)
    other.join(20)
    assert got.is_set()


def test_a_loop_is_notified_once_until_it_has_rechecked_its_timer() -> None:
    """While it does not run its queue does not grow, however many steps another thread takes."""
    clock = FakeClock()
    shared = gate(clock, 100)
    idle = asyncio.new_event_loop()
    notified = list[object]()

    async def start() -> None:
        caller = Caller(shared)
        (await caller.permit(100)).accepted(100)
        task = asyncio.create_task(caller.permit(50, 50))
        await asyncio.sleep(0)
        tasks.append(task)

    tasks: list[asyncio.Task[Permit]] = []
    idle.run_until_complete(start())
    soon = idle.call_soon_threadsafe
    idle.call_soon_threadsafe = lambda *what, **context: (notified.append(what), soon(*what, **context))[1]  # type: ignore[method-assign,func-returns-value]

    async def other() -> None:
        caller = Caller(shared)
        # Due sooner than any timer of the idle loop, again and again.
        for waits in shared._loops.values():
            waits.due = math.inf
        for _ in range(50):
            (await acquire_permit(caller.gate, Flow(caller.concurrency, None, "bulk"), 0, 0)).give_back()

    asyncio.run(other())
    assert len(notified) == 1
    idle.run_until_complete(asyncio.sleep(0))
    asyncio.run(other())
    assert len(notified) == 2
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        idle.run_until_complete(tasks[0])
    idle.close()


def drop(tasks: list[asyncio.Task[Permit]]) -> None:
    """Garbage-collect tasks of a closed loop, without asyncio's warning that they were pending."""
    while tasks:
        tasks.pop()._log_destroy_pending = False  # type: ignore[attr-defined]
    gc.collect()


@pytest.mark.parametrize("is_granted", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_closed_event_loop_takes_no_permit_with_it(is_granted: bool) -> None:
    shared = gate(SystemClock())
    concurrency, left = ConcurrencyLimiter(1), list[asyncio.Task[Permit]]()

    async def hold_and_wait() -> Permit:
        permit = await acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 1, 1)
        left.append(asyncio.create_task(acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 1, 1)))
        await asyncio.sleep(0)
        return permit

    loop = asyncio.new_event_loop()
    permit = loop.run_until_complete(hold_and_wait())
    if is_granted:
        permit.give_back()
    loop.close()
    if not is_granted:
        permit.give_back()

    async def go_on() -> None:
        async with asyncio.timeout(10):
            (await acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 1, 1)).accepted(1)

    asyncio.run(go_on())
    assert concurrency.in_flight == 0
    assert not shared._loops
    drop(left)
    assert concurrency.in_flight == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_waiters_of_a_closed_event_loop_are_dropped_at_the_next_step() -> None:
    shared = gate(SystemClock(), 100)
    concurrency, left = ConcurrencyLimiter(8), list[asyncio.Task[Permit]]()

    async def use_up_and_wait() -> None:
        await acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 100, 100)
        left.append(asyncio.create_task(acquire_permit(shared, Flow(concurrency, KEY, "bulk"), 50, 50)))
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use_up_and_wait())
    assert shared.waiting({concurrency}) == 1
    loop.close()
    shared.change(lambda _limiter, _now: None)
    assert shared.waiting({concurrency}) == 0
    assert not shared._loops
    drop(left)
    assert concurrency.in_flight == 1


async def test_a_coroutine_closed_during_a_step_neither_blocks_nor_loses_its_permit() -> None:
    """The garbage collector may do that at any moment."""
    caller = Caller(gate(FakeClock()), most=1)
    permit = await caller.permit()

    async def send() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            permit.give_back()

    coroutine = send()
    coroutine.send(None)
    caller.gate.change(lambda _, __: coroutine.close())
    assert caller.concurrency.in_flight == 0


async def test_a_step_within_a_step_comes_after_it_and_wakes_those_that_wait() -> None:
    caller = Caller(gate(FakeClock()), most=1)
    permit = await caller.permit()
    waits = asyncio.create_task(caller.permit())
    await settle()
    order = list[str]()

    def step(_: Limiter, __: float) -> None:
        assert caller.gate.change(lambda _, __: order.append("inner")) is None
        permit.give_back()
        order.append("outer")

    caller.gate.change(step)
    assert order == ["outer", "inner"]
    await settle()
    assert waits.done()


@pytest.mark.parametrize("has_permit", [False, True])
async def test_a_coroutine_closed_while_it_waits_leaves_nothing_behind(has_permit: bool) -> None:
    caller = Caller(gate(FakeClock()), most=1)
    first = await caller.permit()
    coroutine = caller.permit()
    coroutine.send(None)
    if has_permit:
        first.give_back()
    coroutine.close()
    assert caller.gate.waiting({caller.concurrency}) == 0
    assert caller.concurrency.in_flight == (0 if has_permit else 1)
    assert not caller.gate._loops


async def test_an_exception_in_a_step_does_not_block_the_next() -> None:
    caller = Caller(gate(FakeClock()))

    def broken(limiter: Limiter, now: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        caller.gate.change(broken)
    (await caller.permit()).accepted(10)


def child_of(work: Callable[[], bool]) -> bool:
    """Whether `work` returns true in a child process, within ten seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        try:
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


def test_after_a_fork_usage_stays_and_waiting_requests_are_forgotten() -> None:
    shared = gate(FakeClock(), 100)
    concurrency = ConcurrencyLimiter(8)
    flow = Flow(concurrency, KEY, "bulk")

    async def work() -> bool:
        permit = await acquire_permit(shared, flow, 60, 60)
        waits = asyncio.create_task(acquire_permit(shared, flow, 60, 60))
        await asyncio.sleep(0)

        def in_child() -> bool:
            if shared.waiting({concurrency}) or concurrency.in_flight or shared.statistics()[0].used != 60:
                return False
            # The parent's permit is not the child's.
            permit.give_back()
            asyncio._set_running_loop(None)

            async def go_on() -> int:
                return (await acquire_permit(shared, flow, 60, 10)).tokens

            return asyncio.run(go_on()) == 40 and shared.statistics()[0].used == 100

        is_right = child_of(in_child)
        waits.cancel()
        return is_right and shared.waiting({concurrency}) == 1

    assert asyncio.run(work())


def test_a_fork_while_another_thread_holds_the_lock_does_not_block_the_child() -> None:
    shared = gate(FakeClock(), 100)
    is_held, may_go = threading.Event(), threading.Event()

    def hold(limiter: Limiter, now: float) -> None:
        is_held.set()
        may_go.wait(20)

    thread = threading.Thread(target=lambda: shared.change(hold))
    thread.start()
    is_held.wait()
    is_right = child_of(lambda: shared.known_limit(KEY) == 100 and shared.known_pause(KEY).until == -math.inf)
    may_go.set()
    thread.join()
    assert is_right


class InterruptedLock:
    """A reentrant lock; before it is acquired for the first time, something else happens."""

    def __init__(self, first: Callable[[], object]) -> None:
        self._lock = REENTRANT_LOCK()
        self._first = [first]

    def __enter__(self) -> None:
        if self._first:
            self._first.pop()()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_after_a_fork_a_second_thread_of_the_child_does_not_see_the_parents_requests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = gate(FakeClock(), 100)
    concurrency = ConcurrencyLimiter(8)
    shared.request(Flow(concurrency, KEY, "bulk"), 60, 60)

    def in_child() -> bool:
        seen: list[int | None] = []
        thread = threading.Thread(target=lambda: seen.append(shared.change(lambda *_: concurrency.in_flight)))

        def overtake() -> None:
            thread.start()
            thread.join(5)

        monkeypatch.setattr(threading, "RLock", lambda: InterruptedLock(overtake))
        shared.known_pause(KEY)
        thread.join()
        return seen == [0]

    assert child_of(in_child)


def caller_of(cluster: Cluster, *, most: int = 8) -> Caller:
    return Caller(RateLimitGate(LimiterOptions(), clock=FakeClock(), backend=cluster), most=most)


async def test_each_flow_has_one_name_of_its_own_for_the_quota_back_end() -> None:
    cluster = Cluster()
    for _ in range(2):
        caller = caller_of(cluster)
        for _ in range(20):
            # The previous flow is gone, and its id free.
            caller.flow = Flow(caller.concurrency, KEY, "bulk")
            for _ in range(2):
                (await caller.permit()).give_back()
    names = [demand.flow for demand in cluster.demands]
    assert names[::2] == names[1::2]
    assert len(set(names)) == 40
    assert pickle.loads(pickle.dumps(names)) == names  # noqa: S301 - our own


def test_flows_of_a_process_and_its_child_have_different_names_for_the_quota_back_end() -> None:
    cluster = Cluster()
    caller = caller_of(cluster)

    async def name_of_a_new_flow() -> str:
        caller.flow = Flow(caller.concurrency, KEY, "bulk")
        (await caller.permit()).give_back()
        return str(cluster.demands[-1].flow)

    reads, writes = os.pipe()
    assert child_of(lambda: os.write(writes, asyncio.run(name_of_a_new_flow()).encode()) > 0)
    name = os.read(reads, 100).decode()
    for end in (reads, writes):
        os.close(end)
    assert asyncio.run(name_of_a_new_flow()) != name


ENDS: list[tuple[Callable[[Permit], object], QuotaOutcome]] = [
    (lambda permit: permit.accepted(19), QuotaOutcome("accepted", 19)),
    (lambda permit: permit.accepted(permit.tokens), QuotaOutcome("accepted", 20)),
    (lambda permit: permit.failed(is_overload=True), QuotaOutcome("failed", 20)),
    (
        lambda permit: permit.rejected("too much", Backoff(99.0, 99.0, lambda: 1.0, 3.0)),
        QuotaOutcome("rejected", 20, "too much", 3.0),
    ),
    (lambda permit: permit.give_back(), QuotaOutcome("unused", 0)),
]


@pytest.mark.parametrize(("end", "outcome"), ENDS)
async def test_each_grant_of_a_quota_back_end_is_settled_once(
    end: Callable[[Permit], object], outcome: QuotaOutcome
) -> None:
    cluster = Cluster()
    caller = caller_of(cluster)
    permit = await caller.permit(100, 7)
    assert cluster.demands == [QuotaDemand(*KEY, 100, 7, "bulk", caller.flow.name)]
    assert permit.tokens == 25
    permit.resize(20)
    end(permit)
    assert cluster.outcomes == [(cluster.grants[0], outcome)]
    assert caller.concurrency.in_flight == 0
    # The back end decides about pauses, not the client.
    assert caller.gate.known_pause(KEY).until == -math.inf
    assert caller.concurrency.limit == (4 if outcome.kind == "failed" else 8)
    assert caller.gate.known_limit(KEY) == math.inf


async def test_a_quota_back_end_that_cannot_settle_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Cluster):
        def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
            raise ConnectionError("it is away")

    caller = caller_of(Broken())
    for _ in range(2):
        (await caller.permit()).accepted(10)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "could not settle a grant: ConnectionError: it is away" in record.getMessage()


async def test_a_quota_back_end_is_told_how_long_a_grant_is_of_use() -> None:
    cluster = Cluster()
    caller = caller_of(cluster)
    for deadline in (1005.0, 995.0, None):
        request = caller.gate.request(caller.flow, 10, 1, deadline=deadline)
        (await caller.gate.wait(request)).give_back()
    assert [demand.within for demand in cluster.demands] == [5.0, 0.0, None]


@pytest.mark.parametrize(("retry_after", "until"), [(7.0, 1007.0), (3.0, 1005.0), (None, 1005.0)])
async def test_a_quota_back_end_may_say_that_a_grant_would_come_too_late(retry_after: float | None, until: float) -> None:
    class Late(Cluster):
        async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
            raise DeadlineExceededError("too late", retry_after=retry_after)

    caller = caller_of(Late())
    request = caller.gate.request(caller.flow, 10, 1, deadline=1005.0)
    with pytest.raises(DeadlineExceededError, match="too late"):
        await caller.gate.wait(request)
    assert request.pause == KnownPause(until)
    with pytest.raises(ConfigurationError, match="failed: DeadlineExceededError: too late"):
        await caller.permit()


async def test_another_error_of_a_quota_back_end_is_one_of_the_configuration_even_if_there_is_a_deadline() -> None:
    class Broken(Cluster):
        async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
            raise ConnectionError("it is away")

    caller = caller_of(Broken())
    with pytest.raises(ConfigurationError, match="failed: ConnectionError: it is away"):
        await caller.gate.wait(caller.gate.request(caller.flow, 10, 1, deadline=1005.0))


@pytest.mark.parametrize("grant", [QuotaGrant(0), QuotaGrant(True), QuotaGrant("9"), 9])  # type: ignore[arg-type]
async def test_a_quota_back_end_must_return_a_grant_of_tokens(grant: Any) -> None:
    class Wrong(Cluster):
        async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
            return grant  # type: ignore[no-any-return]

    with pytest.raises(ConfigurationError, match="acquire must return a QuotaGrant whose tokens are an integer ≥ 1, got"):
        await caller_of(Wrong()).permit()


async def test_a_quota_back_end_may_grant_a_single_token() -> None:
    assert (await caller_of(Cluster(1)).permit()).tokens == 1


async def test_a_grant_that_comes_after_its_request_was_cancelled_is_settled_as_unused() -> None:
    class Stubborn(Cluster):
        async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
            try:
                return await super().acquire(demand)
            except asyncio.CancelledError:
                return await super().acquire(demand)

    cluster = Stubborn()
    cluster.may_answer.clear()
    caller = caller_of(cluster)
    waits = asyncio.create_task(caller.permit())
    await settle()
    waits.cancel()
    await settle()
    cluster.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await waits
    await settle()
    assert cluster.outcomes == [(cluster.grants[0], QuotaOutcome("unused", 0))]


async def test_a_grant_for_a_request_that_has_to_wait_beyond_its_deadline_is_settled_as_unused() -> None:
    cluster = Cluster()
    caller = Caller(RateLimitGate(LimiterOptions(requests_per_minute=1), clock=FakeClock(), backend=cluster))
    (await caller.permit()).accepted(10)
    with pytest.raises(DeadlineExceededError):
        await caller.gate.wait(caller.gate.request(caller.flow, 10, 1, deadline=1005.0))
    assert cluster.outcomes[1:] == [(cluster.grants[1], QuotaOutcome("unused", 0))]


def test_a_limit_is_known_if_it_is_given() -> None:
    assert gate(FakeClock(), 100).known_limit(KEY) == 100
    assert gate(FakeClock(), 100).known_limit(None) == math.inf
    assert gate(FakeClock()).known_limit(KEY) == math.inf


async def test_the_last_acceptance_is_known_with_and_without_a_quota_back_end() -> None:
    for caller in (caller_of(Cluster()), Caller(gate(FakeClock(), 100))):
        assert caller.gate.last_acceptance(KEY) is None
        (await caller.permit()).failed(is_overload=False)
        assert caller.gate.last_acceptance(KEY) is None
        (await caller.permit()).accepted(10)
        assert caller.gate.last_acceptance(KEY) == 1000.0
        assert caller.gate.last_acceptance(("model", "query")) is None
        assert caller.gate.last_acceptance(None) is None


async def test_a_request_cancelled_before_its_grant_has_none() -> None:
    cluster = Cluster()
    cluster.may_answer.clear()
    caller = caller_of(cluster)
    waits = asyncio.create_task(caller.permit())
    await settle()
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    cluster.may_answer.set()
    await settle()
    assert not cluster.grants
    assert not cluster.outcomes


async def test_a_request_cancelled_after_its_grant_settles_it_as_unused() -> None:
    cluster = Cluster()
    caller = caller_of(cluster, most=1)
    first = await caller.permit()
    waits = asyncio.create_task(caller.permit())
    await settle()
    assert len(cluster.grants) == 2
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert cluster.outcomes == [(cluster.grants[1], QuotaOutcome("unused", 0))]
    first.accepted(5)
    assert [outcome.kind for _, outcome in cluster.outcomes] == ["unused", "accepted"]


def test_repr() -> None:
    assert repr(gate(FakeClock())) == "<RateLimitGate <Limiter 0 waiting>>"


async def test_the_last_acceptance_is_the_latest() -> None:
    clock = FakeClock()
    caller = Caller(gate(clock))
    for _ in range(2):
        clock.advance(100)
        (await caller.permit()).accepted(10)
        assert caller.gate.last_acceptance(KEY) == clock.now


def test_a_waiter_in_another_thread_is_woken_for_every_window() -> None:
    shared = gate(SystemClock(), 100, window=0.1)
    waits, goes = threading.Semaphore(0), list[int]()

    async def wait() -> None:
        caller = Caller(shared)
        async with asyncio.timeout(8):
            for number in range(3):
                permit = await caller.permit(100, 100)
                goes.append(number)
                permit.give_back()
                waits.release()
                assert await asyncio.to_thread(full.acquire, timeout=5)

    full = threading.Semaphore(0)

    async def fill() -> None:
        caller = Caller(shared)
        async with asyncio.timeout(8):
            for number in range(3):
                permit = await caller.permit(100, 100)
                if number:
                    full.release()
                else:
                    thread.start()
                # The other thread waits for a response, so it has no timer of its own.
                while not shared.waiting({*concurrencies(shared)}):  # noqa: ASYNC110 - another thread has no event
                    await asyncio.sleep(0.001)
                permit.accepted(permit.tokens)
                assert await asyncio.to_thread(waits.acquire, timeout=5), "the waiter was not woken"
        full.release()

    def concurrencies(of: RateLimitGate) -> set[ConcurrencyLimiter]:
        return {request.flow.concurrency for waits in list(of._loops.values()) for request in list(waits.permits)}

    thread = threading.Thread(target=lambda: asyncio.run(wait()))
    try:
        asyncio.run(fill())
    finally:
        thread.join()
    assert goes == [0, 1, 2]
