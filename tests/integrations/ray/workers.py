"""Workers of a cluster that hold a quota."""

import asyncio
import os
from typing import Any

import ray

from pinecone_embed_async import QuotaDemand, QuotaGrant, QuotaOutcome
from pinecone_embed_async.integrations._ray.quota import ClusterQuota


class Worker:
    """Asks for grants and keeps them, in a process of its own."""

    _quota: ClusterQuota
    _grants: list[QuotaGrant]

    async def hold(self, quota: ClusterQuota) -> None:
        """Ask for grants of this quota from now on."""
        self._quota, self._grants = quota, []

    async def acquire(self, tokens: int) -> int:
        grant = await self._quota.acquire(QuotaDemand("multilingual-e5-large", "passage", tokens, tokens))
        self._grants.append(grant)
        return grant.tokens

    async def settle(self, kind: Any, tokens: int) -> None:
        self._quota.settle(self._grants.pop(0), QuotaOutcome(kind, tokens))

    async def die(self) -> None:
        os._exit(1)

    async def many(self, count: int, tokens: int) -> int:
        """Use a quota many times at once; gives how often that went well."""

        async def use() -> int:
            demand = QuotaDemand("multilingual-e5-large", "passage", tokens, tokens)
            grant = await self._quota.acquire(demand)
            self._quota.settle(grant, QuotaOutcome("unused", 0))
            return 1

        return sum(await asyncio.gather(*(use() for _ in range(count))))


def start() -> Any:
    """A worker in another process, which needs no CPU."""
    return ray.remote(Worker).options(num_cpus=0, max_concurrency=10_000).remote()


async def holding(quota: ClusterQuota, *workers: Any) -> tuple[Any, ...]:
    """Let workers ask for grants of a quota."""
    await asyncio.gather(*(worker.hold.remote(quota) for worker in workers))
    return workers
