"""Pinecone's hosted models as a LlamaIndex `BaseEmbedding`. Needs the extra `llama-index`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding, dispatcher
from llama_index.core.bridge.pydantic import Field, PrivateAttr, SecretStr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent

from pinecone_embed_async import EmbedClient
from pinecone_embed_async._threads import OwnLoopThread
from pinecone_embed_async.integrations._closing import ClosableAdapter
from pinecone_embed_async.integrations._rows import as_lists

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from pinecone_embed_async import DenseEmbeddings


class AsyncPineconeEmbedding(ClosableAdapter, BaseEmbedding):
    """Embeds texts and queries with one of Pinecone's hosted dense models.

    The asynchronous methods run in the caller's event loop; concurrent queries share a request. The blocking methods use an
    event loop in a thread of their own, so they work with or without a running loop; like every blocking call, they block a
    running one. A batch of texts goes to the client as a whole; the client sends as many requests at a time as the quota and
    `max_concurrency` allow.

    A copy has the same options. The output of `to_dict` has only the fields; a pickle also has the options. Neither has the
    key: on loading, it is read from `PINECONE_API_KEY`.

    Close it with `aclose`, `close`, `async with` or `with`. Otherwise its connections close when the event loops that used
    them close, when it is garbage-collected, or when the interpreter exits.

    Args:
        model_name: name of the hosted model.
        api_key: the key, as text or a `SecretStr`; by default that of `PINECONE_API_KEY`.
        options: the fields below, those of `BaseEmbedding`, and options of `EmbedClient`, such as `quota`.

    Attributes:
        model_name: as above; this and the next five attributes cannot be changed.
        text_input_type: the `input_type` of texts; `None` for models that take none.
        query_input_type: the `input_type` of queries; `None` for models that take none.
        dimension: dimension of the vectors, for models that offer a choice.
        truncate: what to do with a text that is too long; by default, the model's own default.
        embed_batch_size: maximum number of texts in one request; in other LlamaIndex embeddings, in one call.

    Raises:
        ConfigurationError: an argument is invalid, such as a sparse model.
        pydantic.ValidationError: a field has the wrong type or is out of range.
    """

    model_name: str = Field(description="The name of the hosted model.", frozen=True)
    text_input_type: str | None = Field(default="passage", description="The input_type of texts.", frozen=True)
    query_input_type: str | None = Field(default="query", description="The input_type of queries.", frozen=True)
    dimension: int | None = Field(default=None, description="Dimension of the vectors.", frozen=True)
    truncate: str | None = Field(default=None, description="What to do with a text that is too long.", frozen=True)
    embed_batch_size: int = Field(
        default=96, description="Maximum number of texts in one request.", gt=0, le=2048, frozen=True
    )

    _options: dict[str, Any] = PrivateAttr()
    _client: EmbedClient[DenseEmbeddings] = PrivateAttr()
    _thread: OwnLoopThread = PrivateAttr()

    def __init__(self, model_name: str, *, api_key: str | SecretStr | None = None, **options: Any) -> None:
        fields = {name: options.pop(name) for name in type(self).model_fields if name in options}
        super().__init__(model_name=model_name, **fields)
        # So that a repr of the options, for instance in an error report, does not show the key.
        key = SecretStr(api_key) if isinstance(api_key, str) else api_key
        self._options = {**options, "api_key": key}
        self._client = EmbedClient(
            self.model_name,
            vector_type="dense",
            api_key=key.get_secret_value() if isinstance(key, SecretStr) else key,
            dimension=self.dimension,
            truncate=self.truncate,
            max_batch_size=self.embed_batch_size,
            **options,
        )
        for input_type in (self.text_input_type, self.query_input_type):
            # Invalid arguments fail now, not at the first call.
            self._client.estimate([], input_type=input_type)
        self._thread = OwnLoopThread("pinecone-embedding", self, self._client)

    def __repr__(self) -> str:
        """Show the model, without the key."""
        return f"<AsyncPineconeEmbedding {self.model_name!r}>"

    def __str__(self) -> str:
        """The same as `repr`; that of the base class shows every field."""
        return repr(self)

    @classmethod
    def class_name(cls) -> str:
        """The name of the class in `to_dict`."""
        return "AsyncPineconeEmbedding"

    @property
    def client(self) -> EmbedClient[DenseEmbeddings]:
        """The underlying client, for example for `statistics()`."""
        return self._client

    def __copy__(self) -> Self:
        """A copy with the same options and its own connections."""
        return type(self)(**self._fields(), **self._options)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """The same as a shallow copy: the cache, the hooks and the quota are shared."""
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle fields and options, without the key and without fields that LlamaIndex does not serialize.

        An option that cannot be pickled raises an error; LlamaIndex would leave it out.
        """
        fields = {name: value for name, value in self._fields().items() if not type(self).model_fields[name].exclude}
        options = {name: value for name, value in self._options.items() if name != "api_key"}
        return _remade, (type(self), {**fields, **options})

    def _fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in type(self).model_fields}

    def get_text_embedding_batch(
        self,
        texts: list[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        **kwargs: Any,  # noqa: ARG002 - the same
    ) -> list[list[float]]:
        """Embed texts in one call of the client; list i of the result belongs to text i.

        Args:
            texts: the texts, any number.
            show_progress: whether to show the client's progress bar; ignored with an `embeddings_cache`.
            kwargs: not used.

        Raises:
            EmbedError: as for `EmbedClient.embed`; its `partial` has what was embedded.
        """
        if not texts:
            return []
        with self._reported(texts) as embeddings:
            if self.rate_limiter is not None:
                self.rate_limiter.acquire()
            if self.embeddings_cache is not None:
                embeddings.extend(self._get_text_embeddings_cached(texts))
            else:
                embeddings.extend(self._thread.get().run(self._embed(texts, shows_progress=show_progress)))
        return embeddings

    async def aget_text_embedding_batch(
        self,
        texts: list[str],
        show_progress: bool = False,  # noqa: FBT001, FBT002 - the base class's signature
        **kwargs: Any,  # noqa: ARG002 - the same
    ) -> list[list[float]]:
        """Embed texts in one call of the client; see `get_text_embedding_batch`."""
        if not texts:
            return []
        with self._reported(texts) as embeddings:
            if self.rate_limiter is not None:
                await self.rate_limiter.async_acquire()
            if self.embeddings_cache is not None:
                embeddings.extend(await self._aget_text_embeddings_cached(texts))
            else:
                embeddings.extend(await self._embed(texts, shows_progress=show_progress))
        return embeddings

    @contextlib.contextmanager
    def _reported(self, texts: list[str]) -> Iterator[list[list[float]]]:
        """Report a batch to LlamaIndex's instrumentation and callbacks; the block must fill the yielded list."""
        embeddings: list[list[float]] = []
        payload = self.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=payload))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: payload}) as event:
            yield embeddings
            event.on_end(payload={EventPayload.CHUNKS: texts, EventPayload.EMBEDDINGS: embeddings})
        dispatcher.event(EmbeddingEndEvent(chunks=texts, embeddings=embeddings))

    async def _embed(self, texts: list[str], *, shows_progress: bool = False) -> list[list[float]]:
        result = await self._client.embed(texts, input_type=self.text_input_type, progress=shows_progress)
        return await as_lists(result.vectors)

    async def _embed_one(self, text: str, input_type: str | None) -> list[float]:
        vector: list[float] = (await self._client.embed_one(text, input_type=input_type)).tolist()
        return vector

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self._embed_one(query, self.query_input_type)

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._thread.get().run(self._embed_one(query, self.query_input_type))

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await self._embed_one(text, self.text_input_type)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._thread.get().run(self._embed_one(text, self.text_input_type))

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._embed(texts)

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._thread.get().run(self._embed(texts))


def _remade(cls: type[AsyncPineconeEmbedding], arguments: dict[str, Any]) -> AsyncPineconeEmbedding:
    return cls(**arguments)
