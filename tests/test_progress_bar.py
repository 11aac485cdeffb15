"""`progress=True`: a bar in a terminal, nothing where there is none, and nothing left behind however a call ends."""

import re
import sys
import threading
from textwrap import indent
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import ConfigurationError, EmbedClient
from pinecone_embed_async.emulator import Emulator
from tests.clients import dense_client
from tests.processes import run_program
from tests.terminal import drawn_by

PROGRAM = """
import asyncio, sys, threading
sys.modules.update(dict.fromkeys({missing}))
from pinecone_embed_async import EmbedClient, EmbedError

TEXTS = [f"text number {{number}}" for number in range(40)]

{bodies}

async def main(body):
    async with EmbedClient("multilingual-e5-large", input_type="passage", max_batch_size=4, max_concurrency=2) as client:
        await body(client)
    print([thread.name for thread in threading.enumerate() if thread.name == "progress bar"])

for number, body in enumerate([{names}]):
    if number:
        print({between!r}, flush=True)
        print({between!r}, file=sys.stderr, flush=True)
    asyncio.run(main(body))
"""
BETWEEN = "(and now the next)\n"
MISSING = {"rich": ["tqdm"], "tqdm": ["rich"]}
BODIES = {
    "call": ("await client.embed(TEXTS, progress=True)", 40),
    "equal texts": ("await client.embed(TEXTS + TEXTS, dedupe=True, progress=True)", 40),
    "stream": (
        """
async with client.stream(iter(TEXTS), progress=True) as batches:
    async for batch in batches:
        pass
""",
        40,
    ),
    "error": (
        """
try:
    await client.embed([*TEXTS, "bad"], progress=True)
except EmbedError:
    print("raised")
""",
        41,
    ),
    "cancellation": (
        """
call = asyncio.create_task(client.embed(TEXTS, progress=True))
while client.statistics().answers < 3:
    await asyncio.sleep(0.01)
call.cancel()
try:
    await call
except asyncio.CancelledError:
    print("cancelled")
""",
        None,
    ),
    "cancellation of a stream": (
        """
async def read():
    async with client.stream(TEXTS, progress=True) as batches:
        async for batch in batches:
            pass
reading = asyncio.create_task(read())
while client.statistics().answers < 3:
    await asyncio.sleep(0.01)
reading.cancel()
await asyncio.wait([reading])
print(reading.cancelled())
""",
        None,
    ),
    "deadline": (
        """
try:
    await client.embed(TEXTS, progress=True, timeout=0.3)
except TimeoutError:
    print("too late")
""",
        None,
    ),
    "left early": (
        """
async with client.stream(TEXTS, progress=True) as batches:
    await anext(batches)
""",
        None,
    ),
    "its own exception": (
        """
try:
    async with client.stream(TEXTS, progress=True) as batches:
        async for batch in batches:
            raise KeyError("mine")
except KeyError:
    print("mine")
""",
        None,
    ),
}


def program(missing: list[str], *bodies: str) -> str:
    functions = [f"async def body_{number}(client):\n{indent(body, '    ')}" for number, body in enumerate(bodies)]
    names = ", ".join(f"body_{number}" for number in range(len(bodies)))
    return PROGRAM.format(missing=missing, bodies="\n".join(functions), names=names, between=BETWEEN.strip())


COUNT = {"rich": re.compile(r"(\d+)/(\d+|\?)"), "tqdm": re.compile(r"(\d+)(?:/(\d+)| inputs)")}


@pytest.fixture(scope="module")
def recordings() -> dict[str, dict[str, tuple[str, str]]]:
    """What each call drew and printed, by library: all are made by one program, since starting it takes longer than they."""
    return {}


@pytest.mark.parametrize("library", MISSING)
@pytest.mark.parametrize("case", BODIES)
async def test_a_bar_is_drawn_and_ends_with_the_call(
    case: str, library: str, emulator: Emulator, recordings: dict[str, dict[str, tuple[str, str]]]
) -> None:
    if library not in recordings:
        emulator.latency = 0.1
        emulator.reject = lambda text: text == "bad"
        bodies = [body for body, _ in BODIES.values()]
        drawn, out = await drawn_by(emulator, program(MISSING[library], *bodies))
        parts = zip(drawn.replace("\r\n", "\n").split(BETWEEN), out.split(BETWEEN), strict=True)
        recordings[library] = dict(zip(BODIES, parts, strict=True))
    drawn, out = recordings[library][case]
    settled = BODIES[case][1]
    assert out.splitlines()[-1] == "[]", "the bar's thread outlived the call"
    assert drawn.endswith(("\n", "\x1b[?25h")), "what is written next begins on a line of its own"
    assert drawn.count("\x1b[?25l") == drawn.count("\x1b[?25h"), "the cursor was left hidden"
    pictures = [picture for picture in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)) if picture.strip()]
    counts = [int(match[1]) for picture in pictures if (match := COUNT[library].search(picture))]
    assert len(counts) >= 2
    assert counts == sorted(counts)
    assert settled is None or counts[-1] == settled
    assert "tokens" in pictures[-1]
    assert ("1 failed" in pictures[-1]) is (case == "error")
    assert not re.search(r"text number|bad", drawn)


async def test_the_bar_of_a_stream_says_that_it_does_not_know_the_end_until_it_does(emulator: Emulator) -> None:
    emulator.latency = 0.2
    drawn, _ = await drawn_by(emulator, program(MISSING["rich"], BODIES["stream"][0]))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert re.search(r"\d+/\?", plain)
    assert re.split(r"[\r\n]+", plain.strip())[-1].count("40/40") == 1


NO_SLOW_STEPS = "asyncio.get_running_loop().slow_callback_duration = 60"
"""For programs without a standard error that takes anything: on a busy machine, debug mode would tell it of slow steps."""


async def test_a_terminal_that_takes_nothing_stops_neither_the_loop_nor_the_call(emulator: Emulator) -> None:
    body = f"""
import termios, time
{NO_SLOW_STEPS}
loop = asyncio.get_running_loop()
await client.embed("the first", progress=True)
termios.tcflow(2, termios.TCOOFF)
latest, longest = loop.time(), 0.0
async def watch():
    nonlocal latest, longest
    while True:
        longest = max(longest, loop.time() - latest)
        latest = loop.time()
        await asyncio.sleep(0.01)
watching = asyncio.create_task(watch())
started = loop.time()
result = await client.embed(TEXTS, progress=True)
took = loop.time() - started
watching.cancel()
termios.tcflow(2, termios.TCOON)
print(result.embedded.all(), took < 10, longest < 5)
while any(thread.name == "progress bar" for thread in threading.enumerate()):
    await asyncio.sleep(0.01)
"""
    emulator.latency = 0.05
    _, out = await drawn_by(emulator, program([], body))
    assert out.splitlines() == ["True True True", "[]"]


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"FORCE_COLOR": "1", "TERM": "dumb"}])
async def test_nothing_is_drawn_on_a_terminal_that_cannot(environment: dict[str, str], emulator: Emulator) -> None:
    drawn, _ = await drawn_by(emulator, program([], BODIES["call"][0]), environment=environment)
    assert drawn == ""


@pytest.mark.parametrize("case", ["call", "stream", "left early"])
async def test_nothing_is_drawn_into_a_file_and_nothing_is_imported_for_it(case: str, emulator: Emulator) -> None:
    code = program([], BODIES[case][0]) + 'print(sorted({"rich", "tqdm", "IPython"} & sys.modules.keys()))'
    assert (await run_program(emulator, code, environment={"FORCE_COLOR": "1"})).splitlines() == ["[]", "[]"]


@pytest.mark.parametrize("close", ["sys.stderr = None", "sys.stderr.close()"])
async def test_a_program_without_standard_error_gets_its_vectors(close: str, emulator: Emulator) -> None:
    code = program([], f"{NO_SLOW_STEPS}\n{close}\n{BODIES['call'][0]}")
    assert await run_program(emulator, code) == "[]\n"


async def test_without_rich_and_tqdm_it_is_an_error_before_anything_is_sent(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("rich", "tqdm"):
        monkeypatch.setitem(sys.modules, name, None)
    said = "progress=True needs rich or tqdm, but neither is installed: pip install rich, or pass a function"
    async with dense_client(emulator, input_type="passage") as client:
        with pytest.raises(ConfigurationError, match=said):
            await client.embed(["a"], progress=True)
        with pytest.raises(ConfigurationError, match=said):
            client.stream(["a"], progress=True)
        assert emulator.statistics().requests == 0
        assert (await client.embed(["a"], progress=False)).embedded.all()


async def test_a_package_that_was_made_by_hand_is_installed(
    client: EmbedClient[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rich", ModuleType("rich"))
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert (await client.embed(["a"], input_type="passage", progress=True)).embedded.all()


@pytest.mark.parametrize("nothing", [None, False, np.False_])
async def test_false_is_no_bar(nothing: Any, client: EmbedClient[Any]) -> None:
    result = await client.embed(["a"], input_type="passage", progress=nothing)
    assert result.embedded.all()


async def test_a_bar_that_was_asked_for_and_never_awaited_starts_nothing(client: EmbedClient[Any]) -> None:
    client.embed(["a"], input_type="passage", progress=True).close()
    client.stream(["a"], input_type="passage", progress=np.True_)  # type: ignore[arg-type]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress bar"]


async def test_a_bar_that_fails_ends_with_a_warning_and_not_the_call(emulator: Emulator) -> None:
    body = """
import logging, rich.progress
logging.basicConfig(stream=sys.stdout)
def fail(*_, **__):
    raise RuntimeError("no bar")
rich.progress.Progress.update = fail
print((await client.embed(TEXTS, progress=True)).embedded.all())
"""
    emulator.latency = 0.1
    _, out = await drawn_by(emulator, program([], body))
    assert "the progress bar ended: RuntimeError" in out
    assert out.splitlines()[-2:] == ["True", "[]"]
