"""The synchronous client."""

from pinecone_embed_async._sync.client import SyncEmbedClient
from pinecone_embed_async._sync.stream import SyncEmbeddingStream

__all__ = ["SyncEmbedClient", "SyncEmbeddingStream"]
