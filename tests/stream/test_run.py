import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    InputError,
    ServiceError,
)
from pinecone_embed_async._clock import Clock
from pinecone_embed_async._limits import Ask, Flow, Lane, LimiterOptions, Turn, Turnstile
from pinecone_embed_async._plan import Learned, Ledger, PlannedRequest, RequestLimits, Requests
from pinecone_embed_async._retry import RetryState
from pinecone_embed_async._stream import GRACE_SECONDS, Run
from tests.clock import FakeClock, settle
from tests.outcomes import Outcomes
from tests.turns import turns

WRONG_KEY = AuthenticationError("who?", status=401)


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


async def test_what_settled_raises_ends_the_job_and_what_is_in_flight_has_time() -> None:
    told: list[int] = []

    def broken() -> None:
        told.append(1)
        raise KeyError("mine")

    clock, service = FakeClock(), Service()
    run, ledger, outcomes = run_of(9, service, clock, settled=broken)
    running = asyncio.create_task(finish(run))
    await settle()
    service.put_on_the_wire(0, 1)
    service.answer(0)
    await settle()
    assert service.cancelled == [2]
    service.answer(1)
    await running
    assert isinstance(run.error, EmbedError)
    assert isinstance(run.error.__cause__, KeyError)
    assert ledger.job_error is run.error
    assert str(outcomes) == "ee......."
    assert told == [1]
    assert clock.pending == 0


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


class Paced:
    """A run whose requests hold four inputs of two tokens each, under a quota."""

    def __init__(
        self,
        count: int,
        tokens: int,
        *,
        refuse: Callable[[PlannedRequest], EmbedError | None] = lambda _: None,
        lane: Lane | None = None,
        least: int = 2,
    ) -> None:
        self.clock = FakeClock()
        self.turnstile = Turnstile(LimiterOptions(lambda _: tokens), clock=self.clock)
        self.lane = lane or Lane(8)
        self.flow = Flow[Ask]("all", "bulk")
        self.refuse = refuse
        self.least = least
        self.sent: list[tuple[int, int, int]] = []
        self.told = 0
        self.limits = RequestLimits(inputs=4, sequence_length=8)
        self.outcomes = Outcomes(count)
        self.ledger = Ledger(
            Requests(map(str, range(count)), lambda: self.limits),
            self.outcomes,
            limits=lambda: self.limits,
            learned=Learned(),
            parameters=b"",
            is_single=False,
        )
        self.run = Run(
            self.ledger, self.turn_for, self.send, window=3, clock=self.clock, deadline=None, settled=self.settled
        )

    def settled(self) -> None:
        self.told += 1

    async def turn_for(self, request: PlannedRequest) -> Turn:
        error = self.refuse(request)
        if error is not None:
            raise error
        return await self.turnstile.turn(self.flow, self.lane, ("m", ""), request.tokens, self.least)

    async def send(
        self, request: PlannedRequest, retry: RetryState, turn: Turn, cut: Callable[[int], PlannedRequest]
    ) -> EmbedError | None:
        self.sent.append((request.start, request.stop, turn.tokens))
        turn.accepted(None)
        return None

    async def finish(self) -> None:
        running = asyncio.create_task(finish(self.run))
        await settle()
        while not running.done():
            assert self.clock.pending, "nothing would ever happen"
            self.clock.advance(60)
            await settle()
        await running

    @property
    def used(self) -> int:
        return sum(quota.used for quota in self.turnstile.statistics())


async def test_a_request_is_cut_to_its_turn_and_the_rest_comes_next_in_order() -> None:
    paced = Paced(10, tokens=13)
    await paced.finish()
    assert paced.sent == [(0, 4, 8), (4, 6, 4), (6, 10, 8)]
    assert str(paced.outcomes) == 10 * "e"


async def test_a_first_input_with_more_tokens_than_the_turn_goes_alone() -> None:
    paced = Paced(3, tokens=1, least=1)
    await paced.finish()
    assert paced.sent == [(0, 1, 2), (1, 2, 2), (2, 3, 2)]


async def test_a_first_input_that_turns_out_to_have_more_tokens_than_its_turn_waits_for_another() -> None:
    def learn(request: PlannedRequest) -> None:
        paced.least = paced.ledger.least_tokens(request)
        paced.limits = paced.limits._replace(bytes_per_token=0.5)

    paced = Paced(2, tokens=5, refuse=learn)
    (await paced.turnstile.turn(paced.flow, paced.lane, ("m", ""), 2, 2)).accepted(None)
    running = asyncio.create_task(finish(paced.run))
    await settle()
    assert not paced.sent, "3 tokens are free, and a text has 4 by now"
    paced.clock.advance(60)
    await running
    assert paced.used <= 5
    assert str(paced.outcomes) == "ee"


def too_large(*indices: int) -> Callable[[PlannedRequest], EmbedError | None]:
    return lambda request: InputError("too large", index=request.start) if request.start in indices else None


async def test_an_input_that_can_have_no_turn_fails_and_the_others_are_embedded() -> None:
    paced = Paced(10, tokens=100, refuse=too_large(0, 1, 5))
    await paced.finish()
    assert str(paced.outcomes) == "ffeeeeeeee", "5 was never the first of a request"
    errors = [failure.error for failure in paced.outcomes.account.failures()]
    assert [error.index for error in errors if isinstance(error, InputError)] == [0, 1]
    assert paced.told == 2 + len(paced.sent), "both are settled as well"


async def test_many_inputs_that_can_have_no_turn_do_not_keep_the_loop() -> None:
    paced = Paced(500, tokens=100, refuse=too_large(*range(500)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    await finish(paced.run)
    counting.cancel()
    assert turns >= 500
    assert str(paced.outcomes) == 500 * "f"


async def test_what_settled_raises_for_an_input_without_a_turn_ends_the_run() -> None:
    paced = Paced(10, tokens=100, refuse=too_large(0))
    paced.run._settled = lambda: 1 / 0  # type: ignore[assignment]
    await finish(paced.run)
    assert isinstance(paced.run.error, EmbedError)
    assert isinstance(paced.run.error.__cause__, ZeroDivisionError)


async def test_no_turn_at_all_ends_the_job() -> None:
    broken = ConfigurationError("no quota")
    paced = Paced(10, tokens=100, refuse=lambda request: broken if request.start else None)
    await paced.finish()
    assert paced.ledger.job_error is broken
    assert str(paced.outcomes) == "eeeeffff.."


async def test_a_turn_for_which_nothing_is_left_is_given_back() -> None:
    lane = Lane(1)
    paced = Paced(10, tokens=100, lane=lane)
    lane.in_flight = 1
    running = asyncio.create_task(finish(paced.run))
    await settle()
    while (request := paced.ledger.take()) is not None:
        paced.ledger.embedded(request)
    lane.in_flight = 0
    paced.turnstile.change(lambda limiter, now: limiter.dispatch(now))
    await running
    assert not paced.sent
    assert lane.in_flight == 0
    assert paced.used == 0


@pytest.mark.parametrize("has_turn", [False, True])
async def test_whoever_is_cancelled_while_it_waits_for_its_turn_leaves_nothing(has_turn: bool) -> None:
    lane = Lane(1)
    paced = Paced(10, tokens=100, lane=lane)
    lane.in_flight = 1
    running = asyncio.create_task(finish(paced.run))
    await settle()
    if has_turn:
        lane.in_flight = 0
        paced.turnstile.change(lambda limiter, now: limiter.dispatch(now))
    paced.run.cancel()
    await running
    assert not paced.sent
    assert paced.turnstile.waiting({lane}) == 0
    assert lane.in_flight == (0 if has_turn else 1)
    assert paced.used == 0
    assert paced.clock.pending == 0


async def test_what_another_attempt_cuts_off_is_sent_at_once() -> None:
    paced = Paced(4, tokens=100)
    send, cuts = paced.send, 0

    async def cutting(
        request: PlannedRequest, retry: RetryState, turn: Turn, cut: Callable[[int], PlannedRequest]
    ) -> EmbedError | None:
        nonlocal cuts
        if not cuts:
            cuts += 1
            request = cut(4)
            turn.shrink(request.tokens)
        return await send(request, retry, turn, cut)

    paced.run._send = cutting
    await paced.finish()
    assert paced.sent == [(0, 2, 4), (2, 4, 4)]
    assert str(paced.outcomes) == "eeee"


async def test_what_another_attempt_cuts_off_does_not_wait_for_the_first_part() -> None:
    paced, second = Paced(4, tokens=100), asyncio.Event()
    send, cuts = paced.send, 0

    async def cutting(
        request: PlannedRequest, retry: RetryState, turn: Turn, cut: Callable[[int], PlannedRequest]
    ) -> EmbedError | None:
        nonlocal cuts
        cuts += 1
        if cuts > 1:
            second.set()
            return await send(request, retry, turn, cut)
        request = cut(4)
        turn.shrink(request.tokens)
        async with asyncio.timeout(20):
            await second.wait()
        return await send(request, retry, turn, cut)

    paced.run._send = cutting
    await paced.finish()
    assert str(paced.outcomes) == "eeee"
