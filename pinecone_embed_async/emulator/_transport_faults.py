"""Faults of connections and of HTTP, injected into a request's transport."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import math
import socket
import struct
import time
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, NoReturn

from aiohttp import web

from pinecone_embed_async.emulator._errors import code_of, envelope
from pinecone_embed_async.emulator._faults import Fault, FaultName
from pinecone_embed_async.emulator._quota import (
    requests_per_second_text,
    tokens_per_minute_text,
    tokens_per_month_text,
)
from pinecone_embed_async.emulator._spoiling import HTML_PAGE

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter

    from pinecone_embed_async.emulator._requests import EmbedRequest

_JSON = "application/json"
_PIECES = 20
_MEBIBYTE = 1 << 20
# The string is never closed, so the body is not valid JSON even for a client that reads all of it.
_ENDLESS_START = b'{"model":"'


class Finished(web.StreamResponse):
    """Makes aiohttp write nothing more and close the connection.

    Args:
        status: The status that was sent; `None` if none was.
    """

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.sent_status = status

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:  # noqa: ARG002 - aiohttp's signature
        """Keep aiohttp from writing.

        Raises:
            ConnectionResetError: Always; aiohttp then closes the connection silently.
        """
        raise ConnectionResetError


def reset(request: web.BaseRequest) -> None:
    """Reset a request's connection; earlier writes that are not sent yet are lost."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        # A linger time of 0 makes closing send a reset (RST) instead of a normal end (FIN).
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def retry_after_header(value: str) -> dict[str, str]:
    """Create the `Retry-After` header for a fault's value.

    Args:
        value: `date+SECONDS` or `date-SECONDS` for a time relative to now, or `date` for one second from now; `negative`,
            `huge` or `rubbish` for a value of that kind; any other text is sent unchanged; empty for no header.
    """
    if not value:
        return {}
    known = {"negative": "-1", "huge": "9" * 30, "rubbish": "soon; perhaps"}
    if value.startswith("date"):
        try:
            ahead = float(value.removeprefix("date") or 1)
        except ValueError:
            return {"Retry-After": value}
        return {"Retry-After": http_date(ahead)}
    return {"Retry-After": known.get(value, value)}


def http_date(seconds_ahead: float) -> str:
    """Format a time relative to now as an HTTP date (RFC 9110, 5.6.7), rounded up to a second."""
    return email.utils.formatdate(math.ceil(time.time() + seconds_ahead), usegmt=True)


def _head(status: int, headers: dict[str, str]) -> bytes:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Unassigned"
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def _head_of(body: bytes) -> bytes:
    return _head(200, {"Content-Type": _JSON, "Content-Length": str(len(body)), "Connection": "close"})


def _write(request: web.BaseRequest, data: bytes) -> None:
    if request.transport is not None:
        request.transport.write(data)


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, content_type=_JSON, headers=headers)


async def _stall(request: web.BaseRequest, seconds: float | None) -> None:
    """Do nothing for some seconds, then reset; without seconds, wait until the client disconnects."""
    if seconds is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(seconds)
        reset(request)


# Faults instead of the service's work.


async def strike_instead(fault: Fault, request: web.BaseRequest, seen: EmbedRequest) -> web.StreamResponse:
    """Inject a fault that is not billed. For `connection_refused`, only reset this connection: the server does the rest.

    Args:
        fault: The fault.
        request: The request whose connection gets the fault.
        seen: The same request, parsed.
    """
    match fault.name:
        case FaultName.RESET_BEFORE_HEADERS | FaultName.CONNECTION_REFUSED:
            reset(request)
        case FaultName.STALLED_HEADERS:
            await _stall(request, fault.number)
        case FaultName.GARBAGE_STATUS_LINE:
            _write(request, b"SSH-2.0-teapot not http\r\n\r\nhello\r\n")
        case FaultName.STATUS if fault.status_answer.status < 200:
            status = fault.status_answer.status
            _write(request, _head(status, {}))
            return Finished(status)
        case FaultName.CLOSED_BEFORE_HEADERS:
            pass
        case _:
            return _refusal(fault, seen)
    return Finished()


def _refusal(fault: Fault, seen: EmbedRequest) -> web.Response:
    match fault.name:
        case FaultName.STATUS:
            return _status(fault)
        case FaultName.RATE_LIMITED:
            return _too_many(fault, tokens_per_minute_text(250_000, seen.model, seen.input_type))
        case FaultName.RATE_LIMITED_WITHOUT_TEXT:
            return _too_many(fault, "")
        case FaultName.REQUEST_RATE_LIMITED:
            return _too_many(fault, requests_per_second_text(100), "TOO_MANY_REQUESTS")
        case FaultName.MONTH_QUOTA_SPENT:
            return _too_many(fault, tokens_per_month_text(5_000_000, seen.model))
        case FaultName.QUOTA_EXCEEDED:
            return _too_many(fault, "The project's quota is exceeded.", "QUOTA_EXCEEDED")
        case FaultName.REDIRECT:
            status, url = fault.redirect
            return web.Response(status=status, headers={"Location": url})
        case FaultName.ERROR_IN_200:
            status = int(fault.value)
            return _json(envelope(status, code_of(status), f"Status {status} inside."))
    return _not_here(fault)


def _status(fault: Fault) -> web.Response:
    answer = fault.status_answer
    status = answer.status
    headers = retry_after_header(answer.retry_after)
    # Responses with these statuses have no body (RFC 9110, 15.3.5 and 15.4.5).
    if status in {204, 304} or answer.body == "empty":
        return web.Response(status=status, headers=headers)
    if answer.body == "html":
        return web.Response(body=HTML_PAGE, status=status, content_type="text/html", headers=headers)
    body = envelope(status, code_of(status), f"Status {status}.")
    if answer.body == "cut":
        body = body[: len(body) // 2]
    return _json(body, status, headers)


def _too_many(fault: Fault, message: str, code: str = "RESOURCE_EXHAUSTED") -> web.Response:
    return _json(envelope(429, code, message), 429, retry_after_header(fault.value))


# Faults while the answer is sent.


async def strike_back(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Send a correct answer in a faulty way.

    Args:
        fault: A billed fault that is not in the body, except `keep_alive_close`, which the server injects itself.
        request: The request whose connection gets the fault.
        body: The correct answer.
    """
    head = _head_of(body)
    match fault.name:
        case FaultName.RESET_DURING_HEADERS:
            _write(request, head[: len(head) // 2])
            reset(request)
            return Finished()
        case FaultName.RESET_AFTER_HEADERS:
            _write(request, head)
            reset(request)
        case FaultName.CUT_OFF_BODY:
            _write(request, head + body[: len(body) // 2])
        case FaultName.STALLED_BODY:
            _write(request, head + body[: len(body) // 2])
            await _stall(request, fault.number)
        case FaultName.SLOW_DRIP:
            await _drip(request, head, body, fault.number or 0.0)
        case FaultName.GIGANTIC_BODY:
            await _stream_endless(request, int(fault.value))
        case _:
            return _odd_answer(fault, request, body)
    return Finished(200)


async def _drip(request: web.BaseRequest, head: bytes, body: bytes, seconds: float) -> None:
    _write(request, head)
    size = max(1, -(-len(body) // _PIECES))
    for start in range(0, len(body), size):
        await asyncio.sleep(seconds / _PIECES)
        _write(request, body[start : start + size])


async def _stream_endless(request: web.BaseRequest, mebibytes: int) -> None:
    response = web.StreamResponse(headers={"Content-Type": _JSON})
    response.enable_chunked_encoding()
    response.force_close()
    filler = b"x" * (_MEBIBYTE // 4)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        await response.write(_ENDLESS_START)
        for _ in range(4 * mebibytes):
            await response.write(filler)
        await response.write_eof()


def _odd_answer(fault: Fault, request: web.BaseRequest, body: bytes) -> web.Response:
    match fault.name:
        case FaultName.OVERSIZED_HEADER:
            return _json(body, headers={"X-Padding": "x" * 65536})
        case FaultName.LYING_GZIP:
            return _json(body, headers={"Content-Encoding": "gzip"})
        case FaultName.COMPRESSED:
            return _json(zlib.compress(body, level=1, wbits=31), headers={"Content-Encoding": "gzip"})
        case FaultName.GZIP_BOMB:
            return _json(gzip_bomb(int(fault.value)), headers={"Content-Encoding": "gzip"})
        case FaultName.INFORMATIONAL:
            _write(request, _head(int(fault.value), {"Link": "</models>; rel=preload"}))
            return _json(body)
    return _not_here(fault)


@functools.lru_cache(maxsize=4)
def gzip_bomb(mebibytes: int) -> bytes:
    """Create gzip data of one unterminated JSON string; one mebibyte is compressed once and repeated, which is fast."""
    filler = b"x" * _MEBIBYTE
    packer = zlib.compressobj(level=9, wbits=-15)
    start = packer.compress(_ENDLESS_START) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(filler) + packer.flush(zlib.Z_FULL_FLUSH)
    end = packer.flush(zlib.Z_FINISH)
    checksum = zlib.crc32(_ENDLESS_START)
    for _ in range(mebibytes):
        checksum = zlib.crc32(filler, checksum)
    length = (len(_ENDLESS_START) + mebibytes * _MEBIBYTE) & 0xFFFFFFFF
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
    return header + start + block * mebibytes + end + struct.pack("<II", checksum, length)


def _not_here(fault: Fault) -> NoReturn:
    raise LookupError(f"fault {fault.name.value} is injected elsewhere")
