"""The logger of the package."""

import logging

logger = logging.getLogger("pinecone_embed_async")
# Without a handler, Python would print warnings to stderr in programs that have not set up logging.
logger.addHandler(logging.NullHandler())
