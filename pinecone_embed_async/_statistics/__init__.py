"""The progress of a call, its progress bar, and the statistics of a client."""

from pinecone_embed_async._statistics.counts import Progress, Statistics

__all__ = ["Progress", "Statistics"]
