import email.utils
import json
from typing import Any

import pytest
from multidict import CIMultiDict

from pinecone_embed_async import (
    ApiError,
    AuthenticationError,
    InvalidRequestError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ServiceError,
)
from pinecone_embed_async._wire import Redactor, error_from_envelope, error_from_response
from pinecone_embed_async._wire.errors import parse_retry_after

MONTH = (
    "Request failed. You've reached the embedding token limit (5000000) for model multilingual-e5-large for the current "
    "month. To continue using this model, upgrade your plan."
)
MINUTE = (
    "Request failed. You've reached the max embedding tokens per minute (250000) model 'm' and input type 'passage' "
    "for the current project."
)


def answered(status: int, body: Any = b"", **headers: str) -> ApiError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return error_from_response(status, named, raw, redactor=Redactor("pcsk_key"), now=0)


def envelope(code: Any = "UNKNOWN", message: Any = "m", **rest: Any) -> dict[str, Any]:
    return {"status": 1, "error": {"code": code, "message": message, **rest}}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, NotFoundError),
        (408, ServiceError),
        (413, InvalidRequestError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, ServiceError),
        (503, ServiceError),
        (529, ServiceError),
        (307, ApiError),
        (399, ApiError),
        (425, ServiceError),
        (499, InvalidRequestError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>secret page</html>", b'{"error": {"cod'])
def test_bodies_without_an_envelope_become_an_error_with_the_status_and_are_not_shown(
    status: int, kind: type, body: bytes
) -> None:
    error = answered(status, body, Content_Type="text/html; charset=utf-8")
    assert type(error) is kind
    assert error.status == status
    assert error.code is None
    assert "secret" not in str(error)
    said = "a body of type text/html that is not an error message" if body else "no error message"
    redirects = "; redirects are not followed, because they would forward the key: check base_url" if status < 400 else ""
    assert error.message == f"the service answered HTTP {status} with {said}{redirects}"


@pytest.mark.parametrize(("status", "is_redirect"), [(299, False), (300, True)])
def test_only_a_redirect_is_called_one(status: int, *, is_redirect: bool) -> None:
    assert ("redirects" in answered(status).message) is is_redirect


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(409, "ABORTED", ServiceError), (409, "ALREADY_EXISTS", InvalidRequestError), (400, "ABORTED", InvalidRequestError)],
)
def test_only_an_aborted_request_is_worth_another_try_after_a_conflict(status: int, code: str, kind: type) -> None:
    assert type(answered(status, envelope(code))) is kind


def test_an_envelope_of_64_kib_is_read_and_none_beyond() -> None:
    body = json.dumps(envelope("UNAVAILABLE")).encode()
    assert answered(503, body.ljust(65_536)).code == "UNAVAILABLE"
    assert answered(503, body.ljust(65_537)).code is None


def test_a_monthly_quota_is_distinguished_from_a_rate_limit() -> None:
    assert type(answered(429, envelope("RESOURCE_EXHAUSTED", MONTH))) is QuotaExceededError
    assert type(answered(429, envelope("RESOURCE_EXHAUSTED", MINUTE))) is RateLimitError
    assert type(answered(429, envelope("QUOTA_EXCEEDED", "x"))) is QuotaExceededError


@pytest.mark.parametrize("code", [8, "NEW_CODE", None, {"a": 1}])
def test_unknown_codes_break_nothing(code: Any) -> None:
    error = answered(500, envelope(code))
    assert error.code == (str(code) if isinstance(code, (int, str)) else None)


@pytest.mark.parametrize("details", [None, {"a": [1, {"b": "c"}]}, "text", 7, [1]])
def test_details_of_any_type_are_kept(details: Any) -> None:
    assert answered(400, envelope(details=details)).details == details


def test_an_envelope_with_status_200_is_that_error() -> None:
    redactor = Redactor("pcsk_key")
    found = error_from_envelope(
        json.dumps({"status": 429, "error": {"code": "RESOURCE_EXHAUSTED", "message": MINUTE}}).encode(), redactor=redactor
    )
    assert type(found) is RateLimitError
    assert found.status == 429
    by_code = error_from_envelope(json.dumps(envelope("UNAVAILABLE")).encode(), redactor=redactor)
    assert by_code is not None
    assert by_code.status == 503
    assert error_from_envelope(b'{"data": []}', redactor=redactor) is None


CODES = {
    400: ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"),
    401: ("UNAUTHENTICATED",),
    403: ("PERMISSION_DENIED", "FORBIDDEN"),
    404: ("NOT_FOUND",),
    409: ("ALREADY_EXISTS", "ABORTED"),
    429: ("RESOURCE_EXHAUSTED", "TOO_MANY_REQUESTS", "QUOTA_EXCEEDED"),
    500: ("UNKNOWN", "INTERNAL", "DATA_LOSS", "a new one", 7, None),
    501: ("UNIMPLEMENTED",),
    503: ("UNAVAILABLE", "unavailable"),
    504: ("DEADLINE_EXCEEDED",),
}


@pytest.mark.parametrize(("status", "code"), [(status, code) for status, codes in CODES.items() for code in codes])
def test_an_envelope_with_status_200_has_the_status_of_its_code(status: int, code: Any) -> None:
    found = error_from_envelope(json.dumps(envelope(code)).encode(), redactor=Redactor("pcsk_key"))
    assert found is not None
    assert found.status == status


@pytest.mark.parametrize(
    ("given", "status"), [(400, 400), (599, 599), (399, 503), (600, 503), ("429", 503), (429.0, 503), (None, 503)]
)
def test_an_envelope_with_status_200_has_its_own_status_if_it_is_that_of_an_error(given: Any, status: int) -> None:
    body = {**envelope("UNAVAILABLE"), "status": given}
    found = error_from_envelope(json.dumps(body).encode(), redactor=Redactor("pcsk_key"))
    assert found is not None
    assert found.status == status


def test_the_request_id_and_the_wait_are_read_from_the_headers() -> None:
    error = answered(503, envelope("UNAVAILABLE"), X_Request_Id="abc-1", Retry_After="7")
    assert (error.request_id, error.retry_after) == ("abc-1", 7)
    assert str(error) == "503 UNAVAILABLE: m [request abc-1]"
    assert answered(503, X_Request_Id="a b\n").request_id is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("1.5", 1.5),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 30),
        ("Thu, 01 Jan 1970 00:00:30 -0000", 30),
        ("Wed, 31 Dec 1969 23:59:00 GMT", None),
        ("-1", None),
        ("inf", None),
        ("nan", None),
        ("1e3", None),
        ("soon", None),
        ("", None),
        ("٧", None),
        ("9" * 50, None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_invalid_values_are_ignored(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=0) == seconds


def http_date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


NOW = 1_900_000_000.0


@pytest.mark.parametrize(
    ("until", "date", "seconds"),
    [
        (NOW + 92, http_date(NOW + 90), 2),
        (NOW - 88, http_date(NOW - 90), 2),
        (NOW - 10**7 + 2, http_date(NOW - 10**7), 2),
        (NOW + 90, http_date(NOW + 92), None),
        (NOW + 90, http_date(NOW + 90), None),
        (NOW + 90 + 86_400, http_date(NOW + 90), 86_400),
        (NOW + 91 + 86_400, http_date(NOW + 90), 91 + 86_400),
        (NOW + 92, http_date(NOW + 90).ljust(64), 2),
        (NOW + 92, http_date(NOW + 90).ljust(65), 92),
        (NOW + 7, None, 7),
        (NOW + 7, "soon", 7),
        (NOW + 7, "", 7),
        (NOW + 7, http_date(0), 7),
        (NOW + 7, http_date(NOW + 10**8), 7),
    ],
)
def test_a_retry_date_is_measured_from_the_answers_own_date_if_plausible(
    until: float, date: str | None, seconds: float | None
) -> None:
    headers = {"retry-after": http_date(until)} | ({} if date is None else {"date": date})
    error = error_from_response(503, headers, b"", redactor=Redactor("pcsk_key"), now=NOW)
    assert error.retry_after == seconds
