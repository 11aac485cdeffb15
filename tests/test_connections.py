"""How a client comes by its connections, and what it does when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver

from pinecone_embed_async import EmbedClient, RetryPolicy, TransportError
from tests.service import Service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONCE = RetryPolicy(max_attempts=1)


def client_of(base_url: str, **options: Any) -> EmbedClient[Any]:
    return EmbedClient("m", vector_type="dense", api_key="the-tests-key", base_url=base_url, look_up_model=False, **options)


class SilentResolver(AbstractResolver):
    """Never knows an address."""

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> Any:
        return await asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        pass


@contextlib.asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """A server that takes connections and says nothing; gives its host and port."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_name_that_is_looked_up_for_too_long_is_told_so() -> None:
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


async def test_a_server_that_does_not_speak_tls_is_waited_for_no_longer_than_for_a_connection() -> None:
    async with silent_server() as address, client_of(f"https://{address}", connect_timeout=0.05, retry=ONCE) as client:
        with pytest.raises(TransportError, match=f"while connecting to {address}, TLS included"):
            await client.embed("a")


async def test_waiting_for_a_place_in_a_callers_pool_is_not_connecting() -> None:
    async with (
        Service() as service,
        silent_server() as silent,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session,
        client_of(service.url, session=session, connect_timeout=0.05, retry=ONCE) as client,
    ):
        # Has the only place.
        other = asyncio.create_task(session.get(f"http://{silent}"))
        await asyncio.sleep(0)
        call = asyncio.create_task(client.embed("a"))
        done, _ = await asyncio.wait([call], timeout=0.2)
        assert not done
        other.cancel()
        assert len(await call) == 1
