"""Fixtures of pinecone-embed-async for pytest, which loads this module by itself; see docs/testing.md.

Nothing of the package is imported before a test asks for a fixture: it would slow down every start of pytest, and run before
whatever measures coverage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pinecone_embed_async.emulator import EmbedRequest, Fault, FaultName
    from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator


class InjectFault(Protocol):
    """What `pinecone_faults` gives; see `LocalEmulator.inject`."""

    def __call__(
        self, fault: Fault | FaultName | str, *, times: int = 1, when: Callable[[EmbedRequest], bool] | None = None
    ) -> None:
        """Commit a fault with the next requests."""


@pytest.fixture
def pinecone_emulator(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalEmulator]:
    """A local service on a free port; PINECONE_API_KEY and PINECONE_CONTROLLER_HOST point clients at it during the test."""
    from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator  # noqa: PLC0415 - see above

    with LocalEmulator() as emulator:
        for name, value in emulator.environment.items():
            monkeypatch.setenv(name, value)
        yield emulator


@pytest.fixture
def pinecone_faults(pinecone_emulator: LocalEmulator) -> InjectFault:
    """A function that has the local service commit a fault: `pinecone_faults("status=503", times=2)`."""
    return pinecone_emulator.inject
