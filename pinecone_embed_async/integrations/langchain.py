"""Pinecone's hosted models as `Embeddings` of LangChain. Needs the extra `langchain`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from pinecone_embed_async import ConfigurationError, EmbedClient
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async._threads import OwnLoopThread
from pinecone_embed_async.integrations._rows import as_lists

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from pinecone_embed_async import DenseEmbeddings

NAMES = {
    "pinecone_api_key": "api_key",
    "batch_size": "max_batch_size",
    "chunk_size": "max_batch_size",
    "dimensions": "dimension",
}
"""What others call an option of `EmbedClient`. Source: `PineconeEmbeddings` of langchain-pinecone 0.2.13, and
`OpenAIEmbeddings` of langchain-openai 1.7.4 for `chunk_size` and `dimensions`."""

CURES = {
    "max_retries": "pass retry=RetryPolicy(max_attempts=…), which counts the first attempt and no rejections for a limit",
    "request_timeout": "pass attempt_timeout=…, for one attempt",
    "timeout": "pass attempt_timeout=…, for one attempt, or retry=RetryPolicy(max_elapsed=…), for all attempts of a request",
    "openai_api_key": "pass pinecone_api_key=…, a key of Pinecone",
    "openai_api_base": "pass base_url=…, an address of Pinecone's service",
    "model_kwargs": "pass query_params=… and document_params=…",
}
"""What to pass instead of an option that could mean several things, or belongs to another service."""


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
        document_params: further parameters of documents, such as `{"truncate": "NONE"}`. An `input_type` in it goes before
            `document_input_type`.
        query_params: the same for queries.
        show_progress_bar: show a bar while documents are embedded.
        options: as for `EmbedClient`. Also its `api_key` as `pinecone_api_key`, `max_batch_size` as `batch_size` or
            `chunk_size`, and `dimension` as `dimensions`; a key may be a `SecretStr`.

    Attributes:
        model: as above.
        client: the underlying client; for `statistics()`, say.

    Raises:
        ConfigurationError: an argument cannot work, a sparse model say, or is given under two names.
    """

    def __init__(
        self,
        model: str,
        *,
        document_input_type: str | None = "passage",
        query_input_type: str | None = "query",
        document_params: Mapping[str, Any] | None = None,
        query_params: Mapping[str, Any] | None = None,
        show_progress_bar: bool = False,
        **options: Any,
    ) -> None:
        self.model = model
        self.client: EmbedClient[DenseEmbeddings] = EmbedClient(model, vector_type="dense", **_as_ours(model, options))
        self._document_parameters = _parameters(document_input_type, "document_params", document_params)
        self._query_parameters = _parameters(query_input_type, "query_params", query_params)
        self._shows_progress = show_progress_bar
        for parameters in (self._document_parameters, self._query_parameters):
            # What cannot work is said here, not at the first call.
            self.client.estimate([], parameters=parameters)
        self._thread = OwnLoopThread("pinecone-embeddings", self, self.client)

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
        result = await self.client.embed(texts, parameters=self._document_parameters, progress=self._shows_progress)
        return await as_lists(result.vectors)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query, in one request with concurrent ones.

        Raises:
            EmbedError: as `EmbedClient.embed_one`.
        """
        vector: list[float] = (await self.client.embed_one(text, parameters=self._query_parameters)).tolist()
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
        self._thread.close()


def _as_ours(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options under the names that `EmbedClient` has for them.

    Raises:
        ConfigurationError: one is given under two names, or means something else here.
    """
    given: dict[str, str] = {}
    ours: dict[str, Any] = {}
    for name, value in options.items():
        if name in CURES:
            raise ConfigurationError(f"{name} is no option of AsyncPineconeEmbeddings: {CURES[name]}")
        own = NAMES.get(name, name)
        if own in given:
            raise ConfigurationError(f"{given[own]} and {name} are two names for one option: pass one of them")
        given[own] = name
        # A key may be a `SecretStr`.
        ours[own] = getattr(value, "get_secret_value", lambda value=value: value)() if own == "api_key" else value
    known = KNOWN_MODELS.get(model)
    if known is not None and "dimension" not in known.choices and ours.get("dimension") == known.dimension:
        # langchain-pinecone has the dimension of a model that has only one, and sends none.
        del ours["dimension"]
    return ours


def _parameters(input_type: str | None, name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise ConfigurationError(f"{name} must be a mapping of parameters, got {type(given).__name__}")
    own = {} if input_type is None else {"input_type": input_type}
    return {**own, **(given or {})}
