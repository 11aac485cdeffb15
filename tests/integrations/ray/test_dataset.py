import asyncio
import re
import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pinecone_embed_async import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    EmbedClient,
    InputError,
    InvalidRequestError,
    Quota,
    SharedQuota,
)
from pinecone_embed_async.emulator import EmulatedModel, Emulator
from pinecone_embed_async.integrations._ray.dataset import AddVectors, add_vectors
from tests.integrations.ray.conftest import Cluster
from tests.integrations.ray.programs import run_on

# Ray Data's own context gives them when it is made.
OWN_WARNINGS = "ignore::DeprecationWarning:ray.data.context"
pytestmark = [pytest.mark.timeout(180), pytest.mark.filterwarnings(OWN_WARNINGS)]

TEXTS = ["the first text", "another one", "and a third"]


def table_of(values: list[Any]) -> pa.Table:
    return pa.table({"id": pa.array(range(len(values)), pa.int8()), "text": pa.array(values)})


def adding(emulator: Emulator, model: str = "multilingual-e5-large", **options: Any) -> AddVectors:
    options = {"input_type": "passage", "api_key": emulator.api_key, "base_url": emulator.url, **options}
    return AddVectors(model, **options)


def vectors_of(table: pa.Table) -> np.ndarray[Any, Any]:
    found = table.column("vector").combine_chunks().to_numpy_ndarray()
    assert isinstance(found, np.ndarray)
    return found


async def embedded(emulator: Emulator, texts: list[str]) -> np.ndarray[Any, Any]:
    async with EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url) as client:
        return (await client.embed(texts, input_type="passage")).vectors


async def test_a_dense_vector_is_a_tensor_of_float32_and_the_other_columns_stay(emulator: Emulator) -> None:
    added = await adding(emulator)(table_of(TEXTS))
    assert added.select(["id", "text"]) == table_of(TEXTS)
    vectors = vectors_of(added)
    assert (vectors.dtype, vectors.shape) == (np.float32, (3, 1024))
    assert np.array_equal(vectors, await embedded(emulator, TEXTS))


async def test_a_sparse_vector_is_two_lists(emulator: Emulator) -> None:
    added = await adding(emulator, "pinecone-sparse-english-v0", into="terms")(table_of(TEXTS))
    assert added.schema.field("terms_indices").type == pa.list_(pa.uint32())
    assert added.schema.field("terms_values").type == pa.list_(pa.float32())
    async with EmbedClient("pinecone-sparse-english-v0", api_key=emulator.api_key, base_url=emulator.url) as client:
        expected = await client.embed(TEXTS, input_type="passage")
    assert added.column("terms_indices").to_pylist() == [vector.indices.tolist() for vector in expected]
    assert added.column("terms_values").to_pylist() == [vector.values.tolist() for vector in expected]


async def test_failures_are_a_column_if_one_is_named(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "bad"
    values = ["good", None, "bad", "also good"]
    added = await adding(emulator, errors="error")(table_of(values))
    errors = added.column("error").to_pylist()
    assert errors[0] is errors[3] is None
    assert errors[1] == "InputError: input 1 is a missing value: leave missing values out, or fill them"
    assert errors[2].startswith("InvalidRequestError: 400 INVALID_ARGUMENT: ")
    vectors = vectors_of(added)
    assert np.isnan(vectors[1:3]).all()
    assert np.array_equal(vectors[[0, 3]], await embedded(emulator, ["good", "also good"]))


async def test_an_error_names_its_own_row_though_others_were_not_sent(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "quite bad"
    values = ["one", None, None, "quite bad", "two"]
    added = await adding(emulator, errors="error")(table_of(values))
    named = [re.findall(r"input (\d+)", error or "") for error in added.column("error").to_pylist()]
    assert named == [[], ["1"], ["2"], ["3"], []]


async def test_failed_rows_have_null_for_a_sparse_vector(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "bad"
    add = adding(emulator, "pinecone-sparse-english-v0", errors="error", parameters={"return_tokens": True})
    added = await add(table_of(["good", None, "bad", "also good"]))
    for name in ("vector_indices", "vector_values", "vector_tokens"):
        assert [row is None for row in added.column(name).to_pylist()] == [False, True, True, False]
    assert sorted(added.column("vector_tokens").to_pylist()[3]) == ["also", "good"]


async def test_a_column_for_errors_is_there_when_nothing_failed_and_when_all_did(emulator: Emulator) -> None:
    add = adding(emulator, errors="error")
    whole, none = await add(table_of(TEXTS)), await add(pa.table({"text": pa.array([None, None], pa.string())}))
    assert whole.schema.field("error").type == none.schema.field("error").type == pa.string()
    assert whole.schema.field("vector").type == none.schema.field("vector").type
    assert whole.column("error").null_count == 3
    assert np.isnan(vectors_of(none)).all()


async def test_a_failure_is_an_error_if_no_column_is_named(emulator: Emulator) -> None:
    emulator.reject = lambda text: text == "bad"
    with pytest.raises(InvalidRequestError) as refused:
        await adding(emulator)(table_of(["good", "bad"]))
    assert refused.value.partial is None
    assert [list(failure.indices) for failure in refused.value.failures] == [[1]]
    with pytest.raises(InputError):
        await adding(emulator)(table_of(["good", None]))


async def test_what_every_row_would_meet_is_an_error_in_any_case(emulator: Emulator) -> None:
    with pytest.raises(AuthenticationError):
        await adding(emulator, errors="error", api_key="wrong")(table_of(TEXTS))


async def test_without_a_row_the_dimension_of_an_unknown_model_is_not_known() -> None:
    model = EmulatedModel(name="new", default_dimension=8, supported_dimensions=(8,))
    async with Emulator(models=[model], reject=lambda _: True) as emulator:
        add = adding(emulator, "new", vector_type="dense", input_type=None, errors="error")
        with pytest.raises(InvalidRequestError) as caught:
            await add(table_of(["bad"]))
    assert "the dimension of the vectors is not known" in caught.value.__notes__[-1]


async def test_columns_that_are_missing_or_in_the_way_are_told(emulator: Emulator) -> None:
    with pytest.raises(ConfigurationError, match="no column 'body', only id, text"):
        await adding(emulator, text="body")(table_of(TEXTS))
    with pytest.raises(ConfigurationError, match="already has a column 'id'"):
        await adding(emulator, into="id")(table_of(TEXTS))


async def test_batches_are_under_way_together_and_bounded(emulator: Emulator) -> None:
    add = adding(emulator, max_concurrency=3)
    emulator.hold()
    async with asyncio.TaskGroup() as group:
        calls = [group.create_task(add(table_of([f"text {number}"]))) for number in range(8)]
        await emulator.wait_for_in_flight(3)
        emulator.release()
    assert emulator.statistics().max_in_flight == 3
    assert all(call.result().num_rows == 1 for call in calls)


async def test_when_it_goes_its_connections_and_its_thread_go(emulator: Emulator) -> None:
    def own_threads() -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.name == "embed"}

    before = own_threads()
    add = adding(emulator)
    await add(table_of(TEXTS))
    assert len(own_threads() - before) == 1
    assert emulator.statistics().connections_open == 1
    await asyncio.to_thread(add.close)
    while emulator.statistics().connections_open:
        await asyncio.sleep(0.01)
    add = adding(emulator)
    del add
    assert not own_threads() - before


async def test_it_can_be_closed_in_its_own_thread_where_the_garbage_collector_may_run(emulator: Emulator) -> None:
    add = adding(emulator)
    await add(table_of(TEXTS))

    async def close() -> None:
        add.close()

    await asyncio.to_thread(add._loop_thread.run, close())
    with pytest.raises(ClosedError, match="this AddVectors is closed; create another"):
        await add(table_of(TEXTS))
    while emulator.statistics().connections_open:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(add._loop_thread._thread.join)


@pytest.mark.parametrize("quota", ["standard", Quota(1000), SharedQuota()])
def test_a_quota_that_would_hold_for_each_worker_is_refused(emulator: Emulator, quota: Any) -> None:
    with pytest.raises(ConfigurationError, match="would apply to each worker separately"):
        AddVectors("multilingual-e5-large", api_key="key", quota=quota)


def test_its_repr_shows_no_key() -> None:
    assert "secret" not in repr(AddVectors("multilingual-e5-large", input_type="passage", api_key="secret-key"))


def test_wrong_arguments_are_found_before_anything_is_started() -> None:
    dataset: Any = None
    with pytest.raises(ConfigurationError, match="there is no API key"):
        add_vectors(dataset, "multilingual-e5-large")
    with pytest.raises(ConfigurationError, match="input_type"):
        add_vectors(dataset, "multilingual-e5-large", api_key="key", input_type="nonsense")
    with pytest.raises(ConfigurationError, match="dimension"):
        add_vectors(dataset, "llama-text-embed-v2", api_key="key", input_type="query", parameters={"dimension": 3})
    wrong: dict[str, list[Any]] = {
        "actors": [0, "2", (1, 2, 3), (2, 1), (1, 0), None],
        "num_cpus": [-1, "1", None],
        "batch_size": [0, 1.5, None],
        "calls_per_actor": [0, "4"],
        "api_key": [5, b"key"],
        "text": [5, None],
        "into": [5, None],
        "errors": [5],
    }
    for name, values in wrong.items():
        for value in values:
            options: Any = {"api_key": "key", "input_type": "passage", name: value}
            with pytest.raises(ConfigurationError, match=f"^{name} must "):
                add_vectors(dataset, "multilingual-e5-large", **options)
    with pytest.raises(ConfigurationError, match="dataset must be a Dataset, got NoneType"):
        add_vectors(dataset, "multilingual-e5-large", api_key="key", input_type="passage")


PROGRAM = """
import ray, ray.data
from pinecone_embed_async.integrations.ray import add_vectors

items = [{"id": row, "text": f"a text that is private {row}"} for row in range(40)]
for parameters in (None, {"truncate": "END"}):
    # Each block is a task, and Ray makes one of each item if it is not told.
    dataset = ray.data.from_items(items, override_num_blocks=4)
    added = add_vectors(dataset, "multilingual-e5-large", input_type="passage", parameters=parameters)
    print(repr(added))
    added.explain()
    rows = added.materialize()
    print(rows.stats())
    assert sorted(row["id"] for row in rows.take_all()) == list(range(40))
    assert rows.take(1)[0]["vector"].shape == (1024,)

print("these were all embedded", flush=True)
dataset = ray.data.from_items([{"text": "a text that is private"}, {"text": "a text that is refused"}])
add_vectors(dataset, "multilingual-e5-large", input_type="passage").materialize()
"""


@pytest.fixture(scope="module")
def said(cluster: Cluster) -> tuple[str, str]:
    """What a program says of jobs that end well, and then of one that fails."""

    async def run() -> str:
        async with Emulator(reject=lambda text: "refused" in text) as emulator:
            emulator.api_key = "a-key-of-its-own"
            with pytest.raises(AssertionError) as caught:
                await run_on(cluster, emulator, "-c", PROGRAM)
        return str(caught.value)

    well, end, failed = asyncio.run(run()).partition("these were all embedded\n")
    assert end, well
    return well, failed


def test_a_dataset_has_its_vectors_and_neither_key_nor_texts_are_in_any_log(cluster: Cluster, said: tuple[str, str]) -> None:
    logs = [path.read_bytes() for path in cluster.logs.rglob("*") if path.is_file()]
    assert len(logs) > 10
    for secret in (b"a-key-of-its-own", b"a text that is private"):
        assert secret not in said[0].encode()
        assert not any(secret in log for log in logs)


def test_a_failed_job_says_why_and_no_text(said: tuple[str, str]) -> None:
    told = said[1].split("Traceback", 1)[1]
    assert "InvalidRequestError" in told
    assert "a text that is private" not in told
    assert "a text that is refused" not in told


def test_importing_the_package_imports_no_ray() -> None:
    code = "import sys, pinecone_embed_async; assert not {'ray', 'pyarrow', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
