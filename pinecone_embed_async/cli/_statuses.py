"""Exit statuses that a job scheduler such as cron can act on, determined by the error that ended a run. Does no I/O."""

import errno
from enum import IntEnum

from pinecone_embed_async import (
    AuthenticationError,
    ConfigurationError,
    DeadlineExceededError,
    EmbedError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    ResponseError,
    TransportError,
)
from pinecone_embed_async._jobs._errors import OutputError, SourceError, TokensSpentError


class ExitStatus(IntEnum):
    """How a command ended; after signal n, the status is 128 + n instead."""

    DONE = 0
    FAILED = 1
    MISUSE = 2
    NOTHING_POSSIBLE = 3
    """The key, the model or the address is wrong: no request can succeed."""
    QUOTA_SPENT = 4
    """The month's quota is used up."""
    UNREADABLE = 5
    """The input cannot be read, or has rows that cannot be embedded."""
    LIMIT = 6
    """Stopped by `--timeout` or `--max-tokens`."""
    DISK_FULL = 7
    DIFFERS = 8
    """`check` found that the service does not behave as this package assumes."""


class KeyMissingError(EmbedError):
    """There is no API key."""


_EXTRA = ("pyarrow", "rich", "typer")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def status_of(error: BaseException) -> ExitStatus:
    """The exit status for the error that ended a command."""
    match error:
        case ConfigurationError():
            return ExitStatus.MISUSE
        case KeyMissingError() | AuthenticationError() | NotFoundError() | InvalidRequestError():
            # With `on_error="return"`, a call raises such an error only if every request would get it.
            return ExitStatus.NOTHING_POSSIBLE
        case TransportError() | ResponseError() if error.ends_job:
            return ExitStatus.NOTHING_POSSIBLE
        case QuotaExceededError():
            return ExitStatus.QUOTA_SPENT
        case SourceError():
            return ExitStatus.UNREADABLE
        case DeadlineExceededError() | TokensSpentError():
            return ExitStatus.LIMIT
        case OutputError() | OSError() if error.errno in _FULL:
            return ExitStatus.DISK_FULL
        case _:
            return ExitStatus.FAILED


def missing_extra(error: BaseException) -> str | None:
    """Advice if a package of the extra `cli` is missing; `None` for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    name = error.name.partition(".")[0]
    if name not in _EXTRA:
        return None
    return f"the command line needs {name}; install it with: pip install 'pinecone-embed-async[cli]'"
