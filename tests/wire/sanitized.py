"""Runs the native module, built with AddressSanitizer and UndefinedBehaviorSanitizer, over everything that is odd.

    python -m tests.wire.sanitized FOLDER

builds it in the folder and starts itself again under the sanitizers, which end it at the first finding. Exit status 77 if
this compiler or machine has no sanitizers.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from itertools import product
from pathlib import Path
from random import Random

import numpy as np

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "pinecone_embed_async/_wire/native"
NAME = "pinecone_embed_async._wire._native"
NO_SANITIZERS = 77
FLAGS = ("-std=c11", "-O1", "-g", "-shared", "-fPIC", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def build(folder: Path) -> dict[str, str] | None:
    """Build the module; returns the environment that its sanitizers need, `None` if there are none."""
    compiler = shutil.which("gcc")
    if compiler is None:
        return None
    sources = sorted(map(str, SOURCES.glob("*.c")))
    include = f"-I{sysconfig.get_path('include')}"
    limited = () if sysconfig.get_config_var("Py_GIL_DISABLED") else ("-DPy_LIMITED_API=0x030B0000",)
    command = (compiler, *FLAGS, *limited, include, *sources, "-o", str(folder / "_native.so"))
    if subprocess.run(command, check=False).returncode:
        return None
    found = subprocess.run(
        (compiler, "-print-file-name=libasan.so"), capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_absolute():
        return None
    options = "abort_on_error=1:detect_leaks=0"
    # pymalloc's arenas would hide what is read beyond an object.
    return {**os.environ, "LD_PRELOAD": found, "ASAN_OPTIONS": options, "PYTHONMALLOC": "malloc", "PYTHONPATH": str(ROOT)}


def load(path: Path) -> None:
    """Import this build as the package's own."""
    spec = importlib.util.spec_from_file_location(NAME, path)
    if spec is None or spec.loader is None:
        raise ImportError(path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


def check() -> None:
    """Read what is odd, by both paths."""
    from pinecone_embed_async._wire import _native, choose_decoder  # noqa: PLC0415 - not before `load`
    from tests.wire.bodies import body_of  # noqa: PLC0415
    from tests.wire.bodies import check as check_body  # noqa: PLC0415
    from tests.wire.numbers import HARD, assert_read_right, near_halfway, random_texts  # noqa: PLC0415
    from tests.wire.odd_bodies import assert_same_at_every_cut, corpus  # noqa: PLC0415
    from tests.wire.reading import PORTABLE, decoder_of  # noqa: PLC0415

    msgspec = choose_decoder("msgspec")
    numbers = [*HARD, *near_halfway(1000, Random(7)), *random_texts(10_000, np.random.default_rng(7))]
    matrix = np.zeros((1, 1), np.float32)
    for portable in (False, True):
        decoder = decoder_of(PORTABLE if portable else "native")
        assert_read_right(decoder, numbers, 4)
        for body in corpus(4):
            assert_same_at_every_cut(decoder, msgspec, body)
        for length in range(5):
            for characters in product(b'-+.eE05 ],["', repeat=length):
                reader = _native.RowReader(1, 100, portable=portable)
                reader.attach(matrix)
                reader.read((b"[[" + bytes(characters),), 0, 1000)
                reader.read((b"]",), 0, 1000)
    for seed in range(300):
        body, asked = body_of(seed)
        check_body(body, **asked)
    misuse(_native.RowReader)


def misuse(reader_type: type) -> None:
    """Call it as the package never does."""
    sizes: list[tuple[object, ...]] = [(0, 1), (1, 0), (-1, 1), (1, 2**40), (2**62, 1), ("1", 1)]
    for arguments in sizes:
        raises(reader_type, *arguments)
    reader = reader_type(2, 10)
    pieces: list[tuple[object, ...]] = [
        ((b"ab",), 3, 1),
        ((b"ab",), -1, 1),
        ((b"ab",), 0, -1),
        ((b"ab", bytearray(b"ab")), 0, 1),
        (("ab",), 0, 1),
        ((b"ab",), 2**63, 1),
        ([b"ab"], 0, 1),
        (b"ab", 0, 1),
        ((), 0, 1),
    ]
    for arguments in pieces:
        raises(reader.read, *arguments)
    whole = np.zeros((2, 3), np.float32)
    misaligned = np.frombuffer(bytearray(25), np.uint8)[1:].view(np.float32).reshape(2, 3)
    frozen = np.zeros((2, 3), np.float32)
    frozen.flags.writeable = False
    for matrix in (
        whole[:1],
        whole.T,
        np.zeros((2, 6), np.float32)[:, ::2],
        whole.astype(np.float64),
        misaligned,
        frozen,
        b"ab",
        7,
    ):
        raises(reader.attach, matrix)
    raises(reader.accept)
    reader.read((b"[[1", b",2,3"), 0, sys.maxsize)
    raises(reader.accept)
    reader.read((b",[[",), 0, sys.maxsize)
    reader.attach(whole)
    raises(reader.attach, whole)
    # A row that is whole but odd is asked about again and again, until it is accepted.
    for _ in range(3):
        reader.read((b"]",), 0, sys.maxsize)
    reader.accept()
    reader.read((b"][" + b"1" * 20,), 0, sys.maxsize)
    reader.read((b"1" * 20 + b"]",), 0, sys.maxsize)
    _ = (
        reader.row,
        reader.gaps,
        reader.rest,
        reader.rest_length,
        reader.kept,
        reader.kept_numbers,
        reader.count,
        reader.is_portable,
    )


def raises(function: object, *arguments: object) -> None:
    """Call it, which must raise an error of the kinds that are told."""
    try:
        function(*arguments)  # type: ignore[operator]
    except (TypeError, ValueError, BufferError, OverflowError, MemoryError):
        return
    raise AssertionError(f"{function} took {arguments}")


def main(folder: Path) -> int:
    """Build it and check it in a process of its own."""
    environment = build(folder)
    if environment is None:
        return NO_SANITIZERS
    program = (
        "import sys; from pathlib import Path; from tests.wire import sanitized as s; s.load(Path(sys.argv[1])); s.check()"
    )
    return subprocess.run(
        (sys.executable, "-c", program, str(folder / "_native.so")), env=environment, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
