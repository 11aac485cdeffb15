import asyncio
import threading

import pytest

from pinecone_embed_async._threads import LoopThread


async def name_of_thread() -> str:
    return threading.current_thread().name


def test_work_runs_in_the_thread_of_that_name_until_it_is_closed() -> None:
    thread = LoopThread("work")
    assert repr(thread) == "<LoopThread 'work'>"
    assert thread.run(name_of_thread()) == "work"
    thread.close()
    thread.close()
    with pytest.raises(RuntimeError):
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
