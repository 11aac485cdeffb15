from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._journal import Span
from pinecone_embed_async._jobs._layouts import Layout, LayoutName
from pinecone_embed_async._jobs._parts import (
    Segment,
    encode_batch,
    export_part,
    part_rows,
    part_schema,
    part_vectors,
    rewrite_part,
)


@pytest.mark.parametrize(
    "damaged", [b"PAR1 and then nothing", b"PAR1" + bytes(20) + b"\x08\0\0\0PAR1"], ids=["cut", "without a schema"]
)
@pytest.mark.parametrize(
    "read",
    [
        lambda path: list(part_rows(path)),
        lambda path: list(part_vectors(path, np.arange(3))),
        part_schema,
        lambda path: rewrite_part(path, pa.schema([])),
        lambda path: export_part(path, path.with_name("vectors.parquet"), Layout(LayoutName.VECTORS)),
    ],
    ids=["rows", "vectors", "schema", "rewritten", "exported"],
)
def test_a_part_that_is_damaged_is_named_and_what_to_do_with_it(
    tmp_path: Path, read: Callable[[Path], object], damaged: bytes
) -> None:
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(damaged)
    with pytest.raises(OutputError, match=r"part-00000.parquet: this part cannot be read: .*; remove it to have its rows"):
        read(part)


def file_memory() -> int:
    """Bytes of files that count as memory of this process now."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile:")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc, which only Linux has")
def test_a_segment_that_is_written_is_not_held_in_memory_as_a_whole(tmp_path: Path) -> None:
    path, size = tmp_path / "_journal-00000.log", 64 * 2**20
    spans: list[Span] = []
    kind = pa.list_(pa.float32(), 1024)
    with path.open("wb") as file:
        for first in range(0, size // 4096, 64):
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(64 * 1024, np.float32)), type=kind)
            content = encode_batch(pa.record_batch({"row": np.arange(first, first + 64), "vector": vectors}))
            spans.append(Span(file.tell(), content.size))
            file.write(content)
    segment = Segment(path, spans)
    before, most, rows = file_memory(), 0, 0
    for group in segment.sorted_groups(segment.schema):
        # Read as it is when it is written.
        assert group["vector"].combine_chunks().flatten().to_numpy().sum() == group.num_rows * 1024
        most = max(most, file_memory() - before)
        rows += group.num_rows
    assert rows == size // 4096
    assert most < size // 2
