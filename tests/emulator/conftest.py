from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from tests.emulator.asking import Asking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pinecone_embed_async.emulator import Emulator


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as opened:
        yield opened


@pytest.fixture
def ask(emulator: Emulator, session: aiohttp.ClientSession) -> Asking:
    return Asking(emulator, session)
