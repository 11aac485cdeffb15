"""The progress of a call, its progress bar, and the statistics of a client."""

from pinecone_embed_async._statistics.counts import Progress, Statistics
from pinecone_embed_async._statistics.progress_bar import ProgressBar

__all__ = ["Progress", "ProgressBar", "Statistics"]
