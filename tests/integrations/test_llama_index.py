"""The `BaseEmbedding` of LlamaIndex: its documented behaviour, what uses it there, and what the client adds."""

import asyncio
import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from llama_index.core import Document, Settings, VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding, dispatcher
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.embeddings import resolve_embed_model
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.node_parser import SemanticSplitterNodeParser, SentenceSplitter
from llama_index.core.rate_limiter import BaseRateLimiter
from llama_index.core.schema import TextNode
from llama_index.core.storage.kvstore import SimpleKVStore
from pydantic import SecretStr, ValidationError

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    EmbedError,
    InvalidRequestError,
    Quota,
    RetryPolicy,
    SqliteCache,
)
from pinecone_embed_async.emulator import Emulator
from pinecone_embed_async.integrations.llama_index import AsyncPineconeEmbedding
from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator
from tests.processes import run_program
from tests.terminal import drawn_by

E5 = "multilingual-e5-large"
TEXTS = [f"text number {number}" for number in range(300)]


@pytest.fixture
def model(local: LocalEmulator) -> Iterator[AsyncPineconeEmbedding]:
    with AsyncPineconeEmbedding(E5) as model:
        yield model


def test_every_blocking_method_gives_lists_of_floats(model: AsyncPineconeEmbedding) -> None:
    rows = model.get_text_embedding_batch(TEXTS)
    assert isinstance(model, BaseEmbedding)
    assert len(rows) == len(TEXTS)
    assert {len(row) for row in rows} == {1024}
    assert {type(number) for number in (*rows[7], *model.get_query_embedding("a"))} == {float}
    assert model.get_text_embedding(TEXTS[7]) == rows[7]
    assert model.get_text_embedding_batch([]) == []
    assert model.similarity(rows[7], rows[7]) == pytest.approx(1.0)


async def test_the_asynchronous_methods_give_what_the_blocking_ones_give(model: AsyncPineconeEmbedding) -> None:
    assert await model.aget_text_embedding_batch(TEXTS[:3]) == model.get_text_embedding_batch(TEXTS[:3])
    assert await model.aget_text_embedding("a") == model.get_text_embedding("a")
    assert await model.aget_query_embedding("a") == model.get_query_embedding("a")
    assert await model.aget_text_embedding_batch([]) == []
    queries = ["a", "b"]
    assert await model.aget_agg_embedding_from_queries(queries) == model.get_agg_embedding_from_queries(queries)


def test_queries_are_queries_and_texts_are_passages(model: AsyncPineconeEmbedding) -> None:
    passage, query = (asyncio.run(model.client.embed_one("a", input_type=type_)) for type_ in ("passage", "query"))
    assert model.get_text_embedding("a") == model.get_text_embedding_batch(["a"])[0] == passage.tolist()
    assert model.get_query_embedding("a") == query.tolist() != passage.tolist()
    with AsyncPineconeEmbedding(E5, text_input_type="query", query_input_type="passage") as reversed_:
        assert reversed_.get_text_embedding("a") == query.tolist()
        assert reversed_.get_query_embedding("a") == passage.tolist()


@pytest.mark.parametrize("size", [96, 10, 2048])
def test_a_batch_goes_to_the_client_as_a_whole_whatever_llama_index_would_cut_it_to(local: LocalEmulator, size: int) -> None:
    texts = [f"text number {number}" for number in range(2100)]
    with AsyncPineconeEmbedding(E5, embed_batch_size=size, max_concurrency=4) as model:
        local.call(lambda emulator: emulator.hold())
        task = threading.Thread(target=model.get_text_embedding_batch, args=(texts,))
        task.start()
        # As many requests at a time as the client allows.
        local.call(lambda emulator: emulator.wait_for_in_flight(4))
        local.call(lambda emulator: emulator.release())
        task.join()
    # Two dozen requests of 96, or more, smaller ones.
    assert local.statistics().requests == -(-2100 // min(size, 96))


def test_a_batch_is_one_event_with_its_texts_and_vectors(model: AsyncPineconeEmbedding) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    model.callback_manager = CallbackManager([debug])
    with heard() as events:
        rows = model.get_text_embedding_batch(TEXTS)
        asyncio.run(model.aget_text_embedding_batch(TEXTS))
        model.get_query_embedding("a")
    assert [type(event) for event in events] == [EmbeddingStartEvent, EmbeddingEndEvent] * 3
    ends = [event for event in events if isinstance(event, EmbeddingEndEvent)]
    assert [end.chunks for end in ends] == [TEXTS, TEXTS, ["a"]]
    assert ends[0].embeddings == ends[1].embeddings == rows
    pairs = debug.get_event_pairs(CBEventType.EMBEDDING)
    assert len(pairs) == 3
    for start, end in pairs[:2]:
        assert (start.payload or {})[EventPayload.SERIALIZED]["model_name"] == E5
        assert (end.payload or {})[EventPayload.CHUNKS] == TEXTS
        assert (end.payload or {})[EventPayload.EMBEDDINGS] == rows


class heard:  # noqa: N801 - used as a function
    """The embedding events of LlamaIndex's instrumentation while the block runs."""

    def __enter__(self) -> list[Any]:
        events: list[Any] = []

        class Handler(BaseEventHandler):
            def handle(self, event: Any, **kwargs: Any) -> None:
                if isinstance(event, (EmbeddingStartEvent, EmbeddingEndEvent)):
                    events.append(event)

        self._handler = Handler()
        dispatcher.add_event_handler(self._handler)
        return events

    def __exit__(self, *_: object) -> None:
        dispatcher.event_handlers.remove(self._handler)


def test_no_event_dump_pickle_or_repr_holds_the_key(local: LocalEmulator) -> None:
    for key in (local.api_key, SecretStr(local.api_key)):
        with AsyncPineconeEmbedding(E5, api_key=key) as model, heard() as events:
            model.get_text_embedding_batch(["a"])
            shown = f"{model!r}{model}{model.to_dict()}{model.to_json()}{model.model_dump_json()}{model.to_payload()}"
            shown += f"{[event.model_dump() for event in events]}{model._options}{pickle.dumps(model)!r}"
        assert local.api_key not in shown


def test_what_is_dumped_or_pickled_becomes_an_equal_model_with_the_key_of_the_environment(local: LocalEmulator) -> None:
    options: dict[str, Any] = {
        "text_input_type": "query",
        "dimension": 512,
        "truncate": "START",
        "embed_batch_size": 7,
        "num_workers": 2,
    }
    with AsyncPineconeEmbedding("llama-text-embed-v2", api_key=local.api_key, quota=Quota(250_000), **options) as model:
        dumped = model.to_dict()
        assert (
            dumped.items()
            >= {"model_name": "llama-text-embed-v2", "class_name": "AsyncPineconeEmbedding", **options}.items()
        )
        others: list[Callable[[], AsyncPineconeEmbedding]] = [
            lambda: AsyncPineconeEmbedding.from_dict(dumped),
            lambda: AsyncPineconeEmbedding.from_json(model.to_json()),
            lambda: pickle.loads(pickle.dumps(model)),  # noqa: S301 - its own
            lambda: copy.copy(model),
            lambda: copy.deepcopy(model),
            model.model_copy,
        ]
        for other_of in others:
            with other_of() as other:
                assert other.to_dict() == dumped
                assert other.client is not model.client
                assert other.get_text_embedding("a") == model.get_text_embedding("a")
        with pickle.loads(pickle.dumps(model)) as other:  # noqa: S301 - its own
            other.get_text_embedding("a")
            assert [quota.limit for quota in other.client.statistics().quotas] == [250_000]


def test_without_a_key_where_it_is_read_the_error_says_so(local: LocalEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with AsyncPineconeEmbedding(E5, api_key=local.api_key) as model:
        pickled, dumped = pickle.dumps(model), model.to_dict()
        monkeypatch.delenv("PINECONE_API_KEY")
        with pytest.raises(ConfigurationError, match="set PINECONE_API_KEY"):
            pickle.loads(pickled)  # noqa: S301 - its own
        with pytest.raises(ConfigurationError, match="set PINECONE_API_KEY"):
            AsyncPineconeEmbedding.from_dict(dumped)
        # In the same process a copy has the key that was given.
        with copy.deepcopy(model) as other, AsyncPineconeEmbedding.from_dict(dumped, api_key=local.api_key) as third:
            assert other.get_query_embedding("a") == third.get_query_embedding("a")


def test_an_option_that_cannot_be_pickled_is_an_error_and_not_left_out(local: LocalEmulator) -> None:
    with (
        AsyncPineconeEmbedding(E5, hooks=[lambda _: None]) as model,
        pytest.raises((pickle.PicklingError, AttributeError), match="lambda"),
    ):
        pickle.dumps(model)


def test_what_the_client_was_made_with_cannot_be_changed(model: AsyncPineconeEmbedding) -> None:
    for name in ("model_name", "text_input_type", "query_input_type", "dimension", "truncate", "embed_batch_size"):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(model, name, getattr(model, name))


def test_what_cannot_work_is_refused_when_it_is_made() -> None:
    refused: list[dict[str, Any]] = [
        {"model_name": "pinecone-sparse-english-v0"},
        {"text_input_type": "text"},
        {"query_input_type": None},
        {"dimension": 512},
        {"truncate": "MIDDLE"},
        {"api_key": 5},
    ]
    for options in refused:
        with pytest.raises(ConfigurationError):
            AsyncPineconeEmbedding(**{"model_name": E5, "api_key": "k", **options})
    with pytest.raises(ValidationError):
        AsyncPineconeEmbedding(E5, api_key="k", embed_batch_size=0)
    with pytest.raises(TypeError, match="nonsense"):
        AsyncPineconeEmbedding(E5, api_key="k", nonsense=1)


def test_errors_are_the_clients_own_and_what_was_embedded_is_in_them(local: LocalEmulator) -> None:
    local.call(lambda emulator: setattr(emulator, "reject", lambda text: text == "bad"))
    with AsyncPineconeEmbedding(E5) as model:
        with pytest.raises(InvalidRequestError) as raised:
            model.get_text_embedding_batch(["a", "bad", "c"])
        assert raised.value.partial is not None
        assert raised.value.partial.embedded.tolist() == [True, False, True]
        with pytest.raises(EmbedError):
            model.get_query_embedding("bad")
    with (
        AsyncPineconeEmbedding(E5, api_key="wrong", retry=RetryPolicy(max_attempts=1)) as model,
        pytest.raises(AuthenticationError),
    ):
        model.get_text_embedding("a")


async def test_queries_made_at_the_same_time_share_a_request(local: LocalEmulator) -> None:
    async with AsyncPineconeEmbedding(E5) as model:
        await asyncio.gather(*(model.aget_query_embedding(f"query {number}") for number in range(40)))
        assert model.client.statistics().joined == 40
    assert local.statistics().requests == 1


def test_llama_indexs_cache_and_rate_limiter_are_asked(local: LocalEmulator) -> None:
    asked: list[str] = []

    class Limiter(BaseRateLimiter):
        def acquire(self, num_tokens: int = 0) -> None:
            asked.append("acquire")

        async def async_acquire(self, num_tokens: int = 0) -> None:
            asked.append("async_acquire")

    with AsyncPineconeEmbedding(E5, embeddings_cache=SimpleKVStore(), rate_limiter=Limiter()) as model:
        rows = model.get_text_embedding_batch(TEXTS[:3])
        assert model.get_text_embedding_batch(TEXTS[:5])[:3] == rows
        assert asyncio.run(model.aget_text_embedding_batch(TEXTS[:5]))[:3] == rows
        assert model.client.statistics().inputs == 5
    assert asked == ["acquire", "acquire", "async_acquire"]


def test_the_clients_own_cache_keeps_texts_and_queries_apart(local: LocalEmulator, tmp_path: Any) -> None:
    with AsyncPineconeEmbedding(E5, cache=SqliteCache(tmp_path / "vectors.cache")) as model:
        assert model.get_text_embedding("a") == model.get_text_embedding_batch(["a"])[0] != model.get_query_embedding("a")
    assert local.statistics().requests == 2


async def test_a_bar_shows_the_progress_of_the_requests(emulator: Emulator) -> None:
    code = """
import asyncio
from pinecone_embed_async.integrations.llama_index import AsyncPineconeEmbedding

with AsyncPineconeEmbedding("multilingual-e5-large") as model:
    model.get_text_embedding_batch([f"text number {number}" for number in range(200)], show_progress=True)
    asyncio.run(model.aget_text_embedding_batch([f"text number {number}" for number in range(150)], show_progress=True))
    model.get_text_embedding_batch([f"text number {number}" for number in range(130)])
"""
    shown, _ = await drawn_by(emulator, code)
    assert "200/200" in shown
    assert "150/150" in shown
    assert "/130" not in shown


DOCUMENTS = ["the cat sits on the mat", "stock prices fell on the exchange", "a dog runs in the garden"]


@pytest.mark.parametrize("use_async", [True, False])
def test_an_index_finds_what_is_near(local: LocalEmulator, use_async: bool) -> None:
    with AsyncPineconeEmbedding(E5) as model:
        documents = [Document(text=text) for text in DOCUMENTS]
        index = VectorStoreIndex.from_documents(documents, embed_model=model, use_async=use_async)
        retriever = index.as_retriever(similarity_top_k=1)
        assert [found.text for found in retriever.retrieve("how are stock prices?")] == [DOCUMENTS[1]]
        found = asyncio.run(retriever.aretrieve("a cat on a mat"))
        assert [each.text for each in found] == [DOCUMENTS[0]]
    assert local.statistics().requests == 3


def test_node_parsers_and_pipelines_embed_with_it(local: LocalEmulator) -> None:
    text = "Cats sit on mats. Cats purr on mats. Stock prices fell. Stock prices rose."
    with AsyncPineconeEmbedding(E5) as model:
        nodes = SemanticSplitterNodeParser(embed_model=model, breakpoint_percentile_threshold=50).get_nodes_from_documents(
            [Document(text=text)]
        )
        assert len(nodes) > 1
        pipeline = IngestionPipeline(transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), model])
        blocking = pipeline.run(documents=[Document(text=one) for one in DOCUMENTS])
        assert [node.embedding for node in blocking] == model.get_text_embedding_batch(DOCUMENTS)
        # The pipeline's own cache knows the model by what it dumps.
        requests = local.statistics().requests
        assert len(asyncio.run(pipeline.arun(documents=[Document(text=one) for one in DOCUMENTS]))) == 3
        assert local.statistics().requests <= requests + 1


def test_a_node_that_is_called_gets_its_vector(model: AsyncPineconeEmbedding) -> None:
    (node,) = model([TextNode(text="a")])
    assert node.embedding == model.get_text_embedding("a")
    (node,) = asyncio.run(model.acall([TextNode(text="a")]))
    assert node.embedding == model.get_text_embedding("a")


def test_settings_take_it(local: LocalEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    with AsyncPineconeEmbedding(E5) as model:
        assert resolve_embed_model(model) is model
        monkeypatch.setattr(Settings, "_embed_model", None)
        Settings.embed_model = model
        index = VectorStoreIndex([TextNode(text=text) for text in DOCUMENTS])
        assert index.as_retriever(similarity_top_k=1).retrieve("dog in a garden")[0].text == DOCUMENTS[2]


async def test_after_closing_it_says_so(local: LocalEmulator) -> None:
    model = AsyncPineconeEmbedding(E5)
    await model.aget_query_embedding("a")
    model.get_query_embedding("a")
    await model.aclose()
    with pytest.raises(ClosedError):
        await model.aget_query_embedding("a")
    with pytest.raises(ClosedError):
        model.get_text_embedding_batch(["a"])
    await model.aclose()


def test_what_nobody_closes_ends_when_nobody_has_it(local: LocalEmulator) -> None:
    model = AsyncPineconeEmbedding(E5)
    model.get_query_embedding("a")
    del model
    gc.collect()
    assert "pinecone-embedding" not in {thread.name for thread in threading.enumerate()}


def test_rows_are_those_of_the_client(model: AsyncPineconeEmbedding) -> None:
    expected = asyncio.run(model.client.embed(TEXTS, input_type="passage")).vectors
    np.testing.assert_array_equal(np.array(model.get_text_embedding_batch(TEXTS), np.float32), expected)
    assert repr(model) == str(model) == f"<AsyncPineconeEmbedding {E5!r}>"
    assert json.loads(model.to_json())["model_name"] == E5


PROGRAM = """
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import TextNode
from pinecone_embed_async.integrations.llama_index import AsyncPineconeEmbedding

if __name__ == "__main__":
    model = AsyncPineconeEmbedding("multilingual-e5-large")
    nodes = [TextNode(text=f"text number {number}") for number in range(4)]
    done = IngestionPipeline(transformations=[model]).run(nodes=nodes, num_workers=2)
    print([node.embedding for node in done] == model.get_text_embedding_batch([node.text for node in nodes]))
"""


async def test_another_process_gets_it_and_the_interpreter_ends_it_without_a_complaint(emulator: Emulator) -> None:
    assert await run_program(emulator, PROGRAM) == "True\n"
