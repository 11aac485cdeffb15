"""A local emulator for the adapters of frameworks, and a check that they leave no thread behind."""

import threading
from collections.abc import Iterator

import pytest

from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pinecone-embedding")]


@pytest.fixture
def local(pinecone_emulator: LocalEmulator) -> LocalEmulator:
    """An emulator that the environment points to."""
    return pinecone_emulator
