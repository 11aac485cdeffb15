"""The calls of a scenario as they are made, and their outcomes."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from pinecone_embed_async import EmbeddedBatch, EmbedError, Progress
from tests.simulation.neighbours import fault, is_fault, json_like
from tests.simulation.service import REFUSED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from pinecone_embed_async import DenseEmbeddings, EmbedClient, SparseEmbeddings
    from tests.simulation.neighbours import Stalls
    from tests.simulation.scenario import CallPlan
    from tests.simulation.service import Service

MARK = "vermilion"
"""Part of every text, so that a leaked text is recognised."""

BAD = 7
"""A stream's item that is no text."""

LETTERS = "etaoin shrdlu cmfwyp"


@dataclass(eq=False)
class Pull:
    """An item that a source yielded.

    Attributes:
        at: when.
        delivered_texts: texts that the stream had delivered by then.
        delivered_bad: items that are no texts, the same.
    """

    at: float
    delivered_texts: int
    delivered_bad: int


@dataclass(eq=False)
class Caller:
    """One awaited call and its outcome.

    Attributes:
        began: when it began.
        ended: when it ended; `None` before.
        outcome: what it returned or raised.
        cancelled_at: when the scenario cancelled it; `None` if it did not, or it had ended.
    """

    began: float = 0.0
    ended: float | None = None
    outcome: Any = None
    cancelled_at: float | None = None


@dataclass(eq=False)
class Call(Caller):
    """A call of a scenario.

    Attributes:
        items: its arguments.
        inputs: the text of each item; `None` where it has none.
        answers: what the text function returns for each item.
        callers: of `embed_one`, one for each text.
        batches: what a stream yielded or raised, with the times at which the wait began and ended.
        pulls: the items that a source yielded.
        progress: the reports of progress.
        asked: calls of the text function.
    """

    number: int = 0
    plan: CallPlan = None  # type: ignore[assignment]
    items: list[Any] = field(default_factory=list)
    inputs: list[str | None] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
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
        """Those of the items that have one."""
        return [text for text in self.inputs if text is not None]


def make_call(number: int, plan: CallPlan, seed: int) -> Call:
    """The call of a plan, with its texts."""
    rng = random.Random(f"call {seed} {number}")
    odd = random.Random(f"odd {seed} {number}")
    items: list[Any] = []
    for index in range(plan.inputs):
        if items and rng.random() < plan.duplicates:
            items.append(items[int(rng.random() * len(items))])
            continue
        if rng.random() < plan.bad:
            items.append(BAD)
            continue
        if plan.odd and odd.random() < plan.odd:
            items.append(json_like(odd, f"{MARK}-{number}-{index}"))
            continue
        name = f"{MARK}-common-{index}" if plan.common else f"{MARK}-{number}-{index}"
        text = f"{name} {REFUSED if rng.random() < plan.refused else ''}"
        if plan.alike and REFUSED in text:
            items.append(f"{MARK}-{number} {REFUSED}")
            continue
        size = int(plan.size[0] + rng.random() * (plan.size[1] - plan.size[0] + 1))
        items.append(text + (LETTERS * 12)[: max(0, size - len(text))])
    answers = items
    if plan.text_fails_at is not None:
        answers = [{"text": item} if isinstance(item, str) else item for item in items]
        answers = [json_like(odd, f"{MARK}-{number}") if odd.random() < plan.odd else answer for answer in answers]
    return Call(number=number, plan=plan, items=items, answers=answers, inputs=[_text_in(answer) for answer in answers])


def _text_in(value: object) -> str | None:
    """The text that a value is or has, if it can be sent."""
    text = value.get("text") if isinstance(value, dict) else value
    return text if isinstance(text, str) and "\ud800" not in text else None


class Actor:
    """Makes one call.

    Args:
        call: the call.
        client: the client.
        service: the service, which keeps the trace.
        rng: source of its draws.
        stalls: what hangs in its source.
    """

    def __init__(self, call: Call, client: EmbedClient[Any], service: Service, rng: random.Random, stalls: Stalls) -> None:
        self.call = call
        self._stalls = stalls
        self._client = client
        self._service = service
        self._rng = rng

    async def act(self) -> None:
        """Make the call, and cancel it when the plan says so."""
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
        for _ in range(plan.iterations):
            await asyncio.sleep(0)
        if task.cancel():
            caller.cancelled_at = _now()
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

    def _fault(self, whose: str) -> BaseException:
        return fault(self.call.plan.raises, whose)

    def _progress(self, progress: Progress) -> None:
        self.call.progress.append(progress)
        if self.call.plan.progress == "raises" and len(self.call.progress) == 3:
            raise self._fault("progress callback")

    async def _embed(self) -> DenseEmbeddings | SparseEmbeddings:
        sources: dict[str, Callable[[], Any]] = {
            "list": lambda: self.call.items,
            "async": self._slow_source,
            "thread": self._source,
        }
        source = sources[self.call.plan.source]()
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
            raise self._fault("source")
        return self.call.items[index]

    async def _slow_source(self) -> AsyncIterator[Any]:
        for index in range(len(self.call.items)):
            if self.call.plan.pause:
                await asyncio.sleep(self.call.plan.pause)
            if self.call.plan.source_hangs and index == self.call.plan.source_fails_at:
                await self._hang()
            yield self._pulled(index)
        if self.call.plan.source_hangs:
            await self._hang()
        if self.call.plan.source_fails_at == len(self.call.items):
            raise self._fault("source")

    async def _hang(self) -> None:
        await self._stalls.hang(self._rng, stays=self.call.plan.source_stays)

    def _source(self) -> Iterator[Any]:
        for index in range(len(self.call.items)):
            yield self._pulled(index)
        if self.call.plan.source_fails_at == len(self.call.items):
            raise self._fault("source")

    def _text(self, item: Any) -> Any:
        position = self.call.asked
        self.call.asked += 1
        if position == self.call.plan.text_fails_at:
            raise self._fault("text function")
        return self.call.answers[position]

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
                except Exception as error:
                    # The source's error is raised once.
                    if not is_fault(error) or error in [what for _, _, what in call.batches]:
                        raise
                    given = error
                call.batches.append((asked, _now(), given))
                self._service.note("batch", call.number, _shown(given))
                batch = given if isinstance(given, EmbeddedBatch) else getattr(given, "batch", None)
                inputs = [] if batch is None else call.inputs[batch.start : batch.start + len(batch)]
                call.delivered_bad += inputs.count(None)
                call.delivered_texts += len(inputs) - inputs.count(None)
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
