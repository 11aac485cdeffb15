"""Rate limiting: token budgets, learned limits, fair queueing, concurrency, and the gate that hands out permits."""

from pinecone_embed_async._rate_limit.concurrency import ConcurrencyLimiter
from pinecone_embed_async._rate_limit.gate import Permit, RateLimitGate
from pinecone_embed_async._rate_limit.pauses import Backoff
from pinecone_embed_async._rate_limit.permit import Flow
from pinecone_embed_async._rate_limit.quota import (
    Key,
    LimiterOptions,
    PlanName,
    Priority,
    Quota,
    QuotaBackend,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    TokenStatistics,
    limiter_options,
)
from pinecone_embed_async._rate_limit.shared_quota import SharedQuota
from pinecone_embed_async._rate_limit.sqlite_quota import SqliteQuota

__all__ = [
    "Backoff",
    "ConcurrencyLimiter",
    "Flow",
    "Key",
    "LimiterOptions",
    "Permit",
    "PlanName",
    "Priority",
    "Quota",
    "QuotaBackend",
    "QuotaDemand",
    "QuotaGrant",
    "QuotaOutcome",
    "RateLimitGate",
    "SharedQuota",
    "SqliteQuota",
    "TokenStatistics",
    "limiter_options",
]
