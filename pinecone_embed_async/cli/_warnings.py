"""The library's warnings, gathered for the thread that writes: a handler that wrote them could block the event loop."""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator

from pinecone_embed_async._log import is_in_outcome, logger


class LibraryWarnings(logging.Handler):
    """Gathers the library's warnings, except those about inputs that fail, which the command reports itself."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._messages: deque[str] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        """Gather a warning; called in any thread."""
        if not is_in_outcome(record):
            self._messages.append(record.getMessage())

    def take(self) -> list[str]:
        """Return the new warnings."""
        taken: list[str] = []
        while self._messages:
            taken.append(self._messages.popleft())
        return taken


@contextlib.contextmanager
def library_warnings(show: Callable[[str], None]) -> Iterator[LibraryWarnings]:
    """Gather the library's warnings while the block runs; those that nobody has taken are shown at its end."""
    warnings = LibraryWarnings()
    logger.addHandler(warnings)
    try:
        yield warnings
    finally:
        logger.removeHandler(warnings)
        for message in warnings.take():
            show(message)
