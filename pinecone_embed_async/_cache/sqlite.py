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
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from pinecone_embed_async import _sqlite
from pinecone_embed_async._checks import short
from pinecone_embed_async._errors import ConfigurationError
from pinecone_embed_async._log import logger
from pinecone_embed_async._threads import in_thread, result_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from typing import Self

PAGE_BYTES = 16_384
"""Bytes per page. Three rows of 1024 numbers fit into one page. Reading all rows takes two thirds of the time needed with
pages of 4 KiB, where each row takes two pages."""

KIND = _sqlite.FileKind(
    "cache",
    application_id=int.from_bytes(b"PEA\x01", "big"),
    version=1,
    schema=("CREATE TABLE vectors (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, value BLOB NOT NULL) STRICT",),
    page_bytes=PAGE_BYTES,
)

AT_ONCE = 512
"""Maximum number of keys in one statement. SQLite allows 32,766 parameters; a write needs two per key."""

_PUT = "INSERT INTO vectors (key, value) VALUES {} ON CONFLICT (key) DO UPDATE SET value = excluded.value"

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
        path: path of the file; while it is open, two more files are next to it, with `-wal` and `-shm` appended.

    Raises:
        ConfigurationError: the folder of the file does not exist, or the path cannot be a file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = _sqlite.file_path(path)
        self._inherited: list[object] = []
        self._begin()

    def __repr__(self) -> str:
        return f"<SqliteCache {str(self._path)!r}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SqliteCache cannot be pickled: it holds an open file; make one in each process")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See `Cache.get_many`.

        Raises:
            ConfigurationError: the file is another program's or of another version of this package, or `keys` is not a
                sequence of bytes.
            sqlite3.Error: the file cannot be read, for a reason other than corruption.
        """
        if not isinstance(keys, Sequence) or isinstance(keys, (str, bytes)):
            raise ConfigurationError(f"keys must be a sequence of bytes, got {short(keys)}")
        reader, _ = self._own()
        return await in_thread(lambda: reader.use(lambda file: _read(file, keys)), reader.executor)

    async def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """See `Cache.put_many`.

        Raises:
            ConfigurationError: the file is another program's or of another version of this package, or `entries` is not a
                mapping of bytes to bytes.
            sqlite3.Error: the file cannot be written, for a reason other than corruption.
        """
        if not isinstance(entries, Mapping):
            raise ConfigurationError(f"entries must be a mapping of bytes to bytes, got {short(entries)}")
        _, writer = self._own()
        await writer.put(entries)

    async def aclose(self) -> None:
        """Close the file, after finishing the work in progress."""
        reader, writer = old = self._own()
        self._begin()

        def close() -> None:
            # One after the other: the last connection to close copies the WAL into the file, and of two that close at the
            # same moment neither is the last.
            try:
                reader.executor.submit(reader.close).result()
            finally:
                writer.close()

        try:
            # Both in one piece of work, so that a cancellation cannot close only one of them.
            await in_thread(close, writer.executor)
        finally:
            for access in old:
                access.executor.shutdown()

    def _begin(self) -> None:
        # Separate connections, so that look-ups do not queue behind writes.
        self._accesses = _Access(self._path), _Writer(self._path)

    def _own(self) -> tuple[_Access, _Writer]:
        """The accesses of this process, for reading and for writing; new ones after a fork."""
        if self._accesses[0].process != os.getpid():
            # SQLite forbids using or closing a connection in a forked child, and the threads stayed in the parent.
            self._inherited.append(self._accesses)
            self._begin()
        return self._accesses


@dataclass(slots=True)
class _Backoff:
    """Decides when to try a lock again after it timed out.

    Attributes:
        again_at: time before which the lock must not be tried.
        pause: length of the next pause.
    """

    again_at: float = -math.inf
    pause: float = LOCK_SECONDS

    def failed(self, now: float) -> None:
        """Record that the lock timed out."""
        self.again_at = now + self.pause
        self.pause = min(2 * self.pause, LONGEST_BACKOFF_SECONDS)


class _Access:
    """A connection to the file, used in a thread of its own. It shares nothing with others, as if in another process.

    Args:
        path: path of the file.

    Attributes:
        process: id of the process that created it.
        executor: the thread, so that waiting does not occupy the event loop's default executor.
        connection: the connection; `None` while it is closed.
    """

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        # The thread starts with the first piece of work, and ends when the executor is no longer referenced.
        self.executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pinecone-embed-cache")
        self.connection: sqlite3.Connection | None = None
        self._path = path
        self._file: tuple[int, int] | None = None
        self._backoff = _Backoff()

    def __del__(self) -> None:
        # Not while the thread uses it, because its work holds a reference.
        if self.process == os.getpid():
            self.close()

    def close(self) -> None:
        """Close the connection; it is reopened on demand."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()

    # All methods below run in the thread.

    def use(self, work: Callable[[sqlite3.Connection], ResultT], *, is_again: bool = False) -> ResultT:
        """Do some work with the file; if it is corrupted, do it again with a new one.

        Raises:
            ConfigurationError: the file is another program's or of another version of this package.
            sqlite3.Error: the file cannot be used.
        """
        left = self._backoff.again_at - time.monotonic()
        if left > 0:
            raise _locked(f"{str(self._path)!r} is locked; the next try is in {left:.1f} s")
        try:
            result = work(self._opened())
        except Exception as error:
            code = _sqlite.code_of(error)
            if code in _sqlite.LOCKED:
                self._backoff.failed(time.monotonic())
            if is_again or code not in _sqlite.CORRUPTED:
                raise
            self._set_aside(str(error))
            return self.use(work, is_again=True)
        self._backoff = _Backoff()
        return result

    def _opened(self) -> sqlite3.Connection:
        if self.connection is not None and _sqlite.identity(self._path) == self._file:
            return self.connection
        # The file may have been deleted or replaced while it was open.
        self.close()
        # Creating a file takes more than one transaction, and nothing must set it aside meanwhile.
        with _locked_folder(self._path.parent):
            if _sqlite.create(self._path):
                # Those of a deleted file would be taken for the new one's.
                for suffix in ("-wal", "-shm"):
                    Path(f"{self._path}{suffix}").unlink(missing_ok=True)
            self._file = _sqlite.identity(self._path)
            # A cached statement would keep its vectors in memory.
            self.connection = _sqlite.connect(self._path, LOCK_SECONDS, cached_statements=0)
            try:
                # A power failure can then lose only whole transactions, whose vectors are requested again.
                self.connection.execute("PRAGMA synchronous = NORMAL")
                _sqlite.prepare(self.connection, self._path, KIND)
            except BaseException:
                self.close()
                raise
        return self.connection

    def _set_aside(self, problem: str) -> None:
        """Rename a corrupted file, unless another thread or process has already done so."""
        with _locked_folder(self._path.parent):
            # Here, because the last connection to close removes the WAL by its name, which must not be a new file's by then.
            self.close()
            if self._file is None or _sqlite.identity(self._path) != self._file:
                return
            number = 1
            while (aside := self._path.with_name(f"{self._path.name}.corrupt-{number}")).exists():
                number += 1
            for suffix in ("-wal", "-shm", ""):
                with contextlib.suppress(FileNotFoundError):
                    Path(f"{self._path}{suffix}").rename(f"{aside}{suffix}")
        logger.warning(
            "the cache %s is corrupted (%s); it is kept as %s, and a new one is created", self._path, problem, aside
        )


class _Writer(_Access):
    """The access that writes. All puts that wait are written in one transaction."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        # Held while a put joins those that wait, or while they are taken.
        self._joining = threading.Lock()
        self._waiting: list[Mapping[bytes, bytes]] = []
        # The next write, submitted with the first put that waits; its result is the error of each put.
        self._write: Future[list[Exception | None]]
        self._written: dict[asyncio.AbstractEventLoop, asyncio.Future[list[Exception | None]]] = {}

    async def put(self, entries: Mapping[bytes, bytes]) -> None:
        """Write some entries."""
        loop = asyncio.get_running_loop()
        with self._joining:
            number = len(self._waiting)
            if number == 0:
                self._write = self.executor.submit(self._write_waiting)
            self._waiting.append(entries)
            # One future for each loop, not for each put, because waking a loop from a thread costs a system call.
            if loop not in self._written:
                self._written[loop] = asyncio.wrap_future(self._write)
            written = self._written[loop]
        error = (await result_of(written))[number]
        if error is not None:
            raise error

    def _write_waiting(self) -> list[Exception | None]:
        with self._joining:
            puts, self._waiting, self._written = self._waiting, [], {}
            # Its errors would keep the vectors of these puts in memory.
            del self._write
        return self._errors_of(puts)

    def _errors_of(self, puts: list[Mapping[bytes, bytes]]) -> list[Exception | None]:
        """Write puts; return the error of each."""
        try:
            entries = list(chain.from_iterable(put.items() for put in puts))
            self.use(lambda file: _write(file, entries))
        except Exception as error:  # noqa: BLE001 - raised to the caller of each put
            if len(puts) == 1 or _sqlite.code_of(error) in _sqlite.LOCKED:
                return [error] * len(puts)
            # One unwritable put must not fail the others.
            return [error for put in puts for error in self._errors_of([put])]
        return [None] * len(puts)


def _read(file: sqlite3.Connection, keys: Sequence[bytes]) -> list[bytes | None]:
    """The value of each key; `None` if there is none."""
    found: dict[bytes, bytes] = {}
    for start in range(0, len(keys), AT_ONCE):
        batch = keys[start : start + AT_ONCE]
        marks = ",".join("?" * len(batch))
        # By id, so that rows are read in the order in which they are stored.
        statement = f"SELECT key, value FROM vectors WHERE id IN (SELECT id FROM vectors WHERE key IN ({marks}))"  # noqa: S608
        found.update(file.execute(statement, batch))
    return [found.get(key) for key in keys]


def _write(file: sqlite3.Connection, entries: Sequence[tuple[bytes, bytes]]) -> None:
    """Write values by key, all or none."""
    # As few statements as possible, because after each the thread must wait for the GIL. A single one is a
    # transaction by itself.
    with _sqlite.transaction(file) if len(entries) > AT_ONCE else contextlib.nullcontext():
        for start in range(0, len(entries), AT_ONCE):
            batch = entries[start : start + AT_ONCE]
            file.execute(_PUT.format(",".join(["(?,?)"] * len(batch))), [*chain.from_iterable(batch)])


def _locked(message: str) -> sqlite3.OperationalError:
    import sqlite3  # noqa: PLC0415 - only programs with a cache should pay for importing it

    error = sqlite3.OperationalError(message)
    error.sqlite_errorcode = _sqlite.BUSY
    return error


@contextlib.contextmanager
def _locked_folder(folder: Path) -> Iterator[None]:
    """Lock the folder, so that only one connection at a time runs the block, of any process.

    Raises:
        sqlite3.OperationalError: another one held the lock for too long.
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
                    raise _locked(f"the folder {str(folder)!r} is locked") from error
            time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(handle)
