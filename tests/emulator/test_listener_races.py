"""What comes just as the emulator starts or stops to listen."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from pinecone_embed_async.emulator import Emulator
from tests.stepping import SteppingLoop


async def refuse_before_step(number: int) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppingLoop)
    async with Emulator() as emulator:
        host, _, port = emulator.url.removeprefix("http://").partition(":")
        # The kernel accepts; the loop hears of it in one of its next steps.
        with socket.create_connection((host, int(port))) as connection:
            connection.setblocking(False)
            loop.before_step(number, emulator.refuse_connections)
            for _ in range(20):
                await asyncio.sleep(0)
            assert not loop.forget()


@pytest.mark.parametrize("number", range(1, 12))
def test_a_connection_is_not_forgotten_whichever_step_the_emulator_stops_to_listen_before(number: int) -> None:
    with asyncio.Runner(loop_factory=SteppingLoop) as runner:
        runner.run(refuse_before_step(number))
        loop = runner.get_loop()
        assert isinstance(loop, SteppingLoop)
        assert loop.said == []
    # A transport that was never closed says so now, and fails the test.
    gc.collect()


async def start_cancelled_before_step(number: int) -> bool:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SteppingLoop)
    watched = len(loop._selector.get_map())  # type: ignore[attr-defined]
    emulator = Emulator()
    starting = loop.create_task(emulator.start())
    loop.before_step(number, starting.cancel)
    await asyncio.wait({starting})
    await emulator.aclose()
    await asyncio.sleep(0)
    loop.forget()
    assert len(loop._selector.get_map()) == watched  # type: ignore[attr-defined]
    return starting.cancelled()


def test_a_start_that_is_cancelled_leaves_no_socket_open_whichever_step_it_is_cancelled_before() -> None:
    with asyncio.Runner(loop_factory=SteppingLoop) as runner:
        # More than it takes: the last ones come too late.
        is_cancelled = [runner.run(start_cancelled_before_step(number)) for number in range(1, 12)]
    assert is_cancelled[0]
    assert not is_cancelled[-1]
    gc.collect()
