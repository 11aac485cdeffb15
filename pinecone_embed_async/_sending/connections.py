"""The connections that a session sends through, and what is to be known of each: how it came about, how long it idled."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.tracing import Trace

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from yarl import URL

    from pinecone_embed_async._endpoint import Proxy

IDLE_SECONDS = 1.0
"""A connection that has been idle for longer may have been closed by the other side at any time."""


class _Unused(float):
    """The time-out of a connection that nobody has used since we did: none, and whoever uses it sets another.

    Attributes:
        released_by: the connector that it came back through.
        released_at: when, by the event loop's time.
    """

    __slots__ = ("released_at", "released_by")

    released_at: float
    released_by: Connections


CONNECTING: ContextVar[Connecting] = ContextVar("CONNECTING")
"""Of the request that is being sent: aiohttp hands nothing of ours down to its connector."""


class Connecting:
    """How the connection of one request comes about.

    Args:
        url: where the request goes.
        proxy: on the way; `None` without one.
        timeout: seconds for everything up to the connection: the look-up of the name, the proxy and TLS.

    Attributes:
        is_done: whether there is a connection.
        connections: where it comes from.
        idle: seconds that the connection had been idle before; 0 for a new one, and for one that somebody else used last.
    """

    __slots__ = ("_is_remembered", "_is_resolved", "_proxy", "_scope", "_seconds", "_url", "connections", "idle", "is_done")

    def __init__(self, url: URL, proxy: Proxy | None, timeout: float) -> None:
        # Nothing is put together here: nearly always there is a connection.
        self._url = url
        self._proxy = proxy
        self._seconds = timeout
        self._scope: asyncio.Timeout | None = None
        self._is_resolved = False
        self._is_remembered = False
        self.connections: Connections | None = None
        self.is_done = False
        self.idle = 0.0

    @property
    def phase(self) -> str:
        """What is being done, for the message of a connection that took too long."""
        host = f"{self._url.host}:{self._url.port}"
        if self._proxy is not None:
            return f"connecting through the proxy {self._proxy.name}, which had not opened the way to {host}"
        if self._is_remembered:
            return f"looking up the address of {self._url.host} (DNS), or connecting to {host}, TLS included"
        if self._is_resolved or _is_address(self._url.host or ""):
            return f"connecting to {host}, TLS included"
        return f"looking up the address of {self._url.host} (DNS)"

    def remembered(self) -> None:
        """Note that the address is known, or another request is looking it up: aiohttp does not tell which."""
        self._is_remembered = True

    def resolved(self) -> None:
        """Note that the address is known."""
        self._is_resolved = True

    async def begins(self) -> None:
        """Note that a new connection is being made: its time begins, and not while a place in a full pool is waited for.

        The scope is entered here, in the task that connects, for entering one in vain each time takes longer than the rest.
        """
        self._scope = asyncio.timeout(self._seconds)
        await self._scope.__aenter__()

    async def ends(self, error: BaseException | None) -> None:
        """Note that there is a connection, or what came instead.

        Raises:
            TimeoutError: its time was over.
        """
        scope, self._scope = self._scope, None
        if scope is not None:
            await scope.__aexit__(None if error is None else type(error), error, None)

    def was_reset(self) -> None:
        """Note that the connection was found closed, for the next ones."""
        if self.connections is not None:
            self.connections.was_reset()

    @property
    def overdue(self) -> str:
        """The message of a connection that took too long."""
        return f"no connection within {self._seconds:g} s (connect_timeout), while {self.phase}"


class Connections(aiohttp.BaseConnector):
    """A connector that hands on another's connections.

    Args:
        inner: has the connections.
        is_own: whether `inner` is closed with this.
    """

    def __init__(self, inner: aiohttp.BaseConnector, *, is_own: bool) -> None:
        super().__init__()
        self._inner = inner
        self._is_own = is_own
        self.allowed_protocol_schema_set = inner.allowed_protocol_schema_set
        self._last_reset = 0.0
        self._tracing = aiohttp.TraceConfig()
        self._tracing.on_connection_create_start.append(_create_starts)
        self._tracing.on_dns_resolvehost_end.append(_is_resolved)
        self._tracing.on_dns_cache_hit.append(_is_remembered)
        self._tracing.freeze()

    @property
    def closed(self) -> bool:
        """Whether there are no connections any more."""
        return self._inner.closed

    def close(self, *, abort_ssl: bool = False) -> Awaitable[None]:
        """Close the connections, if they are own ones."""
        if self._is_own:
            return self._inner.close(abort_ssl=abort_ssl)
        return super().close(abort_ssl=abort_ssl)

    def abandon(self) -> None:
        """Let go of the connections, if they are own ones, without the event loop's help."""
        if self._is_own:
            self._inner._close()  # noqa: SLF001 - the public one needs a running loop

    def was_reset(self) -> None:
        """Note that an idle connection was found closed: those that have been idle as long are not used any more."""
        self._last_reset = self._loop.time()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        """Get a connection from the pool, or a new one within the time for it."""
        connecting = CONNECTING.get()
        connecting.is_done, connecting.connections = False, self
        # There is no session, and what is told goes to the request; aiohttp hands both on without a look at them.
        trace = _Trace(None, self._tracing, connecting)  # type: ignore[arg-type]
        while True:
            try:
                connection = await self._inner.connect(req, [*traces, trace], timeout)
            except BaseException as error:
                await connecting.ends(error)
                raise
            await connecting.ends(None)
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
        connection.add_callback(functools.partial(self._is_released, protocol))
        return connection

    def _is_released(self, protocol: ResponseHandler) -> None:
        # Each request sets its own before it is sent.
        unused = protocol.read_timeout = _Unused(0.0)
        unused.released_at, unused.released_by = self._loop.time(), self


class _Trace(Trace):
    """Nothing is made to tell that there is a connection already: nearly always there is."""

    async def send_connection_reuseconn(self) -> None:
        pass


async def _create_starts(_session: object, connecting: Any, _told: object) -> None:
    await connecting.begins()


async def _is_resolved(_session: object, connecting: Any, _told: object) -> None:
    connecting.resolved()


async def _is_remembered(_session: object, connecting: Any, _told: object) -> None:
    connecting.remembered()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
