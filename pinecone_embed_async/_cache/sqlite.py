"""A cache in an SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import math
import os
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, TypeVar

from pinecone_embed_async._cache import vector_table
from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._log import logger
from pinecone_embed_async._sqlite import BUSY, CORRUPTED, LOCKED, code_of, connect, create, file_path, identity
from pinecone_embed_async._threads import in_thread, result_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Self

LOCK_SECONDS = 0.1
"""How long to wait for a lock. It is short, because calls wait too, and a write holds a lock for only milliseconds."""

LONGEST_BACKOFF_SECONDS = 5.0
"""Longest pause after a wait for a lock has timed out. Reads and writes pause separately; during the pause they fail at
once, even if the lock is free again."""

POLL_SECONDS = 0.005
"""Pause between attempts to lock the folder; `flock` cannot wait with a time-out."""

ResultT = TypeVar("ResultT")


class SqliteCache:
    """Stores vectors in a file, for any number of clients, threads and processes on this machine.

    The file holds SHA-256 digests and float32 vectors but no texts, and only its owner can read it. It grows without limit;
    delete it to clear the cache. If the file is corrupted, a warning is logged, the file is renamed, and a new one is
    created. The file is opened on first use, and again after `aclose`.

    Args:
        path: path of the file; while it is open, two more files are beside it, with `-wal` and `-shm` appended.

    Raises:
        ConfigurationError: the folder of the file does not exist, or the path cannot be a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = file_path(path)
        self._process = os.getpid()
        # Separate connections, so that look-ups do not queue behind writes.
        self._reader, self._writer = _Access(), _Writer()
        self._opening = threading.Lock()
        self._inherited: list[object] = []

    def __repr__(self) -> str:
        return f"<SqliteCache {str(self._path)!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SqliteCache cannot be pickled: it holds an open file; make one in each process")

    def __del__(self) -> None:
        # Absent if the constructor failed.
        if hasattr(self, "_inherited") and self._process == os.getpid():
            self._reader.close()
            self._writer.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`.

        Raises:
            ConfigurationError: the file is a database of another program or of a later version of this package, or `keys`
                is not a sequence of bytes.
            sqlite3.Error: the file cannot be read, for a reason other than corruption.
        """
        if not isinstance(keys, Sequence) or isinstance(keys, (str, bytes)):
            raise ConfigurationError(f"keys must be a sequence of bytes, got {short(keys)}")
        reader = self._own().reader
        return await in_thread(lambda: self._with_file(reader, lambda file: vector_table.read(file, keys)), reader.executor)

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See `Cache.put_many`.

        Raises:
            ConfigurationError: the file is a database of another program or of a later version of this package, or
                `entries` is not a mapping of bytes to bytes.
            sqlite3.Error: the file cannot be written, for a reason other than corruption.
        """
        if not isinstance(entries, Mapping):
            raise ConfigurationError(f"entries must be a mapping of bytes to bytes, got {short(entries)}")
        writer, put = self._own().writer, _Put(entries)
        loop = asyncio.get_running_loop()
        with writer.joining:
            if not writer.waiting:
                writer.write = writer.executor.submit(self._write_waiting, writer)
            writer.waiting.append(put)
            # One future for each loop, not for each put, because waking a loop from a thread costs a system call.
            if loop not in writer.written:
                writer.written[loop] = asyncio.wrap_future(writer.write)
            written = writer.written[loop]
        await result_of(written)
        if put.error is not None:
            raise put.error

    async def aclose(self) -> None:
        """Close the file, after finishing the work in progress."""
        old = self._own()
        self._reader, self._writer = _Access(), _Writer()
        try:
            # Both in one piece of work, so that a cancellation cannot close only one of them.
            await in_thread(lambda: _close(*old), old.writer.executor)
        finally:
            for access in old:
                access.executor.shutdown()

    def _own(self) -> _Accesses:
        """The file accesses of this process; new ones after a fork."""
        if self._process != os.getpid():
            # SQLite forbids using or closing a connection in a forked child, and the threads stayed in the parent.
            self._inherited += [self._reader, self._writer]
            self._reader, self._writer = _Access(), _Writer()
            self._opening = threading.Lock()
            self._process = os.getpid()
        return _Accesses(self._reader, self._writer)

    # All methods below run in the file's threads.

    def _write_waiting(self, writer: _Writer) -> None:
        """Write all waiting puts in one transaction."""
        with writer.joining:
            puts, writer.waiting, writer.written = writer.waiting, [], {}
        self._write(writer, puts)

    def _write(self, writer: _Writer, puts: list[_Put]) -> None:
        problem: Exception | None = None
        try:
            entries = list(chain.from_iterable(put.entries.items() for put in puts))
            self._with_file(writer, lambda file: vector_table.write(file, entries))
        except Exception as error:  # noqa: BLE001 - raised to the caller of each put
            problem = error
        if problem is not None and len(puts) > 1 and code_of(problem) not in LOCKED:
            # One unwritable put must not fail the others.
            for put in puts:
                self._write(writer, [put])
            return
        for put in puts:
            put.error = problem

    def _with_file(self, access: _Access, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        self._close_replaced(access)
        problem = ""
        for _ in range(2):
            with access.lock:
                access.backoff.check(time.monotonic(), self._path)
                try:
                    result = work(self._opened(access))
                except Exception as error:
                    code = code_of(error)
                    if code in LOCKED:
                        access.backoff.failed(time.monotonic())
                    if problem or code not in CORRUPTED:
                        raise
                    problem = str(error)
                else:
                    access.backoff.succeeded()
                    return result
            self._set_aside(access, problem)
        raise RuntimeError("the file was neither used nor set aside; please report this bug")

    def _close_replaced(self, access: _Access) -> None:
        """Close a file that was deleted or replaced while it was open, so that the one of this path is opened."""
        if access.connection is None or identity(self._path) == access.file:
            return
        with self._reader.lock, self._writer.lock:
            access.close()
            self._reader.close()
            self._writer.close()

    def _opened(self, access: _Access) -> sqlite3.Connection:
        if access.connection is not None:
            return access.connection
        # Creating a file takes more than one transaction, and nothing must set it aside meanwhile.
        with self._opening, _locked_folder(self._path.parent):
            if create(self._path):
                # Those of a deleted file would be taken for the new one's.
                for suffix in ("-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            access.file = identity(self._path)
            # A cached statement would keep its vectors in memory.
            connection = connect(self._path, LOCK_SECONDS, cached_statements=0)
            try:
                vector_table.prepare(connection, self._path)
            except BaseException:
                connection.close()
                raise
        access.connection = connection
        return connection

    def _set_aside(self, access: _Access, problem: str) -> None:
        """Rename a corrupted file, unless another thread or process has already done so."""
        # Locked always in this order, to avoid deadlock. While the locks are held, nothing else here uses the file.
        with self._reader.lock, self._writer.lock, self._opening, _locked_folder(self._path.parent):
            broken = access.file
            access.close()
            if broken is None or identity(self._path) != broken:
                return
            self._reader.close()
            self._writer.close()
            number = 1
            while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
                number += 1
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        logger.warning(
            "the cache %s is corrupted (%s); it is kept as %s, and a new one is created", self._path, problem, aside
        )


class _Backoff:
    """Decides when to try a lock again after it timed out."""

    __slots__ = ("_again_at", "_pause")

    def __init__(self) -> None:
        self._again_at = -math.inf
        self._pause = LOCK_SECONDS

    def check(self, now: float, path: Path) -> None:
        """Check that the lock may be tried now.

        Raises:
            sqlite3.OperationalError: the lock must not be tried yet.
        """
        if now < self._again_at:
            raise _locked(f"{str(path)!r} is locked by another process; the next try is in {self._again_at - now:.1f} s")

    def failed(self, now: float) -> None:
        """Record that the lock timed out."""
        self._again_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_BACKOFF_SECONDS)

    def succeeded(self) -> None:
        """Record that the lock was acquired or not needed."""
        self._pause = LOCK_SECONDS


class _Access:
    """An access to the file: a connection that one thread at a time uses.

    Attributes:
        executor: runs the work in a thread of its own, so that waiting does not occupy the event loop's default executor.
        lock: held while the connection is in use.
        connection: the connection; `None` while it is closed.
        file: device and inode of the opened file.
        backoff: backoff after the lock timed out.
    """

    __slots__ = ("backoff", "connection", "executor", "file", "lock")

    def __init__(self) -> None:
        # The thread starts with the first piece of work, and ends when the executor is no longer referenced.
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pinecone-embed-cache")
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None
        self.file: tuple[int, int] | None = None
        self.backoff = _Backoff()

    def close(self) -> None:
        """Close the connection; it is reopened on demand."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()


class _Writer(_Access):
    """The access that writes.

    Attributes:
        joining: held while a put joins those that wait, or while they are taken.
        waiting: puts that the next write takes.
        write: the next write, submitted with the first of them.
        written: for each event loop that waits for the next write, a future that is done when the write has ended.
    """

    __slots__ = ("joining", "waiting", "write", "written")

    def __init__(self) -> None:
        super().__init__()
        self.joining = threading.Lock()
        self.waiting: list[_Put] = []
        self.write: Future[None]
        self.written: dict[asyncio.AbstractEventLoop, asyncio.Future[None]] = {}


class _Accesses(NamedTuple):
    reader: _Access
    writer: _Writer


def _close(reader: _Access, writer: _Writer) -> None:
    """Close both, each after its pending work; called in the writer's thread."""
    try:
        reader.executor.submit(reader.close).result()
    finally:
        # The writer last, because the last connection to close copies the WAL into the file.
        writer.close()


class _Put:
    """Entries waiting to be written.

    Attributes:
        entries: the values by key.
        error: why they failed; `None` if they did not.
    """

    __slots__ = ("entries", "error")

    def __init__(self, entries: Mapping[bytes, bytes]) -> None:
        self.entries = entries
        self.error: Exception | None = None


def _locked(message: str) -> sqlite3.OperationalError:
    import sqlite3  # noqa: PLC0415 - only programs with a cache should pay for importing it

    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = BUSY
    return error


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Lock the folder, so that only one process at a time runs the block.

    Raises:
        sqlite3.OperationalError: another process held the lock for too long.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise _locked(f"the folder {str(folder)!r} is locked by another process") from error
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(handle)
