"""The state that the calls of a client share, and its opening and closing."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from pinecone_embed_async import _models
from pinecone_embed_async._calls.scheduler import Scheduler
from pinecone_embed_async._calls.single_calls import SingleCalls
from pinecone_embed_async._errors import ClosedError, NotFoundError
from pinecone_embed_async._foreign import ForeignCode
from pinecone_embed_async._inputs import iter_texts
from pinecone_embed_async._options import call_options, check_parameters
from pinecone_embed_async._planning import Learned, RequestPlanner, estimate_cost
from pinecone_embed_async._sending import Discovery, Engine, Sender, get_body
from pinecone_embed_async._statistics import Progress, ProgressBar, Statistics
from pinecone_embed_async._structs import SilentStruct
from pinecone_embed_async._telemetry import CallObservation, ObservedCall
from pinecone_embed_async._wire import decode_model, decode_models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from typing import Any

    from pinecone_embed_async._cache import CallCache, Found
    from pinecone_embed_async._calls.batches import StreamBatches
    from pinecone_embed_async._calls.result_builder import ResultBuilder
    from pinecone_embed_async._calls.scheduler import ProgressReporter
    from pinecone_embed_async._errors import DeadlineExceededError
    from pinecone_embed_async._inputs import Input
    from pinecone_embed_async._options import CallOptions, ClientOptions, Parameters
    from pinecone_embed_async._planning import Estimate, PendingInputs
    from pinecone_embed_async._sending import Callers
    from pinecone_embed_async._telemetry import ObservableCall, Operation
    from pinecone_embed_async._wire import ModelInfo

MOST_REMEMBERED = 16
"""Maximum number of combinations of parameters whose validation is cached; programs use few."""

_PLAIN = {str, int, type(None)}


class Runtime:
    """The state that the calls of a client share.

    Args:
        options: the client's options.

    Attributes:
        options: the client's options.
        engine: sends the requests.
        sources: awaits asynchronous sources; lives as long as the client, because it keeps the tasks of abandoned sources.
        learned: request limits learned from answers.
        discovery: the service's description of the model.
    """

    def __init__(self, options: ClientOptions) -> None:
        clock = options.clock
        self.options = options
        self.engine = Engine(options)
        self.sources = ForeignCode("the source", clock)
        self.learned = Learned()
        self.discovery = Discovery(is_wanted=options.should_look_up_model, clock=clock)
        self._is_closed = False
        self._usual: dict[tuple[Any, ...], Parameters] = {}
        # What `aclose` ends, with its event loop: schedulers, and scopes that wait for foreign code before there is one.
        self._at_work: dict[Scheduler | asyncio.Timeout, asyncio.AbstractEventLoop] = {}
        self._single_calls: dict[tuple[int, asyncio.AbstractEventLoop], SingleCalls] = {}

    def __repr__(self) -> str:
        state = ", closed" if self._is_closed else ""
        return f"{self.options.model!r}, {self.engine.network.in_flight} in flight{state}"

    def __del__(self) -> None:
        # There is no engine if the constructor failed.
        engine = getattr(self, "engine", None)
        if engine is not None:
            engine.network.abandon()

    # Opening and closing.

    async def open(self) -> None:
        """Allow calls, also after a close, and open the connections."""
        self._is_closed = False
        await self.engine.network.open()

    def check_open(self) -> None:
        """Raise an error if the client is closed.

        Raises:
            ClosedError: the client is closed.
        """
        if self._is_closed:
            raise ClosedError("the client is closed; open it again with `async with`")

    async def aclose(self) -> None:
        """End the running calls of this event loop, and close its connections."""
        self._is_closed = True
        loop = asyncio.get_running_loop()
        # A copy, because other threads may add to it meanwhile.
        closing = [work for work, place in self._at_work.copy().items() if place is loop]
        schedulers = [work for work in closing if isinstance(work, Scheduler)]
        single_calls = self._single_calls.get((os.getpid(), loop))
        for work in closing:
            if isinstance(work, Scheduler):
                work.stop(ClosedError("the client was closed before all inputs were embedded"))
            elif not work.expired():
                work.reschedule(0)
        try:
            if single_calls is not None:
                await single_calls.stop(ClosedError("the client was closed before the text was embedded"))
            for scheduler in schedulers:
                await scheduler.drained()
        finally:
            # Even if waiting for the calls is cancelled.
            await self.engine.network.aclose()

    @contextlib.asynccontextmanager
    async def interruptible(self, deadline: float | None) -> AsyncIterator[asyncio.Timeout]:
        """A scope for awaiting foreign code until the deadline, or until the client is closed.

        Raises:
            TimeoutError: the deadline passed, or the client was closed.
        """
        async with self.options.clock.timeout_at(deadline) as scope:
            with self.registered(scope):
                yield scope

    def registered(self, work: Scheduler | asyncio.Timeout) -> contextlib.AbstractContextManager[None]:
        """Make `aclose` end the work while the block runs."""
        return _Registered(self._at_work, work)

    def single_calls(self) -> SingleCalls:
        """The single calls of the running event loop and process, which cannot use the tasks of another one."""
        place = os.getpid(), asyncio.get_running_loop()
        single_calls = self._single_calls.get(place)
        if single_calls is None:
            for other in self._single_calls.copy():
                if other[1].is_closed():
                    self._single_calls.pop(other, None)
            single_calls = self._single_calls[place] = SingleCalls(
                clock=self.options.clock,
                max_delay=self.options.max_delay,
                hold_at=self.options.max_concurrency,
            )
        return single_calls

    # The options of a call.

    def check(self, given: _models.Given, **others: object) -> CallOptions:
        """Validate the options of a call that starts now.

        Raises:
            ClosedError: the client is closed.
            ConfigurationError: an option is invalid.
        """
        self.check_open()
        return call_options(self.parameters(given), self.options.clock.time(), **others)

    def parameters(self, given: _models.Given) -> Parameters:
        """Validate the parameters of a call.

        Raises:
            ConfigurationError: the parameters are invalid.
        """
        usual, (values, *short) = self._usual, given
        named = {} if values is None else values
        key: tuple[Any, ...] | None = None
        # Only types whose equal values are encoded equally, which True and 1 are not.
        if type(named) is dict and _PLAIN.issuperset(map(type, (*named, *named.values(), *short))):
            key = (*named.items(), *short)
            if key in usual:
                return usual[key]
        is_final = self.discovery.is_done
        known = self.discovery.model or _models.KNOWN_MODELS.get(self.options.model)
        checked = check_parameters(self.options, known, self.learned, given, is_final=is_final)
        if key is not None and is_final and len(usual) < MOST_REMEMBERED:
            usual[key] = checked
        return checked

    async def describe(self, options: CallOptions) -> None:
        """Fetch the service's description of the model, once per client, and adapt a call's options to it.

        Raises:
            ClosedError: the client was closed meanwhile.
            ConfigurationError: the described model does not accept the parameters.
        """
        if self.discovery.is_done:
            return
        # If the call's deadline has passed, the scheduler reports it.
        with contextlib.suppress(TimeoutError):
            async with self.options.clock.timeout_at(options.deadline):
                await self.discovery.ask(self)
        self.check_open()
        if self.discovery.model is not None:
            self.engine.learn_vector_type(self.discovery.model.vector_type)
        options.parameters = self.parameters((options.parameters.values, None, None, None))

    def estimate(self, inputs: Input | Iterable[Input], given: _models.Given, *, dedupe: bool) -> Estimate:
        """See `EmbedClient.estimate`."""
        parameters = self.parameters(given)
        limits = msgspec.structs.replace(parameters.limits.known, bytes_per_token=self.learned.estimator.expected)
        input_type = parameters.values.get("input_type")
        return estimate_cost(iter_texts(inputs), limits, self.engine.vector_type, input_type, dedupe=dedupe)

    # The requests and cache entries of a call.

    def decode(self, cache: CallCache, values: Sequence[Any], dimension: int | None) -> Found:
        """Decode cached values, and learn the vector type from them if it is unknown."""
        found = cache.stage.decode(values, self.engine.vector_type, dimension)
        self.engine.learn_vector_type(found.vector_type)
        return found

    def scheduler(
        self,
        pending: PendingInputs,
        options: CallOptions,
        callers: Callers,
        deadline: float | None,
        *,
        is_single: bool = False,
        progress: ProgressReporter | None = None,
        max_under_way: int | None = None,
    ) -> Scheduler:
        """The scheduler of a call's requests.

        Args:
            pending: the inputs to send.
            options: options of the call.
            callers: the calls that the requests are sent for.
            deadline: clock time at which the requests end; `None` for no deadline.
            is_single: whether there is a single input.
            progress: reports the progress, if the options ask for it.
            max_under_way: maximum number of requests under way.
        """
        parameters, clock = options.parameters, self.options.clock
        planner = RequestPlanner(pending, self.learned, parameters.encoded, clock, is_single)
        sender = Sender(self.engine, parameters.values, deadline, options.priority, callers)
        most = max_under_way or 2 * self.options.max_concurrency
        if options.progress is None:
            progress = None
        return Scheduler(planner, sender, clock, most, deadline, progress, parameters.cache)

    def observing(
        self, call: ObservableCall, operation: Operation, parameters: Parameters, inputs: int | None
    ) -> contextlib.AbstractContextManager[object]:
        """Report a call to the hooks, if there are any, while the block runs."""
        options = self.options
        if options.dispatcher is None:
            return _NO_CONTEXT
        input_type = parameters.values.get("input_type")
        call.subject = ObservedCall(
            operation,
            options.model,
            server_address=options.base_url.host or "",
            server_port=options.base_url.port or 0,
            inputs=inputs,
            input_type=input_type if isinstance(input_type, str) else None,
            dimension=parameters.dimension,
        )
        return CallObservation(options.dispatcher, options.clock, call.subject, call)

    # The service's models, and the client's counts.

    async def list_models(self) -> list[ModelInfo]:
        """See `EmbedClient.list_models`."""
        self.check_open()
        return decode_models(await get_body(self.engine, "models", {"type": "embed"}))

    async def describe_model(self, name: str | None = None, *, is_tried_once: bool = False) -> ModelInfo:
        """See `EmbedClient.describe_model`; without retries if `is_tried_once`."""
        self.check_open()
        name = self.options.model if name is None else name
        try:
            body = await get_body(self.engine, f"models/{quote(name, safe='')}", {}, is_tried_once=is_tried_once)
        except NotFoundError as error:
            error.suggest(_models.nearest_known(name))
            raise
        return decode_model(body)

    def statistics(self) -> Statistics:
        """See `EmbedClient.statistics`."""
        engine, cache = self.engine, self.options.cache
        quotas = self.options.gate.statistics()
        return Statistics(
            **msgspec.structs.asdict(engine.counters),
            in_flight=engine.network.in_flight,
            concurrency=engine.network.concurrency,
            waiting=engine.gate.waiting(engine.network.concurrencies),
            quotas=quotas,
            waited=sum(quota.waited for quota in quotas),
            bytes_per_token=self.learned.estimator.expected,
            decoder=engine.network.decoder.name,
            cache_hits=0 if cache is None else cache.hits,
            cache_misses=0 if cache is None else cache.misses,
            retry_budget=engine.budget.tokens,
        )


_NO_CONTEXT = contextlib.nullcontext()


class _Registered(SilentStruct):
    """Registers work while its block runs. A class, because a generator would take twice as long."""

    at_work: dict[Scheduler | asyncio.Timeout, asyncio.AbstractEventLoop]
    work: Scheduler | asyncio.Timeout

    def __enter__(self) -> None:
        self.at_work[self.work] = asyncio.get_running_loop()

    def __exit__(self, *_: object) -> None:
        del self.at_work[self.work]


class CallObserver(SilentStruct):
    """Reports the progress of a call to its caller, and its totals to the hooks; as `Callers`, it stands for this one call.

    Attributes:
        results: what the call has embedded so far.
        total: number of inputs of the call; `None` if unknown.
        subject: the call as hooks see it; `None` without hooks.
    """

    _runtime: Runtime
    _options: CallOptions
    results: ResultBuilder | StreamBatches
    total: int | None
    subject: ObservedCall | None = None

    def showing(self) -> contextlib.AbstractAsyncContextManager[object]:
        """Show the progress bar while the block runs, if the caller asked for one."""
        bar = self._options.progress
        return bar.shown(self.total) if isinstance(bar, ProgressBar) else _NO_CONTEXT

    def report(self) -> None:
        """Call `progress`, if the caller passed one."""
        results, usage, retries = self.results, self.results.usage, self._runtime.engine.counters.retries
        counts = results.embedded_count, results.failed_count, self.total, usage.requests, usage.total_tokens, retries
        if self._options.progress is not None:
            self._options.progress(Progress(*counts))

    @property
    def calls(self) -> tuple[ObservedCall, ...]:
        """This call only; empty without hooks."""
        return () if self.subject is None else (self.subject,)

    @property
    def next_deadline(self) -> float | None:
        """The deadline of the call, by the clock; `None` if it has none."""
        return self._options.deadline

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """See `Callers.waiting`: nothing to do."""
        return _NO_CONTEXT

    def dismiss_late(self, until: float, error: DeadlineExceededError) -> bool:  # noqa: ARG002 - as `Callers` has it
        """Whether the deadline of the call is not after `until`; there is nobody else to settle."""
        return self._options.deadline is not None and self._options.deadline <= until

    def totals(self, is_well: bool) -> dict[str, int]:  # noqa: ARG002, FBT001 - as `ObservableCall` has it
        """The totals reported to the hooks."""
        embedded = self.results.embedded_count
        return {
            "embedded": embedded,
            "failed": self.results.failed_count if self.total is None else self.total - embedded,
            "tokens": self.results.usage.total_tokens,
            "cached": self.results.cached_count,
            "attempts": self.results.usage.requests,
        }
