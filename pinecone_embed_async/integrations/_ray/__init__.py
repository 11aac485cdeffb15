"""Ray Data and the quota of a cluster; `pinecone_embed_async.integrations.ray` has the public names.

Nothing is imported here, so that the process that holds a quota does not import Ray Data.
"""
