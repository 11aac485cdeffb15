"""Maps the status, headers and body of an error response to an error class."""

from __future__ import annotations

import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import msgspec

from pinecone_embed_async._errors import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ServiceError,
)
from pinecone_embed_async._wire.strict_json import decoded_or_none
from pinecone_embed_async._wire.structs import ErrorBody, ErrorEnvelope

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pinecone_embed_async._wire.redaction import Redactor

MOST_ENVELOPE_BYTES = 65_536
"""Maximum size of an error envelope; the documented ones have fewer than 1,000 bytes."""

_ENVELOPE = msgspec.json.Decoder(ErrorEnvelope)
_REQUEST_ID_HEADERS = ("x-pinecone-request-id", "x-request-id")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,100}")
_CODE = re.compile(r"[A-Za-z0-9_. -]{1,60}")
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")

SANE_SECONDS = 86_400.0
"""Maximum plausible time between the date of an answer and the end of the wait."""

# "... the embedding token limit (5000000) for model M for the current month." Waiting does not help.
_MONTH = re.compile(r"\bcurrent month\b|\bper month\b|\bmonthly\b", re.IGNORECASE)

_CODE_STATUS = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "OUT_OF_RANGE": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 429,
    "TOO_MANY_REQUESTS": 429,
    "QUOTA_EXCEEDED": 429,
    "UNKNOWN": 500,
    "INTERNAL": 500,
    "DATA_LOSS": 500,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
"""HTTP status of each code, for envelopes that come with HTTP 200. Source: the HTTP mapping of google.rpc.Code."""


def parse_retry_after(value: str | None, *, now: float, date: str | None = None) -> float | None:
    """Seconds to wait according to a `Retry-After` header (RFC 9110, 10.2.3); `None` if it is missing or invalid.

    Args:
        value: the header: seconds, or an HTTP date. A date in the past means no wait.
        now: seconds since the epoch by this machine's clock.
        date: the `Date` header of the same answer, from the same clock as the other date. It is used if the resulting wait
            is less than a day; otherwise that clock was probably never set.
    """
    value = (value or "").strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    until, sent = _parse_date(value), _parse_date(date or "")
    if until is None:
        return None
    since = sent if sent is not None and abs(until - sent) <= SANE_SECONDS else now
    return until - since if until > since else None


def _parse_date(value: str) -> float | None:
    if not value.isascii() or len(value) > 64:
        return None
    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def error_from_response(status: int, headers: Mapping[str, str], body: bytes, *, redactor: Redactor, now: float) -> ApiError:
    """The error for an HTTP response other than an answer.

    A body without an error envelope, such as a proxy's HTML page or an empty or truncated body, is not shown.

    Args:
        status: HTTP status.
        headers: headers of the response, with case-insensitive names.
        body: as much of the body as could be read.
        redactor: removes secrets from the service's message.
        now: seconds since the epoch; needed for a date in `Retry-After` if the answer has no `Date`.
    """
    envelope = _read_envelope(body)
    if envelope is None:
        kind = headers.get("content-type", "").split(";")[0].strip().lower()
        what = f"a body of type {kind}" if re.fullmatch(r"[a-z0-9.+-]+/[a-z0-9.+-]+", kind) else "a body"
        body_text = f"{what} that is not an error message" if body else "no error message"
        message = f"the service answered HTTP {status} with {body_text}"
        if 300 <= status < 400:
            message += "; redirects are not followed, because they would forward the key: check base_url"
        error = _classify(status, None)(message, status=status)
    else:
        error = _from_envelope_body(status, envelope.error, redactor)
    error.retry_after = parse_retry_after(headers.get("retry-after"), now=now, date=headers.get("date"))
    request_ids = [headers.get(name, "") for name in _REQUEST_ID_HEADERS]
    error.request_id = next((redactor.clean(value) for value in request_ids if _REQUEST_ID.fullmatch(value)), None)
    return error


def error_from_envelope(body: bytes, *, redactor: Redactor) -> ApiError | None:
    """The error in the envelope of a body that came with HTTP 200; `None` if the body has no envelope."""
    envelope = _read_envelope(body)
    if envelope is None:
        return None
    status = envelope.status
    if type(status) is not int or not 400 <= status <= 599:
        code = envelope.error.code
        status = _CODE_STATUS.get(code.upper(), 500) if isinstance(code, str) else 500
    return _from_envelope_body(status, envelope.error, redactor)


def _read_envelope(body: bytes) -> ErrorEnvelope | None:
    return None if len(body) > MOST_ENVELOPE_BYTES else decoded_or_none(_ENVELOPE, body)


def _from_envelope_body(status: int, body: ErrorBody, redactor: Redactor) -> ApiError:
    raw = body.message if isinstance(body.message, str) else ""
    own = str(body.code) if isinstance(body.code, (str, int)) else ""
    # All in one call, because each call searches for all texts of the request.
    message, cleaned, details = redactor.clean_json([raw, own, body.details])
    code = own if own in _CODE_STATUS else cleaned if _CODE.fullmatch(cleaned) else None
    kind = _classify(status, code)
    if code == "QUOTA_EXCEEDED" or (kind is RateLimitError and _MONTH.search(raw)):
        kind = QuotaExceededError
    return kind(message or "the service gave no message", status=status, code=code, details=details)


def _classify(status: int, code: str | None) -> type[ApiError]:
    if status in (401, 403) or code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "FORBIDDEN"):
        return AuthenticationError
    if status == 429 or code in ("RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS"):
        return RateLimitError
    if status == 404:
        return NotFoundError
    if status >= 500 or status in (408, 425) or (status == 409 and code == "ABORTED"):
        return ServiceError
    return InvalidRequestError if status >= 400 else ApiError
