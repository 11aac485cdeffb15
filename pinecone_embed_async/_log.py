"""The logger of the package, and the base of structs that show none of their fields."""

import logging

import msgspec

logger = logging.getLogger("pinecone_embed_async")
# Without a handler, Python would print warnings to stderr in programs that have not set up logging.
logger.addHandler(logging.NullHandler())

IN_OUTCOME = {"is_in_outcome": True}
"""`extra` of a record that tells nothing but what the outcome of the call holds too."""


def is_in_outcome(record: logging.LogRecord) -> bool:
    """Whether a record was logged with `IN_OUTCOME`."""
    return getattr(record, "is_in_outcome", False)


class SilentStruct(msgspec.Struct, eq=False):
    """A struct whose fields, which may hold texts or the key, are shown neither by `repr` nor by rich."""

    __repr__ = object.__repr__
    # In tracebacks with local variables, rich shows what this method of structs returns.
    __rich_repr__ = None  # type: ignore[assignment]
