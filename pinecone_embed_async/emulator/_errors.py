"""Refusals of the emulated service: a status and an error envelope (schema `ErrorResponse`)."""

from __future__ import annotations

from typing import Self

import msgspec

# The code the documentation gives for a status, or else the closest code in its list.
_CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    412: "FAILED_PRECONDITION",
    413: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    425: "UNAVAILABLE",
    429: "RESOURCE_EXHAUSTED",
    500: "UNKNOWN",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def code_of(status: int) -> str:
    """The error code for an HTTP status."""
    if status in _CODES:
        return _CODES[status]
    if status >= 500:
        return "UNAVAILABLE" if status >= 520 else "INTERNAL"
    return "FAILED_PRECONDITION"


def envelope(status: int, code: str, message: str) -> bytes:
    """Encode the error envelope."""
    return msgspec.json.encode({"status": status, "error": {"code": code, "message": message}})


class ServiceRefusal(Exception):  # noqa: N818 - it is an answer, not a fault of the emulator
    """The service's answer to a request it refuses.

    Attributes:
        status: The HTTP status.
        code: The error code in the envelope.
        message: The message for people.
        headers: Additional headers of the answer.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}

    @classmethod
    def invalid(cls, message: str) -> Self:
        """Create a 400 INVALID_ARGUMENT."""
        return cls(400, "INVALID_ARGUMENT", message)

    def body(self) -> bytes:
        """Encode the error envelope."""
        return envelope(self.status, self.code, self.message)
