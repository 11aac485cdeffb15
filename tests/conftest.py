import gc
import signal
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from pinecone_embed_async import DenseEmbeddings, EmbedClient, SparseEmbeddings
from pinecone_embed_async.emulator import Emulator

# What it asserts is told as fully as what a test asserts.
pytest.register_assert_rewrite("tests.interrupting")

# The same examples in every run, so that a red CI is the change's doing; the long run looks for new ones.
# No deadline: how long an example takes is the machine's doing as well.
settings.register_profile("default", settings.get_profile("default"), derandomize=True, deadline=None)
settings.load_profile("default")
# `make test-long` chooses it by --hypothesis-profile.
settings.register_profile("long", derandomize=False, max_examples=25_000, deadline=None, print_blob=True)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # What a script starts in the background is not interrupted by Ctrl-C, nor is what that starts, and tests send it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_collection_finish() -> None:
    # What is imported by now stays. A collection, which many tests ask for, need look only at what is made later.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PINECONE_API_KEY", "PINECONE_CONTROLLER_HOST", *PROXIES, *map(str.lower, PROXIES)):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator) -> AsyncIterator[EmbedClient[DenseEmbeddings]]:
    async with EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url) as opened:
        yield opened


@pytest.fixture
async def sparse_client(emulator: Emulator) -> AsyncIterator[EmbedClient[SparseEmbeddings]]:
    async with EmbedClient("pinecone-sparse-english-v0", api_key=emulator.api_key, base_url=emulator.url) as opened:
        yield opened
