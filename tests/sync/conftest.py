from collections.abc import AsyncIterator

import pytest

from pinecone_embed_async.emulator import Emulator
from tests import clients
from tests.clients import E5, SPARSE
from tests.sync.modules import MAKERS, MODULES
from tests.sync.twin import Twin


@pytest.fixture(autouse=True)
def _blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (clients, *MAKERS, *MODULES):
        monkeypatch.setattr(module, "EmbedClient", Twin, raising=False)


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[Twin]:
    async with Twin(E5, api_key=emulator.api_key, base_url=emulator.url) as opened:
        yield opened


@pytest.fixture
async def sparse_client(emulator: Emulator) -> AsyncIterator[Twin]:
    async with Twin(SPARSE, api_key=emulator.api_key, base_url=emulator.url) as opened:
        yield opened
