"""What calls keep, count and look up, and when they send nothing, with a function in place of the service."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from pinecone_embed_async import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedClient,
    Event,
    Failed,
    Finished,
    InputError,
    InvalidRequestError,
    MockResponse,
    MockTransport,
    ObservedCall,
    Progress,
    Quota,
    RetryPolicy,
    SparseEmbeddings,
    Started,
    TransportRequest,
)
from tests.clock import FakeClock, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence


class Kept(dict[bytes, bytes]):
    """A cache in memory; records the number of texts of each look-up, and how many run at a time."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.asked: list[int] = []
        self.running = self.most_running = 0

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self.error is not None:
            raise self.error
        self.asked.append(len(keys))
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await settle()
        self.running -= 1
        return [self.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        await settle()
        self.update(entries)


def lengths(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[len(text["text"])] for text in request.json()["inputs"]])


def client_of(answer: Callable[[TransportRequest], MockResponse] = lengths, **options: Any) -> EmbedClient[Any]:
    options = {"look_up_model": False, "vector_type": "dense", "transport": MockTransport(answer), **options}
    return EmbedClient("m", api_key="k", **options)


def sparse(request: TransportRequest) -> MockResponse:
    data = [{"vector_type": "sparse", "sparse_values": [1.0], "sparse_indices": [7]}] * len(request.json()["inputs"])
    return MockResponse(json={"model": "m", "vector_type": "sparse", "data": data, "usage": {"total_tokens": 1}})


@pytest.mark.lazy_tasks
async def test_many_inputs_are_looked_up_in_parts_of_1024_two_at_a_time() -> None:
    texts, cache, seen = ["x" * (number % 3000) for number in range(2500)], Kept(), list[Progress]()
    async with client_of(cache=cache) as client:
        await client.embed(texts)
    del cache[next(iter(cache))]
    cache.asked, transport = [], MockTransport(lengths)
    async with client_of(cache=cache, transport=transport) as client:
        result = await client.embed(texts, progress=seen.append)
        statistics = client.statistics()
    assert result.vectors.ravel().tolist() == list(map(len, texts))
    assert sum(len(request.json()["inputs"]) for request in transport.requests) == 1
    assert (statistics.cache_hits, statistics.cache_misses) == (2499, 1)
    assert sorted(cache.asked) == [452, 1024, 1024]
    assert cache.most_running == 2
    assert [progress.done for progress in seen] == [2499, 2500]


async def test_a_cache_that_cannot_work_ends_the_call() -> None:
    async with client_of(cache=Kept(ConfigurationError("no such table"))) as client:
        with pytest.raises(ConfigurationError, match="no such table"):
            await client.embed(["a", "b"])
        with pytest.raises(ConfigurationError, match="no such table"):
            await client.embed_one("a")


async def test_vectors_from_the_cache_tell_the_type_of_an_unknown_models_vectors() -> None:
    cache = Kept()
    for _ in range(2):
        transport = MockTransport(sparse)
        async with client_of(vector_type=None, cache=cache, transport=transport) as client:
            assert isinstance(await client.embed(["a"]), SparseEmbeddings)
    assert transport.requests == []


async def test_a_call_without_a_cache_counts_no_look_ups() -> None:
    async with client_of() as client:
        await client.embed("a")
        assert (client.statistics().cache_hits, client.statistics().cache_misses) == (0, 0)


@pytest.mark.parametrize("call", ["dedupe", "cache", "one", "described"])
async def test_a_call_sends_nothing_once_its_client_is_closed(call: str) -> None:
    for steps in range(40):
        transport = MockTransport(lambda request: MockResponse(503) if request.method == "GET" else lengths(request))
        cache = Kept() if call in ("cache", "one") else None
        client = client_of(transport=transport, cache=cache, look_up_model=call == "described")
        work = client.embed_one("a") if call == "one" else client.embed(["a", "b"], dedupe=call == "dedupe")
        running = asyncio.ensure_future(work)
        for _ in range(steps):
            await asyncio.sleep(0)
        await client.aclose()
        sent = len(transport.requests)
        await asyncio.wait([running])
        assert len(transport.requests) == sent
        if not sent:
            assert isinstance(running.exception(), ClosedError)


async def test_a_stream_is_not_entered_once_its_client_is_closed() -> None:
    client = client_of()
    stream = client.stream(["a"])
    await client.aclose()
    with pytest.raises(ClosedError):
        await stream.__aenter__()


async def test_twice_as_many_requests_as_may_be_in_flight_are_tried_at_a_time() -> None:
    clock = FakeClock()
    options: dict[str, Any] = {"max_concurrency": 2, "max_batch_size": 1, "draw": lambda: 1.0, "clock": clock}
    async with client_of(lambda _: MockResponse(500), **options) as client:
        call = asyncio.create_task(client.embed([str(number) for number in range(9)]))
        for _ in range(5):
            await settle()
        # All wait for another attempt.
        assert client.statistics().attempts == 4
        call.cancel()
        await asyncio.wait([call])


async def test_a_pause_that_ends_at_the_deadline_ends_the_calls_that_wait() -> None:
    rejection = MockResponse.error(429, "RESOURCE_EXHAUSTED", "no", headers={"Retry-After": "9"})
    options: dict[str, Any] = {"max_concurrency": 1, "max_batch_size": 1, "draw": lambda: 0.0, "clock": FakeClock()}
    async with client_of(lambda _: rejection, **options) as client:
        calls = [asyncio.create_task(client.embed("a", timeout=9)) for _ in range(2)]
        for _ in range(5):
            await settle()
        assert [type(call.exception()) for call in calls if call.done()] == [DeadlineExceededError] * 2


async def test_parameters_of_sixteen_kinds_are_checked_once() -> None:
    given: list[Any] = [({"input_type": f"kind {number}"}, None, None, None) for number in range(17)]
    for is_described in (False, True):
        client = client_of(look_up_model=not is_described)
        first = [client._runtime.parameters(one) for one in given]
        again = [client._runtime.parameters(one) for one in given]
        # As long as the model is not described, other checks may follow.
        expected = [is_described] * 16 + [False]
        assert [one is other for one, other in zip(first, again, strict=True)] == expected


async def test_an_input_of_a_single_call_is_input_0() -> None:
    async with client_of() as client:
        with pytest.raises(InputError) as caught:
            await client.embed_one(5)  # type: ignore[call-overload]
    assert caught.value.index == 0


async def test_single_calls_and_those_from_the_cache_are_told_to_hooks() -> None:
    events: list[Event] = []
    async with client_of(cache=Kept(), hooks=[events.append]) as client:
        for _ in range(2):
            await client.embed_one("a")
    calls = [event for event in events if isinstance(event.subject, ObservedCall)]
    started = [event.subject for event in calls if isinstance(event, Started)]
    assert [(call.inputs, call.server_address, call.server_port) for call in started if isinstance(call, ObservedCall)] == [
        (1, "api.pinecone.io", 443)
    ] * 2
    ends = [(event.embedded, event.failed, event.cached) for event in calls if isinstance(event, Finished)]
    assert ends == [(1, 0, 0), (1, 0, 1)]
    async with client_of(hooks=[events.append]) as client:
        await client.embed_one("a")
    assert isinstance(events[-1], Finished)
    assert events[-1].cached == 0


async def test_a_single_call_leaves_no_timer_once_its_vector_is_cached() -> None:
    clock, cache = FakeClock(), Kept()
    async with client_of(cache=cache, clock=clock) as client:
        await client.embed_one("a", timeout=10)
        assert len(cache) == 1
    assert clock.pending == 0


async def test_a_call_that_fails_is_told_to_hooks_with_the_inputs_that_were_not_embedded() -> None:
    events: list[Event] = []

    def answer(request: TransportRequest) -> MockResponse:
        return MockResponse(401) if request.json()["inputs"][0]["text"] == "c" else lengths(request)

    async with client_of(answer, hooks=[events.append], max_batch_size=1, max_concurrency=1) as client:
        with pytest.raises(Exception, match="401"):
            await client.embed(["a", "b", "c", "d", "e"])
    (end,) = (event for event in events if isinstance(event, Failed) and isinstance(event.subject, ObservedCall))
    assert (end.embedded, end.failed) == (2, 3)


def refuses(*refused: str) -> Callable[[TransportRequest], MockResponse]:
    def answer(request: TransportRequest) -> MockResponse:
        if request.method == "GET":
            return MockResponse(503)
        texts = [text["text"] for text in request.json()["inputs"]]
        return MockResponse(400) if {*texts} & {*refused} else lengths(request)

    return answer


async def test_one_refused_input_is_not_probed_and_one_of_two_is() -> None:
    for texts, requests in ((["bad"], 1), (["bad", "good"], 4)):
        transport = MockTransport(refuses("bad"))
        async with client_of(transport=transport) as client:
            result = await client.embed(texts, on_error="return")
            assert [list(failure.indices) for failure in result.failures] == [[0]]
            assert len(transport.requests) == requests


@pytest.mark.parametrize(("texts", "requests"), [(["bad"], 1), (["bad", "good"], 4)])
async def test_one_refused_single_call_is_not_probed_and_one_of_two_is(texts: list[str], requests: int) -> None:
    transport = MockTransport(refuses("bad"))
    async with client_of(transport=transport) as client:
        outcomes = await asyncio.gather(*map(client.embed_one, texts), return_exceptions=True)
    assert isinstance(outcomes[0], InvalidRequestError)
    assert len(transport.requests) == requests


async def test_many_equal_inputs_are_sent_once_and_each_gets_its_row() -> None:
    texts, transport = ["x" * (number % 1500) for number in range(3000)], MockTransport(lengths)
    async with client_of(transport=transport) as client:
        result = await client.embed(texts, dedupe=True)
    assert result.vectors.ravel().tolist() == list(map(len, texts))
    assert sum(len(request.json()["inputs"]) for request in transport.requests) == 1500


async def test_of_a_stream_one_refused_input_is_probed_because_others_may_follow() -> None:
    transport = MockTransport(refuses("bad"))
    async with client_of(transport=transport) as client, client.stream(["bad"], on_error="return") as batches:
        assert [len(batch.failures) async for batch in batches] == [1]
    assert len(transport.requests) == 2


async def test_what_a_stream_delivered_is_cached_although_it_is_left() -> None:
    cache = Kept()
    async with client_of(cache=cache, max_batch_size=2) as client:
        async with client.stream(["a", "b", "c", "d"]) as batches:
            for _ in range(2):
                await anext(batches)
        assert len(cache) == 4


async def test_progress_of_a_stream_tells_of_cached_inputs_and_of_items_that_are_no_texts() -> None:
    async with client_of(cache=Kept()) as client:
        await client.embed(["a", "b"])
        for items, told in ((["a", "b"], (2, 0)), ([None], (0, 1))):
            seen: list[Progress] = []
            source: Any = items
            async with client.stream(source, on_error="return", progress=seen.append) as batches:
                assert len([batch async for batch in batches]) == 1
            assert [(progress.done, progress.failed) for progress in seen] == [told]


@pytest.mark.parametrize("call", ["embed", "embed_one", "stream"])
async def test_the_model_is_described_before_the_first_call_of_any_kind(call: str) -> None:
    transport = MockTransport(refuses())
    async with client_of(transport=transport, look_up_model=True) as client:
        if call == "stream":
            async with client.stream(["a"]) as batches:
                assert len([batch async for batch in batches]) == 1
        else:
            await getattr(client, call)("a")
    assert [request.method for request in transport.requests] == ["GET", "POST"]


async def test_a_model_is_described_in_several_attempts() -> None:
    transport, policy = MockTransport(refuses()), RetryPolicy(max_attempts=3, initial_backoff=0)
    async with client_of(transport=transport, retry=policy) as client:
        with pytest.raises(Exception, match="503"):
            await client.describe_model()
    assert len(transport.requests) == 3


class RecordingLoop(asyncio.SelectorEventLoop):
    """Records what is to be called at some time."""

    def __init__(self) -> None:
        super().__init__()
        self.timers: list[Any] = []

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, **options: Any
    ) -> asyncio.TimerHandle:
        self.timers.append(callback)
        return super().call_at(when, callback, *args, **options)


def in_pieces(request: TransportRequest) -> MockResponse:
    (body,) = refuses("bad")(request).pieces() or (b"",)
    return MockResponse(400 if not body else 200, body=[*(body[at : at + 1] for at in range(300)), body[300:]])


async def slowly(texts: Sequence[str]) -> AsyncIterator[str]:
    for text in texts:
        await asyncio.sleep(0)
        yield text


def test_calls_wait_by_the_clock_of_the_client_alone() -> None:
    async def main() -> list[Any]:
        texts = [f"text {number}" for number in range(2100)]
        async with client_of(in_pieces, cache=Kept(), clock=FakeClock()) as client:
            for _ in range(2):
                assert len(await client.embed(texts, dedupe=True)) == 2100
            assert (await client.embed(["bad", "good"], on_error="return")).failures
            await client.embed_one("other")
            for source in (texts[:200], slowly(texts[:200])):
                async with client.stream(source, ordered=False) as batches:
                    assert sum([len(batch) async for batch in batches]) == 200
        async with client_of(quota=Quota(1), clock=FakeClock()) as client:
            assert (await client.embed(["too", "large"], on_error="return")).failures
        loop = asyncio.get_running_loop()
        assert isinstance(loop, RecordingLoop)
        return loop.timers

    with asyncio.Runner(loop_factory=RecordingLoop) as runner:
        assert runner.run(main()) == []
