"""The default transport: an aiohttp session of one event loop."""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, final

import aiohttp

from pinecone_embed_async._clock import SystemClock
from pinecone_embed_async._errors import ConfigurationError, ConnectionProblem, TransportError
from pinecone_embed_async._sending.connections import CONNECTING, IDLE_SECONDS, Connecting, Connections
from pinecone_embed_async._sending.endpoint import proxy_for
from pinecone_embed_async._threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine, Mapping
    from concurrent.futures import Executor

    from yarl import URL

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._sending.endpoint import Proxy
    from pinecone_embed_async._sending.transport import TransportRequest

READ_BUFFER_BYTES = 2**20
"""Bytes that a connection buffers before it stops reading from its socket. With aiohttp's default of 64 KiB, reading a full
answer of 1.9 MB would pause and resume thirty times."""

_OTHER_VERSIONS = frozenset(
    {
        "HTTP_REQUEST",
        "NO_PROTOCOLS_AVAILABLE",
        "TLSV1_ALERT_PROTOCOL_VERSION",
        "UNSUPPORTED_PROTOCOL",
        "UNKNOWN_PROTOCOL",
        "VERSION_TOO_LOW",
        "WRONG_SSL_VERSION",
        "WRONG_VERSION_NUMBER",
    }
)
"""OpenSSL's errors for a peer that speaks another version of TLS, or no TLS at all."""

_FAULTS = (aiohttp.ClientError, OSError, ValueError, RuntimeError)
"""Errors that aiohttp raises for a failed connection, and for a peer that does not speak HTTP."""


class AiohttpTransport:
    """Sends requests through aiohttp; belongs to the event loop in which it is created.

    Args:
        base_url: the service's URL, which decides whether TLS and a proxy are used.
        max_connections: maximum number of connections.
        connect_timeout: seconds for the whole set-up of a connection.
        session: the caller's session to take connections from; `None` to open its own.
        ssl_context: the trusted certificate authorities; `None` for the system's.
        executor: runs the creation of a TLS context; `None` for the event loop's default executor.
        clock: measures the connect time-out; `None` for the system's.

    Attributes:
        proxy: the proxy; `None` without one.

    Raises:
        ConfigurationError: the session is closed or belongs to another event loop, or the environment names a proxy that
            aiohttp does not support.
    """

    def __init__(
        self,
        base_url: URL,
        *,
        max_connections: int,
        connect_timeout: float,
        session: aiohttp.ClientSession | None,
        ssl_context: ssl.SSLContext | None = None,
        executor: Executor | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_ssl_context(ssl_context)
        proxy = proxy_for(base_url)
        # True stands for no context, as in aiohttp.
        self._tls: ssl.SSLContext | bool | None = ssl_context if base_url.scheme == "https" else True
        self._tls_lock = asyncio.Lock()
        self._executor = executor
        is_own = session is None
        inner = aiohttp.TCPConnector(limit=max_connections) if session is None else _connections_of(session)
        self._connections = Connections(
            inner, is_own=is_own, url=base_url, proxy=proxy, timeout=connect_timeout, clock=clock or SystemClock()
        )
        # A session of its own even over the caller's connections: headers, cookies, netrc and redirects of the caller's
        # session could leak the key.
        self._session = aiohttp.ClientSession(
            connector=self._connections,
            connector_owner=is_own,
            cookie_jar=aiohttp.DummyCookieJar(),
            proxy=None if proxy is None else proxy.url,
            trace_configs=None if session is None else session.trace_configs,
            read_bufsize=READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None),
        )
        self.proxy = proxy
        self._closer = _close_with_loop(self._session)

    def __repr__(self) -> str:
        # There is no session if the constructor raised.
        is_closed = not hasattr(self, "_session") or self.is_closed
        return f"<AiohttpTransport{', closed' if is_closed else ''}>"

    @property
    def is_closed(self) -> bool:
        """Whether the transport is closed."""
        return self._session.closed

    async def open(self) -> None:
        """Make the event loop close the session on shutdown if nobody else does, and create the TLS context."""
        await anext(self._closer)
        await self._tls_of_requests()

    async def aclose(self) -> None:
        """Close the session."""
        await self._closer.aclose()

    def abandon(self) -> None:
        """Drop the session without the event loop's help."""
        if self._session.closed:
            return
        self._session.detach()
        self._connections.abandon()

    def send(self, request: TransportRequest) -> _Exchange:
        """See `Transport.send`."""
        return _Exchange(self, request)

    async def _tls_of_requests(self) -> ssl.SSLContext | bool:
        """The TLS context for requests; never the connector's, because a caller's connector may verify nothing.

        It is created on first use, so that `SSL_CERT_FILE` may be set after the import, and in a thread, because reading all
        authorities takes 50 ms.
        """
        async with self._tls_lock:
            if self._tls is None:
                self._tls = await in_thread(_default_context, self._executor)
        return self._tls

    async def begin(self, exchange: _Exchange) -> _Exchange:
        """Send the request of an exchange, and return the exchange once the headers of the response are there.

        Raises:
            TransportError: there is no response.
        """
        request, connecting = exchange.request, exchange.connecting
        token = CONNECTING.set(connecting)
        try:
            response = exchange.response = await self._session.request(
                request.method,
                request.url,
                data=request.body,
                headers=request.headers,
                allow_redirects=False,
                ssl=self._tls or await self._tls_of_requests(),
                proxy_headers=None if self.proxy is None else self.proxy.headers,
            )
            exchange.status, exchange.headers = response.status, response.headers
            return exchange
        except _FAULTS as fault:
            problem, connection = self._failed(fault, connecting)
        finally:
            CONNECTING.reset(token)
        # Not chained, because aiohttp's errors hold the request's headers, and with them the key.
        raise TransportError(problem, problem=connection)

    def _failed(self, fault: Exception, connecting: Connecting) -> tuple[str, ConnectionProblem | None]:
        """A message about a failure before the answer, and what is known about the connection."""
        if isinstance(fault, aiohttp.ConnectionTimeoutError):
            return self._connections.overdue(connecting), ConnectionProblem.UNREACHED
        problem = _described(fault, self.proxy)
        if connecting.idle is None:
            kind = ConnectionProblem.SETUP if _is_setup(fault) else ConnectionProblem.UNREACHED
            # A session that was closed meanwhile is not a network problem.
            return problem, kind if isinstance(fault, (aiohttp.ClientError, OSError)) else None
        if connecting.idle > IDLE_SECONDS and isinstance(fault, aiohttp.ClientConnectionError) and _is_before_answer(fault):
            self._connections.was_reset()
            return f"{problem} (a connection that had been idle)", ConnectionProblem.IDLE
        return problem, None


@final
class _Exchange:
    """A request in flight, then its response."""

    response: aiohttp.ClientResponse
    status: int
    headers: Mapping[str, str]

    def __init__(self, transport: AiohttpTransport, request: TransportRequest) -> None:
        self._transport = transport
        self.request = request
        # An object of its own: a new connection keeps the context in which it is made, and with it this state.
        self.connecting = Connecting()

    def __aenter__(self) -> Coroutine[Any, Any, _Exchange]:
        return self._transport.begin(self)

    async def __aexit__(self, *_: object) -> None:
        if not self.response.content.at_eof():
            self.response.close()
        # A complete answer has released its connection, but the request may still be being written.
        await self.response.wait_for_close()

    async def read(self) -> bytes:
        content = self.response.content
        try:
            piece = b""
            # A piece may be empty at the end of a chunk of the transfer encoding.
            while not piece and not content.at_eof():
                # Not `readany`, which copies the whole buffer into one piece.
                piece, _ = await content.readchunk()
            return piece
        except _FAULTS as fault:
            problem = _described(fault, self._transport.proxy)
        # Not chained, as in `begin`.
        raise TransportError(problem)


def _described(fault: Exception, proxy: Proxy | None) -> str:
    """What failed and what to check, without headers or passwords."""
    if isinstance(fault, aiohttp.ClientHttpProxyError):
        name = "the proxy" if proxy is None else f"the proxy {proxy.name}"
        if fault.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            return f"{name} answered HTTP 407: it needs other credentials; check the environment variable HTTPS_PROXY"
        return f"{name} answered HTTP {fault.status} to the request for a connection to the service"
    if isinstance(fault, aiohttp.ClientResponseError):
        return f"{type(fault).__name__}: {fault.message}"
    if isinstance(fault, aiohttp.ClientConnectorCertificateError):
        return (
            f"the certificate of {fault.host}:{fault.port} is not trusted ({fault.certificate_error}): check SSL_CERT_FILE"
            " or ssl_context, the proxy, the host, and this machine's clock"
        )
    if isinstance(fault, aiohttp.ClientConnectorError):
        reason = str(fault.os_error) or type(fault.os_error).__name__
        what = f"cannot connect to {fault.host}:{fault.port} ({reason})"
        if isinstance(fault, aiohttp.ClientConnectorSSLError):
            return f"{what}: TLS failed; check that the host, its port and the proxy speak TLS 1.2 or later"
        if isinstance(fault, aiohttp.ClientConnectorDNSError):
            return f"{what}: the host's address was not found; check base_url, the proxy and DNS"
        return f"{what}: check the host, the proxy and the network"
    return f"{type(fault).__name__}: {fault}"


def _is_setup(fault: Exception) -> bool:
    """Whether every other connection would fail in the same way."""
    if isinstance(fault, aiohttp.ClientHttpProxyError):
        return fault.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
    if isinstance(fault, aiohttp.ClientConnectorSSLError):
        return getattr(fault.os_error, "reason", None) in _OTHER_VERSIONS
    return isinstance(fault, aiohttp.ClientConnectorCertificateError)


def _is_before_answer(fault: aiohttp.ClientConnectionError) -> bool:
    """Whether the connection failed before the first byte of the answer; assumed for a reset: aiohttp does not say when."""
    return not isinstance(fault, aiohttp.ServerDisconnectedError) or isinstance(fault.message, str)


def check_ssl_context(context: object) -> None:
    """Reject a context that verifies less than the default one.

    Raises:
        ConfigurationError: it is not a context, or does not verify certificates or host names.
    """
    if context is None:
        return
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError(f"ssl_context must be an ssl.SSLContext, got {type(context).__name__}")
    if context.verify_mode != ssl.CERT_REQUIRED:
        raise ConfigurationError(
            f"ssl_context must verify certificates: verify_mode must be CERT_REQUIRED, got {context.verify_mode.name};"
            " to trust an authority of your own, use ssl.create_default_context(cafile=...)"
        )
    if not context.check_hostname:
        raise ConfigurationError("ssl_context must check the host's name: check_hostname must be True, got False")


def _default_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def closed_session() -> ConfigurationError:
    """The error for a caller's session that is closed."""
    return ConfigurationError(
        "the session passed to the client must be open, but is closed: keep it open while the client is used"
    )


def _connections_of(session: aiohttp.ClientSession) -> aiohttp.BaseConnector:
    if session.closed or session.connector is None:
        raise closed_session()
    if session.connector._loop is not asyncio.get_running_loop():  # noqa: SLF001 - there is no public name for it
        raise ConfigurationError(
            "the session passed to the client must belong to the running event loop: create it in that loop"
        )
    return session.connector


async def _close_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Close the session when this generator is closed, which an event loop does with all generators on shutdown.

    So a client that was never closed leaves nothing open after `asyncio.run`.
    """
    try:
        yield
    finally:
        await session.close()
