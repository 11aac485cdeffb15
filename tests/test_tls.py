"""Which certificates are trusted, and what is done about those that are not."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import threading
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from pinecone_embed_async import (
    ConfigurationError,
    EmbedClient,
    MockResponse,
    MockTransport,
    Retried,
    RetryPolicy,
    TransportError,
)
from tests.certificates import expired, self_signed
from tests.clients import QUICK

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from concurrent.futures import Executor
    from pathlib import Path

ONCE = RetryPolicy(max_attempts=1)


def client_of(base_url: str, **options: Any) -> EmbedClient[Any]:
    return EmbedClient("m", vector_type="dense", api_key="the-tests-key", base_url=base_url, look_up_model=False, **options)


def context_of(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class TlsServer:
    """Answers every request over TLS with one row; counts the connections that were tried and the requests."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.requests = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                count = len(json.loads(await reader.readexactly(length))["inputs"])
                self.requests += 1
                (body,) = MockResponse.embeddings([[1.0]] * count).pieces()
                writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(handle, "localhost", 0, ssl=self.context)
        async with server:
            yield f"https://localhost:{server.sockets[0].getsockname()[1]}"


async def test_an_authority_that_is_given_is_trusted_with_a_callers_session_too(tmp_path: Path) -> None:
    certificate, key = await self_signed(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    careless = aiohttp.TCPConnector(ssl=False)
    async with (
        TlsServer(context_of(certificate, key)).running() as url,
        aiohttp.ClientSession(connector=careless) as session,
    ):
        for options in ({}, {"session": session}):
            async with client_of(url, ssl_context=trusting, retry=ONCE, **options) as client:
                assert len(await client.embed("text")) == 1
            async with client_of(url, retry=ONCE, **options) as client:
                with pytest.raises(TransportError, match=r"(?i)certificate"):
                    await client.embed("text")


async def test_the_hosts_name_is_checked_with_a_given_context(tmp_path: Path) -> None:
    certificate, key = await self_signed(tmp_path, "elsewhere")
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with (
        TlsServer(context_of(certificate, key)).running() as url,
        client_of(url, ssl_context=trusting, retry=ONCE) as client,
    ):
        with pytest.raises(TransportError, match="localhost"):
            await client.embed("text")


async def test_the_variable_is_read_when_the_client_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = await self_signed(tmp_path)
    async with TlsServer(context_of(certificate, key)).running() as url:
        client = client_of(url, retry=ONCE)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        async with client:
            assert len(await client.embed("text")) == 1


async def test_a_context_is_made_once_for_an_event_loop_and_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = await self_signed(tmp_path)
    server = context_of(certificate, key)
    made: list[int] = []

    def make() -> ssl.SSLContext:
        made.append(threading.get_ident())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(certificate)
        return context

    monkeypatch.setattr(ssl, "create_default_context", make)
    async with TlsServer(server).running() as url:
        client = client_of(url, retry=ONCE)
        await asyncio.gather(*(client.embed("a") for _ in range(5)))
        await client.aclose()
    assert len(made) == 1
    assert made != [threading.get_ident()]


async def test_a_context_is_made_in_the_executor_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415

    made: list[str] = []
    make_context = ssl.create_default_context

    def make() -> ssl.SSLContext:
        made.append(threading.current_thread().name)
        return make_context()

    monkeypatch.setattr(ssl, "create_default_context", make)
    threads: Executor
    with ThreadPoolExecutor(thread_name_prefix="given") as threads:
        async with client_of("https://localhost:1", executor=threads):
            pass
    assert made == ["given_0"]


def without_verification() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def with_optional_verification() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def without_the_hosts_name() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    ("context", "problem"),
    [
        (without_verification(), "verify_mode must be CERT_REQUIRED, got CERT_NONE"),
        (with_optional_verification(), "verify_mode must be CERT_REQUIRED, got CERT_OPTIONAL"),
        (without_the_hosts_name(), "check_hostname must be True, got False"),
        (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "verify_mode must be CERT_REQUIRED"),
        (False, "ssl_context must be an ssl.SSLContext, got bool"),
        ("ca.pem", "ssl_context must be an ssl.SSLContext, got str"),
    ],
    ids=["none", "optional", "any host", "server's", "False", "path"],
)
def test_contexts_that_verify_less_are_refused(context: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        client_of("https://service.example", ssl_context=context)


async def test_a_context_that_was_made_careless_later_is_refused_when_the_client_is_opened() -> None:
    context = ssl.create_default_context()
    client = client_of("https://service.example", ssl_context=context)
    context.check_hostname = False
    with pytest.raises(ConfigurationError, match="check_hostname"):
        await client.embed("text")


def test_a_context_beside_a_transport_is_refused() -> None:
    transport = MockTransport(lambda _: MockResponse.embeddings([[1.0]]))
    with pytest.raises(ConfigurationError, match="either ssl_context or transport"):
        client_of("https://service.example", ssl_context=ssl.create_default_context(), transport=transport)


async def test_an_untrusted_certificate_ends_a_job_at_once_and_says_what_to_check(tmp_path: Path) -> None:
    certificate, key = await self_signed(tmp_path)
    async with TlsServer(context_of(certificate, key)).running() as url:
        client = client_of(url, max_batch_size=1)
        with pytest.raises(TransportError, match="check SSL_CERT_FILE or ssl_context, the proxy, the host") as caught:
            await client.embed([f"text {number}" for number in range(120)])
        assert caught.value.ends_job
        assert client.statistics().attempts <= 8
        with pytest.raises(TransportError, match="is not trusted"):
            await client.embed_one("text")
        with pytest.raises(TransportError, match="is not trusted"):
            await client.list_models()
        async with client.stream(["a"]) as batches:
            with pytest.raises(TransportError, match="is not trusted"):
                await anext(batches)
        await client.aclose()


async def test_an_expired_certificate_ends_a_job_at_once_and_says_so(tmp_path: Path) -> None:
    certificate, key = await expired(tmp_path)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with (
        TlsServer(context_of(certificate, key)).running() as url,
        client_of(url, ssl_context=trusting, max_batch_size=1) as client,
    ):
        with pytest.raises(TransportError, match="certificate has expired") as caught:
            await client.embed([f"text {number}" for number in range(120)])
        assert "check SSL_CERT_FILE or ssl_context, the proxy, the host" in str(caught.value)
        assert caught.value.ends_job
        assert client.statistics().attempts <= 8


async def test_a_policy_of_the_callers_own_has_an_untrusted_certificate_tried_again(tmp_path: Path) -> None:
    certificate, key = await self_signed(tmp_path)
    async with (
        TlsServer(context_of(certificate, key)).running() as url,
        client_of(url, retry=QUICK, max_batch_size=1) as client,
    ):
        with pytest.raises(TransportError):
            await client.embed(["a", "b"])
        assert client.statistics().attempts == 2 * QUICK.max_attempts


async def test_an_untrusted_certificate_behind_the_first_answer_is_tried_again(tmp_path: Path) -> None:
    good, bad = await self_signed(tmp_path), await self_signed(tmp_path, "elsewhere")
    trusting = ssl.create_default_context(cafile=str(good[0]))
    server, met = TlsServer(context_of(*good)), asyncio.Event()

    def told(event: object) -> None:
        if isinstance(event, Retried):
            met.set()

    async with server.running() as url, client_of(url, ssl_context=trusting, hooks=[told]) as client:
        await client.embed("text")
        server.context.load_cert_chain(*bad)
        call = asyncio.create_task(client.embed("text"))
        await met.wait()
        server.context.load_cert_chain(*good)
        assert len(await call) == 1


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 this is plain HTTP\r\n\r\n", b"\x15\x03\x03\x00\x02\x02\x46"], ids=["none", "another version"]
)
async def test_a_server_that_speaks_no_tls_that_is_known_here_ends_a_job_at_once(answer: bytes) -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "localhost", 0)
    async with server, client_of(f"https://localhost:{server.sockets[0].getsockname()[1]}") as client:
        with pytest.raises(TransportError, match="TLS failed; check that the host, its port and the proxy speak TLS"):
            await client.embed("text")
        assert client.statistics().attempts == 1
