"""Pinecone's hosted models as LangChain `Embeddings`. Needs the extra `langchain`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings

from pinecone_embed_async import ConfigurationError, EmbedClient
from pinecone_embed_async._models import KNOWN_MODELS
from pinecone_embed_async._threads import OwnLoopThread
from pinecone_embed_async.integrations._closing import ClosableAdapter
from pinecone_embed_async.integrations._rows import as_lists

if TYPE_CHECKING:
    from pinecone_embed_async import DenseEmbeddings

NAMES = {
    "pinecone_api_key": "api_key",
    "batch_size": "max_batch_size",
    "chunk_size": "max_batch_size",
    "dimensions": "dimension",
}
"""Other packages' names for options of `EmbedClient`. Source: `PineconeEmbeddings` of langchain-pinecone 0.2.13, and
`OpenAIEmbeddings` of langchain-openai 1.7.4 for `chunk_size` and `dimensions`."""

CURES = {
    "max_retries": "pass retry=RetryPolicy(max_attempts=…), which counts the first attempt and no rejections for a limit",
    "request_timeout": "pass attempt_timeout=…, for one attempt",
    "timeout": "pass attempt_timeout=…, for one attempt, or retry=RetryPolicy(max_elapsed=…), for all attempts of a request",
    "openai_api_key": "pass pinecone_api_key=…, a key of Pinecone",
    "openai_api_base": "pass base_url=…, an address of Pinecone's service",
    "model_kwargs": "pass query_params=… and document_params=…",
}
"""What to pass instead of an option that is ambiguous or belongs to another service."""


class AsyncPineconeEmbeddings(ClosableAdapter, Embeddings):
    """Embeds documents and queries with one of Pinecone's hosted dense models.

    The asynchronous methods run in the caller's event loop; concurrent queries share a request. The blocking methods use an
    event loop in a thread of their own, so they work with or without a running loop; like every blocking call, they block a
    running one.

    Close it with `aclose`, `close`, `async with` or `with`. Otherwise its connections close when the event loops that used
    them close, when it is garbage-collected, or when the interpreter exits.

    Args:
        model: name of the hosted model.
        document_input_type: the `input_type` of documents; `None` for models that take none.
        query_input_type: the `input_type` of queries; `None` for models that take none.
        document_params: further parameters for documents, such as `{"truncate": "NONE"}`. An `input_type` in it overrides
            `document_input_type`.
        query_params: the same for queries.
        show_progress_bar: whether to show a progress bar while documents are embedded.
        options: options of `EmbedClient`. You may also pass its `api_key` as `pinecone_api_key`, `max_batch_size` as
            `batch_size` or `chunk_size`, and `dimension` as `dimensions`; a key may be a `SecretStr`.

    Attributes:
        model: as above.
        client: the underlying client, for example for `statistics()`.

    Raises:
        ConfigurationError: an argument is invalid, such as a sparse model, or an option is given under two names.
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
            # Fails for invalid arguments now and not at the first call.
            self.client.estimate([], parameters=parameters)
        self._thread = OwnLoopThread("pinecone-embeddings", self, self.client)

    def __repr__(self) -> str:
        """Show the model, without the key."""
        return f"<AsyncPineconeEmbeddings {self.model!r}>"

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents; list i of the result belongs to text i.

        Raises:
            EmbedError: as for `EmbedClient.embed`; its `partial` has what was embedded.
        """
        result = await self.client.embed(texts, parameters=self._document_parameters, progress=self._shows_progress)
        return await as_lists(result.vectors)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query; concurrent queries share a request.

        Raises:
            EmbedError: as for `EmbedClient.embed_one`.
        """
        vector: list[float] = (await self.client.embed_one(text, parameters=self._query_parameters)).tolist()
        return vector

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents and wait for the result; see `aembed_documents`."""
        return self._thread.get().run(self.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """Embed a query and wait for the result; see `aembed_query`."""
        return self._thread.get().run(self.aembed_query(text))


def _as_ours(model: str, options: dict[str, Any]) -> dict[str, Any]:
    """Rename options to the names of `EmbedClient`.

    Raises:
        ConfigurationError: an option is given under two names, or is not supported.
    """
    given: dict[str, str] = {}
    ours: dict[str, Any] = {}
    for name, value in options.items():
        if name in CURES:
            raise ConfigurationError(f"{name} is not an option of AsyncPineconeEmbeddings: {CURES[name]}")
        own = NAMES.get(name, name)
        if own in given:
            raise ConfigurationError(f"{given[own]} and {name} are two names for one option: pass only one of them")
        given[own] = name
        # A key may be a `SecretStr`.
        ours[own] = getattr(value, "get_secret_value", lambda value=value: value)() if own == "api_key" else value
    known = KNOWN_MODELS.get(model)
    if known is not None and "dimension" not in known.choices and ours.get("dimension") == known.dimension:
        # langchain-pinecone accepts the dimension of a model that has only one, and does not send it.
        del ours["dimension"]
    return ours


def _parameters(input_type: str | None, name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    if given is not None and not isinstance(given, Mapping):
        raise ConfigurationError(f"{name} must be a mapping of parameters, got {type(given).__name__}")
    own = {} if input_type is None else {"input_type": input_type}
    return {**own, **(given or {})}
