"""Opening, closing, other loops, other processes."""

import asyncio
import contextvars
import gc
import pickle
import weakref

import aiohttp
import pytest

from pinecone_embed_async import (
    ClosedError,
    ConfigurationError,
    DenseEmbeddings,
    EmbedClient,
    MockResponse,
    MockTransport,
    Quota,
    RetryPolicy,
    SharedQuota,
)
from pinecone_embed_async.emulator import Emulator
from tests.clients import dense_client
from tests.clock import settle
from tests.processes import run_with_client
from tests.wire.reading import NEEDS_NATIVE

ONCE = """
async def once():
    return (await client.embed("a", input_type="query")).vectors.shape
"""


async def test_a_client_works_in_a_second_run_without_being_closed(emulator: Emulator) -> None:
    assert await run_with_client(emulator, ONCE + "for _ in range(3): print(asyncio.run(once()))") == "(1, 1024)\n" * 3


async def test_a_client_works_in_a_forked_child_and_still_in_its_parent(emulator: Emulator) -> None:
    code = """
async def main():
    print(await once(), flush=True)
asyncio.run(main())
child = os.fork()
if child == 0:
    asyncio.run(main())
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
asyncio.run(main())
"""
    assert await run_with_client(emulator, ONCE + code) == "(1, 1024)\n" * 3


async def test_a_client_that_is_dropped_unclosed_says_nothing(emulator: Emulator) -> None:
    code = """
import gc
async def main():
    global client
    print(await once())
    del client
    gc.collect()
    await asyncio.sleep(0.01)
asyncio.run(main())
"""
    assert await run_with_client(emulator, ONCE + code) == "(1, 1024)\n"


async def test_a_client_that_is_dropped_does_not_wait_for_the_garbage_builder(emulator: Emulator) -> None:
    client = EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url)
    await client.embed("a", input_type="query")
    client_is_there = weakref.ref(client)
    gc.disable()
    try:
        del client
        assert client_is_there() is None
    finally:
        gc.enable()


async def test_a_closed_client_refuses_calls_until_it_is_entered_again(client: EmbedClient[DenseEmbeddings]) -> None:
    await client.aclose()
    await client.aclose()
    with pytest.raises(ClosedError, match="open it again"):
        await client.embed("a", input_type="query")
    with pytest.raises(ClosedError):
        await client.list_models()
    async with client:
        assert len(await client.embed("a", input_type="query")) == 1


async def test_connections_are_reused(emulator: Emulator) -> None:
    made = 0

    async def count(*_: object) -> None:
        nonlocal made
        made += 1

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(count)
    async with (
        aiohttp.ClientSession(trace_configs=[trace]) as session,
        EmbedClient(
            "multilingual-e5-large",
            api_key=emulator.api_key,
            base_url=emulator.url,
            session=session,
            max_concurrency=2,
            max_batch_size=1,
        ) as client,
    ):
        await client.embed(["a"] * 20, input_type="query")
    assert 1 <= made <= 2


async def test_a_callers_session_must_be_open_and_of_this_loop(emulator: Emulator) -> None:
    session = aiohttp.ClientSession()
    await session.close()
    client = EmbedClient("m", api_key="k", base_url=emulator.url, session=session)
    with pytest.raises(ConfigurationError, match="closed"):
        await client.embed("a")


@pytest.mark.parametrize("model_call", ["embed", "embed_one"])
async def test_a_callers_session_that_is_closed_is_named_by_requests_in_flight_and_by_those_that_wait_for_a_permit(
    emulator: Emulator, model_call: str
) -> None:
    async with aiohttp.ClientSession() as session:
        client = EmbedClient(
            "multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url, session=session, max_concurrency=1
        )
        emulator.hold()
        calls = [asyncio.create_task(getattr(client, model_call)("a", input_type=kind)) for kind in ("query", "passage")]
        await emulator.wait_for_in_flight(1)
        await session.close()
        for call in calls:
            with pytest.raises(ConfigurationError, match="the session passed to the client must be open, but is closed"):
                await call
        emulator.release()


async def test_two_loops_in_two_threads_share_a_client(emulator: Emulator, client: EmbedClient[DenseEmbeddings]) -> None:
    def other() -> int:
        return len(asyncio.run(client.embed(["a"] * 3, input_type="query")))

    assert await asyncio.to_thread(other) == 3
    assert len(await client.embed("a", input_type="query")) == 1
    gc.collect()


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_requests_that_the_garbage_builder_closes_leave_no_permit_behind(status: int) -> None:
    shared = SharedQuota(Quota(1000))
    reached = asyncio.Event()

    async def answer(_: object) -> MockResponse:
        if len(transport.requests) == 2:
            reached.set()
        if status != 200:
            return MockResponse.error(status, "UNAVAILABLE", "later")
        await asyncio.Event().wait()
        raise AssertionError

    async def begin(client: EmbedClient[DenseEmbeddings]) -> None:
        one = asyncio.create_task(client.embed_one("one", input_type="query"))
        many = asyncio.create_task(client.embed(["a"] * 5, input_type="query"))
        await reached.wait()
        await settle()
        assert not one.done()
        assert not many.done()
        assert client.statistics().in_flight == (2 if status == 200 else 0)

    transport = MockTransport(answer)
    running = begin(
        EmbedClient(
            "multilingual-e5-large",
            api_key="any",
            transport=transport,
            quota=shared,
            max_concurrency=2,
            max_batch_size=1,
            retry=RetryPolicy(initial_backoff=60, max_backoff=60),
            draw=lambda: 1.0,
        )
    )
    loop = asyncio.new_event_loop()
    loop.run_until_complete(running)
    for task in asyncio.all_tasks(loop):
        # Without a word of asyncio's that they were pending.
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    requests = weakref.WeakSet(asyncio.all_tasks(loop))
    assert len(requests) >= 4
    loop.close()
    del loop, task, running
    # Whoever waits in a loop that is closed is forgotten with the next step of any other client's.
    shared.gate.change(lambda limiter, now: limiter.dispatch(now))
    gc.collect()
    assert not requests
    assert not shared.gate._limiter._open
    assert not shared.gate._loops

    async def others() -> int:
        transport = MockTransport(lambda request: MockResponse.embeddings([[1.0] * 1024 for _ in request.json()["inputs"]]))
        async with (
            asyncio.timeout(10),
            EmbedClient("multilingual-e5-large", api_key="any", transport=transport, quota=shared) as other,
        ):
            return len(await other.embed(["b"] * 50, input_type="query"))

    assert asyncio.run(others()) == 50


def test_a_client_cannot_be_pickled_and_shows_no_key() -> None:
    client = EmbedClient("m", api_key="pcsk_1")
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(client)
    assert "pcsk" not in repr(client)


def test_a_client_without_a_key_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="PINECONE_API_KEY"):
        EmbedClient("m")


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "k")
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", "http://elsewhere.example")
    with pytest.raises(ConfigurationError, match="plain HTTP"):
        EmbedClient("m")


@pytest.mark.parametrize("decoder", ["msgspec", pytest.param("native", marks=NEEDS_NATIVE)])
async def test_calls_leave_nothing_to_the_garbage_collector(emulator: Emulator, decoder: str) -> None:
    texts = [str(number) for number in range(200)]
    async with dense_client(emulator, decoder=decoder, parameters={"input_type": "passage"}) as client:

        async def use() -> None:
            await client.embed(texts)
            await client.embed([*texts, *texts], dedupe=True)
            await client.embed_one("a")
            async with client.stream(texts) as batches:
                async for _ in batches:
                    pass

        await use()
        gc.collect()
        gc.disable()
        try:
            await use()
            left = gc.collect()
        finally:
            gc.enable()
    # A result in a cycle would keep its vectors until the collector runs, which may take long.
    assert left == 0


async def test_a_call_leaves_nothing_in_the_context_of_its_caller(client: EmbedClient[DenseEmbeddings]) -> None:
    before = dict(contextvars.copy_context())
    await client.list_models()
    await client.embed("a", input_type="query")
    assert dict(contextvars.copy_context()) == before
