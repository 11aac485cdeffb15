"""A job that is interrupted before each of its steps in turn, and what must not be left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pinecone_embed_async import DenseEmbeddings, EmbedClient, EmbedError, RetryPolicy
from pinecone_embed_async.emulator import EmbedRequest, EmulatedModel, Emulator, Fault
from tests.stepping import SteppingLoop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    Job = Callable[["Bench"], Coroutine[Any, Any, object]]

TINY = EmulatedModel("tiny", default_dimension=4, supported_dimensions=(4,))
TEXTS = ["plain", "unavailable", "cut", "limited", "nan", "closed"]
ON_FIRST_ATTEMPT = {
    "unavailable": Fault("status", "503"),
    "cut": Fault("cut_off_body"),
    "limited": Fault("rate_limited", "0"),
    "nan": Fault("nan_values"),
    "closed": Fault("keep_alive_close"),
}
MAX_CONCURRENCY = 2
QUICK = RetryPolicy(initial_backoff=0.001, max_backoff=0.002)
AGES = 1e6
"""Seconds that never pass here, not even when the clock is put forward."""
OF_THE_SERVER = ("RequestHandler.", "._accept_connection2")
"""What the emulator, in the same loop, may still be doing."""


class FirstAttempts:
    """Spoils the first attempt of each text with the fault that the text names."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def choose(self, request: EmbedRequest) -> Fault | None:
        for text in request.inputs:
            self._seen[text] += 1
            if self._seen[text] == 1 and text in ON_FIRST_ATTEMPT:
                # Those behind it have theirs in the attempts to come.
                return ON_FIRST_ATTEMPT[text]
        return None


class Bench:
    """An emulator and a client in one loop, the job's faults ready anew, and a look at what is left behind."""

    def __init__(self, emulator: Emulator, loop: SteppingLoop) -> None:
        self.emulator = emulator
        self.loop = loop
        self.client = self.new_client()

    def new_client(self, max_batch_size: int = 1) -> EmbedClient[DenseEmbeddings]:
        return EmbedClient(
            "tiny",
            vector_type="dense",
            api_key=self.emulator.api_key,
            base_url=self.emulator.url,
            max_concurrency=MAX_CONCURRENCY,
            max_batch_size=max_batch_size,
            retry=QUICK,
            attempt_timeout=AGES,
            connect_timeout=AGES,
        )

    def our_tasks(self) -> set[str]:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        return {repr(task) for task in others if not any(name in repr(task.get_coro()) for name in OF_THE_SERVER)}

    def our_timers(self) -> set[str]:
        return {name for name in self.loop.timers() if not name.startswith("RequestHandler.")}

    def pooled(self) -> int:
        """Connections that the client keeps for later; none of them is in use."""
        kept = 0
        for state in self.client._runtime.engine.network._states.values():
            assert state.own is not None
            connector = state.own._connections._inner
            assert not connector._acquired
            kept += sum(map(len, connector._conns.values()))
        return kept

    async def settle(self) -> None:
        """Wait until the server has noticed what became of its connections."""
        await self.emulator.wait_until_idle()
        pooled = self.pooled()
        for _ in range(1000):
            if self.emulator.statistics().connections_open == pooled:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{self.emulator.statistics().connections_open} connections, {pooled} of them in the pool")

    def nothing_is_left(self) -> None:
        statistics = self.client.statistics()
        assert statistics.in_flight == statistics.waiting == 0
        assert self.our_tasks() == set()
        # The pool looks after its idle connections by a timer of its own.
        assert self.our_timers() <= {"_weakref_handle"}
        assert self.loop.said == []

    async def the_client_works_on(self) -> None:
        self.emulator.faults = None
        right(await self.client.embed(TEXTS))
        assert self.pooled() <= MAX_CONCURRENCY
        await self.settle()
        self.nothing_is_left()

    async def all_is_gone_once_it_is_closed(self) -> None:
        await self.client.aclose()
        self.nothing_is_left()
        assert self.our_timers() == set()
        await self.settle()


def right(result: DenseEmbeddings) -> None:
    """Each text's vector, as it is answered alone, is in its row."""
    for text, row in zip(TEXTS, result, strict=True):
        np.testing.assert_array_equal(row, REFERENCE[text])


REFERENCE: dict[str, Any] = {}


async def learn_reference(bench: Bench) -> None:
    for text in TEXTS:
        REFERENCE[text] = (await bench.client.embed(text))[0]


def is_partial(result: DenseEmbeddings) -> None:
    """Each input is embedded, failed or not tried, and what is embedded is right."""
    settled = [index for failure in result.failures for index in failure.indices]
    settled += np.flatnonzero(result.embedded).tolist() + result.not_tried.tolist()
    assert sorted(settled) == list(range(len(TEXTS)))
    for index in np.flatnonzero(result.embedded):
        np.testing.assert_array_equal(result.vectors[index], REFERENCE[TEXTS[index]])
    assert np.isnan(result.vectors[~result.embedded]).all()


def has_partial(error: EmbedError) -> None:
    assert isinstance(error.partial, DenseEmbeddings)
    is_partial(error.partial)
    assert error.failures == error.partial.failures


@contextlib.contextmanager
def no_warnings_later() -> Iterator[None]:
    """What is collected now must not complain: warnings are errors, and unraisable ones fail the test."""
    yield
    gc.collect()


def in_stepping_loop(main: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    """Run a test with an emulator and a client in a loop that counts."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SteppingLoop)
        async with Emulator(models=[TINY]) as emulator:
            bench = Bench(emulator, loop)
            await learn_reference(bench)
            await bench.client.aclose()
            await main(bench)

    with no_warnings_later(), asyncio.Runner(loop_factory=SteppingLoop) as runner:
        runner.run(run())


async def cancelled_before_step(bench: Bench, number: int, job: Job) -> bool:
    """Cancel a job before its `number`-th step; says whether it had that many."""
    bench.emulator.faults = FirstAttempts()
    went_through: list[tuple[object, ...]] = []
    requested = False

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None

        def cancel() -> None:
            nonlocal requested
            requested = task.cancel("enough")

        bench.loop.before_step(number, cancel)
        try:
            await job(bench)
        except asyncio.CancelledError as error:
            went_through.append((error.args, error.__cause__, task.cancelling()))
            raise

    task = asyncio.create_task(watched())
    await asyncio.wait([task])
    was_pending = bench.loop.forget()
    assert task.cancelled() == requested
    if requested:
        assert went_through == [(("enough",), None, 1)]
    else:
        await task
    return not was_pending


async def out_of_time_before_step(bench: Bench, number: int, job: Job, *, cancel: bool = False) -> bool:
    """Let the time pass before a job's `number`-th step, and cancel it in the same moment; says whether it had that many."""
    bench.emulator.faults = FirstAttempts()
    requested = False

    async def watched() -> None:
        task = asyncio.current_task()
        assert task is not None

        def act() -> None:
            nonlocal requested
            bench.loop.put_forward(8)
            requested = cancel and task.cancel("enough")

        bench.loop.before_step(number, act)
        await job(bench)
        # Nobody cancelled it for good: whoever did took it back.
        assert task.cancelling() == 0

    task = asyncio.create_task(watched())
    await asyncio.wait([task])
    was_pending = bench.loop.forget()
    assert task.cancelled() == requested
    if not requested:
        await task
    return not was_pending


STRIDES = [13, pytest.param(1, marks=pytest.mark.long)]
"""In CI only the plainest sweep looks at every step: a job has some two hundred of them."""


async def sweep(one: Callable[[int], Awaitable[bool]], stride: int) -> int:
    """Call `one` with 1, 2, 3 and so on until it says that there are no steps left; gives the last number."""
    number = 1
    while await one(number):
        number += stride
        assert number < 5_000, "the job does not end"
    return number
