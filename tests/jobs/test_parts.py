from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pinecone_embed_async._jobs._errors import OutputError
from pinecone_embed_async._jobs._parts import part_rows, part_schema, part_vectors


@pytest.mark.parametrize(
    "read",
    [lambda path: list(part_rows(path)), lambda path: list(part_vectors(path, np.arange(3))), part_schema],
    ids=["rows", "vectors", "schema"],
)
def test_a_part_that_is_damaged_is_named_and_what_to_do_with_it(tmp_path: Path, read: Callable[[Path], object]) -> None:
    part = tmp_path / "part-00000.parquet"
    part.write_bytes(b"PAR1 and then nothing of the kind")
    with pytest.raises(OutputError, match=r"part-00000.parquet: this part cannot be read: .*; remove it to have its rows"):
        read(part)
