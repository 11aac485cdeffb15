"""Jobs and a cache that an earlier version wrote go on."""

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset

from pinecone_embed_async import DenseEmbeddings, EmbedClient, MockResponse, MockTransport, SparseEmbeddings, SqliteCache
from pinecone_embed_async.cli import cli
from pinecone_embed_async.emulator import Emulator

FIXTURES = Path(__file__).parent / "fixtures"
DENSE = ("--model", "llama-text-embed-v2", "--dimension", "384", "--batch-size", "2", "-q")
KEPT = ("--text-field", "body", "--id-field", "key", "--keep", "year", "--keep", "tags", "--keep", "note")
SPARSE = ("--model", "pinecone-sparse-english-v0", "-p", "return_tokens=true", "-q")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(FIXTURES, tmp_path / "fixtures")
    monkeypatch.chdir(tmp_path / "fixtures")
    return tmp_path / "fixtures"


def table_of(folder: Path) -> pa.Table:
    return dataset.dataset(folder, format="parquet").to_table().sort_by("row")


@pytest.mark.parametrize(
    ("name", "inputs", "options", "rows"),
    [
        ("dense-half", ["in.jsonl"], (*DENSE, *KEPT), 16),
        ("sparse-half", ["in.txt"], SPARSE, 16),
        ("appended-half", ["more.jsonl"], (*DENSE, *KEPT, "--append"), 18),
        ("piped", [], (*DENSE, *KEPT), 6),
        ("piped-half", [], (*DENSE, *KEPT), 16),
        ("half-2025-10", ["in.jsonl"], (*DENSE, *KEPT[:6]), 16),
    ],
)
def test_a_half_done_job_of_an_earlier_version_goes_on(
    at: Path,
    name: str,
    inputs: list[str],
    options: tuple[str, ...],
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(at / name)
    given = inputs or ["-", "--format", "jsonl"]
    spoken = [option for option in options if option != "-q"]
    if not inputs:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((at / name / "in.jsonl").read_bytes())))
    assert cli("embed", *given, "--out", "out", "--emulator", *spoken) == 0
    told = capsys.readouterr().err
    # Of the first eight rows of its input none is embedded again.
    if name != "piped":
        assert f"{rows - (6 if name == 'appended-half' else 0)} rows embedded, " in told
        assert f", {rows - 8 - (6 if name == 'appended-half' else 0)} of them in this run; 0 failed" in told
    else:
        assert "6 of 6 rows embedded, 0 of them in this run" in told
    # The same table as an undisturbed run's.
    fresh = ["in.jsonl", "more.jsonl"] if name == "appended-half" else [f"in.{'txt' if name == 'sparse-half' else 'jsonl'}"]
    for place, source in enumerate(fresh):
        more = ("--append",) if place else ()
        undisturbed = [option for option in options if option != "--append"]
        assert cli("embed", source, "--out", "undisturbed", "--emulator", *undisturbed, *more) == 0
    resumed, whole = table_of(Path("out")), table_of(Path("undisturbed"))
    assert resumed["row"].to_pylist() == list(range(rows))
    assert resumed.schema == whole.schema
    assert resumed.to_pylist() == whole.to_pylist()


def test_a_failed_row_of_an_earlier_version_is_tried_again(at: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(at / "sparse-failed")
    command = ("embed", "in.txt", "--out", "out", "--emulator", *SPARSE, "--truncate", "NONE")
    assert cli(*command) == 1
    assert cli(*command, "--retry-failures") == 1
    assert table_of(Path("out"))["row"].to_pylist() == [0, 2, 3, 4, 5]
    assert [json.loads(line)["row"] for line in Path("out/_failures.jsonl").read_text().splitlines()] == [1]


def test_vectors_that_an_earlier_version_has_paid_for_are_taken_from_its_cache(
    at: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(at / "cached")
    # Nothing listens there any more, so all of it comes from the cache.
    monkeypatch.setenv("PINECONE_CONTROLLER_HOST", Path("address").read_text().strip())
    monkeypatch.setenv("PINECONE_API_KEY", "unused")
    assert cli("embed", "in.txt", "--out", "out", "--cache", "vectors.cache", *DENSE) == 0
    assert table_of(Path("out"))["row"].to_pylist() == list(range(8))


@pytest.mark.parametrize("version", [None, "2025-10", "2026-04", "2026-07"])
@pytest.mark.parametrize(
    ("model", "parameters"), [("llama-text-embed-v2", {"dimension": 384}), ("pinecone-sparse-english-v0", {})]
)
async def test_a_client_of_the_same_generation_sends_no_text_that_an_earlier_version_has_cached(
    at: Path, emulator: Emulator, version: str | None, model: str, parameters: dict[str, int]
) -> None:
    folder = at / "cached-2025-10"
    texts, address = (folder / "in.txt").read_text().splitlines(), (folder / "address").read_text().strip()
    sent = MockTransport(lambda _: MockResponse.error(403, "FORBIDDEN", "nothing is to be sent"))
    options: dict[str, Any] = {"parameters": {"input_type": "passage", **parameters}}
    given = {} if version is None else {"api_version": version}
    async with SqliteCache(folder / "vectors.cache") as cache:
        settings: dict[str, Any] = {"api_key": "any", "base_url": address, "transport": sent, "cache": cache, **given}
        async with EmbedClient(model, **settings, **options) as client:
            cached = await client.embed(texts)
            await client.embed_one(texts[0])
            assert client.statistics().cache_hits == len(texts) + 1
        assert not sent.requests
    # What is cached is what would be answered today.
    async with EmbedClient(model, api_key=emulator.api_key, base_url=emulator.url, **options) as client:
        answered = await client.embed(texts)
    if isinstance(answered, DenseEmbeddings):
        assert isinstance(cached, DenseEmbeddings)
        np.testing.assert_array_equal(cached.vectors, answered.vectors)
    else:
        assert isinstance(cached, SparseEmbeddings)
        for one, other in zip(cached, answered, strict=True):
            np.testing.assert_array_equal(one.indices, other.indices)
            np.testing.assert_array_equal(one.values, other.values)
