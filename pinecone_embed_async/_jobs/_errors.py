"""Errors about a job's files; each message names the file and, where it can, the line."""

from pinecone_embed_async._errors import EmbedError


class JobError(EmbedError):
    """A file of a job cannot be read or written."""


class SourceError(JobError):
    """An input cannot be read: it is missing, has an unknown format, is not UTF-8, or a row lacks its text."""


class OutputError(JobError):
    """The output cannot be written: a missing folder, no permission, no space, or the wrong format.

    Attributes:
        errno: The file system's error number; `None` if the error is not from the file system.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class TokensSpentError(JobError):
    """The run has spent its token budget."""


class JobChangedError(JobError):
    """The output belongs to another job: the input, the model or another part of the fingerprint differs."""
