"""What is sent, seen where one answer is enough and no server is needed."""

import json
from collections.abc import Mapping
from types import SimpleNamespace

import aiohttp
import pytest
from aioresponses import CallbackResult, aioresponses
from yarl import URL

from pinecone_embed_async import EmbedClient

ANSWER = {"model": "m", "vector_type": "dense", "data": [{"values": [1.0] * 1024}], "usage": {"total_tokens": 1}}


class Response(aiohttp.ClientResponse):
    """Takes what aiohttp 3.14 requires of a response and aioresponses 0.7.9 does not pass."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **options})  # type: ignore[arg-type]


async def test_requests_go_to_pinecone_with_the_documented_headers_and_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PINECONE_API_KEY", "pcsk_1")
    sent: dict[str, object] = {}

    def answer(url: URL, **options: object) -> CallbackResult:
        sent.update(options)
        return CallbackResult(payload=ANSWER, response_class=Response)

    with aioresponses() as service:
        service.post("https://api.pinecone.io/embed", callback=answer)
        async with EmbedClient("multilingual-e5-large", parameters={"truncate": "NONE"}) as client:
            await client.embed(["é"], input_type="passage")
    assert isinstance(sent["data"], bytes)
    assert json.loads(sent["data"]) == {
        "model": "multilingual-e5-large",
        "inputs": [{"text": "é"}],
        "parameters": {"truncate": "NONE", "input_type": "passage"},
    }
    headers = sent["headers"]
    assert isinstance(headers, Mapping)
    assert headers["Api-Key"] == "pcsk_1"
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Pinecone-Api-Version"] == "2026-07"
    assert sent["allow_redirects"] is False
