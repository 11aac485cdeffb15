"""Awaits foreign asynchronous code: attributes cancellations, and enforces an end."""

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
"""How long cancelled code may take to end: rolling back a transaction or releasing a connection takes less, and a caller
with a deadline waits no longer for code that swallows its cancellation."""


class StrayCancellationError(Exception):
    """Foreign code was cancelled, and not by the caller."""


class Cancellations:
    """Distinguishes the caller's own cancellation from a `CancelledError` that foreign code lets through.

    Attributes:
        task: the task that awaits the code.
        before: cancellation requests delivered to it before the code was called.
    """

    __slots__ = ("before", "task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.before = 0 if task is None else task.cancelling()

    @classmethod
    async def counted(cls) -> Cancellations:
        """Count the running task's cancellations before it awaits foreign code.

        Raises:
            asyncio.CancelledError: the caller's cancellation had been requested, and was not delivered yet.
        """
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # An earlier request is the caller's too; it is delivered at the next await.
            await asyncio.sleep(0)
        return cls(task)

    @property
    def is_callers(self) -> bool:
        """Whether the caller has been cancelled since."""
        return self.task is None or self.task.cancelling() > self.before


class Neighbour:
    """Awaits foreign code in tasks of its own, so that it can be abandoned.

    Args:
        name: the code's name, for messages.
        clock: the clock.
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
        """Whether a task that was left behind has not ended yet."""
        return bool(self._left)

    async def ask(
        self,
        work: Coroutine[Any, Any, ResultT] | asyncio.Task[ResultT],
        *,
        until: float | None = None,
        late: Callable[[ResultT], None] = lambda _: None,
    ) -> ResultT:
        """Await `work`, at most until a given time. Work that swallows its cancellation is left behind with a warning.

        Args:
            work: a coroutine, or a task, which the caller may have cancelled already.
            until: when to abandon it, by the clock; `None` for never.
            late: takes a result that arrives after it was abandoned.

        Raises:
            StrayCancellationError: it was cancelled, and not by the caller.
            TimeoutError: it did not end in time.
            asyncio.CancelledError: the caller was cancelled.
        """
        task = work if isinstance(work, asyncio.Task) else asyncio.get_running_loop().create_task(work, name=self._name)
        # Error reports that include the locals of frames must show no texts.
        del work
        cancellation = await self._wait(task, until)
        if not task.done():
            if not task.cancelling():
                # A second cancellation would only disturb its clean-up.
                task.cancel()
            end = self._clock.time() + PATIENCE_SECONDS
            # However often the caller is cancelled: its deadline and its own caller may both cancel it.
            while not task.done() and self._clock.time() < end:
                cancellation = await self._wait(task, end) or cancellation
        if not task.done():
            logger.warning("%s did not end within %g s of being cancelled, and is left behind", self._name, PATIENCE_SECONDS)
            self._left.add(task)
            task.add_done_callback(functools.partial(self._finish_left, late))
        elif cancellation is not None:
            self._finish_left(late, task)
        if cancellation is not None:
            try:
                raise cancellation
            finally:
                # Its traceback holds this frame: a reference cycle.
                del cancellation
        if not task.done():
            raise TimeoutError(f"{self._name} took too long")
        if task.cancelled():
            if until is not None and self._clock.time() >= until:
                raise TimeoutError(f"{self._name} took too long")
            raise StrayCancellationError("it was cancelled, and not by its caller")
        return task.result()

    async def _wait(self, task: asyncio.Task[Any], until: float | None) -> asyncio.CancelledError | None:
        """Wait for a task to end, a time, or the caller's cancellation, which is returned."""
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

    def _finish_left(self, late: Callable[[ResultT], None], task: asyncio.Task[ResultT]) -> None:
        self._left.discard(task)
        # Retrieving its exception keeps asyncio from warning that nobody did.
        if not task.cancelled() and task.exception() is None:
            late(task.result())


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait for a task or future to end, however often the caller is cancelled meanwhile; its outcome is not looked at.

    Raises:
        asyncio.CancelledError: the caller was cancelled.
    """
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        try:
            raise cancellation
        finally:
            # Its traceback holds this frame: a reference cycle.
            del cancellation


def _wake(ended: asyncio.Future[None], _: object = None) -> None:
    if not ended.done():
        ended.set_result(None)
