"""LangChain's own standard tests, and what they do not ask."""

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import SecretStr

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    EmbedError,
    RetryPolicy,
    SqliteCache,
)
from pinecone_embed_async.emulator import Emulator
from pinecone_embed_async.integrations.langchain import CURES, AsyncPineconeEmbeddings
from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator
from tests.processes import run_program
from tests.terminal import drawn_by

E5 = "multilingual-e5-large"


def made(**options: Any) -> AsyncPineconeEmbeddings:
    return AsyncPineconeEmbeddings(**{"model": E5, **options})


class TestUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self) -> type[AsyncPineconeEmbeddings]:
        return AsyncPineconeEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": E5, "api_key": "k"}

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        return {"PINECONE_API_KEY": "k"}, {"model": E5}, {"model": E5}


class TestIntegration(EmbeddingsIntegrationTests):
    @pytest.fixture
    def model(self, local: LocalEmulator) -> Iterator[AsyncPineconeEmbeddings]:
        with AsyncPineconeEmbeddings(E5) as model:
            yield model

    @property
    def embeddings_class(self) -> type[AsyncPineconeEmbeddings]:
        return AsyncPineconeEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": E5}


def test_blocking_calls_give_lists_of_the_rows_and_nothing_is_left_when_closed(local: LocalEmulator) -> None:
    with AsyncPineconeEmbeddings(E5) as embeddings:
        documents = embeddings.embed_documents([f"text number {number}" for number in range(200)])
        query = embeddings.embed_query("text number 7")
        assert len(documents) == 200
        assert {type(number) for number in (*documents[7], *query)} == {float}
        # As documents and queries the same text has other vectors.
        assert query != documents[7]
        assert embeddings.embed_documents([]) == []


async def test_they_work_inside_a_running_loop_and_give_what_the_asynchronous_ones_give(local: LocalEmulator) -> None:
    async with AsyncPineconeEmbeddings(E5) as embeddings:
        texts = ["first", "second"]
        assert embeddings.embed_documents(texts) == await embeddings.aembed_documents(texts)
        assert embeddings.embed_query("first") == await embeddings.aembed_query("first")


async def test_queries_made_at_the_same_time_share_a_request(local: LocalEmulator) -> None:
    async with AsyncPineconeEmbeddings(E5) as embeddings:
        await asyncio.gather(*(embeddings.aembed_query(f"query {number}") for number in range(40)))
        assert embeddings.client.statistics().joined == 40
    assert local.statistics().requests == 1


def test_many_threads_may_block_at_once(local: LocalEmulator) -> None:
    with AsyncPineconeEmbeddings(E5) as embeddings:
        vectors: dict[int, list[float]] = {}

        def one(number: int) -> None:
            vectors[number] = embeddings.embed_query(f"query {number}")

        threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(vectors[number] == embeddings.embed_query(f"query {number}") for number in range(8))


def test_it_works_in_one_loop_after_the_other(local: LocalEmulator) -> None:
    embeddings = AsyncPineconeEmbeddings(E5)
    rows = [asyncio.run(embeddings.aembed_query("a")) for _ in range(3)]
    assert rows[0] == rows[1] == rows[2] == embeddings.embed_query("a")
    embeddings.close()


def test_input_types_may_be_others_or_none(local: LocalEmulator) -> None:
    with (
        AsyncPineconeEmbeddings(E5) as usual,
        AsyncPineconeEmbeddings(E5, document_input_type="query", query_input_type="passage") as reversed_,
    ):
        assert usual.embed_query("a") == reversed_.embed_documents(["a"])[0]
        assert reversed_.embed_query("a") == usual.embed_documents(["a"])[0]
    with pytest.raises(ConfigurationError, match="requires input_type"):
        AsyncPineconeEmbeddings(E5, document_input_type=None)
    with AsyncPineconeEmbeddings("no-types", document_input_type=None, query_input_type=None, look_up_model=False) as bare:
        assert bare._query_parameters == bare._document_parameters == {}


@pytest.mark.parametrize("name", ["pinecone_api_key", "api_key"])
@pytest.mark.parametrize("wrapped", [str, SecretStr])
def test_the_key_has_two_names_and_may_be_a_secret(local: LocalEmulator, name: str, wrapped: type[Any]) -> None:
    with made(**{name: wrapped(local.api_key)}) as embeddings:
        assert len(embeddings.embed_query("a")) == 1024
    with (
        made(retry=RetryPolicy(max_attempts=1), **{name: wrapped("pcsk_wrong")}) as embeddings,
        pytest.raises(AuthenticationError) as raised,
    ):
        embeddings.embed_query("a")
    assert "pcsk_wrong" not in f"{raised.value!r}{embeddings!r}{vars(embeddings)}"


@pytest.mark.parametrize("name", ["chunk_size", "batch_size", "max_batch_size"])
def test_the_size_of_a_batch_has_three_names(local: LocalEmulator, name: str) -> None:
    texts = [f"text number {number}" for number in range(10)]
    with made(**{name: 4}) as embeddings:
        rows = embeddings.embed_documents(texts)
    assert local.statistics().requests == 3
    # One for another service's limit is cut to this service's.
    with made(**{name: 1000}) as embeddings:
        assert embeddings.embed_documents(texts * 10) == rows * 10
    assert local.statistics().requests == 5


@pytest.mark.parametrize("name", ["dimension", "dimensions"])
def test_so_has_the_dimension_and_one_that_a_model_has_anyway_is_taken(local: LocalEmulator, name: str) -> None:
    with made(model="llama-text-embed-v2", **{name: 512}) as embeddings:
        assert len(embeddings.embed_query("a")) == 512
    with made(**{name: 1024}) as embeddings:
        assert len(embeddings.embed_query("a")) == 1024
    with pytest.raises(ConfigurationError, match="takes no dimension"):
        made(**{name: 512})


def test_parameters_of_documents_and_queries_are_those_of_langchain_pinecone(local: LocalEmulator) -> None:
    params = {"input_type": "query", "truncate": "END"}
    with (
        AsyncPineconeEmbeddings(E5) as usual,
        AsyncPineconeEmbeddings(E5, query_params=params, document_params=params) as given,
        AsyncPineconeEmbeddings(E5, document_params={"truncate": "NONE"}) as strict,
    ):
        assert usual.embed_query("a") == given.embed_query("a") == given.embed_documents(["a"])[0]
        assert strict.embed_documents(["a"]) == usual.embed_documents(["a"])
        with pytest.raises(EmbedError):
            strict.embed_documents(["word " * 5000])
        assert len(strict.embed_query("word " * 5000)) == 1024


@pytest.mark.parametrize("name", ["document_params", "query_params"])
def test_parameters_that_cannot_work_are_refused_at_once(name: str) -> None:
    for value in ({"truncate": "MIDDLE"}, {"input_type": "text"}, 5, ["input_type"]):
        with pytest.raises(ConfigurationError):
            made(api_key="k", **{name: value})


def test_two_names_for_one_option_are_refused_without_its_value() -> None:
    pairs = [("api_key", "pinecone_api_key"), ("chunk_size", "batch_size"), ("dimension", "dimensions")]
    for first, second in pairs:
        with pytest.raises(ConfigurationError, match=f"{first} and {second} are two names for one option") as raised:
            made(**{first: "pcsk_value", second: "pcsk_value"})
        assert "pcsk" not in str(raised.value)


@pytest.mark.parametrize("name", CURES)
def test_what_could_mean_several_things_is_refused_with_a_cure(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{name} is not an option of AsyncPineconeEmbeddings: pass ") as raised:
        made(api_key="k", **{name: "pcsk_value"})
    assert "pcsk" not in str(raised.value)


async def test_a_bar_is_shown_where_it_is_asked_for(emulator: Emulator) -> None:
    code = """
from pinecone_embed_async.integrations.langchain import AsyncPineconeEmbeddings
with AsyncPineconeEmbeddings("multilingual-e5-large", show_progress_bar={shown}) as embeddings:
    embeddings.embed_documents(["a", "b"])
"""
    shown, _ = await drawn_by(emulator, code.format(shown=True))
    assert "2/2" in shown
    assert await drawn_by(emulator, code.format(shown=False)) == ("", "")


def test_options_are_those_of_the_client_and_errors_its_own(local: LocalEmulator, tmp_path: Any) -> None:
    with (
        AsyncPineconeEmbeddings(E5, api_key="wrong", retry=RetryPolicy(max_attempts=1)) as embeddings,
        pytest.raises(AuthenticationError),
    ):
        embeddings.embed_query("a")
    with AsyncPineconeEmbeddings(E5, cache=SqliteCache(tmp_path / "vectors.cache")) as embeddings:
        assert embeddings.embed_documents(["a"]) == embeddings.embed_documents(["a"])
        assert embeddings.client.statistics().cache_hits == 1
    with pytest.raises(TypeError, match="unexpected"):
        AsyncPineconeEmbeddings(E5, nonsense=1)


def test_sparse_models_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="sparse"):
        AsyncPineconeEmbeddings("pinecone-sparse-english-v0", api_key="k")


async def test_after_closing_it_says_so(local: LocalEmulator) -> None:
    embeddings = AsyncPineconeEmbeddings(E5)
    await embeddings.aembed_query("a")
    embeddings.embed_query("a")
    await embeddings.aclose()
    with pytest.raises(ClosedError):
        await embeddings.aembed_query("a")
    with pytest.raises(ClosedError):
        embeddings.embed_query("a")
    await embeddings.aclose()


def test_a_blocking_call_from_its_own_loop_is_an_error_and_not_a_deadlock(
    local: LocalEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    def hook(_: object) -> None:
        embeddings.embed_query("b")

    with AsyncPineconeEmbeddings(E5, hooks=[hook]) as embeddings:
        assert len(embeddings.embed_query("a")) == 1024
    assert "hook 0 raised RuntimeError" in caplog.text


def test_what_nobody_closes_ends_when_nobody_has_it(local: LocalEmulator) -> None:
    embeddings = AsyncPineconeEmbeddings(E5)
    embeddings.embed_query("a")
    del embeddings
    gc.collect()
    assert "pinecone-embeddings" not in {thread.name for thread in threading.enumerate()}


PROGRAM = """
import asyncio, os
from pinecone_embed_async.integrations.langchain import AsyncPineconeEmbeddings

embeddings = AsyncPineconeEmbeddings("multilingual-e5-large")
print(len(embeddings.embed_query("a")), len(asyncio.run(embeddings.aembed_query("a"))))
"""


async def test_the_interpreter_ends_it_without_a_complaint(emulator: Emulator) -> None:
    assert await run_program(emulator, PROGRAM) == "1024 1024\n"


async def test_a_forked_child_has_a_thread_of_its_own(emulator: Emulator) -> None:
    code = f"""{PROGRAM}
child = os.fork()
if child == 0:
    ok = len(embeddings.embed_query("b")) == 1024
    embeddings.close()
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(len(embeddings.embed_query("c")))
"""
    # Python 3.12 warns of any fork beside threads.
    code = f"import warnings\nwarnings.simplefilter('ignore', DeprecationWarning)\n{code}"
    assert await run_program(emulator, code) == "1024 1024\n1024\n"


def test_a_vector_store_of_langchain_finds_what_is_near(local: LocalEmulator) -> None:
    with AsyncPineconeEmbeddings(E5) as embeddings:
        store = InMemoryVectorStore(embeddings)
        store.add_texts(["the cat sits on the mat", "stock prices fell", "a dog in the garden"])
        (found,) = store.similarity_search("cat on a mat", k=1)
    assert found.page_content == "the cat sits on the mat"


def test_rows_are_those_of_the_client(local: LocalEmulator) -> None:
    texts = [f"text number {number}" for number in range(150)]
    with AsyncPineconeEmbeddings(E5) as embeddings:
        rows = embeddings.embed_documents(texts)
        expected = asyncio.run(embeddings.client.embed(texts, input_type="passage")).vectors
    np.testing.assert_array_equal(np.array(rows, np.float32), expected)
    assert repr(embeddings) == f"<AsyncPineconeEmbeddings {E5!r}>"
