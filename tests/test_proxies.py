"""Proxies that the environment names: what they are told, and what is told of them."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
import traceback
from typing import TYPE_CHECKING, Any

import pytest

from pinecone_embed_async import ConfigurationError, EmbedClient, EmbedError, RetryPolicy, TransportError
from tests.clients import QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ONCE = RetryPolicy(max_attempts=1)
USER, PASSWORD = "proxyuser", "proxysecret"


@contextlib.asynccontextmanager
async def proxy_that_says(answer: bytes | None) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A proxy that answers every CONNECT with `answer`, or never; gives its host and port, and what it was asked."""
    asked: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


def client_of(**options: Any) -> EmbedClient[Any]:
    options = {"retry": QUICK, **options}
    return EmbedClient(
        "m",
        vector_type="dense",
        api_key="the-tests-key",
        base_url="https://service.example",
        look_up_model=False,
        **options,
    )


@pytest.mark.parametrize("status", [407, 403, 502])
async def test_the_credentials_of_a_proxy_that_refuses_are_nowhere(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = f"HTTP/1.1 {status} {PASSWORD}\r\nContent-Length: 0\r\n\r\n".encode()
    async with proxy_that_says(answer) as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}:{PASSWORD}@{proxy}")
        async with client_of() as client:
            with pytest.raises(TransportError) as caught:
                await client.embed(["a", "b"])
    assert f"the proxy {proxy} answered HTTP {status}" in str(caught.value)
    assert b"Proxy-Authorization: Basic cHJveHl1c2VyOnByb3h5c2VjcmV0\r\n" in asked[0]
    error = caught.value
    for said in (str(error), repr(error), "".join(traceback.format_exception(error)), pickle.dumps(error).decode("latin-1")):
        assert USER not in said
        assert PASSWORD not in said
        assert "cHJveHl1c2Vy" not in said


@pytest.mark.parametrize("value", [f"http://{USER}:{PASSWORD}#x@proxy:3128", "http://proxy:port"])
async def test_what_is_no_proxy_is_a_configuration_error_in_every_call(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    client = client_of()
    calls = (client.embed(["a", "b"]), client.embed_one("a"), client.list_models(), client.__aenter__())
    for call in calls:
        with pytest.raises(ConfigurationError, match="HTTPS_PROXY must be an address") as caught:
            await call
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(EmbedError, match="HTTPS_PROXY"):
        async with client.stream(["a", "b"]) as batches:
            _ = [batch async for batch in batches]
    await client.aclose()


async def test_a_proxy_that_is_silent_is_waited_for_no_longer_than_for_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy_that_says(None) as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{USER}:{PASSWORD}@{proxy}")
        async with client_of(connect_timeout=0.05, retry=ONCE) as client:
            with pytest.raises(TransportError) as caught:
                await client.embed("a")
    assert str(caught.value) == (
        f"no connection within 0.05 s (connect_timeout), while connecting through the proxy {proxy}, which had not opened"
        " the tunnel to service.example:443"
    )
    assert len(asked) == 1


async def test_a_proxy_that_wants_a_password_ends_a_job_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with proxy_that_says(b"HTTP/1.1 407 no\r\nContent-Length: 0\r\n\r\n") as (proxy, asked):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        async with client_of(retry=None, max_batch_size=1) as client:
            with pytest.raises(TransportError, match="check the environment variable HTTPS_PROXY"):
                await client.embed([f"text {number}" for number in range(120)])
    assert len(asked) <= 8
