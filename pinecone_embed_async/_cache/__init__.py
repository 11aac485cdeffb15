"""The cache: its protocol, the SQLite cache, and the stage that looks vectors up and writes them."""

from pinecone_embed_async._cache.protocol import Cache
from pinecone_embed_async._cache.sqlite import SqliteCache
from pinecone_embed_async._cache.stage import LOOKED_UP_AT_ONCE, READ_AT_ONCE, CacheStage, CallCache
from pinecone_embed_async._cache.values import Found

__all__ = [
    "LOOKED_UP_AT_ONCE",
    "READ_AT_ONCE",
    "Cache",
    "CacheStage",
    "CallCache",
    "Found",
    "SqliteCache",
]
