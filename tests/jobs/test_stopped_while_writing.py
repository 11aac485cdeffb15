"""A job that is stopped while the disk is slow."""

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from pinecone_embed_async._jobs._sources import Row
from tests.jobs.by_hand import PER_REQUEST, Batch, Service, expected, opened, run, table_of, texts


@pytest.mark.parametrize("cancellations", [1, 2])
async def test_what_was_answered_is_written_if_a_job_is_cancelled_while_its_last_groups_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancellations: int
) -> None:
    gate, syncing, sync = threading.Event(), threading.Event(), os.fdatasync

    def slowly(descriptor: int) -> None:
        syncing.set()
        assert gate.wait(30)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", slowly)
    source, service = texts(tmp_path / "in.txt", range(2 * PER_REQUEST)), Service()
    answered = asyncio.Event()

    @contextlib.asynccontextmanager
    async def stream(rows: Iterable[Row]) -> AsyncIterator[AsyncIterator[Batch]]:
        async def one_after_the_other() -> AsyncIterator[Batch]:
            async for batch in batches:
                yield batch
                # The next group is answered while this one is synced.
                assert await asyncio.to_thread(syncing.wait, 30)
            answered.set()

        async with service.stream(rows) as batches:
            yield one_after_the_other()

    with opened(source) as job:
        running = asyncio.create_task(job.run(stream, lambda _: None))
        await answered.wait()
        await passed()
        for _ in range(cancellations):
            running.cancel()
            await passed()
        assert not running.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert job.progress().counts.done == 2 * PER_REQUEST
    again = Service()
    await asyncio.to_thread(run, source, again)
    assert again.sent == []
    assert table_of(source) == expected(*range(2 * PER_REQUEST))


async def passed() -> None:
    """Everything that can go on without the disk has gone on."""
    for _ in range(100):
        await asyncio.sleep(0)
