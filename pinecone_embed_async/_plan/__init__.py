"""Splits texts into requests, and decides what follows when one is answered or refused. Plain synchronous code."""

from pinecone_embed_async._plan._account import Account
from pinecone_embed_async._plan._distinct import Distinct
from pinecone_embed_async._plan._ledger import Fresh, Ledger, Outcomes, ends_job
from pinecone_embed_async._plan._split import (
    Learned,
    Load,
    PlannedRequest,
    RequestLimits,
    Requests,
    Splitter,
    count_requests,
    plan_request,
)
from pinecone_embed_async._plan._tokens import (
    BYTES_PER_TOKEN,
    FEWEST_BYTES_PER_TOKEN,
    MOST_BYTES_PER_TOKEN,
    SPECIAL_TOKENS,
    estimate_tokens,
    most_tokens,
    utf8_length,
)

__all__ = [
    "BYTES_PER_TOKEN",
    "FEWEST_BYTES_PER_TOKEN",
    "MOST_BYTES_PER_TOKEN",
    "SPECIAL_TOKENS",
    "Account",
    "Distinct",
    "Fresh",
    "Learned",
    "Ledger",
    "Load",
    "Outcomes",
    "PlannedRequest",
    "RequestLimits",
    "Requests",
    "Splitter",
    "count_requests",
    "ends_job",
    "estimate_tokens",
    "most_tokens",
    "plan_request",
    "utf8_length",
]
