"""Clients that share a quota in a file, against the emulator."""

import asyncio
from pathlib import Path

import numpy as np

from pinecone_embed_async import DenseEmbeddings, EmbedClient, Quota, SqliteQuota
from pinecone_embed_async.emulator import Emulator, ServiceQuota

TEXTS = [f"text number {number}" for number in range(300)]


def client_of(emulator: Emulator, quota: SqliteQuota) -> EmbedClient[DenseEmbeddings]:
    return EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url, quota=quota)


async def test_clients_of_two_processes_stay_within_the_quota(tmp_path: Path) -> None:
    # Each member is what a process would be.
    limits = Quota(1000, window=1.0)
    async with (
        Emulator(quota=ServiceQuota(tokens_per_window=1000, window=1.0, kind="sliding")) as emulator,
        SqliteQuota(tmp_path / "quota.db", limits) as one,
        SqliteQuota(tmp_path / "quota.db", limits) as two,
        client_of(emulator, one) as first,
        client_of(emulator, two) as second,
    ):
        results = await asyncio.gather(*(client.embed(TEXTS, input_type="passage") for client in (first, second)))
        np.testing.assert_array_equal(results[0].vectors, results[1].vectors)
        statistics = emulator.statistics()
        assert statistics.by_status.get(429, 0) == 0
        assert statistics.inputs_answered == 600
        assert sum(of.used for of in await one.statistics()) <= 1000


async def test_what_one_client_learns_from_a_rejection_holds_for_the_other(tmp_path: Path) -> None:
    async with (
        Emulator(quota=ServiceQuota(tokens_per_window=1000, window=60.0, retry_after="seconds")) as emulator,
        SqliteQuota(tmp_path / "quota.db") as one,
        SqliteQuota(tmp_path / "quota.db") as two,
        client_of(emulator, one) as first,
        client_of(emulator, two) as second,
    ):
        task = asyncio.create_task(first.embed(TEXTS, input_type="passage"))
        while not (known := await two.statistics()) or known[0].source != "named":  # noqa: ASYNC110 - another's doing
            await asyncio.sleep(0.01)
        assert known[0].limit == 1000
        waits = asyncio.create_task(second.embed(TEXTS, input_type="passage"))
        while not any(of.waiting for of in await two.statistics()):  # noqa: ASYNC110 - another's doing
            await asyncio.sleep(0.01)
        assert second.statistics().attempts == 0
        for one_task in (task, waits):
            one_task.cancel()
        await asyncio.gather(task, waits, return_exceptions=True)
