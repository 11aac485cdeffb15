"""Splits texts into requests, and decides what follows when one is answered or refused. Plain synchronous code."""

from pinecone_embed_async._plan._account import Account
from pinecone_embed_async._plan._distinct import Distinct
from pinecone_embed_async._plan._ledger import Ledger, Outcomes
from pinecone_embed_async._plan._split import (
    BYTES_PER_TOKEN,
    SPECIAL_TOKENS,
    Learned,
    Load,
    PlannedRequest,
    RequestLimits,
    Splitter,
    count_requests,
    estimate_tokens,
    plan_request,
    requests_of,
    utf8_length,
)

__all__ = [
    "BYTES_PER_TOKEN",
    "SPECIAL_TOKENS",
    "Account",
    "Distinct",
    "Learned",
    "Ledger",
    "Load",
    "Outcomes",
    "PlannedRequest",
    "RequestLimits",
    "Splitter",
    "count_requests",
    "estimate_tokens",
    "plan_request",
    "requests_of",
    "utf8_length",
]
