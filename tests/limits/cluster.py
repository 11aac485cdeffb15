"""Something that deals out a quota as a service of a cluster might."""

import asyncio
from collections import Counter

from pinecone_embed_async._limits import QuotaDemand, QuotaGrant, QuotaOutcome


class Cluster:
    """Grants a fixed number of tokens at most, once `may_answer` is set; keeps an account of everything.

    Args:
        tokens: that a grant is for at most.
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
        """How often each kind of outcome was told; fails unless each grant was settled exactly once."""
        assert sorted(grant.ticket for grant, _ in self.outcomes) == list(range(len(self.grants)))
        return Counter(outcome.kind for _, outcome in self.outcomes)
