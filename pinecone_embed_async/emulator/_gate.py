"""Events that replace sleeping in tests: a gate that holds answers, and waits for a condition."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pinecone_embed_async.emulator._requests import EmbedRequest


class Gate:
    """Holds requests until they are released, all together or one by one."""

    def __init__(self) -> None:
        self._closed = False
        self._waiting: dict[int, tuple[EmbedRequest, asyncio.Future[None]]] = {}

    @property
    def held(self) -> tuple[EmbedRequest, ...]:
        """The held requests, in order of arrival."""
        return tuple(request for request, future in self._waiting.values() if not future.done())

    def close(self) -> None:
        """Hold every request from now on."""
        self._closed = True

    def open(self, *numbers: int) -> None:
        """Release the requests with these numbers; without numbers, release all and hold no more."""
        if not numbers:
            self._closed = False
        for number, (_, future) in self._waiting.items():
            if (not numbers or number in numbers) and not future.done():
                future.set_result(None)

    async def passed(self, request: EmbedRequest) -> None:
        """Wait until the request is released."""
        if not self._closed:
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting[request.number] = (request, future)
        try:
            await future
        finally:
            del self._waiting[request.number]


class Milestones:
    """Waits for conditions that become true by the time of a `check`."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def check(self) -> None:
        """Wake the waiters whose condition is now true; call it after every change that a condition depends on."""
        for condition, future in self._waiting:
            if not future.done() and condition():
                future.set_result(None)

    async def reached(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition is true."""
        if condition():
            return
        entry = (condition, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        finally:
            self._waiting.remove(entry)
