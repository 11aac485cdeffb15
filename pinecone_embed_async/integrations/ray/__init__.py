"""Ray Data: a column of vectors for any dataset, and one quota for all the actors of a cluster. It needs the extra `ray`."""

try:
    import ray as _ray  # noqa: F401 - what is missing is told here, before anything else needs it
except ModuleNotFoundError as error:
    if error.name != "ray":
        raise
    raise ModuleNotFoundError("Ray is not installed: pip install 'pinecone-embed-async[ray]'", name="ray") from None

from pinecone_embed_async.integrations.ray._dataset import AddVectors, add_vectors
from pinecone_embed_async.integrations.ray._quota import ClusterQuota

__all__ = ["AddVectors", "ClusterQuota", "add_vectors"]
