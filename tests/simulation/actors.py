"""The calls of a scenario as they are carried out, and what became of each."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async import EmbeddedBatch, EmbedError, Progress
from tests.simulation.neighbours import MISLEADING, NeighbourError, is_of_a_generator
from tests.simulation.service import REFUSED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from pinecone_embed_async import DenseEmbeddings, EmbedClient, SparseEmbeddings
    from tests.simulation.scenario import CallPlan
    from tests.simulation.service import Service

MARK = "vermilion"
"""In every text, so that it is seen where a text is shown."""

BAD = 7
"""A stream's item that is no text."""

LETTERS = "etaoin shrdlu cmfwyp"


@dataclass(eq=False)
class Pull:
    """An item that a source gave.

    Attributes:
        at: when.
        delivered_texts: texts that the stream had given its consumer by then.
        delivered_bad: items that are no texts, the same.
    """

    at: float
    delivered_texts: int
    delivered_bad: int


@dataclass(eq=False)
class Caller:
    """One awaited call: what it was for, and how it ended.

    Attributes:
        began: when.
        ended: when; `None` while it has not.
        outcome: what it gave, or raised.
        was_cancelled: whether the scenario cancelled it.
    """

    began: float = 0.0
    ended: float | None = None
    outcome: Any = None
    was_cancelled: bool = False


@dataclass(eq=False)
class Call(Caller):
    """A call of a scenario.

    Attributes:
        items: that it embeds: texts, and in a stream what is none.
        callers: of `embed_one`, one for each text.
        batches: of a stream, what it gave or raised, with the time that was waited from and to.
        pulls: of a source.
        progress: as told.
        asked: times that the function which gives texts was called.
    """

    number: int = 0
    plan: CallPlan = None  # type: ignore[assignment]
    items: list[Any] = field(default_factory=list)
    callers: list[Caller] = field(default_factory=list)
    batches: list[tuple[float, float, Any]] = field(default_factory=list)
    pulls: list[Pull] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    asked: int = 0
    delivered_texts: int = 0
    delivered_bad: int = 0
    has_left: bool = False

    @property
    def texts(self) -> list[str]:
        """The items that are texts."""
        return [item for item in self.items if isinstance(item, str)]


def make_call(number: int, plan: CallPlan, seed: int) -> Call:
    """The call of a plan, with its texts."""
    rng = random.Random(f"call {seed} {number}")
    items: list[Any] = []
    for index in range(plan.inputs):
        if items and rng.random() < plan.duplicates:
            items.append(items[int(rng.random() * len(items))])
            continue
        if rng.random() < plan.bad:
            items.append(BAD)
            continue
        name = f"{MARK}-common-{index}" if plan.common else f"{MARK}-{number}-{index}"
        text = f"{name} {REFUSED if rng.random() < plan.refused else ''}"
        size = int(plan.size[0] + rng.random() * (plan.size[1] - plan.size[0] + 1))
        items.append(text + (LETTERS * 12)[: max(0, size - len(text))])
    return Call(number=number, plan=plan, items=items)


class Actor:
    """Carries out one call.

    Args:
        call: which.
        client: that it is a call of.
        service: that notes what happens, and when.
        rng: of its draws.
    """

    def __init__(self, call: Call, client: EmbedClient[Any], service: Service, rng: random.Random) -> None:
        self.call = call
        self._client = client
        self._service = service
        self._rng = rng
        self._told = 0

    async def act(self) -> None:
        """Carry it out, and cancel it when the plan says so."""
        call, plan = self.call, self.call.plan
        await asyncio.sleep(plan.at)
        call.began = _now()
        if plan.kind == "one":
            await self._crowd()
        else:
            await self._watched(call, self._embed() if plan.kind == "embed" else self._stream())
        call.ended = _now()

    async def _watched(self, caller: Caller, work: Any) -> None:
        """Await one call in a task of its own, which may be cancelled."""
        caller.began = _now()
        task = asyncio.create_task(work, name=f"call {self.call.number}")
        canceller = None
        if self.call.plan.cancellation is not None and caller in (self.call, *self.call.callers[::3]):
            canceller = asyncio.create_task(self._cancel(task, caller))
        await asyncio.wait([task])
        caller.ended = _now()
        if canceller is not None:
            canceller.cancel()
            await asyncio.wait([canceller])
        caller.outcome = asyncio.CancelledError() if task.cancelled() else task.exception() or task.result()
        self._service.note("call", self.call.number, _shown(caller.outcome))

    async def _cancel(self, task: asyncio.Task[Any], caller: Caller) -> None:
        plan = self.call.plan.cancellation
        if plan is None:
            return
        if plan.after_requests is None:
            await asyncio.sleep(plan.at)
        else:
            await self._service.reached(plan.after_requests)
        for _ in range(plan.turns):
            await asyncio.sleep(0)
        caller.was_cancelled = task.cancel() or caller.was_cancelled
        self._service.note("cancelled", self.call.number)

    def _options(self) -> dict[str, Any]:
        plan = self.call.plan
        options: dict[str, Any] = {"input_type": plan.input_type, "timeout": plan.timeout, "priority": plan.priority}
        if plan.variant:
            options["parameters"] = {"variant": plan.variant}
        if plan.kind != "one":
            options["on_error"] = plan.on_error
            options["progress"] = None if plan.progress == "none" else self._progress
        return options

    def _fault(self, message: str) -> BaseException:
        misleads = self.call.plan.misleads
        return NeighbourError(message) if misleads is None else MISLEADING[misleads](message)

    def _progress(self, progress: Progress) -> None:
        self.call.progress.append(progress)
        if self.call.plan.progress == "raises" and len(self.call.progress) == 3:
            raise self._fault("a fault of the simulated progress callback")

    async def _embed(self) -> DenseEmbeddings | SparseEmbeddings:
        source: Any = self.call.items if self.call.plan.source == "list" else self._slow_source()
        result: DenseEmbeddings | SparseEmbeddings
        result = await self._client.embed(source, dedupe=self.call.plan.dedupe, **self._options())
        return result

    async def _crowd(self) -> None:
        call = self.call
        call.callers = [Caller() for _ in call.items]
        async with asyncio.TaskGroup() as group:
            for caller, text in zip(call.callers, call.items, strict=True):
                group.create_task(self._watched(caller, self._client.embed_one(text, **self._options())))
                if call.plan.pause:
                    await asyncio.sleep(call.plan.pause * 2 * self._rng.random())

    def _pulled(self, index: int) -> Any:
        self.call.pulls.append(Pull(_now(), self.call.delivered_texts, self.call.delivered_bad))
        if index == self.call.plan.source_fails_at:
            raise self._fault("a fault of the simulated source")
        return self.call.items[index]

    async def _slow_source(self) -> AsyncIterator[Any]:
        for index in range(len(self.call.items)):
            if self.call.plan.pause:
                await asyncio.sleep(self.call.plan.pause)
            if self.call.plan.source_hangs and index == self.call.plan.source_fails_at:
                await asyncio.Event().wait()
            yield self._pulled(index)
        if self.call.plan.source_hangs:
            await asyncio.Event().wait()
        if self.call.plan.source_fails_at == len(self.call.items):
            raise self._fault("a fault of the simulated source")

    def _source(self) -> Iterator[Any]:
        for index in range(len(self.call.items)):
            yield self._pulled(index)
        if self.call.plan.source_fails_at == len(self.call.items):
            raise self._fault("a fault of the simulated source")

    def _text(self, item: Any) -> Any:
        self.call.asked += 1
        if self.call.asked - 1 == self.call.plan.text_fails_at:
            raise self._fault("a fault of the simulated text function")
        return {"text": item} if isinstance(item, str) else item

    async def _stream(self) -> None:
        call, plan = self.call, self.call.plan
        async with self._client.stream(
            self._slow_source() if plan.source == "async" else self._source(),
            text=None if plan.text_fails_at is None else self._text,
            ordered=plan.ordered,
            window=plan.window,
            in_thread=plan.source == "thread",
            max_delay=plan.max_delay,
            **self._options(),
        ) as batches:
            while plan.leaves_after is None or len(call.batches) < plan.leaves_after:
                asked = _now()
                given: Any
                try:
                    given = await anext(batches)
                except StopAsyncIteration:
                    return
                except EmbedError as error:
                    given = error
                except (NeighbourError, RuntimeError) as error:
                    # The source's is told once.
                    is_own = isinstance(error, NeighbourError) or is_of_a_generator(error)
                    if not is_own or error in [what for _, _, what in call.batches]:
                        raise
                    given = error
                call.batches.append((asked, _now(), given))
                self._service.note("batch", call.number, _shown(given))
                batch = given if isinstance(given, EmbeddedBatch) else getattr(given, "batch", None)
                items = [] if batch is None else batch.items
                call.delivered_bad += sum(item is BAD for item in items)
                call.delivered_texts += sum(item is not BAD for item in items)
                if plan.takes:
                    await asyncio.sleep(plan.takes)
            call.has_left = True


def _now() -> float:
    return asyncio.get_running_loop().time()


def _shown(what: object) -> str:
    if isinstance(what, EmbedError):
        failures = [(list(one.indices), type(one.error).__name__) for one in what.failures]
        return f"{type(what).__name__} {what.attempts} {failures}"
    if isinstance(what, BaseException):
        return type(what).__name__
    return f"vector {what.tolist()}" if isinstance(what, np.ndarray) else repr(what)
