"""Awaits foreign asynchronous code; tells whether the caller or the code was cancelled; abandons code that does not end."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pinecone_embed_async._log import logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from pinecone_embed_async._clock import Clock

ResultT = TypeVar("ResultT")
LateT_contra = TypeVar("LateT_contra", contravariant=True)

PATIENCE_SECONDS = 1.0
"""How long cancelled code may take to end. This is enough to roll back a transaction or release a connection. It limits
how long a caller waits past its deadline for code that swallows its cancellation."""


class StrayCancellationError(Exception):
    """Foreign code was cancelled, but not by the caller."""


class Cancellations:
    """Distinguishes the caller's own cancellation from an interruption, and from a `CancelledError` of foreign code.

    Attributes:
        task: the task that awaits the code.
        before: number of the task's cancellation requests before the code was called, plus one once it is interrupted.
        is_interrupted: whether the code was interrupted.
    """

    __slots__ = ("before", "is_interrupted", "task")

    def __init__(self, task: asyncio.Task[Any] | None) -> None:
        self.task = task
        self.before = 0 if task is None else task.cancelling()
        self.is_interrupted = False

    @classmethod
    async def counted(cls) -> Cancellations:
        """Count the running task's cancellations before it awaits foreign code.

        Raises:
            asyncio.CancelledError: the caller's cancellation was already requested but not delivered yet.
        """
        cancellations = cls(asyncio.current_task())
        if cancellations.before:
            # A pending request is the caller's; the next await delivers it.
            await asyncio.sleep(0)
        return cancellations

    @property
    def is_callers(self) -> bool:
        """Whether the caller has been cancelled since the count."""
        return self.task is None or self.task.cancelling() > self.before

    def interrupt(self) -> None:
        """Cancel the code, but only once, and without counting as the caller's cancellation."""
        if self.task is not None and not self.is_interrupted:
            self.is_interrupted = True
            self.before += 1
            self.task.cancel()

    def end(self) -> None:
        """Take an interruption back now that the code has ended."""
        if self.is_interrupted and self.task is not None:
            self.task.uncancel()


class LateResults(Protocol[LateT_contra]):
    """Receives results that arrive after their caller has left."""

    def came_late(self, result: LateT_contra, /) -> None:
        """Receive one result."""


class ForeignCode:
    """Awaits foreign code in separate tasks, so that the code can be abandoned.

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
        return f"<ForeignCode {self._name}, {len(self._left)} left behind>"

    @property
    def is_stuck(self) -> bool:
        """Whether an abandoned task is still running."""
        return bool(self._left)

    async def run(
        self,
        work: Coroutine[Any, Any, ResultT] | asyncio.Task[ResultT],
        *,
        until: float | None = None,
        late: LateResults[ResultT] | None = None,
    ) -> ResultT:
        """Await `work`, at most until a given time. Work that swallows its cancellation is abandoned with a warning.

        Args:
            work: a coroutine or a task; the caller may already have cancelled the task.
            until: clock time at which to cancel the work; `None` for never.
            late: receives a result that arrives after the work was abandoned; `None` to drop it.

        Raises:
            StrayCancellationError: the work was cancelled, but not by the caller.
            TimeoutError: the work did not end in time.
            asyncio.CancelledError: the caller was cancelled.
        """
        task = work if isinstance(work, asyncio.Task) else asyncio.get_running_loop().create_task(work, name=self._name)
        # Error reports that include local variables must not show the texts.
        del work
        cancelled = await _wait(task, self._clock, until)
        if not task.done():
            if not task.cancelling():
                # A second cancellation would only disturb the clean-up.
                task.cancel()
            end = self._clock.time() + PATIENCE_SECONDS
            # The caller may be cancelled several times, for example by its deadline and by its own caller.
            while not task.done() and self._clock.time() < end:
                cancelled = await _wait(task, self._clock, end) or cancelled
        if not task.done():
            logger.warning("%s did not end within %g s of being cancelled; it is left running", self._name, PATIENCE_SECONDS)
            self._left.add(task)
            task.add_done_callback(functools.partial(self._finish_left, late))
        elif cancelled:
            self._finish_left(late, task)
        if cancelled:
            raise cancelled.pop()
        if not task.done() or (task.cancelled() and until is not None and self._clock.time() >= until):
            raise TimeoutError(f"{self._name} took too long")
        if task.cancelled():
            raise StrayCancellationError("it was cancelled, but not by its caller")
        return task.result()

    def _finish_left(self, late: LateResults[ResultT] | None, task: asyncio.Task[ResultT]) -> None:
        self._left.discard(task)
        # Reading the exception keeps asyncio from warning that it was never retrieved.
        if not task.cancelled() and task.exception() is None and late is not None:
            late.came_late(task.result())


async def until_done(future: asyncio.Future[Any]) -> None:
    """Wait for a task or future to end, even if the caller is cancelled meanwhile; ignore its outcome.

    Raises:
        asyncio.CancelledError: the caller was cancelled.
    """
    cancelled: list[asyncio.CancelledError] = []
    while not future.done():
        cancelled = await _wait(future) or cancelled
    if not future.cancelled():
        # Reading the exception keeps asyncio from warning that it was never retrieved.
        future.exception()
    if cancelled:
        raise cancelled.pop()


async def _wait(
    future: asyncio.Future[Any], clock: Clock | None = None, until: float | None = None
) -> list[asyncio.CancelledError]:
    """Wait until a future ends, the given time is reached, or the caller is cancelled; return the caller's cancellation.

    It is in a list, from which it is taken to be raised: its traceback refers to the frame that raises it, and would form a
    reference cycle with a variable there.
    """
    ended = asyncio.get_running_loop().create_future()
    wake = functools.partial(_wake, ended)
    future.add_done_callback(wake)
    timer = None if clock is None or until is None else clock.call_at(until, wake)
    try:
        await ended
    except asyncio.CancelledError as error:
        return [error]
    finally:
        future.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()
    return []


def _wake(ended: asyncio.Future[None], _: object = None) -> None:
    if not ended.done():
        ended.set_result(None)
