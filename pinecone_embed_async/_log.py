"""The logger of the package."""

import logging

logger = logging.getLogger("pinecone_embed_async")
# Without a handler, Python would print warnings to stderr in programs that have not set up logging.
logger.addHandler(logging.NullHandler())

IN_OUTCOME = {"is_in_outcome": True}
"""`extra` of a record that tells nothing but what the outcome of the call holds too."""


def is_in_outcome(record: logging.LogRecord) -> bool:
    """Whether a record was logged with `IN_OUTCOME`."""
    return getattr(record, "is_in_outcome", False)
