"""The order in which rows reach the disk, and a disk that is full or slow."""

import asyncio
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import dataset

from pinecone_embed_async import DenseEmbeddings, Usage
from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._folder import OutputFolder, held_folder
from pinecone_embed_async._jobs._kept import KeptColumns
from pinecone_embed_async._jobs._recorder import Piece, Recorder
from pinecone_embed_async._jobs._sources import Row
from pinecone_embed_async._jobs._store import Store
from tests.disk import full_disk
from tests.jobs.by_hand import Service, opened, texts


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[OutputFolder]:
    with held_folder(tmp_path / "out") as held:
        yield held


def piece(first: int, count: int, dimension: int = 2) -> Piece:
    rows = [Row(str(number), f"text {number}", "in.txt", number + 1, number) for number in range(first, first + count)]
    return Piece(rows, DenseEmbeddings(np.ones((count, dimension), np.float32), model="m", usage=Usage()), [])


def nothing_kept() -> KeptColumns:
    return KeptColumns((), None, is_settled=True)


def test_rows_are_synced_before_they_count_and_a_part_before_its_name_and_its_segment_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def name_of(descriptor: int) -> str:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        return "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else name.split("-")[0].removesuffix(".log")

    real = {name: getattr(os, name) for name in ("fsync", "fdatasync", "replace", "unlink")}

    def synced(function: str) -> Any:
        def sync(descriptor: int) -> None:
            steps.append(f"sync {name_of(descriptor)}")
            real[function](descriptor)

        return sync

    def renamed(source: Any, target: Any) -> None:
        steps.append(f"name {Path(target).name}")
        real["replace"](source, target)

    def removed(path: Any, **options: Any) -> None:
        steps.append(f"remove {Path(path).name}")
        real["unlink"](path, **options)

    monkeypatch.setattr(os, "fsync", synced("fsync"))
    monkeypatch.setattr(os, "fdatasync", synced("fdatasync"))
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "unlink", removed)
    service = Service()
    source = texts(tmp_path / "in.txt", range(4))

    with opened(source) as job:
        asyncio.run(job.run(service.stream, lambda progress: steps.append(f"counts {progress.counts.done}")))
    assert [step for step in steps if not step.startswith("remove _journal-00001")] == [
        *("sync _job", "name _job.json", "sync folder"),
        *("sync _journal", "counts 4"),
        *("sync _part", "name part-00000.parquet", "sync folder", "remove _journal-00000.log"),
    ]


def test_a_disk_that_is_full_only_in_the_last_group_is_no_success(folder: OutputFolder) -> None:
    counted: list[int] = []

    async def record(store: Store) -> None:
        recorder = Recorder(store, nothing_kept(), lambda embedded, _: counted.extend(embedded.tolist()), group_seconds=60)
        await recorder.add(piece(0, 2000, 100))
        with full_disk(4096):
            # The group is only written now.
            await recorder.aclose(make_part=True)

    with Store(folder) as store, pytest.raises(OutputError, match="File too large"):
        asyncio.run(record(store))
    assert counted == []


@pytest.mark.timeout(20)
def test_a_write_error_while_the_next_group_is_full_ends_whoever_waits_for_room(folder: OutputFolder) -> None:
    async def record(store: Store) -> None:
        recorder = Recorder(store, nothing_kept(), lambda *_: None, group_bytes=1)
        with full_disk(4096):
            for number in range(100):
                await recorder.add(piece(number * 100, 100, 100))

    with Store(folder) as store, pytest.raises(OutputError, match="File too large"):
        asyncio.run(record(store))


@pytest.mark.timeout(30)
def test_behind_a_slow_disk_no_more_than_two_groups_are_held(folder: OutputFolder) -> None:
    gate, writing = threading.Event(), threading.Event()

    class SlowStore(Store):
        def add(self, tables: Any, failed: Any) -> None:
            writing.set()
            gate.wait(20)
            super().add(tables, failed)

    async def record(store: Store) -> int:
        recorder = Recorder(store, nothing_kept(), lambda *_: None, group_bytes=2 * 10 * 2 * 4)
        taken = 0

        async def fill() -> None:
            nonlocal taken
            for number in range(50):
                await recorder.add(piece(number * 10, 10))
                taken += 1

        filling = asyncio.create_task(fill())
        await asyncio.to_thread(writing.wait, 20)
        for _ in range(200):
            await asyncio.sleep(0)
        held = taken
        gate.set()
        await filling
        await recorder.aclose(make_part=True)
        return held

    with SlowStore(folder) as store:
        assert asyncio.run(record(store)) <= 4


def test_a_part_under_way_is_finished_before_the_parts_get_wider_columns(folder: OutputFolder) -> None:
    steps: list[str] = []
    gate = threading.Event()

    class WatchedStore(Store):
        def write_part(self, number: int) -> None:
            # As long as it takes until the wider rows are there, or what waits for this part has had its time.
            gate.wait(0.3)
            super().write_part(number)
            steps.append(f"part {number}")

        def unify_parts(self, kept: Any = None) -> None:
            super().unify_parts(kept)
            steps.append("unified")

    def kept_piece(first: int, value: Any) -> Piece:
        plain = piece(first, 2)
        return plain._replace(rows=[row._replace(kept=(value,)) for row in plain.rows])

    async def record(store: Store) -> None:
        columns = KeptColumns(["kept"], pa.schema([pa.field("kept", pa.int64())]), is_settled=False)
        recorder = Recorder(store, columns, lambda *_: None, group_bytes=1)
        await recorder.add(kept_piece(0, 1))
        await recorder.add(kept_piece(2, "x"))
        await recorder.aclose(make_part=True)

    with WatchedStore(folder, rows_per_part=2) as store:
        steps.clear()
        asyncio.run(record(store))
    assert steps == ["part 0", "unified", "part 1"]
    assert dataset.dataset(folder.path, format="parquet").to_table()["kept"].to_pylist() == ["1", "1", '"x"', '"x"']
