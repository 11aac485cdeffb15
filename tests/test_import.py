"""What importing the package costs, and what it imports."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

OPTIONAL = (
    "IPython",
    "langchain_core",
    "langchain",
    "llama_index",
    "opentelemetry",
    "pandas",
    "pinecone",
    "polars",
    "pydantic",
    "pyarrow",
    "pytest",
    "ray",
    "rich",
    "tqdm",
    "typer",
)

# Both in one process, for two processes are not equally lucky; processor time, for the machine may be busy with other work.
TIMED = """
from time import process_time
started = process_time()
import aiohttp, msgspec, numpy, tenacity
between = process_time()
import pinecone_embed_async
print((process_time() - started) / (between - started))
"""


def run(code: str, environment: Mapping[str, str] | None = None) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout


def test_no_optional_third_party_is_imported() -> None:
    code = f"import sys, pinecone_embed_async; print([name for name in {OPTIONAL} if name in sys.modules])"
    assert run(code).strip() == "[]"


def test_nothing_is_imported_that_only_a_cache_needs() -> None:
    # Measuring coverage imports it as well.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    code = "import sys, pinecone_embed_async; print('sqlite3' in sys.modules)"
    assert run(code, environment).strip() == "False"


@pytest.mark.long
@pytest.mark.timeout(120)
def test_it_takes_at_most_1_3_times_as_long_as_what_it_is_made_of(tmp_path: Path) -> None:
    # Compiled, as an installed package is; a checkout may not be.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    run(TIMED, environment)
    # The median of eleven, which six of them on one side decide.
    within = beyond = 0
    while max(within, beyond) < 6:
        if float(run(TIMED, environment)) <= 1.3:
            within += 1
        else:
            beyond += 1
    assert within == 6
