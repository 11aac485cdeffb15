"""A quota in a file: processes that share it, that die, and files that are not what they should be."""

import asyncio
import contextlib
import copy
import fcntl
import logging
import os
import pickle
import random
import signal
import sqlite3
import stat
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from pinecone_embed_async import (
    ClosedError,
    ConfigurationError,
    DeadlineExceededError,
    Quota,
    QuotaDemand,
    QuotaGrant,
    QuotaOutcome,
    SqliteQuota,
)
from pinecone_embed_async._rate_limit import lock_file, quota_clerk, quota_file, quota_ledger
from pinecone_embed_async._rate_limit.lock_file import LockFile
from tests.disk import full_disk
from tests.processes import without_slow_steps

WINDOW = 0.5
QUOTA = Quota(100, requests_per_second=None, requests_per_minute=None, window=WINDOW)
PLENTY = Quota(1_000_000, requests_per_second=None, requests_per_minute=None, window=WINDOW)


def demand(tokens: int = 100, *, least: int | None = None, interactive: bool = False, flow: object = None) -> QuotaDemand:
    return QuotaDemand("m", "passage", tokens, least or tokens, "interactive" if interactive else "bulk", flow)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "quota.db"


@pytest.fixture
async def quota(path: Path) -> AsyncIterator[SqliteQuota]:
    async with SqliteQuota(path, QUOTA) as opened:
        yield opened


@pytest.fixture
async def other(path: Path) -> AsyncIterator[SqliteQuota]:
    """Another member, as another process would be."""
    async with SqliteQuota(path, QUOTA) as opened:
        yield opened


async def until_waiting(quota: SqliteQuota, count: int = 1) -> None:
    """Wait until so many requests wait, as the file has it."""
    while sum(of.waiting for of in await quota.statistics()) < count:  # noqa: ASYNC110 - another process's doing
        await asyncio.sleep(0.002)


async def used_of(quota: SqliteQuota) -> int:
    return sum(of.used for of in await quota.statistics())


UNUSED = QuotaOutcome("unused", 0)


async def test_members_share_one_quota(quota: SqliteQuota, other: SqliteQuota) -> None:
    first = await quota.acquire(demand(60))
    second = await other.acquire(demand(60, least=1))
    assert (first.tokens, second.tokens) == (60, 40)
    quota.settle(first, QuotaOutcome("accepted", 60))
    other.settle(second, QuotaOutcome("accepted", 40))
    begun = time.monotonic()
    assert (await other.acquire(demand())).tokens == 100
    assert time.monotonic() - begun >= WINDOW - 0.05


async def test_what_one_gives_back_another_gets_at_once(quota: SqliteQuota, other: SqliteQuota) -> None:
    grant = await quota.acquire(demand())
    waiting = asyncio.create_task(other.acquire(demand()))
    await until_waiting(quota)
    begun = time.monotonic()
    quota.settle(grant, UNUSED)
    await waiting
    assert time.monotonic() - begun < WINDOW / 2


async def test_interactive_requests_of_another_process_go_first(quota: SqliteQuota, other: SqliteQuota) -> None:
    grant = await quota.acquire(demand())
    bulk = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota)
    interactive = asyncio.create_task(other.acquire(demand(interactive=True)))
    await until_waiting(quota, 2)
    quota.settle(grant, UNUSED)
    other.settle(await interactive, UNUSED)
    assert not bulk.done()
    await bulk


async def test_a_cancelled_request_gives_way_to_the_next(quota: SqliteQuota, other: SqliteQuota) -> None:
    grant = await other.acquire(demand(60))
    cancelled = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota)
    next_one = asyncio.create_task(other.acquire(demand(40)))
    await until_waiting(quota, 2)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert (await next_one).tokens == 40
    assert grant.tokens == 60


async def test_whenever_it_is_cancelled_nothing_is_kept(quota: SqliteQuota) -> None:
    for delay in range(60):
        task = asyncio.create_task(quota.acquire(demand()))
        # Before, while and after it is granted.
        await asyncio.sleep(delay * 0.00005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            quota.settle(await task, UNUSED)
    assert (await quota.acquire(demand())).tokens == 100


async def test_ends_are_written_when_it_is_closed(path: Path, quota: SqliteQuota) -> None:
    async with SqliteQuota(path, QUOTA) as closing:
        closing.settle(await closing.acquire(demand()), QuotaOutcome("accepted", 30))
    assert await used_of(quota) == 30


async def test_what_is_not_settled_when_it_is_closed_counts_for_a_window(path: Path, quota: SqliteQuota) -> None:
    async with SqliteQuota(path, QUOTA) as closing:
        grant = await closing.acquire(demand())
    # Too late, and without effect.
    closing.settle(grant, UNUSED)
    assert await used_of(quota) == 100
    assert (await quota.acquire(demand())).tokens == 100


async def test_waiting_requests_end_with_the_quota(quota: SqliteQuota, other: SqliteQuota) -> None:
    grant = await quota.acquire(demand())
    waiting = asyncio.create_task(other.acquire(demand()))
    await until_waiting(quota)
    await other.aclose()
    with pytest.raises(ClosedError):
        await waiting
    assert not sum(of.waiting for of in await quota.statistics())
    quota.settle(grant, UNUSED)
    # It is opened anew.
    assert (await other.acquire(demand())).tokens == 100


async def test_a_limit_that_one_is_told_holds_for_all(path: Path) -> None:
    async with SqliteQuota(path) as quota, SqliteQuota(path) as other:
        said = "Request failed. You've reached the max embedding tokens per minute (50) model 'm' and input type 'passage'"
        quota.settle(await quota.acquire(demand()), QuotaOutcome("rejected", 100, said, 0.01))
        # Once it is written.
        await quota.statistics()
        (known,) = await other.statistics()
        assert (known.limit, known.source) == (50, "named")
    assert b"Request failed" not in path.read_bytes()


async def test_a_wait_ends_if_a_pause_lasts_beyond_its_deadline(path: Path) -> None:
    async with SqliteQuota(path, PLENTY) as quota:
        quota.settle(await quota.acquire(demand()), QuotaOutcome("rejected", 100, "", 60.0))
        with pytest.raises(DeadlineExceededError):
            await quota.acquire(QuotaDemand("m", "passage", 10, 1, within=5.0))
        waits = asyncio.create_task(quota.acquire(QuotaDemand("m", "passage", 10, 1, within=120.0)))
        await until_waiting(quota)
        # The other one waits no more.
        assert [of.waiting for of in await quota.statistics()] == [1]
        assert not waits.done()
        waits.cancel()


async def test_a_limit_found_by_trial_is_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SqliteQuota(path, Quota(None, None, None, WINDOW)) as quota:
        quota.settle(await quota.acquire(demand()), QuotaOutcome("accepted", 100))
        # Earlier usage explains no rejection any more.
        await asyncio.sleep(WINDOW)
        for grant in [await quota.acquire(demand()) for _ in range(2)]:
            quota.settle(grant, QuotaOutcome("rejected", 100, "", 0.0))
        quota.settle(await quota.acquire(demand()), QuotaOutcome("accepted", 100))
    (record,) = caplog.records
    assert "rejects requests for m (passage) without naming a limit" in record.getMessage()


async def test_any_number_of_flows_is_served(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_clerk, "FLOWS_NUMBERED", 8)
    monkeypatch.setattr(quota_ledger, "MOST_FLOWS", 8)
    async with SqliteQuota(path, PLENTY) as quota:
        for _ in range(2):
            grants = await asyncio.gather(*(quota.acquire(demand(10, flow=number)) for number in range(50)))
            for grant in grants:
                quota.settle(grant, UNUSED)
        assert await used_of(quota) == 0


async def test_loops_and_threads_share_one_object(path: Path) -> None:
    quota = SqliteQuota(path, PLENTY)
    granted: list[int] = []

    async def work() -> None:
        for _ in range(20):
            grant = await quota.acquire(demand())
            granted.append(grant.tokens)
            quota.settle(grant, QuotaOutcome("accepted", 100))

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    await work()
    for thread in threads:
        thread.join()
    assert granted == [100] * 100
    assert await used_of(quota) <= 100 * 100
    await quota.aclose()


async def test_its_thread_ends_when_there_is_nothing_to_do_and_begins_again(quota: SqliteQuota) -> None:
    for _ in range(2):
        quota.settle(await quota.acquire(demand()), UNUSED)
        (thread,) = [one for one in threading.enumerate() if one.name == "pinecone-embed-quota"]
        await asyncio.to_thread(thread.join)


async def test_what_waits_in_a_loop_that_is_closed_is_withdrawn(path: Path, quota: SqliteQuota, other: SqliteQuota) -> None:
    grant = await quota.acquire(demand())

    def wait_in_vain() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(other.acquire(demand()))
        loop.run_until_complete(asyncio.sleep(0.05))
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
        # Python says that it was destroyed.
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    thread = threading.Thread(target=wait_in_vain)
    thread.start()
    await asyncio.to_thread(thread.join)
    quota.settle(grant, UNUSED)
    assert (await quota.acquire(demand())).tokens == 100


async def test_a_process_that_comes_late_knows_what_was_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_file, "STEPS_KEPT", 16)
    lasting = Quota(10_000, requests_per_second=None, requests_per_minute=None, window=60.0)
    async with SqliteQuota(path, lasting) as quota, SqliteQuota(path, lasting) as idle:
        assert await used_of(idle) == 0
        for _ in range(50):
            quota.settle(await quota.acquire(demand()), QuotaOutcome("accepted", 10))
        assert await used_of(quota) == 500
        assert await used_of(idle) == 500
        idle.settle(await idle.acquire(demand()), QuotaOutcome("accepted", 10))
        # A thread writes what was settled; its next step does so too.
        assert await used_of(idle) == 510
        async with SqliteQuota(path, lasting) as late:
            assert await used_of(late) == 510
    with contextlib.closing(sqlite3.connect(path)) as file:
        ((steps,),) = file.execute("SELECT count(*) FROM steps")
        assert steps <= 2 * 16


# Other processes.


PROGRAM = """
import asyncio, sys
from pinecone_embed_async import Quota, QuotaDemand, QuotaOutcome, SqliteQuota
quota = SqliteQuota(sys.argv[1], Quota(100, requests_per_second=None, requests_per_minute=None, window={window}))
demand = QuotaDemand("m", "passage", 100, 100)
async def main():
{body}
asyncio.run(main())
"""


async def started(path: Path, body: str, *, window: float = WINDOW) -> asyncio.subprocess.Process:
    """Start a program that shares the quota."""
    return await interpreter(
        PROGRAM.format(window=window, body="\n".join(f"    {line}" for line in body.strip().splitlines())), path
    )


async def interpreter(code: str, path: Path, *, start_new_session: bool = False) -> asyncio.subprocess.Process:
    """Start Python in development mode, with warnings as errors."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "dev", "-W", "error", "-c", code, str(path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=start_new_session,
    )


async def line_of(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def ended_well(process: asyncio.subprocess.Process) -> None:
    """Wait for a process, which must end well and have nothing more to say."""
    out, err = await process.communicate()
    assert (out, without_slow_steps(err.decode()), process.returncode) == (b"", "", 0)


async def killed(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.communicate()


async def test_what_a_killed_process_may_have_sent_counts_for_a_window(path: Path, quota: SqliteQuota) -> None:
    process = await started(
        path, "grant = await quota.acquire(demand)\nprint(grant.tokens, flush=True)\nawait asyncio.sleep(99)"
    )
    assert await line_of(process) == "100"
    waiting = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota)
    # Longer than a window: it is in flight.
    await asyncio.sleep(1.5 * WINDOW)
    assert not waiting.done()
    begun = time.monotonic()
    await killed(process)
    await waiting
    assert WINDOW - 0.05 <= time.monotonic() - begun < WINDOW + 1


async def test_what_a_killed_process_had_not_learned_of_comes_back_at_once(path: Path, quota: SqliteQuota) -> None:
    grant = await quota.acquire(demand())
    process = await started(path, 'print("asks", flush=True)\nawait quota.acquire(demand)\nprint("has it", flush=True)')
    assert await line_of(process) == "asks"
    await until_waiting(quota)
    process.send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota, 2)
    quota.settle(grant, UNUSED)
    # It is granted to the one that came first, which is not told.
    await asyncio.sleep(0.1)
    assert not waiting.done()
    begun = time.monotonic()
    await killed(process)
    await waiting
    assert time.monotonic() - begun < WINDOW - 0.05


async def test_what_a_killed_process_waited_for_is_nobodys(path: Path, quota: SqliteQuota) -> None:
    grant = await quota.acquire(demand())
    process = await started(path, "await quota.acquire(demand)")
    await until_waiting(quota)
    await killed(process)
    waiting = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota)
    quota.settle(grant, UNUSED)
    assert (await waiting).tokens == 100


# Starts four processes for each line, as forks, which begin at once.
FORKING = """
import asyncio, os, sys
from pinecone_embed_async import Quota, QuotaDemand, QuotaOutcome, SqliteQuota
quota = SqliteQuota(sys.argv[1], Quota(100, requests_per_second=None, requests_per_minute=None, window=0.5))
async def work():
    while True:
        quota.settle(await quota.acquire(QuotaDemand("m", "passage", 30, 10)), QuotaOutcome("unused", 0))
async def main():
    # In one piece: others write to the same pipe.
    os.write(1, b"%d\\n" % os.getpid())
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(work())
while sys.stdin.readline():
    for _ in range(4):
        if not os.fork():
            asyncio.run(main())
    for _ in range(4):
        os.wait()
    print("all are dead", flush=True)
"""


async def test_kills_at_any_moment_leave_a_whole_file_and_all_of_the_quota(path: Path, quota: SqliteQuota) -> None:
    draw, done = random.Random(5), 0

    async def die(child: int) -> None:
        await asyncio.sleep(draw.uniform(0, 0.3))
        os.kill(child, signal.SIGKILL)

    async def work() -> None:
        nonlocal done
        while True:
            grant = await quota.acquire(demand(30, least=10))
            assert 10 <= grant.tokens <= 30
            quota.settle(grant, UNUSED)
            done += 1

    beside = asyncio.create_task(work())
    process = await interpreter(FORKING, path, start_new_session=True)
    try:
        assert process.stdin is not None
        for _ in range(3):
            process.stdin.write(b"four more\n")
            async with asyncio.TaskGroup() as deaths:
                for _ in range(4):
                    deaths.create_task(die(int(await line_of(process))))
            assert await line_of(process) == "all are dead"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
    while done <= 100 and not beside.done():  # noqa: ASYNC110 - it is not told
        await asyncio.sleep(0.002)
    beside.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beside
    async with asyncio.timeout(WINDOW + 2):
        assert (await quota.acquire(demand())).tokens == 100
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert len(file.execute("SELECT id FROM members").fetchall()) == 1


async def test_a_parent_that_dies_is_missed_although_its_child_lives_on(path: Path, quota: SqliteQuota) -> None:
    body = """
import os, time
await quota.acquire(demand)
child = os.fork()
if child == 0:
    os.close(1), os.close(2)
    time.sleep(99)
print(child, flush=True)
await asyncio.sleep(99)
"""
    process = await started(path, body)
    child = int(await line_of(process))
    try:
        waiting = asyncio.create_task(quota.acquire(demand()))
        await until_waiting(quota)
        await killed(process)
        await waiting
    finally:
        os.kill(child, signal.SIGKILL)


async def test_a_forked_child_is_a_process_of_its_own(path: Path) -> None:
    body = """
import os
grant = await quota.acquire(demand)
child = os.fork()
if child == 0:
    async def other():
        # Not the child's to settle.
        quota.settle(grant, QuotaOutcome("unused", 0))
        own = await quota.acquire(QuotaDemand("m", "query", 70, 70))
        quota.settle(own, QuotaOutcome("accepted", 70))
        await quota.aclose()
    import threading
    thread = threading.Thread(target=asyncio.run, args=(other(),))
    thread.start()
    thread.join()
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
await asyncio.sleep(0)
quota.settle(grant, QuotaOutcome("accepted", 50))
await quota.aclose()
"""
    process = await started(path, body, window=60.0)
    assert await line_of(process) == "0"
    await ended_well(process)
    async with SqliteQuota(path, Quota(100, None, None, 60.0)) as quota:
        used = {of.input_type: of.used for of in await quota.statistics()}
    assert used == {"passage": 50, "query": 70}


async def test_an_interpreter_ends_at_once_and_writes_what_has_ended(path: Path) -> None:
    body = 'quota.settle(await quota.acquire(demand), QuotaOutcome("accepted", 30))\nprint("done", flush=True)'
    process = await started(path, body, window=60.0)
    assert await line_of(process) == "done"
    begun = time.monotonic()
    await ended_well(process)
    assert time.monotonic() - begun < 2
    async with SqliteQuota(path, Quota(100, None, None, 60.0)) as again:
        assert await used_of(again) == 30


async def test_an_outcome_that_is_settled_only_as_the_interpreter_ends_is_no_complaint(path: Path) -> None:
    # By a finalizer older than the file, like that of a synchronous client, so that it runs later than any of the file.
    body = """
import logging, os, weakref
logging.basicConfig(level=logging.WARNING)
grants = []
def end():
    quota.settle(grants.pop(), QuotaOutcome("accepted", 30))
    thread = quota._clerks[os.getpid()]._thread
    if thread is not None: thread.join()
weakref.finalize(quota, end)
grants.append(await quota.acquire(demand))
"""
    await ended_well(await started(path, body))


async def test_an_interpreter_ends_although_a_request_waits(path: Path, quota: SqliteQuota) -> None:
    await quota.acquire(demand())
    body = "waiting = asyncio.create_task(quota.acquire(demand))\nawait asyncio.sleep(0.1)\nprint('leaves', flush=True)"
    process = await started(path, body)
    assert await line_of(process) == "leaves"
    async with asyncio.timeout(20):
        await ended_well(process)


# Locks.


async def test_a_lock_that_is_not_given_up_is_an_error(
    path: Path, quota: SqliteQuota, other: SqliteQuota, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quota_file, "LOCK_SECONDS", 0.2)
    grant = await quota.acquire(demand(40))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match=r"quota.db': another process has locked it for 0.2 s"):
            await quota.acquire(demand())
        quota.settle(grant, QuotaOutcome("accepted", 10))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await quota.acquire(demand())
        holder.execute("ROLLBACK")
    # What has ended meanwhile is not lost, even if nobody asks here any more.
    assert (await other.acquire(demand(90))).tokens == 90
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_request_that_failed_while_it_waited_takes_no_tokens_later(
    path: Path, quota: SqliteQuota, other: SqliteQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_file, "LOCK_SECONDS", 0.1)
    grant = await quota.acquire(demand())
    waiting = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        late = asyncio.create_task(quota.acquire(demand()))
        for request in (waiting, late):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                await request
        holder.execute("ROLLBACK")
    quota.settle(grant, UNUSED)
    assert (await other.acquire(demand())).tokens == 100
    assert sum(of.waiting for of in await other.statistics()) == 0


async def test_a_lock_that_is_soon_given_up_is_waited_for(path: Path, quota: SqliteQuota) -> None:
    quota.settle(await quota.acquire(demand()), UNUSED)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(quota.acquire(demand()))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        holder.execute("ROLLBACK")
        assert (await waiting).tokens == 100


async def test_one_process_at_a_time_opens_the_file(
    path: Path, quota: SqliteQuota, other: SqliteQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(LockFile(path.with_name("quota.db-lock"))) as opens, opens.opening(0.0):
        waiting = asyncio.create_task(quota.acquire(demand()))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        monkeypatch.setattr(quota_file, "LOCK_SECONDS", 0.05)
        with pytest.raises(TimeoutError, match=r"quota\.db-lock' is locked by another process"):
            await other.acquire(demand())
    assert (await waiting).tokens == 100


def test_waiting_to_open_the_file_takes_hardly_any_cpu_time(path: Path) -> None:
    with contextlib.closing(LockFile(path)) as file, contextlib.closing(LockFile(path)) as other, file.opening(0.0):
        used = time.process_time()
        with pytest.raises(TimeoutError), other.opening(time.monotonic() + 1.0):
            pass
        assert time.process_time() - used < 0.5


def test_the_lock_of_a_member_is_not_that_of_another(path: Path) -> None:
    with contextlib.closing(LockFile(path)) as file, contextlib.closing(LockFile(path)) as other:
        assert not other.has_members
        file.enter(5)
        assert [other.is_alive(member) for member in (4, 5, 6)] == [False, True, False]
        other.enter(6)
        assert [file.is_alive(member) for member in (4, 5, 6)] == [False, False, True]
        assert other.has_members


async def test_a_file_that_is_locked_when_it_is_closed_is_left_to_the_others(
    path: Path, quota: SqliteQuota, other: SqliteQuota, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(quota_file, "LOCK_SECONDS", 0.1)
    await quota.acquire(demand())
    await other.statistics()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        await quota.aclose()
        holder.execute("ROLLBACK")
    assert "could not be closed properly" in caplog.text
    # It is taken for dead, which it is.
    assert (await other.acquire(demand())).tokens == 100


async def test_the_lock_is_waited_for_five_seconds() -> None:
    assert quota_file.LOCK_SECONDS == 5.0


async def test_a_process_that_is_stopped_while_it_waits_its_turn_does_not_stop_the_others(
    path: Path, quota: SqliteQuota, other: SqliteQuota
) -> None:
    quota.settle(await quota.acquire(demand()), UNUSED)
    stopped = LockFile(path.with_name("quota.db-lock"))
    with contextlib.closing(stopped), stopped.turn():
        begun = time.monotonic()
        # More than one is behind it.
        grants = await asyncio.gather(quota.acquire(demand(50)), other.acquire(demand(50)))
        assert [grant.tokens for grant in grants] == [50, 50]
        assert 0.5 < time.monotonic() - begun < 2


def tickets(file: LockFile, start: int = 2**62, end: int = 2**63 - 1) -> int:
    """The number of those who wait for their turn or have it: locked bytes."""
    if start >= end:
        return 0
    asked = lock_file._flock(fcntl.F_WRLCK, start, end - start)
    kind, _, found, *_ = lock_file._FLOCK.unpack(fcntl.fcntl(file._file, fcntl.F_OFD_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else 1 + tickets(file, start, found) + tickets(file, found + 1, end)


@pytest.mark.skipif(sys.platform == "darwin", reason="reads the locks as Linux has them")
def test_turns_are_taken_in_order(path: Path) -> None:
    *files, looking = [LockFile(path) for _ in range(7)]
    order: list[int] = []
    ready = [threading.Event() for _ in files]

    def take(number: int) -> None:
        ready[number].set()
        with files[number].turn():
            order.append(number)

    threads = [threading.Thread(target=take, args=(number,)) for number in range(1, 6)]
    with files[0].turn():
        for number, thread in enumerate(threads, 1):
            thread.start()
            ready[number].wait()
            # Its ticket is a locked byte.
            while tickets(looking) <= number:
                time.sleep(0.01)
    for thread in threads:
        thread.join()
    assert order == [1, 2, 3, 4, 5]
    assert tickets(looking) == 0
    for file in (*files, looking):
        file.close()


# Files.


async def test_it_is_readable_by_its_owner_only(path: Path, quota: SqliteQuota) -> None:
    await quota.acquire(demand())
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(["quota.db", "quota.db-lock", "quota.db-shm", "quota.db-wal"], 0o600)


@pytest.mark.parametrize("mode", [0o644, 0o777])
async def test_a_file_that_others_may_read_is_closed_to_them(path: Path, mode: int) -> None:
    await make_quota(path)
    path.chmod(mode)
    await make_quota(path)
    assert stat.S_IMODE(path.stat().st_mode) == mode & 0o700


async def test_an_empty_file_is_taken_as_a_new_one(path: Path) -> None:
    path.touch()
    await make_quota(path)


def is_open(path: Path) -> bool:
    """Whether this process has the file open."""
    found = path.stat()
    for number in Path("/dev/fd").iterdir():
        # The directory itself was open too while it was listed.
        with contextlib.suppress(OSError):
            one = os.fstat(int(number.name))
            if (one.st_dev, one.st_ino) == (found.st_dev, found.st_ino):
                return True
    return False


def test_a_refused_lock_file_is_closed_even_while_its_error_is_kept(path: Path) -> None:
    with contextlib.closing(LockFile(path)):
        assert is_open(path)
    path.write_text("a note")
    with pytest.raises(ConfigurationError, match="not the lock of a quota") as caught:
        LockFile(path)
    assert caught.value.__traceback__ is not None
    assert not is_open(path)


async def test_a_file_of_another_boot_is_void(path: Path) -> None:
    async with SqliteQuota(path, QUOTA) as quota:
        await quota.acquire(demand())
        lock = LockFile(path.with_name("quota.db-lock"))
        lock.begin("of another boot")
        # Nothing need be intact, but for what shows whose it is.
        async with SqliteQuota(path, QUOTA) as early:
            with pytest.raises(ConfigurationError, match="another boot id"):
                await early.acquire(demand())
    path.write_bytes(path.read_bytes()[:100] + b"\0" * 1000)
    async with SqliteQuota(path, QUOTA) as later:
        assert (await later.acquire(demand())).tokens == 100
    lock.close()


async def test_without_an_id_of_the_boot_a_time_to_come_shows_that_it_was_another_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_file, "boot_id", lambda: "?")
    lasting = Quota(100, requests_per_second=None, requests_per_minute=None, window=60.0)
    async with SqliteQuota(path, lasting) as quota:
        quota.settle(await quota.acquire(demand()), QuotaOutcome("accepted", 100))
    now = lock_file.boot_time()
    monkeypatch.setattr(quota_file, "boot_time", lambda: now / 2)
    async with SqliteQuota(path, lasting) as quota:
        assert (await quota.acquire(demand())).tokens == 100


def make_database(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("CREATE TABLE notes (note TEXT)")
        file.commit()


def make_cut(path: Path) -> None:
    asyncio.run(make_quota(path))
    path.write_bytes(path.read_bytes()[:5000])


def make_note_in_its_place(path: Path) -> None:
    asyncio.run(make_quota(path))
    path.write_text("a note, and not a short one " * 9)


def make_database_in_its_place(path: Path) -> None:
    asyncio.run(make_quota(path))
    path.unlink()
    make_database(path)


def make_other_version(path: Path) -> None:
    asyncio.run(make_quota(path))
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")


def content_and_mode(path: Path) -> tuple[bytes, int] | None:
    return (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) if path.is_file() else None


async def make_quota(path: Path) -> None:
    async with SqliteQuota(path, QUOTA) as quota:
        await quota.acquire(demand())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path.write_text("a note, and not a short one " * 9), "another program"),
        (make_database, "another program"),
        (make_cut, "corrupted"),
        (make_note_in_its_place, "corrupted"),
        (make_database_in_its_place, "another program"),
        (make_other_version, "another version"),
        (lambda path: path.symlink_to(path.with_name("elsewhere")), "symbolic link"),
        (lambda path: path.with_name("quota.db-lock").symlink_to(path.with_name("elsewhere")), "symbolic link"),
        (lambda path: path.with_name("quota.db-lock").write_text("a note"), "not the lock of a quota"),
        (os.mkfifo, "not a regular file"),
        (lambda path: os.mkfifo(path.with_name("quota.db-lock")), "not a regular file"),
    ],
)
async def test_a_file_that_is_no_quota_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], object], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(make, path)
    before = content_and_mode(path)
    async with SqliteQuota(path, QUOTA) as quota:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=said):
                await quota.acquire(demand())
    # The caller was told, which is enough.
    assert not caplog.records
    assert content_and_mode(path) == before
    assert not path.with_name("elsewhere").exists()


async def test_another_quota_is_refused_while_others_use_the_file_and_taken_afterwards(path: Path) -> None:
    twice = Quota(200, requests_per_second=None, requests_per_minute=None, window=WINDOW)
    async with SqliteQuota(path, QUOTA) as quota, SqliteQuota(path, twice) as other:
        grant = await quota.acquire(demand())
        with pytest.raises(
            ConfigurationError, match=r"in use by other processes with the quota .*100.*, not .*200"
        ) as caught:
            await other.acquire(demand(200))
        assert str(caught.value).startswith(f"{str(path)!r} is in use"), "the file is named once"
        quota.settle(grant, QuotaOutcome("accepted", 100))
        await quota.aclose()
        begun = time.monotonic()
        # What was used under the other one has to expire first.
        assert (await other.acquire(demand(200))).tokens == 200
        assert WINDOW - 0.1 < time.monotonic() - begun < WINDOW + 1


async def test_another_quota_with_shorter_windows_waits_for_one_of_those_before(path: Path) -> None:
    async with SqliteQuota(path, QUOTA) as quota:
        quota.settle(await quota.acquire(demand()), QuotaOutcome("accepted", 100))
    begun = time.monotonic()
    async with SqliteQuota(path, Quota(100, None, None, WINDOW / 100)) as other:
        await other.acquire(demand())
    assert time.monotonic() - begun > WINDOW - 0.1


async def test_a_number_is_the_quota_of_so_many_tokens_per_minute(path: Path) -> None:
    async with SqliteQuota(path, 600) as quota, SqliteQuota(path, Quota(600)) as other:
        quota.settle(await quota.acquire(demand(500)), QuotaOutcome("accepted", 500))
        assert (await other.acquire(demand(500, least=1))).tokens == 100


async def test_another_version_of_the_package_is_refused(
    path: Path, quota: SqliteQuota, monkeypatch: pytest.MonkeyPatch
) -> None:
    await quota.acquire(demand())
    monkeypatch.setattr(quota_file, "VERSION", "99.0")
    async with SqliteQuota(path, QUOTA) as other:
        with pytest.raises(ConfigurationError, match="in use by other processes with version"):
            await other.acquire(demand())


async def test_a_package_that_decides_differently_is_noticed(path: Path, quota: SqliteQuota, other: SqliteQuota) -> None:
    other.settle(await other.acquire(demand(10)), QuotaOutcome("accepted", 10))
    await other.acquire(demand(60))
    # Once that is written, so that the last step is not its own.
    await other.statistics()
    grant = await quota.acquire(demand(10))
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("UPDATE steps SET granted = x'90' WHERE number = (SELECT max(number) FROM steps)")
        file.commit()
    with pytest.raises(ConfigurationError, match="makes other decisions"):
        await other.acquire(demand(10))
    # It has left, so what it held counts for no longer than a window.
    quota.settle(grant, UNUSED)
    assert (await quota.acquire(demand())).tokens == 100


async def test_a_file_that_is_removed_is_an_error_for_those_who_wait_and_then_a_new_one_is_made(
    path: Path, quota: SqliteQuota
) -> None:
    await quota.acquire(demand())
    waiting = asyncio.create_task(quota.acquire(demand()))
    await until_waiting(quota)
    for file in path.parent.iterdir():
        file.unlink()
    with pytest.raises(ConfigurationError, match="removed or replaced"):
        await waiting
    assert (await quota.acquire(demand())).tokens == 100


async def test_that_a_file_is_removed_is_noticed_although_nobody_waits(path: Path, quota: SqliteQuota) -> None:
    grant = await quota.acquire(demand(10))
    path.unlink()
    await asyncio.sleep(quota_file.CHECK_SECONDS)
    with pytest.raises(ConfigurationError, match="removed or replaced"):
        await quota.acquire(demand(10))
    # Of a file that is there no more.
    quota.settle(grant, UNUSED)
    assert (await quota.acquire(demand())).tokens == 100


@pytest.mark.parametrize("which", ["quota.db", "quota.db-lock"])
async def test_a_file_that_is_replaced_is_an_error(path: Path, quota: SqliteQuota, which: str) -> None:
    await quota.acquire(demand(10))
    replaced = path.with_name(which)
    copied = path.with_name("copied")
    copied.write_bytes(replaced.read_bytes())
    copied.replace(replaced)
    await asyncio.sleep(quota_file.CHECK_SECONDS)
    with pytest.raises(ConfigurationError, match="removed or replaced"):
        await quota.acquire(demand(10))


async def test_a_full_disk_is_an_error_and_nothing_is_lost(path: Path) -> None:
    async with SqliteQuota(path, PLENTY) as quota:
        grant = await quota.acquire(demand())
        with full_disk(0):
            with pytest.raises(sqlite3.OperationalError):
                await quota.acquire(demand())
            quota.settle(grant, QuotaOutcome("accepted", 50))
        await quota.acquire(demand())
        assert await used_of(quota) == 150


@pytest.mark.parametrize("wrong", [7, "a\0b", None, "/nowhere/quota.db", "."])
def test_a_path_that_can_be_no_file_is_refused_at_once(wrong: object) -> None:
    with pytest.raises(ConfigurationError, match=r"path|folder"):
        SqliteQuota(wrong, QUOTA)  # type: ignore[arg-type]


async def test_arguments_are_checked(path: Path, quota: SqliteQuota) -> None:
    with pytest.raises(ConfigurationError, match="quota must be"):
        SqliteQuota(path, "a plan")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="demand"):
        await quota.acquire(100)  # type: ignore[arg-type]
    grant = await quota.acquire(demand())
    with pytest.raises(ConfigurationError, match="outcome"):
        quota.settle(grant, "accepted")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="another ticket"):
        quota.settle(QuotaGrant(100), UNUSED)


async def test_what_cannot_be_written_is_an_error_for_itself_alone(quota: SqliteQuota) -> None:
    waiting = [asyncio.create_task(quota.acquire(demand(60))), asyncio.create_task(quota.acquire(demand(40)))]
    with pytest.raises(ConfigurationError, match="Unicode"):
        await quota.acquire(QuotaDemand("\ud800", "passage", 1, 1))
    with pytest.raises(ConfigurationError, match=r"numbers below 2\*\*64"):
        await quota.acquire(demand(2**70))
    grants = await asyncio.gather(*waiting)
    with pytest.raises(ConfigurationError, match=r"numbers below 2\*\*64"):
        quota.settle(grants[0], QuotaOutcome("accepted", 2**70))
    for grant in grants:
        quota.settle(grant, UNUSED)
    assert (await quota.acquire(demand())).tokens == 100


async def test_it_can_be_pickled_and_copied_and_names_its_file(path: Path, quota: SqliteQuota) -> None:
    await quota.acquire(demand())
    restored = pickle.loads(pickle.dumps(quota))  # noqa: S301 - our own
    for again in (restored, copy.deepcopy(quota)):
        assert repr(again) == repr(quota) == f"<SqliteQuota {str(path)!r} {QUOTA!r}>"
        assert await used_of(again) == 100
        await again.aclose()


async def test_what_is_never_used_makes_no_file(path: Path) -> None:
    async with SqliteQuota(path, QUOTA):
        pass
    assert not path.exists()
    assert threading.active_count() < 50
