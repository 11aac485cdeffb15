"""The anchors of the bugs in `scripts/planted_bugs.py` fit the current code."""

from __future__ import annotations

from pathlib import Path

import pytest

import pinecone_embed_async
from scripts.planted_bugs import BUGS, Bug

PACKAGE = Path(pinecone_embed_async.__file__).parent


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_each_anchor_occurs_once(bug: Bug) -> None:
    for name, right, wrong in bug.changes:
        assert (PACKAGE / name).read_text().count(right) == 1
        assert right != wrong
