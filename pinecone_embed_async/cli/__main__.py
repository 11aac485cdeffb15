"""`python -m pinecone_embed_async.cli` is `pinecone-embed`."""

from pinecone_embed_async.cli import main

main()
