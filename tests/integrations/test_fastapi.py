"""The files of docs/fastapi.md, served by uvicorn in processes of its own."""

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from pinecone_embed_async import SqliteQuota
from pinecone_embed_async.emulator import Emulator
from tests.pages import FASTAPI, ROOT, blocks_of
from tests.processes import environment_of

_ADDRESS = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")
_STARTED = "Application startup complete"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the files of the page."""
    for block in blocks_of(FASTAPI.read_text()):
        (tmp_path / block.partition("\n")[0].removeprefix("# ")).write_text(block)
    return tmp_path


class Server:
    """uvicorn, as a process or several."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._said: list[str] = []
        self._changed = asyncio.Condition()
        self.url = ""

    @property
    def said(self) -> str:
        return "".join(self._said)

    async def read(self, stream: asyncio.StreamReader) -> None:
        async for line in stream:
            async with self._changed:
                self._said.append(line.decode())
                self._changed.notify_all()

    async def started(self, workers: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self.said.count(_STARTED) >= workers and _ADDRESS.search(self.said))
        found = _ADDRESS.search(self.said)
        assert found is not None
        self.url = found[1]

    async def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()


@contextlib.asynccontextmanager
async def serving(
    emulator: Emulator, files: Path, app: str, workers: int = 1
) -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    """Serve an app; it must end well, and have complained of nothing."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", "uvicorn", app, "--port", "0", "--workers", str(workers)),
        env=environment_of(emulator) | {"PYTHONPATH": str(ROOT)},
        cwd=files,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    server = Server(process)
    reading = asyncio.create_task(server.read(process.stdout))
    try:
        async with asyncio.timeout(30):
            await server.started(workers)
        async with httpx.AsyncClient(base_url=server.url, timeout=20, limits=httpx.Limits(max_connections=100)) as browser:
            yield server, browser
    finally:
        await server.stop()
        await reading
    # With several workers, uvicorn's first process leaves its socket to the end of the interpreter.
    own = re.compile(
        rf"^.*<socket.socket fd=\d+, .* laddr=\('127.0.0.1', {server.url.rpartition(':')[2]}\)>$\n", re.MULTILINE
    )
    said = own.sub("", server.said)
    assert not re.search("Traceback|ERROR|Warning", said), said


async def searches(browser: httpx.AsyncClient, count: int, name: str = "text") -> list[httpx.Response]:
    return await asyncio.gather(*(browser.get("/search", params={"q": f"{name} {number}"}) for number in range(count)))


async def test_concurrent_searches_share_requests(emulator: Emulator, files: Path) -> None:
    emulator.latency = 0.1
    async with serving(emulator, files, "main:app") as (_, browser):
        answers = await searches(browser, 60)
        assert {(answer.status_code, answer.text) for answer in answers} == {(200, '{"dimension":1024}')}
        assert emulator.statistics().requests < 30


async def test_a_text_that_is_refused_is_no_matter_of_time(emulator: Emulator, files: Path) -> None:
    emulator.reject = lambda text: "bad" in text
    async with serving(emulator, files, "main:app") as (_, browser):
        bad, good = await asyncio.gather(*(browser.get("/search", params={"q": text}) for text in ("bad", "good")))
        assert (bad.status_code, "Retry-After" in bad.headers) == (422, False)
        assert "bad" not in bad.text
        assert good.status_code == 200


async def test_a_pause_is_a_503_that_says_when_to_come_again_and_takes_no_request(emulator: Emulator, files: Path) -> None:
    async with serving(emulator, files, "main:app") as (_, browser):
        emulator.inject("rate_limited=30")
        first = await browser.get("/search", params={"q": "the first"})
        assert first.status_code == 503
        assert 25 < int(first.headers["Retry-After"]) <= 31
        sent, begun = emulator.statistics().requests, time.monotonic()
        answers = await searches(browser, 60)
        took = time.monotonic() - begun
        assert {answer.status_code for answer in answers} == {503}
        assert {20 < int(answer.headers["Retry-After"]) <= 31 for answer in answers} == {True}
        assert emulator.statistics().requests == sent
        # Any that had waited for its deadline would have taken two seconds.
        assert took < 2


async def test_a_failure_of_another_kind_is_a_503_too(emulator: Emulator, files: Path) -> None:
    async with serving(emulator, files, "main:app") as (_, browser):
        emulator.hold()
        answer = await browser.get("/search", params={"q": "text"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        emulator.release()


async def test_the_work_for_a_client_that_has_gone_is_cancelled(emulator: Emulator, files: Path) -> None:
    async with serving(emulator, files, "leaving:app") as (_, browser):
        answer = await browser.post("/chunks", json=["one", "two"])
        assert answer.json() == {"shape": [2, 1024]}
        emulator.hold()
        leaver = asyncio.create_task(browser.post("/chunks", json=["three"]))
        await emulator.wait_for_in_flight(1)
        leaver.cancel()
        async with asyncio.timeout(10):
            await emulator.wait_until_idle()
        emulator.release()
        assert (await browser.get("/search", params={"q": "text"})).status_code == 200


async def test_several_workers_share_a_quota(emulator: Emulator, files: Path) -> None:
    emulator.latency = 0.05
    async with serving(emulator, files, "workers:app", workers=2) as (server, browser):
        assert len(set(re.findall(r"Started server process \[(\d+)\]", server.said))) == 2
        for part in range(5):
            answers = await searches(browser, 60, f"part {part}")
            assert {answer.status_code for answer in answers} == {200}
        async with SqliteQuota(files / "embedding-quota.db", "standard") as quota:
            (figures,) = await quota.statistics()
        assert (figures.input_type, figures.source) == ("query", "given")
        # What all workers were billed.
        assert figures.used >= emulator.statistics().tokens_billed


async def test_calls_are_traced_below_the_request_they_are_made_in(emulator: Emulator, files: Path) -> None:
    async with serving(emulator, files, "traces:app") as (server, browser):
        assert (await browser.get("/search", params={"q": "text"})).status_code == 200
    spans = [json.loads(found) for found in re.findall(r"^\{$.*?^\}$", server.said, re.MULTILINE | re.DOTALL)]
    names: dict[str, str] = {span["context"]["span_id"]: span["name"] for span in spans}
    parents = {names[span["context"]["span_id"]]: names.get(span["parent_id"]) for span in spans}
    assert parents["embeddings request"] == "embeddings multilingual-e5-large"
    above: list[str | None] = ["embeddings multilingual-e5-large"]
    while above[-1] is not None:
        above.append(parents[above[-1]])
    assert above[-2] == "GET /search"
