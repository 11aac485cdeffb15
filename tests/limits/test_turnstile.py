import asyncio
import gc
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._limits import (
    Ask,
    Flow,
    Lane,
    Limiter,
    LimiterOptions,
    QuotaDemand,
    QuotaOutcome,
    Turn,
    Turnstile,
)
from tests.clock import FakeClock, settle
from tests.limits.cluster import Cluster
from tests.limits.world import Count

KEY = ("model", "passage")


def turnstile(clock: Any, tokens: int | None = None, **options: Any) -> Turnstile:
    return Turnstile(LimiterOptions(lambda _: tokens, first_in_flight=1000, **options), clock=clock)


class Caller:
    """Asks for turns for one flow and lane."""

    def __init__(self, of: Turnstile, *, most: int = 8) -> None:
        self.turnstile = of
        self.lane = Lane(most)
        self.flow = Flow[Ask]("group", "bulk")

    def turn(self, want: int = 10, least: int = 1) -> Coroutine[Any, Any, Turn]:
        return self.turnstile.turn(self.flow, self.lane, KEY, want, least)


async def test_a_turn_that_may_be_had_at_once_is_had_without_waiting() -> None:
    clock = FakeClock()
    caller = Caller(turnstile(clock, 100))
    coroutine = caller.turn(60)
    with pytest.raises(StopIteration) as returned:
        coroutine.send(None)
    assert returned.value.value.tokens == 60
    assert clock.pending == 0


async def test_those_who_wait_share_one_timer_and_wake_in_order() -> None:
    clock = FakeClock()
    caller = Caller(turnstile(clock, 100), most=100)
    (await caller.turn(100)).accepted(None)
    order = list[int]()

    async def wait(number: int) -> None:
        turn = await caller.turn(10, 10)
        order.append(number)
        turn.accepted(None)

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


async def test_one_that_is_cancelled_while_it_waits_leaves_no_hole_and_no_timer() -> None:
    clock = FakeClock()
    caller = Caller(turnstile(clock, 100))
    first = await caller.turn(100)
    cancelled, waits = (asyncio.create_task(caller.turn(50, 50)) for _ in range(2))
    await settle()
    cancelled.cancel()
    await settle()
    first.give_back()
    assert (await waits).tokens == 50
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert clock.pending == 0
    assert not caller.turnstile._waiters


async def test_one_that_is_cancelled_in_the_moment_of_its_turn_gives_it_back() -> None:
    caller = Caller(turnstile(FakeClock()), most=1)
    first = await caller.turn()
    cancelled, waits = (asyncio.create_task(caller.turn()) for _ in range(2))
    await settle()
    first.accepted(None)
    cancelled.cancel()
    await waits
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert caller.lane.in_flight == 1
    assert not caller.turnstile._unclaimed


async def test_a_timer_that_fires_early_is_set_again() -> None:
    clock = FakeClock()
    caller = Caller(turnstile(clock, 100))
    (await caller.turn(100)).accepted(None)
    waits = asyncio.create_task(caller.turn(50, 50))
    await settle()
    caller.turnstile._fire(asyncio.get_running_loop())
    assert not waits.done()
    clock.advance(60)
    await waits


async def test_a_limit_that_is_only_a_guess_is_said_once_with_the_cure(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    caller = Caller(turnstile(clock))
    for _ in range(2):
        (await caller.turn(100)).accepted(None)
        clock.advance(40)
    for _ in range(2):
        turns = [await caller.turn(10) for _ in range(2)]
        clock.advance(0.1)
        for turn in turns:
            turn.rejected("Too many requests", None, lambda _: 1.0)
        assert len(caplog.records) <= 1
        clock.advance(60)
        (await caller.turn(10)).accepted(None)
        clock.advance(60)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "model (passage)" in record.getMessage()
    assert "quota=" in record.getMessage()


async def test_a_limit_that_is_given_or_named_is_not_said_to_be_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    for tokens in (None, 1000):
        caller = Caller(turnstile(clock, tokens))
        turn = await caller.turn(100)
        turn.rejected("the max embedding tokens per minute (500) model 'model'", None, lambda _: 1.0)
        clock.advance(120)
        (await caller.turn(100)).accepted(None)
    assert not caplog.records


def in_thread(work: Callable[[], Coroutine[Any, Any, Any]]) -> threading.Thread:
    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    return thread


def test_threads_that_share_it_are_never_over_its_limit_and_lose_no_wake_up() -> None:
    limit, window = 400, 0.2
    shared = turnstile(SystemClock(), limit, window=window)
    lock, count, over = threading.Lock(), Count(window, "sliding"), list[float]()
    done = list[int]()

    async def call(caller: Caller) -> None:
        for _ in range(8):
            turn = await caller.turn(30, 5)
            with lock:
                now = time.monotonic()
                if not count.fits(now, turn.tokens, limit):
                    over.append(now)
                count.add(now, turn.tokens)
            await asyncio.sleep(0.001)
            turn.accepted(None)
            done.append(turn.tokens)

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
    assert not shared._waiters
    assert not shared._unclaimed


def test_an_answer_in_one_thread_wakes_who_waits_in_another() -> None:
    shared = turnstile(SystemClock())
    lane = Lane(1)
    got = threading.Event()

    def somebody_waits() -> None:
        while not shared.waiting({lane}):
            time.sleep(0.001)

    async def first() -> None:
        turn = await shared.turn(Flow[Ask]("a", "bulk"), lane, KEY, 1, 1)
        await asyncio.to_thread(somebody_waits)
        turn.accepted(None)
        await asyncio.to_thread(got.wait, 10)

    async def second() -> None:
        await shared.turn(Flow[Ask]("b", "bulk"), lane, KEY, 1, 1)
        got.set()

    one = in_thread(first)
    while not lane.in_flight:
        time.sleep(0.001)
    other = in_thread(second)
    one.join(20)
    other.join(20)
    assert got.is_set()


def test_a_thread_that_does_not_run_its_loop_is_told_once_to_look_at_its_timers() -> None:
    """However often another one changes something, its queue does not grow."""
    clock = FakeClock()
    shared = turnstile(clock, 100)
    idle = asyncio.new_event_loop()
    told = list[object]()

    async def start() -> None:
        caller = Caller(shared)
        (await caller.turn(100)).accepted(None)
        task = asyncio.create_task(caller.turn(50, 50))
        await asyncio.sleep(0)
        tasks.append(task)

    tasks: list[asyncio.Task[Turn]] = []
    idle.run_until_complete(start())
    soon = idle.call_soon_threadsafe
    idle.call_soon_threadsafe = lambda *what, **context: (told.append(what), soon(*what, **context))[1]  # type: ignore[method-assign,func-returns-value]

    async def other() -> None:
        caller = Caller(shared)
        # Due sooner than its timer, again and again.
        shared._timers.clear()
        for _ in range(50):
            (await caller.turnstile.turn(caller.flow, caller.lane, None, 0, 0)).give_back()

    asyncio.run(other())
    assert len(told) == 1
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        idle.run_until_complete(tasks[0])
    idle.close()


def drop(tasks: list[asyncio.Task[Turn]]) -> None:
    """Have the garbage collector take tasks of a loop that is closed, without a word of asyncio's that they were pending."""
    while tasks:
        tasks.pop()._log_destroy_pending = False  # type: ignore[attr-defined]
    gc.collect()


@pytest.mark.parametrize("is_granted", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_closed_event_loop_takes_no_turn_with_it(is_granted: bool) -> None:
    shared = turnstile(SystemClock())
    lane, left = Lane(1), list[asyncio.Task[Turn]]()

    async def hold_and_wait() -> Turn:
        turn = await shared.turn(Flow[Ask]("a", "bulk"), lane, KEY, 1, 1)
        left.append(asyncio.create_task(shared.turn(Flow[Ask]("b", "bulk"), lane, KEY, 1, 1)))
        await asyncio.sleep(0)
        return turn

    loop = asyncio.new_event_loop()
    turn = loop.run_until_complete(hold_and_wait())
    if is_granted:
        turn.give_back()
    loop.close()
    if not is_granted:
        turn.give_back()

    async def next_one() -> None:
        async with asyncio.timeout(10):
            (await shared.turn(Flow[Ask]("c", "bulk"), lane, KEY, 1, 1)).accepted(None)

    asyncio.run(next_one())
    assert lane.in_flight == 0
    assert not shared._unclaimed
    assert not shared._waiters
    drop(left)
    assert lane.in_flight == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_whoever_waits_for_tokens_in_an_event_loop_that_is_closed_is_forgotten_at_the_next_step() -> None:
    shared = turnstile(SystemClock(), 100)
    lane, left = Lane(8), list[asyncio.Task[Turn]]()

    async def use_up_and_wait() -> None:
        await shared.turn(Flow[Ask]("a", "bulk"), lane, KEY, 100, 100)
        left.append(asyncio.create_task(shared.turn(Flow[Ask]("b", "bulk"), lane, KEY, 50, 50)))
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use_up_and_wait())
    assert shared.waiting({lane}) == 1
    loop.close()
    shared.change(lambda _limiter, _now: None)
    assert shared.waiting({lane}) == 0
    assert not shared._waiters
    assert not shared._timers
    drop(left)
    assert lane.in_flight == 1


async def test_a_coroutine_that_is_closed_during_a_step_neither_blocks_nor_loses_its_turn() -> None:
    """The garbage collector does that at any moment."""
    caller = Caller(turnstile(FakeClock()), most=1)
    turn = await caller.turn()

    async def send() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            turn.give_back()

    coroutine = send()
    coroutine.send(None)
    caller.turnstile.change(lambda _, __: coroutine.close())
    assert caller.lane.in_flight == 0


@pytest.mark.parametrize("has_turn", [False, True])
async def test_a_coroutine_that_is_closed_while_it_waits_leaves_nothing(has_turn: bool) -> None:
    caller = Caller(turnstile(FakeClock()), most=1)
    first = await caller.turn()
    coroutine = caller.turn()
    coroutine.send(None)
    if has_turn:
        first.give_back()
    coroutine.close()
    assert caller.turnstile.waiting({caller.lane}) == 0
    assert caller.lane.in_flight == (0 if has_turn else 1)
    assert not caller.turnstile._waiters
    assert not caller.turnstile._unclaimed


async def test_what_a_step_raises_does_not_block_the_next() -> None:
    caller = Caller(turnstile(FakeClock()))

    def broken(limiter: Limiter, now: float) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        caller.turnstile.change(broken)
    (await caller.turn()).accepted(None)


def child_of(work: Callable[[], bool]) -> bool:
    """Whether `work` is true in a child process, within ten seconds."""
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


def test_after_a_fork_what_was_learned_stays_and_who_waited_is_forgotten() -> None:
    shared = turnstile(FakeClock(), 100)
    lane, flow = Lane(8), Flow[Ask]("a", "bulk")

    async def work() -> bool:
        turn = await shared.turn(flow, lane, KEY, 60, 60)
        waits = asyncio.create_task(shared.turn(flow, lane, KEY, 60, 60))
        await asyncio.sleep(0)

        def in_child() -> bool:
            if shared.waiting({lane}) or lane.in_flight or shared.statistics()[0].used != 60:
                return False
            # The parent's turn is not the child's.
            turn.give_back()
            asyncio._set_running_loop(None)

            async def go_on() -> int:
                return (await shared.turn(flow, lane, KEY, 60, 10)).tokens

            return asyncio.run(go_on()) == 40 and shared.statistics()[0].used == 100

        is_right = child_of(in_child)
        waits.cancel()
        return is_right and shared.waiting({lane}) == 1

    assert asyncio.run(work())


def test_a_fork_while_another_thread_holds_the_lock_does_not_block_the_child() -> None:
    shared = turnstile(FakeClock(), 100)
    is_held, may_go = threading.Event(), threading.Event()

    def hold(limiter: Limiter, now: float) -> None:
        is_held.set()
        may_go.wait(20)

    thread = threading.Thread(target=lambda: shared.change(hold))
    thread.start()
    is_held.wait()
    is_right = child_of(lambda: shared.known_limit(KEY) == 100 and shared.pause_left(KEY) == 0)
    may_go.set()
    thread.join()
    assert is_right


def behind(cluster: Cluster, *, most: int = 8) -> Caller:
    return Caller(Turnstile(LimiterOptions(), clock=FakeClock(), backend=cluster), most=most)


async def test_each_flow_has_one_name_of_its_own_for_whoever_deals_out_the_quota() -> None:
    cluster = Cluster()
    for _ in range(2):
        caller = behind(cluster)
        for _ in range(20):
            # The one before is gone, and its place in memory free.
            caller.flow = Flow[Ask]("group", "bulk")
            for _ in range(2):
                (await caller.turn()).give_back()
    names = [demand.flow for demand in cluster.demands]
    assert names[::2] == names[1::2]
    assert len(set(names)) == 40
    assert pickle.loads(pickle.dumps(names)) == names  # noqa: S301 - our own


ENDS: list[tuple[Callable[[Turn], object], QuotaOutcome]] = [
    (lambda turn: turn.accepted(19), QuotaOutcome("accepted", 19)),
    (lambda turn: turn.accepted(None), QuotaOutcome("accepted", 20)),
    (lambda turn: turn.failed(is_overload=True), QuotaOutcome("failed", 20)),
    (lambda turn: turn.rejected("too much", 3.0, lambda _: 99.0), QuotaOutcome("rejected", 20, "too much", 3.0)),
    (lambda turn: turn.give_back(), QuotaOutcome("unused", 0)),
]


@pytest.mark.parametrize(("end", "outcome"), ENDS)
async def test_whoever_deals_out_the_quota_is_told_once_what_became_of_each_grant(
    end: Callable[[Turn], object], outcome: QuotaOutcome
) -> None:
    cluster = Cluster()
    caller = behind(cluster)
    turn = await caller.turn(100, 7)
    assert cluster.demands == [QuotaDemand(*KEY, 100, 7, "bulk", caller.flow.name)]
    assert turn.tokens == 25
    turn.shrink(20)
    end(turn)
    assert cluster.outcomes == [(cluster.grants[0], outcome)]
    assert caller.lane.in_flight == 0
    # It decides about pauses, not the client.
    assert caller.turnstile.pause_left(KEY) == 0


async def test_the_last_acceptance_is_known_whoever_deals_out_the_quota() -> None:
    for caller in (behind(Cluster()), Caller(turnstile(FakeClock(), 100))):
        assert caller.turnstile.last_acceptance(KEY) is None
        (await caller.turn()).failed(is_overload=False)
        assert caller.turnstile.last_acceptance(KEY) is None
        (await caller.turn()).accepted(None)
        assert caller.turnstile.last_acceptance(KEY) == 1000.0
        assert caller.turnstile.last_acceptance(("model", "query")) is None


async def test_one_that_is_cancelled_before_its_grant_has_none() -> None:
    cluster = Cluster()
    cluster.may_answer.clear()
    caller = behind(cluster)
    waits = asyncio.create_task(caller.turn())
    await settle()
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    cluster.may_answer.set()
    await settle()
    assert not cluster.grants
    assert not cluster.outcomes


async def test_one_that_is_cancelled_behind_its_grant_settles_it_as_unused() -> None:
    cluster = Cluster()
    caller = behind(cluster, most=1)
    first = await caller.turn()
    waits = asyncio.create_task(caller.turn())
    await settle()
    assert len(cluster.grants) == 2
    waits.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    assert cluster.outcomes == [(cluster.grants[1], QuotaOutcome("unused", 0))]
    first.accepted(5)
    assert [outcome.kind for _, outcome in cluster.outcomes] == ["unused", "accepted"]


def test_reprs_tell_the_level() -> None:
    assert repr(turnstile(FakeClock())) == "<Turnstile <Limiter 0 waiting>>"


async def test_the_last_acceptance_is_the_latest() -> None:
    clock = FakeClock()
    caller = Caller(turnstile(clock))
    for _ in range(2):
        clock.advance(100)
        (await caller.turn()).accepted(None)
        assert caller.turnstile.last_acceptance(KEY) == clock.now


def test_one_who_waits_in_another_thread_is_woken_for_every_window() -> None:
    shared = turnstile(SystemClock(), 100, window=0.1)
    waits, goes = threading.Semaphore(0), list[int]()

    async def wait() -> None:
        caller = Caller(shared)
        async with asyncio.timeout(8):
            for number in range(3):
                turn = await caller.turn(100, 100)
                goes.append(number)
                turn.give_back()
                waits.release()
                assert await asyncio.to_thread(full.acquire, timeout=5)

    full = threading.Semaphore(0)

    async def fill() -> None:
        caller = Caller(shared)
        async with asyncio.timeout(8):
            for number in range(3):
                turn = await caller.turn(100, 100)
                if number:
                    full.release()
                else:
                    thread.start()
                # It waits for an answer, so it has no timer of its own.
                while not shared.waiting({*lanes(shared)}):  # noqa: ASYNC110 - another thread has no event
                    await asyncio.sleep(0.001)
                turn.accepted(None)
                assert await asyncio.to_thread(waits.acquire, timeout=5), "nobody woke who waits"
        full.release()

    def lanes(of: Turnstile) -> set[Lane]:
        return {waiter.ask.lane for waiters in list(of._waiters.values()) for waiter in list(waiters)}

    thread = threading.Thread(target=lambda: asyncio.run(wait()))
    try:
        asyncio.run(fill())
    finally:
        thread.join()
    assert goes == [0, 1, 2]
