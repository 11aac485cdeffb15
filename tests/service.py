"""A service whose answers a test writes itself, for what the emulator does not say or do."""

from collections.abc import Callable
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from pinecone_embed_async import DenseEmbeddings, EmbedClient
from tests.clients import QUICK


class Service:
    """A real local server whose answers a test writes itself."""

    def __init__(self, *answers: Callable[[], web.Response], last: Callable[[], web.Response] | None = None) -> None:
        self._answers = list(answers)
        self._last = last or dense_answer
        self.requests: list[web.Request] = []
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._server = TestServer(app)

    async def _handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return self._answers.pop(0)() if self._answers else self._last()

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        self.url = str(self._server.make_url("")).rstrip("/")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    def client(self, model: str = "one-number", **options: Any) -> EmbedClient[DenseEmbeddings]:
        options = {"retry": QUICK, "look_up_model": False, **options}
        return EmbedClient(model, vector_type="dense", api_key="k", base_url=self.url, **options)


def dense_answer(*numbers: float) -> web.Response:
    data = [{"values": [number], "vector_type": "dense"} for number in numbers or (1.0,)]
    return web.json_response({"model": "m", "vector_type": "dense", "data": data, "usage": {"total_tokens": 1}})


def status(code: int, **headers: str) -> Callable[[], web.Response]:
    return lambda: web.Response(status=code, headers={name.replace("_", "-"): value for name, value in headers.items()})
