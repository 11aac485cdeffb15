"""What only the blocking client does: threads, forks, running loops, Ctrl-C and the end of the interpreter."""

import asyncio
import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from pinecone_embed_async import (
    ClosedError,
    DenseEmbeddings,
    EmbedClient,
    EmbedError,
    MockResponse,
    MockTransport,
    SyncEmbedClient,
)
from pinecone_embed_async.emulator import Emulator
from pinecone_embed_async.integrations.pytest_plugin import LocalEmulator
from tests.clients import E5
from tests.processes import environment_of, run_program

TEXTS = [f"text number {number}" for number in range(1_000)]


@pytest.fixture
def local() -> Iterator[LocalEmulator]:
    with LocalEmulator() as running:
        yield running


def sync_client(emulator: Emulator | LocalEmulator, **options: Any) -> SyncEmbedClient[DenseEmbeddings]:
    options = {"input_type": "passage", **options}
    return SyncEmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, **options)


def own_threads() -> list[str]:
    # Those of clients that other tests have dropped end once these are collected.
    gc.collect()
    return [thread.name for thread in threading.enumerate() if thread.name == "pinecone-embed"]


def test_a_thousand_calls_of_sixteen_threads_have_the_vectors_of_their_texts(local: LocalEmulator) -> None:
    with sync_client(local) as client:
        expected = client.embed(TEXTS).vectors
        with ThreadPoolExecutor(16) as pool:
            vectors = list(pool.map(client.embed_one, TEXTS))
        # They shared requests.
        assert local.call(lambda emulator: emulator.statistics().requests) < 500
    np.testing.assert_array_equal(vectors, expected)
    assert own_threads() == []


async def test_a_call_works_in_a_thread_whose_event_loop_is_running(local: LocalEmulator) -> None:
    # As in a notebook.
    with sync_client(local) as client:
        assert client.embed(["one", "two"]).vectors.shape == (2, 1024)


def test_a_call_from_the_clients_own_thread_is_refused_for_it_would_wait_for_itself(local: LocalEmulator) -> None:
    with sync_client(local) as client:
        with pytest.raises(EmbedError) as caught:
            client.embed(TEXTS, progress=lambda _: client.embed("again"))  # type: ignore[arg-type]
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert "in the event loop that runs it" in str(caught.value.__cause__)
        assert caught.value.partial is not None


PROGRAM = """
import os, signal, sys, warnings
from pinecone_embed_async import ClosedError, SyncEmbedClient
client = SyncEmbedClient("multilingual-e5-large", input_type="passage")
"""


async def test_it_works_after_a_fork(emulator: Emulator) -> None:
    code = """
print(client.embed("one").shape, flush=True)
# Later versions of Python warn of forks of programs that have threads.
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    print(client.embed("two").shape, flush=True)
    client.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(client.embed("three").shape)
"""
    assert await run_program(emulator, PROGRAM + code) == "(1, 1024)\n" * 3


async def test_after_a_fork_a_stream_works_if_it_was_not_begun_before(emulator: Emulator) -> None:
    code = """
waiting = client.stream(["one", "two"])
begun = client.stream(f"text number {number}" for number in range(300))
next(begun)
warnings.simplefilter("ignore")
child = os.fork()
if child == 0:
    # Ends a child that waits for a thread of its parent.
    signal.alarm(20)
    print([batch.items for batch in waiting], flush=True)
    for use in (begun.__next__, begun.__enter__):
        try:
            use()
        except ClosedError as error:
            print(error, flush=True)
    begun.close()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(len(list(waiting)), len(list(begun)))
"""
    refused = (
        "the thread pinecone-embed must run in this process, but it was closed, or the process was forked:"
        " begin a new call or stream of an open client\n"
    )
    assert await run_program(emulator, PROGRAM + code) == f"[['one', 'two']]\n{refused * 2}1 3\n"


async def test_an_interpreter_ends_with_clients_and_streams_that_were_not_closed(emulator: Emulator) -> None:
    code = """
print(client.embed("one").shape)
stream = client.stream(f"text number {number}" for number in range(100_000))
print(len(next(stream)))
"""
    assert await run_program(emulator, PROGRAM + code) == "(1, 1024)\n96\n"


async def test_ctrl_c_cancels_the_call_and_the_client_works_on(emulator: Emulator) -> None:
    code = """
try:
    client.embed([f"text number {number}" for number in range(300)])
except KeyboardInterrupt:
    print("interrupted", flush=True)
sys.stdin.readline()
print(client.embed("one").shape, client.statistics().in_flight)
"""
    emulator.hold()
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM + code),
        env=environment_of(emulator),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    await emulator.wait_for_in_flight(4)
    program.send_signal(signal.SIGINT)
    assert await program.stdout.readline() == b"interrupted\n"
    emulator.release()
    out, _ = await program.communicate(b"\n")
    assert (program.returncode, out) == (0, b"(1, 1024) 0\n")


async def test_closing_ends_the_calls_of_other_threads_with_what_was_embedded(emulator: Emulator) -> None:
    client = sync_client(emulator, max_batch_size=10, max_concurrency=4)
    emulator.hold()
    call = asyncio.create_task(asyncio.to_thread(client.embed, TEXTS[:100]))
    await emulator.wait_for_in_flight(4)
    emulator.release(1, 2)
    await emulator.wait_for_answers(2)
    closing = asyncio.create_task(asyncio.to_thread(client.close))
    with pytest.raises(ClosedError) as caught:
        await call
    await closing
    assert isinstance(caught.value.partial, DenseEmbeddings)
    assert caught.value.partial.embedded.sum() >= 20
    assert own_threads() == []
    emulator.release()


def test_whatever_races_with_closing_is_done_or_says_that_the_client_is_closed() -> None:
    def use(client: SyncEmbedClient[Any], begun: threading.Barrier) -> None:
        calls: tuple[Callable[[], object], ...] = (lambda: client.embed_one("one"), lambda: list(client.stream(["one"])))
        begun.wait(10)
        while True:
            for call in calls:
                call()

    transport = MockTransport(lambda request: MockResponse.embeddings([[1.0] for _ in request.json()["inputs"]]))
    usual, end = sys.getswitchinterval(), time.monotonic() + 1
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            while time.monotonic() < end:
                client = SyncEmbedClient("any", api_key="k", transport=transport, vector_type="dense", look_up_model=False)
                begun = threading.Barrier(4)
                uses = [pool.submit(use, client, begun) for _ in range(3)]
                begun.wait(10)
                client.close()
                for error in [one.exception(10) for one in uses]:
                    assert isinstance(error, ClosedError), repr(error)
    finally:
        sys.setswitchinterval(usual)


def test_a_closed_client_refuses_calls_until_it_is_entered_again(local: LocalEmulator) -> None:
    client = sync_client(local)
    client.embed("one")
    client.close()
    client.close()
    calls: tuple[Callable[[], object], ...] = (
        lambda: client.embed("one"),
        lambda: client.embed_one("one"),
        client.list_models,
        lambda: client.stream([]),
    )
    for call in calls:
        with pytest.raises(ClosedError, match="open it again with `with`"):
            call()
    assert own_threads() == []
    with client:
        assert client.embed_one("one").shape == (1024,)
    assert own_threads() == []


def test_a_client_that_is_dropped_ends(local: LocalEmulator) -> None:
    client = sync_client(local)
    client.embed("one")
    assert own_threads() == ["pinecone-embed"]
    del client
    gc.collect()
    assert own_threads() == []


def test_a_stream_is_an_ordinary_iterator(local: LocalEmulator) -> None:
    with sync_client(local) as client:
        expected = client.embed(TEXTS).vectors
        stream = client.stream(iter(TEXTS))
        assert (repr(stream), stream.usage.requests) == ("<SyncEmbeddingStream not begun>", 0)
        vectors = [row for batch in stream for row in batch.vectors]
        assert (repr(stream), stream.usage.requests) == ("<SyncEmbeddingStream closed>", 11)
        assert list(stream) == []
        in_thread = [row for batch in client.stream(iter(TEXTS), in_thread=True) for row in batch.vectors]
    np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(in_thread, expected)


def test_a_source_is_pulled_in_the_thread_that_iterates(local: LocalEmulator) -> None:
    # SQLite refuses every other thread.
    database = sqlite3.connect(":memory:")
    database.execute("create table texts (text)")
    database.executemany("insert into texts values (?)", [(text,) for text in TEXTS])

    def rows() -> Iterator[str]:
        for (text,) in database.execute("select text from texts"):
            yield text

    with sync_client(local) as client:
        assert sum(len(batch) for batch in client.stream(rows())) == 1_000
        assert len(client.embed(rows())) == 1_000
        with pytest.raises(sqlite3.ProgrammingError), client.stream(rows(), in_thread=True) as batches:
            next(batches)
    database.close()


async def test_one_that_is_dropped_leaves_its_connections_to_the_thread_that_they_belong_to(emulator: Emulator) -> None:
    code = """
import gc, threading
from pinecone_embed_async import SyncEmbedClient

for number in range(6):
    client = SyncEmbedClient("multilingual-e5-large", input_type="query")
    print(len(client.embed_one("a")))
    if number % 2:
        # As an error does whose traceback refers to the error.
        cycle = [client, client._client, client._thread]
        cycle.append(cycle)
        del cycle
    del client
    gc.collect()
print([thread.name for thread in threading.enumerate()])
"""
    # In development mode asyncio complains where another thread touches them, and Python of sockets that are left open.
    assert await run_program(emulator, code) == 6 * "1024\n" + "['MainThread']\n"


def test_a_stream_keeps_its_client(local: LocalEmulator) -> None:
    stream = sync_client(local).stream(iter(TEXTS))
    gc.collect()
    assert sum(len(batch) for batch in stream) == 1_000
    del stream
    gc.collect()
    assert own_threads() == []


def test_a_stream_that_is_left_early_or_dropped_closes_its_source_and_sends_no_more(local: LocalEmulator) -> None:
    closed: list[str] = []

    def texts(name: str) -> Iterator[str]:
        try:
            yield from (f"text number {number}" for number in range(1_000_000))
        finally:
            closed.append(name)

    with sync_client(local) as client:
        with client.stream(texts("left")) as batches:
            assert len(next(batches)) == 96
        assert closed == ["left"]
        with pytest.raises(ClosedError, match="the stream is closed"):
            next(batches)
        with pytest.raises(ZeroDivisionError), client.stream(texts("failed")) as batches:
            assert len(next(batches)) / 0
        stream = client.stream(texts("dropped"))
        next(stream)
        del stream
        client.stream(texts("never begun")).close()
    gc.collect()
    assert closed == ["left", "failed", "dropped"]
    assert client.statistics().in_flight == 0


def test_a_stream_of_a_closed_client_says_so(local: LocalEmulator) -> None:
    client = sync_client(local)
    with client.stream(f"text number {number}" for number in range(1_000_000)) as batches:
        next(batches)
        client.close()
        with pytest.raises(ClosedError):
            for _ in batches:
                pass


def test_a_stream_that_was_not_begun_waits_for_its_client_to_be_opened_again(local: LocalEmulator) -> None:
    client = sync_client(local)
    begun, waiting = client.stream(iter(TEXTS)), client.stream(["one", "two"])
    next(begun)
    client.close()
    for use in (waiting.__enter__, waiting.__next__):
        with pytest.raises(ClosedError, match="open it again with `with`"):
            use()
    with client:
        assert [batch.items for batch in waiting] == [["one", "two"]]
        with pytest.raises(ClosedError, match="begin a new call or stream"):
            next(begun)
    begun.close()


def test_a_stream_whose_thread_ends_before_it_is_entered_says_so(local: LocalEmulator) -> None:
    client = sync_client(local)
    stream = client.stream(["one", "two"])
    thread = client._thread.get()
    begun = threading.Event()

    async def end() -> None:
        begun.set()
        # The loop is busy here until the stream's task is handed over, and does not begin it.
        while "not begun" in repr(stream):
            time.sleep(0)  # noqa: ASYNC251
        thread.close()

    thread.submit(end())
    begun.wait(10)
    with pytest.raises(ClosedError, match="must end before the client is closed"):
        next(stream)
    assert stream.usage.requests == 0
    stream.close()


def test_closing_a_stream_leaves_its_source_to_the_thread_that_is_reading_it(local: LocalEmulator) -> None:
    reading, may_go_on = threading.Event(), threading.Event()
    closed: list[str] = []

    def texts() -> Iterator[str]:
        try:
            while True:
                reading.set()
                may_go_on.wait(10)
                yield "a text"
        finally:
            closed.append(threading.current_thread().name)

    with sync_client(local) as client, ThreadPoolExecutor(1, "reader") as pool:
        stream = client.stream(texts())
        iterating = pool.submit(next, stream)
        reading.wait(10)
        stream.close()
        assert closed == []
        may_go_on.set()
        with pytest.raises(ClosedError, match=r"the stream is closed: .* inside its `with` block"):
            iterating.result(10)
    assert closed == ["reader_0"]


def test_a_source_may_close_its_stream_and_is_closed_after_that_item(local: LocalEmulator) -> None:
    taken: list[str] = []

    def texts() -> Iterator[str]:
        for text in TEXTS:
            taken.append(text)
            if len(taken) == 10:
                stream.close()
            yield text

    with sync_client(local) as client:
        stream = client.stream(texts())
        with pytest.raises(ClosedError, match="the stream is closed"):
            next(stream)
    assert taken == TEXTS[:10]


def test_a_source_that_uses_its_own_stream_is_refused_for_it_would_wait_for_itself(local: LocalEmulator) -> None:
    def texts() -> Iterator[str]:
        yield "one"
        for use in (stream.__next__, stream.__enter__):
            with pytest.raises(RuntimeError, match="the source of a stream must not iterate over that stream"):
                use()
        yield "two"

    with sync_client(local) as client:
        stream = client.stream(texts())
        assert [item for batch in stream for item in batch.items] == ["one", "two"]


def test_ctrl_c_in_the_source_loses_no_batch(local: LocalEmulator) -> None:
    embedded = threading.Event()

    def texts() -> Iterator[str]:
        yield from TEXTS[:96]
        embedded.wait(10)
        # Meanwhile the batch is handed to the call that waits for it.
        client.embed_one("another text")
        signal.raise_signal(signal.SIGINT)
        yield "never read"

    with sync_client(local) as client:
        stream = client.stream(texts(), progress=lambda _: embedded.set(), max_delay=10.0)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        assert next(stream).items == TEXTS[:96]
        with pytest.raises(EmbedError, match="the source was interrupted by KeyboardInterrupt"):
            next(stream)
        assert list(stream) == []


def test_a_stream_goes_on_waiting_after_ctrl_c(local: LocalEmulator) -> None:
    local.call(lambda emulator: emulator.hold())

    def interrupt() -> None:
        local.call(lambda emulator: emulator.wait_for_in_flight(1))
        os.kill(os.getpid(), signal.SIGINT)

    with sync_client(local) as client, client.stream(["one", "two"]) as stream, ThreadPoolExecutor(1) as pool:
        interrupting = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        interrupting.result(10)
        local.call(lambda emulator: emulator.release())
        assert [batch.items for batch in stream] == [["one", "two"]]


def test_an_error_of_closing_the_source_is_raised(local: LocalEmulator) -> None:
    def texts() -> Iterator[str]:
        try:
            while True:
                yield "a text"
        finally:
            raise OSError("disk")

    with sync_client(local) as client:
        with pytest.raises(OSError, match="disk"), client.stream(texts()) as batches:
            next(batches)
        with pytest.raises(ZeroDivisionError), client.stream(texts()) as batches:
            assert len(next(batches)) / 0


def test_a_stream_that_is_used_in_the_clients_own_thread_says_that_it_would_wait_for_itself(local: LocalEmulator) -> None:
    refused: list[str] = []

    def text(item: str) -> str:
        for use in (stream.__enter__, stream.__next__, stream.close):
            with pytest.raises(RuntimeError, match="would wait for itself"):
                use()
            refused.append(item)
        return item

    with sync_client(local) as client:
        stream = client.stream(["one", "two"], text=text)
        assert [batch.items for batch in stream] == [["one", "two"]]
    assert refused == ["one"] * 3 + ["two"] * 3


async def test_the_asynchronous_client_says_what_to_write_instead(emulator: Emulator) -> None:
    async with EmbedClient(E5, api_key=emulator.api_key, base_url=emulator.url, input_type="query") as client:
        with pytest.raises(TypeError, match=r"write `async with`, or use a SyncEmbedClient"):
            client.__enter__()  # type: ignore[attr-defined]
        with pytest.raises(TypeError, match=r"write `async with client.stream\(...\) as batches:`"):
            async for _ in client.stream(["a"]):  # type: ignore[attr-defined]
                pass
        with pytest.raises(TypeError, match="use a SyncEmbedClient"):
            for _ in client.stream(["a"]):  # type: ignore[attr-defined]
                pass
        with pytest.raises(TypeError, match="use a SyncEmbedClient"), client.stream(["a"]):  # type: ignore[attr-defined]
            pass
