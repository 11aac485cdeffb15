from pathlib import Path

import pytest

from pinecone_embed_async import ConfigurationError
from pinecone_embed_async._jobs._errors import SourceError
from pinecone_embed_async._jobs._inputs import Compression, InputFile, InputFormat, find_inputs


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files to read, files to pass over, and an output."""
    for name in (
        "docs/b.txt",
        "docs/a.jsonl.gz",
        "docs/deeper/c.csv",
        "docs/deeper/image.png",
        "docs/_failures.jsonl",
        "docs/.hidden/d.txt",
        "docs/out/part-00000.parquet",
        "docs/z.parquet",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names_of(*given: str, leave_out: str = "docs/out") -> list[str]:
    return [file.name for file in find_inputs(given, leave_out=Path(leave_out))]


def test_a_folder_stands_for_its_readable_files_sorted_without_hidden_ones_and_the_output(tree: Path) -> None:
    assert names_of("docs") == ["docs/a.jsonl.gz", "docs/b.txt", "docs/z.parquet", "docs/deeper/c.csv"]
    assert names_of("docs", leave_out="elsewhere")[-1] == "docs/out/part-00000.parquet"


def test_a_pattern_stands_for_what_matches_sorted(tree: Path) -> None:
    assert names_of("docs/*.txt", "docs/**/*.[cp]*[vt]") == ["docs/b.txt", "docs/deeper/c.csv", "docs/z.parquet"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tree: Path) -> None:
    (tree / "a[1].txt").touch()
    assert names_of("a[1].txt") == ["a[1].txt"]


def test_the_format_and_the_compression_are_told_by_the_name(tree: Path) -> None:
    assert find_inputs(["x.JSONL.gz", "y.csv.zst", "z.txt"]) == [
        InputFile("x.JSONL.gz", Path("x.JSONL.gz"), InputFormat.JSONL, Compression.GZIP),
        InputFile("y.csv.zst", Path("y.csv.zst"), InputFormat.CSV, Compression.ZSTD),
        InputFile("z.txt", Path("z.txt"), InputFormat.TXT),
    ]
    [given] = find_inputs(["log.gz"], format=InputFormat.TXT)
    assert (given.format, given.compression) == (InputFormat.TXT, Compression.GZIP)


@pytest.mark.parametrize("names", [["in.pdf"], ["in.gz"], ["-"], ["noformat"]])
def test_a_format_that_cannot_be_told_is_misuse(tree: Path, names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="the format is unknown"):
        find_inputs(names)


def test_standard_input_is_read_once(tree: Path) -> None:
    with pytest.raises(ConfigurationError, match="named twice"):
        find_inputs(["-", "-"], format=InputFormat.TXT)


@pytest.mark.parametrize("name", ["empty", "nothing/*.txt"])
def test_what_stands_for_nothing_is_an_error(tree: Path, name: str) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(SourceError, match=r"no files to read|no file matches"):
        find_inputs([name])


@pytest.mark.parametrize("name", ["docs/deep*", "docs/out/*"])
def test_a_pattern_that_matches_only_folders_or_the_output_is_an_error(tree: Path, name: str) -> None:
    with pytest.raises(SourceError, match="no file matches this pattern; it matches only folders or the output"):
        names_of(name)
