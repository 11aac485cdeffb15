"""The logger of the package."""

import logging

logger = logging.getLogger("pinecone_embed_async")
# So that a program that has set up no logging is not written to by Python's handler of last resort.
logger.addHandler(logging.NullHandler())
