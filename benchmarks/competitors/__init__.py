"""The ways of embedding that are measured side by side.

One module for each library, so that a competitor's process imports nothing but its own. A module has one
function, ``open_embedder(target)``: an async context manager over a coroutine function that takes the inputs
and returns their vectors, or, for the floor, the number of bytes that came back.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    import numpy as np
    import numpy.typing as npt
    from seeded import Load

    Result = npt.NDArray[np.float32] | int
    Embed = Callable[[list[str]], Awaitable[Result]]

API_KEY = "benchmark"


@dataclass(frozen=True)
class Target:
    """What a competitor is pointed at.

    Attributes:
        url: Of the server, with its scheme and port.
        load: Which vectors it answers.
        concurrency: Requests in flight at the same time, at most.
    """

    url: str
    load: Load
    concurrency: int


@dataclass(frozen=True)
class Competitor:
    """One way of embedding.

    Attributes:
        name: On the command line and in the JSON.
        title: In tables.
        module: Of this package.
        options: Keyword arguments of its ``open_embedder``.
        optional_import: What may be missing; the competitor is then left out, and it is said so.
    """

    name: str
    title: str
    module: str
    options: tuple[tuple[str, Any], ...] = ()
    optional_import: str | None = None

    @property
    def available(self) -> bool:
        """Whether its optional import is installed."""
        return self.optional_import is None or importlib.util.find_spec(self.optional_import) is not None

    def open(self, target: Target) -> AbstractAsyncContextManager[Embed]:
        """Import the competitor and return its open embedder."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        embedder = module.open_embedder(target, **dict(self.options))
        return cast("AbstractAsyncContextManager[Embed]", embedder)


OFFICIAL = "official"

COMPETITORS = {
    competitor.name: competitor
    for competitor in (
        Competitor("msgspec", "EmbedClient, default install (msgspec)", "client", (("decoder", "msgspec"),)),
        Competitor("simdjson", "EmbedClient, [fast] (pysimdjson)", "client", (("decoder", "simdjson"),), "simdjson"),
        Competitor("json", "bare aiohttp + json", "bare"),
        Competitor(OFFICIAL, "official pinecone SDK, async", "official"),
        Competitor("floor", "floor: aiohttp, thrown away", "floor"),
    )
}
