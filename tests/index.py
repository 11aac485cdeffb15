"""A stand-in for an index's data plane, as far as the official SDK's `upsert` needs one."""

from __future__ import annotations

from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer


class Index:
    """Keeps what is upserted.

    Attributes:
        vectors: by namespace and id, as they came.
        requests: how many upserts came.
        max_in_flight: how many of them at once.
    """

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        app = web.Application(client_max_size=2 * 2**20)
        app.router.add_post("/vectors/upsert", self._upsert)
        self._server = TestServer(app)

    async def _upsert(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            body = await request.json()
        finally:
            self.in_flight -= 1
        for vector in body["vectors"]:
            self.vectors[body.get("namespace", ""), vector["id"]] = vector
        return web.json_response({"upsertedCount": len(body["vectors"])})

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")
