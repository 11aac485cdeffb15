"""A stand-in for an index's data plane, as far as the official SDK's `upsert` needs one."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer


class Index:
    """Keeps what is upserted.

    Attributes:
        vectors: by namespace and id, as they came.
        documents: the same of documents.
        delivered: how often each id came.
        fails_at: the number of the upsert that is answered with an error; 0 for none.
        requests: how many upserts came.
        max_in_flight: how many of them at once.
    """

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, str], dict[str, Any]] = {}
        self.documents: dict[tuple[str, str], dict[str, Any]] = {}
        self.delivered: Counter[str] = Counter()
        self.fails_at = 0
        self.requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        app = web.Application(client_max_size=2 * 2**20)
        app.router.add_post("/vectors/upsert", self._upsert)
        app.router.add_post("/namespaces/{namespace}/documents/upsert", self._upsert_documents)
        self._server = TestServer(app)

    async def _upsert(self, request: web.Request) -> web.Response:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            body = await request.json()
        finally:
            self.in_flight -= 1
        if self.requests == self.fails_at:
            return web.json_response({"status": 500, "error": {"code": "INTERNAL", "message": "down"}}, status=500)
        for vector in body["vectors"]:
            self.delivered[vector["id"]] += 1
            self.vectors[body.get("namespace", ""), vector["id"]] = vector
        return web.json_response({"upsertedCount": len(body["vectors"])})

    async def _upsert_documents(self, request: web.Request) -> web.Response:
        self.requests += 1
        if self.requests == self.fails_at:
            return web.json_response({"status": 500, "error": {"code": "INTERNAL", "message": "down"}}, status=500)
        documents = (await request.json())["documents"]
        for document in documents:
            self.delivered[document["_id"]] += 1
            self.documents[request.match_info["namespace"], document["_id"]] = document
        return web.json_response({"upserted_count": len(documents)})

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    @property
    def url(self) -> str:
        return str(self._server.make_url("")).rstrip("/")
