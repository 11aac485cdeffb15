"""What is told of attempts, and what is not told to a program that never asked."""

import asyncio
import logging
import subprocess
import sys

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.processes import environment_of
from tests.test_logging import NAME, TEXTS, client_of, messages


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
    caplog.set_level(logging.DEBUG, logger=NAME)
    async with client_of(emulator) as client:
        emulator.inject("status=503")
        emulator.inject("nan_values")
        emulator.inject("rate_limited=0")
        await client.embed(TEXTS)
        attempts = client.statistics().attempts
    assert attempts == len(TEXTS) + 3
    told = [message for message in messages(caplog, "DEBUG") if "attempt" in message]
    assert len(told) == attempts
