from __future__ import annotations

import pytest
from aiohttp import web

from pinecone_embed_async.emulator._connections import Connections


async def test_what_was_never_opened_has_no_port_and_can_be_closed() -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response()

    connections = Connections(answer, lambda: None)
    with pytest.raises(RuntimeError, match="not started"):
        connections.listener  # noqa: B018 - looking is what raises
    connections.doom(None)
    await connections.close()
    assert len(connections) == 0
