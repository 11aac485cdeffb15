"""The programs of examples/ do what their docstrings say; that for Ray runs with Ray's own tests."""

import asyncio
import re
import sys
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp.test_utils import unused_port

from pinecone_embed_async import EmbedClient
from pinecone_embed_async.emulator import Emulator
from tests.processes import environment_of

EXAMPLES = Path(__file__).parents[2] / "examples"
LINES = [f"the text on line {number}" for number in range(300)]


async def start(emulator: Emulator, name: str, *arguments: str, cwd: Path) -> asyncio.subprocess.Process:
    environment = {**environment_of(emulator), "PYTHONUNBUFFERED": "1"}
    root = str(EXAMPLES.parent)
    environment["PYTHONPATH"] = ":".join(filter(None, (root, environment.get("PYTHONPATH"))))
    command = (sys.executable, "-W", "error", str(EXAMPLES / name), *arguments)
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe)


async def run(emulator: Emulator, name: str, *arguments: str, cwd: Path) -> tuple[int | None, str, str]:
    process = await start(emulator, name, *arguments, cwd=cwd)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def vectors_of(emulator: Emulator, lines: list[str]) -> np.ndarray:
    async with EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url) as client:
        return (await client.embed(lines, input_type="passage")).vectors


async def test_the_service_finds_a_line(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n\n".join(LINES))
    port = unused_port()
    process = await start(emulator, "search_service.py", "texts.txt", "--port", str(port), cwd=tmp_path)
    try:
        assert process.stdout is not None
        assert b"Running on" in await process.stdout.readline()
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as browser:
            async with browser.get("/search", params={"q": LINES[7]}) as answer:
                found = await answer.json()
            async with browser.get("/search") as answer:
                assert answer.status == 400
    finally:
        process.terminate()
        _, err = await process.communicate()
    assert [len(found), found[0]["line"], err] == [5, LINES[7], b""]
    assert process.returncode == 0


async def test_the_stream_writes_a_matrix(emulator: Emulator, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(LINES))
    status, out, err = await run(emulator, "bulk_stream.py", "texts.txt", "vectors.npy", "--quota", "standard", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert re.fullmatch(r"300 of 300 lines, \d+ tokens\n", out)
    np.testing.assert_array_equal(np.load(tmp_path / "vectors.npy"), await vectors_of(emulator, LINES))


async def test_the_stream_leaves_nan_and_says_which_lines_failed(emulator: Emulator, tmp_path: Path) -> None:
    emulator.reject = lambda text: text == LINES[200]
    (tmp_path / "texts.txt").write_text("\n".join(LINES))
    status, out, err = await run(emulator, "bulk_stream.py", "texts.txt", "vectors.npy", cwd=tmp_path)
    assert status == 1
    assert out.startswith("299 of 300 lines")
    assert err.startswith("lines [201]: ")
    (missing,) = np.flatnonzero(np.isnan(np.load(tmp_path / "vectors.npy")).all(axis=1))
    assert missing == 200


@pytest.mark.timeout(120)
async def test_the_processes_share_a_quota(emulator: Emulator, tmp_path: Path) -> None:
    parts = {f"{name}.txt": LINES[start::3] for start, name in enumerate("abc")}
    for name, lines in parts.items():
        (tmp_path / name).write_text("\n".join(lines))
    status, out, err = await run(emulator, "shared_quota.py", *parts, "--processes", "2", cwd=tmp_path)
    assert (status, err) == (0, "")
    assert [re.sub(r"\d+", "N", line) for line in out.splitlines()] == [f"{name}: N tokens" for name in parts]
    assert (tmp_path / "quota.db").exists()
    for name, lines in parts.items():
        np.testing.assert_array_equal(np.load((tmp_path / name).with_suffix(".npy")), await vectors_of(emulator, lines))
