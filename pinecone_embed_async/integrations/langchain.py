"""Pinecone's hosted models as `Embeddings` of LangChain. Needs the extra `langchain`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from pinecone_embed_async import EmbedClient
from pinecone_embed_async._threads import OwnLoopThread

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from pinecone_embed_async import DenseEmbeddings

ROWS_AT_ONCE = 96
"""Rows that become lists before the event loop runs again: those of one answer."""


class AsyncPineconeEmbeddings(Embeddings):
    """Embeds documents and queries with one of Pinecone's hosted dense models.

    The asynchronous methods run in the caller's event loop; concurrent queries share a request. Their
    blocking twins run in an event loop in a thread of its own, so that they work with or without a running loop; they block
    a running one, as every blocking call does.

    Close it with `aclose`, `close`, `async with` or `with`. If it is not closed, it ends with the event loops that used it,
    and with the interpreter.

    Args:
        model: name of the hosted model.
        document_input_type: the `input_type` of documents; `None` for models that take none.
        query_input_type: the `input_type` of queries; `None` for models that take none.
        options: as for `EmbedClient`.

    Attributes:
        model: as above.
        client: the underlying client; for `statistics()`, say.

    Raises:
        ConfigurationError: an argument cannot work, a sparse model say.
    """

    def __init__(
        self,
        model: str,
        *,
        document_input_type: str | None = "passage",
        query_input_type: str | None = "query",
        **options: Any,
    ) -> None:
        self.model = model
        self.client: EmbedClient[DenseEmbeddings] = EmbedClient(model, vector_type="dense", **options)
        self._document_input_type = document_input_type
        self._query_input_type = query_input_type
        self._thread = OwnLoopThread("pinecone-embeddings")

    def __repr__(self) -> str:
        """Show what it is, without the key."""
        return f"<AsyncPineconeEmbeddings {self.model!r}>"

    def __enter__(self) -> Self:
        """Return itself; it is open already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    async def __aenter__(self) -> Self:
        """Return itself; it is open already."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        await self.aclose()

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents; list i of the result belongs to text i.

        Raises:
            EmbedError: as `EmbedClient.embed`; what did succeed is in its `partial`.
        """
        result = await self.client.embed(texts, input_type=self._document_input_type)
        return await _as_lists(result.vectors)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query, in one request with concurrent ones.

        Raises:
            EmbedError: as `EmbedClient.embed_one`.
        """
        vector: list[float] = (await self.client.embed_one(text, input_type=self._query_input_type)).tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents, and wait for it; see `aembed_documents`."""
        return self._thread.get().run(self.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, and wait for it; see `aembed_query`."""
        return self._thread.get().run(self.aembed_query(text))

    async def aclose(self) -> None:
        """End the calls that run in this event loop and in the thread, and close their connections."""
        await self.client.aclose()
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """End the calls of the blocking methods, and close their connections. Those of other event loops close with them."""
        self._thread.close(self.client.aclose())


async def _as_lists(vectors: NDArray[np.float32]) -> list[list[float]]:
    lists: list[list[float]] = []
    for start in range(0, len(vectors), ROWS_AT_ONCE):
        lists += vectors[start : start + ROWS_AT_ONCE].tolist()
        await asyncio.sleep(0)
    return lists
