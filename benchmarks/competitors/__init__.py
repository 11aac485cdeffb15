"""The ways of embedding that are compared.

One module per library, so that a competitor's process imports nothing else. A module has one function,
`open_embedder(target, ...)`: an async context manager that yields a coroutine function, which takes the inputs and returns
the result.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from benchmarks.seeded import SparseRows

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from benchmarks.seeded import Kind, Load

    Embed = Callable[[list[str]], Awaitable["Result"]]

API_KEY = "benchmark"
API_VERSION = "2026-07"
HEADERS = {"Api-Key": API_KEY, "X-Pinecone-Api-Version": API_VERSION, "Content-Type": "application/json"}
"""Headers of a hand-written request."""

READ_BUFFER = 2**20
"""Bytes of aiohttp's read buffer: enough for half an answer, so that reading does not pause thirty times per answer."""


@dataclass(frozen=True)
class Received:
    """The floor's result: a byte count.

    Attributes:
        bytes: Bytes of the answers' bodies.
    """

    bytes: int


@dataclass(frozen=True)
class Kept:
    """Results as a library returns them, not converted to float32 while the clock runs.

    Attributes:
        objects: The library's result, kept alive until the memory has been read.
        matrix: Converts it to a matrix, to compare it with the server's vectors.
    """

    objects: Any
    matrix: Callable[[], npt.NDArray[np.float32]]


Result = npt.NDArray[np.float32] | SparseRows | Received | Kept


@dataclass(frozen=True)
class Target:
    """What a competitor connects to.

    Attributes:
        url: URL of the server, with scheme and port.
        load: Which vectors it returns.
        concurrency: Most requests in flight.
    """

    url: str
    load: Load
    concurrency: int


@dataclass(frozen=True)
class Competitor:
    """One way of embedding.

    Attributes:
        name: Name on the command line and in the JSON.
        title: Title in tables and plots.
        module: Its module in this package.
        options: Keyword arguments of the module's `open_embedder`.
        needs: Optional packages it needs; without them the competitor is left out, and the report says so.
        kinds: Types of vectors it supports.
        loop: The event loop it runs on.
    """

    name: str
    title: str
    module: str
    options: tuple[tuple[str, Any], ...] = ()
    needs: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ("dense", "sparse")
    loop: str = "asyncio"

    @property
    def missing(self) -> str | None:
        """The first needed package that is not installed; `None` if it can take part."""
        return next((name for name in self.needs if importlib.util.find_spec(name) is None), None)

    def open(self, target: Target) -> AbstractAsyncContextManager[Embed]:
        """Import the competitor's module and open its embedder."""
        module = importlib.import_module(f"{__name__}.{self.module}")
        embedder = module.open_embedder(target, **dict(self.options))
        return cast("AbstractAsyncContextManager[Embed]", embedder)


MSGSPEC, NATIVE = "msgspec", "native"
MODULE = "pinecone_embed_async._wire._native"
HAND_MSGSPEC, HAND_SIMDJSON = "hand-msgspec", "hand-simdjson"
OFFICIAL, BASETEN, FLOOR = "official", "baseten", "floor"

COMPETITORS = {
    competitor.name: competitor
    for competitor in (
        Competitor(MSGSPEC, "EmbedClient (msgspec)", "client", (("decoder", "msgspec"),)),
        Competitor(NATIVE, "EmbedClient (native)", "client", (("decoder", "native"),), (MODULE,)),
        Competitor(
            "native-uvloop",
            "EmbedClient (native) on uvloop",
            "client",
            (("decoder", "native"),),
            (MODULE, "uvloop"),
            loop="uvloop",
        ),
        Competitor(HAND_MSGSPEC, "by hand: aiohttp + msgspec", "hand", (("decoder", "msgspec"),)),
        Competitor(
            HAND_SIMDJSON, "by hand: aiohttp + simdjson", "hand", (("decoder", "simdjson"),), ("simdjson",), ("dense",)
        ),
        Competitor("json", "by hand: aiohttp + json", "hand", (("decoder", "json"),)),
        Competitor(OFFICIAL, "official SDK, to float32", "official", (("kept", False),), ("pinecone",)),
        Competitor("official-kept", "official SDK, as returned", "official", (("kept", True),), ("pinecone",), ("dense",)),
        Competitor(
            BASETEN,
            "baseten, embed (own wire)",
            "baseten",
            (("call", "embed"),),
            ("baseten_performance_client",),
            ("dense",),
        ),
        Competitor(
            "baseten-post", "baseten, batch_post", "baseten", (("call", "batch_post"),), ("baseten_performance_client",)
        ),
        Competitor(FLOOR, "floor: aiohttp, thrown away", "floor"),
    )
}
