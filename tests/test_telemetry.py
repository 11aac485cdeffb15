"""What hooks are told, against the emulator."""

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import pytest

from pinecone_embed_async import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    ErrorKind,
    Event,
    Failed,
    Finished,
    InputError,
    MockResponse,
    MockTransport,
    ObservedCall,
    ObservedRequest,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    Retried,
    RetryPolicy,
    Started,
    TransportRequest,
    Waiting,
)
from pinecone_embed_async._telemetry import HookDispatcher, dispatcher_of
from pinecone_embed_async.emulator import Emulator, FaultMix
from tests.clients import E5, QUICK
from tests.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

KEY = "pcsk_the-key-of-the-hooks"


class Generous:
    """A quota back end that grants whatever is asked for."""

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        return QuotaGrant(demand.tokens)

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        pass


class Listener(list[Event]):
    """A hook that keeps what it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def of(self, subject: object) -> list[Event]:
        return [event for event in self if event.subject is subject]

    @property
    def calls(self) -> list[ObservedCall]:
        return [event.subject for event in self if isinstance(event, Started) and isinstance(event.subject, ObservedCall)]

    @property
    def requests(self) -> list[ObservedRequest]:
        return [event.subject for event in self if isinstance(event, Started) and isinstance(event.subject, ObservedRequest)]

    def is_complete(self) -> None:
        """Every call and request has one beginning, which is first, and one end, which is last."""
        for subject in {id(event.subject): event.subject for event in self}.values():
            first, *between, last = self.of(subject)
            assert isinstance(first, Started)
            assert isinstance(last, (Finished, Failed))
            assert all(isinstance(event, (Waiting, Retried)) for event in between)


def client_of(emulator: Emulator, hook: Any, **options: Any) -> EmbedClient[DenseEmbeddings]:
    options = {"parameters": {"input_type": "passage"}, "retry": QUICK, **options}
    return EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, hooks=[hook], **options)


async def test_a_call_and_its_requests_begin_and_end(emulator: Emulator) -> None:
    hook = Listener()
    async with client_of(emulator, hook, max_batch_size=2) as client:
        result = await client.embed(["a", "b", "c"])
    hook.is_complete()
    (call,) = hook.calls
    assert (call.operation, call.model, call.inputs, call.input_type, call.dimension) == ("embed", E5, 3, "passage", 1024)
    assert f"http://{call.server_address}:{call.server_port}" == emulator.url
    assert [(request.calls, request.inputs, request.is_probe) for request in hook.requests] == [
        ((call,), 2, False),
        ((call,), 1, False),
    ]
    assert hook[0] == Started(call)
    end = hook[-1]
    assert isinstance(end, Finished)
    assert end.subject is call
    assert (end.embedded, end.failed, end.attempts, end.tokens) == (3, 0, 2, result.usage.total_tokens)
    ends = [event for event in hook if isinstance(event, Finished) and isinstance(event.subject, ObservedRequest)]
    assert sum(event.tokens for event in ends) == result.usage.total_tokens
    assert [(event.embedded, event.attempts, event.backed_off) for event in ends] == [(2, 1, 0.0), (1, 1, 0.0)]
    assert [(event.response_model, event.failed, event.cached) for event in ends] == [(E5, 0, 0), (E5, 0, 0)]
    assert 0 < ends[0].seconds <= end.seconds


async def test_an_attempt_that_failed_is_told_with_its_cause_and_the_wait(emulator: Emulator) -> None:
    hook = Listener()
    emulator.inject("status=503", times=2)
    async with client_of(emulator, hook) as client:
        await client.embed("a")
    first, second = (event for event in hook if isinstance(event, Retried))
    assert (first.attempt, first.error) == (1, ErrorKind("ServiceError", 503, "UNAVAILABLE"))
    assert second.attempt == 2
    (end,) = (event for event in hook.of(hook.requests[0]) if isinstance(event, Finished))
    assert end.attempts == 3
    assert end.backed_off == first.backoff + second.backoff > 0


async def test_waiting_for_a_request_in_flight_and_for_the_end_of_a_pause_is_told(emulator: Emulator) -> None:
    hook = Listener()
    emulator.inject("rate_limited=0.05")
    async with client_of(emulator, hook, max_concurrency=1, max_batch_size=1) as client:
        await client.embed(["a", "b"])
    hook.is_complete()
    waits = [event for event in hook if isinstance(event, Waiting)]
    # The second request waits for the first to end; it is not known before its turn, so it is the call that waits.
    assert (hook.calls[0], 0.0) in [(event.subject, event.pause) for event in waits]
    # The first, which was rejected, waits for the end of the pause.
    assert [event.subject for event in waits if event.pause > 0] == [hook.requests[0]]
    (rejected,) = (event for event in hook if isinstance(event, Retried))
    assert rejected.error.name == "RateLimitError"
    # It waits in turn, with the others.
    assert rejected.backoff == 0
    ends = {event.subject: event for event in hook if isinstance(event, Finished)}
    assert all(ends[request].waited > 0 for request in hook.requests)
    assert ends[hook.requests[0]].waited >= max(event.pause for event in waits)
    assert all(ends[request].waited <= ends[hook.calls[0]].seconds for request in hook.requests)


async def test_ends_tell_the_seconds_of_the_clients_clock_and_no_tokens_if_the_answer_names_none() -> None:
    hook, clock = Listener(), FakeClock()

    def answer(_: TransportRequest) -> MockResponse:
        clock.advance(2)
        return MockResponse(body=b'{"vector_type": "dense", "data": [{"values": [1, 2]}]}')

    options: dict[str, Any] = {"transport": MockTransport(answer), "clock": clock, "hooks": [hook], "look_up_model": False}
    async with EmbedClient("m", api_key="k", **options) as client:
        await client.embed("a")
    assert [(event.seconds, event.tokens) for event in hook if isinstance(event, Finished)] == [(2, 0), (2, 0)]


async def test_a_request_that_is_sent_at_once_does_not_wait(emulator: Emulator) -> None:
    hook = Listener()
    async with client_of(emulator, hook) as client:
        await client.embed("a")
    assert not [event for event in hook if isinstance(event, Waiting)]


async def test_nor_does_one_whose_tokens_a_quota_back_end_grants_at_once(emulator: Emulator) -> None:
    hook = Listener()
    async with client_of(emulator, hook, quota=Generous()) as client:
        await client.embed("a")
    assert len(hook.requests) == 1
    assert not [event for event in hook if isinstance(event, Waiting)]


async def test_a_failed_call_says_what_it_met_and_what_was_embedded(emulator: Emulator) -> None:
    hook = Listener()
    emulator.reject = lambda text: text == "bad"
    async with client_of(emulator, hook) as client:
        with pytest.raises(EmbedError):
            await client.embed(["a", "bad", "c"])
        hook.is_complete()
        end = hook[-1]
        assert isinstance(end, Failed)
        assert (end.embedded, end.failed) == (2, 1)
        assert end.error == ErrorKind("InvalidRequestError", 400, "INVALID_ARGUMENT")
        (probe,) = (request for request in hook.requests if request.is_probe)
        told = hook.of(probe)[-1]
        assert isinstance(told, Finished)
        assert (told.embedded, told.failed) == (0, 0)
        hook.clear()
        await client.embed(["a", "bad", "c"], on_error="return")
    end = hook[-1]
    assert isinstance(end, Finished)
    assert (end.embedded, end.failed) == (2, 1)


async def test_calls_that_share_a_request_are_told_each_and_the_request_once(emulator: Emulator) -> None:
    hook = Listener()
    async with client_of(emulator, hook) as client:
        await asyncio.gather(*(client.embed_one(f"text {number}") for number in range(5)))
    hook.is_complete()
    assert [call.operation for call in hook.calls] == ["embed_one"] * 5
    (request,) = hook.requests
    assert request.calls == tuple(hook.calls)
    assert request.inputs == 5
    ends = [event for event in hook if isinstance(event, Finished) and isinstance(event.subject, ObservedCall)]
    assert [(event.embedded, event.failed, event.cached, event.tokens) for event in ends] == [(1, 0, 0, 0)] * 5


async def test_a_stream_is_a_call_of_unknown_length(emulator: Emulator) -> None:
    hook = Listener()
    async with client_of(emulator, hook, max_batch_size=2) as client:
        async with client.stream(f"text {number}" for number in range(5)) as batches:
            async for _ in batches:
                pass
            usage = batches.usage
        hook.is_complete()
        (call,) = hook.calls
        assert (call.operation, call.inputs) == ("stream", None)
        end = hook[-1]
        assert isinstance(end, Finished)
        assert (end.embedded, end.failed, end.attempts, end.tokens) == (5, 0, 3, usage.total_tokens)
        hook.clear()
        with pytest.raises(KeyError):
            async with client.stream(["a"]):
                raise KeyError
    hook.is_complete()
    end = hook[-1]
    assert isinstance(end, Failed)
    assert end.error == ErrorKind("KeyError")


async def test_cancellation_and_deadlines_are_ends_too(emulator: Emulator) -> None:
    hook = Listener()
    emulator.hold()
    async with client_of(emulator, hook) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [lambda: client.embed("a"), lambda: client.embed_one("a")]
        for call in calls:
            task = asyncio.ensure_future(call())
            await emulator.wait_for_in_flight(1)
            task.cancel()
            await asyncio.wait([task])
            hook.is_complete()
            ends = [event for event in hook if isinstance(event, Failed)]
            assert {event.error.name for event in ends} == {"CancelledError"}
            assert [event.embedded for event in ends] == [0] * len(ends)
            hook.clear()
            await emulator.wait_until_idle()
        with pytest.raises(DeadlineExceededError):
            await client.embed("a", timeout=0.05)
        hook.is_complete()
        end = hook[-1]
        assert isinstance(end, Failed)
        assert end.error == ErrorKind("DeadlineExceededError")
        emulator.release()


async def test_what_is_refused_before_it_begins_is_not_told(emulator: Emulator) -> None:
    hook = Listener()
    async with client_of(emulator, hook) as client:
        for call in (client.embed(["a", 5]), client.embed_one(5)):  # type: ignore[list-item, arg-type]
            with pytest.raises(InputError):
                await call
    assert hook == []


async def test_a_hook_that_raises_breaks_nothing_and_is_complained_of_once(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    told = Listener()

    def broken(_: Event) -> None:
        raise KeyError("something secret")

    def cancelling(_: Event) -> None:
        raise asyncio.CancelledError

    caplog.set_level(logging.DEBUG, logger="pinecone_embed_async")
    emulator.inject("status=503")
    client = EmbedClient(
        E5,
        api_key=emulator.api_key,
        base_url=emulator.url,
        retry=QUICK,
        parameters={"input_type": "query"},
        hooks=[broken, cancelling, told],
    )
    async with client:
        await client.embed("a")
        await client.embed_one("a")
        async with client.stream(["a"]) as batches:
            assert [len(batch) async for batch in batches] == [1]
    told.is_complete()
    complaints = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert complaints == [
        "hook 0 raised KeyError at Started; its further errors are logged at level DEBUG",
        "hook 1 raised CancelledError at Started; its further errors are logged at level DEBUG",
    ]
    assert "hook 0 raised KeyError at Finished" in caplog.messages
    assert "secret" not in caplog.text


async def test_chaos_leaves_nothing_without_an_end() -> None:
    hook = Listener()
    retry = RetryPolicy(max_attempts=4, initial_backoff=0.001, max_backoff=0.002)
    async with (
        Emulator(faults=FaultMix(seed=7, rate=0.5)) as emulator,
        client_of(emulator, hook, retry=retry, max_batch_size=3) as client,
    ):
        with contextlib.suppress(EmbedError):
            await client.embed([f"text {number}" for number in range(60)])
        await asyncio.gather(*(client.embed_one(f"one {number}") for number in range(30)), return_exceptions=True)
        assert client.statistics().retries == sum(isinstance(event, Retried) for event in hook) > 0
    hook.is_complete()


async def test_events_hold_neither_key_nor_text_nor_the_services_words() -> None:
    hook = Listener()
    text = "a text that nobody must see"
    async with (
        Emulator(api_key=KEY, reject=lambda one: one == text) as emulator,
        client_of(emulator, hook, max_batch_size=1) as client,
    ):
        emulator.inject("status=503")
        with pytest.raises(EmbedError):
            await client.embed([text, "other"])
        emulator.api_key = "another"
        with pytest.raises(AuthenticationError):
            await client.embed_one(text)
    told = repr(list(hook))
    assert KEY not in told
    assert "nobody" not in told


CALL = ObservedCall("embed", E5, "localhost", 1, 1, "passage", 1024)
REQUEST = ObservedRequest((CALL,), 1, 12, is_probe=False)
KIND = ErrorKind("KeyError")


@pytest.mark.parametrize(
    ("event", "field"),
    [
        (CALL, "model"),
        (REQUEST, "inputs"),
        (KIND, "name"),
        (Started(CALL), "subject"),
        (Waiting(CALL, 0.0), "pause"),
        (Retried(REQUEST, 1, KIND, 0.0), "attempt"),
        (Finished(subject=CALL, seconds=0.0), "seconds"),
        (Failed(subject=CALL, seconds=0.0, error=KIND), "error"),
    ],
)
def test_events_cannot_be_changed(event: object, field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(event, field, getattr(event, field))


def test_the_fields_of_an_end_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        Failed(KIND, subject=CALL, seconds=0.0)  # type: ignore[arg-type,call-arg,misc]


def test_calls_and_requests_that_look_alike_are_not_equal() -> None:
    assert ObservedCall("embed", E5, "localhost", 1, 1, "passage", 1024) != CALL
    assert ObservedRequest((CALL,), 1, 12, is_probe=False) != REQUEST


def test_figures_that_an_end_leaves_out_are_zero() -> None:
    end = Finished(subject=CALL, seconds=1.0)
    assert (end.embedded, end.failed, end.cached, end.tokens, end.attempts, end.waited, end.backed_off) == (0,) * 7
    with pytest.raises(TypeError):
        Finished(CALL, 1.0)  # type: ignore[call-arg]


def test_without_hooks_there_is_nobody_to_tell(emulator: Emulator) -> None:
    assert dispatcher_of(()) is None
    client = EmbedClient(E5, api_key="k", base_url="http://localhost:1")
    assert client._runtime.options.dispatcher is None


@pytest.mark.parametrize("hooks", [print, ["not callable"], [lambda _: None, 7], None])
def test_what_is_no_hook_is_refused(hooks: Any) -> None:
    with pytest.raises(ConfigurationError, match="hook"):
        EmbedClient(E5, api_key="k", hooks=hooks)


async def _coroutine(_: Event) -> None: ...


class _CoroutineObject:
    async def __call__(self, _: Event) -> None: ...


@pytest.mark.parametrize("hook", [_coroutine, _CoroutineObject()])
def test_a_coroutine_function_is_refused_for_nobody_would_await_it(hook: Any) -> None:
    with pytest.raises(ConfigurationError, match="coroutine"):
        EmbedClient(E5, api_key="k", hooks=[hook])


def test_a_dispatcher_says_how_many_it_tells() -> None:
    assert repr(HookDispatcher((print,))) == "<HookDispatcher of 1 hooks>"
