"""Ray Data: adds vectors to any dataset, with one quota for all workers of a cluster. Needs the extra `ray`."""

from pinecone_embed_async.integrations._ray.dataset import AddVectors, add_vectors
from pinecone_embed_async.integrations._ray.quota import ClusterQuota

__all__ = ["AddVectors", "ClusterQuota", "add_vectors"]
