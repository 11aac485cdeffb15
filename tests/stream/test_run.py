import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pinecone_embed_async import AuthenticationError, ClosedError, DeadlineExceededError, EmbedError, ServiceError
from pinecone_embed_async._clock import Clock
from pinecone_embed_async._limits import Turn
from pinecone_embed_async._plan import Account, Learned, Ledger, PlannedRequest, RequestLimits, Requests
from pinecone_embed_async._retry import RetryState
from pinecone_embed_async._stream import GRACE_SECONDS, Run
from tests.clock import FakeClock, settle
from tests.turns import turns

WRONG_KEY = AuthenticationError("who?", status=401)


class Outcomes:
    def __init__(self, count: int) -> None:
        self.account = Account(count)

    def embedded(self, request: PlannedRequest) -> None:
        self.account.embedded(request.start, request.stop)

    def failed(self, request: PlannedRequest, error: EmbedError) -> None:
        self.account.failed(request.start, request.stop, error)

    def __str__(self) -> str:
        """A letter for each input: embedded, failed, or not tried."""
        failed = {index for failure in self.account.failures() for index in failure.indices}
        mask = self.account.embedded_mask()
        return "".join("e" if done else "f" if index in failed else "." for index, done in enumerate(mask))


class Service:
    """Sends for a run; a test says when each request is answered and with what."""

    def __init__(self) -> None:
        self.sent: dict[int, tuple[RetryState, asyncio.Future[EmbedError | None]]] = {}
        self.cancelled: list[int] = []

    async def send(
        self, request: PlannedRequest, retry: RetryState, turn: Turn, cut: Callable[[int], PlannedRequest]
    ) -> EmbedError | None:
        answer: asyncio.Future[EmbedError | None] = asyncio.get_running_loop().create_future()
        self.sent[request.start] = retry, answer
        try:
            return await answer
        except asyncio.CancelledError:
            self.cancelled.append(request.start)
            raise

    def put_on_the_wire(self, *starts: int) -> None:
        for start in starts:
            self.sent[start][0].sent(0)

    def answer(self, start: int, error: EmbedError | None = None) -> None:
        retry, answer = self.sent[start]
        retry.in_flight = False
        answer.set_result(error)

    @property
    def waiting(self) -> list[int]:
        return [start for start, (_, answer) in self.sent.items() if not answer.done()]


def run_of(
    count: int, service: Service, clock: Clock, *, settled: Callable[[], None] = lambda: None, **options: Any
) -> tuple[Run, Ledger, Outcomes]:
    requests = Requests(map(str, range(count)), lambda: RequestLimits(inputs=1, sequence_length=8))
    outcomes = Outcomes(count)
    ledger = Ledger(
        requests,
        outcomes,
        limits=lambda: RequestLimits(inputs=1, sequence_length=8),
        learned=Learned(),
        parameters=b"",
        is_single=False,
    )
    options = {"window": 3, "deadline": None, **options}
    return Run(ledger, turns(clock), service.send, clock=clock, settled=settled, **options), ledger, outcomes


async def finish(run: Run) -> None:
    async with run.running():
        pass


async def test_no_more_are_under_way_than_the_window_and_the_next_follows_at_once() -> None:
    service = Service()
    run, _, outcomes = run_of(5, service, FakeClock())
    running = asyncio.create_task(finish(run))
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


async def test_an_error_of_the_job_leaves_what_is_in_flight_time_and_cancels_the_rest() -> None:
    clock, service = FakeClock(), Service()
    run, ledger, outcomes = run_of(9, service, clock, window=4)
    running = asyncio.create_task(finish(run))
    await settle()
    service.put_on_the_wire(0, 1, 3)
    service.answer(3, WRONG_KEY)
    await settle()
    # 2 waited for a permit; 0 and 1 are on the wire.
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
    assert ledger.job_error is WRONG_KEY
    assert clock.pending == 0


async def test_what_was_tried_before_the_job_ended_fails_with_what_it_met() -> None:
    service = Service()
    run, _, outcomes = run_of(3, service, FakeClock())
    running = asyncio.create_task(finish(run))
    await settle()
    backing_off = service.sent[1][0]
    backing_off.sent(0)
    overloaded = ServiceError("overloaded", status=503)
    backing_off.failed(overloaded)
    backing_off.in_flight = False
    service.put_on_the_wire(0)
    service.answer(0, WRONG_KEY)
    await running
    assert [failure.error for failure in outcomes.account.failures()] == [WRONG_KEY, overloaded]
    assert str(outcomes) == "ff."


async def test_the_deadline_cancels_everything_and_says_what_was_met_before() -> None:
    clock, service = FakeClock(), Service()
    run, ledger, outcomes = run_of(9, service, clock, deadline=clock.time() + 10)
    running = asyncio.create_task(finish(run))
    await settle()
    service.put_on_the_wire(0, 1)
    service.sent[1][0].failed(ServiceError("overloaded", status=503))
    clock.advance(10)
    await running
    assert str(outcomes) == "ff......."
    assert sorted(service.cancelled) == [0, 1, 2]
    assert isinstance(ledger.job_error, DeadlineExceededError)
    first, second = (failure.error for failure in outcomes.account.failures())
    assert isinstance(first, DeadlineExceededError)
    assert "the last attempt met ServiceError: 503: overloaded" in str(second)
    assert clock.pending == 0


async def test_a_deadline_that_has_passed_sends_nothing() -> None:
    clock, service = FakeClock(), Service()
    run, ledger, _ = run_of(9, service, clock, deadline=clock.time())
    await finish(run)
    assert not service.sent
    assert isinstance(ledger.job_error, DeadlineExceededError)


async def test_the_grace_period_does_not_reach_over_the_deadline() -> None:
    clock, service = FakeClock(), Service()
    run, ledger, _ = run_of(2, service, clock, deadline=clock.time() + 1)
    running = asyncio.create_task(finish(run))
    await settle()
    service.put_on_the_wire(0, 1)
    service.answer(0, WRONG_KEY)
    await settle()
    clock.advance(1)
    await running
    assert ledger.job_error is WRONG_KEY


async def test_rows_that_are_in_place_are_kept_when_the_deadline_comes_in_that_turn() -> None:
    clock, service = FakeClock(), Service()
    run, _, outcomes = run_of(2, service, clock, deadline=clock.time() + 1)
    running = asyncio.create_task(finish(run))
    await settle()
    service.put_on_the_wire(0, 1)
    service.sent[0][0].is_settled = True
    clock.advance(1)
    service.answer(0)
    await running
    assert str(outcomes) == "ef"


async def test_stopping_ends_the_run_and_drained_waits_for_what_is_in_flight() -> None:
    clock, service = FakeClock(), Service()
    run, ledger, outcomes = run_of(9, service, clock)
    running = asyncio.create_task(finish(run))
    await settle()
    service.put_on_the_wire(1)
    closed = ClosedError("closed")
    run.stop(closed)
    drained = asyncio.create_task(run.drained())
    await settle()
    assert not drained.done()
    service.answer(1)
    await drained
    await running
    assert ledger.job_error is closed
    assert str(outcomes) == ".e......."
    assert clock.pending == 0


async def test_what_settled_raises_is_kept_and_the_rest_cancelled() -> None:
    def broken() -> None:
        raise KeyError("mine")

    service = Service()
    run, _, _ = run_of(3, service, FakeClock(), settled=broken)
    running = asyncio.create_task(finish(run))
    await settle()
    service.answer(0)
    await running
    assert isinstance(run.error, KeyError)
    assert sorted(service.cancelled) == [1, 2]


async def test_cancelling_cancels_all_and_leaves_no_timer() -> None:
    clock, service = FakeClock(), Service()
    run, _, _ = run_of(9, service, clock, deadline=clock.time() + 1)
    running = asyncio.create_task(finish(run))
    await settle()
    running.cancel("mine")
    with pytest.raises(asyncio.CancelledError, match="mine"):
        await running
    assert sorted(service.cancelled) == [0, 1, 2]
    assert clock.pending == 0
