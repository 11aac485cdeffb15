"""Iterables in, a bounded number of requests under way, results out; takes the sending as a callable."""

from pinecone_embed_async._stream._batches import Batches, EmbeddedBatch
from pinecone_embed_async._stream._looking import LookUps
from pinecone_embed_async._stream._reader import Reader, Source, check_source
from pinecone_embed_async._stream._run import GRACE_SECONDS, Run
from pinecone_embed_async._stream._stream import EmbeddingStream

__all__ = [
    "GRACE_SECONDS",
    "Batches",
    "EmbeddedBatch",
    "EmbeddingStream",
    "LookUps",
    "Reader",
    "Run",
    "Source",
    "check_source",
]
