"""Nothing that leaves the client holds the key or the texts, whatever the other side does."""

import asyncio
import logging
import pickle
import ssl
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pinecone_embed_async import ApiError, EmbedClient, EmbedError, RetryPolicy, TransportError
from tests.certificates import self_signed
from tests.service import Service

KEY = "pcsk_secret_key_of_the_test"
TEXT = "a private sentence that must not be seen anywhere"
ONCE = RetryPolicy(max_attempts=1)


def client_of(url: str, **options: Any) -> EmbedClient[Any]:
    return EmbedClient("m", vector_type="dense", api_key=KEY, base_url=url, retry=ONCE, look_up_model=False, **options)


def everything_said(error: EmbedError, caplog: pytest.LogCaptureFixture) -> Iterator[str]:
    yield str(error)
    yield repr(error)
    yield repr(error.failures)
    yield repr(error.partial)
    yield pickle.dumps(error).decode("latin-1")
    yield "".join(traceback.format_exception(error))
    yield caplog.text
    seen: BaseException | None = error
    while seen is not None:
        yield repr(seen) + repr(seen.args)
        seen = seen.__cause__ or seen.__context__


async def raw_server(answer: bytes) -> tuple[asyncio.Server, str]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage " + KEY.encode() + b" " + TEXT.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n" + TEXT.encode(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(TEXT) + 1).encode() + b"\r\n\r\n" + TEXT.encode() + b"\xff",
        b"HTTP/1.1 500 no\r\nContent-Length: " + str(len(TEXT)).encode() + b"\r\n\r\n" + TEXT.encode(),
        b"HTTP/1.1 400 no\r\nConnection: close\r\n\r\n"
        b'{"status":400,"error":{"code":"INVALID_ARGUMENT","message":"bad '
        + TEXT.encode()
        + b" for key "
        + KEY.encode()
        + b'","details":{"echo":["'
        + TEXT.encode()
        + b'"]}}}',
    ],
)
async def test_neither_key_nor_text_is_in_what_an_error_shows(answer: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="pinecone_embed_async")
    server, url = await raw_server(answer)
    async with server, client_of(url) as client:
        with pytest.raises(EmbedError) as caught:
            await client.embed(TEXT)
        said = [*everything_said(caught.value, caplog), repr(client), repr(client.statistics())]
    for text in said:
        assert KEY not in text
        assert "private sentence" not in text


async def test_redirects_are_not_followed() -> None:
    async with Service() as elsewhere:
        for status in (301, 302, 303, 307, 308):

            def redirect(status: int = status) -> web.Response:
                return web.Response(status=status, headers={"Location": elsewhere.url + "/embed"})

            async with Service(redirect) as service, client_of(service.url) as client:
                with pytest.raises(ApiError, match="redirects are not followed") as caught:
                    await client.embed("a")
            assert caught.value.status == status
        assert elsewhere.requests == []


async def test_nothing_is_taken_from_netrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password something\ndefault login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with Service() as service, aiohttp.ClientSession(trust_env=True) as session:
        for options in ({}, {"session": session}):
            async with client_of(service.url, **options) as client:
                await client.embed("a")
        assert all("Authorization" not in request.headers for request in service.requests)


async def test_a_callers_session_lends_its_connections_and_nothing_else() -> None:
    headers = {"Authorization": "Bearer x", "X-Mine": "1"}
    async with (
        Service() as service,
        aiohttp.ClientSession(headers=headers, cookies={"a": "b"}, raise_for_status=True) as session,
    ):
        async with client_of(service.url, session=session) as client:
            await client.embed("a")
        assert not session.closed
        sent = service.requests[0].headers
    assert "Authorization" not in sent
    assert "X-Mine" not in sent
    assert "Cookie" not in sent
    assert sent["Api-Key"] == KEY


async def test_tls_is_verified_also_on_a_callers_connections(tmp_path: Path) -> None:
    certificate, key = await self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read(10))
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        for options in ({}, {"session": session}):
            async with client_of(url, **options) as client:
                with pytest.raises(TransportError, match=r"(?i)certificate"):
                    await client.embed("a")
    assert seen == []
