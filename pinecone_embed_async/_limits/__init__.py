"""Who may send now, and how much: budgets, what is learned of them, order, requests in flight, and the decode gate."""

from pinecone_embed_async._limits._backoff import full_jitter
from pinecone_embed_async._limits._decode import DecodeGate
from pinecone_embed_async._limits._limiter import Ask, Grant, Lane, Limiter, LimiterOptions
from pinecone_embed_async._limits._queue import Flow, Priority
from pinecone_embed_async._limits._quota import (
    PlanName,
    Quota,
    QuotaBackend,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    limiter_options,
)
from pinecone_embed_async._limits._rejections import LimitKind, NamedLimit, named_limit
from pinecone_embed_async._limits._shared import SharedQuota
from pinecone_embed_async._limits._tokens import TokenStatistics
from pinecone_embed_async._limits._turnstile import Turn, Turnstile

__all__ = [
    "Ask",
    "DecodeGate",
    "Flow",
    "Grant",
    "Lane",
    "LimitKind",
    "Limiter",
    "LimiterOptions",
    "NamedLimit",
    "PlanName",
    "Priority",
    "Quota",
    "QuotaBackend",
    "QuotaDemand",
    "QuotaGrant",
    "QuotaOutcome",
    "SharedQuota",
    "TokenStatistics",
    "Turn",
    "Turnstile",
    "full_jitter",
    "limiter_options",
    "named_limit",
]
