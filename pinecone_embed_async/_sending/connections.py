"""The connections of a session; records how each was made and how long it was idle."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.tracing import Trace

from pinecone_embed_async._sending.endpoint import ip_address_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable
    from contextlib import AbstractAsyncContextManager

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from yarl import URL

    from pinecone_embed_async._clock import Clock
    from pinecone_embed_async._sending.endpoint import Proxy

IDLE_SECONDS = 1.0
"""Idle time after which the peer may have closed a connection without the client noticing."""

_LOOK_UP = "looking up the address of {host} (DNS)"
_LOOK_UP_OR_CONNECT = "looking up the address of {host} (DNS), or connecting to {host}:{port}, including TLS"
_CONNECT = "connecting to {host}:{port}, including TLS"
_TUNNEL = "connecting through the proxy {proxy}, which had not opened the tunnel to {host}:{port}"


class Connecting:
    """The state of the connection of one request.

    Attributes:
        idle: seconds that it had been idle; 0 for a new connection, and for one that other code used last; `None` before it
            is made.
        step: the current step of a new connection, as a template for a message with the host, the port and the proxy.
        scope: the time-out of a new connection.
    """

    # Class attributes, because every request makes an object, and nearly all of them reuse a connection.
    idle: float | None = None
    step = _LOOK_UP
    scope: AbstractAsyncContextManager[asyncio.Timeout] | None = None


CONNECTING: ContextVar[Connecting] = ContextVar("CONNECTING")
"""The state of the request being sent. A context variable, because aiohttp does not pass it to the connector."""


class Connections(aiohttp.BaseConnector):
    """A connector that hands out the connections of another connector, all to one host.

    Args:
        inner: the connector that owns the connections.
        is_own: whether to close `inner` with this connector.
        url: the service's URL.
        proxy: the proxy; `None` without one.
        timeout: seconds for the whole set-up of a connection: DNS, proxy and TLS.
        clock: measures the time-out.
    """

    def __init__(
        self, inner: aiohttp.BaseConnector, *, is_own: bool, url: URL, proxy: Proxy | None, timeout: float, clock: Clock
    ) -> None:
        super().__init__()
        self._inner = inner
        self._is_own = is_own
        self._url = url
        self._proxy = proxy
        self._timeout = timeout
        self._clock = clock
        self._first_step = _LOOK_UP if ip_address_of(url.host or "") is None else _CONNECT
        self.allowed_protocol_schema_set = inner.allowed_protocol_schema_set
        self._last_reset = 0.0
        self._progress = _Progress(self)

    @property
    def closed(self) -> bool:
        """Whether the connector is closed."""
        return self._inner.closed

    def close(self, *, abort_ssl: bool = False) -> Awaitable[None]:
        """Close the connections, unless they belong to the caller's session."""
        if self._is_own:
            return self._inner.close(abort_ssl=abort_ssl)
        return super().close(abort_ssl=abort_ssl)

    def abandon(self) -> None:
        """Drop the connections without the event loop's help, unless they belong to the caller's session."""
        if self._is_own:
            self._inner._close()  # noqa: SLF001 - the public method needs a running event loop

    def was_reset(self) -> None:
        """Record that an idle connection was found closed, so that connections released earlier are not reused."""
        self._last_reset = self._loop.time()

    def overdue(self, connecting: Connecting) -> str:
        """The message for a connection that took too long."""
        step = connecting.step if self._proxy is None else _TUNNEL
        step = step.format(host=self._url.host, port=self._url.port, proxy=self._proxy and self._proxy.name)
        return f"no connection within {self._timeout:g} s (connect_timeout), while {step}"

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """Get a connection from the pool, or make a new one within its time-out."""
        connecting = CONNECTING.get()
        connecting.idle = None
        while True:
            try:
                connection = await self._inner.connect(req, [*traces, self._progress], timeout)
            except BaseException as error:
                await _end_timeout(connecting, error)
                raise
            if connecting.scope is not None:
                await _end_timeout(connecting, None)
            # Not `None` until the connection is released.
            protocol: ResponseHandler = connection.protocol  # type: ignore[assignment]
            released_at: float | None = getattr(protocol.read_timeout, "released_at", None)
            if released_at is None or released_at > self._last_reset:
                break
            connection.close()
        connecting.idle = 0.0 if released_at is None else self._loop.time() - released_at
        connection.add_callback(partial(self._mark, protocol))
        return connection

    def _mark(self, protocol: ResponseHandler) -> None:
        """Mark a connection that has just been released."""
        mark = _Mark()
        mark.released_at = self._loop.time()
        # Each request sets its own time-out before it is sent.
        protocol.read_timeout = mark

    async def start_timeout(self) -> None:
        """Start the time-out of a new connection; waiting for a place in a full pool does not count.

        The scope is entered only here, because entering one for every request would cost more than the rest of `connect`.
        """
        connecting = CONNECTING.get()
        connecting.step, connecting.scope = self._first_step, self._clock.timeout_at(self._clock.time() + self._timeout)
        await connecting.scope.__aenter__()


async def _end_timeout(connecting: Connecting, error: BaseException | None) -> None:
    """End the time-out of a new connection that was made or failed.

    Raises:
        TimeoutError: the connection took too long.
    """
    scope, connecting.scope = connecting.scope, None
    if scope is not None:
        await scope.__aexit__(None if error is None else type(error), error, None)


class _Mark(float):
    """A read time-out of 0 that marks a connection released by this package; other code replaces it when it sends a request.

    Attributes:
        released_at: event loop time of its last release.
    """

    __slots__ = ("released_at",)

    released_at: float


class _Progress(Trace):
    """Records the steps of new connections; does nothing for a reused connection, which is by far the most common case."""

    def __init__(self, connections: Connections) -> None:
        unused = aiohttp.TraceConfig()
        unused.freeze()
        # aiohttp passes the session and the context on without looking at them.
        super().__init__(None, unused, None)  # type: ignore[arg-type]
        self._connections = connections

    async def send_connection_reuseconn(self) -> None:
        pass

    async def send_connection_create_start(self) -> None:
        await self._connections.start_timeout()

    async def send_dns_resolvehost_end(self, host: str) -> None:  # noqa: ARG002 - aiohttp's signature
        CONNECTING.get().step = _CONNECT

    async def send_dns_cache_hit(self, host: str) -> None:  # noqa: ARG002 - aiohttp's signature
        # The address is cached, or another request is looking it up: aiohttp does not say which.
        CONNECTING.get().step = _LOOK_UP_OR_CONNECT
