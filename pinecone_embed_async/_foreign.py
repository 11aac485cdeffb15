"""Other people's asynchronous code, awaited: whose cancellation it was, and an end that holds whatever it does."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, TypeVar

from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from pinecone_embed_async._clock import Clock

ResultT = TypeVar("ResultT")

PATIENCE_SECONDS = 1.0
"""How long what was cancelled may take to end: a transaction or a connection that is given back takes less, and whoever has
a deadline waits no longer for one that swallows its cancellation."""


class StrayCancellationError(Exception):
    """Somebody cancelled what other people's code awaited, and it was not the caller."""


class Cancellations:
    """Tells the caller's own cancellation from a `CancelledError` that other people's code lets through.

    Attributes:
        task: that the code is awaited in.
        before: requests to cancel it that had been delivered when the code was called.
    """

    __slots__ = ("before", "task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.before = 0 if task is None else task.cancelling()

    @classmethod
    async def counted(cls) -> Cancellations:
        """Count those of the running task, before other people's code is awaited.

        Raises:
            asyncio.CancelledError: the caller had been cancelled, and it was not delivered yet.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # What was requested before is the caller's, too; it comes with the next await.
            await asyncio.sleep(0)
        return cls(task)

    @property
    def is_callers(self) -> bool:
        """Whether the caller has been cancelled since."""
        return self.task is None or self.task.cancelling() > self.before


class Neighbour:
    """Awaits other people's code in tasks of its own, so that it can be given up.

    Args:
        name: what it is, for messages.
        clock: the time.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        # An event loop keeps only weak references to its tasks.
        self._left: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Neighbour {self._name}, {len(self._left)} left behind>"

    @property
    def is_stuck(self) -> bool:
        """Whether something was left behind that has not ended yet."""
        return bool(self._left)

    async def ask(
        self,
        work: Coroutine[Any, Any, ResultT] | asyncio.Task[ResultT],
        *,
        until: float | None = None,
        late: Callable[[ResultT], None] = lambda _: None,
    ) -> ResultT:
        """Await `work` to its end, at most until a time. What swallows its cancellation is left behind with a warning.

        Args:
            work: that it does, or the task that does it, which the caller may cancel beforehand.
            until: when it is given up, by the clock; `None` for never.
            late: takes what it gives after it was given up.

        Raises:
            StrayCancellationError: it was cancelled, and not by the caller.
            TimeoutError: the time has come.
            asyncio.CancelledError: the caller was cancelled.
        """
        task = work if isinstance(work, asyncio.Task) else asyncio.get_running_loop().create_task(work, name=self._name)
        # Whoever reports errors with the locals of their frames is shown no texts.
        del work
        cancellation = await self._ended(task, until)
        if not task.done():
            if not task.cancelling():
                # Another time it would only be disturbed while it ends.
                task.cancel()
            end = self._clock.time() + PATIENCE_SECONDS
            # However often the caller is cancelled meanwhile: a call's deadline and whoever leaves it may do so at once.
            while not task.done() and self._clock.time() < end:
                cancellation = await self._ended(task, end) or cancellation
        if not task.done():
            logger.warning("%s did not end within %g s of being cancelled, and is left behind", self._name, PATIENCE_SECONDS)
            self._left.add(task)
            task.add_done_callback(functools.partial(self._took_leave, late))
        elif cancellation is not None:
            self._took_leave(late, task)
        if cancellation is not None:
            try:
                raise cancellation
            finally:
                # It would hold itself by this frame.
                del cancellation
        if not task.done():
            raise TimeoutError(f"{self._name} took too long")
        if task.cancelled():
            if until is not None and self._clock.time() >= until:
                raise TimeoutError(f"{self._name} took too long")
            raise StrayCancellationError("it was cancelled, and not by its caller")
        return task.result()

    async def _ended(self, task: asyncio.Task[Any], until: float | None) -> asyncio.CancelledError | None:
        """Wait for the end of a task, a time, or the caller's cancellation, which is given back."""
        ended = asyncio.get_running_loop().create_future()
        wake = functools.partial(_wake, ended)
        task.add_done_callback(wake)
        timer = None if until is None else self._clock.call_at(until, wake)
        try:
            await ended
        except asyncio.CancelledError as error:
            return error
        finally:
            task.remove_done_callback(wake)
            if timer is not None:
                timer.cancel()
        return None

    def _took_leave(self, late: Callable[[ResultT], None], task: asyncio.Task[ResultT]) -> None:
        self._left.discard(task)
        # Its error is looked at, so that asyncio does not complain that nobody did.
        if not task.cancelled() and task.exception() is None:
            late(task.result())


async def until_done(task: asyncio.Task[Any]) -> None:
    """Wait for the end of a task that was cancelled, however often the caller is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: the caller was cancelled.
    """
    cancellation: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        raise cancellation


def _wake(ended: asyncio.Future[None], _: object = None) -> None:
    if not ended.done():
        ended.set_result(None)
