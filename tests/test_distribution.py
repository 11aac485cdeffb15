"""What is in the wheel and the sdist, and what they say of themselves; `make dist` tries the wheel."""

import email
import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email.message import Message
from pathlib import Path

import pytest

from pinecone_embed_async import __version__
from pinecone_embed_async._wire.decoding import installed_decoders

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT))
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return email.message_from_bytes(wheel.read(f"pinecone_embed_async-{__version__}.dist-info/METADATA"))


def modules_under(folder: Path) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in folder.rglob("*.py")}


def test_the_wheel_holds_the_package_and_no_tests_or_docs(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = ROOT / "pinecone_embed_async"
    assert names >= modules_under(package) | {"pinecone_embed_async/py.typed"}
    assert {name.partition("/")[0] for name in names}.isdisjoint({"tests", "benchmarks", "docs", "scripts"})
    assert not [name for name in names if not name.endswith((".py", ".pyi", ".so", "/py.typed"))]


def test_the_wheel_holds_the_native_module_where_it_can_be_built(wheel: zipfile.ZipFile) -> None:
    built = [name for name in wheel.namelist() if name.endswith(".so")]
    if not built:
        assert "native" not in installed_decoders()
        return
    is_limited = not sysconfig.get_config_var("Py_GIL_DISABLED")
    ending = ".abi3.so" if is_limited else sysconfig.get_config_var("EXT_SUFFIX")
    assert built == [f"pinecone_embed_async/_wire/_native{ending}"]
    # One for all later versions of Python.
    assert not is_limited or "-cp311-abi3-" in str(wheel.filename)


@pytest.mark.parametrize("compiler", ["/nonexistent/cc", "false"])
def test_without_a_compiler_the_package_is_built_without_the_native_module(
    built: Path, tmp_path: Path, compiler: str
) -> None:
    (sdist,) = built.glob("*.tar.gz")
    command = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(sdist))
    environment = {**os.environ, "CC": compiler}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    (path,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    assert "pinecone_embed_async/_wire/decoding.py" in names
    assert not [name for name in names if name.endswith(".so")]


def test_the_sdist_holds_what_is_needed_to_test_and_document_it(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    in_c = {path.relative_to(ROOT).as_posix() for path in ROOT.rglob("pinecone_embed_async/**/*.[ch]")}
    expected = modules_under(ROOT / "tests") | modules_under(ROOT / "scripts") | in_c | {"setup.py", "pyproject.toml"}
    assert len(in_c) >= 5
    assert names >= expected | {"Makefile", "constraints.txt", "mkdocs.yml", "docs/job.svg", "CHANGELOG.md", "LICENSE"}
    assert not [
        name for name in names if name.startswith((".venv", "site/", "dist/", ".git/")) or name.endswith((".so", ".o"))
    ]


def test_the_metadata_are_complete(metadata: Message) -> None:
    assert metadata["Name"] == "pinecone-embed-async"
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "MIT"
    assert metadata["License-File"] == "LICENSE"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# pinecone-embed-async")  # type: ignore[union-attr]
    classifiers = metadata.get_all("Classifier") or []
    assert {"Typing :: Typed", "Framework :: AsyncIO", "Programming Language :: Python :: 3 :: Only"} <= set(classifiers)


def test_the_pythons_that_the_tests_run_on_are_declared(metadata: Message) -> None:
    prefix = "Programming Language :: Python :: 3."
    declared = {name.removeprefix(prefix) for name in metadata.get_all("Classifier") or [] if name.startswith(prefix)}
    assert declared == {"11", "12", "13"}
    assert metadata["Requires-Python"] == ">=3.11"


def test_without_extras_it_needs_four_packages(metadata: Message) -> None:
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    assert sorted(line.partition(">")[0] for line in needed) == ["aiohttp", "msgspec", "numpy", "tenacity"]


def test_every_dependency_has_a_version_that_everything_is_tested_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [line for extra in (project["dependencies"], *project["optional-dependencies"].values()) for line in extra]
    names = {line.partition(">")[0].partition("[")[0].lower() for line in wanted} - {"pinecone-embed-async"}
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().split()}
    assert names <= pinned
