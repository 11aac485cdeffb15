"""Plans requests from texts, and decides what to do after an answer or a refusal. Plain synchronous code."""

from pinecone_embed_async._planning.estimate import Estimate, estimate_cost
from pinecone_embed_async._planning.learned import Learned, LearnedLimits
from pinecone_embed_async._planning.load import Load, RequestLimits, estimate_tokens, utf8_length
from pinecone_embed_async._planning.planner import PendingInputs, RequestPlanner, ends_job
from pinecone_embed_async._planning.request import Attempts, PlannedRequest
from pinecone_embed_async._planning.splitting import PackedTexts, Packer, PendingTexts

__all__ = [
    "Attempts",
    "Estimate",
    "Learned",
    "LearnedLimits",
    "Load",
    "PackedTexts",
    "Packer",
    "PendingInputs",
    "PendingTexts",
    "PlannedRequest",
    "RequestLimits",
    "RequestPlanner",
    "ends_job",
    "estimate_cost",
    "estimate_tokens",
    "utf8_length",
]
