"""The cache's file: its content, its permissions, concurrent writers, and corruption."""

import asyncio
import contextlib
import fcntl
import gc
import itertools
import logging
import os
import pickle
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from pinecone_embed_async import ConfigurationError, SqliteCache
from pinecone_embed_async._cache.sqlite import KIND, LOCK_SECONDS, LONGEST_BACKOFF_SECONDS, _Access, _Backoff
from tests.clock import settle

ENTRIES = {bytes([number]) * 32: random.Random(number).randbytes(4104) for number in range(200)}
OTHER = b"\xff" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.cache"


@pytest.fixture
async def cache(path: Path) -> AsyncIterator[SqliteCache]:
    async with SqliteCache(path) as opened:
        yield opened


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_values_are_returned_in_the_order_of_the_keys(cache: SqliteCache) -> None:
    await cache.put_many(ENTRIES)
    keys = [*reversed(ENTRIES), OTHER, next(iter(ENTRIES))]
    values = await cache.get_many(keys)
    assert values == [ENTRIES.get(key) for key in keys]
    assert values[-2] is None
    assert await cache.get_many([]) == []


async def test_more_keys_than_one_statement_takes(cache: SqliteCache) -> None:
    entries = {number.to_bytes(32, "big"): number.to_bytes(8, "big") for number in range(2000)}
    await cache.put_many(entries)
    assert await cache.get_many(list(entries)) == list(entries.values())


async def test_a_second_put_replaces_the_value(cache: SqliteCache) -> None:
    await cache.put_many({OTHER: b"old"})
    await cache.put_many({OTHER: b"new"})
    assert await cache.get_many([OTHER]) == [b"new"]


async def test_values_persist_for_the_next_process(path: Path) -> None:
    async with SqliteCache(path) as cache:
        await cache.put_many(ENTRIES)
    code = f"""
import asyncio
from pinecone_embed_async import SqliteCache

async def main():
    async with SqliteCache({str(path)!r}) as cache:
        values = await cache.get_many([bytes([number]) * 32 for number in range(200)])
        print(sum(map(len, values)))

asyncio.run(main())
"""
    done = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == sum(map(len, ENTRIES.values()))


async def test_it_can_be_closed_and_used_again(cache: SqliteCache) -> None:
    await cache.put_many(ENTRIES)
    await cache.aclose()
    await cache.aclose()
    assert await cache.get_many(list(ENTRIES)) == list(ENTRIES.values())


class Held(list[bytes]):
    """Keys that block their reader."""

    def __init__(self) -> None:
        super().__init__([OTHER])
        self.is_reached, self.may_go_on = threading.Event(), threading.Event()

    def __getitem__(self, key: Any) -> Any:
        self.is_reached.set()
        assert self.may_go_on.wait(10)
        return super().__getitem__(key)


async def test_a_cancelled_close_closes_the_whole_file_after_the_work_in_progress(cache: SqliteCache, path: Path) -> None:
    before, keys = set(threading.enumerate()), Held()
    await cache.put_many(ENTRIES)
    get = asyncio.create_task(cache.get_many(keys))
    assert await asyncio.to_thread(keys.is_reached.wait, 10)
    closing = asyncio.create_task(cache.aclose())
    await settle()
    closing.cancel()
    await settle()
    assert not closing.done()
    keys.may_go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert await get == [None]
    # SQLite removes the two others when the last connection is closed.
    assert list(path.parent.iterdir()) == [path]
    assert {thread for thread in threading.enumerate() if "pinecone-embed-cache" in thread.name} <= before
    assert await cache.get_many(list(ENTRIES)) == list(ENTRIES.values())


async def test_a_closed_cache_has_everything_in_one_file(cache: SqliteCache, path: Path) -> None:
    # Often, because it depends on how the threads run.
    for _ in range(200):
        await cache.put_many(dict(itertools.islice(ENTRIES.items(), 50)))
        await cache.get_many([OTHER])
        await cache.aclose()
        assert [*path.parent.iterdir()] == [path]


async def test_a_cache_that_is_dropped_while_it_works_is_closed_only_afterwards(path: Path) -> None:
    keys = Held()

    def drop() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(SqliteCache(path).get_many(keys))
        loop.run_until_complete(asyncio.to_thread(keys.is_reached.wait, 10))
        loop.close()
        # Python says that it was destroyed.
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    await asyncio.to_thread(drop)
    gc.collect()
    assert path.with_name(f"{path.name}-wal").exists()
    keys.may_go_on.set()
    async with asyncio.timeout(10):
        while [*path.parent.iterdir()] != [path]:
            await asyncio.sleep(0.01)
            gc.collect()


async def test_only_its_owner_can_read_it_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        async with SqliteCache(path) as cache:
            await cache.put_many(ENTRIES)
            files = list(path.parent.iterdir())
            assert {file.name for file in files} == {path.name, f"{path.name}-wal", f"{path.name}-shm"}
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    finally:
        os.umask(before)


@pytest.mark.parametrize(("mode", "private"), [(0o644, 0o600), (0o601, 0o600), (0o777, 0o700), (0o500, 0o500)])
async def test_a_file_that_others_could_use_is_made_private(path: Path, mode: int, private: int) -> None:
    async with SqliteCache(path) as cache:
        await cache.put_many(ENTRIES)
    path.chmod(mode)
    async with SqliteCache(path) as cache:
        await cache.get_many([])
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {private}


async def test_it_is_used_even_if_the_files_beside_it_are_of_another_user(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqliteCache(path) as cache:
        await cache.put_many(ENTRIES)
    path.chmod(0o660)
    change = Path.chmod

    def refuse(file: Path, mode: int) -> None:
        if file != path:
            raise PermissionError(1, "Operation not permitted", str(file))
        change(file, mode)

    monkeypatch.setattr(Path, "chmod", refuse)
    async with SqliteCache(path) as cache:
        assert await cache.get_many(list(ENTRIES)) == list(ENTRIES.values())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_transaction_waits_for_the_disk_only_now_and_then(cache: SqliteCache) -> None:
    await cache.put_many(ENTRIES)
    for access in cache._accesses:
        await cache.get_many([])
        assert access.connection is not None
        # NORMAL; SQLite's own default is FULL, 2.
        assert access.connection.execute("PRAGMA synchronous").fetchone() == (1,)


async def test_the_event_loop_runs_while_the_file_is_locked(cache: SqliteCache, path: Path) -> None:
    await cache.put_many(ENTRIES)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    put = asyncio.create_task(cache.put_many({OTHER: b"v"}))
    turns = 0
    while turns < 10:
        await asyncio.sleep(0.001)
        turns += 1
    assert not put.done()
    other.execute("COMMIT")
    other.close()
    await put
    assert await cache.get_many([OTHER]) == [b"v"]


async def test_a_lock_that_is_never_released_fails_the_put(cache: SqliteCache, path: Path) -> None:
    await cache.put_many(ENTRIES)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        await cache.put_many({OTHER: b"v"})
    # Readers do not wait.
    assert await cache.get_many([OTHER, next(iter(ENTRIES))]) == [None, ENTRIES[next(iter(ENTRIES))]]
    other.close()
    # It backs off for as long as it has waited, and is then as before.
    await asyncio.sleep(LOCK_SECONDS + 0.01)
    await cache.put_many({OTHER: b"v"})
    assert cache._accesses[1]._backoff == _Backoff()


async def test_puts_behind_a_lock_wait_only_once(cache: SqliteCache, path: Path) -> None:
    await cache.put_many(ENTRIES)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def kept(number: int) -> bool:
        try:
            await cache.put_many({number.to_bytes(32, "big"): b"v"})
        except sqlite3.OperationalError:
            return False
        return True

    puts = [asyncio.create_task(kept(number)) for number in range(40)]
    looked_up = [asyncio.create_task(cache.get_many(list(ENTRIES))) for _ in range(10)]
    for values in await asyncio.gather(*looked_up):
        assert values == list(ENTRIES.values())
    assert not any(put.done() for put in puts), "look-ups wait for no write"
    assert not any(await asyncio.gather(*puts))
    assert loop.time() - began < 5 * LOCK_SECONDS
    other.close()


async def test_the_wait_for_a_locked_folder_is_as_short(path: Path) -> None:
    handle = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    async with SqliteCache(path) as cache:
        loop = asyncio.get_running_loop()
        began = loop.time()
        for _ in range(20):
            with pytest.raises(sqlite3.OperationalError, match="is locked"):
                await cache.get_many([OTHER])
        assert loop.time() - began < 5 * LOCK_SECONDS
        os.close(handle)
        await asyncio.sleep(2 * LOCK_SECONDS)
        assert await cache.get_many([OTHER]) == [None]


def test_a_lock_is_tried_at_growing_intervals() -> None:
    backoff, now, asked = _Backoff(), 0.0, []
    for step in range(1, 400):
        now = step / 10
        if now >= backoff.again_at:
            asked.append(now)
            backoff.failed(now)
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses[0] <= 2 * LOCK_SECONDS
    assert max(pauses) <= LONGEST_BACKOFF_SECONDS + 0.11
    assert len(asked) < 20


async def test_waiting_puts_share_a_transaction(cache: SqliteCache, path: Path) -> None:
    await cache.put_many({OTHER: b"v"})
    statements: list[str] = []
    connection = cache._accesses[1].connection
    assert connection is not None
    connection.set_trace_callback(statements.append)
    entries = [{number.to_bytes(32, "big"): number.to_bytes(8, "big")} for number in range(50)]
    await asyncio.gather(*(cache.put_many(entry) for entry in entries))
    assert await cache.get_many([key for entry in entries for key in entry]) == [v for e in entries for v in e.values()]
    assert 1 <= sum(statement.startswith("INSERT") for statement in statements) <= 2


MANY_SIZES = """
import asyncio, os, resource
from pinecone_embed_async import SqliteCache

async def main():
    async with SqliteCache(os.environ["CACHE"]) as cache:
        value = bytes(8200)
        await cache.put_many({number.to_bytes(32, "big"): value for number in range(512)})
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for size in range(480, 512):
            await cache.put_many({number.to_bytes(32, "big"): value for number in range(size)})
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

asyncio.run(main())
"""


async def test_puts_of_many_sizes_leave_nothing_in_memory(path: Path) -> None:
    command = (sys.executable, "-c", MANY_SIZES)
    told = await asyncio.to_thread(subprocess.check_output, command, env={**os.environ, "CACHE": str(path)})
    # Linux counts kibibytes, macOS bytes.
    grown = int(told) * (1 if sys.platform == "darwin" else 1024)
    written = 32 * 496 * 8200
    assert grown < written / 3


async def test_a_failed_put_leaves_nothing_in_memory(cache: SqliteCache) -> None:
    class Entries(dict[bytes, Any]):
        """A dictionary that can be referenced weakly."""

    entries = Entries({OTHER: "no bytes"})
    left = weakref.ref(entries)
    with contextlib.suppress(sqlite3.Error):
        await cache.put_many(entries)
    del entries
    # In the thread, which drops its work only after it has told the outcome.
    await asyncio.wrap_future(cache._accesses[1].executor.submit(gc.collect))
    assert left() is None


async def test_an_unwritable_put_does_not_fail_the_others_that_wait(cache: SqliteCache) -> None:
    entries: list[dict[bytes, Any]] = [{bytes([number]) * 32: b"v"} for number in range(5)]
    entries[3] = {b"c" * 32: "no bytes"}
    told = await asyncio.gather(*(cache.put_many(entry) for entry in entries), return_exceptions=True)
    assert [isinstance(one, sqlite3.Error) for one in told] == [False, False, False, True, False]
    assert await cache.get_many([next(iter(entry)) for entry in entries]) == [b"v", b"v", b"v", None, b"v"]


async def test_a_failed_put_writes_nothing(cache: SqliteCache) -> None:
    with pytest.raises(sqlite3.Error):
        await cache.put_many({b"a" * 32: b"v", b"b" * 32: "no bytes"})  # type: ignore[dict-item]
    assert await cache.get_many([b"a" * 32]) == [None]
    await cache.put_many({b"a" * 32: b"v"})


WRITER = """
import asyncio, sqlite3, sys
from pinecone_embed_async import SqliteCache

async def main(number):
    async with SqliteCache(sys.argv[1]) as cache:
        for turn in range(25):
            shared = {bytes([turn]) * 32: b"the same for all" * 64}
            own = {bytes([number, turn, entry]) + bytes(29): bytes([number]) * 500 for entry in range(20)}
            while True:
                try:
                    await cache.put_many({**shared, **own})
                    break
                except sqlite3.OperationalError as error:
                    assert "locked" in str(error)
                    await asyncio.sleep(0.05)
            assert all(await cache.get_many([*shared, *own]))

asyncio.run(main(int(sys.argv[2])))
"""


async def test_several_processes_create_it_and_write_to_it_at_once(path: Path) -> None:
    writers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", WRITER, str(path), str(number)), stderr=subprocess.PIPE
        )
        for number in range(4)
    ]
    for writer in writers:
        _, said = await writer.communicate()
        assert (writer.returncode, said) == (0, b"")
    async with SqliteCache(path) as cache:
        keys = [bytes([number, turn, entry]) + bytes(29) for number in range(4) for turn in range(25) for entry in range(20)]
        assert all(await cache.get_many([*keys, *(bytes([turn]) * 32 for turn in range(25))]))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_threads_with_loops_of_their_own_share_one(cache: SqliteCache) -> None:
    problems: list[BaseException] = []

    async def main(number: int) -> None:
        for turn in range(20):
            entries = {bytes([number, turn]) * 16: bytes([number]) * 100}
            await cache.put_many(entries)
            assert await cache.get_many(list(entries)) == list(entries.values())

    def run(number: int) -> None:
        try:
            asyncio.run(main(number))
        except BaseException as problem:  # noqa: BLE001 - a thread's own, told below
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert problems == []


async def test_a_forked_child_opens_the_file_anew(path: Path) -> None:
    code = f"""
import asyncio, os, sys
from pinecone_embed_async import SqliteCache

cache = SqliteCache({str(path)!r})

async def use(key):
    await cache.put_many({{key: b"v"}})
    return await cache.get_many([key, b"a" * 32])

asyncio.run(use(b"a" * 32))
child = os.fork()
if child == 0:
    values = asyncio.run(use(b"b" * 32))
    asyncio.run(cache.aclose())
    os._exit(0 if values == [b"v", b"v"] else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert asyncio.run(use(b"b" * 32)) == [b"v", b"v"]
asyncio.run(cache.aclose())
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_an_unclosed_cache_neither_warns_nor_blocks_the_exit(path: Path) -> None:
    code = f"""
import asyncio
from pinecone_embed_async import SqliteCache

asyncio.run(SqliteCache({str(path)!r}).put_many({{b"k" * 32: b"v"}}))
"""
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-X", "dev", "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


async def test_a_cancelled_call_leaves_the_file_usable(cache: SqliteCache) -> None:
    put = asyncio.create_task(cache.put_many(ENTRIES))
    await asyncio.sleep(0)
    put.cancel()
    await asyncio.wait([put])
    assert put.cancelled()
    # It was waited for, so all of it is written, or nothing.
    assert len({value is None for value in await cache.get_many(list(ENTRIES))}) == 1


# What is broken.


def overwrite_all(path: Path) -> None:
    path.write_bytes(b"this has never been a database\n" * 1000)


def overwrite_the_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(100))


def overwrite_pages(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(16_384)
        file.write(random.Random(1).randbytes(size - 16_384))


def cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 + 1000)


DAMAGES = [overwrite_all, overwrite_the_head, overwrite_pages, cut_off]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_corrupted_file_is_reported_and_set_aside(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with SqliteCache(path) as cache:
        await cache.put_many(ENTRIES)
    damage(path)
    damaged = path.read_bytes()
    async with SqliteCache(path) as cache:
        values = await cache.get_many(list(ENTRIES))
        assert values == [None] * len(ENTRIES)
        await cache.put_many(ENTRIES)
        assert await cache.get_many(list(ENTRIES)) == list(ENTRIES.values())
    aside = path.with_name(f"{path.name}.corrupt-1")
    assert aside.read_bytes() == damaged
    (told,) = warnings(caplog)
    assert str(path) in told
    assert str(aside) in told
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_file_corrupted_while_open_is_set_aside_too(
    path: Path, caplog: pytest.LogCaptureFixture, cache: SqliteCache
) -> None:
    await cache.put_many(ENTRIES)
    await cache.aclose()
    await cache.get_many([])
    overwrite_pages(path)
    await cache.put_many(ENTRIES)
    assert await cache.get_many(list(ENTRIES)) == list(ENTRIES.values())
    assert len(warnings(caplog)) == 1


def test_a_file_in_place_of_a_corrupted_one_is_not_set_aside_again_at_once(path: Path) -> None:
    def read(_: sqlite3.Connection) -> None:
        reads.append(path)
        error = sqlite3.DatabaseError("malformed")
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error

    reads: list[Path] = []
    access = _Access(path)
    with contextlib.closing(access), pytest.raises(sqlite3.DatabaseError, match="malformed"):
        access.use(read)
    assert len(reads) == 2
    assert sum(".corrupt-" in file.name for file in path.parent.iterdir()) == 1


async def test_a_corrupted_file_is_left_as_it_is_while_another_process_may_replace_it(path: Path) -> None:
    async with SqliteCache(path) as cache:
        await cache.put_many(ENTRIES)
        await cache.aclose()
        overwrite_pages(path)
        await cache.get_many([])
        before = {file.name for file in path.parent.iterdir()}
        handle = os.open(path.parent, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(sqlite3.OperationalError, match=r"folder .* is locked"):
            await cache.get_many(list(ENTRIES))
        os.close(handle)
        assert {file.name for file in path.parent.iterdir()} == before
        assert not any(await cache.get_many(list(ENTRIES)))


async def test_only_one_of_two_caches_sets_a_corrupted_file_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SqliteCache(path) as one, SqliteCache(path) as other:
        await one.put_many(ENTRIES)
        await one.aclose()
        overwrite_all(path)
        await asyncio.gather(one.get_many(list(ENTRIES)), other.get_many(list(ENTRIES)))
        await one.put_many(ENTRIES)
        assert await other.get_many(list(ENTRIES)) == list(ENTRIES.values())
    assert sum(".corrupt-" in file.name for file in path.parent.iterdir()) == 1
    assert len(warnings(caplog)) == 1


async def test_the_second_cache_uses_the_new_file(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with SqliteCache(path) as one, SqliteCache(path) as other:
        await one.put_many(ENTRIES)
        await one.aclose()
        overwrite_pages(path)
        # It has opened the corrupted file, but not hit the corruption yet.
        await other.get_many([])
        assert not any(await one.get_many(list(ENTRIES)))
        await one.put_many(ENTRIES)
        assert await other.get_many(list(ENTRIES)) == list(ENTRIES.values())
    assert len(warnings(caplog)) == 1


async def test_a_file_that_was_set_aside_during_a_look_up_is_not_set_aside_again(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with SqliteCache(path) as one, SqliteCache(path) as other:
        await one.put_many(ENTRIES)
        await one.aclose()
        overwrite_pages(path)
        keys = Held()
        late = asyncio.create_task(other.get_many(keys))
        assert await asyncio.to_thread(keys.is_reached.wait, 10)
        assert not any(await one.get_many(list(ENTRIES)))
        await one.put_many(ENTRIES)
        keys.may_go_on.set()
        assert await late == [None]
        assert await other.get_many(list(ENTRIES)) == list(ENTRIES.values())
    assert len(warnings(caplog)) == 1


async def test_files_set_aside_earlier_are_kept(path: Path) -> None:
    for _ in range(2):
        path.write_bytes(b"no database, and long enough to be one" * 100)
        async with SqliteCache(path) as cache:
            await cache.get_many([OTHER])
    assert {file.name for file in path.parent.iterdir()} == {
        path.name,
        f"{path.name}.corrupt-1",
        f"{path.name}.corrupt-2",
    }


async def test_another_programs_database_is_rejected_and_left_unchanged(path: Path) -> None:
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (a)")
    other.commit()
    other.close()
    path.chmod(0o644)
    before = path.read_bytes()
    async with SqliteCache(path) as cache:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="file of another program"):
                await cache.get_many([OTHER])
            with pytest.raises(ConfigurationError, match="file of another program"):
                await cache.put_many({OTHER: b"v"})
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [file.name for file in path.parent.iterdir()] == [path.name]


async def test_the_head_of_a_file_is_the_same_in_all_versions(cache: SqliteCache, path: Path) -> None:
    await cache.put_many(ENTRIES)
    await cache.aclose()
    other = sqlite3.connect(path)
    told = [other.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version", "page_size")]
    other.close()
    # Hard-coded, because later versions must read existing files.
    assert told == [int.from_bytes(b"PEA\x01", "big"), 1, 16_384]


async def test_a_cache_of_a_later_version_is_rejected(path: Path) -> None:
    later = sqlite3.connect(path)
    later.execute("CREATE TABLE vectors (a)")
    later.execute(f"PRAGMA application_id = {KIND.application_id}")
    later.execute("PRAGMA user_version = 2")
    later.commit()
    later.close()
    async with SqliteCache(path) as cache:
        with pytest.raises(ConfigurationError, match="another version"):
            await cache.get_many([OTHER])


@pytest.mark.parametrize("name", ["", "missing/vectors.cache"])
def test_a_path_that_cannot_be_a_file_is_rejected_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="existing folder"):
        SqliteCache(tmp_path / name)


@pytest.mark.parametrize("name", [":memory:", "file:vectors.cache", "vectors.cache"])
async def test_a_path_is_that_of_a_file_whatever_its_name_and_wherever_the_program_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    async with SqliteCache(name) as cache:
        assert await cache.get_many([OTHER]) == [None]
        monkeypatch.chdir(tmp_path / "elsewhere")
        await cache.put_many({OTHER: b"v"})
        assert await cache.get_many([OTHER]) == [b"v"]
        assert {file.name for file in tmp_path.iterdir()} == {"elsewhere", name, f"{name}-wal", f"{name}-shm"}
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir() if file.is_file()} == {0o600}
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("deleted", [("",), ("", "-wal", "-shm")])
async def test_a_file_that_is_deleted_while_it_is_open_is_created_anew(
    cache: SqliteCache, path: Path, deleted: tuple[str, ...]
) -> None:
    first, second, third = ({bytes([number]) * 32: b"v"} for number in range(3))
    await cache.put_many(first)
    assert await cache.get_many(list(first)) == [b"v"]
    for suffix in deleted:
        path.with_name(path.name + suffix).unlink()
    async with SqliteCache(path) as other:
        await other.put_many(second)
        await cache.put_many(third)
        for one in (cache, other):
            assert await one.get_many([*first, *second, *third]) == [None, b"v", b"v"]


def test_it_cannot_be_pickled_and_its_repr_names_the_file(path: Path) -> None:
    cache = SqliteCache(path)
    with pytest.raises(TypeError, match="make one in each process"):
        pickle.dumps(cache)
    assert repr(cache) == f"<SqliteCache {str(path)!r}>"
    assert not path.exists()
