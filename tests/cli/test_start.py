"""What a command imports before it can answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.program import ROOT, table_of, write_texts

NOT_NEEDED = ("pyarrow", "pinecone_embed_async._jobs._opening", "pinecone_embed_async.emulator", "aiohttp.web")


def run(code: str) -> subprocess.CompletedProcess[str]:
    # Measuring coverage imports packages of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT), "PINECONE_API_KEY": "none"},
        check=False,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("embed", "--help"), ("models",)])
def test_nothing_is_imported_that_an_answer_does_not_need(arguments: tuple[str, ...]) -> None:
    code = f"""
import sys
from pinecone_embed_async.cli import cli
status = cli(*{arguments})
print(status, [name for name in {NOT_NEEDED} if name in sys.modules])
"""
    assert run(code).stdout.splitlines()[-1] == "0 []"


def test_a_job_does_not_import_pandas_which_pyarrow_does_where_it_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    source, out = write_texts(tmp_path / "in.txt", 3), tmp_path / "out"
    done = run(f"""
import sys
from pinecone_embed_async.cli import main
sys.argv[1:] = ["embed", {str(source)!r}, "--out", {str(out)!r}, "--emulator", "-q"]
try:
    main()
except SystemExit as end:
    print(end.code, [name for name in sys.modules if name.startswith("pandas.")])
""")
    assert done.stdout.splitlines()[-1] == "0 []"
    assert table_of(out).num_rows == 3


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [
        ("pyarrow", ("embed", "in.txt", "--out", "out")),
        ("pyarrow", ("estimate", "in.txt")),
        ("rich", ("models",)),
    ],
)
def test_a_package_that_is_missing_is_told_by_the_command_that_needs_it(missing: str, arguments: tuple[str, ...]) -> None:
    done = run(f"""
import sys
sys.modules["{missing}"] = None
from pinecone_embed_async.cli import cli
sys.exit(cli(*{arguments}))
""")
    told = f"the command line needs {missing}; install it with: pip install 'pinecone-embed-async[cli]'"
    assert (done.returncode, done.stderr) == (1, f"pinecone-embed: {told}\n")
