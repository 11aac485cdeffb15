"""Stands in for `client.stream` until it is there: `python -m tests.jobs.stand_in embed …` is the command line with it."""

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pinecone_embed_async import AuthenticationError, ClosedError, EmbedClient, EmbedError, NotFoundError, QuotaExceededError
from pinecone_embed_async.cli import main

_JOB_ERRORS = (AuthenticationError, NotFoundError, QuotaExceededError, ClosedError)
_WINDOW = 16


@dataclass(frozen=True)
class StandInBatch:
    start: int
    items: list[Any]
    embeddings: Any

    @property
    def failures(self) -> Any:
        return self.embeddings.failures


@contextlib.asynccontextmanager
async def stream(  # noqa: C901 - it goes away
    client: EmbedClient[Any], source: Iterable[Any], *, text: Callable[[Any], str], **_options: Any
) -> AsyncIterator[AsyncIterator[StandInBatch]]:
    running: set[asyncio.Task[StandInBatch]] = set()
    iterator = iter(source)
    size = client._limits({}).inputs

    async def send(start: int, items: list[Any]) -> StandInBatch:
        return StandInBatch(start, items, await client.embed([text(item) for item in items], on_error="return"))

    def pull() -> tuple[list[Any], Exception | None]:
        items: list[Any] = []
        try:
            items.extend(itertools.islice(iterator, size))
        except EmbedError as error:
            return items, error
        return items, None

    async def batches() -> AsyncGenerator[StandInBatch, None]:
        start, ended, error = 0, False, None
        while running or not ended:
            while not ended and len(running) < _WINDOW:
                items, error = await asyncio.to_thread(pull)
                ended = error is not None or len(items) < size
                if items:
                    running.add(asyncio.create_task(send(start, items)))
                    start += len(items)
            if running:
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    running.discard(task)
                    batch = task.result()
                    yield batch
                    for failure in batch.failures:
                        if isinstance(failure.error, _JOB_ERRORS):
                            ended, error = True, failure.error
        if error is not None:
            raise error

    generator = batches()
    try:
        yield generator
    finally:
        await generator.aclose()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def install() -> None:
    if not hasattr(EmbedClient, "stream"):
        EmbedClient.stream = stream  # type: ignore[attr-defined]


if __name__ == "__main__":
    install()
    sys.argv[0] = "pinecone-embed"
    main()
