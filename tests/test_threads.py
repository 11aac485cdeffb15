"""One client in many threads, each with event loops of its own."""

import asyncio
import json
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pinecone_embed_async import DenseEmbeddings, EmbedClient, MockResponse, MockTransport, TransportRequest

CALLS, THREADS = 125, 8


@pytest.fixture
def threads_take_turns_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def answer(request: TransportRequest) -> MockResponse:
    return MockResponse.embeddings([[1.0, 2.0]] * len(json.loads(request.body or b"")["inputs"]))


def make_client() -> EmbedClient[DenseEmbeddings]:
    return EmbedClient("m", vector_type="dense", api_key="k", transport=MockTransport(answer), look_up_model=False)


async def by_stream(client: EmbedClient[DenseEmbeddings]) -> None:
    async with client.stream(["a", "b"]) as batches:
        async for batch in batches:
            assert len(batch) == 2


@pytest.mark.usefixtures("threads_take_turns_all_the_time")
def test_calls_in_event_loops_of_many_threads_do_not_meet() -> None:
    client = make_client()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for number in range(CALLS):
                if number % 3 == 0:
                    assert len(asyncio.run(client.embed(["a", "b"]))) == 2
                elif number % 3 == 1:
                    assert len(asyncio.run(client.embed_one("a"))) == 2
                else:
                    asyncio.run(by_stream(client))
                client.statistics()
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert client.statistics().in_flight == client.statistics().waiting == 0


def test_an_event_loop_that_another_thread_cleared_away_meanwhile_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    client = make_client()
    engine: Any = client._runtime.engine
    asyncio.run(client.embed("a"))
    (place,) = engine.network._states

    def cleared_away() -> bool:
        # What another thread does between the look and the step.
        engine.network._states.pop(place, None)
        return True

    monkeypatch.setattr(place[1], "is_closed", cleared_away)
    assert len(asyncio.run(client.embed("a"))) == 1
    assert place not in engine.network._states
