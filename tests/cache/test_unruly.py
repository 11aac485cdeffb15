"""Caches that are cancelled by others, never return, or return invalid values."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import anyio
import numpy as np
import pytest

from pinecone_embed_async import ClosedError, DeadlineExceededError, DenseEmbeddings, EmbedClient
from pinecone_embed_async._cache import CacheStage
from pinecone_embed_async._cache.stage import WRITE_PAUSE_SECONDS, WRITE_SECONDS
from pinecone_embed_async._cache.values import encode_dense
from pinecone_embed_async._foreign import PATIENCE_SECONDS
from pinecone_embed_async.emulator import Emulator
from tests.clients import QUICK, dense_client
from tests.clock import FakeClock, settle

TEXTS = [f"document {number}" for number in range(20)]
OPTIONS: dict[str, Any] = {"retry": QUICK, "parameters": {"input_type": "passage"}, "max_batch_size": 5}


async def cancelled_by_another() -> None:
    """Await a task that something else has cancelled."""
    task = asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    task.cancel()
    await task


async def for_ever() -> None:
    await asyncio.Event().wait()


class Stubborn:
    """Keeps waiting when cancelled, until it is released."""

    def __init__(self) -> None:
        self._released = asyncio.Event()

    async def __call__(self) -> None:
        while not self._released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self._released.wait()

    async def release(self) -> None:
        self._released.set()
        await settle()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "the cache"]


async def at_once() -> None:
    pass


Doing = Callable[[], Awaitable[None]]


class Unruly:
    """A cache in memory that misbehaves first."""

    def __init__(self, getting: Doing = at_once, putting: Doing = at_once) -> None:
        self.getting = getting
        self.putting = putting
        self.values: dict[bytes, Any] = {}
        self.puts = 0

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[Any]:
        await self.getting()
        return [self.values.get(key) for key in keys]

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        self.puts += 1
        await self.putting()
        self.values.update(entries)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def embedded_by_stream(client: EmbedClient[Any], texts: list[str]) -> int:
    async with client.stream(texts) as batches:
        return sum([int(batch.embeddings.embedded.sum()) async for batch in batches])


async def test_a_cache_left_behind_is_not_blamed_on_the_source(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    stubborn, clock = Stubborn(), FakeClock()

    async def source() -> AsyncIterator[str]:
        for text in TEXTS:
            yield text

    async def streamed(client: EmbedClient[Any]) -> None:
        async with client.stream(source(), timeout=1) as batches:
            async for _ in batches:
                pass

    async with dense_client(emulator, cache=Unruly(getting=stubborn), clock=clock, **OPTIONS) as client, asyncio.timeout(10):
        call = asyncio.create_task(streamed(client))
        while not call.done():
            await settle()
            clock.advance(PATIENCE_SECONDS / 4)
        with pytest.raises(DeadlineExceededError):
            await call
        await stubborn.release()
    (warning,) = [one for one in warnings(caplog) if "left running" in one]
    assert "the cache" in warning


@pytest.mark.parametrize("spoilt", ["getting", "putting"])
async def test_a_cancellation_within_the_cache_is_a_failed_cache(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    cache = Unruly(**{spoilt: cancelled_by_another})
    async with dense_client(emulator, cache=cache, **OPTIONS) as client, asyncio.timeout(10):
        result = await client.embed(TEXTS)
        assert result.embedded.all()
        assert await embedded_by_stream(client, TEXTS) == len(TEXTS)
        assert (await client.embed_one(TEXTS[0])).shape == (1024,)
    (warning,) = warnings(caplog)
    assert "cancelled, but not by its caller" in warning


class UntoldError(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise KeyError("detail")


async def failing_untold() -> None:
    raise UntoldError


@pytest.mark.parametrize("spoilt", ["getting", "putting"])
async def test_an_error_that_cannot_be_shown_is_a_failed_cache(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, spoilt: str
) -> None:
    cache = Unruly(**{spoilt: failing_untold})
    async with dense_client(emulator, cache=cache, **OPTIONS) as client:
        assert (await client.embed(TEXTS)).embedded.all()
        assert (await client.embed_one("a")).shape == (1024,)
    (warning,) = warnings(caplog)
    assert "the cache (UntoldError); " in warning


Around = Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]]


async def in_a_timeout(work: Coroutine[Any, Any, Any]) -> Any:
    async with asyncio.timeout(20):
        return await work


async def in_a_scope_of_anyio(work: Coroutine[Any, Any, Any]) -> Any:
    with anyio.move_on_after(20):
        return await work


async def while_a_cancellation_is_handled(work: Coroutine[Any, Any, Any]) -> Any:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        return await work


AROUND = [in_a_timeout, in_a_scope_of_anyio, while_a_cancellation_is_handled]


@pytest.mark.parametrize("around", AROUND)
async def test_it_is_distinguished_from_the_callers_cancellation_in_any_scope(emulator: Emulator, around: Around) -> None:
    cache = Unruly(cancelled_by_another, cancelled_by_another)
    async with dense_client(emulator, cache=cache, **OPTIONS) as client:
        for make in (lambda: client.embed(TEXTS), lambda: client.embed_one(TEXTS[0])):
            call: asyncio.Task[Any] = asyncio.create_task(around(make()))
            await asyncio.wait([call], timeout=10)
            assert call.result() is not None


@pytest.mark.parametrize("around", AROUND[:2])
async def test_the_callers_own_cancellation_passes_through_unchanged(emulator: Emulator, around: Around) -> None:
    cache = Unruly(for_ever)
    async with dense_client(emulator, cache=cache, **OPTIONS) as client:
        for make in (lambda: client.embed(TEXTS), lambda: client.embed_one(TEXTS[0])):
            call: asyncio.Task[Any] = asyncio.create_task(around(make()))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert emulator.statistics().requests == 0


async def test_a_cancellation_requested_before_the_call_is_the_callers(emulator: Emulator) -> None:
    async with dense_client(emulator, cache=Unruly(cancelled_by_another), **OPTIONS) as client:

        async def cancelled_first() -> None:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await client.embed_one(TEXTS[0])

        call = asyncio.create_task(cancelled_first())
        await asyncio.wait([call])
        assert call.cancelled()
    assert emulator.statistics().requests == 0


@pytest.mark.parametrize("is_stubborn", [False, True])
async def test_a_deadline_holds_while_a_write_never_returns(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, is_stubborn: bool
) -> None:
    stubborn = Stubborn()
    async with dense_client(emulator, cache=Unruly(putting=stubborn if is_stubborn else for_ever), **OPTIONS) as client:
        loop = asyncio.get_running_loop()
        began = loop.time()
        result = await client.embed(TEXTS, timeout=0.5)
        assert result.embedded.all()
        await client.embed_one("another", timeout=0.5)
        assert loop.time() - began < 1.0 + 2 * PATIENCE_SECONDS + 0.5
    messages = warnings(caplog)
    assert sum("could not write" in one for one in messages) == 1
    assert all("could not write" in one or (is_stubborn and "left running" in one) for one in messages)
    await stubborn.release()


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - it is about what the emulator answers meanwhile
            await asyncio.sleep(0.005)


async def clients_time(clock: FakeClock, call: asyncio.Task[Any], seconds: float) -> None:
    """Advance a client's clock in steps until a call has ended."""
    async with asyncio.timeout(20):
        end = clock.now + seconds
        while not call.done() and clock.now < end:
            await asyncio.sleep(0.005)
            clock.advance(0.25)
        await settle()


async def test_a_write_has_its_own_time_limit_and_then_a_pause(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    clock, cache = FakeClock(), Unruly(putting=for_ever)
    async with dense_client(emulator, cache=cache, clock=clock, **OPTIONS) as client:
        first = asyncio.create_task(client.embed(TEXTS))
        await reached(lambda: cache.puts == 4)
        clock.advance(WRITE_SECONDS)
        assert (await first).embedded.all()
        assert (await client.embed(TEXTS)).embedded.all()
        assert cache.puts == 4
        clock.advance(WRITE_PAUSE_SECONDS)
        cache.putting = at_once
        assert (await client.embed(TEXTS)).embedded.all()
        assert len(cache.values) == len(TEXTS)
    (warning,) = warnings(caplog)
    assert "took too long" in warning
    assert clock.pending == 0


@pytest.mark.parametrize(
    ("is_cancelled", "puts", "cause"), [(False, 0, "no time is left"), (True, 1, "the call was cancelled")]
)
async def test_a_write_that_is_not_begun_or_not_finished_is_reported(
    caplog: pytest.LogCaptureFixture, puts: int, cause: str, *, is_cancelled: bool
) -> None:
    clock, cache = FakeClock(), Unruly(putting=for_ever)
    stage = CacheStage(cache, address="a", api_version="2026-07", model="m", clock=clock)
    writing = asyncio.create_task(stage.write({b"key": b"value"}, None if is_cancelled else clock.now))
    await settle()
    assert writing.done() != is_cancelled
    writing.cancel()
    await asyncio.wait([writing])
    assert cache.puts == puts
    (warning,) = warnings(caplog)
    assert warning == (
        f"could not write vectors to the cache ({cause}); the service is asked instead when they are needed again"
    )


async def test_closing_ends_calls_that_a_cache_blocks(emulator: Emulator) -> None:
    clock, cache = FakeClock(), Unruly(for_ever, for_ever)
    async with dense_client(emulator, cache=cache, clock=clock, **OPTIONS) as client:
        works = (client.embed(TEXTS), client.embed_one("a"), embedded_by_stream(client, TEXTS))
        calls: list[asyncio.Task[Any]] = [asyncio.create_task(work) for work in works]
        await settle()
        await client.aclose()
        for call in calls:
            with pytest.raises(ClosedError):
                await call
    async with dense_client(emulator, cache=Unruly(putting=for_ever), clock=clock, **OPTIONS) as client:
        kept = asyncio.create_task(client.embed(TEXTS))
        await reached(lambda: client.statistics().answers == 4)
        closing = asyncio.create_task(client.aclose())
        await clients_time(clock, closing, 6)
        assert closing.done()
        assert (await kept).embedded.all()


async def test_a_look_up_that_swallows_its_cancellation_is_left_behind(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    for is_single in (False, True):
        clock, stubborn = FakeClock(), Stubborn()
        async with dense_client(emulator, cache=Unruly(stubborn), clock=clock, **OPTIONS) as client:
            made: Any = client.embed_one("a", timeout=1) if is_single else client.embed(TEXTS, timeout=1)
            call = asyncio.create_task(made)
            await settle()
            await clients_time(clock, call, 1 + PATIENCE_SECONDS)
            with pytest.raises(DeadlineExceededError):
                await call
            assert any("left running" in one for one in warnings(caplog))
            caplog.clear()
            # Until it ends, the cache is not used again, so no more are left behind.
            assert (await client.embed_one("b")).shape == (1024,)
            assert (await client.embed(TEXTS)).embedded.all()
            await stubborn.release()
        assert any("has not ended" in one for one in warnings(caplog))


async def test_a_caller_that_leaves_a_shared_look_up_does_not_disturb_the_others(emulator: Emulator) -> None:
    gate = asyncio.Event()

    async def opened() -> None:
        await gate.wait()

    cache = Unruly(at_once)
    async with dense_client(emulator, cache=cache, **OPTIONS) as client:
        await client.embed(["a", "b"])
        requests = emulator.statistics().requests
        cache.getting = opened
        first, second = [asyncio.create_task(client.embed_one(text)) for text in ("a", "b")]
        await settle()
        first.cancel()
        await settle()
        gate.set()
        assert (await second).shape == (1024,)
        assert first.cancelled()
        assert emulator.statistics().requests == requests


async def test_a_caller_after_the_last_one_left_gets_a_new_look_up(emulator: Emulator) -> None:
    async with dense_client(emulator, cache=Unruly(at_once), **OPTIONS) as client:
        await client.embed(["a", "b"])
        requests = emulator.statistics().requests
        # As in search while typing: each call is cancelled in the loop iteration in which the next starts.
        first = asyncio.create_task(client.embed_one("a"))
        await asyncio.sleep(0)
        first.cancel()
        second = asyncio.create_task(client.embed_one("b"))
        assert (await second).shape == (1024,)
        assert first.cancelled()
        assert emulator.statistics().requests == requests


class Broken(Sequence[Any]):
    """An answer that cannot be read."""

    def __init__(self, count: int, broken: str) -> None:
        self._size = count
        self._broken = broken

    def __len__(self) -> int:
        if self._broken == "length":
            raise OSError("no length")
        return self._size

    def __getitem__(self, index: Any) -> Any:
        raise OSError("no value")


@pytest.mark.parametrize("broken", ["length", "values"])
async def test_an_answer_that_cannot_be_read_is_a_failed_cache(
    emulator: Emulator, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Unruly):
        async def get_many(self, keys: Sequence[bytes]) -> Any:
            return Broken(len(keys), broken)

    async with dense_client(emulator, cache=Odd(), **OPTIONS) as client:
        assert (await client.embed(TEXTS)).embedded.all()
        assert (await client.embed_one("a")).shape == (1024,)
        assert await embedded_by_stream(client, TEXTS) == len(TEXTS)
    (warning,) = warnings(caplog)
    assert "OSError: no" in warning


async def test_a_stream_left_early_caches_its_answers(emulator: Emulator) -> None:
    async def a_while() -> None:
        await asyncio.sleep(0.05)

    cache = Unruly(putting=a_while)
    async with dense_client(emulator, cache=cache, **OPTIONS) as client:
        assert await embedded_by_stream(client, TEXTS) == len(TEXTS)
    assert len(cache.values) == len(TEXTS)


class Lying(Unruly):
    """A cache that returns something else than what it stored."""

    def __init__(self, spoil: Callable[[bytes], Any]) -> None:
        super().__init__()
        self.spoil = spoil

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[Any]:
        return [None if value is None else self.spoil(value) for value in await super().get_many(keys)]


def vector_of(value: bytes) -> np.ndarray:
    return np.frombuffer(value[8:], np.float32).copy()


def with_nan(value: bytes) -> bytes:
    vector = vector_of(value)
    vector[3] = np.nan
    return encode_dense(vector[None])[0]


@pytest.mark.parametrize("spoil", [bytearray, memoryview, lambda value: np.frombuffer(value, np.uint8), np.bytes_])
async def test_bytes_like_values_are_used(emulator: Emulator, spoil: Callable[[bytes], Any]) -> None:
    async with dense_client(emulator, cache=Lying(spoil), **OPTIONS) as client:
        first = await client.embed(TEXTS)
        requests = emulator.statistics().requests
        np.testing.assert_array_equal((await client.embed(TEXTS)).vectors, first.vectors)
        np.testing.assert_array_equal(await client.embed_one(TEXTS[0]), first[0])
        assert await embedded_by_stream(client, TEXTS) == len(TEXTS)
        assert emulator.statistics().requests == requests


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda value: value.hex(), "not bytes"),
        (lambda _: 5, "not bytes"),
        (lambda value: [*value], "not bytes"),
        (lambda value: np.frombuffer(value, np.uint8).astype(object), "not bytes"),
        (lambda value: value[:-1], "are damaged"),
        (lambda _: b"", "are damaged"),
        (with_nan, "not finite"),
        (lambda _: encode_dense(np.full((1, 1024), -np.inf, np.float32))[0], "not finite"),
        (lambda value: encode_dense(vector_of(value)[None, :7])[0], "another dimension"),
    ],
)
async def test_any_other_value_is_a_miss_with_one_warning(
    emulator: Emulator, spoil: Callable[[bytes], Any], cause: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with dense_client(emulator, cache=Lying(spoil), **OPTIONS) as client:
        first: DenseEmbeddings = await client.embed(TEXTS)
        again = await client.embed(TEXTS)
        np.testing.assert_array_equal(again.vectors, first.vectors)
        np.testing.assert_array_equal(await client.embed_one(TEXTS[0]), first[0])
        assert await embedded_by_stream(client, TEXTS) == len(TEXTS)
        assert client.statistics().cache_hits == 0
    (warning,) = warnings(caplog)
    assert cause in warning


@pytest.mark.parametrize("given", [None, 5, "as text", b"as bytes", {"a": 1}, (value for value in [None])])
async def test_an_answer_that_is_not_a_sequence_is_a_failed_cache(
    emulator: Emulator, given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class Odd(Unruly):
        async def get_many(self, keys: Sequence[bytes]) -> Any:
            return given

    async with dense_client(emulator, cache=Odd(), **OPTIONS) as client:
        assert (await client.embed(TEXTS)).embedded.all()
        assert (await client.embed_one("a")).shape == (1024,)
    (warning,) = warnings(caplog)
    assert "get_many must return a sequence" in warning


async def test_methods_that_are_not_asynchronous_are_a_failed_cache(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    class Synchronous:
        def get_many(self, keys: Sequence[bytes]) -> list[None]:
            return [None] * len(keys)

        def put_many(self, entries: Mapping[bytes, bytes]) -> None:
            pass

    async with dense_client(emulator, cache=Synchronous(), **OPTIONS) as client:
        assert (await client.embed(TEXTS)).embedded.all()
    assert len(warnings(caplog)) == 2
