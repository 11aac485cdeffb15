"""Joins single calls into requests; one caller's cancellation and one caller's bad input are its own."""

from pinecone_embed_async._coalesce._answers import Answers, own_error
from pinecone_embed_async._coalesce._gather import Batch, Gatherer, Seat
from pinecone_embed_async._coalesce._joiner import Joined, Joiner

__all__ = [
    "Answers",
    "Batch",
    "Gatherer",
    "Joined",
    "Joiner",
    "Seat",
    "own_error",
]
