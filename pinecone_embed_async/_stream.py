"""Runs the requests of a plan with a bounded number under way; takes the sending as a callable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pinecone_embed_async._errors import DeadlineExceededError, EmbedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pinecone_embed_async._plan import Ledger, PlannedRequest

    Send = Callable[[PlannedRequest], Awaitable[EmbedError | None]]
    """Sends a request through all its attempts; gives its error, or `None` once the rows are in place."""


async def run_plan(
    ledger: Ledger,
    send: Send,
    *,
    window: int,
    deadline: float | None,
    ends_job: Callable[[EmbedError], bool],
    settled: Callable[[], None],
) -> None:
    """Send everything that `ledger` plans, `window` requests under way at a time.

    Returns when all is settled, the job has ended early, or the deadline has passed; what became of each input
    is in the ledger. All tasks are done by then, also when the caller is cancelled.

    Args:
        ledger: plans the requests and is told what came of them.
        send: sends one.
        window: requests under way at most, those that wait for another attempt included.
        deadline: the end, by the running loop's clock; `None` for none.
        ends_job: whether an error holds for every other request too.
        settled: called after each request.
    """
    under_way: dict[int, PlannedRequest] = {}

    async def carry_out(request: PlannedRequest) -> None:
        error = await send(request)
        del under_way[request.start]
        if error is None:
            ledger.embedded(request)
        else:
            ledger.failed(request, error)
            if ends_job(error):
                ledger.end(error)
        fill()
        settled()

    def fill() -> None:
        while len(under_way) < window and (request := ledger.take()) is not None:
            under_way[request.start] = request
            group.create_task(carry_out(request), name=f"embed {request.start}:{request.stop}")

    try:
        async with asyncio.timeout_at(deadline), asyncio.TaskGroup() as group:
            fill()
    except TimeoutError:
        error = DeadlineExceededError("the deadline of the call passed before all inputs were embedded")
        for request in under_way.values():
            ledger.failed(request, error)
        ledger.end(error)
    except BaseExceptionGroup as group_error:
        # `send` gives its errors, so this is what `settled` raised: the caller's own, passed on as it is.
        raise group_error.exceptions[0] from None
