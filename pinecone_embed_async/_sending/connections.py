"""The connections of a session, and for each how it was made and how long it was idle."""

from __future__ import annotations

import functools
import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.tracing import Trace

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
"""After a longer idle time, the peer may have closed a connection at any moment."""


class _Unused(float):
    """Marks a connection that nobody else has used since we released it: its time-out of 0, which any user replaces.

    Attributes:
        released_by: the connector that released it.
        released_at: when it was released, by the event loop's time.
    """

    __slots__ = ("released_at", "released_by")

    released_at: float
    released_by: Connections


CONNECTING: ContextVar[Connecting] = ContextVar("CONNECTING")
"""State of the request being sent: aiohttp passes nothing of ours down to its connector."""


class Connecting:
    """Progress of one request's connection.

    Args:
        url: the request's URL.
        proxy: the proxy; `None` without one.
        timeout: seconds for the whole set-up of the connection: DNS, proxy and TLS.
        clock: measures them.

    Attributes:
        is_done: whether there is a connection.
        connections: the connector that it comes from.
        idle: seconds that it had been idle; 0 for a new connection, and for one last used by somebody else.
    """

    __slots__ = (
        "_clock",
        "_is_cached",
        "_is_resolved",
        "_proxy",
        "_scope",
        "_seconds",
        "_url",
        "connections",
        "idle",
        "is_done",
    )

    def __init__(self, url: URL, proxy: Proxy | None, timeout: float, clock: Clock) -> None:
        # Nothing is formatted here: nearly always a connection is reused.
        self._url = url
        self._proxy = proxy
        self._seconds = timeout
        self._clock = clock
        self._scope: AbstractAsyncContextManager[asyncio.Timeout] | None = None
        self._is_resolved = False
        self._is_cached = False
        self.connections: Connections | None = None
        self.is_done = False
        self.idle = 0.0

    @property
    def phase(self) -> str:
        """The current step, for the message of a connection that took too long."""
        host = f"{self._url.host}:{self._url.port}"
        if self._proxy is not None:
            return f"connecting through the proxy {self._proxy.name}, which had not opened the way to {host}"
        if self._is_cached:
            return f"looking up the address of {self._url.host} (DNS), or connecting to {host}, TLS included"
        if self._is_resolved or _is_address(self._url.host or ""):
            return f"connecting to {host}, TLS included"
        return f"looking up the address of {self._url.host} (DNS)"

    def cached(self) -> None:
        """Record that the address is cached, or being looked up for another request: aiohttp does not say which."""
        self._is_cached = True

    def resolved(self) -> None:
        """Record that the address is known."""
        self._is_resolved = True

    async def start_timeout(self) -> None:
        """Start the time-out of a new connection; waiting for a place in a full pool does not count.

        The scope is entered here, in the task that connects: entering one for every request costs more than all the rest.
        """
        self._scope = self._clock.timeout_at(self._clock.time() + self._seconds)
        await self._scope.__aenter__()

    async def end_timeout(self, error: BaseException | None) -> None:
        """End the time-out, because there is a connection or an error.

        Raises:
            TimeoutError: the connection took too long.
        """
        scope, self._scope = self._scope, None
        if scope is not None:
            await scope.__aexit__(None if error is None else type(error), error, None)

    def was_reset(self) -> None:
        """Record that the idle connection was found closed, for later requests."""
        if self.connections is not None:
            self.connections.was_reset()

    @property
    def overdue(self) -> str:
        """The message of a connection that took too long."""
        return f"no connection within {self._seconds:g} s (connect_timeout), while {self.phase}"


class Connections(aiohttp.BaseConnector):
    """A connector that hands out the connections of another.

    Args:
        inner: the connector that owns the connections.
        is_own: whether `inner` is closed with this connector.
    """

    def __init__(self, inner: aiohttp.BaseConnector, *, is_own: bool) -> None:
        super().__init__()
        self._inner = inner
        self._is_own = is_own
        self.allowed_protocol_schema_set = inner.allowed_protocol_schema_set
        self._last_reset = 0.0
        self._tracing = aiohttp.TraceConfig()
        self._tracing.on_connection_create_start.append(_on_create_start)
        self._tracing.on_dns_resolvehost_end.append(_on_resolved)
        self._tracing.on_dns_cache_hit.append(_on_cached)
        self._tracing.freeze()

    @property
    def closed(self) -> bool:
        """Whether the connector is closed."""
        return self._inner.closed

    def close(self, *, abort_ssl: bool = False) -> Awaitable[None]:
        """Close the connections, unless they are a caller's."""
        if self._is_own:
            return self._inner.close(abort_ssl=abort_ssl)
        return super().close(abort_ssl=abort_ssl)

    def abandon(self) -> None:
        """Drop the connections, unless they are a caller's, without the event loop's help."""
        if self._is_own:
            self._inner._close()  # noqa: SLF001 - the public one needs a running loop

    def was_reset(self) -> None:
        """Record that an idle connection was found closed: connections idle for as long are not used again."""
        self._last_reset = self._loop.time()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """Get a connection from the pool, or make a new one within its time-out."""
        connecting = CONNECTING.get()
        connecting.is_done, connecting.connections = False, self
        # There is no session, and the context is the request's state; aiohttp passes both on without looking at them.
        trace = _Trace(None, self._tracing, connecting)  # type: ignore[arg-type]
        while True:
            try:
                connection = await self._inner.connect(req, [*traces, trace], timeout)
            except BaseException as error:
                await connecting.end_timeout(error)
                raise
            await connecting.end_timeout(None)
            protocol = connection.protocol
            if protocol is None:
                return connection
            last = protocol.read_timeout
            released = last.released_at if isinstance(last, _Unused) and last.released_by is self else None
            if released is None or released > self._last_reset:
                break
            connection.close()
        connecting.is_done = True
        connecting.idle = 0.0 if released is None else self._loop.time() - released
        connection.add_callback(functools.partial(self._on_release, protocol))
        return connection

    def _on_release(self, protocol: ResponseHandler) -> None:
        # Each request sets its own time-out before it is sent.
        unused = protocol.read_timeout = _Unused(0.0)
        unused.released_at, unused.released_by = self._loop.time(), self


class _Trace(Trace):
    """Creates no event for a reused connection, which is nearly always the case."""

    async def send_connection_reuseconn(self) -> None:
        pass


async def _on_create_start(_session: object, connecting: Any, _params: object) -> None:
    await connecting.start_timeout()


async def _on_resolved(_session: object, connecting: Any, _params: object) -> None:
    connecting.resolved()


async def _on_cached(_session: object, connecting: Any, _params: object) -> None:
    connecting.cached()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
