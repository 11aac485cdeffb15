import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pinecone_embed_async import ClosedError
from pinecone_embed_async._threads import LoopThread, outcome_of


async def name_of_thread() -> str:
    return threading.current_thread().name


def test_work_runs_in_the_thread_of_that_name_until_it_is_closed() -> None:
    thread = LoopThread("work")
    assert repr(thread) == "<LoopThread 'work'>"
    assert thread.run(name_of_thread()) == "work"
    thread.close()
    thread.close()
    with pytest.raises(ClosedError, match="the thread work must run in this process, but it was closed"):
        thread.run(name_of_thread())


def test_a_blocking_call_in_that_very_thread_is_refused_for_it_would_wait_for_itself() -> None:
    thread = LoopThread("work")

    async def block() -> str:
        return thread.run(name_of_thread())

    with pytest.raises(RuntimeError, match="in the event loop that runs it"):
        thread.run(block())
    thread.close()


def test_what_is_under_way_is_cancelled_when_it_is_closed() -> None:
    thread = LoopThread("work")
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    waiting = thread.submit(wait())
    begun.wait()
    thread.close()
    assert waiting.cancelled()


def test_a_call_that_is_cut_off_when_it_is_closed_says_so() -> None:
    thread = LoopThread("work")
    begun = threading.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(thread.run, wait())
        begun.wait()
        thread.close()
        with pytest.raises(ClosedError, match="must end before the client is closed"):
            call.result()


def test_calls_that_came_before_its_last_work_are_waited_for() -> None:
    thread = LoopThread("work")
    woken = asyncio.Event()

    async def wait() -> str:
        await woken.wait()
        return "ended"

    async def wake() -> None:
        woken.set()

    calls = [thread.call(wait()) for _ in range(100)]
    thread.close(wake())
    assert [outcome_of(call) for call in calls] == ["ended"] * 100


def test_work_that_comes_while_it_ends_is_refused_for_it_would_never_be_done() -> None:
    thread = LoopThread("work")
    begun, ending, may_end = (threading.Event() for _ in range(3))

    async def end_slowly() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            # The loop was stopped, and is not closed yet.
            ending.set()
            may_end.wait(10)

    thread.submit(end_slowly())
    begun.wait()
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(thread.close)
        ending.wait()
        try:
            with pytest.raises(ClosedError):
                thread.submit(name_of_thread())
        finally:
            may_end.set()
        closing.result(10)
