"""The helpers that the pages on DuckDB and on data frames print, with what comes after them on the page and beyond it."""

from pathlib import Path

from pinecone_embed_async.emulator import Emulator
from tests.pages import DOCS, blocks_of
from tests.processes import run_program

DUCKDB = blocks_of((DOCS / "duckdb.md").read_text())[0]
PANDAS, POLARS, STREAM = blocks_of((DOCS / "dataframes.md").read_text())


async def test_duckdb_embeds_each_new_text_and_each_query_once(emulator: Emulator, tmp_path: Path) -> None:
    assert (await run_program(emulator, DUCKDB, tmp_path)).startswith("[(1, 'the cat sits on the mat', 0.7")
    # One for the passages, one for the query; the row without a text is not sent.
    assert emulator.statistics().requests == 2
    again = """
with SyncEmbedClient("multilingual-e5-large") as client, duckdb.connect("notes.duckdb") as db:
    add_functions(db, client)
    db.execute("INSERT INTO notes VALUES (4, 'a dog in the garden', NULL)")
    db.execute("UPDATE notes SET vector = embed_passage(body) WHERE vector IS NULL")
    print(db.execute("SELECT id FROM notes WHERE vector IS NULL").fetchall(), client.statistics().inputs)
"""
    code = DUCKDB.partition("\n\nwith (")[0] + again
    assert await run_program(emulator, code, tmp_path) == "[(3,)] 1\n"


async def test_duckdb_hands_on_2048_rows_at_a_time_and_each_row_gets_its_own_vector(
    emulator: Emulator, tmp_path: Path
) -> None:
    more = """
import numpy as np
with SyncEmbedClient("multilingual-e5-large") as client, duckdb.connect() as db:
    add_functions(db, client)
    db.execute("SET enable_progress_bar = false")
    db.execute("CREATE TABLE many AS SELECT i, IF(i % 7 = 0, NULL, 'text number ' || i) AS body FROM range(5000) t(i)")
    found = db.execute("SELECT i, body, embed_passage(body) AS vector FROM many ORDER BY i").fetchall()
    requests = client.statistics().answers
    texts = [f"text number {i}" for i in range(5000) if i % 7]
    expected = iter(client.embed(texts, input_type="passage").vectors)
    for i, _, vector in found:
        assert vector is None if i % 7 == 0 else np.array_equal(np.float32(vector), next(expected))
    print(requests)
"""
    code = DUCKDB.partition("\n\nwith (")[0] + more
    # 2,048 rows with 1,755 texts in 19 requests, twice, and the other 904 rows in 9.
    assert await run_program(emulator, code, tmp_path) == "47\n"


async def test_an_error_in_duckdb_is_the_clients_and_what_was_paid_for_is_in_the_cache(tmp_path: Path) -> None:
    more = """
cache = SqliteCache("other.cache")
with SyncEmbedClient("multilingual-e5-large", cache=cache, max_batch_size=1) as client, duckdb.connect() as db:
    add_functions(db, client)
    texts = "(VALUES ('a'), ('bad'), ('c')) t(body)"
    try:
        db.execute(f"SELECT embed_passage(body) FROM {texts}")
    except duckdb.InvalidInputException as error:
        print("InvalidRequestError" in str(error), "input 1" in str(error), "'bad'" in str(error))
    print(db.execute(f"SELECT count(embed_passage(body)) FROM {texts} WHERE body != 'bad'").fetchall())
    print(client.statistics().cache_hits)
"""
    async with Emulator(reject=lambda text: text == "bad") as emulator:
        said = await run_program(emulator, DUCKDB.partition("\n\nwith (")[0] + more, tmp_path)
    assert said == "True True False\n[(2,)]\n2\n"


async def test_a_frame_of_pandas_gets_its_vectors_by_position_whatever_its_labels_are(
    emulator: Emulator, tmp_path: Path
) -> None:
    more = """
with SyncEmbedClient("multilingual-e5-large") as client:
    texts = [None if number % 3 == 0 else f"text number {number % 50}" for number in range(200)]
    df = pd.DataFrame({"text": texts}, index=[number // 2 for number in range(200)])[::-1]
    found = with_vectors(df, "text", client)
    assert found["text"].equals(df["text"]) and "vector" not in df
    assert found["vector"].isna().tolist() == [text is None for text in texts[::-1]]
    assert client.statistics().inputs == 50  # equal texts once
    for text, vector in zip(found["text"], found["vector"]):
        if isinstance(text, str):
            assert np.array_equal(vector, client.embed([text], input_type="passage").vectors[0])
    print(with_vectors(df[:0], "text", client)["vector"].tolist(), len(nearest(found, "text number 7", client)))
"""
    printed = await run_program(emulator, PANDAS + more, tmp_path)
    assert printed.splitlines()[0] == "[(1024,), nan, (1024,)]"
    assert printed.splitlines()[2].startswith("9  c")
    assert printed.endswith("[] 3\n")


async def test_a_frame_of_polars_does_too_and_a_lazy_one_asks_only_when_it_is_collected(
    emulator: Emulator, tmp_path: Path
) -> None:
    more = """
import numpy as np
with SyncEmbedClient("multilingual-e5-large") as client:
    texts = [None if number % 3 == 0 else f"text number {number % 50}" for number in range(200)]
    lazy = pl.LazyFrame({"text": texts}).with_columns(vector=vectors_of("text", client))
    assert client.statistics().inputs == 0 and lazy.collect_schema()["vector"] == pl.Array(pl.Float32, 1024)
    found = lazy.collect()
    assert found["vector"].is_null().to_list() == [text is None for text in texts]
    assert client.statistics().inputs == 50
    for text, vector in found.iter_rows():
        if text is not None:
            assert np.array_equal(np.float32(vector), client.embed([text], input_type="passage").vectors[0])
    empty = pl.DataFrame({"text": []}, schema={"text": pl.String}).with_columns(vector=vectors_of("text", client))
    nothing = pl.DataFrame({"text": [None, None]}, schema={"text": pl.String})
    nothing = nothing.with_columns(vector=vectors_of("text", client))
    print(len(empty), nothing["vector"].to_list(), len(nearest(found, "text number 7", client)))
"""
    printed = await run_program(emulator, POLARS + more, tmp_path)
    assert printed.startswith("Array(Float32, shape=(1024,)) [False, True, False]\n")
    assert printed.endswith("0 [None, None] 3\n")


async def test_a_stream_into_a_file_writes_every_row(emulator: Emulator, tmp_path: Path) -> None:
    more = """
table = pq.read_table("vectors.parquet")
assert table["id"].to_pylist() == list(range(1000)) and table["vector"].null_count == 0
"""
    assert await run_program(emulator, STREAM + more, tmp_path) == "1000\n"
