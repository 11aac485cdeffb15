"""Rate limiting: token budgets, learned limits, fair queueing, concurrency, and the gate that grants permits."""

from pinecone_embed_async._rate_limit.backoff import full_jitter
from pinecone_embed_async._rate_limit.fair_queue import Flow, Priority
from pinecone_embed_async._rate_limit.gate import Permit, RateLimitGate
from pinecone_embed_async._rate_limit.limiter import ConcurrencyLimiter, Limiter, LimiterOptions, PermitRequest, Reservation
from pinecone_embed_async._rate_limit.quota import (
    PlanName,
    Quota,
    QuotaBackend,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    limiter_options,
)
from pinecone_embed_async._rate_limit.rejections import LimitKind, NamedLimit, named_limit
from pinecone_embed_async._rate_limit.shared_quota import SharedQuota
from pinecone_embed_async._rate_limit.token_limit import TokenStatistics

__all__ = [
    "ConcurrencyLimiter",
    "Flow",
    "LimitKind",
    "Limiter",
    "LimiterOptions",
    "NamedLimit",
    "Permit",
    "PermitRequest",
    "PlanName",
    "Priority",
    "Quota",
    "QuotaBackend",
    "QuotaDemand",
    "QuotaGrant",
    "QuotaOutcome",
    "RateLimitGate",
    "Reservation",
    "SharedQuota",
    "TokenStatistics",
    "full_jitter",
    "limiter_options",
    "named_limit",
]
