"""The ways to call (single calls, streams), the scheduler that runs requests, and the builder of results."""

from pinecone_embed_async._calls.coalescer import Coalescer, SharedRequest, Waiter
from pinecone_embed_async._calls.embed_one import JoinedCounts, SingleCalls
from pinecone_embed_async._calls.outcomes import Outcomes
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._calls.scheduler import GRACE_SECONDS, Scheduler
from pinecone_embed_async._calls.single_results import SingleResults, own_error
from pinecone_embed_async._calls.source import ReadAhead, Source, SourceReader, check_source
from pinecone_embed_async._calls.stream import EmbeddingStream
from pinecone_embed_async._calls.stream_results import EmbeddedBatch, StreamResults

__all__ = [
    "GRACE_SECONDS",
    "Coalescer",
    "EmbeddedBatch",
    "EmbeddingStream",
    "JoinedCounts",
    "Outcomes",
    "ReadAhead",
    "ResultBuilder",
    "Scheduler",
    "SharedRequest",
    "SingleCalls",
    "SingleResults",
    "Source",
    "SourceReader",
    "StreamResults",
    "Waiter",
    "check_source",
    "own_error",
]
