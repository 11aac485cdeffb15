"""Neither the key nor the inputs' texts are in anything that a program shows, keeps or sends, whatever goes wrong."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import pickle
import re
import subprocess
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

import pytest

from pinecone_embed_async import EmbedClient, EmbedError
from pinecone_embed_async.emulator import Emulator, Fault, FaultName, FaultRule
from tests.clients import E5, SPARSE
from tests.silence import KEY, QUICK, TEXTS, assert_silent, chain_of, client_of, is_struck

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK_VALUES = {
    FaultName.CONNECTION_REFUSED: 0,
    FaultName.GZIP_BOMB: 2,
    FaultName.GIGANTIC_BODY: 2,
    FaultName.SLOW_DRIP: 0.01,
}
FAULTS = [
    *(Fault(name, QUICK_VALUES.get(name, "")) for name in FaultName),
    *(Fault("status", f"{code},{body}") for code in (400, 401, 500) for body in ("json", "html", "cut")),
    Fault("error_in_200", "400"),
]


def assert_error_is_silent(error: EmbedError) -> None:
    for one in chain_of(error):
        assert isinstance(one, EmbedError), "an error of another library is chained: it may hold headers or bodies"
        assert_silent((str(one), repr(one), one.args, vars(one)), "an error")
        assert_silent(pickle.dumps(one), "a pickle")
        assert_silent(pickle.dumps(pickle.loads(pickle.dumps(one))), "a pickle of a pickle")  # noqa: S301
        assert_silent("".join(traceback.format_exception(one)), "a traceback")


def assert_objects_are_silent() -> None:
    """Everything of ours that is alive, public or private."""
    for found in gc.get_objects():
        module = getattr(type(found), "__module__", None)
        if not isinstance(module, str) or not module.startswith("pinecone_embed_async") or ".emulator" in module:
            continue
        assert_silent(repr(found), f"the repr of a {type(found).__name__}")


def assert_tasks_are_silent() -> None:
    for task in asyncio.all_tasks():
        assert_silent((repr(task), task.get_name()), "a task")


def attributes_of(found: object) -> dict[str, object]:
    names = [
        *getattr(found, "__dict__", {}),
        *(name for kind in type(found).__mro__ for name in vars(kind).get("__slots__", ())),
    ]
    return {name: getattr(found, name) for name in names if hasattr(found, name)}


async def test_no_object_but_the_keys_own_has_the_key_as_an_attribute_between_requests() -> None:
    # What other tests have left is kept, so that no object of this client has the identity of one of theirs.
    others = gc.get_objects()
    identities = {id(other) for other in others}
    async with Emulator(api_key=KEY) as emulator, client_of(emulator, E5) as client:
        await client.embed(TEXTS)
        gc.collect()
        holders = {
            type(found).__name__
            for found in gc.get_objects()
            if id(found) not in identities
            # Not of every class is this a string.
            if (module := str(type(found).__module__)).startswith("pinecone_embed_async") and ".emulator" not in module
            if any(KEY in repr(held) for held in attributes_of(found).values())
        }
        assert holders == {"ApiKey"}


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """All loggers at DEBUG; what they said is searched in the end."""
    caplog.set_level(logging.DEBUG)
    yield
    for record in caplog.records:
        assert_silent((record.getMessage(), record.args, vars(record)), f"the log of {record.name}")
    assert_silent(caplog.text, "the log")


@pytest.mark.usefixtures("everything_logged")
@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_a_fault_shows_neither_key_nor_text(fault: Fault, capfd: pytest.CaptureFixture[str]) -> None:
    asyncio.get_running_loop().set_debug(True)
    model = E5 if fault.applies_to("dense") else SPARSE
    faults = FaultRule(fault, when=is_struck)
    # Only a stall is waited for: anything shorter than this machine's own pauses would strike other requests too.
    options = {"attempt_timeout": 0.1} if "stalled" in fault.name else {}
    async with Emulator(api_key=KEY, faults=faults) as emulator, client_of(emulator, model, **options) as client:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            error = None
            try:
                result = await client.embed(TEXTS)
            except EmbedError as raised:
                error, result = raised, raised.partial
        assert_silent([str(warning.message) for warning in caught], "a warning")
        assert_objects_are_silent()
        assert_tasks_are_silent()
        assert_silent((repr(client), client.statistics(), repr(result), result.failures, result.usage), "a repr")
    if error is not None:
        assert_error_is_silent(error)
    assert_silent(capfd.readouterr(), "the output")


@pytest.mark.usefixtures("everything_logged")
@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_a_refusal_that_echoes_inputs_shows_none(model: str) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with (
        Emulator(api_key=KEY, reject=lambda text: text in TEXTS[:5]) as emulator,
        client_of(emulator, model) as client,
    ):
        with pytest.raises(EmbedError) as caught:
            await client.embed(TEXTS)
        returned = await client.embed(TEXTS, on_error="return")
    assert len(caught.value.failures) == len(returned.failures) == 5
    assert_error_is_silent(caught.value)
    for failure in returned.failures:
        assert_error_is_silent(failure.error)
        assert "<input" in str(failure.error)


@pytest.mark.usefixtures("everything_logged")
@pytest.mark.parametrize("model", [E5, SPARSE])
async def test_nothing_is_shown_while_requests_are_under_way_or_when_they_are_cancelled_or_out_of_time(model: str) -> None:
    asyncio.get_running_loop().set_debug(True)
    async with (
        Emulator(api_key=KEY) as emulator,
        client_of(emulator, model, max_concurrency=2) as client,
    ):
        emulator.hold()
        call = asyncio.create_task(client.embed(TEXTS))
        await emulator.wait_for_in_flight(2)
        assert_objects_are_silent()
        assert_tasks_are_silent()
        call.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await call
        assert_silent((cancelled.value.args, str(cancelled.value)), "a CancelledError")
        with pytest.raises(EmbedError) as late:
            await client.embed(TEXTS, timeout=0.05)
        assert_error_is_silent(late.value)
        emulator.release()
        await client.embed(TEXTS)
        assert_objects_are_silent()


async def test_the_terms_of_a_sparse_answer_are_in_no_repr() -> None:
    async with Emulator(api_key=KEY) as emulator, client_of(emulator, SPARSE) as client:
        seen = 0

        def look(_: object) -> None:
            nonlocal seen
            seen += 1
            assert_objects_are_silent()

        result = await client.embed(TEXTS, parameters={"return_tokens": True}, progress=look)
        assert "vermilion" in "".join(result.tokens[0])
        assert seen == len(TEXTS)


# The command line.


async def run_embed(emulator: Emulator, key: str, folder: Path, *options: str) -> tuple[int | None, bytes]:
    """Run the command in development mode; gives its exit status and all that it wrote, files of failures included."""
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-m", "pinecone_embed_async.cli", "embed", str(source), "--out", str(out), *options),
        *("--batch-size", "1", "--timeout", "5"),
        env={**os.environ, "PINECONE_API_KEY": key, "PINECONE_CONTROLLER_HOST": emulator.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = await process.communicate()
    said = [output, errors, *(path.read_bytes() for path in folder.iterdir() if path != source)]
    return process.returncode, b"\n".join(said)


@pytest.mark.parametrize("fault", ["month_quota_spent", "white_space"])
async def test_the_command_line_shows_neither_key_nor_text(fault: str, tmp_path: Path) -> None:
    async with Emulator(api_key=KEY, faults=FaultRule(fault, when=is_struck)) as emulator:
        status, said = await run_embed(emulator, KEY, tmp_path)
    assert status == (0 if fault == "white_space" else 4)
    assert b" inputs" in said
    assert_silent(said, "the command line")


async def test_the_command_line_shows_no_text_that_the_service_echoes(tmp_path: Path) -> None:
    async with Emulator(api_key=KEY, reject=lambda text: text in TEXTS[:3]) as emulator:
        status, said = await run_embed(emulator, KEY, tmp_path)
    assert status == 1
    assert b"was rejected" in said
    assert_silent(said, "the command line")


async def test_the_emulators_command_shows_no_text(tmp_path: Path) -> None:
    faults = ("--fault", "status=503,html:0.2", "--fault", "cut_off_body:0.2", "--reject", "in quotes")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-m", "pinecone_embed_async.cli", "emulator", *faults),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    found = re.match(r"export PINECONE_CONTROLLER_HOST=(\S+)", (await process.stdout.readline()).decode())
    assert found is not None
    async with EmbedClient(E5, api_key="emulator-key", base_url=found[1], max_batch_size=1, retry=QUICK) as client:
        result = await client.embed(TEXTS, input_type="passage", on_error="return")
    assert result.failures
    process.terminate()
    output, errors = await process.communicate()
    assert_silent(output + errors, "the emulator's output")
