"""Big answers are decoded in a thread of the client: what that thread may do, and when it ends."""

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from pinecone_embed_async import DenseEmbeddings, EmbedClient, EmbedError, MockResponse, MockTransport
from pinecone_embed_async._sending.decode_gate import DecodeThread
from pinecone_embed_async._wire import StreamingDecoder, choose_decoder
from pinecone_embed_async._wire.rows import ODD, READ, TOO_LONG
from tests.clock import settle
from tests.executors import CancellingExecutor
from tests.wire.reading import NEEDS_NATIVE, RowsOf

ROOT = Path(__file__).parents[2]
ROWS = np.random.default_rng(3).standard_normal((96, 1024)).astype(np.float32)
NAME = "pinecone-embed-decode"


def answer(rows: NDArray[np.float32]) -> bytes:
    items = [{"values": row} for row in rows.astype(float).tolist()]
    return json.dumps({"model": "m", "vector_type": "dense", "data": items, "usage": {"total_tokens": 7}}).encode()


BODY = answer(ROWS)
TEXTS = [f"text {number}" for number in range(len(ROWS))]


def client_of(body: bytes, **options: Any) -> EmbedClient[DenseEmbeddings]:
    pieces = [body[at : at + 2**17] for at in range(0, len(body), 2**17)]
    transport = MockTransport(lambda _: MockResponse(body=pieces))
    return EmbedClient("m", api_key="k", transport=transport, vector_type="dense", look_up_model=False, **options)


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(NAME)]


@NEEDS_NATIVE
async def test_a_big_answer_is_decoded_in_a_thread_that_ends_with_the_client() -> None:
    async with client_of(BODY) as client:
        results = await asyncio.gather(*[client.embed(TEXTS) for _ in range(4)])
        assert [result.vectors.tobytes() for result in results] == [ROWS.tobytes()] * 4
        assert len(decoding_threads()) == 1
    assert decoding_threads() == []


async def test_a_small_answer_starts_no_thread() -> None:
    async with client_of(answer(ROWS[:2, :100])) as client:
        await client.embed(TEXTS[:2])
        assert decoding_threads() == []


async def test_msgspec_which_holds_the_interpreters_lock_starts_no_thread() -> None:
    async with client_of(BODY, decoder="msgspec") as client:
        assert (await client.embed(TEXTS)).vectors.tobytes() == ROWS.tobytes()
        assert decoding_threads() == []


class HeldExecutor(ThreadPoolExecutor):
    """A thread that starts its work when it is told to."""

    def __init__(self) -> None:
        super().__init__(1)
        self.started, self.held = threading.Event(), threading.Event()
        self.count = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.count += 1

        def run() -> Any:
            self.started.set()
            assert self.held.wait(30)
            return work(*args, **kwargs)

        return super().submit(run)


@NEEDS_NATIVE
async def test_the_executor_of_a_client_decodes_its_big_answers() -> None:
    with HeldExecutor() as executor:
        executor.held.set()
        async with client_of(BODY, executor=executor) as client:
            assert (await client.embed(TEXTS)).vectors.tobytes() == ROWS.tobytes()
            assert decoding_threads() == []
        assert executor.count > 0


class Recorder(ThreadPoolExecutor):
    """Records how many bytes of an answer are left to decode when it is handed over."""

    def __init__(self) -> None:
        super().__init__(1)
        self.left: list[int] = []

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.left.append(work.__self__.undecoded)  # type: ignore[attr-defined]
        return super().submit(work, *args, **kwargs)


@NEEDS_NATIVE
async def test_only_the_first_row_of_an_answer_that_decides_the_dimension_is_read_on_the_event_loop() -> None:
    with Recorder() as executor:
        async with client_of(BODY, executor=executor) as client:
            await client.embed(TEXTS)
        assert max(executor.left) > 0.9 * len(BODY)


@NEEDS_NATIVE
async def test_an_executor_that_cancels_a_decoding_is_named() -> None:
    async with client_of(BODY, executor=CancellingExecutor()) as client:
        with pytest.raises(EmbedError, match="the executor must run what it is given, but cancelled it"):
            await client.embed(TEXTS)


def begun() -> tuple[StreamingDecoder, NDArray[np.float32]]:
    """A decoder that has the whole body and has placed the first row."""
    matrix = np.zeros(ROWS.shape, np.float32)
    decoder = StreamingDecoder(
        choose_decoder("native"),
        count=len(ROWS),
        vector_type="dense",
        dimension=ROWS.shape[1],
        rows=RowsOf(lambda _: matrix),
    )
    decoder.add(BODY)
    while decoder.matrix is None:
        decoder.decode(1)
    return decoder, matrix


class Held:
    """Stands for a decoder whose step takes as long as it is held."""

    def __init__(self) -> None:
        self.started, self.held = threading.Event(), threading.Event()

    def decode(self, _: int) -> None:
        self.started.set()
        self.held.wait(5)


async def test_the_event_loop_goes_on_while_a_closing_client_waits_for_a_step() -> None:
    held, thread = Held(), DecodeThread(None)
    decoding = asyncio.create_task(thread.decode(cast("StreamingDecoder", held), 1))
    await settle()
    assert held.started.wait(30)
    closing = asyncio.create_task(thread.aclose())
    await settle()
    assert not closing.done()
    assert not decoding.done()
    held.held.set()
    await closing
    await decoding
    assert decoding_threads() == []


@NEEDS_NATIVE
@pytest.mark.parametrize("times", [1, 3])
async def test_a_cancelled_call_waits_for_the_step_that_is_under_way_and_nothing_is_written_afterwards(times: int) -> None:
    decoder, matrix = begun()
    with HeldExecutor() as executor:
        decoding = asyncio.create_task(DecodeThread(executor).decode(decoder, len(BODY)))
        await settle()
        assert executor.started.wait(30)
        for _ in range(times):
            decoding.cancel()
            await settle()
            assert not decoding.done()
        executor.held.set()
        with pytest.raises(asyncio.CancelledError):
            await decoding
    assert (matrix[1:] == 0).all()
    assert decoder.undecoded > 0


@NEEDS_NATIVE
async def test_a_cancelled_call_does_not_wait_for_a_thread_that_has_not_begun_its_work() -> None:
    decoder, matrix = begun()
    with HeldExecutor() as executor:
        other = executor.submit(lambda: None)
        assert executor.started.wait(30)
        decoding = asyncio.create_task(DecodeThread(executor).decode(decoder, len(BODY)))
        await settle()
        decoding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await decoding
        assert not other.done()
        executor.held.set()
    assert (matrix[1:] == 0).all()


@NEEDS_NATIVE
async def test_nothing_is_written_after_a_call_that_was_cancelled_at_any_moment() -> None:
    decoder, matrix = begun()
    thread = DecodeThread()
    decoding = asyncio.create_task(thread.decode(decoder, len(BODY)))
    while not decoding.done():
        await asyncio.sleep(0)
        decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    seen = matrix.tobytes()
    # It ends once it has nothing more to do.
    await thread.aclose()
    assert matrix.tobytes() == seen


@NEEDS_NATIVE
async def test_a_thread_that_is_closed_ends_after_what_it_decodes_and_later_answers_are_decoded_at_once() -> None:
    thread = DecodeThread()
    decoder, matrix = begun()
    decoding = asyncio.create_task(thread.decode(decoder, len(BODY)))
    await asyncio.sleep(0)
    await thread.aclose()
    assert decoding_threads() == []
    await decoding
    assert matrix.tobytes() == ROWS.tobytes()
    later, matrix = begun()
    await thread.decode(later, len(BODY))
    assert matrix.tobytes() == ROWS.tobytes()
    assert decoding_threads() == []


@NEEDS_NATIVE
async def test_calls_that_are_cancelled_at_any_moment_leave_a_client_that_works() -> None:
    async with client_of(BODY) as client:
        for turns in range(0, 60, 2):
            call = asyncio.create_task(client.embed(TEXTS))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                assert (await call).vectors.tobytes() == ROWS.tobytes()
        assert (await client.embed(TEXTS)).vectors.tobytes() == ROWS.tobytes()
        assert client.statistics().in_flight == 0


FORK = """
import asyncio, os
from tests.sending.test_decode_thread import ROWS, TEXTS, BODY, client_of

async def embed():
    assert (await client.embed(TEXTS)).vectors.tobytes() == ROWS.tobytes()

client = client_of(BODY)
asyncio.run(embed())
child = os.fork()
asyncio.run(embed())
if child:
    assert os.waitpid(child, 0)[1] == 0
"""

FORK_WHILE_DECODING = """
import asyncio, os
from tests.sending.test_decode_thread import ROWS, TEXTS, BODY, client_of

async def embed():
    assert (await client.embed(TEXTS)).vectors.tobytes() == ROWS.tobytes()

async def main():
    calls = [asyncio.create_task(client.embed(TEXTS)) for _ in range(20)]
    for _ in range(10):
        await asyncio.sleep(0)
        child = os.fork()
        if not child:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    assert {result.vectors.tobytes() for result in await asyncio.gather(*calls)} == {ROWS.tobytes()}

client = client_of(BODY)
asyncio.run(main())
"""

EXIT_WHILE_DECODING = """
import asyncio, threading
from pinecone_embed_async._sending.decode_gate import DecodeThread
from tests.sending.test_decode_thread import BODY, begun

thread = DecodeThread()

async def main():
    for _ in range(8):
        asyncio.get_running_loop().create_task(thread.decode(begun()[0], len(BODY)))
    await asyncio.sleep(0)

asyncio.run(main())
for _ in range(8):
    decoder = begun()[0]
    threading.Thread(target=decoder.decode, daemon=True).start()
"""


@NEEDS_NATIVE
@pytest.mark.parametrize(
    "program", [FORK, FORK_WHILE_DECODING, EXIT_WHILE_DECODING], ids=["fork", "fork while decoding", "exit while decoding"]
)
def test_a_fork_or_the_end_of_the_interpreter_does_no_harm(program: str) -> None:
    # From 3.12 on Python warns of every fork of a process that has threads.
    ignored = ("-W", "ignore::ResourceWarning", "-W", "ignore:This process:DeprecationWarning")
    command = (sys.executable, *ignored, "-c", program)
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=50)
    assert (run.returncode, run.stderr) == (0, "")


@NEEDS_NATIVE
def test_a_reader_is_used_by_one_thread_at_a_time() -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    piece = b"[" + b" " * 2**27
    reader = _native.RowReader(1, 100)
    refused = list[str]()
    thread = threading.Thread(target=lambda: reader.read((piece,), 0, 2**40))
    thread.start()
    while thread.is_alive():
        try:
            _ = reader.row
        except RuntimeError as error:
            refused.append(str(error))
    thread.join()
    assert set(refused) == {"a RowReader must be used by one thread at a time, another one is using it"}
    assert reader.rest_length == len(piece)


@NEEDS_NATIVE
def test_a_reader_that_is_stopped_reads_no_further_than_a_step() -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    count, step = 2**17, 2**18
    reader = _native.RowReader(count, 100)
    reader.attach(np.zeros((count, 1), np.float32))
    rows = b"[" + b"[1]," * count
    reader.stop()
    outcome, done, position = reader.read((rows, rows), 0, 2**40)
    assert (outcome, done) == (_native.READ, 0)
    assert step <= position < step + 4
    # The row that begins within the step is read whole, and a later call goes on behind it.
    assert reader.row == step // 4 + 1
    assert reader.read((rows,), position, 2**40) == (_native.READ, 1, 0)


@NEEDS_NATIVE
def test_both_readers_name_their_outcomes_by_the_same_numbers() -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    assert (_native.READ, _native.ODD, _native.TOO_LONG) == (READ, ODD, TOO_LONG)


@NEEDS_NATIVE
def test_readers_leave_no_memory_behind() -> None:
    from pinecone_embed_async._wire import _native  # noqa: PLC0415 - it may not be built

    def use() -> None:
        matrix = np.zeros((2, 2), np.float32)
        for body in (b"x[[1,2],y[3,4]]", b"[[1,2", b"[[1,x]", b"[[1,2],[" + b"1" * 200):
            reader = _native.RowReader(2, 100)
            reader.read((body,), 0, 1)
            reader.attach(matrix)
            reader.read((body,), 1, 1000)
            _ = (reader.gaps, reader.rest, reader.kept)
            for wrong in (((b"",), 5, 5), ((b"",), 0, -1), ((), 0, 1)):
                with pytest.raises(ValueError, match="position"):
                    reader.read(*wrong)

    use()
    tracemalloc.start()
    try:
        use()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(300):
            use()
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()
