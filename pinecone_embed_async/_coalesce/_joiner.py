"""Lets the single calls of one event loop share requests, and sees to it that they leave nothing behind."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._coalesce._answers import Answers, own_error
from pinecone_embed_async._coalesce._gather import Gatherer
from pinecone_embed_async._errors import ClosedError, DeadlineExceededError
from pinecone_embed_async._results import Dimension

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async._clock import Clock, Timer
    from pinecone_embed_async._coalesce._gather import Batch, Seat
    from pinecone_embed_async._errors import EmbedError
    from pinecone_embed_async._plan import RequestLimits
    from pinecone_embed_async._results import SparseVector
    from pinecone_embed_async._stream import Run
    from pinecone_embed_async._telemetry import ObservedCall

    RunOf = Callable[[Sequence[str], Answers, float | None], Run]
    """The run of one joined request: its texts, where the answers go, and the latest of its callers' deadlines."""


class Joined(msgspec.Struct):
    """What has been joined.

    Attributes:
        calls: single calls answered with a vector.
        requests: requests that answered them.
    """

    calls: int = 0
    requests: int = 0

    def add(self, calls: int) -> None:
        """Count one more request, which answered so many calls."""
        self.calls += calls
        self.requests += 1


@dataclass(slots=True, repr=False, eq=False)
class _Sent:
    """A batch whose request is under way.

    Attributes:
        answers: takes what comes of it.
        run: sends it.
        task: of the run.
        last: what the last caller to leave waits for; `None` while it does not wait.
    """

    answers: Answers
    run: Run
    task: asyncio.Task[None]
    last: asyncio.Future[None] | None = None

    async def ended(self) -> None:
        """Wait for the end of the task, which is cancelled if the caller is."""
        cancellation: asyncio.CancelledError | None = None
        while not self.task.done():
            self.last = self.task.get_loop().create_future()
            try:
                await self.last
            except asyncio.CancelledError as error:
                self.task.cancel()
                cancellation = error
        if cancellation is not None:
            raise cancellation


class Joiner:
    """Joins the single calls of the running event loop.

    The callers of a batch own the task of its request together: it goes on as long as one of them waits, and the last one
    to leave cancels it if it is not done, and waits for its end.

    Args:
        clock: the time.
        max_delay: seconds that a call waits at most for others.
        most: a batch that is not full goes only while fewer than this many with its parameters are under way.
        joined: takes the count.
    """

    def __init__(self, *, clock: Clock, max_delay: float, most: int, joined: Joined) -> None:
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._joined = joined
        self._gatherer = Gatherer(clock=clock, soon=self._loop.call_soon, max_delay=max_delay, most=most)
        self._sent: dict[Batch, _Sent] = {}

    def __repr__(self) -> str:
        return f"<Joiner {self._gatherer!r}>"

    def coming(self, key: Hashable) -> AbstractContextManager[None]:
        """Have calls with an equal key wait for one that is being looked up, as long as they may."""
        return self._gatherer.coming(key)

    async def call(
        self,
        text: str,
        *,
        key: Hashable,
        limits: RequestLimits,
        dimension: int | None,
        deadline: float | None,
        run_of: RunOf,
        observed: ObservedCall | None = None,
    ) -> NDArray[np.float32] | SparseVector | BaseException:
        """Have a text embedded together with what others ask for at the same time.

        Args:
            text: to embed.
            key: calls with equal keys may share a request.
            limits: what a request may hold.
            dimension: numbers per row, if it is known.
            deadline: of this call alone, by the clock; `None` for none.
            run_of: makes the run of a request; that of its first caller is used.
            observed: what the hooks know this call by.

        Returns:
            The vector, or the error to raise: it is the caller's own, and keeps nothing of the others' alive.

        Raises:
            asyncio.CancelledError: the caller was cancelled.
        """
        answered = self._loop.create_future()

        def wake() -> None:
            if not answered.done():
                answered.set_result(None)

        send = functools.partial(self._send, run_of, dimension)
        # Before any await, so that calls of the same turn meet.
        seat = self._gatherer.join(key, text, limits, send=send, wake=wake, deadline=deadline, call=observed)
        # Whoever reports errors with the locals of their frames is shown no texts.
        del text
        timer = None if deadline is None else self._clock.call_at(deadline, lambda: self._expire(seat))
        try:
            await answered
        finally:
            if timer is not None:
                timer.cancel()
            await self._leave(seat)
        if seat.outcome is None:
            raise RuntimeError("a caller was woken without an outcome")
        return seat.outcome

    def close(self, error: EmbedError) -> None:
        """End all calls: those on the wire have the run's grace period left, the others end at once."""
        for seat in self._gatherer.disband():
            seat.settle(own_error(error, 0, is_failure=False))
        for sent in self._sent.values():
            sent.answers.closed_by = error
            sent.run.stop(error)

    async def drained(self) -> None:
        """Wait until no request is under way; after `close`, that is within the grace period."""
        for sent in list(self._sent.values()):
            await sent.run.drained()

    def _send(self, run_of: RunOf, dimension: int | None, batch: Batch) -> None:
        answers = Answers(batch, Dimension(dimension), self._joined.add)
        run = run_of(list(batch.seats), answers, batch.deadline)
        task = self._loop.create_task(_finish(run), name=f"embed {len(batch.seats)} joined inputs")
        self._sent[batch] = _Sent(answers, run, task)
        task.add_done_callback(lambda _: self._ended(batch))

    def _ended(self, batch: Batch) -> None:
        sent = self._sent.pop(batch)
        # First of all: it may ask for another text at once, and so in time for the request that goes next.
        if sent.last is not None and not sent.last.done():
            sent.last.set_result(None)
        self._gatherer.ended(batch)
        fault = None if sent.task.cancelled() else sent.task.exception()
        if sent.answers.is_settled:
            return
        if sent.task.cancelled():
            # By nobody who waits for it, or nobody waits.
            sent.answers.give_up(ClosedError("the task of the request that the call had joined was cancelled"))
        elif sent.run.job_error is not None:
            sent.answers.give_up(sent.run.job_error)
        else:
            sent.answers.break_off(fault)

    def _expire(self, seat: Seat) -> None:
        """Tell a caller that its time is over, and what was met before."""
        sent = self._sent.get(seat.batch)
        if sent is None:
            seat.settle(DeadlineExceededError("the deadline of the call passed before its request was sent"))
            return
        retry = sent.run.retry_of(sent.answers.position_of(seat))
        error = DeadlineExceededError("the deadline of the call passed before it was embedded")
        if retry is not None:
            error = retry.out_of_time("the deadline of the call passed before the answer came")
        sent.answers.out_of_time(seat, error)

    async def _leave(self, seat: Seat) -> None:
        batch = seat.batch
        self._gatherer.leave(seat)
        sent = self._sent.get(batch)
        if batch.callers or sent is None:
            return
        timer: Timer | None = None
        if not sent.answers.is_settled:
            sent.task.cancel()
        elif seat.deadline is not None:
            # Something may still be kept of the answer; that has the time that is left.
            timer = self._clock.call_at(seat.deadline, functools.partial(_cancel, sent.task))
        try:
            await sent.ended()
        finally:
            if timer is not None:
                timer.cancel()


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()


async def _finish(run: Run) -> None:
    async with run.running():
        pass
