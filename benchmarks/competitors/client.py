"""``pinecone_embed_async``, as its users call it: one ``embed`` for all inputs."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from competitors import API_KEY
from pinecone_embed_async import EmbedClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import numpy as np
    import numpy.typing as npt

    from competitors import Embed, Target


@asynccontextmanager
async def open_embedder(target: Target, decoder: Literal["msgspec", "simdjson"]) -> AsyncIterator[Embed]:
    """Open the client with default settings but for the decoder, which is forced so that it is sure."""
    async with EmbedClient(
        target.load.model,
        vector_type="dense",
        api_key=API_KEY,
        base_url=target.url,
        max_concurrency=target.concurrency,
        decoder=decoder,
    ) as client:

        async def embed(texts: list[str]) -> npt.NDArray[np.float32]:
            result = await client.embed(texts, input_type="passage", parameters=target.load.parameters)
            return result.vectors

        yield embed
