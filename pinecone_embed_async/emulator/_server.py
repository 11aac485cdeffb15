"""The routes and the life of the emulated service."""

from __future__ import annotations

import asyncio
import hmac
import math
import random
import time
from email.utils import formatdate
from typing import TYPE_CHECKING, Self

import msgspec
from aiohttp import web

from pinecone_embed_async.emulator._answers import accept, compute
from pinecone_embed_async.emulator._errors import ServiceRefusal
from pinecone_embed_async.emulator._models import MODELS
from pinecone_embed_async.emulator._quota import QuotaLedger, ServiceQuota
from pinecone_embed_async.emulator._requests import EmbedRequest, read_body
from pinecone_embed_async.emulator._statistics import Statistics, Tally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    Latency = float | tuple[float, float] | Callable[[EmbedRequest], float]
    """Seconds that an answer is held back: always the same, drawn evenly between two, or by the request."""

API_VERSIONS = ("2025-04", "2025-10")
"""Versions of the API with the same `/embed`. Source: the reference, which covers both."""

DEFAULT_API_KEY = "emulator-key"


class Emulator:
    """A local service that answers `/embed`, `/models` and `/models/{name}` like the real one.

    `async with Emulator() as emulator:` starts it on a free port; the settings may be changed while it runs.

    Args:
        api_key: the key that requests must carry.
        host: the address to listen on.
        port: the port to listen on; 0 for a free one.
        quota: the limits that are enforced; none by default.
        latency: seconds that answers are held back: one number, a pair to draw between, or a function.
        reject: says of a text whether the service refuses it as content (400 INVALID_ARGUMENT).
        max_body_bytes: largest request body; a larger one is answered with 413.
        seed: of the draws of `latency`.
        clock: seconds of a clock that does not go backwards, for the quota.

    Attributes:
        api_key: as above.
        quota: as above; may be replaced while it runs.
        latency: as above; may be replaced while it runs.
        reject: as above; may be replaced while it runs.
    """

    def __init__(
        self,
        *,
        api_key: str = DEFAULT_API_KEY,
        host: str = "127.0.0.1",
        port: int = 0,
        quota: ServiceQuota | None = None,
        latency: Latency = 0.0,
        reject: Callable[[str], bool] | None = None,
        max_body_bytes: int = 4 * 2**20,
        seed: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.api_key = api_key
        self.quota = quota or ServiceQuota()
        self.latency = latency
        self.reject = reject
        self._host = host
        self._port = port
        self._max_body_bytes = max_body_bytes
        self._random = random.Random(seed)
        self._clock = clock
        self._models = {model.name: model for model in MODELS}
        self._ledger = QuotaLedger()
        self._tally = Tally()
        self._in_flight = 0
        self._changed = asyncio.Condition()
        self._released = asyncio.Event()
        self._released.set()
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        where = self.url if self._runner is not None else "not started"
        return f"<Emulator {where}, {self._tally.requests} requests>"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        """The base URL, such as `http://127.0.0.1:40123`.

        Raises:
            RuntimeError: it is not started.
        """
        if self._runner is None:
            raise RuntimeError("the emulator is not started")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        app = web.Application(client_max_size=self._max_body_bytes)
        app.router.add_post("/embed", self._embed)
        app.router.add_get("/models", self._list_models)
        app.router.add_get("/models/{name}", self._describe_model)
        # A request that is held back must not hold up the end; the client sees its connection close.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05, handler_cancellation=True)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except BaseException:
            await runner.cleanup()
            raise
        self._port = runner.addresses[0][1]
        self._runner = runner

    async def aclose(self) -> None:
        """Stop listening and close all connections; requests under way are dropped."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def statistics(self) -> Statistics:
        """What has been seen so far."""
        return self._tally.snapshot(self._in_flight, 0)

    def reset_statistics(self) -> None:
        """Count from zero again."""
        self._tally = Tally()

    def hold(self) -> None:
        """Hold back all answers until `release`; requests are received and counted."""
        self._released.clear()

    def release(self) -> None:
        """Let the answers go that `hold` has kept back."""
        self._released.set()

    async def wait_for_in_flight(self, count: int) -> None:
        """Wait until that many `/embed` requests are being answered at once."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._in_flight >= count)

    async def wait_for_requests(self, count: int) -> None:
        """Wait until that many `/embed` requests have come in."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._tally.requests >= count)

    async def _embed(self, request: web.Request) -> web.Response:
        self._tally.requests += 1
        number = self._tally.requests
        self._in_flight += 1
        self._tally.max_in_flight = max(self._tally.max_in_flight, self._in_flight)
        try:
            async with self._changed:
                self._changed.notify_all()
            return await self._answer(request, lambda: self._embed_answer(request, number))
        finally:
            self._in_flight -= 1

    async def _embed_answer(self, request: web.Request, number: int) -> web.Response:
        if request.content_type != "application/json":
            raise ServiceRefusal.invalid("Bad request. The content type must be application/json.")
        try:
            raw = await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise ServiceRefusal(413, "INVALID_ARGUMENT", "The request body is too large.") from None
        body = read_body(raw)
        model = self._models.get(body.model)
        seen = EmbedRequest(number, body.model, body.inputs, model.vector_type if model else None)
        task = accept(body, model, self.reject)
        refusal = self._ledger.decide(self.quota, self._clock(), task.model.name, task.input_type, task.tokens)
        if refusal is not None:
            raise ServiceRefusal(
                429,
                "RESOURCE_EXHAUSTED",
                refusal.message if self.quota.text else "",
                self._retry_after(refusal.wait),
            )
        await asyncio.sleep(self._delay(seen))
        await self._released.wait()
        answer = compute(task)
        self._tally.inputs_answered += len(task.texts)
        self._tally.tokens_billed += task.tokens
        self._tally.answered.update(body.inputs)
        return web.Response(body=answer.body(), content_type="application/json")

    def _delay(self, request: EmbedRequest) -> float:
        latency = self.latency
        if isinstance(latency, tuple):
            return self._random.uniform(*latency)
        return latency(request) if callable(latency) else latency

    def _retry_after(self, wait: float | None) -> dict[str, str]:
        if wait is None or self.quota.retry_after is None:
            return {}
        if self.quota.retry_after == "seconds":
            return {"Retry-After": str(math.ceil(wait))}
        return {"Retry-After": formatdate(math.ceil(time.time() + wait), usegmt=True)}

    async def _list_models(self, request: web.Request) -> web.Response:
        async def answer() -> web.Response:
            kind, vector_type = request.query.get("type"), request.query.get("vector_type")
            described = (model.to_json() for model in self._models.values())
            models = [
                model
                for model in described
                if kind in (None, model["type"]) and vector_type in (None, model.get("vector_type"))
            ]
            return _json({"models": models})

        self._tally.model_requests += 1
        return await self._answer(request, answer)

    async def _describe_model(self, request: web.Request) -> web.Response:
        async def answer() -> web.Response:
            name = request.match_info["name"]
            model = self._models.get(name)
            if model is None:
                raise ServiceRefusal(404, "NOT_FOUND", f"Model {name} not found.")
            return _json(model.to_json())

        self._tally.model_requests += 1
        return await self._answer(request, answer)

    async def _answer(self, request: web.Request, answer: Callable[[], Awaitable[web.Response]]) -> web.Response:
        try:
            self._check_headers(request)
            response = await answer()
        except ServiceRefusal as refusal:
            response = web.Response(
                status=refusal.status,
                body=refusal.body(),
                content_type="application/json",
                headers=refusal.headers,
            )
        self._tally.by_status[response.status] += 1
        return response

    def _check_headers(self, request: web.Request) -> None:
        given = request.headers.get("Api-Key", "").encode()
        if not hmac.compare_digest(given, self.api_key.encode()):
            raise ServiceRefusal(401, "UNAUTHENTICATED", "Invalid API key.")
        version = request.headers.get("X-Pinecone-Api-Version")
        if version is None:
            raise ServiceRefusal.invalid("Bad request. The header X-Pinecone-Api-Version is required.")
        if version not in API_VERSIONS:
            raise ServiceRefusal.invalid(f"Bad request. Unknown API version {version[:20]!r}.")


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")
