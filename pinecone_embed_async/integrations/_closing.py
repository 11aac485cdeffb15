"""The end of adapters that embed in the caller's event loop and, for blocking calls, in a thread of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from pinecone_embed_async._threads import OwnLoopThread


class ClosableAdapter:
    """An adapter that is open from its creation until it is closed. Subclasses set `_thread`."""

    _thread: OwnLoopThread

    def __enter__(self) -> Self:
        """Return itself; it is already open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return itself; it is already open."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the calls in this event loop and in the thread, and close their connections."""
        await self._thread.aclose()

    def close(self) -> None:
        """End the calls of the blocking methods and close their connections. Other event loops close their own."""
        self._thread.close()
