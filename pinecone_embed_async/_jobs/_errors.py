"""Errors of a job's files; each message names the file, and the line where there is one."""

from pinecone_embed_async._errors import EmbedError


class JobError(EmbedError):
    """A file of a job cannot be read or written."""


class SourceError(JobError):
    """An input cannot be read: missing, of an unknown format, not UTF-8, or a row without its text."""


class OutputError(JobError):
    """The output cannot be written: no such folder, no permission, no space, or the wrong format.

    Attributes:
        errno: The file system's number for the error; `None` if it is none of its.
    """

    def __init__(self, message: str, *, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class TokensSpentError(JobError):
    """The run has cost as many tokens as it may."""


class JobChangedError(JobError):
    """The output belongs to another job: its input, model or anything else of its fingerprint is another."""
