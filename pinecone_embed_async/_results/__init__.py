"""Results of a call: float32 rows or compressed sparse rows, with usage and failures."""

from pinecone_embed_async._results.dense import DenseEmbeddings, DenseRows, Dimension
from pinecone_embed_async._results.embeddings import Usage, all_steps, summed_up, with_outcome
from pinecone_embed_async._results.sparse import SparseEmbeddings, SparseVector, flat_positions, sparse_of_blocks
from pinecone_embed_async._results.tables import dense_arrow, list_offsets

__all__ = [
    "DenseEmbeddings",
    "DenseRows",
    "Dimension",
    "SparseEmbeddings",
    "SparseVector",
    "Usage",
    "all_steps",
    "dense_arrow",
    "flat_positions",
    "list_offsets",
    "sparse_of_blocks",
    "summed_up",
    "with_outcome",
]
