"""Vectors that were paid for once: the cache's protocol, its file, and how a client looks things up and keeps them."""

from pinecone_embed_async._cache._client_cache import LOOKED_UP_AT_ONCE, READ_AT_ONCE, ClientCache
from pinecone_embed_async._cache._keys import KeyMaker
from pinecone_embed_async._cache._protocol import Cache
from pinecone_embed_async._cache._sqlite import SqliteCache
from pinecone_embed_async._cache._values import Found, decode_values, encode_dense, encode_sparse

__all__ = [
    "LOOKED_UP_AT_ONCE",
    "READ_AT_ONCE",
    "Cache",
    "ClientCache",
    "Found",
    "KeyMaker",
    "SqliteCache",
    "decode_values",
    "encode_dense",
    "encode_sparse",
]
