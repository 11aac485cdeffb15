"""A client that is closed while a call is under way, and a progress callback that fails."""

import asyncio
import contextlib

import pytest

from pinecone_embed_async import ClosedError, DenseEmbeddings, EmbedClient, EmbedError
from pinecone_embed_async._calls.scheduler import GRACE_SECONDS
from pinecone_embed_async.emulator import Emulator
from tests.clients import dense_client
from tests.clock import FakeClock, settle
from tests.interrupting import STRIDES, TEXTS, Bench, FirstAttempts, has_partial, in_stepping_loop, right, sweep


@pytest.mark.parametrize("stride", STRIDES)
def test_a_client_closed_during_a_call_gives_its_rows_or_says_so(stride: int) -> None:
    async def main(bench: Bench) -> None:
        async def one(number: int) -> bool:
            bench.client = bench.new_client()
            bench.emulator.faults = FirstAttempts()
            closings: list[asyncio.Task[None]] = []
            call = asyncio.create_task(bench.client.embed(TEXTS))
            bench.loop.before_step(number, lambda: closings.append(asyncio.create_task(bench.client.aclose())))
            await asyncio.wait([call])
            was_pending = bench.loop.forget()
            if closings:
                await asyncio.wait(closings)
            try:
                right(await call)
            except ClosedError as error:
                # Closed before the call had begun, or during it.
                if error.partial is not None:
                    has_partial(error)
            bench.nothing_is_left()
            async with bench.client:
                await bench.the_client_works_on()
            await bench.all_is_gone_once_it_is_closed()
            return not was_pending

        await sweep(one, stride)

    in_stepping_loop(main)


async def test_a_body_that_is_being_read_ends_some_seconds_after_the_client_is_closed(emulator: Emulator) -> None:
    emulator.faults = "stalled_body"
    clock = FakeClock()
    async with dense_client(emulator, clock=clock) as client, asyncio.timeout(5):
        call = asyncio.create_task(client.embed("a", input_type="query"))
        await emulator.wait_for_in_flight(1)
        # The half of the body that comes is under way by now.
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(client.aclose())
        await settle()
        assert not call.done()
        clock.advance(GRACE_SECONDS)
        await closing
        with pytest.raises(ClosedError):
            await call


async def test_an_error_of_the_progress_callback_leaves_no_cancellation_behind(client: EmbedClient[DenseEmbeddings]) -> None:
    def broken(_: object) -> None:
        raise KeyError("mine")

    with pytest.raises(EmbedError, match="`progress` raised KeyError"):
        await client.embed("a", input_type="query", progress=broken)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_timeout_around_a_failed_progress_callback_still_works(client: EmbedClient[DenseEmbeddings]) -> None:
    def broken(_: object) -> None:
        raise KeyError("mine")

    async def out_of_time() -> None:
        async with asyncio.timeout(0.5):
            with pytest.raises(EmbedError, match="`progress` raised KeyError"):
                await client.embed("a", input_type="query", progress=broken)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await out_of_time()


async def test_closing_that_is_cancelled_closes_the_connections_all_the_same(emulator: Emulator) -> None:
    async with dense_client(emulator, parameters={"input_type": "passage"}) as client:
        emulator.hold()
        call = asyncio.create_task(client.embed(TEXTS, on_error="return"))
        await emulator.wait_for_in_flight(1)
        closing = asyncio.create_task(client.aclose())
        await settle()
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        while emulator.statistics().connections_open:  # noqa: ASYNC110 - the emulator has no event for it
            await asyncio.sleep(0.01)
        emulator.release()
        with contextlib.suppress(ClosedError):
            assert not (await call).embedded.any()
