"""Ray Data: vectors for any dataset, and one quota for all workers of a cluster. Needs the extra `ray`."""

from pinecone_embed_async.integrations.ray._dataset import AddVectors, add_vectors
from pinecone_embed_async.integrations.ray._quota import ClusterQuota

__all__ = ["AddVectors", "ClusterQuota", "add_vectors"]
