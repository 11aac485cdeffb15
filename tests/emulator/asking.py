"""A bare client of aiohttp's own: the emulator is not tested with the library that it is to test."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import aiohttp
    from multidict import CIMultiDictProxy
    from numpy.typing import NDArray

    from pinecone_embed_async.emulator import Emulator

E5 = "multilingual-e5-large"
LLAMA = "llama-text-embed-v2"
SPARSE = "pinecone-sparse-english-v0"


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: CIMultiDictProxy[str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        envelope = self.json
        assert envelope["status"] == self.status
        return str(envelope["error"]["code"])

    @property
    def message(self) -> str:
        return str(self.json["error"]["message"])

    @property
    def vectors(self) -> NDArray[np.float64]:
        assert self.status == 200, self.body[:300]
        return np.array([item["values"] for item in self.json["data"]])


@dataclass(frozen=True)
class Asking:
    emulator: Emulator
    session: aiohttp.ClientSession

    def headers(self, **changed: str | None) -> dict[str, str]:
        sent: dict[str, str | None] = {
            "Api-Key": self.emulator.api_key,
            "X-Pinecone-Api-Version": "2025-10",
            "Content-Type": "application/json",
        }
        sent.update({name.replace("_", "-"): value for name, value in changed.items()})
        return {name: value for name, value in sent.items() if value is not None}

    async def raw(self, body: bytes, headers: Mapping[str, str] | None = None) -> Reply:
        async with self.session.post(
            f"{self.emulator.url}/embed",
            data=body,
            headers=self.headers() if headers is None else headers,
            allow_redirects=False,
            skip_auto_headers=["Content-Type"],
        ) as response:
            return Reply(response.status, await response.read(), response.headers)

    async def embed(self, *texts: str, model: str = E5, parameters: dict[str, Any] | None = None) -> Reply:
        return await self.raw(request_body(texts, model, parameters))

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        async with self.session.get(
            self.emulator.url + path, headers=self.headers() if headers is None else headers
        ) as response:
            return Reply(response.status, await response.read(), response.headers)


def request_body(texts: Sequence[str], model: str = E5, parameters: dict[str, Any] | None = None) -> bytes:
    sent: dict[str, Any] = {"model": model, "inputs": [{"text": text} for text in texts]}
    sent["parameters"] = {"input_type": "passage"} | (parameters or {})
    return json.dumps(sent).encode()
