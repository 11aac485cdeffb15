"""Faults of connections and of HTTP itself, carried out on a request's transport."""

from __future__ import annotations

import asyncio
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
from pinecone_embed_async.emulator._quota import tokens_per_minute_text, tokens_per_month_text
from pinecone_embed_async.emulator._spoiling import HTML_PAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp.abc import AbstractStreamWriter

    from pinecone_embed_async.emulator._requests import EmbedRequest

_JSON = "application/json"
_PIECES = 20
_MEBIBYTE = 1 << 20
# Ends nowhere, so that the body is no JSON even for a client that would take all of it.
_ENDLESS_START = b'{"model":"'


class Finished(web.StreamResponse):
    """Tells aiohttp that the connection has been dealt with: nothing more is written, and it is closed.

    Args:
        status: The status that was sent, `None` if none was.
    """

    def __init__(self, status: int | None = None) -> None:
        super().__init__()
        self.sent_status = status

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Stop aiohttp from writing.

        Raises:
            ConnectionResetError: Always; aiohttp then closes the connection in silence.
        """
        raise ConnectionResetError


def reset(request: web.BaseRequest) -> None:
    """Reset the connection of a request; what was written before is sent if the kernel has taken it."""
    transport = request.transport
    if transport is None:
        return
    raw = transport.get_extra_info("socket")
    if raw is not None:
        # Lingering for no time makes closing a reset (RST) instead of an orderly end (FIN).
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def retry_after_header(value: str) -> dict[str, str]:
    """Make the `Retry-After` header of a fault's value.

    Args:
        value: `date` and `date+SECONDS` or `date-SECONDS` from now; `negative`, `huge`, `rubbish`; any other text as it
            is; empty for no header.
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
    """Write a time from now as an HTTP date (RFC 9110, 5.6.7), rounded up to whole seconds."""
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
    """Do nothing for some seconds, then reset; without seconds until the client leaves."""
    if seconds is None:
        await asyncio.get_running_loop().create_future()
    else:
        await asyncio.sleep(seconds)
        reset(request)


# Faults instead of the service's work.


def _status(fault: Fault, request: web.BaseRequest) -> web.StreamResponse:
    answer = fault.status_answer
    status = answer.status
    if status < 200:
        _write(request, _head(status, {}))
        return Finished(status)
    headers = retry_after_header(answer.retry_after)
    body = envelope(status, code_of(status), f"Status {status}.")
    if status in {204, 304} or answer.body == "empty":
        return web.Response(status=status, headers=headers)
    if answer.body == "html":
        return web.Response(body=HTML_PAGE, status=status, content_type="text/html", headers=headers)
    if answer.body == "cut":
        body = body[: len(body) // 2]
    return _json(body, status, headers)


def _refusal(fault: Fault, message: str, code: str = "RESOURCE_EXHAUSTED") -> web.Response:
    return _json(envelope(429, code, message), 429, retry_after_header(fault.value))


async def strike_instead(fault: Fault, request: web.BaseRequest, seen: EmbedRequest) -> web.StreamResponse:
    """Commit a fault that is not billed, except `connection_refused`, which the server commits itself.

    Args:
        fault: The fault.
        request: The request whose connection suffers.
        seen: The same request as read.
    """
    match fault.name:
        case FaultName.RESET_BEFORE_HEADERS | FaultName.CONNECTION_REFUSED:
            reset(request)
        case FaultName.CLOSED_BEFORE_HEADERS:
            pass
        case FaultName.STALLED_HEADERS:
            await _stall(request, fault.number)
        case FaultName.GARBAGE_STATUS_LINE:
            _write(request, b"SSH-2.0-teapot not http\r\n\r\nhello\r\n")
        case FaultName.STATUS:
            return _status(fault, request)
        case FaultName.RATE_LIMITED:
            return _refusal(fault, tokens_per_minute_text(250_000, seen.model, "passage"))
        case FaultName.RATE_LIMITED_WITHOUT_TEXT:
            return _refusal(fault, "")
        case FaultName.REQUEST_RATE_LIMITED:
            return _refusal(
                fault,
                "Request failed. You've reached the max inference requests per second (100) for the current project.",
                "TOO_MANY_REQUESTS",
            )
        case FaultName.MONTH_QUOTA_SPENT:
            return _refusal(fault, tokens_per_month_text(5_000_000, seen.model))
        case FaultName.QUOTA_EXCEEDED:
            return _refusal(fault, "The project's quota is exceeded.", "QUOTA_EXCEEDED")
        case FaultName.REDIRECT:
            status, url = fault.redirect
            return web.Response(status=status, headers={"Location": url})
        case FaultName.ERROR_IN_200:
            status = int(fault.value)
            return _json(envelope(status, code_of(status), f"Status {status} inside."))
        case _:
            _not_here(fault)
    return Finished()


# Faults on the way back.


async def _reset_during_headers(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    head = _head_of(body)
    _write(request, head[: len(head) // 2])
    reset(request)
    return Finished()


async def _reset_after_headers(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    _write(request, _head_of(body))
    reset(request)
    return Finished(200)


async def _cut_off_body(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    _write(request, _head_of(body) + body[: len(body) // 2])
    return Finished(200)


async def _stalled_body(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    _write(request, _head_of(body) + body[: len(body) // 2])
    await _stall(request, fault.number)
    return Finished(200)


async def _slow_drip(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    _write(request, _head_of(body))
    size = max(1, -(-len(body) // _PIECES))
    for start in range(0, len(body), size):
        await asyncio.sleep((fault.number or 0) / _PIECES)
        _write(request, body[start : start + size])
    return Finished(200)


async def _oversized_header(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return _json(body, headers={"X-Padding": "x" * 65536})


async def _lying_gzip(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return _json(body, headers={"Content-Encoding": "gzip"})


async def _compressed(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return _json(zlib.compress(body, level=1, wbits=31), headers={"Content-Encoding": "gzip"})


@functools.lru_cache(maxsize=4)
def gzip_bomb(mebibytes: int) -> bytes:
    """Make gzip of one endless JSON text; packed once for a mebibyte, then repeated, so that it is quick to make."""
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


async def _gzip_bomb(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    return _json(gzip_bomb(int(fault.value)), headers={"Content-Encoding": "gzip"})


async def _gigantic_body(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": _JSON})
    response.enable_chunked_encoding()
    filler = b"x" * (_MEBIBYTE // 4)
    try:
        await response.prepare(request)
        await response.write(_ENDLESS_START)
        for _ in range(4 * int(fault.value)):
            await response.write(filler)
    except ConnectionError:
        return Finished(200)
    return response


async def _informational(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    _write(request, _head(int(fault.value), {"Link": "</models>; rel=preload"}))
    return _json(body)


_ON_THE_WAY_BACK: dict[FaultName, Callable[[Fault, web.BaseRequest, bytes], Awaitable[web.StreamResponse]]] = {
    FaultName.RESET_DURING_HEADERS: _reset_during_headers,
    FaultName.RESET_AFTER_HEADERS: _reset_after_headers,
    FaultName.CUT_OFF_BODY: _cut_off_body,
    FaultName.STALLED_BODY: _stalled_body,
    FaultName.SLOW_DRIP: _slow_drip,
    FaultName.OVERSIZED_HEADER: _oversized_header,
    FaultName.LYING_GZIP: _lying_gzip,
    FaultName.GZIP_BOMB: _gzip_bomb,
    FaultName.GIGANTIC_BODY: _gigantic_body,
    FaultName.INFORMATIONAL: _informational,
    FaultName.COMPRESSED: _compressed,
}


async def strike_back(fault: Fault, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Send a right answer in a wrong way.

    Args:
        fault: A billed fault that is not one of the body, except `keep_alive_close`, which the server commits itself.
        request: The request whose connection suffers.
        body: The right answer.
    """
    strike = _ON_THE_WAY_BACK.get(fault.name)
    if strike is None:
        _not_here(fault)
    return await strike(fault, request, body)


def _not_here(fault: Fault) -> NoReturn:
    raise LookupError(f"fault {fault.name.value} is committed elsewhere")
