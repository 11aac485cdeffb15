"""Results of a call: float32 rows or compressed sparse rows, with usage and failures."""

from pinecone_embed_async._results.dense import DenseEmbeddings, DenseRows, Dimension
from pinecone_embed_async._results.embeddings import Usage, all_steps, summed_up, with_outcome
from pinecone_embed_async._results.sparse import SparseEmbeddings, SparseRows, SparseVector, flat_positions
from pinecone_embed_async._results.tables import dense_arrow, list_offsets

__all__ = [
    "DenseEmbeddings",
    "DenseRows",
    "Dimension",
    "SparseEmbeddings",
    "SparseRows",
    "SparseVector",
    "Usage",
    "all_steps",
    "dense_arrow",
    "flat_positions",
    "list_offsets",
    "summed_up",
    "with_outcome",
]
