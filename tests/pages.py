"""The pages of the documentation, and the code that they print."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
JOBS_TO_INDEX = DOCS / "jobs-to-index.md"
"""Its blocks run on a job, in `tests/cli/test_layouts.py`."""
TABLES = DOCS / "tables.md"
"""Its blocks read a job's table, in `tests/cli/test_tables.py` and `tests/integrations/ray/test_docs.py`."""
FASTAPI = DOCS / "fastapi.md"
"""Its blocks are files that uvicorn serves, in `tests/integrations/test_fastapi.py`."""
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("**/*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks_of(text: str) -> list[str]:
    return [code for language, code in BLOCK.findall(text) if language == "python"]


RAY = "pinecone_embed_async.integrations.ray"
"""Blocks with it run on a cluster, in `tests/integrations/ray/test_docs.py`."""
