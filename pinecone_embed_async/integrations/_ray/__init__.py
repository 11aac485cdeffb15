"""Ray Data and the quota of a cluster; `pinecone_embed_async.integrations.ray` has the public names."""
