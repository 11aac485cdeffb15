"""Progress of a call, a bar of it, and counts of a client."""

from pinecone_embed_async._statistics.counts import Progress, Statistics

__all__ = ["Progress", "Statistics"]
