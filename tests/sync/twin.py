"""A blocking client behind the asynchronous one's interface, so that the tests of the one show the other."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from pinecone_embed_async import Statistics, SyncEmbedClient

ResultT = TypeVar("ResultT")

MOST_CALLS = 64
"""Calls at a time, of all tests."""


class Twin:
    """Carries out each call by a blocking client in a thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._client: SyncEmbedClient[Any] = SyncEmbedClient(*arguments, **options)
        self._threads = ThreadPoolExecutor(MOST_CALLS)

    def __repr__(self) -> str:
        return repr(self._client)

    async def _called(self, call: Callable[..., ResultT], *arguments: Any, **options: Any) -> ResultT:
        return await asyncio.wrap_future(self._threads.submit(call, *arguments, **options))

    async def __aenter__(self) -> Self:
        await self._called(self._client.__enter__)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
        self._threads.shutdown()

    async def aclose(self) -> None:
        await self._called(self._client.close)

    def statistics(self) -> Statistics:
        return self._client.statistics()

    def estimate(self, *arguments: Any, **options: Any) -> Any:
        return self._client.estimate(*arguments, **options)

    async def embed(self, *arguments: Any, **options: Any) -> Any:
        return await self._called(self._client.embed, *arguments, **options)

    async def embed_one(self, *arguments: Any, **options: Any) -> Any:
        return await self._called(self._client.embed_one, *arguments, **options)

    async def list_models(self) -> Any:
        return await self._called(self._client.list_models)

    async def describe_model(self, *arguments: Any) -> Any:
        return await self._called(self._client.describe_model, *arguments)

    def stream(self, *arguments: Any, **options: Any) -> Any:
        return _entered(self, self._client.stream(*arguments, **options))


class _Batches:
    def __init__(self, twin: Twin, stream: Any) -> None:
        self._twin = twin
        self._stream = stream

    def __repr__(self) -> str:
        return repr(self._stream)

    @property
    def usage(self) -> Any:
        return self._stream.usage

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        batch = await self._twin._called(next, self._stream, None)
        if batch is None:
            raise StopAsyncIteration
        return batch


@contextlib.asynccontextmanager
async def _entered(twin: Twin, stream: Any) -> AsyncIterator[_Batches]:
    await twin._called(stream.__enter__)
    try:
        yield _Batches(twin, stream)
    except BaseException as error:
        await twin._called(stream.__exit__, type(error), error, None)
        raise
    else:
        await twin._called(stream.__exit__, None, None, None)
