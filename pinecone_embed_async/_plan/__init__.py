"""Splits texts into requests, and decides what follows when one is answered or refused. Plain synchronous code."""

from pinecone_embed_async._plan._account import Account
from pinecone_embed_async._plan._distinct import Distinct
from pinecone_embed_async._plan._ledger import Ledger, Outcomes
from pinecone_embed_async._plan._split import (
    Learned,
    PlannedRequest,
    RequestLimits,
    Splitter,
    estimate_tokens,
    requests_of,
    utf8_length,
)

__all__ = [
    "Account",
    "Distinct",
    "Learned",
    "Ledger",
    "Outcomes",
    "PlannedRequest",
    "RequestLimits",
    "Splitter",
    "estimate_tokens",
    "requests_of",
    "utf8_length",
]
