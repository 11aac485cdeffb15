"""A quota back end such as a service of a cluster."""

import asyncio
from collections import Counter

from pinecone_embed_async._rate_limit import QuotaDemand, QuotaGrant, QuotaOutcome


class Cluster:
    """Grants up to a fixed number of tokens once `may_answer` is set, and records everything.

    Args:
        tokens: maximum of a grant.
    """

    def __init__(self, tokens: int = 25) -> None:
        self.tokens = tokens
        self.demands: list[QuotaDemand] = []
        self.outcomes: list[tuple[QuotaGrant, QuotaOutcome]] = []
        self.grants: list[QuotaGrant] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def acquire(self, demand: QuotaDemand) -> QuotaGrant:
        self.demands.append(demand)
        await asyncio.sleep(0)
        await self.may_answer.wait()
        grant = QuotaGrant(min(demand.tokens, max(self.tokens, demand.least)), len(self.grants))
        self.grants.append(grant)
        return grant

    def settle(self, grant: QuotaGrant, outcome: QuotaOutcome) -> None:
        self.outcomes.append((grant, outcome))

    def kinds(self) -> Counter[str]:
        """The number of outcomes of each kind; fails unless each grant was settled exactly once."""
        assert sorted(grant.ticket for grant, _ in self.outcomes) == list(range(len(self.grants)))
        return Counter(outcome.kind for _, outcome in self.outcomes)
