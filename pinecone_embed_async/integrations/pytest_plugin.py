"""The emulator that the fixtures of `pytest_pinecone_embed_async` provide, for tests with or without an event loop.

The fixtures are in a module outside the package, because pytest imports that module at every start.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pinecone_embed_async._threads import LoopThread
from pinecone_embed_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType
    from typing import Self

    from pinecone_embed_async.emulator import EmbedRequest, Fault, FaultName, Statistics

ResultT = TypeVar("ResultT")


class LocalEmulator:
    """An emulator in a thread of its own: it answers while a test blocks, and any thread may use it.

    Args:
        options: the arguments of `Emulator`.
    """

    def __init__(self, **options: Any) -> None:
        self._thread = LoopThread("pinecone-emulator")
        self._emulator = Emulator(**options)
        try:
            self._thread.run(self._emulator.start())
        except BaseException:
            self._thread.close()
            raise

    def __repr__(self) -> str:
        """Show the emulator, without the key."""
        return f"<LocalEmulator {self._emulator!r}>"

    def __enter__(self) -> Self:
        """Return itself; it is already open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop it and close its connections; requests in progress are dropped."""
        self._thread.run(self._emulator.aclose())
        self._thread.close()

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:40123`."""
        return self._emulator.url

    @property
    def api_key(self) -> str:
        """The key that requests must carry."""
        return self._emulator.api_key

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that point clients at it."""
        return {"PINECONE_CONTROLLER_HOST": self.url, "PINECONE_API_KEY": self.api_key}

    @overload
    def call(self, function: Callable[[Emulator], Awaitable[ResultT]]) -> ResultT: ...
    @overload
    def call(self, function: Callable[[Emulator], ResultT]) -> ResultT: ...
    def call(self, function: Callable[[Emulator], Any]) -> Any:
        """Call a function or coroutine function with the `Emulator`, in its thread, and wait for the result.

        For example, `emulator.call(lambda emulator: emulator.hold())`. This works for everything an `Emulator` can do.
        """

        async def work() -> Any:
            result = function(self._emulator)
            return await result if inspect.isawaitable(result) else result

        return self._thread.run(work())

    def inject(
        self, fault: Fault | FaultName | str, *, times: int = 1, when: Callable[[EmbedRequest], bool] | None = None
    ) -> None:
        """Inject a fault into the next requests; see `Emulator.inject`.

        Args:
            fault: a `Fault`, a name or `NAME=VALUE`.
            times: how many requests get it.
            when: returns whether a request matches.

        Raises:
            ValueError: there is no such fault, or `times` is below 1.
        """
        self.call(lambda emulator: emulator.inject(fault, times=times, when=when))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self.call(lambda emulator: emulator.clear_faults())

    def statistics(self) -> Statistics:
        """The counts so far."""
        return self.call(lambda emulator: emulator.statistics())
