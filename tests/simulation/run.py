"""Runs a scenario: the real client on a virtual-time event loop and the simulated service, from one seed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.simulated.world import InlineExecutor, LoopClock, NeverEndsError, NothingHappensError, VirtualLoop
from pinecone_embed_async import EmbedClient, Quota, RetryPolicy, SharedQuota
from tests.simulation.actors import Actor, Call, make_call
from tests.simulation.judge import GRACE, INSTANT, KEY, Judge, Violation
from tests.simulation.neighbours import RaisingHook, Recorder, SimulatedBackend, SimulatedCache, Stalls
from tests.simulation.service import MODEL, Service

if TYPE_CHECKING:
    from tests.simulation.scenario import ClientPlan, Scenario

MOST_ITERATIONS = 200_000
"""Iterations of the loop in which any scenario ends; those that end take 1,000 to 20,000."""

LONGEST = 4000.0
"""Seconds in which any call ends once the service answers: an outage, pauses and retries all end within an hour."""


@dataclass
class Outcome:
    """The outcome of a run.

    Attributes:
        scenario: the scenario.
        violations: violated invariants.
        digest: digest of the trace and the log: runs with equal digests were the same.
        trace: a line per event.
        requests: requests sent.
        seconds: virtual time.
    """

    scenario: Scenario
    violations: list[Violation] = field(default_factory=list)
    digest: str = ""
    trace: list[str] = field(default_factory=list)
    requests: int = 0
    seconds: float = 0.0


class _Log(logging.Handler):
    """Keeps what the package logs."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def run(scenario: Scenario) -> Outcome:
    """Run a scenario to its end, and check it."""
    logger, log = logging.getLogger("pinecone_embed_async"), _Log()
    level, propagates, loop = logger.level, logger.propagate, VirtualLoop(MOST_ITERATIONS)
    service = Service(scenario.service, scenario.seed)
    judge = Judge(scenario, service)
    loop.set_exception_handler(lambda _, context: judge.found("complaint", context["message"]))
    loop.before_waiting(judge.at_rest)
    logger.addHandler(log)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    seconds = 0.0
    try:
        loop.run_until_complete(_Run(scenario, service, judge, log).carry_out(loop))
    except (NothingHappensError, NeverEndsError) as error:
        names = sorted({task.get_name() for task in asyncio.all_tasks(loop)})
        judge.found("hangs", f"{error} at {loop.time()}: {', '.join(names)}")
        _abandon(loop)
    except Exception as error:  # noqa: BLE001 - only a bug of the client can break a run
        judge.found("breaks", f"{type(error).__name__}: {error} at {loop.time()}")
        _abandon(loop)
    finally:
        seconds = loop.time()
        loop.close()
        logger.setLevel(level)
        logger.propagate = propagates
        logger.removeHandler(log)
    for bug in service.journal.bugs:
        judge.found("service breaks", bug)
    trace = service.journal.trace
    digest = hashlib.sha256("\n".join([*trace, *log.lines]).encode()).hexdigest()[:16]
    return Outcome(scenario, judge.violations, digest, trace, len(service.journal.exchanges), seconds)


def _abandon(loop: VirtualLoop) -> None:
    """Cancel the tasks of a run that hangs."""
    loop.set_exception_handler(lambda *_: None)
    for task in asyncio.all_tasks(loop):
        task.cancel()
    with contextlib.suppress(Exception):
        loop.run_until_complete(asyncio.sleep(0))


class _Run:
    def __init__(self, scenario: Scenario, service: Service, judge: Judge, log: _Log) -> None:
        self._scenario = scenario
        self._service = service
        self._judge = judge
        self._log = log
        self._kept: dict[bytes, bytes] = {}
        self._stalls = Stalls()
        self._backends: list[SimulatedBackend] = []
        self._shared: SharedQuota | None = None

    async def carry_out(self, loop: VirtualLoop) -> None:
        """Make the calls, close the clients, and check everything."""
        scenario, judge = self._scenario, self._judge
        clients = [(plan, *self._client(number, plan)) for number, plan in enumerate(scenario.clients)]
        calls = [make_call(number, plan, scenario.seed) for number, plan in enumerate(scenario.calls)]
        judge.watch(clients, calls)
        tenants = asyncio.create_task(self._service.serve_tenants(), name="tenants")
        tasks = [asyncio.create_task(self._act(call, clients), name=f"actor {call.number}") for call in calls]
        tasks += [
            asyncio.create_task(self._close(client, plan), name="closer")
            for plan, client, _ in clients
            if plan.closed_at is not None
        ]
        await self._finish(tasks)
        self._service.heal()
        self._stalls.is_over = True
        for backend in self._backends:
            backend.is_healed = True
        tenants.cancel()
        await asyncio.wait([tenants])
        for number, (plan, client, _) in enumerate(clients):
            await self._works_on(number, plan, client)
        judge.check(calls)
        for _, client, _ in clients:
            await client.aclose()
        # The client does not answer for what a neighbour keeps running.
        staying = set(self._stalls.staying)
        others = asyncio.all_tasks() - {asyncio.current_task()} - staying
        own = {*self._stalls.timers, *(timer for backend in self._backends if staying for timer in backend.timers)}
        timers = [timer for timer in loop.timers() if timer not in own]
        # Usage counts against a quota for a window, and at most a thousandth of one longer.
        await asyncio.sleep(self._window() * 1.01)
        judge.check_end(sorted(others, key=hash), timers)
        judge.check_left(self._log.lines, self._stalls)
        await self._end_stalls()
        for backend in self._backends:
            for misuse in [*backend.misuse, *(["grants were not settled"] if backend.unsettled else [])]:
                judge.found("back end", misuse)
        judge.check_silence([*self._log.lines, *self._said(calls), *(repr(client) for _, client, _ in clients)])

    async def _end_stalls(self) -> None:
        """End whatever hangs in the neighbours, and check that nothing goes on after it."""
        self._stalls.end()
        await asyncio.sleep(self._window() * 1.01)
        for task in sorted(asyncio.all_tasks() - {asyncio.current_task()}, key=hash):
            self._judge.found("left behind", f"task {task.get_name()}, after what it waited for had ended")

    def _window(self) -> float:
        quota = self._scenario.service.quota
        return max(60.0, 0.0 if quota is None else quota.window)

    def _client(self, number: int, plan: ClientPlan) -> tuple[EmbedClient[Any], Recorder]:
        rng, recorder = random.Random(f"client {self._scenario.seed} {number}"), Recorder()
        hooks: dict[str, list[Any]] = {"none": [], "listens": [recorder], "raises": [RaisingHook(), recorder]}
        cache = None
        if plan.cache != "none":
            cache = SimulatedCache(
                self._kept, plan.cache, random.Random(f"cache {self._scenario.seed} {number}"), self._stalls
            )
        client: EmbedClient[Any] = EmbedClient(
            MODEL,
            vector_type=self._scenario.service.vector_type,
            api_key=KEY,
            parameters=self._parameters(plan),
            base_url="https://simulated.invalid",
            quota=self._quota(number, plan),
            retry=RetryPolicy(
                max_attempts=plan.max_attempts,
                max_elapsed=plan.max_elapsed,
                initial_backoff=plan.initial_backoff,
                max_backoff=plan.max_backoff,
            ),
            max_concurrency=plan.max_concurrency,
            max_batch_size=plan.max_batch_size,
            attempt_timeout=plan.attempt_timeout,
            max_delay=plan.max_delay,
            decoder="msgspec",
            hooks=hooks[plan.hooks],
            cache=cache,
            look_up_model=plan.looks_up,
            transport=self._service.transport(number, knows_dimension=plan.knows_dimension),
            clock=LoopClock(),
            draw=rng.random,
            executor=InlineExecutor(),
        )
        return client, recorder

    def _parameters(self, plan: ClientPlan) -> dict[str, Any]:
        service = self._scenario.service
        return {"dimension": service.dimension} if plan.knows_dimension and service.vector_type == "dense" else {}

    def _quota(self, number: int, plan: ClientPlan) -> Any:
        given = self._given()
        if plan.quota == "none":
            return None
        if plan.quota == "given":
            return given
        rng = random.Random(f"quota {self._scenario.seed} {number}")
        if plan.quota == "backend":
            quota = SharedQuota(given, clock=LoopClock(), draw=rng.random)
            self._backends.append(SimulatedBackend(quota, plan.backend, plan.backend_fails, rng, self._stalls))
            return self._backends[-1]
        if self._shared is None:
            self._shared = SharedQuota(given, clock=LoopClock(), draw=rng.random)
        return self._shared

    def _given(self) -> Quota | None:
        """The service's quota, in the clients' form."""
        quota = self._scenario.service.quota
        if quota is None:
            return None
        return Quota(
            tokens_per_minute=quota.tokens,
            requests_per_second=quota.requests_per_second,
            requests_per_minute=quota.requests_per_window,
            window=quota.window,
        )

    async def _act(self, call: Call, clients: list[Any]) -> None:
        rng = random.Random(f"actor {self._scenario.seed} {call.number}")
        await Actor(call, clients[call.plan.client][1], self._service, rng, self._stalls).act()

    async def _close(self, client: EmbedClient[Any], plan: ClientPlan) -> None:
        await asyncio.sleep(plan.closed_at or 0.0)
        began = asyncio.get_running_loop().time()
        self._service.note("closing")
        await client.aclose()
        took = asyncio.get_running_loop().time() - began
        if took > GRACE + self._judge.patience(self._scenario.clients.index(plan)) + INSTANT:
            self._judge.found("closing", f"aclose took {took} s")

    async def _finish(self, tasks: list[asyncio.Task[None]]) -> None:
        done, pending = await asyncio.wait(tasks, timeout=LONGEST)
        for task in sorted(pending, key=hash):
            self._judge.found("hangs", f"{task.get_name()} has not ended after {LONGEST} s")
            task.cancel()
        if pending:
            await asyncio.wait(pending, timeout=LONGEST)
        for task in sorted(done, key=hash):
            if not task.cancelled() and task.exception() is not None:
                raise RuntimeError("the simulation itself is broken") from task.exception()

    async def _works_on(self, number: int, plan: ClientPlan, client: EmbedClient[Any]) -> None:
        """Check that a client can still send as many requests at a time as it may."""
        texts = [f"afterwards {place}" for place in range(plan.max_concurrency * plan.max_batch_size + 1)]
        try:
            async with asyncio.timeout(LONGEST), client:
                result = await client.embed(texts, on_error="return", input_type="passage")
        except TimeoutError:
            self._judge.found("hangs", f"client {number} is stuck")
            return
        except Exception as error:  # noqa: BLE001 - any error is a finding
            self._judge.found("works on", f"client {number} raised {type(error).__name__}: {error}")
            return
        if not result.embedded.all():
            self._judge.found(
                "works on", f"client {number} embedded {result.embedded.sum()} of {len(texts)}: {result.failures}"
            )

    @staticmethod
    def _said(calls: list[Call]) -> list[str]:
        """The reprs and messages of errors and results."""
        said = []
        for call in calls:
            outcomes = [call.outcome, *(caller.outcome for caller in call.callers), *(what for _, _, what in call.batches)]
            for outcome in outcomes:
                said += [repr(outcome), str(outcome)]
                said += [str(failure.error) for failure in getattr(outcome, "failures", ())]
        return said
