"""The kinds of calls, their shared runtime, the scheduler that runs requests, and the builder of results."""

from pinecone_embed_async._calls.batches import EmbeddedBatch
from pinecone_embed_async._calls.embed import embed
from pinecone_embed_async._calls.embed_one import embed_one
from pinecone_embed_async._calls.runtime import Runtime
from pinecone_embed_async._calls.source import Source, check_source
from pinecone_embed_async._calls.stream import EmbeddingStream, open_stream

__all__ = [
    "EmbeddedBatch",
    "EmbeddingStream",
    "Runtime",
    "Source",
    "check_source",
    "embed",
    "embed_one",
    "open_stream",
]
