"""What `--overwrite` leaves of the job before, and what is left of the files for an index when a part is gone."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import dataset

from pinecone_embed_async._jobs._errors import JobChangedError, OutputError
from pinecone_embed_async._jobs._layouts import Layout, LayoutName
from tests.jobs.by_hand import Service, run, texts

DOCUMENTS = Layout(LayoutName.DOCUMENTS)
BOOKS = Layout(LayoutName.DOCUMENTS, "books")


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return texts(tmp_path / "old.txt", range(3))


@pytest.fixture
def new(tmp_path: Path) -> Path:
    return texts(tmp_path / "new.txt", range(10, 14))


def numbers_in_table(out: Path) -> list[float]:
    rows = dataset.dataset(out, format="parquet").to_table().to_pylist()
    return sorted(row["vector"][0] for row in rows)


def numbers_in_exports(out: Path, layout: Layout = DOCUMENTS) -> list[float]:
    lines = [line for file in (out / layout.namespace).iterdir() for line in file.read_text().splitlines()]
    return sorted(json.loads(line)["vector"][0] for line in lines)


def assert_holds_only(out: Path, numbers: range, layout: Layout | None) -> None:
    if layout is None:
        assert sorted(path.name for path in out.iterdir()) == ["_job.json", "_lock", "part-00000.parquet"]
        assert numbers_in_table(out) == list(numbers)
    else:
        assert sorted(path.name for path in out.iterdir()) == sorted(["_job.json", "_lock", "_table", layout.namespace])
        assert numbers_in_table(out / "_table") == numbers_in_exports(out, layout) == list(numbers)


def lose_state(out: Path, content: str | None) -> None:
    (out / "_job.json").unlink()
    if content is not None:
        (out / "_job.json").write_text(content)


@pytest.mark.parametrize("content", [None, "{"], ids=["missing", "unreadable"])
@pytest.mark.parametrize("before", [None, DOCUMENTS, BOOKS], ids=["table", "default", "books"])
@pytest.mark.parametrize("after", [None, DOCUMENTS, BOOKS], ids=["table", "default", "books"])
def test_a_job_without_its_state_is_refused_and_overwritten_whole(
    out: Path, old: Path, new: Path, service: Service, before: Layout | None, after: Layout | None, content: str | None
) -> None:
    run(old, service, layout=before)
    lose_state(out, content)
    if before is not None:
        (out / "_table" / "_part-0a.partial").touch()
        (out / before.namespace / "_export-0a.partial").touch()
    with pytest.raises(OutputError, match="--overwrite starts over"):
        run(new, service, layout=after)
    run(new, service, layout=after, overwrite=True)
    assert_holds_only(out, range(10, 14), after)


@contextlib.contextmanager
def killed_at(removal: int) -> Iterator[None]:
    """Nothing is removed any more from that removal on, as if the process had been killed."""
    left = iter(range(removal))

    def killing(real: Callable[..., None]) -> Callable[..., None]:
        def remove(*given: Any, **options: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            real(*given, **options)

        return remove

    with pytest.MonkeyPatch.context() as patched:
        for name in ("unlink", "rmdir"):
            patched.setattr(os, name, killing(getattr(os, name)))
        yield


@pytest.mark.parametrize(("before", "after"), [(None, DOCUMENTS), (DOCUMENTS, BOOKS), (BOOKS, BOOKS), (BOOKS, None)])
def test_wherever_overwriting_is_killed_no_later_run_mixes_the_jobs(
    out: Path, old: Path, new: Path, service: Service, before: Layout | None, after: Layout | None
) -> None:
    more = texts(old.with_name("more.txt"), range(3, 5))
    for removal in range(20):
        run(old, service, layout=before, overwrite=True)
        run(more, service, layout=before, append=True)
        try:
            with killed_at(removal):
                run(new, service, layout=after, overwrite=True)
        except KeyboardInterrupt:
            with contextlib.suppress(JobChangedError, OutputError):
                run(new, service, layout=after)
                assert_holds_only(out, range(10, 14), after)
            run(new, service, layout=after, overwrite=True)
            assert_holds_only(out, range(10, 14), after)
        else:
            break
    assert removal > 3


def test_an_empty_folder_of_another_namespace_is_no_hindrance(out: Path, new: Path, service: Service) -> None:
    run(new, service, layout=BOOKS, overwrite=True)
    for file in (*(out / "_table").iterdir(), *(out / "books").iterdir(), out / "_job.json"):
        file.unlink()
    run(new, service, layout=DOCUMENTS)
    assert numbers_in_exports(out) == [10, 11, 12, 13]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("is_job", [False, True], ids=["no job", "another namespace"])
def test_a_folder_with_the_name_of_the_namespace_that_no_job_made_is_refused(
    out: Path, new: Path, service: Service, overwrite: bool, is_job: bool
) -> None:
    out.mkdir()
    if is_job:
        run(texts(new.with_name("empty.txt"), ()), service, layout=DOCUMENTS)
    (out / "books").mkdir()
    (out / "books" / "part-00000.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="it holds books, which no job wrote"):
        run(new, service, layout=BOOKS, overwrite=overwrite)
    assert (out / "books" / "part-00000.jsonl").read_text() == "mine"


def test_without_its_state_a_job_does_not_lay_claim_to_a_copy_of_its_table(out: Path, new: Path, service: Service) -> None:
    for layout in (DOCUMENTS, BOOKS):
        run(new, service, layout=layout, overwrite=True)
        lose_state(out, None)
        copy = out / "copy"
        copy.mkdir()
        (copy / "part-00000.parquet").write_bytes((out / "_table" / "part-00000.parquet").read_bytes())
        with pytest.raises(OutputError, match="which no job wrote"):
            run(new, service, layout=layout, overwrite=True)
        (copy / "part-00000.parquet").unlink()
        copy.rmdir()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("after", [None, DOCUMENTS, BOOKS, Layout(LayoutName.VECTORS, "books")])
def test_the_files_of_removed_parts_are_not_left_to_a_job_that_takes_the_folder_over(
    out: Path, old: Path, new: Path, service: Service, after: Layout | None, overwrite: bool
) -> None:
    run(old, service, layout=BOOKS)
    (out / "_table" / "part-00000.parquet").unlink()
    run(new, service, layout=after, overwrite=overwrite)
    if after is None or after.name is LayoutName.DOCUMENTS:
        assert_holds_only(out, range(10, 14), after)
    else:
        assert [path.name for path in (out / "books").iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize("part", [0, 1])
def test_a_removed_part_is_embedded_again_and_its_file_for_an_index_with_it(
    out: Path, old: Path, new: Path, service: Service, part: int
) -> None:
    run(old, service, layout=DOCUMENTS)
    run(new, service, layout=DOCUMENTS, append=True)
    (out / "_table" / f"part-{part:05}.parquet").write_bytes(bytes(100))
    again = (old, new)[part]
    with pytest.raises(OutputError, match="remove it to have its rows embedded again"):
        run(again, service, layout=DOCUMENTS)
    (out / "_table" / f"part-{part:05}.parquet").unlink()
    run(again, service, layout=DOCUMENTS, append=bool(part))
    assert numbers_in_table(out / "_table") == numbers_in_exports(out) == [0, 1, 2, 10, 11, 12, 13]
