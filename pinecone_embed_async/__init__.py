"""Embed any number of texts with Pinecone's hosted models, asynchronously."""
