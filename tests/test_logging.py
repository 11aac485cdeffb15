"""What the package says through its logger, and what it does not say to a program that never asked."""

import asyncio
import contextlib
import logging
import subprocess
import sys
from collections import Counter
from typing import Any, Literal

import pytest

from pinecone_embed_async import DenseEmbeddings, EmbedClient, EmbedError, RetryPolicy
from pinecone_embed_async.emulator import Emulator
from tests.processes import environment_of

NAME = "pinecone_embed_async"
QUICK = RetryPolicy(max_attempts=3, initial_backoff=0.001, max_backoff=0.002, max_retry_after=0.05)
TEXTS = ["a", "b", "c", "d", "e", "f", "g", "h"]


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger=NAME)


def client_of(emulator: Emulator, **options: Any) -> EmbedClient[DenseEmbeddings]:
    options = {"retry": QUICK, "max_batch_size": 1, "parameters": {"input_type": "query"}, **options}
    return EmbedClient("multilingual-e5-large", api_key=emulator.api_key, base_url=emulator.url, **options)


def levels(caplog: pytest.LogCaptureFixture) -> Counter[str]:
    return Counter(record.levelname for record in caplog.records if record.name == NAME)


def messages(caplog: pytest.LogCaptureFixture, level: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == NAME and record.levelname == level]


async def test_nothing_is_said_above_debug_while_all_goes_well(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(emulator) as client:
        await client.embed(TEXTS)
    assert set(levels(caplog)) <= {"DEBUG"}


async def test_retries_are_no_reason_for_more_than_debug(emulator: Emulator, caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(emulator) as client:
        for name in ("status=503", "cut_off_body", "nan_values"):
            emulator.inject(name)
        await client.embed(TEXTS)
        assert client.statistics().retries == 3
    assert set(levels(caplog)) == {"DEBUG"}
    assert levels(caplog)["DEBUG"] >= 3


async def test_a_pause_is_told_once_however_many_requests_it_stops(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(emulator, max_concurrency=4) as client:
        emulator.hold()
        emulator.inject("rate_limited=0.05", times=4)
        call = asyncio.create_task(client.embed(TEXTS))
        await emulator.wait_for_in_flight(4)
        emulator.release()
        await call
        assert client.statistics().rejections == 4
        (told,) = messages(caplog, "INFO")
        assert "pause" in told
        # The next pause is told again.
        emulator.inject("rate_limited=0")
        await client.embed(TEXTS)
    assert len(messages(caplog, "INFO")) == 2
    assert "WARNING" not in levels(caplog)


@pytest.mark.parametrize("on_error", ["raise", "return"])
async def test_giving_up_is_a_warning_that_says_which_inputs_and_why(
    emulator: Emulator, caplog: pytest.LogCaptureFixture, on_error: Literal["raise", "return"]
) -> None:
    emulator.faults = "status=503"
    async with client_of(emulator) as client:
        with contextlib.suppress(EmbedError):
            await client.embed(["a"], on_error=on_error)
    (told,) = messages(caplog, "WARNING")
    assert "0:1" in told
    assert "3 attempts" in told
    assert "ServiceError" in told
    assert not {"ERROR", "CRITICAL"} & set(levels(caplog))


async def test_a_program_that_sets_up_no_logging_reads_nothing(emulator: Emulator) -> None:
    code = """
import asyncio
from pinecone_embed_async import EmbedClient, RetryPolicy
async def main():
    async with EmbedClient("multilingual-e5-large", retry=RetryPolicy(max_attempts=1)) as client:
        result = await client.embed("a", input_type="query", on_error="return")
        print(len(result.failures))
asyncio.run(main())
"""
    emulator.faults = "status=503"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", code),
        env=environment_of(emulator),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert await process.communicate() == (b"1\n", b"")


async def test_every_attempt_is_told_at_debug_also_the_good_ones(
    emulator: Emulator, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(emulator) as client:
        emulator.inject("status=503")
        emulator.inject("nan_values")
        emulator.inject("rate_limited=0")
        await client.embed(TEXTS)
        attempts = client.statistics().attempts
    assert attempts == len(TEXTS) + 3
    told = [message for message in messages(caplog, "DEBUG") if "attempt" in message]
    assert len(told) == attempts
