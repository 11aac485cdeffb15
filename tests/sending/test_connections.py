"""How a client connects, and what it does when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import struct
import weakref
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver
from yarl import URL

from pinecone_embed_async import EmbedClient, MockResponse, RetryPolicy, TransportError
from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._sending import AiohttpTransport, TransportRequest
from tests.clients import QUICK
from tests.clock import FakeClock
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONCE = RetryPolicy(max_attempts=1)


def client_of(base_url: str, **options: Any) -> EmbedClient[Any]:
    return EmbedClient("m", vector_type="dense", api_key="the-tests-key", base_url=base_url, look_up_model=False, **options)


class SilentResolver(AbstractResolver):
    """Never resolves an address."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        return await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """A server that accepts connections and stays silent; yields its host and port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_slow_dns_look_up_is_named_in_the_error() -> None:
    connector = aiohttp.TCPConnector(resolver=SilentResolver())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        client_of("https://service.example", session=session, connect_timeout=0.05, retry=ONCE) as client,
    ):
        with pytest.raises(TransportError) as caught:
            await client.embed("a")
    assert str(caught.value) == (
        "no connection within 0.05 s (connect_timeout), while looking up the address of service.example (DNS)"
    )


async def test_the_connect_timeout_covers_a_server_without_tls() -> None:
    async with silent_server() as address, client_of(f"https://{address}", connect_timeout=0.05, retry=ONCE) as client:
        with pytest.raises(TransportError, match=f"while connecting to {address}, including TLS"):
            await client.embed("a")


async def test_the_connect_timeout_runs_on_the_clients_clock() -> None:
    clock = FakeClock()
    options: dict[str, Any] = {"connect_timeout": 30, "attempt_timeout": 60, "retry": ONCE, "clock": clock}
    async with silent_server() as address, client_of(f"https://{address}", **options) as client:
        call = asyncio.create_task(client.embed(["a"]))
        while clock.pending < 2:  # noqa: ASYNC110 - a connection that has begun can set no event
            await asyncio.sleep(0.001)
        clock.advance(31)
        with pytest.raises(TransportError, match=r"no connection within 30 s \(connect_timeout\)"):
            await call


async def test_waiting_for_a_place_in_a_callers_pool_does_not_count_as_connecting() -> None:
    async with (
        Service() as service,
        silent_server() as silent,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
        client_of(service.url, session=session, connect_timeout=0.05, retry=ONCE) as client,
    ):
        # Takes the only place.
        other = asyncio.create_task(session.get(f"http://{silent}"))
        await asyncio.sleep(0)
        call = asyncio.create_task(client.embed("a"))
        done, _ = await asyncio.wait([call], timeout=0.2)
        assert not done
        other.cancel()
        assert len(await call) == 1


class NoAddress(AbstractResolver):
    """Resolves no host."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        self.asked += 1
        raise OSError(socket.EAI_NONAME, "Name or service not known")

    async def close(self) -> None:
        pass


async def test_a_host_that_does_not_exist_is_tried_for_ten_seconds() -> None:
    clock = FakeClock()
    connector = aiohttp.TCPConnector(resolver=NoAddress())
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        client_of("https://service.example", session=session, clock=clock, max_batch_size=1, draw=lambda: 1.0) as client,
    ):
        call = asyncio.create_task(client.embed([f"text {number}" for number in range(120)], on_error="return"))
        began = clock.time()
        while not call.done():
            await asyncio.sleep(0.005)
            if clock.pending:
                clock.advance(0.25)
        result = await call
    assert clock.time() - began <= 10
    # Those made, at 0, 0.5, 1.5, 3.5 and 7.5 seconds.
    assert client.statistics().attempts <= 16 * 5
    error = result.failures[0].error
    assert "the host's address was not found; check base_url, the proxy and DNS" in str(error)


@contextlib.asynccontextmanager
async def server_that_drops_idle_connections(together: int) -> AsyncIterator[tuple[str, list[int]]]:
    """Answers the first request on each connection, and resets it on a second; yields the requests of each.

    The first `together` are answered once all of them are there.
    """
    connections: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(connections)
        connections.append(0)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            for _ in range(2):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]))
                connections[number] += 1
                if connections[number] == 2:
                    raw = writer.get_extra_info("socket")
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
                (body,) = MockResponse.embeddings([[1.0]]).pieces()
                if number < together:
                    # So that each request has its own connection.
                    await everybody.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
            await reader.read()
        writer.close()

    everybody = asyncio.Barrier(together)
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections


@pytest.mark.parametrize("is_lent", [False, True], ids=["own", "lent"])
async def test_idle_connections_that_the_service_has_closed_cost_no_backoff_and_no_concurrency(
    is_lent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    class Clock(SystemClock):
        async def sleep(self, delay: float) -> None:
            slept.append(delay)

    monkeypatch.setattr("pinecone_embed_async._sending.aiohttp_transport.IDLE_SECONDS", 0.05)
    texts = [f"text {number}" for number in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        url, connections = await stack.enter_async_context(server_that_drops_idle_connections(4))
        session = await stack.enter_async_context(aiohttp.ClientSession()) if is_lent else None
        client = await stack.enter_async_context(client_of(url, session=session, max_batch_size=1, clock=Clock()))
        await client.embed(texts)
        assert connections == [1] * 4
        concurrency = client.statistics().concurrency
        await asyncio.sleep(0.1)
        assert len(await client.embed(texts)) == 4
        statistics = client.statistics()
        # Each was sent on the connection that had been idle, then on a new one.
        assert connections == [2] * 4 + [1] * 4
    assert (statistics.attempts, statistics.retries) == (12, 4)
    assert statistics.concurrency >= concurrency
    assert statistics.retry_budget == 100
    assert slept == []


async def test_after_an_idle_connection_was_reset_the_others_are_closed_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinecone_embed_async._sending.aiohttp_transport.IDLE_SECONDS", 0.05)
    async with (
        server_that_drops_idle_connections(2) as (url, connections),
        client_of(url, max_batch_size=1, retry=QUICK) as client,
    ):
        await client.embed(["a", "b"])
        await asyncio.sleep(0.1)
        assert len(await client.embed("c")) == 1
        assert sorted(connections) == [1, 1, 2]


async def test_an_idle_connection_keeps_no_request_in_memory() -> None:
    async with Service() as service:
        url = URL(service.url)
        transport = AiohttpTransport(url, max_connections=1, connect_timeout=5, session=None)
        await transport.open()
        exchange = transport.send(TransportRequest("GET", url, {}))
        async with exchange:
            while await exchange.read():
                pass
        request, response = weakref.ref(exchange), weakref.ref(exchange.response)
        del exchange
        gc.collect()
        assert (request(), response()) == (None, None)
        await transport.aclose()


async def test_a_connection_used_by_somebody_else_has_not_been_idle_but_after_another_client_it_has() -> None:
    async with Service() as service, aiohttp.ClientSession() as session:
        url = URL(service.url)
        transport, other = (AiohttpTransport(url, max_connections=1, connect_timeout=5, session=session) for _ in range(2))

        async def idle(transport: AiohttpTransport = transport) -> float:
            async with transport.send(TransportRequest("GET", url, {})) as exchange:
                while await exchange.read():
                    pass
            # The clock of uvloop counts whole milliseconds.
            await asyncio.sleep(0.002)
            assert exchange.connecting.idle is not None
            return exchange.connecting.idle

        assert await idle() == 0
        assert await idle() > 0
        async with session.get(url) as response:
            await response.read()
        assert await idle() == 0
        assert await idle() > 0
        assert await idle(other) > 0
        await other.aclose()
        await transport.aclose()


async def test_a_reset_of_a_recently_used_connection_is_an_ordinary_failure() -> None:
    async with server_that_drops_idle_connections(1) as (url, connections), client_of(url, retry=QUICK) as client:
        await client.embed("text")
        assert len(await client.embed("text")) == 1
        assert connections == [2, 1]
        assert client.statistics().retries == 1
        # One was lost and one came back; the one before was full.
        assert client.statistics().concurrency < 8
