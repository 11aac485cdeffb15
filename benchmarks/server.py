"""The local service the benchmarks run against: `/embed`, `/models`, `/v1/embeddings`, as fast as Python can send.

It runs in its own process. It prints its port on one line once it is ready, listens on 127.0.0.1 only, and ends when its
standard input closes, so it never outlives its parent.

All vectors are written as JSON into one buffer before the port is printed. The answer to inputs with consecutive numbers is
a slice of that buffer, sent without copying. `GET /statistics` returns counts of what was served, so that a competitor's
results can be checked.

`/v1/embeddings` is OpenAI's wire format, used by clients of other services: the same numbers with the same digits.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import resource
import socket
import sys
import threading
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from benchmarks.seeded import KINDS, MAX_BATCH, NUMBER_WIDTH, PERIOD, PRECISIONS, Load, dense_vectors, sparse_vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

MAX_HEAD = 64 * 1024
MAX_REQUEST = 16 * 1024 * 1024
TOKENS_PER_INPUT = 100

_DENSE_START, _DENSE_END = '{"values":[', '],"vector_type":"dense"}'
_OPENAI_STARTS = tuple(f'{{"object":"embedding","index":{index},"embedding":['.encode() for index in range(MAX_BATCH))

_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TRANSFER_ENCODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 411: "Length Required", 413: "Content Too Large"}


class _Input(msgspec.Struct):
    text: str


class _Request(msgspec.Struct):
    model: str
    inputs: list[_Input]
    parameters: dict[str, Any] = {}


class _OpenAIRequest(msgspec.Struct):
    model: str
    input: list[str]


_request_decoder = msgspec.json.Decoder(_Request)
_openai_request_decoder = msgspec.json.Decoder(_OpenAIRequest)


class RequestError(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = "NOT_FOUND" if status == 404 else "INVALID_ARGUMENT"


def decimals(values: npt.NDArray[np.float32]) -> list[str]:
    """Write every number in full, without an exponent, so that parsing it as a double gives the same number."""
    different, where = np.unique(values, return_inverse=True)
    written = [format(Decimal(repr(value)), "f") for value in different.tolist()]
    return [written[index] for index in where.ravel().tolist()]


class Rows:
    """The vectors as JSON in one buffer; the first ones are repeated at the end so that a slice can wrap."""

    def __init__(self, rows: Sequence[bytes]) -> None:
        repeated = [*rows, *rows[: MAX_BATCH - 1]]
        self._joined = memoryview(b",".join(repeated))
        self._starts = np.cumsum([0, *(len(row) + 1 for row in repeated)]).tolist()

    def select(self, numbers: Sequence[int]) -> list[memoryview | bytes]:
        """Return the vectors of these inputs, separated by commas, in pieces."""
        first = numbers[0] % PERIOD
        if len(numbers) <= MAX_BATCH and all(after == before + 1 for before, after in pairwise(numbers)):
            return [self._slice(first, first + len(numbers))]
        return [b",".join(self.one(number) for number in numbers)]

    def one(self, number: int) -> memoryview:
        """Return the vector of one input."""
        return self._slice(number % PERIOD, number % PERIOD + 1)

    def _slice(self, first: int, end: int) -> memoryview:
        return self._joined[self._starts[first] : self._starts[end] - 1]


def dense_rows(load: Load) -> Rows:
    """Encode the dense vectors, each as an item of an answer's `data`."""
    vectors = dense_vectors(load)
    written = decimals(vectors)
    rows = (",".join(written[start : start + load.dimension]) for start in range(0, vectors.size, load.dimension))
    return Rows([f"{_DENSE_START}{row}{_DENSE_END}".encode() for row in rows])


def sparse_rows(load: Load) -> Rows:
    """Encode the sparse vectors, each as an item of an answer's `data`."""
    vectors = sparse_vectors(load)
    written = decimals(vectors.values)
    bounds = pairwise([0, *np.cumsum(vectors.lengths).tolist()])
    rows = ((",".join(written[start:end]), ",".join(map(str, vectors.indices[start:end].tolist()))) for start, end in bounds)
    return Rows(
        [f'{{"sparse_values":[{row}],"sparse_indices":[{places}],"vector_type":"sparse"}}'.encode() for row, places in rows]
    )


def describe_model(name: str, load: Load) -> dict[str, Any]:
    """Describe a model as `GET /models/{name}` does. Every name is known here."""
    parameters: list[dict[str, Any]] = [
        {
            "parameter": "input_type",
            "type": "one_of",
            "value_type": "string",
            "required": True,
            "allowed_values": ["query", "passage"],
        }
    ]
    info: dict[str, Any] = {
        "model": name,
        "short_description": "Seeded vectors of a benchmark",
        "type": "embed",
        "vector_type": "sparse" if _is_sparse(name) else "dense",
        "modality": "text",
        "max_sequence_length": 2048,
        "max_batch_size": MAX_BATCH,
        "provider_name": "benchmark",
        "supported_parameters": parameters,
    }
    if not _is_sparse(name):
        info |= {"default_dimension": load.dimension, "supported_dimensions": [load.dimension]}
    return info


def _is_sparse(model: str) -> bool:
    return "sparse" in model


@dataclass
class Statistics:
    """Counts of what was served so far."""

    connections: int = 0
    embed_requests: int = 0
    errors: int = 0
    inputs: int = 0
    embed_bytes: int = 0  # of bodies, without HTTP headers

    def snapshot(self) -> dict[str, float]:
        """Return the counts and the CPU seconds used by this process."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {**vars(self), "cpu_seconds": usage.ru_utime + usage.ru_stime}


_EMBED = frozenset({b"POST /embed", b"POST /v1/embeddings"})


class Service:
    """Answers requests, independently of sockets."""

    def __init__(self, load: Load) -> None:
        self.statistics = Statistics()
        self._load = load
        self._rows = sparse_rows(load) if load.kind == "sparse" else dense_rows(load)

    def answer(self, target: bytes, body: memoryview) -> list[bytes | memoryview]:
        """Return the answer to a request, head first, in pieces to be sent one after another."""
        statistics = self.statistics
        try:
            if target in _EMBED:
                pieces = self._embed(body) if target == b"POST /embed" else self._openai(body)
                length = sum(map(len, pieces))
                statistics.embed_requests += 1
                statistics.embed_bytes += length
                return [_head(200, length), *pieces]
            encoded = msgspec.json.encode(self._other(target))
        except RequestError as error:
            statistics.errors += 1
            return _error(error)
        return [_head(200, len(encoded)), encoded]

    def _embed(self, body: memoryview) -> list[bytes | memoryview]:
        try:
            request = _request_decoder.decode(body)
            numbers = [int(item.text[:NUMBER_WIDTH]) for item in request.inputs]
        except ValueError as error:
            raise RequestError(400, f"The request could not be read: {error}") from error
        self._check(numbers, request.model)
        if _is_sparse(request.model) != (self._load.kind == "sparse"):
            raise RequestError(400, f"This server was started for {self._load.kind} vectors")
        if self._load.kind == "dense" and request.parameters.get("dimension", self._load.dimension) != self._load.dimension:
            raise RequestError(400, f"This server was started with dimension {self._load.dimension}")
        start = f'{{"model":"{request.model}","vector_type":"{self._load.kind}","data":['
        end = f'],"usage":{{"total_tokens":{TOKENS_PER_INPUT * len(numbers)}}}}}'
        return [start.encode(), *self._rows.select(numbers), end.encode()]

    def _openai(self, body: memoryview) -> list[bytes | memoryview]:
        try:
            request = _openai_request_decoder.decode(body)
            numbers = [int(text[:NUMBER_WIDTH]) for text in request.input]
        except ValueError as error:
            raise RequestError(400, f"The request could not be read: {error}") from error
        self._check(numbers, request.model)
        if self._load.kind == "sparse":
            raise RequestError(400, "This wire format has no sparse vectors")
        pieces: list[bytes | memoryview] = [b'{"object":"list","data":[']
        for index, number in enumerate(numbers):
            values = self._rows.one(number)[len(_DENSE_START) : -len(_DENSE_END)]
            pieces += [_OPENAI_STARTS[index], values, b"]}," if index + 1 < len(numbers) else b"]}"]
        tokens = TOKENS_PER_INPUT * len(numbers)
        end = f'],"model":"{request.model}","usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}'
        return [*pieces, end.encode()]

    def _check(self, numbers: Sequence[int], model: str) -> None:
        if not 1 <= len(numbers) <= MAX_BATCH:
            message = f"Input length '{len(numbers)}' exceeded inputs limit of {MAX_BATCH}"
            raise RequestError(400, f"{message} for model '{model}'")
        self.statistics.inputs += len(numbers)

    def _other(self, target: bytes) -> object:
        method, _, path = target.decode("latin-1").partition(" ")
        if (method, path) == ("GET", "/statistics"):
            return self.statistics.snapshot()
        if (method, path) == ("GET", "/models"):
            return {"models": [describe_model(self._load.model, self._load)]}
        if method == "GET" and path.startswith("/models/"):
            return describe_model(path.removeprefix("/models/"), self._load)
        raise RequestError(404, f"Nothing is served at {method} {path}")


def _head(status: int, length: int) -> bytes:
    lines = (
        f"HTTP/1.1 {status} {_REASONS[status]}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _error(error: RequestError) -> list[bytes | memoryview]:
    envelope = {"status": error.status, "error": {"code": error.code, "message": str(error)}}
    body = msgspec.json.encode(envelope)
    return [_head(error.status, len(body)), body]


async def _send(connection: socket.socket, pieces: Iterable[bytes | memoryview]) -> None:
    """Send the pieces, as many per system call as possible, and wait while the socket is full.

    This is not a transport, because `transport.write` would copy what is left of every answer.
    """
    views = deque(memoryview(piece) for piece in pieces if len(piece))
    while views:
        try:
            sent = connection.sendmsg(list(islice(views, _MOST_PIECES)))
        except BlockingIOError:
            await _writable(connection)
            continue
        while views and sent >= len(views[0]):
            sent -= len(views.popleft())
        if sent:
            views[0] = views[0][sent:]


_MOST_PIECES = 1024
"""Most pieces per system call: `IOV_MAX` on Linux and macOS."""


async def _writable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(connection, wake)
    try:
        await ready
    finally:
        loop.remove_writer(connection)


def _request_length(head: bytes | bytearray) -> int:
    if _TRANSFER_ENCODING.search(head):
        raise RequestError(411, "This server requires Content-Length")
    found = _CONTENT_LENGTH.search(head)
    length = int(found[1]) if found else 0
    if length > MAX_REQUEST:
        raise RequestError(413, f"The request is larger than {MAX_REQUEST} bytes")
    return length


async def _serve(connection: socket.socket, service: Service, service_time: float) -> None:
    """Answer a connection's requests until it closes; embeddings after `service_time` seconds."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    service.statistics.connections += 1
    received = bytearray()
    with connection, contextlib.suppress(ConnectionError):
        while True:
            while (head_end := received.find(b"\r\n\r\n")) < 0 and len(received) <= MAX_HEAD:
                if not (chunk := await loop.sock_recv(connection, 256 * 1024)):
                    return
                received += chunk
            if head_end < 0:
                return
            head = bytes(received[:head_end])
            try:
                end = head_end + 4 + _request_length(head)
            except RequestError as error:
                await _send(connection, _error(error))
                return
            while len(received) < end:
                if not (chunk := await loop.sock_recv(connection, 256 * 1024)):
                    return
                received += chunk
            target = head.partition(b"\r\n")[0].rpartition(b" ")[0]
            pieces = service.answer(target, memoryview(bytes(received[head_end + 4 : end])))
            del received[:end]
            if service_time and target == b"POST /embed":
                await asyncio.sleep(service_time)
            await _send(connection, pieces)
            if _CLOSE.search(head):
                return


async def _accept(listener: socket.socket, service: Service, service_time: float) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        while True:
            connection, _ = await loop.sock_accept(listener)
            group.create_task(_serve(connection, service, service_time))


async def serve(load: Load, service_time: float = 0.0) -> None:
    """Listen on a free port of 127.0.0.1, print it, and serve until standard input closes."""
    service = Service(load)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wait_for_end() -> None:
        # `os.read`, because a thread that holds a buffered reader's lock disturbs the interpreter's shutdown
        while os.read(0, 1024):
            pass
        with contextlib.suppress(RuntimeError):  # the loop has already ended
            loop.call_soon_threadsafe(ended.set)

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        listener.setblocking(False)
        accepting = asyncio.create_task(_accept(listener, service, service_time))
        threading.Thread(target=wait_for_end, daemon=True).start()
        print(listener.getsockname()[1], flush=True)
        await asyncio.wait({accepting, asyncio.create_task(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
        accepting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await accepting


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0],
        epilog="Prints its port once it is ready; ends when its standard input closes.",
    )
    parser.add_argument("--kind", choices=KINDS, default="dense", help="kind of vectors (default dense)")
    parser.add_argument("--dimension", type=int, default=1024, help="dimension of dense vectors (default 1024)")
    parser.add_argument("--precision", choices=PRECISIONS, default="half", help="precision of the numbers (default half)")
    parser.add_argument("--seed", type=int, default=2, help="seed of the vectors (default 2)")
    parser.add_argument("--service-time", type=float, default=0.0, help="seconds before an answer (default 0)")
    options = parser.parse_args(arguments)
    if not 1 <= options.dimension <= 4096:
        parser.error("--dimension must be between 1 and 4096")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(Load(options.kind, options.dimension, options.precision, options.seed), options.service_time))
    return 0


if __name__ == "__main__":
    sys.exit(main())
