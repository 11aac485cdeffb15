"""Embed any number of texts with Pinecone's hosted models, asynchronously."""

from pinecone_embed_async._cache import Cache, SqliteCache
from pinecone_embed_async._calls import EmbeddedBatch, EmbeddingStream
from pinecone_embed_async._client import EmbedClient
from pinecone_embed_async._clock import Clock
from pinecone_embed_async._errors import (
    ApiError,
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    Failure,
    InputError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    ServiceError,
    TransportError,
)
from pinecone_embed_async._planning import Estimate
from pinecone_embed_async._rate_limit import (
    Quota,
    QuotaBackend,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    SharedQuota,
    SqliteQuota,
    TokenStatistics,
)
from pinecone_embed_async._results import DenseEmbeddings, SparseEmbeddings, SparseVector, Usage
from pinecone_embed_async._sending import (
    MockResponse,
    MockTransport,
    RetryPolicy,
    Transport,
    TransportRequest,
    TransportResponse,
)
from pinecone_embed_async._statistics import Progress, Statistics
from pinecone_embed_async._sync import SyncEmbedClient, SyncEmbeddingStream
from pinecone_embed_async._telemetry import (
    ErrorKind,
    Event,
    Failed,
    Finished,
    Hook,
    ObservedCall,
    ObservedRequest,
    Retried,
    Started,
    Waiting,
)
from pinecone_embed_async._version import __version__
from pinecone_embed_async._wire import ModelInfo, ModelParameter

__all__ = [
    "ApiError",
    "AuthenticationError",
    "Cache",
    "Clock",
    "ClosedError",
    "ConfigurationError",
    "DeadlineExceededError",
    "DenseEmbeddings",
    "EmbedClient",
    "EmbedError",
    "EmbeddedBatch",
    "EmbeddingStream",
    "ErrorKind",
    "Estimate",
    "Event",
    "Failed",
    "Failure",
    "Finished",
    "Hook",
    "InputError",
    "InvalidRequestError",
    "MockResponse",
    "MockTransport",
    "ModelInfo",
    "ModelParameter",
    "NotFoundError",
    "ObservedCall",
    "ObservedRequest",
    "Progress",
    "Quota",
    "QuotaBackend",
    "QuotaDemand",
    "QuotaExceededError",
    "QuotaGrant",
    "QuotaOutcome",
    "RateLimitError",
    "ResponseError",
    "Retried",
    "RetryPolicy",
    "ServiceError",
    "SharedQuota",
    "SparseEmbeddings",
    "SparseVector",
    "SqliteCache",
    "SqliteQuota",
    "Started",
    "Statistics",
    "SyncEmbedClient",
    "SyncEmbeddingStream",
    "TokenStatistics",
    "Transport",
    "TransportError",
    "TransportRequest",
    "TransportResponse",
    "Usage",
    "Waiting",
    "__version__",
]
