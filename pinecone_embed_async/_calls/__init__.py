"""The kinds of calls, their shared runtime, the scheduler that runs requests, and the builder of results."""

from pinecone_embed_async._calls.batches import EmbeddedBatch, StreamBatches
from pinecone_embed_async._calls.coalescer import Coalescer, JoinedCounts, SharedRequest, Waiter
from pinecone_embed_async._calls.embed import embed
from pinecone_embed_async._calls.embed_one import embed_one
from pinecone_embed_async._calls.result_builder import ResultBuilder
from pinecone_embed_async._calls.runtime import Runtime
from pinecone_embed_async._calls.scheduler import GRACE_SECONDS, ProgressReporter, Scheduler
from pinecone_embed_async._calls.single_calls import SingleCalls
from pinecone_embed_async._calls.single_results import SingleResults, own_error
from pinecone_embed_async._calls.source import Source, check_source
from pinecone_embed_async._calls.stream import EmbeddingStream, open_stream

__all__ = [
    "GRACE_SECONDS",
    "Coalescer",
    "EmbeddedBatch",
    "EmbeddingStream",
    "JoinedCounts",
    "ProgressReporter",
    "ResultBuilder",
    "Runtime",
    "Scheduler",
    "SharedRequest",
    "SingleCalls",
    "SingleResults",
    "Source",
    "StreamBatches",
    "Waiter",
    "check_source",
    "embed",
    "embed_one",
    "open_stream",
    "own_error",
]
