"""Clients that do not wait long."""

from typing import Any

from pinecone_embed_async import DenseEmbeddings, EmbedClient, RetryPolicy
from pinecone_embed_async.emulator import Emulator

QUICK = RetryPolicy(max_attempts=3, initial_backoff=0.001, max_backoff=0.002)
E5 = "multilingual-e5-large"
SPARSE = "pinecone-sparse-english-v0"


def dense_client(emulator: Emulator, **options: Any) -> EmbedClient[DenseEmbeddings]:
    return EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, **options)
